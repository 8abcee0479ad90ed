//! Implements the runtime of `towline_core::host` with smol: sockets, an alarm, clocks, tasks, a transport for DNS.

use std::{
    future::Future,
    io::{self, IoSlice, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_io::{Async, Timer};
use bytes::Bytes;
use towline_core::{host, quic::Epoch};

use crate::{dns, stream::Stream};

/// The smol runtime.
#[derive(Debug, Clone, Copy)]
pub struct Smol;

impl host::Runtime for Smol {
    type Udp = Udp;
    type Listener = Listener;
    type Tcp = Tcp;
    type Alarm = Alarm;
    type Dns = dns::Runtime;
    type Stream = Stream;

    fn now() -> Instant {
        Instant::now()
    }

    fn epoch() -> Epoch {
        epoch()
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name(name).spawn(|| smol::block_on(task())).map(drop)
    }

    async fn look_up(address: &str) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve(address).await
    }
}

/// A UDP socket.
#[derive(Debug)]
pub struct Udp {
    socket: Async<UdpSocket>,
    /// Whether datagrams may be waiting: true until an attempt has found none.
    is_readable: bool,
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl host::UdpSocket for Udp {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Async::new_nonblocking(socket.into())?, is_readable: true })
    }

    fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            match receive(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match send(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                done => return Poll::Ready(done),
            }
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(Async<TcpListener>);

impl host::TcpListener for Listener {
    type Stream = Tcp;

    fn new(socket: OwnedFd) -> io::Result<Self> {
        Async::new_nonblocking(socket.into()).map(Self)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Tcp, SocketAddr)>> {
        loop {
            match self.0.get_ref().accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_readable(cx))?,
                accepted => {
                    let (socket, peer) = accepted?;
                    return Poll::Ready(Ok((Tcp::new(Async::new(socket)?), peer)));
                }
            }
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Tcp {
    socket: Async<TcpStream>,
    /// Whether bytes may be waiting: true until a read has returned less than its limit.
    is_readable: bool,
}

impl Tcp {
    fn new(socket: Async<TcpStream>) -> Self {
        Self { socket, is_readable: true }
    }
}

impl AsFd for Tcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl host::TcpStream for Tcp {
    type Buffer = host::ReadBuffer;

    fn buffer(size: usize) -> host::ReadBuffer {
        host::ReadBuffer::new(size)
    }

    async fn connect(address: SocketAddr) -> io::Result<Self> {
        Async::<TcpStream>::connect(address).await.map(Self::new)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut host::ReadBuffer,
        max: usize,
    ) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            let space = buffer.space(max);
            match self.socket.get_ref().read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(len) => {
                    self.is_readable = len == space.len();
                    return Poll::Ready(Ok(buffer.take(len)));
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }
}

/// A timer.
#[derive(Debug)]
pub struct Alarm {
    timer: Timer,
    due: Option<Instant>,
}

impl host::Alarm for Alarm {
    fn new() -> Self {
        Self { timer: Timer::never(), due: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        if self.due != Some(due) {
            self.due = Some(due);
            self.timer.set_at(due);
        }
        Pin::new(&mut self.timer).poll(cx).is_ready()
    }
}

/// The current time on both clocks.
#[must_use]
pub fn epoch() -> Epoch {
    Epoch { instant: Instant::now(), unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) }
}
