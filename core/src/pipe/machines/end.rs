//! What both ends of a pipe have in common: what can happen to one, what it asks for, and what it does while it is active
//! (docs/protocols/pipe.md, Pipe).

use serde::{Deserialize, Serialize};

use crate::machine::{self, Parts};

/// The states of docs/protocols/pipe-states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No Open has come or gone.
    Idle,
    /// The call runs, and blocks come and go.
    Active(Directions),
    /// It is over, or has been closed by this end a short time ago.
    #[default]
    Done,
}

/// Which directions have ended (PIP-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directions {
    is_sent: bool,
    is_received: bool,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Active(_) => "Active",
            Self::Done => "Done",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The application calls.
    Call,
    /// The peer's Open came.
    Open {
        /// Its id belongs to this side (PID-5).
        is_ours: bool,
    },
    /// The application sends a block.
    Send,
    /// The application sends EOF.
    SendEof,
    /// The application has a result, or an abort, or gives up.
    Finish,
    /// A block came.
    Block,
    /// EOF came.
    Eof,
    /// The peer's Close came.
    Close,
    /// More blocks came than may wait (RCV-5).
    Overflow,
    /// The session is over.
    SessionEnded,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send Open.
    SendOpen,
    /// Tell the application that the peer calls.
    Offer,
    /// Send the block.
    SendBlock,
    /// Send EOF.
    SendEof,
    /// Tell the application that it has sent EOF before: nothing is sent.
    Reject,
    /// Give the block to the receiving side.
    Receive,
    /// Give EOF to the receiving side.
    ReceiveEof,
    /// Send Close.
    SendClose,
    /// Refuse what came: send Close with priority 0.
    Answer {
        /// The abort to send.
        with: Refusal,
    },
    /// The pipe is over for this end, and its id is free.
    End {
        /// Whose result counts.
        by: By,
    },
}

/// Why a message about a pipe is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// ABT-5.
    Duplicate,
    /// ABT-6.
    Unknown,
    /// ABT-7.
    WrongSide,
}

/// Whose result counts at this end (PIP-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Its own application's.
    Own,
    /// The peer's.
    Peer,
    /// Nobody's: more blocks came than may wait.
    Overflow,
    /// Nobody's: the session is over.
    Session,
}

/// No pipe has a timer.
#[derive(Debug, Clone, Copy)]
pub enum Timer {}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[];

    fn index(self) -> usize {
        match self {}
    }

    fn name(self) -> &'static str {
        match self {}
    }
}

pub(super) type EndParts = Parts<State, Timer, Action>;

/// A call that runs, at either end.
pub(super) fn active(parts: &mut EndParts, event: Event, mut directions: Directions) -> State {
    match event {
        Event::Send if directions.is_sent => parts.act(Action::Reject),
        Event::Send => parts.act(Action::SendBlock),
        Event::SendEof if directions.is_sent => parts.act(Action::Reject),
        Event::SendEof => {
            directions.is_sent = true;
            parts.act(Action::SendEof);
        }
        // What comes behind EOF is dropped.
        Event::Block | Event::Eof if directions.is_received => parts.count_ignored(),
        Event::Block => parts.act(Action::Receive),
        Event::Eof => {
            directions.is_received = true;
            parts.act(Action::ReceiveEof);
        }
        Event::Finish => {
            parts.act(Action::SendClose);
            return end(parts, By::Own);
        }
        Event::Overflow => {
            parts.act(Action::SendClose);
            return end(parts, By::Overflow);
        }
        Event::Close => return end(parts, By::Peer),
        Event::SessionEnded => return end(parts, By::Session),
        Event::Open { .. } => parts.act(Action::Answer { with: Refusal::Duplicate }),
        Event::Call => parts.count_ignored(),
    }
    State::Active(directions)
}

fn end(parts: &mut EndParts, by: By) -> State {
    parts.act(Action::End { by });
    State::Done
}
