//! How messages are bytes: the trait of all codecs, and what they have in common (docs/protocols/pipe.md, Framing).
//!
//! There is no frame around a message: it says itself where it ends. So a receiver first measures what has come, and decodes a message when all
//! of it is there:
//!
//! ```
//! use bytes::BytesMut;
//! use towline_core::pipe::{
//!     codec::{Codec, Receiver},
//!     message::{Control, Message},
//!     msgpack::MsgPack,
//! };
//!
//! let mut receiver = Receiver::new(MsgPack::default());
//! let mut out = BytesMut::new();
//! receiver.codec().encode(&Control::close().into(), &mut out)?;
//! assert_eq!(*out, *b"*C\xa0");
//!
//! receiver.push(out.freeze());
//! assert_eq!(receiver.next_message()?, Some(Message::Control(Control::close())));
//! assert_eq!(receiver.next_message()?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod composed;
mod receiver;

use bytes::{Bytes, BytesMut};

pub use composed::{Composed, Input, Primitives, Stop, Width, fault, msgpack, simple};
pub use receiver::Receiver;

use super::message::Message;

/// Messages as bytes, and back. Peers agree on a codec beforehand: it is not negotiated (WIR-5).
///
/// A codec belongs to one wire. It measures what comes, and may remember how far it has looked; it writes what goes.
pub trait Codec {
    /// Appends a message.
    ///
    /// # Errors
    /// When the message is over a limit; `out` is then what it was before.
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Result<(), EncodeError>;

    /// Whether a whole message is at the start of `bytes`, and how long it is.
    ///
    /// After [`Measure::Needs`] the caller measures the same bytes again, with more behind them; after [`Measure::Whole`], those behind the
    /// message. The codec remembers what it has seen in between, so that a message that comes byte by byte is not read from its start each time.
    ///
    /// # Errors
    /// When no message can come of it, whatever follows: also when the length that it declares is over a limit. That ends the wire.
    fn measure(&mut self, bytes: &[u8]) -> Result<Measure, DecodeError>;

    /// Reads a message that was measured, without copying its binary parts.
    ///
    /// # Errors
    /// When the bytes are not exactly one message.
    fn decode(&self, message: Bytes) -> Result<Message, DecodeError>;
}

impl<C: Codec + ?Sized> Codec for Box<C> {
    fn encode(&self, message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
        (**self).encode(message, out)
    }

    fn measure(&mut self, bytes: &[u8]) -> Result<Measure, DecodeError> {
        (**self).measure(bytes)
    }

    fn decode(&self, message: Bytes) -> Result<Message, DecodeError> {
        (**self).decode(message)
    }
}

/// What a codec refuses in both directions (docs/protocols/pipe.md, Limits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes (CAP-1). Deployed peers send none that is longer than the default.
    pub message: usize,
    /// How deep values are nested (CAP-2): 1 is a list of plain values.
    pub depth: usize,
    /// How many values a message has, or announces, in all, inner ones too (CAP-3). A message of the default length has fewer than the default.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 65_507, depth: 64, values: 131_071 }
    }
}

/// Why bytes are no message. That ends the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// Where in the message, in bytes from its start: the item that cannot be.
    pub offset: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with bytes. The names are those of docs/protocols/pipe.md, Faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No message begins with that.
    #[error("message type {0}; expected 40 (Open), 41 (Close), 35 (Block) or 42 (Control)")]
    UnknownType(i8),
    /// No value begins with that.
    #[error("value tag {0}; expected 0 to 8, 10 to 12 or 32 to 34")]
    UnknownTag(i8),
    /// A Close is neither a success nor a failure.
    #[error("Close marker {0}; expected 1 (success) or 2 (failure)")]
    UnknownMarker(i8),
    /// 0 is no pipe.
    #[error("pipe id 0; expected any other")]
    PipeZero,
    /// A number has more bits than its field.
    #[error("{value}; expected a signed number of {bits} bits")]
    OutOfRange {
        /// What came.
        value: i128,
        /// What fits.
        bits: u8,
    },
    /// Another kind of item.
    #[error("item 0x{byte:02x}; expected {expected}")]
    WrongItem {
        /// The byte that says what item it is.
        byte: u8,
        /// What it should be.
        expected: &'static str,
    },
    /// Over a limit: it was not waited for.
    #[error("{declared} {what}; the limit is {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// What came: as many at least.
        declared: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// Values are nested deeper than [`Limits::depth`].
    #[error("values are nested deeper than {limit}")]
    TooDeep {
        /// How deep they may be.
        limit: usize,
    },
    /// There is more, or less, than the message: it was not measured.
    #[error("{found} bytes; expected one message and nothing else")]
    NotOneMessage {
        /// How many bytes there are.
        found: usize,
    },
    /// For codecs of users.
    #[error("{0}")]
    Other(&'static str),
}

impl Fault {
    /// Its short name, as `towline pipe decode` prints it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "unknown-type",
            Self::UnknownTag(_) => "unknown-tag",
            Self::UnknownMarker(_) => "unknown-marker",
            Self::PipeZero => "pipe-zero",
            Self::OutOfRange { .. } => "out-of-range",
            Self::WrongItem { .. } => "wrong-item",
            Self::TooLarge { .. } => "too-large",
            Self::TooDeep { .. } => "too-deep",
            Self::NotOneMessage { .. } => "not-one-message",
            Self::Other(_) => "other",
        }
    }
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Over a limit.
    #[error("{found} {what}; the limit is {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// What it has: as many at least.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Values are nested deeper than [`Limits::depth`].
    #[error("values are nested deeper than {limit}")]
    TooDeep {
        /// How deep they may be.
        limit: usize,
    },
}

/// What the bytes at the start of a wire amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The first message, which has so many bytes: it can be decoded.
    Whole(usize),
    /// The first message has at least so many bytes, which are more than there are.
    Needs(usize),
}

#[cfg(test)]
mod tests;
