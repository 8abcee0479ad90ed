//! One connection of an endpoint and its local end: bytes both ways, half-closes, resets.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};

use super::{ConnWaker, Local, LoopHalf};
use crate::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        code,
        endpoint::{ConnId, Endpoint},
    },
};

/// Chunks taken from QUIC at once.
const BATCH: usize = 32;
/// Reads and writes of one direction before others have their turn.
const ROUNDS: usize = 16;

/// A TCP socket of a runtime, as a bridge wants it.
pub trait LocalTcp {
    /// What its reads go through; all sockets of a loop share one.
    type Buffer;

    /// Reads once; no bytes mean the end.
    ///
    /// # Errors
    /// The socket's.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Self::Buffer) -> Poll<io::Result<Bytes>>;

    /// Writes some of the slices.
    ///
    /// # Errors
    /// The socket's.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ends the writing direction.
    fn finish(&mut self);

    /// Closing it is to be a reset.
    fn break_off(&mut self);

    /// The error that the kernel has for it, if any.
    fn take_error(&self) -> Option<io::Error>;
}

/// The local end.
pub enum LocalEnd<T> {
    /// A provider is dialling.
    Dialing(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>),
    /// A TCP socket.
    Tcp(T),
    /// A stream of the library.
    Stream(LoopHalf),
}

impl<T> std::fmt::Debug for LocalEnd<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dialing(_) => "Dialing",
            Self::Tcp(_) => "Tcp",
            Self::Stream(_) => "Stream",
        })
    }
}

/// What is left to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
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
#[derive(Debug)]
pub struct Bridge<T> {
    local: LocalEnd<T>,
    /// Wakes it.
    pub waker: ConnWaker<ConnId>,
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

impl<T: LocalTcp> Bridge<T> {
    /// A connection that begins with this local end.
    #[must_use]
    pub fn new(local: LocalEnd<T>, waker: ConnWaker<ConnId>) -> Self {
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
    pub fn turn(
        &mut self,
        now: Instant,
        endpoint: &mut Endpoint,
        id: ConnId,
        read_buffer: &mut T::Buffer,
        scratch: &mut Vec<Bytes>,
    ) -> Turn {
        let waker = self.waker.begin();
        let mut cx = Context::from_waker(&waker);
        if let LocalEnd::Dialing(dialing) = &mut self.local {
            match dialing.as_mut().poll(&mut cx) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Ok(tcp)) => self.local = LocalEnd::Tcp(tcp),
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
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.up.is_some() && matches!(self.local, LocalEnd::Tcp(_))
    }

    /// Says once that it has to be looked after.
    pub fn wants_watch(&mut self) -> bool {
        self.is_blocked() && !std::mem::replace(&mut self.is_watched, true)
    }

    /// Looks after it: the code with which the local end broke it off, if it did. Without an answer of its own it is watched no more.
    pub fn watch(&mut self) -> Option<u64> {
        self.is_watched = self.is_blocked();
        match &self.local {
            LocalEnd::Tcp(tcp) if self.is_watched => tcp.take_error().map(|_| code::PEER_ABORTED),
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
        read_buffer: &mut T::Buffer,
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
                self.local.finish();
                self.down_state = Direction::Over;
            }
            if is_empty {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The other side reads no more.
    pub fn stopped(&mut self, code: u64) {
        if self.up_state == Direction::Open {
            self.up_state = Direction::Discarding;
            self.up = None;
            if let LocalEnd::Stream(half) = &mut self.local {
                half.stopped(code);
            }
        }
    }

    /// The connection was broken off: so is the local end, and never by a clean end.
    pub fn break_off(&mut self, code: u64) {
        match &mut self.local {
            LocalEnd::Dialing(_) => {}
            LocalEnd::Tcp(tcp) => tcp.break_off(),
            LocalEnd::Stream(half) => half.break_off(code),
        }
        (self.up_state, self.down_state) = (Direction::Over, Direction::Over);
    }
}

impl<T: LocalTcp> LocalEnd<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut T::Buffer) -> Poll<Local> {
        match self {
            Self::Dialing(_) => Poll::Pending,
            Self::Stream(half) => half.poll_read(cx),
            Self::Tcp(tcp) => Poll::Ready(match ready!(tcp.poll_read(cx, buffer)) {
                Ok(bytes) if bytes.is_empty() => Local::End,
                Ok(bytes) => Local::Data(bytes),
                Err(_) => Local::Broken(code::PEER_ABORTED),
            }),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<Result<(), Broken>> {
        let tcp = match self {
            Self::Dialing(_) => return Poll::Pending,
            Self::Stream(half) => return half.poll_write(cx, chunks).map_err(Broken),
            Self::Tcp(tcp) => tcp,
        };
        while !chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            for (slice, chunk) in slices.iter_mut().zip(chunks.iter()) {
                *slice = IoSlice::new(chunk);
            }
            let used = slices.get(..chunks.len().min(BATCH)).unwrap_or_default();
            let Ok(mut written) = ready!(tcp.poll_write(cx, used)) else {
                return Poll::Ready(Err(Broken(code::PEER_ABORTED)));
            };
            while let Some(chunk) = chunks.front_mut().filter(|_| written > 0) {
                let length = written.min(chunk.len());
                chunk.advance(length);
                written -= length;
                if chunk.is_empty() {
                    chunks.pop_front();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) {
        match self {
            Self::Dialing(_) => {}
            Self::Tcp(tcp) => tcp.finish(),
            Self::Stream(half) => half.finish(),
        }
    }
}
