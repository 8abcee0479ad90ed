// redial: keeps one connection up, and dials again with growing pauses when it is down.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use towline_core::machine::{self, Automaton, Describe, Inspect, Parts};

/// Limits and times. In JSON a duration is an integer whose name ends in `_ms`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long one attempt may take.
    #[serde(rename = "attempt_ms", with = "machine::ms")]
    pub attempt: Duration,
    /// The first pause after a failure; each further one is twice as long.
    #[serde(rename = "pause_ms", with = "machine::ms")]
    pub pause: Duration,
    /// Give up after so many failures in a row.
    pub failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(5), pause: Duration::from_secs(1), failures: 8 }
    }
}

/// Each variant holds what is valid in that state, and nothing else.
#[derive(Debug, Clone, Default)]
pub enum State {
    Idle,
    Dialling {
        failures: u32,
    },
    Up,
    Waiting {
        failures: u32,
    },
    #[default]
    Ended,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Dialling { .. } => "Dialling",
            Self::Up => "Up",
            Self::Waiting { .. } => "Waiting",
            Self::Ended => "Ended",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The owner wants the connection.
    Open,
    /// The attempt succeeded.
    Connected,
    /// The attempt failed, or the connection broke.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The owner wants no connection any more.
    Close,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Begin an attempt.
    Dial {
        /// Counts from 1.
        attempt: u32,
    },
    /// Drop the attempt or the connection.
    HangUp,
    /// Tell the owner that there will be no connection.
    GaveUp {
        /// The last failure.
        reason: String,
    },
}

/// Field-less; the table of deadlines is indexed by it.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// The attempt took too long.
    Attempt,
    /// The pause is over.
    Pause,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Attempt, Self::Pause];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Pause => "pause",
        }
    }
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Redial {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Redial {
    const NAME: &'static str = "example.redial";
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

    // The main handler decides nothing: one handler per state does, and returns the next state.
    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match state {
            State::Idle => self.idle(now, event),
            State::Dialling { failures } => self.dialling(now, event, failures),
            State::Up => self.up(now, event),
            State::Waiting { failures } => self.waiting(event, failures),
            State::Ended => self.parts.ignore(State::Ended), // for good
        }
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: Timer) -> State {
        match (timer, state) {
            (Timer::Attempt, State::Dialling { failures }) => {
                self.parts.act(Action::HangUp);
                self.fail(now, failures, "no answer".to_owned())
            }
            (Timer::Pause, State::Waiting { failures }) => self.dial(now, failures),
            // A timer is stopped by whoever leaves its state, so none goes off in another.
            (Timer::Attempt | Timer::Pause, state) => state,
        }
    }
}

impl Redial {
    fn idle(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Open => self.dial(now, 0),
            Event::Close => State::Ended,
            Event::Connected | Event::Lost { .. } => self.parts.ignore(State::Idle), // there is no attempt they could be about
        }
    }

    fn dialling(&mut self, now: Instant, event: Event, failures: u32) -> State {
        match event {
            Event::Connected => {
                self.parts.timers.stop(Timer::Attempt);
                State::Up
            }
            Event::Lost { reason } => self.fail(now, failures, reason),
            Event::Close => self.end(),
            Event::Open => self.parts.ignore(State::Dialling { failures }), // already on it
        }
    }

    fn up(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Lost { .. } => self.dial(now, 0),
            Event::Close => self.end(),
            Event::Open | Event::Connected => self.parts.ignore(State::Up), // already there
        }
    }

    fn waiting(&mut self, event: Event, failures: u32) -> State {
        match event {
            Event::Close => {
                self.parts.timers.stop_all();
                State::Ended
            }
            // Late news of the attempt before.
            Event::Open | Event::Connected | Event::Lost { .. } => self.parts.ignore(State::Waiting { failures }),
        }
    }

    fn dial(&mut self, now: Instant, failures: u32) -> State {
        self.parts.act(Action::Dial { attempt: failures + 1 });
        self.parts.timers.set_after(Timer::Attempt, now, self.config.attempt);
        State::Dialling { failures }
    }

    fn fail(&mut self, now: Instant, failures: u32, reason: String) -> State {
        self.parts.timers.stop(Timer::Attempt);
        let failures = failures + 1;
        if failures < self.config.failures {
            let pause = self.config.pause.saturating_mul(1 << (failures - 1).min(16));
            self.parts.timers.set_after(Timer::Pause, now, pause);
            State::Waiting { failures }
        } else {
            self.parts.act(Action::GaveUp { reason });
            State::Ended
        }
    }

    fn end(&mut self) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::HangUp);
        State::Ended
    }
}

impl Describe for Redial {
    const ABOUT: &'static str = "keeps one connection up";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self { config, parts: Parts::new(State::Idle) }
    }

    // Small, so that the explorer comes to the end of it.
    fn small() -> Config {
        Config { failures: 3, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        vec![Event::Open, Event::Connected, Event::Lost { reason: "refused".to_owned() }, Event::Close]
    }

    fn check(&self) -> Result<(), String> {
        let expected = match self.parts.state() {
            State::Dialling { .. } => Some("attempt"),
            State::Waiting { .. } => Some("pause"),
            State::Idle | State::Up | State::Ended => None,
        };
        if !self.parts.timers.armed().eq(expected) {
            return Err(format!("{} needs the timers {expected:?}", self.state()));
        }
        Ok(())
    }
}
