//! Byte streams that a loop carries beside TCP connections.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;

/// A byte stream that a loop carries beside TCP connections: a connection of an endpoint, one end of a connection in memory, a stream of a
/// runtime's ecosystem.
///
/// Dropping one before both directions have ended is a reset: the peer must not take half of the bytes for all of them.
pub trait ByteStream: Send + 'static {
    /// Reads once, at most `max` bytes; no bytes mean the end.
    ///
    /// # Errors
    /// The stream's.
    fn poll_read(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>>;

    /// Takes some of the bytes.
    ///
    /// # Errors
    /// The stream's.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &Bytes) -> Poll<io::Result<usize>>;

    /// Waits until what was taken is on its way, where the stream itself would keep it.
    ///
    /// # Errors
    /// The stream's.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the writing direction in good order.
    ///
    /// # Errors
    /// The stream's.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
