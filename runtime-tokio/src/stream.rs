//! A connection of the library, as a stream.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_core::spn::code;

/// Bytes that a stream holds in each direction before it pushes back.
const CAPACITY: usize = 256 * 1024;

/// A connection to the other side of a service: reads and writes like a `TcpStream`.
///
/// `shutdown` ends the writing direction in good order; the other goes on. A connection that was broken off, here or there or by the loss of a hub, is an
/// error of kind `ConnectionReset`, never an end of file. Dropping a stream breaks it off, unless both directions have ended.
#[derive(Debug)]
pub struct Stream(Arc<Mutex<Pipe>>);

/// The loop's half of a [`Stream`].
#[derive(Debug)]
pub(crate) struct Half(Arc<Mutex<Pipe>>);

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
    chunks: VecDeque<Bytes>,
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
        self.chunks.push_back(chunk);
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

pub(crate) fn pair() -> (Stream, Half) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (Stream(pipe.clone()), Half(pipe))
}

impl Stream {
    /// Breaks the connection off, with a stream code (docs/protocols/spn.md, Codes).
    pub fn reset(self, code: u64) {
        lock(&self.0).dropped = Some(code);
    }
}

impl Drop for Stream {
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

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.broken {
            return Poll::Ready(Err(broken(code)));
        }
        let flow = &mut pipe.down;
        let mut taken = 0;
        while let Some(chunk) = flow.chunks.front_mut() {
            let length = chunk.len().min(buf.remaining());
            if length == 0 {
                break;
            }
            buf.put_slice(&chunk[..length]);
            chunk.advance(length);
            taken += length;
            if chunk.is_empty() {
                flow.chunks.pop_front();
            }
        }
        if taken > 0 {
            flow.took(taken);
        } else if !flow.is_finished && buf.remaining() > 0 {
            flow.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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
            flow.push(Bytes::copy_from_slice(&data[..length]));
        }
        Poll::Ready(Ok(length))
    }

    /// Waits until the loop has taken everything.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.broken {
            return Poll::Ready(Err(broken(code)));
        }
        pipe.up.is_finished = true;
        wake(&mut pipe.up.reader);
        Poll::Ready(Ok(()))
    }
}

/// What the loop finds at a local end.
#[derive(Debug)]
pub(crate) enum Local {
    Data(Bytes),
    End,
    /// The local end broke it off, with this code.
    Broken(u64),
}

impl Half {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Local> {
        let mut pipe = lock(&self.0);
        if let Some(code) = pipe.dropped {
            return Poll::Ready(Local::Broken(code));
        }
        if let Some(chunk) = pipe.up.chunks.pop_front() {
            pipe.up.took(chunk.len());
            return Poll::Ready(Local::Data(chunk));
        }
        if pipe.up.is_finished {
            return Poll::Ready(Local::End);
        }
        pipe.up.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Gives chunks, as long as there is room.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<Result<(), u64>> {
        let mut pipe = lock(&self.0);
        while let Some(chunk) = chunks.front() {
            if let Some(code) = pipe.dropped {
                return Poll::Ready(Err(code));
            }
            if pipe.down.bytes > 0 && pipe.down.bytes + chunk.len() > CAPACITY {
                pipe.down.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            pipe.down.push(chunk.clone());
            chunks.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn finish(&mut self) {
        let mut pipe = lock(&self.0);
        pipe.down.is_finished = true;
        wake(&mut pipe.down.reader);
    }

    /// The other side reads no more.
    pub(crate) fn stopped(&mut self, code: u64) {
        let mut pipe = lock(&self.0);
        pipe.up.stopped = Some(code);
        pipe.up.chunks.clear();
        pipe.up.bytes = 0;
        wake(&mut pipe.up.writer);
    }

    pub(crate) fn break_off(&mut self, code: u64) {
        let mut pipe = lock(&self.0);
        pipe.broken.get_or_insert(code);
        wake(&mut pipe.up.writer);
        wake(&mut pipe.down.reader);
    }
}

impl Drop for Half {
    /// The loop has ended, or the connection has.
    fn drop(&mut self) {
        let is_over = {
            let pipe = lock(&self.0);
            pipe.up.is_finished && pipe.down.is_finished
        };
        if !is_over {
            self.break_off(code::PARTNER_LOST);
        }
    }
}
