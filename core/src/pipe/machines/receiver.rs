//! The receiver machine: what becomes of the blocks that come for a pipe (docs/protocols/pipe.md, Receiving blocks).
//!
//! It counts what waits; the blocks themselves are its owner's.
//!
//! The diagram is `docs/states/pipe.receiver.md`, the table in `docs/protocols/pipe-states.md`.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::end::Timer;
use crate::machine::{self, Automaton, Describe, Inspect as _, Parts};

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Blocks, EOF among them.
    pub blocks: usize,
    /// Bytes: a queue that has as many is full.
    pub bytes: usize,
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Before the application has decided (RCV-2).
    pub undecided: Room,
    /// In a byte stream that is not read.
    pub stream: Room,
}

impl Default for Config {
    fn default() -> Self {
        Self { undecided: Room { blocks: 64, bytes: 256 << 10 }, stream: Room { blocks: 1024, bytes: 1 << 20 } }
    }
}

/// What an application wants of a pipe's blocks (RCV-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each block as it came.
    Messages,
    /// Their bytes, one behind the other, as they are asked for.
    Stream,
    /// Nothing.
    #[default]
    Discard,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    blocks: usize,
    bytes: usize,
}

impl Waiting {
    fn is_full(self, room: Room) -> bool {
        self.blocks >= room.blocks || self.bytes >= room.bytes
    }

    fn is_empty(self) -> bool {
        self.blocks == 0
    }

    fn and(self, len: usize) -> Self {
        Self { blocks: self.blocks + 1, bytes: self.bytes + len }
    }

    fn without(self, len: usize) -> Self {
        Self { blocks: self.blocks.saturating_sub(1), bytes: self.bytes.saturating_sub(len) }
    }
}

/// The states of docs/protocols/pipe-states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// The application's opening step is not over.
    Undecided(Waiting),
    /// Each block is given as it comes; what waited before goes first.
    Messages(Waiting),
    /// Blocks wait until they are read.
    Stream(Waiting),
    /// Blocks are dropped.
    Discard,
    /// The pipe is over.
    #[default]
    Over,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Undecided(_) => "Undecided",
            Self::Messages(_) => "Messages",
            Self::Stream(_) => "Stream",
            Self::Discard => "Discard",
            Self::Over => "Over",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A block came.
    Block {
        /// Its bytes.
        len: usize,
    },
    /// EOF came.
    Eof,
    /// The application's opening step is over.
    Choose(Mode),
    /// The application took what had waited longest.
    Taken {
        /// Its bytes.
        len: usize,
    },
    /// The pipe is over.
    PipeEnded,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let it wait, and count it in the load of the session.
    Keep,
    /// Tell the application that there is something to read.
    Readable,
    /// Give it to the application.
    Deliver,
    /// Give the application all that waits, in order.
    DeliverWaiting,
    /// Forget it.
    Drop,
    /// It waits no longer: take so much off the load of the session (RCV-6).
    Credit {
        /// Blocks, EOF among them.
        blocks: usize,
        /// Bytes.
        bytes: usize,
    },
    /// Forget all that waits.
    DropWaiting,
    /// The queue is full: read no more for the session (RCV-5).
    Hold,
    /// The queue has room again.
    Release,
    /// More came than may wait: the pipe is over.
    Overflow,
    /// Tell the application that it has decided before.
    Reject,
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Receiver {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Receiver {
    const NAME: &'static str = "pipe.receiver";
    type State = State;
    type Timer = Timer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, Timer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, Timer, Action> {
        &mut self.parts
    }

    fn on_event(&mut self, _now: Instant, state: State, event: Event) -> State {
        match state {
            State::Undecided(waiting) => self.undecided(event, waiting),
            State::Messages(waiting) => self.messages(event, waiting),
            State::Stream(waiting) => self.stream(event, waiting),
            State::Discard => self.discard(event),
            State::Over => self.parts.ignore(State::Over),
        }
    }

    fn on_timeout(&mut self, _now: Instant, _state: State, timer: Timer) -> State {
        match timer {}
    }
}

impl Receiver {
    /// That of a new pipe.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Undecided(Waiting::default())) }
    }

    /// Whether its blocks are a byte stream, which can be read.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.parts.state(), State::Stream(_))
    }

    fn undecided(&mut self, event: Event, waiting: Waiting) -> State {
        let room = self.config.undecided;
        match event {
            Event::Block { len } => self.keep(waiting, room, len).map_or(State::Over, State::Undecided),
            Event::Eof => State::Undecided(self.keep_eof(waiting, room)),
            Event::Choose(mode) => self.decide(mode, waiting),
            Event::PipeEnded => self.over(waiting, room),
            // Nothing is given before it is decided how.
            Event::Taken { .. } => self.parts.ignore(State::Undecided(waiting)),
        }
    }

    fn decide(&mut self, mode: Mode, waiting: Waiting) -> State {
        let was_full = waiting.is_full(self.config.undecided);
        match mode {
            // A queue that is full stays so until the application has taken of it.
            Mode::Messages => {
                if !waiting.is_empty() {
                    self.parts.act(Action::DeliverWaiting);
                }
                State::Messages(waiting)
            }
            Mode::Stream => {
                let is_full = waiting.is_full(self.config.stream);
                if was_full != is_full {
                    self.parts.act(if is_full { Action::Hold } else { Action::Release });
                }
                if !waiting.is_empty() {
                    self.parts.act(Action::Readable);
                }
                State::Stream(waiting)
            }
            Mode::Discard => {
                self.forget(waiting, was_full);
                State::Discard
            }
        }
    }

    fn messages(&mut self, event: Event, waiting: Waiting) -> State {
        let room = self.config.undecided;
        match event {
            Event::Block { .. } | Event::Eof if waiting.is_empty() => {
                self.parts.act(Action::Deliver);
                State::Messages(waiting)
            }
            // Behind what waited before the application decided.
            Event::Block { len } => self.keep(waiting, room, len).map_or(State::Over, State::Messages),
            Event::Eof => State::Messages(self.keep_eof(waiting, room)),
            Event::Taken { len } => State::Messages(self.taken(waiting, room, len)),
            Event::PipeEnded => self.over(waiting, room),
            Event::Choose(_) => self.reject(State::Messages(waiting)),
        }
    }

    fn stream(&mut self, event: Event, waiting: Waiting) -> State {
        let room = self.config.stream;
        match event {
            Event::Block { len } => match self.keep(waiting, room, len) {
                Some(more) => {
                    self.say_readable(waiting);
                    State::Stream(more)
                }
                None => State::Over,
            },
            Event::Eof => {
                let more = self.keep_eof(waiting, room);
                self.say_readable(waiting);
                State::Stream(more)
            }
            Event::Taken { len } => State::Stream(self.taken(waiting, room, len)),
            Event::PipeEnded => self.over(waiting, room),
            Event::Choose(_) => self.reject(State::Stream(waiting)),
        }
    }

    fn discard(&mut self, event: Event) -> State {
        match event {
            Event::Block { .. } | Event::Eof => {
                self.parts.act(Action::Drop);
                State::Discard
            }
            Event::PipeEnded => State::Over,
            Event::Choose(_) => self.reject(State::Discard),
            Event::Taken { .. } => self.parts.ignore(State::Discard),
        }
    }

    /// A block waits, if there is room; else the pipe is over.
    fn keep(&mut self, waiting: Waiting, room: Room, len: usize) -> Option<Waiting> {
        if waiting.is_full(room) {
            self.forget(waiting, true);
            self.parts.act(Action::Overflow);
            return None;
        }
        let more = waiting.and(len);
        self.parts.act(Action::Keep);
        if more.is_full(room) {
            self.parts.act(Action::Hold);
        }
        Some(more)
    }

    /// EOF waits in any case: there is one at most.
    fn keep_eof(&mut self, waiting: Waiting, room: Room) -> Waiting {
        let more = waiting.and(0);
        self.parts.act(Action::Keep);
        if more.is_full(room) && !waiting.is_full(room) {
            self.parts.act(Action::Hold);
        }
        more
    }

    fn taken(&mut self, waiting: Waiting, room: Room, len: usize) -> Waiting {
        if waiting.is_empty() {
            self.parts.count_ignored();
            return waiting;
        }
        self.parts.act(Action::Credit { blocks: 1, bytes: len });
        let less = waiting.without(len);
        if waiting.is_full(room) && !less.is_full(room) {
            self.parts.act(Action::Release);
        }
        less
    }

    fn say_readable(&mut self, before: Waiting) {
        if before.is_empty() {
            self.parts.act(Action::Readable);
        }
    }

    /// The application gets what waits with the end of the pipe; the session counts it no longer (RCV-6).
    fn over(&mut self, waiting: Waiting, room: Room) -> State {
        self.credit(waiting, waiting.is_full(room));
        State::Over
    }

    fn forget(&mut self, waiting: Waiting, was_full: bool) {
        self.credit(waiting, was_full);
        if !waiting.is_empty() {
            self.parts.act(Action::DropWaiting);
        }
    }

    fn credit(&mut self, Waiting { blocks, bytes }: Waiting, was_full: bool) {
        if blocks > 0 {
            self.parts.act(Action::Credit { blocks, bytes });
        }
        if was_full {
            self.parts.act(Action::Release);
        }
    }

    fn reject(&mut self, state: State) -> State {
        self.parts.act(Action::Reject);
        state
    }
}

impl Describe for Receiver {
    const ABOUT: &'static str = "what becomes of the blocks that come for a pipe";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn small() -> Config {
        Config { undecided: Room { blocks: 2, bytes: 2 }, stream: Room { blocks: 3, bytes: 2 } }
    }

    fn fingerprint(&self) -> String {
        // Empty blocks are without end behind a byte that waits; a queue of messages only becomes shorter in its owner.
        let of = |Waiting { blocks, bytes }: Waiting| format!("{} {}", blocks.min(5), bytes.min(5));
        let detail = match *self.parts.state() {
            State::Undecided(waiting) | State::Messages(waiting) | State::Stream(waiting) => of(waiting),
            State::Discard | State::Over => String::new(),
        };
        format!("{} {detail}", self.state())
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Block { len: 0 },
            Event::Block { len: 1 },
            Event::Eof,
            Event::Choose(Mode::Messages),
            Event::Choose(Mode::Stream),
            Event::Choose(Mode::Discard),
            Event::Taken { len: 0 },
            Event::Taken { len: 1 },
            Event::PipeEnded,
        ]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
