//! One connection of an endpoint and its local end: bytes both ways, half-closes, resets.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream};
use towline_core::{
    host::ConnWaker,
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        code,
        endpoint::{ConnId, Endpoint},
    },
};

use crate::stream::{Half, Local};

/// One read from TCP.
const READ: usize = 64 * 1024;
/// Chunks taken from QUIC at once.
const BATCH: usize = 32;
/// Reads and writes of one direction before others have their turn.
const ROUNDS: usize = 16;

/// The local end.
pub(crate) enum LocalEnd {
    /// A provider is dialling.
    Dialing(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Tcp(TcpStream),
    Stream(Half),
}

/// What is left to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Something will wake it.
    Wait,
    /// Come again after the others.
    Again,
    /// It is over.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// The reader has gone: what comes is thrown away until its end.
    Discarding,
    Over,
}

/// A connection and its local end.
pub(crate) struct Bridge {
    local: LocalEnd,
    pub(crate) waker: ConnWaker<ConnId>,
    /// Read from the local end, not yet taken by QUIC.
    up: Option<Bytes>,
    /// It is among those that are looked after because nothing is read from them.
    is_watched: bool,
    up_state: Direction,
    /// Read from QUIC, not yet taken by the local end.
    down: VecDeque<Bytes>,
    down_finished: bool,
    down_state: Direction,
}

/// The local end broke the connection off.
struct Broken(u64);

/// How long a provider may dial.
const DIAL: Duration = Duration::from_secs(10);

/// Dials a local service.
pub(crate) fn dial(address: &str) -> LocalEnd {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        match tokio::time::timeout(DIAL, TcpStream::connect(&address)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
        }
        .inspect_err(|error| tracing::warn!(%address, %error, "cannot reach the service; the connection is reset"))
    }))
}

impl Bridge {
    pub(crate) fn new(local: LocalEnd, waker: ConnWaker<ConnId>) -> Self {
        if let LocalEnd::Tcp(tcp) = &local {
            set_nodelay(tcp);
        }
        Self {
            local,
            waker,
            up: None,
            is_watched: false,
            up_state: Direction::Open,
            down: VecDeque::new(),
            down_finished: false,
            down_state: Direction::Open,
        }
    }

    /// Moves what can be moved. `read_buffer` and `scratch` are shared by all bridges of a loop.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: ConnId,
        read_buffer: &mut BytesMut,
        scratch: &mut Vec<Bytes>,
    ) -> Turn {
        let waker = self.waker.begin();
        let mut cx = Context::from_waker(&waker);
        if let LocalEnd::Dialing(dialing) = &mut self.local {
            match dialing.as_mut().poll(&mut cx) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Ok(tcp)) => {
                    set_nodelay(&tcp);
                    self.local = LocalEnd::Tcp(tcp);
                }
                Poll::Ready(Err(_)) => {
                    endpoint.reset(now, id, code::PEER_ABORTED);
                    return Turn::Over;
                }
            }
        }
        let moved = self
            .pump_up(now, &mut cx, endpoint, id, read_buffer)
            .and_then(|up| Ok(self.pump_down(now, &mut cx, endpoint, id, scratch)? || up));
        match moved {
            Err(Broken(code)) => {
                endpoint.reset(now, id, code);
                Turn::Over
            }
            Ok(_) if self.up_state == Direction::Over && self.down_state == Direction::Over => Turn::Over,
            Ok(true) => Turn::Again,
            Ok(false) => Turn::Wait,
        }
    }

    /// QUIC takes nothing, so nothing is read, and a reset of the local end would go unheard.
    pub(crate) fn is_blocked(&self) -> bool {
        self.up.is_some() && matches!(self.local, LocalEnd::Tcp(_))
    }

    /// Says once that it has to be looked after.
    pub(crate) fn wants_watch(&mut self) -> bool {
        self.is_blocked() && !std::mem::replace(&mut self.is_watched, true)
    }

    /// Looks after it: the code with which the local end broke it off, if it did. Without an answer of its own it is watched no more.
    pub(crate) fn watch(&mut self) -> Option<u64> {
        self.is_watched = self.is_blocked();
        match &self.local {
            LocalEnd::Tcp(tcp) if self.is_watched => tcp.take_error().ok().flatten().map(|_| code::PEER_ABORTED),
            LocalEnd::Tcp(_) | LocalEnd::Dialing(_) | LocalEnd::Stream(_) => None,
        }
    }

    /// Local end to QUIC; says whether there may be more at once.
    fn pump_up(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        id: ConnId,
        read_buffer: &mut BytesMut,
    ) -> Result<bool, Broken> {
        for _ in 0..ROUNDS {
            if let Some(chunk) = self.up.take() {
                let mut chunks = [chunk];
                match endpoint.write(now, id, &mut chunks) {
                    WriteOutcome::Written { .. } => {}
                    WriteOutcome::Blocked { .. } => {
                        let [rest] = chunks;
                        self.up = Some(rest);
                        return Ok(false);
                    }
                    WriteOutcome::Stopped(_) | WriteOutcome::Gone => self.up_state = Direction::Discarding,
                }
            }
            if self.up_state == Direction::Over {
                return Ok(false);
            }
            match self.local.poll_read(cx, read_buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Local::Data(chunk)) if self.up_state == Direction::Open => self.up = Some(chunk),
                Poll::Ready(Local::Data(_)) => {}
                Poll::Ready(Local::End) => {
                    if self.up_state == Direction::Open {
                        endpoint.finish(now, id);
                    }
                    self.up_state = Direction::Over;
                }
                Poll::Ready(Local::Broken(code)) => return Err(Broken(code)),
            }
        }
        Ok(true)
    }

    /// QUIC to local end; says whether there may be more at once.
    fn pump_down(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        id: ConnId,
        scratch: &mut Vec<Bytes>,
    ) -> Result<bool, Broken> {
        for _ in 0..ROUNDS {
            if self.down_state == Direction::Over {
                return Ok(false);
            }
            let mut is_empty = false;
            if self.down.is_empty() && !self.down_finished {
                let outcome = endpoint.read(now, id, scratch, BATCH);
                self.down.extend(scratch.drain(..));
                match outcome {
                    ReadOutcome::More => {}
                    ReadOutcome::Blocked => is_empty = true,
                    ReadOutcome::Finished => self.down_finished = true,
                    // Notice::Reset says it, too; whichever comes first.
                    ReadOutcome::Reset(code) => {
                        self.break_off(code);
                        return Ok(false);
                    }
                    ReadOutcome::Gone => return Ok(false),
                }
            }
            match self.local.poll_write(cx, &mut self.down) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            if self.down.is_empty() && self.down_finished {
                self.local.finish(cx);
                self.down_state = Direction::Over;
            }
            if is_empty {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The other side reads no more.
    pub(crate) fn stopped(&mut self, code: u64) {
        if self.up_state == Direction::Open {
            self.up_state = Direction::Discarding;
            self.up = None;
            if let LocalEnd::Stream(half) = &mut self.local {
                half.stopped(code);
            }
        }
    }

    /// The connection was broken off: so is the local end, and never by a clean end.
    pub(crate) fn break_off(&mut self, code: u64) {
        match &mut self.local {
            LocalEnd::Dialing(_) => {}
            // With a linger time of 0, closing sends RST.
            LocalEnd::Tcp(tcp) => drop(SockRef::from(&*tcp).set_linger(Some(Duration::ZERO))),
            LocalEnd::Stream(half) => half.break_off(code),
        }
        (self.up_state, self.down_state) = (Direction::Over, Direction::Over);
    }
}

fn set_nodelay(tcp: &TcpStream) {
    // It fails when the peer has gone already; reading will tell.
    let _ = tcp.set_nodelay(true);
}

impl LocalEnd {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Local> {
        let tcp = match self {
            Self::Dialing(_) => return Poll::Pending,
            Self::Stream(half) => return half.poll_read(cx),
            Self::Tcp(tcp) => tcp,
        };
        if buffer.capacity() < READ / 4 {
            buffer.reserve(READ);
        }
        // A short read tells tokio that there is no more: the next one is no system call.
        match pin!(tcp.read_buf(buffer)).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Local::End),
            Poll::Ready(Ok(_)) => Poll::Ready(Local::Data(buffer.split().freeze())),
            Poll::Ready(Err(_)) => Poll::Ready(Local::Broken(code::PEER_ABORTED)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<Result<(), Broken>> {
        let tcp = match self {
            Self::Dialing(_) => return Poll::Pending,
            Self::Stream(half) => return half.poll_write(cx, chunks).map_err(Broken),
            Self::Tcp(tcp) => tcp,
        };
        while !chunks.is_empty() {
            match tcp.poll_write_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken(code::PEER_ABORTED))),
                Poll::Ready(Ok(())) => {}
            }
            let mut slices = [IoSlice::new(&[]); BATCH];
            for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
                *slice = IoSlice::new(chunk);
            }
            let used = chunks.len().min(BATCH);
            match tcp.try_write_vectored(&slices[..used]) {
                Ok(mut written) => {
                    while let Some(chunk) = chunks.front_mut().filter(|_| written > 0) {
                        let length = written.min(chunk.len());
                        chunk.advance(length);
                        written -= length;
                        if chunk.is_empty() {
                            chunks.pop_front();
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Broken(code::PEER_ABORTED))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, _: &mut Context<'_>) {
        match self {
            Self::Dialing(_) => {}
            // It fails when the peer has gone; reading will tell.
            Self::Tcp(tcp) => drop(SockRef::from(&*tcp).shutdown(std::net::Shutdown::Write)),
            Self::Stream(half) => half.finish(),
        }
    }
}
