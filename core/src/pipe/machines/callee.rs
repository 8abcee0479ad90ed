//! The callee machine: the end of a pipe that was called, and how a message is answered whose pipe there is not
//! (docs/protocols/pipe.md, Pipe and Session).
//!
//! The diagram is `docs/states/pipe.callee.md`, the table in `docs/protocols/pipe-states.md`.

use std::time::Instant;

use serde::Deserialize;

use super::end::{self, EndParts, Refusal, Timer};
pub use super::end::{Action, Event, State};
use crate::machine::{Automaton, Describe, Parts};

/// Its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether an Open with an id of this side is served (PID-5).
    pub accept_foreign_ids: bool,
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Callee {
    config: Config,
    parts: EndParts,
}

impl Automaton for Callee {
    const NAME: &'static str = "pipe.callee";
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
            State::Done => self.done(event),
        }
    }

    fn on_timeout(&mut self, _now: Instant, _state: State, timer: Timer) -> State {
        match timer {}
    }
}

impl Callee {
    /// A pipe of which nothing is known: an Open may have come.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Idle) }
    }

    /// A pipe that this end has closed a short time ago, as caller or as callee.
    #[must_use]
    pub fn closed(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Done) }
    }

    fn idle(&mut self, event: Event) -> State {
        match event {
            Event::Open { is_ours } => self.offered(is_ours, State::Idle),
            Event::Block | Event::Eof => {
                self.parts.act(Action::Answer { with: Refusal::Unknown });
                State::Idle
            }
            // Its pipe is over for both.
            Event::Close => self.parts.ignore(State::Idle),
            Event::Call | Event::Send | Event::SendEof | Event::Finish | Event::Overflow | Event::SessionEnded => {
                self.parts.ignore(State::Idle)
            }
        }
    }

    fn done(&mut self, event: Event) -> State {
        match event {
            // The id is free again (PID-4).
            Event::Open { is_ours } => self.offered(is_ours, State::Done),
            // They were on their way (PIP-4, PIP-7).
            Event::Block | Event::Eof | Event::Close => self.parts.ignore(State::Done),
            // A function that did not know yet.
            Event::Call | Event::Send | Event::SendEof | Event::Finish | Event::Overflow | Event::SessionEnded => {
                self.parts.ignore(State::Done)
            }
        }
    }

    fn offered(&mut self, is_ours: bool, refused: State) -> State {
        if is_ours && !self.config.accept_foreign_ids {
            self.parts.act(Action::Answer { with: Refusal::WrongSide });
            return refused;
        }
        self.parts.act(Action::Offer);
        State::Active(end::Directions::default())
    }
}

impl Describe for Callee {
    const ABOUT: &'static str = "the end of a pipe that was called, and messages whose pipe there is not";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Open { is_ours: false },
            Event::Open { is_ours: true },
            Event::Send,
            Event::SendEof,
            Event::Finish,
            Event::Block,
            Event::Eof,
            Event::Close,
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
