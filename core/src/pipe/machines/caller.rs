//! The caller machine: the end of a pipe that called (docs/protocols/pipe.md, Pipe).
//!
//! The diagram is `docs/states/pipe.caller.md`, the table in `docs/protocols/pipe-states.md`.

use std::time::Instant;

use serde::Deserialize;

use super::end::{self, EndParts, Timer};
pub use super::end::{Action, Event, State};
use crate::machine::{Automaton, Describe, Parts};

/// Its settings: none. A script may still give the empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Caller {
    parts: EndParts,
}

impl Automaton for Caller {
    const NAME: &'static str = "pipe.caller";
    type State = State;
    type Timer = Timer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &EndParts {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut EndParts {
        &mut self.parts
    }

    fn on_event(&mut self, _now: Instant, state: State, event: Event) -> State {
        match state {
            State::Idle => self.idle(event),
            State::Active(directions) => end::active(&mut self.parts, event, directions),
            // Its Close, if one is still on its way, and its blocks mean nothing any more (PIP-4, PIP-7).
            State::Done => self.parts.ignore(State::Done),
        }
    }

    fn on_timeout(&mut self, _now: Instant, _state: State, timer: Timer) -> State {
        match timer {}
    }
}

impl Default for Caller {
    /// A pipe whose Open has not been sent: [`Event::Call`] sends it.
    fn default() -> Self {
        Self { parts: Parts::new(State::Idle) }
    }
}

impl Caller {
    fn idle(&mut self, event: Event) -> State {
        match event {
            Event::Call => {
                self.parts.act(Action::SendOpen);
                State::Active(end::Directions::default())
            }
            // There is no such pipe yet, for nobody.
            Event::Open { .. }
            | Event::Send
            | Event::SendEof
            | Event::Finish
            | Event::Block
            | Event::Eof
            | Event::Close
            | Event::Overflow
            | Event::SessionEnded => self.parts.ignore(State::Idle),
        }
    }
}

impl Describe for Caller {
    const ABOUT: &'static str = "the end of a pipe that called";
    type Config = Config;

    fn start(_config: Config, _seed: u64) -> Self {
        Self::default()
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Call,
            Event::Send,
            Event::SendEof,
            Event::Finish,
            Event::Block,
            Event::Eof,
            Event::Close,
            // From a peer that uses an id of this side, or a client's own id again.
            Event::Open { is_ours: true },
            Event::Overflow,
            Event::SessionEnded,
        ]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
