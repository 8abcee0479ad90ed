//! A connection of the library, as a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towline_core::host::UserHalf;

/// A connection to the other side of a service: reads and writes like a `TcpStream`.
///
/// `shutdown` ends the writing direction in good order; the other goes on. A connection that was broken off, here or there or by the loss of a hub, is an
/// error of kind `ConnectionReset`, never an end of file. Dropping a stream breaks it off, unless both directions have ended.
#[derive(Debug)]
pub struct Stream(UserHalf);

impl From<UserHalf> for Stream {
    fn from(half: UserHalf) -> Self {
        Self(half)
    }
}

impl Stream {
    /// Breaks the connection off, with a stream code (docs/protocols/spn.md, Codes).
    pub fn reset(self, code: u64) {
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

    /// Waits until the loop has taken everything.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown())
    }
}
