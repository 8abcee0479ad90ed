//! The four messages (docs/protocols/pipe.md, Messages).

use std::{fmt, num::NonZeroU16};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{sync::SyncConfig, value::Value};

/// The number of a pipe, never 0. Its top bit says which side opened the pipe (PID-1).
///
/// Everywhere it is shown as an unsigned number, but for the texts of aborts, which show [`signed`](Self::signed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PipeId(NonZeroU16);

impl PipeId {
    /// The bit that is set in the ids of the side that accepted the connection.
    pub const SERVER_BIT: u16 = 0x8000;

    /// None for 0.
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The same 16 bits as a signed number, as texts show it (ABT-4) and as codecs write it (ITM-3).
    #[must_use]
    pub const fn signed(self) -> i16 {
        self.get().cast_signed()
    }

    /// Whether the side that accepted the connection opened the pipe; else the other one has.
    #[must_use]
    pub const fn is_server_side(self) -> bool {
        self.get() & Self::SERVER_BIT != 0
    }
}

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u16> for PipeId {
    type Error = ZeroPipeId;

    fn try_from(id: u16) -> Result<Self, ZeroPipeId> {
        Self::new(id).ok_or(ZeroPipeId)
    }
}

impl From<PipeId> for u16 {
    fn from(id: PipeId) -> Self {
        id.get()
    }
}

/// 0 is no pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0 is no pipe id; expected 1 to 65535")]
pub struct ZeroPipeId;

/// Why a call has no result (docs/protocols/pipe.md, Abort codes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("abort {code}: {message}")]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// [`Abort::UNEXPECTED`], [`Abort::CLOSING`], or a code that the application has chosen.
    pub code: i32,
    /// For people.
    pub message: String,
}

impl Abort {
    /// Whatever the protocol itself reports.
    pub const UNEXPECTED: i32 = -1;
    /// The session ends. Only made at the end where the call was; never sent.
    pub const CLOSING: i32 = -2;

    /// An abort with that code and message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Calls a function.
    Open(Open),
    /// Ends a call.
    Close(Close),
    /// A piece of what goes through a pipe.
    Block(Block),
    /// About the session, not about a pipe.
    Control(Control),
}

/// Calls a function: a pipe begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// A number of the sender's side that is not in use.
    pub pipe: PipeId,
    /// 0 is normal, and a higher one goes first.
    pub priority: i8,
    /// Which function.
    pub function: u16,
    /// Its parameters; at most [`MAX_ENTRIES`](super::value::MAX_ENTRIES).
    pub params: Vec<Value>,
}

/// Ends a call: a pipe is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Close {
    /// Which pipe.
    pub pipe: PipeId,
    /// What came of the call.
    pub result: Result<Value, Abort>,
}

/// A piece of what goes through a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// Which pipe.
    pub pipe: PipeId,
    /// The piece.
    pub part: Part,
}

/// What a [`Block`] carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Bytes, perhaps none.
    Data {
        /// Whether a relay may leave it out.
        loss: Loss,
        /// At most [`MAX_PAYLOAD`] bytes.
        payload: Bytes,
    },
    /// There is no more in this direction.
    Eof,
}

/// The most bytes of a [`Block`] (MSG-5).
pub const MAX_PAYLOAD: usize = 61_439;

/// How willingly a relay leaves out a block: 0 never, 127 always (MSG-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Loss(u8);

impl Loss {
    /// Never.
    pub const NEVER: Self = Self(0);

    /// None if it is over 127.
    #[must_use]
    pub const fn new(rate: u8) -> Option<Self> {
        if rate < 128 { Some(Self(rate)) } else { None }
    }

    /// 0 to 127.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A loss rate is at most 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the loss rate is {0}; expected 0 to 127")]
pub struct LossError(pub u8);

impl TryFrom<u8> for Loss {
    type Error = LossError;

    fn try_from(rate: u8) -> Result<Self, LossError> {
        Self::new(rate).ok_or(LossError(rate))
    }
}

impl From<Loss> for u8 {
    fn from(loss: Loss) -> Self {
        loss.get()
    }
}

/// About the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Control {
    /// What about it.
    pub code: i8,
    /// What its code says.
    pub data: Bytes,
}

impl Control {
    /// The first message of each side; the data is a [`SyncConfig`].
    pub const SYNC_CONFIG: i8 = b'Q'.cast_signed();
    /// The session is over.
    pub const CLOSE: i8 = b'C'.cast_signed();
    /// The sender is there. Only between peers that agreed on it (SYN-9).
    pub const PING: i8 = b'P'.cast_signed();

    /// A session is over.
    #[must_use]
    pub const fn close() -> Self {
        Self { code: Self::CLOSE, data: Bytes::new() }
    }

    /// The sender is there.
    #[must_use]
    pub const fn ping() -> Self {
        Self { code: Self::PING, data: Bytes::new() }
    }
}

impl From<SyncConfig> for Control {
    fn from(config: SyncConfig) -> Self {
        Self { code: Self::SYNC_CONFIG, data: Bytes::copy_from_slice(&config.to_bytes()) }
    }
}

impl Message {
    /// The pipe that it is about, if it is about one.
    #[must_use]
    pub const fn pipe(&self) -> Option<PipeId> {
        match self {
            Self::Open(open) => Some(open.pipe),
            Self::Close(close) => Some(close.pipe),
            Self::Block(block) => Some(block.pipe),
            Self::Control(_) => None,
        }
    }
}

macro_rules! from {
    ($($part:ident),*) => {
        $(impl From<$part> for Message {
            fn from(part: $part) -> Self {
                Self::$part(part)
            }
        })*
    };
}

from!(Open, Close, Block, Control);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_ids_know_their_side_and_show_two_ways() {
        assert_eq!(PipeId::new(0), None);
        for (id, signed, is_server_side) in [
            (1, 1, false),
            (0x7fff, 32_767, false),
            (0x8000, -32_768, true),
            (0x8005, -32_763, true),
            (0xffff, -1, true),
        ] {
            let pipe = PipeId::new(id).unwrap();
            assert_eq!((pipe.get(), pipe.signed(), pipe.is_server_side()), (id, signed, is_server_side));
            assert_eq!(pipe.to_string(), id.to_string());
            assert_eq!(serde_json::to_string(&pipe).unwrap(), id.to_string());
        }
        assert!(serde_json::from_str::<PipeId>("0").is_err());
    }

    #[test]
    fn loss_is_at_most_127() {
        assert_eq!(Loss::new(127).map(Loss::get), Some(127));
        assert_eq!(Loss::try_from(128), Err(LossError(128)));
    }
}
