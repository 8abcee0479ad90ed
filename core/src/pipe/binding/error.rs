//! Why something that the application asked for is not done.

use crate::pipe::wire::codec::EncodeError;

/// Why a call is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The handshake is not over, or the session is.
    #[error("the session is not open")]
    NotOpen,
    /// As much waits to be sent as may (LOD-2). [`Event::Backpressure`](super::Event::Backpressure) says when there is room.
    #[error("too much waits to be sent")]
    Full,
    /// All ids are in use (PID-3).
    #[error("no free pipe")]
    NoFreePipe,
    /// The call is no message: over a limit.
    #[error("the call cannot be sent: {0}")]
    Encode(#[from] EncodeError),
}

/// Why a block or EOF is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The pipe is over.
    #[error("the pipe is over")]
    Gone,
    /// EOF was sent before (PIP-3).
    #[error("EOF was sent before")]
    AfterEof,
    /// As much waits to be sent as may (LOD-2). [`Event::Backpressure`](super::Event::Backpressure) says when there is room.
    #[error("too much waits to be sent")]
    Full,
    /// The block is no message: over a limit.
    #[error("the block cannot be sent: {0}")]
    Encode(#[from] EncodeError),
}

/// Why a pipe is not closed with the result that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The pipe is over: its peer's Close came first, or the session has ended.
    #[error("the pipe is over")]
    Gone,
    /// The result is no message: over a limit. The pipe was closed with ABT-8 in its place.
    #[error("the result cannot be sent: {0}")]
    Encode(#[from] EncodeError),
}

/// Why a choice is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// The pipe is over.
    #[error("the pipe is over")]
    Gone,
    /// It was decided before what becomes of the pipe's blocks (RCV-1).
    #[error("what becomes of the blocks was decided before")]
    Decided,
}

/// Why nothing can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The pipe is over; what was left came with its end.
    #[error("the pipe is over")]
    Gone,
    /// Its blocks are not received as a byte stream.
    #[error("the pipe is no byte stream")]
    NotStream,
}
