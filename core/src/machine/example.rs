// redial: keeps one connection up, and dials again with growing pauses when it is down.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use towline_core::machine::{self, Actions, Describe, Machine, Timers};

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
#[derive(Debug, Clone)]
enum State {
    Idle,
    Dialling { failures: u32 },
    Up,
    Waiting { failures: u32 },
    Ended,
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
    state: State,
    timers: Timers<Timer, 2>,
    actions: Actions<Action, 2>,
}

impl Machine for Redial {
    type Event = Event;
    type Action = Action;

    // The main handler decides nothing: one handler per state does.
    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::Idle => self.on_idle(now, event),
            State::Dialling { failures } => self.on_dialling(now, event, failures),
            State::Up => self.on_up(now, event),
            State::Waiting { .. } => self.on_waiting(event),
            State::Ended => {} // for good: every event is ignored
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match (self.timers.expire(now), &self.state) {
            (Some(Timer::Attempt), &State::Dialling { failures }) => {
                self.actions.push(Action::HangUp);
                self.fail(now, failures, "no answer".to_owned());
            }
            (Some(Timer::Pause), &State::Waiting { failures }) => self.dial(now, failures),
            // A timer is stopped by whoever leaves its state, so none goes off in another.
            (Some(Timer::Attempt | Timer::Pause) | None, _) => {}
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Redial {
    fn on_idle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Open => self.dial(now, 0),
            Event::Close => self.state = State::Ended,
            Event::Connected | Event::Lost { .. } => {} // there is no attempt they could be about
        }
    }

    fn on_dialling(&mut self, now: Instant, event: Event, failures: u32) {
        match event {
            Event::Connected => {
                self.timers.stop(Timer::Attempt);
                self.state = State::Up;
            }
            Event::Lost { reason } => self.fail(now, failures, reason),
            Event::Close => self.end(),
            Event::Open => {} // already on it
        }
    }

    fn on_up(&mut self, now: Instant, event: Event) {
        match event {
            Event::Lost { .. } => self.dial(now, 0),
            Event::Close => self.end(),
            Event::Open | Event::Connected => {} // already there
        }
    }

    fn on_waiting(&mut self, event: Event) {
        match event {
            Event::Close => {
                self.timers.stop_all();
                self.state = State::Ended;
            }
            Event::Open | Event::Connected | Event::Lost { .. } => {} // late news of the attempt before
        }
    }

    fn dial(&mut self, now: Instant, failures: u32) {
        self.actions.push(Action::Dial { attempt: failures + 1 });
        self.timers.set(Timer::Attempt, now + self.config.attempt);
        self.state = State::Dialling { failures };
    }

    fn fail(&mut self, now: Instant, failures: u32, reason: String) {
        self.timers.stop(Timer::Attempt);
        let failures = failures + 1;
        if failures < self.config.failures {
            let pause = self.config.pause.saturating_mul(1 << (failures - 1).min(16));
            self.timers.set(Timer::Pause, now + pause);
            self.state = State::Waiting { failures };
        } else {
            self.actions.push(Action::GaveUp { reason });
            self.state = State::Ended;
        }
    }

    fn end(&mut self) {
        self.timers.stop_all();
        self.actions.push(Action::HangUp);
        self.state = State::Ended;
    }
}

impl Describe for Redial {
    const NAME: &'static str = "example.redial";
    const ABOUT: &'static str = "keeps one connection up";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self { config, state: State::Idle, timers: Timers::default(), actions: Actions::default() }
    }

    // Small, so that the explorer comes to the end of it.
    fn small() -> Config {
        Config { failures: 3, ..Config::default() }
    }

    fn state(&self) -> &'static str {
        match self.state {
            State::Idle => "Idle",
            State::Dialling { .. } => "Dialling",
            State::Up => "Up",
            State::Waiting { .. } => "Waiting",
            State::Ended => "Ended",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| machine::Timer::name(timer))
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {:?}", self.state, self.timers.armed().collect::<Vec<_>>())
    }

    fn alphabet() -> Vec<Event> {
        vec![Event::Open, Event::Connected, Event::Lost { reason: "refused".to_owned() }, Event::Close]
    }

    fn check(&self) -> Result<(), String> {
        let expected = match self.state {
            State::Dialling { .. } => Some("attempt"),
            State::Waiting { .. } => Some("pause"),
            State::Idle | State::Up | State::Ended => None,
        };
        if !self.timers.armed().eq(expected) {
            return Err(format!("{} needs the timers {expected:?}", self.state()));
        }
        if self.actions.is_overrun() {
            return Err("an event caused more actions than there is room for".to_owned());
        }
        Ok(())
    }
}
