//! The accept machine: makes a transaction of each connection, and takes no more than it can carry (docs/txn.md).
//!
//! Accepting is a credit, too: one [`Action::AcceptMore`], one connection. Without credit the kernel's backlog is the queue.
//!
//! Connections whose heads are not complete have a limit of their own. Where that or the limit of all is reached, the oldest of them gives
//! way, if its head has had its time: whoever is slow keeps nobody out.
//!
//! The diagram is `docs/states/txn.accept.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::machine::{self, Actions, Describe, Inspect, Machine, Timers, ms};

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

/// Each variant holds what is valid in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A credit is out.
    Listening,
    /// As many transactions as there may be, or as many heads. The oldest head's time runs, if there is one.
    Paused,
    /// Files or memory have run out.
    BackingOff,
    /// Nothing new; the rest is ending.
    Draining,
    Stopped,
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

/// Why no connection could be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptFault {
    /// The connection was over before it was accepted, or a firewall forbids it.
    Aborted,
    /// A signal came in between.
    Interrupted,
    /// No file descriptor is left.
    Files,
    /// No memory is left.
    Memory,
    /// Anything else: the listener is broken.
    #[serde(other)]
    Other,
}

impl From<&io::Error> for AcceptFault {
    fn from(error: &io::Error) -> Self {
        // The numbers are those of Linux and of the BSDs alike, but for ENOBUFS.
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOBUFS: [i32; 2] = [55, 105];
        // On Linux, accept(2) also tells what has become of the new connection, as EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET or EOPNOTSUPP too.
        const OF_THE_CONNECTION: [i32; 5] = [71, 92, 112, 64, 95];
        use io::ErrorKind::{
            ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied,
            TimedOut,
        };
        match (error.kind(), error.raw_os_error()) {
            (
                ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
                | PermissionDenied | TimedOut,
                _,
            ) => Self::Aborted,
            (_, Some(number)) if cfg!(target_os = "linux") && OF_THE_CONNECTION.contains(&number) => Self::Aborted,
            (io::ErrorKind::Interrupted, _) => Self::Interrupted,
            (_, Some(ENFILE | EMFILE)) => Self::Files,
            (io::ErrorKind::OutOfMemory, _) | (_, Some(ENOMEM)) => Self::Memory,
            (_, Some(number)) if ENOBUFS.contains(&number) => Self::Memory,
            _ => Self::Other,
        }
    }
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
        /// Why, unless it was told to.
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

#[derive(Debug, Clone, Copy)]
enum Timer {
    Backoff,
    SlowHead,
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
    state: State,
    live: BTreeSet<u64>,
    /// Those whose heads are not complete, in the order in which they came, and since when.
    heads: BTreeMap<u64, (u64, Instant)>,
    /// Their numbers in that table.
    arrivals: BTreeMap<u64, u64>,
    arrived: u64,
    /// Who has been told to give way, and is not over yet.
    yields: Option<u64>,
    timers: Timers<Timer>,
    actions: Actions<Action>,
    unexpected: u64,
}

impl Machine for Accept {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        // The same in every state: somebody less, and nobody twice.
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
            self.unexpected += 1;
            return;
        }
        self.state = match self.state {
            State::Idle => self.idle(now, event),
            State::Listening => self.listening(now, event),
            State::Paused => self.paused(now, event),
            State::BackingOff => self.backing_off(now, event),
            State::Draining => self.draining(event),
            State::Stopped => self.stopped(event),
        };
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self.timers.expire(now) {
            Some(Timer::Backoff | Timer::SlowHead) => self.state = self.accept_more(now),
            Some(Timer::Drain) => {
                self.actions.push(Action::KillAll);
                self.state = self.finish(None);
            }
            None => {}
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Accept {
    /// A machine that has not begun: [`Event::Start`] does.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Idle,
            live: BTreeSet::new(),
            heads: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            arrived: 0,
            yields: None,
            timers: Timers::default(),
            actions: Actions::default(),
            unexpected: 0,
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
                self.actions.push(Action::Listen { port: self.config.accept_port });
                self.accept_more(now)
            }
            Event::Drain => self.finish(None),
            Event::Incoming { conn } => self.refuse(conn),
            Event::AcceptFailed { .. } | Event::HeadComplete { .. } | Event::Ended { .. } => self.unexpected(),
        }
    }

    fn listening(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Incoming { conn } => {
                self.live.insert(conn);
                self.arrived += 1;
                self.heads.insert(self.arrived, (conn, now));
                self.arrivals.insert(conn, self.arrived);
                self.actions.push(Action::Spawn { conn });
                self.accept_more(now)
            }
            Event::AcceptFailed { kind } => match kind {
                AcceptFault::Aborted | AcceptFault::Interrupted => self.accept_more(now),
                AcceptFault::Files | AcceptFault::Memory => {
                    self.timers.set(Timer::Backoff, now + self.config.accept_backoff);
                    State::BackingOff
                }
                AcceptFault::Other => {
                    self.actions.push(Action::StopListening);
                    self.finish(Some(kind))
                }
            },
            Event::Drain => self.drain(now),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::Listening,
            Event::Start => self.unexpected(),
        }
    }

    fn paused(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::HeadComplete { .. } | Event::Ended { .. } => self.accept_more(now),
            Event::Drain => self.drain(now),
            Event::Incoming { conn } => self.refuse(conn),
            Event::Start | Event::AcceptFailed { .. } => self.unexpected(),
        }
    }

    fn backing_off(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Drain => self.drain(now),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::BackingOff,
            Event::Incoming { conn } => self.refuse(conn),
            Event::Start | Event::AcceptFailed { .. } => self.unexpected(),
        }
    }

    fn draining(&mut self, event: Event) -> State {
        match event {
            Event::Ended { .. } if self.live.is_empty() => self.finish(None),
            Event::HeadComplete { .. } | Event::Ended { .. } => State::Draining,
            // What was accepted before the listener closed.
            Event::Incoming { conn } => self.refuse(conn),
            Event::Start | Event::AcceptFailed { .. } | Event::Drain => self.unexpected(),
        }
    }

    fn stopped(&mut self, event: Event) -> State {
        match event {
            Event::Incoming { conn } => self.refuse(conn),
            Event::Start
            | Event::AcceptFailed { .. }
            | Event::HeadComplete { .. }
            | Event::Ended { .. }
            | Event::Drain => State::Stopped,
        }
    }

    /// Asks for a connection, if there is room for one. Otherwise a slow head makes room, as soon as there is one.
    fn accept_more(&mut self, now: Instant) -> State {
        self.timers.stop(Timer::SlowHead);
        if self.has_room() {
            self.actions.push(Action::AcceptMore);
            return State::Listening;
        }
        if self.yields.is_none()
            && let Some((&nth, &(conn, came))) = self.heads.first_key_value()
        {
            let due = came + self.config.slow_head;
            if due > now {
                self.timers.set(Timer::SlowHead, due);
            } else {
                // Its place will be free in a moment, and one is enough.
                self.yields = Some(conn);
                self.heads.remove(&nth);
                self.arrivals.remove(&conn);
                self.actions.push(Action::GiveWay { conn });
            }
        }
        State::Paused
    }

    fn has_room(&self) -> bool {
        self.live.len() < self.config.max_transactions && self.heads.len() < self.config.max_heads
    }

    /// Refuses what nobody has asked for: whoever accepted it without a credit must not be left with it.
    fn refuse(&mut self, conn: u64) -> State {
        self.actions.push(Action::Refuse { conn });
        self.state
    }

    fn drain(&mut self, now: Instant) -> State {
        self.timers.stop(Timer::Backoff);
        self.timers.stop(Timer::SlowHead);
        self.actions.push(Action::StopListening);
        if self.live.is_empty() {
            return self.finish(None);
        }
        self.timers.set(Timer::Drain, now + self.config.drain_timeout);
        State::Draining
    }

    fn finish(&mut self, error: Option<AcceptFault>) -> State {
        self.timers.stop_all();
        self.actions.push(Action::Finished { error });
        State::Stopped
    }

    /// An event that no row of the table names: counted, and nothing else (D14).
    fn unexpected(&mut self) -> State {
        self.unexpected += 1;
        self.state
    }
}

#[cfg(test)]
mod tests;

impl Inspect for Accept {
    const NAME: &'static str = "txn.accept";

    fn state(&self) -> &'static str {
        match self.state {
            State::Idle => "idle",
            State::Listening => "listening",
            State::Paused => "paused",
            State::BackingOff => "backing_off",
            State::Draining => "draining",
            State::Stopped => "stopped",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| machine::Timer::name(timer))
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

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
            self.state,
            self.live,
            self.yields,
            self.timers.armed().collect::<Vec<_>>()
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
        let expected = match self.state {
            State::BackingOff => Some("accept_backoff"),
            State::Draining => Some("drain"),
            State::Idle | State::Listening | State::Paused | State::Stopped => None,
        };
        // One that has been told to give way is about to.
        let may_run = self.state == State::Paused && !self.heads.is_empty();
        if !self.timers.armed().filter(|timer| !(may_run && *timer == "slow_head")).eq(expected) {
            return Err(format!("{} needs the timers {expected:?}", self.state()));
        }
        if self.live.len() > self.config.max_transactions {
            return Err(format!("{} transactions, more than there may be", self.live.len()));
        }
        if self.heads.len() > self.config.max_heads || self.arrivals.len() != self.heads.len() {
            return Err(format!("{} heads, more than there may be or are known", self.heads.len()));
        }
        if self.actions.is_overrun() {
            return Err("an event caused more actions than there is room for".to_owned());
        }
        Ok(())
    }
}
