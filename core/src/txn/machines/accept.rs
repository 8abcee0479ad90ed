//! The accept machine: makes a transaction of each connection, and takes no more than it can carry (docs/protocols/txn-states.md).
//!
//! Accepting is a credit, too: one [`Action::AcceptMore`], one connection. Without credit the kernel's backlog is the queue.
//!
//! Connections whose heads are not complete have a limit of their own. Where that or the limit of all is reached, the oldest of them gives
//! way, if its head has had its time: slow clients keep no others out.
//!
//! The diagram is `docs/states/txn.accept.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use crate::net::AcceptFault;

use crate::machine::{self, Automaton, Describe, Inspect as _, Parts, ms};

/// Limits and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP port to listen on.
    pub accept_port: u16,
    /// Transactions at once.
    pub max_transactions: usize,
    /// Those among them whose heads are not complete.
    pub max_heads: usize,
    /// A head that is not complete after so long is slow, and its connection gives way where there is no room.
    #[serde(rename = "slow_head_ms", with = "ms")]
    pub slow_head: Duration,
    /// The pause after the machine has run out of files or memory.
    #[serde(rename = "accept_backoff_ms", with = "ms")]
    pub accept_backoff: Duration,
    /// How long transactions may take to end when nothing new is accepted any more.
    #[serde(rename = "drain_timeout_ms", with = "ms")]
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            accept_port: 0,
            max_transactions: 1024,
            max_heads: Self::share_of_heads(1024),
            slow_head: Duration::from_millis(500),
            accept_backoff: Duration::from_millis(100),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// How many of so many transactions may have heads that are not complete: three quarters of them.
    #[must_use]
    pub fn share_of_heads(max_transactions: usize) -> usize {
        (max_transactions - max_transactions / 4).max(1)
    }
}

/// The states of docs/protocols/txn-states.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// The machine has not begun.
    Idle,
    /// A credit is out.
    Listening,
    /// As many transactions as there may be, or as many heads. The oldest head's time runs, if there is one.
    Paused,
    /// Files or memory have run out.
    BackingOff,
    /// Nothing new; the rest is ending.
    Draining,
    /// It is over.
    #[default]
    Stopped,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Listening => "listening",
            Self::Paused => "paused",
            Self::BackingOff => "backing_off",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Begin.
    Start,
    /// A connection has come.
    Incoming {
        /// The host's number for it; not one that is alive.
        conn: u64,
    },
    /// None could be accepted.
    AcceptFailed {
        /// Why.
        kind: AcceptFault,
    },
    /// The head of a connection is complete.
    HeadComplete {
        /// Whose.
        conn: u64,
    },
    /// A transaction is over.
    Ended {
        /// Whose.
        conn: u64,
    },
    /// Accept nothing more, and end with the last transaction.
    Drain,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Open the listener.
    Listen {
        /// On this TCP port.
        port: u16,
    },
    /// Accept one connection.
    AcceptMore,
    /// Begin a transaction.
    Spawn {
        /// On this connection.
        conn: u64,
    },
    /// Close a connection at once.
    Refuse {
        /// This one.
        conn: u64,
    },
    /// End a transaction whose head is slow: others need its place. [`Event::Ended`] follows.
    GiveWay {
        /// On this connection.
        conn: u64,
    },
    /// Close the listener.
    StopListening,
    /// End all transactions now.
    KillAll,
    /// It is over; there is no other action after this one.
    #[serde(serialize_with = "bare_unless_failed", untagged)]
    Finished {
        /// The reason, unless the owner has asked for the end.
        error: Option<AcceptFault>,
    },
}

/// `"finished"`, or `{"finished": {"error": …}}`.
fn bare_unless_failed<S: serde::Serializer>(error: &Option<AcceptFault>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        None => serializer.serialize_str("finished"),
        Some(error) => serde_json::json!({ "finished": { "error": error } }).serialize(serializer),
    }
}

/// The timers of docs/protocols/txn-states.md.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// The pause without files or memory is over.
    Backoff,
    /// The oldest head has had its time.
    SlowHead,
    /// Transactions have had time to end.
    Drain,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Backoff, Self::SlowHead, Self::Drain];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Backoff => "accept_backoff",
            Self::SlowHead => "slow_head",
            Self::Drain => "drain",
        }
    }
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Accept {
    config: Config,
    live: BTreeSet<u64>,
    /// Those whose heads are not complete, in the order in which they came, and since when.
    heads: BTreeMap<u64, (u64, Instant)>,
    /// Their numbers in that table.
    arrivals: BTreeMap<u64, u64>,
    arrived: u64,
    /// The connection that was asked to give way, and has not ended yet.
    yields: Option<u64>,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Accept {
    const NAME: &'static str = "txn.accept";
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
        // The same in every state: an ended connection is removed, and a known one is not added twice.
        let is_about_nobody = match event {
            Event::Ended { conn } => {
                self.forget_head(conn);
                !self.live.remove(&conn)
            }
            Event::HeadComplete { conn } => !self.forget_head(conn),
            Event::Incoming { conn } => self.live.contains(&conn),
            Event::Start | Event::AcceptFailed { .. } | Event::Drain => false,
        };
        if is_about_nobody {
            return self.parts.ignore(state);
        }
        match state {
            State::Idle => self.idle(now, event),
            State::Listening => self.listening(now, event),
            State::Paused => self.paused(now, event),
            State::BackingOff => self.backing_off(now, event),
            State::Draining => self.draining(event),
            State::Stopped => self.stopped(event),
        }
    }

    fn on_timeout(&mut self, now: Instant, _state: State, timer: Timer) -> State {
        match timer {
            Timer::Backoff | Timer::SlowHead => self.accept_more(now),
            Timer::Drain => {
                self.parts.act(Action::KillAll);
                self.finish(None)
            }
        }
    }
}

impl Accept {
    /// A machine that has not begun: [`Event::Start`] does.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            live: BTreeSet::new(),
            heads: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            arrived: 0,
            yields: None,
            parts: Parts::new(State::Idle),
        }
    }

    /// Transactions at the moment.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// A head is complete, or its connection is over; says whether it was known as incomplete.
    fn forget_head(&mut self, conn: u64) -> bool {
        let has_yielded = self.yields.take_if(|yields| *yields == conn).is_some();
        self.arrivals.remove(&conn).and_then(|nth| self.heads.remove(&nth)).is_some() || has_yielded
    }

    fn idle(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Start => {
                self.parts.act(Action::Listen { port: self.config.accept_port });
                self.accept_more(now)
            }
            Event::Drain => self.finish(None),
            Event::Incoming { conn } => self.refuse(State::Idle, conn),
            Event::AcceptFailed { .. } | Event::HeadComplete { .. } | Event::Ended { .. } => {
                self.parts.ignore(State::Idle)
            }
        }
    }

    fn listening(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Incoming { conn } => {
                self.live.insert(conn);
                self.arrived += 1;
                self.heads.insert(self.arrived, (conn, now));
                self.arrivals.insert(conn, self.arrived);
                self.parts.act(Action::Spawn { conn });
                self.accept_more(now)
            }
            Event::AcceptFailed { kind } => match kind {
                AcceptFault::Aborted | AcceptFault::Interrupted => self.accept_more(now),
                AcceptFault::Files | AcceptFault::Memory => {
                    self.parts.timers.set_after(Timer::Backoff, now, self.config.accept_backoff);
                    State::BackingOff
                }
                AcceptFault::Other => {
                    self.parts.act(Action::StopListening);
                    self.finish(Some(kind))
                }
            },
            Event::Drain => self.drain(now),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::Listening,
            Event::Start => self.parts.ignore(State::Listening),
        }
    }

    fn paused(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::HeadComplete { .. } | Event::Ended { .. } => self.accept_more(now),
            Event::Drain => self.drain(now),
            Event::Incoming { conn } => self.refuse(State::Paused, conn),
            Event::Start | Event::AcceptFailed { .. } => self.parts.ignore(State::Paused),
        }
    }

    fn backing_off(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Drain => self.drain(now),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::BackingOff,
            Event::Incoming { conn } => self.refuse(State::BackingOff, conn),
            Event::Start | Event::AcceptFailed { .. } => self.parts.ignore(State::BackingOff),
        }
    }

    fn draining(&mut self, event: Event) -> State {
        match event {
            Event::Ended { .. } if self.live.is_empty() => self.finish(None),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::Draining,
            // What was accepted before the listener closed.
            Event::Incoming { conn } => self.refuse(State::Draining, conn),
            Event::Start | Event::AcceptFailed { .. } | Event::Drain => self.parts.ignore(State::Draining),
        }
    }

    fn stopped(&mut self, event: Event) -> State {
        match event {
            Event::Incoming { conn } => self.refuse(State::Stopped, conn),
            Event::Start
            | Event::AcceptFailed { .. }
            | Event::HeadComplete { .. }
            | Event::Ended { .. }
            | Event::Drain => State::Stopped,
        }
    }

    /// Asks for a connection, if there is room for one. Otherwise a slow head makes room, as soon as there is one.
    fn accept_more(&mut self, now: Instant) -> State {
        self.parts.timers.stop(Timer::SlowHead);
        if self.has_room() {
            self.parts.act(Action::AcceptMore);
            return State::Listening;
        }
        if self.yields.is_none()
            && let Some((&nth, &(conn, came))) = self.heads.first_key_value()
        {
            let due = machine::later(came, self.config.slow_head);
            if due > now {
                self.parts.timers.set(Timer::SlowHead, due);
            } else {
                // Its place will be free in a moment, and one is enough.
                self.yields = Some(conn);
                self.heads.remove(&nth);
                self.arrivals.remove(&conn);
                self.parts.act(Action::GiveWay { conn });
            }
        }
        State::Paused
    }

    fn has_room(&self) -> bool {
        self.live.len() < self.config.max_transactions && self.heads.len() < self.config.max_heads
    }

    /// Refuses a connection that was accepted without a credit: the host must not be left with it.
    fn refuse(&mut self, state: State, conn: u64) -> State {
        self.parts.act(Action::Refuse { conn });
        state
    }

    fn drain(&mut self, now: Instant) -> State {
        self.parts.timers.stop(Timer::Backoff);
        self.parts.timers.stop(Timer::SlowHead);
        self.parts.act(Action::StopListening);
        if self.live.is_empty() {
            return self.finish(None);
        }
        self.parts.timers.set_after(Timer::Drain, now, self.config.drain_timeout);
        State::Draining
    }

    fn finish(&mut self, error: Option<AcceptFault>) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::Finished { error });
        State::Stopped
    }
}

#[cfg(test)]
mod tests;

impl Describe for Accept {
    const ABOUT: &'static str = "takes connections, as many as it can carry, and makes a transaction of each";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn small() -> Config {
        Config { max_transactions: 3, max_heads: 2, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let heads: Vec<_> = self.heads.values().map(|(conn, _)| conn).collect();
        format!(
            "{:?} {:?} {heads:?} {:?} {:?}",
            self.parts.state(),
            self.live,
            self.yields,
            self.parts.timers.armed().collect::<Vec<_>>()
        )
    }

    fn alphabet() -> Vec<Event> {
        vec![
            Event::Start,
            Event::Incoming { conn: 1 },
            Event::Incoming { conn: 2 },
            Event::Incoming { conn: 3 },
            Event::AcceptFailed { kind: AcceptFault::Aborted },
            Event::AcceptFailed { kind: AcceptFault::Files },
            Event::AcceptFailed { kind: AcceptFault::Other },
            Event::HeadComplete { conn: 1 },
            Event::HeadComplete { conn: 2 },
            Event::Ended { conn: 1 },
            Event::Ended { conn: 2 },
            Event::Drain,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let state = *self.parts.state();
        let expected = match state {
            State::BackingOff => Some("accept_backoff"),
            State::Draining => Some("drain"),
            State::Idle | State::Listening | State::Paused | State::Stopped => None,
        };
        // A connection that was asked to give way is about to end.
        let may_run = state == State::Paused && !self.heads.is_empty();
        if !self.parts.timers.armed().filter(|timer| !(may_run && *timer == "slow_head")).eq(expected) {
            return Err(format!("{} needs the timers {expected:?}", self.state()));
        }
        if self.live.len() > self.config.max_transactions {
            return Err(format!("{} transactions, more than there may be", self.live.len()));
        }
        if self.heads.len() > self.config.max_heads || self.arrivals.len() != self.heads.len() {
            return Err(format!("{} heads, more than there may be or are known", self.heads.len()));
        }
        Ok(())
    }
}
