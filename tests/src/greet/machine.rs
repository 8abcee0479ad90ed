//! `greet`: a client sends its name and LF; it gets `hello NAME` and LF, and then the end.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use towline_core::machine::{self, Automaton, Describe, Inspect as _, Parts};

/// Limits and times.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest name in bytes, without its LF.
    pub name_max: usize,
    /// Time limit for the whole name.
    #[serde(rename = "name_timeout_ms", with = "machine::ms")]
    pub name_timeout: Duration,
    /// Time limit for sending the greeting.
    #[serde(rename = "write_timeout_ms", with = "machine::ms")]
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { name_max: 100, name_timeout: Duration::from_secs(10), write_timeout: Duration::from_secs(30) }
    }
}

/// The state of a client.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// No client has connected yet.
    Start,
    /// Receives the name; these are the bytes so far.
    ReadName(BytesMut),
    /// Number of bytes of the greeting that are not sent yet.
    Greet(usize),
    /// The client's connection is closed.
    #[default]
    Done,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::ReadName(_) => "read_name",
            Self::Greet(_) => "greet",
            Self::Done => "done",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A client has connected.
    Accepted,
    /// The client has sent bytes: the answer to a `ReadClient`.
    ClientData {
        /// At least one byte.
        #[serde(with = "machine::text")]
        bytes: Bytes,
    },
    /// The client has ended its direction: the other answer to a `ReadClient`.
    ClientEof,
    /// The socket has accepted bytes.
    ClientSent {
        /// Their number.
        len: usize,
    },
    /// The connection has failed.
    ClientError,
}

/// What the host has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Read once: a credit. Without a credit, the client's bytes stay in the socket.
    ReadClient {
        /// At most so many bytes.
        max: usize,
    },
    /// Write to the client.
    WriteClient {
        /// The bytes.
        #[serde(with = "machine::text")]
        bytes: Bytes,
    },
    /// Close the client's connection.
    CloseClient,
    /// The last action.
    Finished {
        /// The outcome.
        outcome: Outcome,
    },
}

/// The outcome of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client has its greeting.
    Greeted,
    /// There is no name, or it is too long.
    Malformed,
    /// The client left early.
    ClientLeft,
    /// A deadline has passed.
    TimedOut,
}

/// The deadlines of a client.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// Sending its name.
    Name,
    /// Reading its greeting.
    Write,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Name, Self::Write];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Write => "write",
        }
    }
}

/// The machine: one client.
#[derive(Debug, Clone)]
pub struct Greet {
    config: Config,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Greet {
    const NAME: &'static str = "greet";
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
            (State::Done, _) => State::Done,
            // The same in every state.
            (_, Event::ClientError) => self.end(Outcome::ClientLeft),
            (State::Start, event) => self.start(now, event),
            (State::ReadName(name), event) => self.read_name(now, event, name),
            (State::Greet(left), event) => self.greet(event, left),
        }
    }

    // The handler that leaves a state stops its timer. So if any timer fires, the client was too slow.
    fn on_timeout(&mut self, _now: Instant, _state: State, _timer: Timer) -> State {
        self.close(Outcome::TimedOut)
    }
}

impl Greet {
    fn start(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Accepted => {
                self.parts.timers.set_after(Timer::Name, now, self.config.name_timeout);
                self.read_on(BytesMut::new())
            }
            Event::ClientData { .. } | Event::ClientEof | Event::ClientSent { .. } | Event::ClientError => {
                self.parts.ignore(State::Start)
            }
        }
    }

    fn read_name(&mut self, now: Instant, event: Event, mut name: BytesMut) -> State {
        match event {
            Event::ClientData { bytes } => name.extend_from_slice(&bytes),
            Event::ClientEof => return self.close(Outcome::ClientLeft),
            Event::Accepted | Event::ClientSent { .. } | Event::ClientError => {
                return self.parts.ignore(State::ReadName(name));
            }
        }
        match name.iter().position(|&byte| byte == b'\n') {
            Some(end) if (1..=self.config.name_max).contains(&end) => {
                self.parts.timers.stop(Timer::Name);
                self.parts.timers.set_after(Timer::Write, now, self.config.write_timeout);
                name.truncate(end);
                let bytes = Bytes::from([b"hello ", &name[..], b"\n"].concat());
                let left = bytes.len();
                self.parts.act(Action::WriteClient { bytes });
                State::Greet(left)
            }
            None if name.len() <= self.config.name_max => self.read_on(name),
            Some(_) | None => self.close(Outcome::Malformed),
        }
    }

    fn read_on(&mut self, name: BytesMut) -> State {
        // Room for the longest name and its LF: a name that is too long is detected, and never kept whole.
        self.parts.act(Action::ReadClient { max: self.config.name_max + 1 - name.len() });
        State::ReadName(name)
    }

    fn greet(&mut self, event: Event, left: usize) -> State {
        match event {
            Event::ClientSent { len } if len < left => State::Greet(left - len),
            Event::ClientSent { .. } => self.close(Outcome::Greeted),
            Event::Accepted | Event::ClientData { .. } | Event::ClientEof | Event::ClientError => {
                self.parts.ignore(State::Greet(left))
            }
        }
    }

    fn close(&mut self, outcome: Outcome) -> State {
        self.parts.act(Action::CloseClient);
        self.end(outcome)
    }

    fn end(&mut self, outcome: Outcome) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::Finished { outcome });
        State::Done
    }
}

impl Describe for Greet {
    const ABOUT: &'static str = "one question, one answer";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self { config, parts: Parts::new(State::Start) }
    }

    fn small() -> Config {
        Config { name_max: 2, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        let data = |text: &'static str| Event::ClientData { bytes: Bytes::from_static(text.as_bytes()) };
        vec![
            Event::Accepted,
            data("a"),
            data("\n"),
            data("a\n"),
            Event::ClientEof,
            Event::ClientSent { len: 1 },
            Event::ClientSent { len: 100 },
            Event::ClientError,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let expected = match self.parts.state() {
            State::Start | State::Done => None,
            State::ReadName(name) if name.len() > self.config.name_max => return Err("the name is too long".to_owned()),
            State::ReadName(_) => Some("name"),
            State::Greet(_) => Some("write"),
        };
        if !self.parts.timers.armed().eq(expected) {
            return Err(format!("{} needs the timers {expected:?}", self.state()));
        }
        Ok(())
    }
}
