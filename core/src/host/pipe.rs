//! A connection as its user holds it, and the loop's half of it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::spn::{
    flow::kept::{Kept, OF_DATAGRAMS},
    wire::code,
};

/// Bytes that a stream holds in each direction before it pushes back.
const CAPACITY: usize = 256 * 1024;

/// The user's half; a runtime's stream gives it the traits of that runtime.
///
/// A connection that was broken off, here or there or by the loss of a hub, is an error of kind `ConnectionReset`, never an end of file.
/// Dropping it breaks the connection off, unless both directions have ended. What was written, and what had come, before a break goes first, as
/// far as a few seconds allow.
#[derive(Debug)]
pub struct UserHalf(Arc<Mutex<Pipe>>);

/// The loop's half.
#[derive(Debug)]
pub struct LoopHalf(Arc<Mutex<Pipe>>);

#[derive(Debug, Default)]
struct Pipe {
    /// From the user.
    up: Flow,
    /// To the user.
    down: Flow,
    /// Broken off by the network, with this code.
    broken: Option<u64>,
    /// Broken off by the user, with this code.
    dropped: Option<u64>,
}

#[derive(Debug, Default)]
struct Flow {
    chunks: Kept,
    bytes: usize,
    is_finished: bool,
    /// The reader has gone, with this code.
    stopped: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push(chunk, OF_DATAGRAMS);
        wake(&mut self.reader);
    }

    fn took(&mut self, bytes: usize) {
        self.bytes -= bytes;
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn lock(pipe: &Arc<Mutex<Pipe>>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(code: u64) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("{} (code 0x{code:x})", code::text(code)))
}

/// Both halves of a connection.
#[must_use]
pub fn pair() -> (UserHalf, LoopHalf) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (UserHalf(pipe.clone()), LoopHalf(pipe))
}

impl UserHalf {
    /// Breaks the connection off, with a stream code (docs/protocols/spn.md, Codes).
    pub fn reset(self, code: u64) {
        lock(&self.0).dropped = Some(code);
    }

    /// Reads what is there; no bytes mean the end.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        let was_broken = pipe.broken;
        let flow = &mut pipe.down;
        let (wanted, taken) = (buffer.len(), flow.chunks.read(buffer));
        if taken > 0 {
            flow.took(taken);
        } else if !flow.is_finished && wanted > 0 {
            // What came before the break comes first.
            if let Some(code) = was_broken {
                return Poll::Ready(Err(broken(code)));
            }
            flow.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(taken))
    }

    /// Takes bytes, as long as there is room.
    ///
    /// # Errors
    /// The connection was broken off, or this direction is over.
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.broken.or(pipe.up.stopped) {
            return Poll::Ready(Err(broken(code)));
        }
        let flow = &mut pipe.up;
        if flow.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = data.len().min(CAPACITY.saturating_sub(flow.bytes));
        if length == 0 && !data.is_empty() {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if length > 0 {
            let data = data.get(..length).unwrap_or_default();
            if length < OF_DATAGRAMS {
                flow.bytes += length;
                flow.chunks.copy(data);
                wake(&mut flow.reader);
            } else {
                flow.push(Bytes::copy_from_slice(data));
            }
        }
        Poll::Ready(Ok(length))
    }

    /// Waits until the loop has taken everything.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.broken {
            return Poll::Ready(Err(broken(code)));
        }
        if pipe.up.chunks.is_empty() || pipe.up.stopped.is_some() {
            return Poll::Ready(Ok(()));
        }
        pipe.up.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the writing direction in good order; the other goes on.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn shutdown(&self) -> io::Result<()> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.broken {
            return Err(broken(code));
        }
        pipe.up.is_finished = true;
        wake(&mut pipe.up.reader);
        Ok(())
    }
}

impl Drop for UserHalf {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        let is_over = pipe.up.is_finished && pipe.down.is_finished && pipe.down.chunks.is_empty();
        if !is_over {
            pipe.dropped.get_or_insert(code::PEER_ABORTED);
        }
        wake(&mut pipe.up.reader);
        wake(&mut pipe.down.writer);
    }
}

/// What the loop finds at a local end.
#[derive(Debug)]
pub enum Local {
    /// Bytes.
    Data(Bytes),
    /// It has ended in good order.
    End,
    /// The local end broke it off, with this code.
    Broken(u64),
}

impl LoopHalf {
    /// What the user has written.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Local> {
        let mut pipe = lock(&self.0);
        if let Some(chunk) = pipe.up.chunks.pop() {
            pipe.up.took(chunk.len());
            return Poll::Ready(Local::Data(chunk));
        }
        if let Some(code) = pipe.dropped {
            return Poll::Ready(Local::Broken(code));
        }
        if pipe.up.is_finished {
            return Poll::Ready(Local::End);
        }
        pipe.up.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The code with which the user has broken it off, if it did.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        lock(&self.0).dropped
    }

    /// Gives chunks, as long as there is room.
    ///
    /// # Errors
    /// The user broke it off, with that code.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<Result<(), u64>> {
        let mut pipe = lock(&self.0);
        while let Some(chunk) = chunks.front() {
            if let Some(code) = pipe.dropped {
                return Poll::Ready(Err(code));
            }
            if pipe.down.bytes > 0 && pipe.down.bytes + chunk.len() > CAPACITY {
                pipe.down.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(chunk) = chunks.pop_front() {
                pipe.down.push(chunk);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The other side has ended in good order.
    pub fn finish(&mut self) {
        let mut pipe = lock(&self.0);
        pipe.down.is_finished = true;
        wake(&mut pipe.down.reader);
    }

    /// The other side reads no more.
    pub fn stopped(&mut self, code: u64) {
        let mut pipe = lock(&self.0);
        pipe.up.stopped = Some(code);
        pipe.up.chunks.clear();
        pipe.up.bytes = 0;
        wake(&mut pipe.up.writer);
    }

    /// The connection was broken off, with this code, after these last chunks.
    pub fn break_off(&mut self, last: &mut VecDeque<Bytes>, code: u64) {
        let mut pipe = lock(&self.0);
        for chunk in last.drain(..) {
            pipe.down.push(chunk);
        }
        pipe.broken.get_or_insert(code);
        wake(&mut pipe.up.writer);
        wake(&mut pipe.down.reader);
    }
    /// The connection is over, after these last chunks and, perhaps, an end in good order; what the user writes is wanted no more.
    pub fn part(&mut self, last: &mut VecDeque<Bytes>, is_finished: bool) {
        if !is_finished {
            return self.break_off(last, code::PEER_ABORTED);
        }
        let code = lock(&self.0).up.stopped.unwrap_or(code::PEER_ABORTED);
        self.stopped(code);
        let mut pipe = lock(&self.0);
        for chunk in last.drain(..) {
            pipe.down.push(chunk);
        }
        pipe.down.is_finished = true;
        wake(&mut pipe.down.reader);
    }
}

impl Drop for LoopHalf {
    /// The loop has ended, or the connection has.
    fn drop(&mut self) {
        let is_over = {
            let pipe = lock(&self.0);
            (pipe.up.is_finished || pipe.up.stopped.is_some()) && pipe.down.is_finished
        };
        if !is_over {
            self.break_off(&mut VecDeque::new(), code::PARTNER_LOST);
        }
    }
}
