//! A connection of the library, as a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_core::{
    host::{ByteStream, ReadBuffer, UserHalf},
    spn::wire::code::StreamCode,
};

/// A connection to the other side of a service: reads and writes like a `TcpStream`.
///
/// `shutdown` ends the writing direction cleanly; the other direction continues. A connection that was reset, by either side or by the loss of a hub, is an
/// error of kind `ConnectionReset`, never an end of file. Dropping a stream resets it, unless both directions have ended.
#[derive(Debug)]
pub struct Stream(UserHalf);

impl From<UserHalf> for Stream {
    fn from(half: UserHalf) -> Self {
        Self(half)
    }
}

impl From<Stream> for UserHalf {
    /// For a loop of byte streams, which moves the bytes without copies.
    fn from(Stream(half): Stream) -> Self {
        half
    }
}

impl Stream {
    /// Resets the connection with a stream code (docs/protocols/spn.md, Codes).
    pub fn reset(self, code: StreamCode) {
        self.0.reset(code);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = ready!(self.0.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, data)
    }

    /// Waits until the loop has accepted all bytes.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown())
    }
}

/// Any stream with tokio's traits, for a loop of byte streams.
#[derive(Debug)]
pub struct Io<S> {
    stream: S,
    buffer: ReadBuffer,
}

/// Size of the block that reads share, in bytes.
const BLOCK: usize = 64 * 1024;

impl<S> Io<S> {
    /// Wraps a stream. Dropping the stream should reset it, if it has resets.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: ReadBuffer::new(BLOCK) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for Io<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        let mut space = ReadBuf::new(self.buffer.space(max));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        let length = space.filled().len();
        Poll::Ready(Ok(self.buffer.take(length)))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &Bytes) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
