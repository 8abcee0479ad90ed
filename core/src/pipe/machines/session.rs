//! The session machine: the handshake, who may say what, being alive, and the end (docs/protocols/pipe.md, Handshake and Session).
//!
//! However a session ends, its pipes end first, once, and the last action is [`Action::Closed`].
//!
//! The diagram is `docs/states/pipe.session.md`, the table in `docs/protocols/pipe-states.md`.

mod config;
mod describe;
mod events;
mod states;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use config::{Config, Peer, Range, Role};
pub use events::{Action, Event, Offer, Violation, Why};

use crate::machine::{self, Automaton, Parts};

/// The states of docs/protocols/pipe-states.md.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// There is no byte stream yet.
    Idle,
    /// The byte stream is there, and the peer's SyncConfig is not.
    AwaitSync(Role),
    /// Calls come and go.
    Open(Alive),
    /// Ended in good order by the application: what is queued still goes.
    Draining(Why),
    /// The Control Close is on its way.
    Closing(Why),
    /// It is over.
    #[default]
    Closed,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::AwaitSync(_) => "AwaitSync",
            Self::Open(_) => "Open",
            Self::Draining(_) => "Draining",
            Self::Closing(_) => "Closing",
            Self::Closed => "Closed",
        }
    }
}

/// Who watches whether the peer is there; nobody in a session of version 0001 (SYN-9).
#[derive(Debug, Clone)]
pub enum Alive {
    /// Nobody.
    Unwatched,
    /// The client: it answers pings.
    Answers {
        /// The peer may be silent for so long.
        silence: Duration,
    },
    /// The server: it pings.
    Pings {
        /// The peer may be silent for so long.
        silence: Duration,
        /// How often.
        every: Duration,
        /// When bytes last left.
        sent: Instant,
        /// When a message last came.
        received: Instant,
        /// When it last pinged.
        pinged: Instant,
    },
}

/// The timers of docs/protocols/pipe-states.md.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// The handshake has had its time (SYN-10).
    Handshake,
    /// One direction has been quiet for a ping interval (SYN-11).
    Ping,
    /// The peer has been silent for too long (SYN-12).
    Silence,
    /// What is queued has had its time (SES-4).
    Drain,
    /// The Control Close has had its time.
    Flush,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Handshake, Self::Silence, Self::Ping, Self::Drain, Self::Flush];

    fn index(self) -> usize {
        match self {
            Self::Handshake => 0,
            Self::Silence => 1,
            Self::Ping => 2,
            Self::Drain => 3,
            Self::Flush => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Silence => "silence",
            Self::Ping => "ping",
            Self::Drain => "drain",
            Self::Flush => "flush",
        }
    }
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Session {
    const NAME: &'static str = "pipe.session";
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

    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match (state, event) {
            (State::Closed, _) => self.parts.ignore(State::Closed),
            // The same in every state: these end it at once, and nothing more is sent.
            (state, Event::WireEnded) => self.cut(state, Why::PeerLeft),
            (state, Event::WireFailed) => self.cut(state, Why::Lost),
            (state, Event::BadBytes) => self.cut(state, Why::Undecodable),
            (state, Event::Overload) => self.cut(state, Why::Overload),
            (state, Event::End { graceful: false }) => self.cut(state, Why::Forced),
            // Each state for itself.
            (State::Idle, event) => self.idle(now, event),
            (State::AwaitSync(role), event) => self.await_sync(now, event, role),
            (State::Open(alive), event) => self.open(now, event, alive),
            (State::Draining(why), event) => self.draining(now, event, why),
            (State::Closing(why), event) => self.closing(event, why),
        }
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: Timer) -> State {
        match (timer, state) {
            (Timer::Handshake, State::AwaitSync(_)) => self.violation(now, Violation::HandshakeTimeout),
            (Timer::Ping, State::Open(alive)) => self.ping(now, alive),
            (Timer::Silence, state) => self.cut(state, Why::Silent),
            (Timer::Drain, State::Draining(why)) => {
                self.parts.act(Action::DropQueue);
                self.say_close(now, why)
            }
            (Timer::Flush, State::Closing(why)) => self.close_wire(why, false),
            // A timer is stopped by whoever leaves its state, so none goes off in another.
            (Timer::Handshake | Timer::Ping | Timer::Drain | Timer::Flush, state) => state,
        }
    }
}

impl Session {
    /// A session that has no byte stream yet: [`Event::WireUp`] begins it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Idle) }
    }
}
