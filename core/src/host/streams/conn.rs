//! One connection of a loop, and what the binding has asked of it.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};

use crate::{
    host::{byte_stream::ByteStream, runtime::TcpStream, tcp, wakes::ConnWaker},
    net::{Close, ConnId, Event, Fault},
};

type Question = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Fault>> + Send>>;
type Dial<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// A connection in any phase.
pub(super) struct Conn<S> {
    pub(super) id: ConnId,
    pub(super) waker: ConnWaker<ConnId>,
    /// It is in the loop's queue of those that a command gave something to do.
    pub(super) is_queued: bool,
    phase: Phase<S>,
    credit: Option<usize>,
    output: Option<Output>,
}

enum Phase<S> {
    /// Nothing was asked of it, or the answer has been given.
    Idle,
    Resolving(Question),
    Connecting(Dial<S>),
    Open(Transport<S>),
}

/// What carries the bytes of an open connection.
pub(super) enum Transport<S> {
    /// A socket.
    Tcp(S),
    /// Any other byte stream.
    Stream(Box<dyn ByteStream>),
}

/// Bytes on their way into a socket.
struct Output {
    left: Bytes,
    len: u64,
}

impl<S: TcpStream> Conn<S> {
    pub(super) fn new(waker: ConnWaker<ConnId>, id: ConnId) -> Self {
        Self { id, waker, is_queued: false, phase: Phase::Idle, credit: None, output: None }
    }

    /// What carries a connection that came in, or was opened elsewhere.
    pub(super) fn open(&mut self, transport: Transport<S>) {
        self.phase = Phase::Open(transport);
    }

    pub(super) fn resolve(&mut self, question: impl Future<Output = Result<Vec<IpAddr>, Fault>> + Send + 'static) {
        self.phase = Phase::Resolving(Box::pin(question));
    }

    pub(super) fn connect(&mut self, address: SocketAddr) {
        self.phase = Phase::Connecting(Box::pin(tcp::connect(address)));
    }

    pub(super) fn read(&mut self, max: usize) {
        self.credit = Some(max);
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        self.output = Some(Output { len: bytes.len() as u64, left: bytes });
    }

    /// Closes what is open, in good order or with a reset; whatever else is under way ends with it. A stream that is left has to end in good
    /// order still.
    pub(super) fn close(self, how: Close, unread: usize) -> Option<Box<dyn ByteStream>> {
        match (self.phase, how) {
            (Phase::Open(Transport::Tcp(socket)), Close::Fin) => {
                tcp::close(socket, unread);
                None
            }
            (Phase::Open(Transport::Stream(stream)), Close::Fin) => Some(stream),
            (Phase::Open(_), Close::Abort) | (Phase::Idle | Phase::Resolving(_) | Phase::Connecting(_), _) => None,
        }
    }

    /// The next thing that has happened to it.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>, buffer: &mut S::Buffer) -> Poll<Event> {
        match &mut self.phase {
            Phase::Idle => Poll::Pending,
            Phase::Resolving(question) => question.as_mut().poll(cx).map(|found| {
                self.phase = Phase::Idle;
                match found {
                    Ok(addresses) => Event::Resolved { addresses },
                    Err(fault) => Event::ResolveFailed { fault },
                }
            }),
            Phase::Connecting(dial) => dial.as_mut().poll(cx).map(|dialled| match dialled {
                Ok(socket) => {
                    self.phase = Phase::Open(Transport::Tcp(socket));
                    Event::Connected
                }
                Err(error) => {
                    self.phase = Phase::Idle;
                    Event::ConnectFailed { fault: Fault::from(&error) }
                }
            }),
            Phase::Open(transport) => {
                if let Poll::Ready(event) = poll_output(cx, transport, &mut self.output) {
                    return Poll::Ready(event);
                }
                poll_input(cx, transport, &mut self.credit, buffer)
            }
        }
    }
}

impl Output {
    /// Says how many bytes it was, when the socket has taken them all.
    fn poll(&mut self, cx: &mut Context<'_>, transport: &mut Transport<impl TcpStream>) -> Poll<io::Result<u64>> {
        while !self.left.is_empty() {
            let written = match transport {
                Transport::Tcp(socket) => socket.poll_write(cx, &self.left),
                Transport::Stream(stream) => stream.poll_write(cx, &self.left),
            };
            match written {
                Poll::Ready(Ok(written)) => self.left.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match transport {
            Transport::Tcp(_) => Poll::Ready(Ok(self.len)),
            Transport::Stream(stream) => stream.poll_flush(cx).map_ok(|()| self.len),
        }
    }
}

/// Writes what there is; says when all of it was taken.
fn poll_output(
    cx: &mut Context<'_>,
    transport: &mut Transport<impl TcpStream>,
    output: &mut Option<Output>,
) -> Poll<Event> {
    let Some(writing) = output else { return Poll::Pending };
    writing.poll(cx, transport).map(|written| {
        *output = None;
        match written {
            Ok(len) => Event::Sent { len },
            Err(error) => Event::Error { fault: Fault::from(&error) },
        }
    })
}

/// Reads once, if there is a credit for it.
fn poll_input<S: TcpStream>(
    cx: &mut Context<'_>,
    transport: &mut Transport<S>,
    credit: &mut Option<usize>,
    buffer: &mut S::Buffer,
) -> Poll<Event> {
    let Some(max) = *credit else { return Poll::Pending };
    let read = match transport {
        Transport::Tcp(socket) => socket.poll_read(cx, buffer, max),
        Transport::Stream(stream) => stream.poll_read(cx, max),
    };
    read.map(|read| {
        *credit = None;
        match read {
            Ok(bytes) if bytes.is_empty() => Event::End,
            Ok(bytes) => Event::Data { bytes },
            Err(error) => Event::Error { fault: Fault::from(&error) },
        }
    })
}
