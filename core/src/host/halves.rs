//! A connection as its user holds it, and the loop's half of it: also a connection in memory, between any two.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::byte_stream::ByteStream;

use crate::spn::{
    flow::kept::{Kept, OF_DATAGRAMS},
    wire::code::StreamCode,
};

/// Bytes that a stream holds in each direction before it pushes back.
const CAPACITY: usize = 256 * 1024;

/// The user's half; a runtime's stream gives it the traits of that runtime.
///
/// A connection that was broken off, here or there or by the loss of a hub, is an error of kind `ConnectionReset`, never an end of file.
/// Dropping it breaks the connection off, unless both directions have ended. What was written, and what had come, before a break goes first, as
/// far as a few seconds allow.
#[derive(Debug)]
pub struct UserHalf(Arc<Mutex<Shared>>);

/// The loop's half.
#[derive(Debug)]
pub struct LoopHalf(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// From the user.
    up: Flow,
    /// To the user.
    down: Flow,
    /// Broken off by the network, with this code.
    broken: Option<StreamCode>,
    /// Broken off by the user, with this code.
    dropped: Option<StreamCode>,
}

#[derive(Debug, Default)]
struct Flow {
    chunks: Kept,
    bytes: usize,
    is_finished: bool,
    /// The reader has gone, with this code.
    stopped: Option<StreamCode>,
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

fn lock(shared: &Arc<Mutex<Shared>>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(code: StreamCode) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, code.to_string())
}

/// Both halves of a connection.
#[must_use]
pub fn pair() -> (UserHalf, LoopHalf) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    (UserHalf(shared.clone()), LoopHalf(shared))
}

impl UserHalf {
    /// Breaks the connection off, with a stream code (docs/protocols/spn.md, Codes).
    pub fn reset(self, code: StreamCode) {
        lock(&self.0).dropped = Some(code);
    }

    /// Reads what is there; no bytes mean the end.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let is_empty = buffer.is_empty();
        self.poll_take(cx, |chunks| {
            let taken = chunks.read(buffer);
            (taken > 0 || is_empty).then_some((taken, taken))
        })
    }

    /// The same without a copy, at most `max` bytes.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn poll_data(&self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        self.poll_take(cx, |chunks| chunks.take(max).map(|chunk| (chunk.len(), chunk)))
    }

    /// What `take` takes, and how many bytes that is; a default at the end.
    fn poll_take<T: Default>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Kept) -> Option<(usize, T)>,
    ) -> Poll<io::Result<T>> {
        let mut shared = lock(&self.0);
        let was_broken = shared.broken;
        let flow = &mut shared.down;
        if let Some((bytes, taken)) = take(&mut flow.chunks) {
            flow.took(bytes);
            return Poll::Ready(Ok(taken));
        }
        if flow.is_finished {
            return Poll::Ready(Ok(T::default()));
        }
        // What came before the break comes first.
        if let Some(code) = was_broken {
            return Poll::Ready(Err(broken(code)));
        }
        flow.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes bytes, as long as there is room.
    ///
    /// # Errors
    /// The connection was broken off, or this direction is over.
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_give(cx, data.len(), |flow, length| {
            let data = data.get(..length).unwrap_or_default();
            if length < OF_DATAGRAMS {
                flow.bytes += length;
                flow.chunks.copy(data);
                wake(&mut flow.reader);
            } else {
                flow.push(Bytes::copy_from_slice(data));
            }
        })
    }

    /// The same without a copy, unless it is few bytes.
    ///
    /// # Errors
    /// The connection was broken off, or this direction is over.
    pub fn poll_write_bytes(&self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<usize>> {
        self.poll_give(cx, data.len(), |flow, length| flow.push(data.slice(..length)))
    }

    /// Lets `give` give as many of `wanted` bytes as there is room for.
    fn poll_give(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
        give: impl FnOnce(&mut Flow, usize),
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        if let Some(code) = shared.broken.or(shared.up.stopped) {
            return Poll::Ready(Err(broken(code)));
        }
        let flow = &mut shared.up;
        if flow.is_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = wanted.min(CAPACITY.saturating_sub(flow.bytes));
        if length == 0 && wanted > 0 {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if length > 0 {
            give(flow, length);
        }
        Poll::Ready(Ok(length))
    }

    /// Waits until the loop has taken everything.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if let Some(code) = shared.broken {
            return Poll::Ready(Err(broken(code)));
        }
        if shared.up.chunks.is_empty() || shared.up.stopped.is_some() {
            return Poll::Ready(Ok(()));
        }
        shared.up.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the writing direction in good order; the other goes on.
    ///
    /// # Errors
    /// The connection was broken off.
    pub fn shutdown(&self) -> io::Result<()> {
        let mut shared = lock(&self.0);
        if let Some(code) = shared.broken {
            return Err(broken(code));
        }
        shared.up.is_finished = true;
        wake(&mut shared.up.reader);
        Ok(())
    }
}

impl Drop for UserHalf {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        let is_over = shared.up.is_finished && shared.down.is_finished && shared.down.chunks.is_empty();
        if !is_over {
            shared.dropped.get_or_insert(StreamCode::PEER_ABORTED);
        }
        wake(&mut shared.up.reader);
        wake(&mut shared.down.writer);
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
    Broken(StreamCode),
}

impl LoopHalf {
    /// What the user has written.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Local> {
        self.poll_data(cx, usize::MAX)
    }

    /// The same, at most `max` bytes.
    fn poll_data(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Local> {
        let mut shared = lock(&self.0);
        if let Some(chunk) = shared.up.chunks.take(max) {
            shared.up.took(chunk.len());
            return Poll::Ready(Local::Data(chunk));
        }
        if let Some(code) = shared.dropped {
            return Poll::Ready(Local::Broken(code));
        }
        if shared.up.is_finished {
            return Poll::Ready(Local::End);
        }
        shared.up.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The code with which the user has broken it off, if it did.
    #[must_use]
    pub fn dropped(&self) -> Option<StreamCode> {
        lock(&self.0).dropped
    }

    /// Gives chunks, as long as there is room.
    ///
    /// # Errors
    /// The user broke it off, with that code.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<Result<(), StreamCode>> {
        let mut shared = lock(&self.0);
        while let Some(chunk) = chunks.front() {
            if let Some(code) = shared.dropped {
                return Poll::Ready(Err(code));
            }
            if shared.down.bytes > 0 && shared.down.bytes + chunk.len() > CAPACITY {
                shared.down.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(chunk) = chunks.pop_front() {
                shared.down.push(chunk);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The other side has ended in good order.
    pub fn finish(&mut self) {
        let mut shared = lock(&self.0);
        shared.down.is_finished = true;
        wake(&mut shared.down.reader);
    }

    /// The other side reads no more.
    pub fn stopped(&mut self, code: StreamCode) {
        let mut shared = lock(&self.0);
        shared.up.stopped = Some(code);
        shared.up.chunks.clear();
        shared.up.bytes = 0;
        wake(&mut shared.up.writer);
    }

    /// The connection was broken off, with this code, after these last chunks.
    pub fn break_off(&mut self, last: &mut VecDeque<Bytes>, code: StreamCode) {
        let mut shared = lock(&self.0);
        for chunk in last.drain(..) {
            shared.down.push(chunk);
        }
        shared.broken.get_or_insert(code);
        wake(&mut shared.up.writer);
        wake(&mut shared.down.reader);
    }

    /// The connection is over, after these last chunks and, perhaps, an end in good order; what the user writes is wanted no more.
    pub fn part(&mut self, last: &mut VecDeque<Bytes>, is_finished: bool) {
        if !is_finished {
            return self.break_off(last, StreamCode::PEER_ABORTED);
        }
        let code = lock(&self.0).up.stopped.unwrap_or(StreamCode::PEER_ABORTED);
        self.stopped(code);
        let mut shared = lock(&self.0);
        for chunk in last.drain(..) {
            shared.down.push(chunk);
        }
        shared.down.is_finished = true;
        wake(&mut shared.down.reader);
    }
}

impl Drop for LoopHalf {
    /// The loop has ended, or the connection has.
    fn drop(&mut self) {
        let is_over = {
            let shared = lock(&self.0);
            (shared.up.is_finished || shared.up.stopped.is_some()) && shared.down.is_finished
        };
        if !is_over {
            self.break_off(&mut VecDeque::new(), StreamCode::PARTNER_LOST);
        }
    }
}

impl ByteStream for UserHalf {
    fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        self.poll_data(cx, max)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &Bytes) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(cx, bytes)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}

/// The other end of a connection in memory.
impl ByteStream for LoopHalf {
    fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        self.poll_data(cx, max).map(|found| match found {
            Local::Data(bytes) => Ok(bytes),
            Local::End => Ok(Bytes::new()),
            Local::Broken(code) => Err(broken(code)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &Bytes) -> Poll<io::Result<usize>> {
        let mut chunks = VecDeque::from([bytes.clone()]);
        Self::poll_write(self, cx, &mut chunks).map(|written| written.map(|()| bytes.len()).map_err(broken))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        match poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        }
    }

    #[test]
    fn both_halves_are_byte_streams_without_copies() {
        let (mut a, mut b) = pair();
        let bytes = Bytes::from(vec![7; 10_000]);
        let ends: [&mut dyn ByteStream; 2] = [&mut a, &mut b];
        let [a, b] = ends;
        let carry = |from: &mut dyn ByteStream, to: &mut dyn ByteStream| {
            assert_eq!(ready(|cx| from.poll_write(cx, &bytes)).unwrap().unwrap(), bytes.len());
            let first = ready(|cx| to.poll_read(cx, 4)).unwrap().unwrap();
            assert_eq!((first.len(), first.as_ptr()), (4, bytes.as_ptr()), "a part of what was written");
            assert_eq!(ready(|cx| to.poll_read(cx, 1 << 20)).unwrap().unwrap().len(), 9_996);
            assert!(ready(|cx| to.poll_read(cx, 1)).is_none());
            ready(|cx| from.poll_finish(cx)).unwrap().unwrap();
            assert!(ready(|cx| to.poll_read(cx, 1)).unwrap().unwrap().is_empty(), "its end");
        };
        carry(a, b);
        carry(b, a);
    }

    #[test]
    fn a_half_that_is_dropped_is_a_break_behind_what_it_has_written() {
        let (mut a, mut b) = pair();
        assert!(ready(|cx| ByteStream::poll_write(&mut b, cx, &"last".into())).is_some());
        drop(b);
        assert_eq!(ready(|cx| ByteStream::poll_read(&mut a, cx, 10)).unwrap().unwrap(), "last");
        let error = ready(|cx| ByteStream::poll_read(&mut a, cx, 10)).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
