//! What the binding tells the application.

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    net::Close,
    pipe::{
        machines::{
            end::By,
            session::{Offer, Why},
        },
        policy::aborts,
        wire::{
            codec::DecodeError,
            message::{Abort, Loss, Part, PipeId},
            value::Value,
        },
    },
};

/// A pipe of this session, while it lasts. It is not used again, as ids are, so what comes late finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeKey(u64);

impl PipeKey {
    /// The place of the pipe in a table: a small number, free for another pipe after [`Event::Ended`].
    #[must_use]
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

impl From<u64> for PipeKey {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<PipeKey> for u64 {
    fn from(key: PipeKey) -> Self {
        key.0
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is over: calls can be made, and come.
    Opened {
        /// Who the peer is.
        node_id: Uuid,
        /// What both agreed on.
        agreed: Offer,
    },
    /// The peer calls. The application's opening step begins; [`choose`](super::SessionBinding::choose) ends it.
    Called {
        /// The pipe of the call.
        pipe: PipeKey,
        /// Its id.
        id: PipeId,
        /// Which function.
        function: u16,
        /// 0 is normal.
        priority: i8,
        /// The parameters.
        params: Vec<Value>,
    },
    /// A block of a pipe whose blocks are [messages](crate::pipe::receiver::Mode::Messages).
    Block {
        /// Which pipe.
        pipe: PipeKey,
        /// Whether it might have been left out.
        loss: Loss,
        /// Its bytes, perhaps none.
        payload: Bytes,
    },
    /// The last block of such a pipe has come.
    Eof {
        /// Which pipe.
        pipe: PipeKey,
    },
    /// A pipe whose blocks are a [byte stream](crate::pipe::receiver::Mode::Stream), and which had nothing to read, has.
    Readable {
        /// Which pipe.
        pipe: PipeKey,
    },
    /// A pipe is over. Comes exactly once for each pipe, called or calling, and is the last event about it.
    Ended {
        /// Which pipe.
        pipe: PipeKey,
        /// Whose result it is.
        by: By,
        /// What came of the call.
        result: Result<Value, Abort>,
        /// Blocks that came and were not taken. None if this end closed the pipe.
        unread: VecDeque<Part>,
    },
    /// As much waits to be sent as may, or no longer (LOD-2).
    Backpressure {
        /// Which of both.
        is_on: bool,
    },
    /// The session is over, and each of its pipes has ended. The host closes the byte stream. There is no other event after this one.
    Closed {
        /// The reason.
        why: Why,
        /// How to close the byte stream.
        how: Close,
        /// What was wrong with bytes that are no message.
        fault: Option<DecodeError>,
    },
}

/// What reading from a byte stream gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Some bytes, at least one.
    Data(Bytes),
    /// Nothing has come yet; [`Event::Readable`] says when.
    Later,
    /// There is no more: EOF came.
    End,
}

/// Why the owner of functions refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such function (ABT-4).
    UnknownFunction,
    /// It failed, or its arguments do not fit (ABT-8).
    Unexpected,
    /// It could not be called (ABT-9).
    Internal,
}

impl Refused {
    pub(super) fn abort(self, function: u16) -> Abort {
        match self {
            Self::UnknownFunction => aborts::unknown_function(function),
            Self::Unexpected => aborts::unexpected(),
            Self::Internal => aborts::internal(),
        }
    }
}
