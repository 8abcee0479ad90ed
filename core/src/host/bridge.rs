//! One connection of an endpoint and its local end: bytes both ways, half-closes, resets.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};

use super::{ConnWaker, Local, LoopHalf};
use crate::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        endpoint::{ConnId, Endpoint},
        flow::kept::OF_READS,
        wire::code::StreamCode,
    },
};

/// Chunks taken from QUIC at once.
const BATCH: usize = 32;
/// Reads and writes of one direction before others have their turn.
const ROUNDS: usize = 16;
/// How long a local end that is to be reset may take for what comes before that, and what a local end that has failed had said may take to
/// be passed on.
const PARTING: Duration = Duration::from_secs(3);

/// A TCP socket of a runtime, as a bridge wants it.
///
/// Whatever becomes of its owner, its peer must not take half of the bytes for all of them: closing it is a reset (`SO_LINGER` with a time of
/// 0) from the beginning on, until [`close`](Self::close) takes that back. So a process that is killed in the middle resets its peers, too.
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

    /// Everything has been said in both directions: closing it is no reset any more, and what it still has to send goes out.
    fn close(&mut self);

    /// Whether everything that was written has gone out, so that a reset destroys nothing.
    fn is_drained(&self) -> bool;

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

/// What else is known of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    /// The local end has broken it off, with this code: what it had said is read and passed on, until then, and nothing is written to it.
    Failed {
        code: StreamCode,
        until: Instant,
    },
    /// The connection is over, and the local end is to be reset: it gets what came before, until then.
    Parting {
        until: Instant,
    },
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
    /// That is a copy, or most of its buffer.
    is_up_own: bool,
    /// It is among those that are looked after because nothing is read from them.
    is_watched: bool,
    up_state: Direction,
    /// Read from QUIC, not yet taken by the local end.
    down: VecDeque<Bytes>,
    down_finished: bool,
    down_state: Direction,
    fate: Fate,
    /// The endpoint has forgotten the connection.
    is_ended: bool,
}

/// The local end broke the connection off.
struct Broken(StreamCode);

impl<T: LocalTcp> Bridge<T> {
    /// A connection that begins with this local end.
    #[must_use]
    pub fn new(local: LocalEnd<T>, waker: ConnWaker<ConnId>) -> Self {
        Self {
            local,
            waker,
            up: None,
            is_up_own: false,
            is_watched: false,
            up_state: Direction::Open,
            down: VecDeque::new(),
            down_finished: false,
            down_state: Direction::Open,
            fate: Fate::Whole,
            is_ended: false,
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
        if matches!(self.fate, Fate::Parting { .. }) {
            return self.part(now, &mut cx);
        }
        if let LocalEnd::Dialing(dialing) = &mut self.local {
            if self.is_ended {
                return Turn::Over;
            }
            match dialing.as_mut().poll(&mut cx) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Ok(tcp)) => self.local = LocalEnd::Tcp(tcp),
                Poll::Ready(Err(_)) => {
                    endpoint.reset(now, id, StreamCode::PEER_ABORTED);
                    return Turn::Over;
                }
            }
        }
        let up = self.pump_up(now, &mut cx, endpoint, id, read_buffer);
        let down = self.pump_down(now, &mut cx, endpoint, id, scratch);
        match (self.fate, self.up_state, self.down_state) {
            (Fate::Parting { .. }, _, _) => self.part(now, &mut cx),
            // All its bytes are on their way, or are not wanted.
            (Fate::Failed { code, .. }, Direction::Discarding | Direction::Over, _) if self.up.is_none() => {
                endpoint.reset_delivered(now, id, code);
                Turn::Over
            }
            (Fate::Failed { code, until }, _, _) if until <= now => {
                endpoint.reset(now, id, code);
                Turn::Over
            }
            (Fate::Whole, Direction::Over, Direction::Over) => {
                self.local.close();
                Turn::Over
            }
            // Neither side wants to read or write any more.
            (Fate::Whole, Direction::Discarding, Direction::Over) => self.begin_parting(now, &mut cx),
            (Fate::Whole, Direction::Discarding, _) if self.is_ended => self.begin_parting(now, &mut cx),
            (Fate::Whole, _, Direction::Open) if self.is_ended && !self.down_finished => {
                self.begin_parting(now, &mut cx)
            }
            (Fate::Whole | Fate::Failed { .. }, _, _) if up || down => Turn::Again,
            (Fate::Whole | Fate::Failed { .. }, _, _) => Turn::Wait,
        }
    }

    /// Whether the local end may break off unheard: nothing is read from it at the moment. And a time that is set wants to be looked at.
    fn is_to_be_watched(&self) -> bool {
        let is_unread = match &self.local {
            LocalEnd::Tcp(_) => self.up.is_some() || self.up_state == Direction::Over,
            // Its user cannot break off after its end, but a break before is reported by nothing else.
            LocalEnd::Stream(_) => self.up.is_some(),
            LocalEnd::Dialing(_) => false,
        };
        is_unread || self.fate != Fate::Whole
    }

    /// Says once that it has to be looked after: call [`watch`](Self::watch) now and then, until that says no.
    pub fn wants_watch(&mut self) -> bool {
        self.is_to_be_watched() && !std::mem::replace(&mut self.is_watched, true)
    }

    /// Looks after it, and wakes it if something has happened; says whether it is to be watched further.
    pub fn watch(&mut self, now: Instant) -> bool {
        self.is_watched = self.is_to_be_watched();
        if !self.is_watched {
            return false;
        }
        let has_news = match (self.fate, &self.local) {
            (Fate::Whole, LocalEnd::Tcp(tcp)) => tcp.take_error().map(|_| StreamCode::PEER_ABORTED),
            (Fate::Whole, LocalEnd::Stream(half)) => half.dropped(),
            (Fate::Whole, LocalEnd::Dialing(_)) => None,
            (Fate::Failed { code, until }, _) => (until <= now).then_some(code),
            (Fate::Parting { .. }, _) => Some(StreamCode::PEER_ABORTED),
        };
        if let Some(code) = has_news {
            if self.fate == Fate::Whole {
                self.fail(now, code);
            }
            self.waker.wake();
        }
        true
    }

    /// The local end has broken it off.
    fn fail(&mut self, now: Instant, code: StreamCode) {
        if self.fate == Fate::Whole {
            self.fate = Fate::Failed { code, until: now + PARTING };
        }
        self.down.clear();
    }

    /// The local end is to be reset, and gets what came before.
    fn begin_parting(&mut self, now: Instant, cx: &mut Context<'_>) -> Turn {
        match &mut self.local {
            LocalEnd::Stream(half) => {
                half.part(&mut self.down, self.down_finished);
                return Turn::Over;
            }
            LocalEnd::Dialing(_) => return Turn::Over,
            LocalEnd::Tcp(_) => self.fate = Fate::Parting { until: now + PARTING },
        }
        self.part(now, cx)
    }

    fn part(&mut self, now: Instant, cx: &mut Context<'_>) -> Turn {
        let (Fate::Parting { until }, LocalEnd::Tcp(_)) = (self.fate, &self.local) else { return Turn::Over };
        if until <= now {
            return Turn::Over;
        }
        match self.local.poll_write(cx, &mut self.down) {
            Poll::Pending => Turn::Wait,
            Poll::Ready(Ok(())) if !self.local.is_drained() => Turn::Wait,
            Poll::Ready(Ok(()) | Err(Broken(_))) => Turn::Over,
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
    ) -> bool {
        for _ in 0..ROUNDS {
            if let Some(chunk) = self.up.take() {
                let mut chunks = [chunk];
                match endpoint.write(now, id, &mut chunks) {
                    WriteOutcome::Written { .. } => {}
                    WriteOutcome::Blocked { .. } => {
                        let [rest] = chunks;
                        // A few bytes must not keep a whole read buffer for as long as QUIC has no room.
                        let is_own = std::mem::replace(&mut self.is_up_own, true) || rest.len() >= OF_READS;
                        self.up = Some(if is_own { rest } else { Bytes::copy_from_slice(&rest) });
                        return false;
                    }
                    WriteOutcome::Stopped(_) | WriteOutcome::Gone => self.up_state = Direction::Discarding,
                }
            }
            if self.up_state == Direction::Over {
                return false;
            }
            match self.local.poll_read(cx, read_buffer) {
                Poll::Pending => return false,
                Poll::Ready(Local::Data(chunk)) if self.up_state == Direction::Open => {
                    (self.up, self.is_up_own) = (Some(chunk), false);
                }
                // Its neighbours have better things to do than to wait for what is thrown away.
                Poll::Ready(Local::Data(_)) => return true,
                Poll::Ready(Local::End) => {
                    // After a failure this is where the bytes stop, and no end that the other side may take for one.
                    if self.up_state == Direction::Open && self.fate == Fate::Whole {
                        endpoint.finish(now, id);
                    }
                    self.up_state = Direction::Over;
                }
                Poll::Ready(Local::Broken(code)) => {
                    self.fail(now, code);
                    self.up_state = Direction::Over;
                }
            }
        }
        true
    }

    /// QUIC to local end; says whether there may be more at once.
    fn pump_down(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        id: ConnId,
        scratch: &mut Vec<Bytes>,
    ) -> bool {
        for _ in 0..ROUNDS {
            if self.down_state == Direction::Over || self.fate != Fate::Whole {
                return false;
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
                        self.break_off(now, StreamCode(code));
                        return false;
                    }
                    // A notice says, or has said, what became of it.
                    ReadOutcome::Gone => return false,
                }
            }
            match self.local.poll_write(cx, &mut self.down) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Broken(code))) => {
                    // It may have said something before.
                    self.fail(now, code);
                    return true;
                }
            }
            if self.down.is_empty() && self.down_finished {
                self.local.finish();
                self.down_state = Direction::Over;
            }
            if is_empty {
                return false;
            }
        }
        true
    }

    /// The other side reads no more.
    pub fn stopped(&mut self, code: StreamCode) {
        if self.up_state == Direction::Open {
            self.up_state = Direction::Discarding;
            self.up = None;
            if let LocalEnd::Stream(half) = &mut self.local {
                half.stopped(code);
            }
        }
    }

    /// The endpoint has forgotten the connection, which has ended in order.
    pub fn ended(&mut self) {
        self.is_ended = true;
        if self.up_state == Direction::Open {
            self.up_state = Direction::Discarding;
            self.up = None;
        }
    }

    /// The connection was broken off: so is the local end, after what came before, and never by a clean end. Says whether that takes another
    /// turn, for which it is woken; if not, the bridge is over.
    pub fn break_off(&mut self, now: Instant, code: StreamCode) -> bool {
        match (&mut self.local, self.fate) {
            (LocalEnd::Tcp(_), Fate::Whole) => {
                self.up = None;
                self.fate = Fate::Parting { until: now + PARTING };
                self.waker.wake();
                return true;
            }
            (LocalEnd::Tcp(_), Fate::Parting { .. }) => return true,
            (LocalEnd::Stream(half), _) => half.break_off(&mut self.down, code),
            (LocalEnd::Dialing(_), _) | (LocalEnd::Tcp(_), Fate::Failed { .. }) => {}
        }
        (self.up_state, self.down_state) = (Direction::Over, Direction::Over);
        false
    }

    /// Whether it is only there because its local end has not got everything yet.
    #[must_use]
    pub fn is_left_over(&self) -> bool {
        self.is_ended || matches!(self.fate, Fate::Parting { .. })
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
                Err(_) => Local::Broken(StreamCode::PEER_ABORTED),
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
                return Poll::Ready(Err(Broken(StreamCode::PEER_ABORTED)));
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

    fn close(&mut self) {
        if let Self::Tcp(tcp) = self {
            tcp.close();
        }
    }

    fn is_drained(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_drained(),
            Self::Dialing(_) | Self::Stream(_) => true,
        }
    }
}
