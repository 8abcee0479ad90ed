//! One transaction: a client asks for a file, and gets it out of the cache or, by way of the cache, from its origin (docs/txn.md).
//!
//! Everything that happens comes in through one door, the main handler. It does what is the same in every state, looks at the state, and
//! calls that state's handler. The handler does the state's part, names the next state, and asks for exactly the work whose completion
//! will be the next event. So back-pressure is part of the protocol: nobody reads what nobody has asked for.
//!
//! The diagram is `docs/states/txn.transaction.md`.

/// Patterns of events by whom they come from: so that each handler names what it does not take, and a new event is missed everywhere.
macro_rules! on {
    (host) => { Event::Accepted | Event::GiveWay | Event::Shutdown };
    (client) => {
        Event::ClientData { .. } | Event::ClientEof | Event::ClientError { .. } | Event::ClientSent { .. }
    };
    (lookup) => { Event::CacheHit { .. } | Event::CacheMiss { .. } };
    (read) => { Event::CacheData { .. } | Event::CacheReadFailed };
    (room) => { Event::CacheWriteReady { .. } | Event::CacheWriteRefused { .. } };
    (store) => { Event::CacheStored { .. } | Event::CacheWriteFailed | Event::CacheCommitted };
    (flight) => { Event::FlightDone(_) };
    (name) => { Event::Resolved { .. } | Event::ResolveFailed { .. } };
    (dial) => { Event::Connected { .. } | Event::ConnectFailed { .. } };
    (origin) => {
        Event::OriginSent { .. } | Event::OriginData { .. } | Event::OriginEof | Event::OriginError { .. }
    };
    ($first:ident $($more:ident)+) => { on!($first) | on!($($more)+) };
}

mod config;
mod describe;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod played;
mod states;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;

pub use config::{Config, KeyMode, Serve};
pub use events::{Action, Close, Event, Fault, Flight, Limit, Outcome, WriteRefusal};

use crate::{
    machine::{self, Actions, Machine, Timers},
    txn::request::{HeadReader, Request},
};

/// Each variant holds what is valid in that state, and nothing else.
#[derive(Debug, Clone)]
enum State {
    /// Nobody has connected yet.
    Start,
    /// The head is coming.
    ReadRequest(HeadReader),
    /// The cache is asked for the object.
    CacheLookup(Lookup),
    /// The object goes from the cache to the client.
    CacheRead(CacheRead),
    /// The cache is asked for room.
    CachePrepareWrite(Fetch),
    /// Another transaction fetches it.
    WaitFlight(Fetch),
    /// The origin's name is being resolved.
    Resolve(Fetch),
    /// The origin is being connected to.
    Connect(Connecting),
    /// The head goes to the origin.
    SendRequest(Sending),
    /// The object comes from the origin.
    ReadOrigin(Reading),
    /// The cache is about to show it to everybody.
    Commit(Committing),
    /// The client has been given everything, and has not taken it yet.
    DrainClient(Outcome),
    /// It is over.
    Done,
}

#[derive(Debug, Clone)]
struct Lookup {
    request: Request,
    key: Bytes,
    source: Source,
}

/// Where an object that the cache has comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// It may be there, or not: a miss is fetched.
    Unknown,
    /// Another transaction has just fetched it.
    Another,
    /// This one has. Nothing is fetched twice (D15).
    Own,
}

#[derive(Debug, Clone)]
struct CacheRead {
    lookup: Lookup,
    /// Bytes that the client has not been given yet.
    left: u64,
}

/// What a fetch is about, in all its states.
#[derive(Debug, Clone)]
struct Fetch {
    request: Request,
    key: Bytes,
    /// Whether the cache takes it: always, but for `streamed` when the cache cannot.
    is_stored: bool,
}

#[derive(Debug, Clone)]
struct Connecting {
    fetch: Fetch,
    /// Addresses that have not been tried.
    left: VecDeque<IpAddr>,
}

#[derive(Debug, Clone)]
struct Sending {
    fetch: Fetch,
    /// Bytes of the head that the origin's socket has not taken.
    unsent: u64,
}

#[derive(Debug, Clone)]
struct Reading {
    fetch: Fetch,
    /// Bytes that have come.
    received: u64,
    /// Bytes that the cache has not taken yet.
    unstored: u64,
}

#[derive(Debug, Clone)]
struct Committing {
    request: Request,
    key: Bytes,
    total: u64,
}

/// The client's connection; what is common to all states.
#[derive(Debug, Clone, Default)]
struct Client {
    /// Bytes behind the head that were thrown away.
    discarded: usize,
    /// Bytes of the object that it was given.
    given: u64,
    /// Those of them that its socket has not taken.
    owed: u64,
    /// Its connection is closed, or about to be when it has taken everything.
    is_closed: bool,
    /// It has left, or was cut off; that is how this transaction will have ended.
    gone: Option<Outcome>,
}

/// What a failing transaction has to let go of.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    resolving: bool,
    connecting: bool,
    reads_cache: bool,
    writes_cache: bool,
    origin: bool,
}

/// T1 to T10.
#[derive(Debug, Clone, Copy)]
enum Timer {
    Head,
    Resolve,
    Connect,
    Origin,
    ClientWrite,
    Cache,
    Transaction,
    Flight,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[
        Self::Head,
        Self::Resolve,
        Self::Connect,
        Self::Origin,
        Self::ClientWrite,
        Self::Cache,
        Self::Transaction,
        Self::Flight,
    ];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Origin => "origin_idle",
            Self::ClientWrite => "client_write",
            Self::Cache => "cache",
            Self::Transaction => "transaction",
            Self::Flight => "flight",
        }
    }
}

/// The machine. See the top of the file for what it is for.
#[derive(Debug, Clone)]
pub struct Transaction {
    config: Arc<Config>,
    state: State,
    client: Client,
    /// What the head says, once it is there.
    asked: Option<Request>,
    /// Of the question that was asked last.
    seq: u64,
    timers: Timers<Timer>,
    actions: Actions<Action>,
    unexpected: u64,
}

impl Machine for Transaction {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        if self.is_late(&event) {
            return;
        }
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match (state, event) {
            (State::Done, _) => State::Done,
            // The same in every state.
            (state, Event::Shutdown) => self.cut_short(state, Outcome::ShutDown),
            // What it waits for is slow, and others need its place.
            (state @ (State::ReadRequest(_) | State::Resolve(_)), Event::GiveWay) => {
                self.fail(state.held(), Outcome::Busy)
            }
            (state, Event::ClientError { .. }) if self.client.is_closed => state,
            (state, Event::ClientError { .. }) => self.client_left(now, state, Outcome::ClientLeft),
            // A complete head is all that a client has to say: its end is only a half-close (D4, D5, W5).
            (state, Event::ClientEof) if state.is_past_head() => state,
            (state, Event::ClientData { bytes }) if state.is_past_head() => {
                self.discard(bytes.len());
                state
            }
            // Each state for itself.
            (State::Start, event) => self.start(now, event),
            (State::ReadRequest(head), event) => self.read_request(now, event, head),
            (State::CacheLookup(lookup), event) => self.cache_lookup(now, event, lookup),
            (State::CacheRead(read), event) => self.cache_read(now, event, read),
            (State::CachePrepareWrite(fetch), event) => self.cache_prepare_write(now, event, fetch),
            (State::WaitFlight(fetch), event) => self.wait_flight(now, event, fetch),
            (State::Resolve(fetch), event) => self.resolve(now, event, fetch),
            (State::Connect(connecting), event) => self.connect(now, event, connecting),
            (State::SendRequest(sending), event) => self.send_request(now, event, sending),
            (State::ReadOrigin(reading), event) => self.read_origin(now, event, reading),
            (State::Commit(committing), event) => self.commit(now, event, committing),
            (State::DrainClient(outcome), event) => self.drain_client(event, outcome),
        };
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Some(timer) = self.timers.expire(now) else { return };
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match timer {
            Timer::Head => self.fail(state.held(), Outcome::TimedOut { which: Limit::Head }),
            Timer::Transaction => self.cut_short(state, Outcome::TimedOut { which: Limit::Transaction }),
            Timer::Resolve => self.fail(state.held(), Outcome::ResolveFailed),
            Timer::Origin => self.fail(state.held(), Outcome::OriginFailed),
            Timer::ClientWrite => {
                self.close_client(Close::Abort);
                self.client_left(now, state, Outcome::TimedOut { which: Limit::ClientWrite })
            }
            Timer::Connect => self.connect_timeout(now, state),
            Timer::Cache => self.cache_timeout(now, state),
            Timer::Flight => self.flight_timeout(now, state),
        };
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Transaction {
    /// A transaction whose client has not connected yet: [`Event::Accepted`] kicks it off.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            state: State::Start,
            client: Client::default(),
            asked: None,
            seq: 0,
            timers: Timers::default(),
            actions: Actions::default(),
            unexpected: 0,
        }
    }

    /// What the client asks for, once its head is complete.
    #[must_use]
    pub fn asked(&self) -> Option<&Request> {
        self.asked.as_ref()
    }

    /// Bytes that the client was given.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.client.given
    }

    /// How many more bytes of the client may be read and thrown away (W5).
    #[must_use]
    pub fn may_discard(&self) -> usize {
        self.config.discard_max.saturating_sub(self.client.discarded)
    }

    /// Events that the host had no reason to send.
    #[must_use]
    pub fn unexpected_events(&self) -> u64 {
        self.unexpected
    }

    /// Whether an event answers a question that is no longer asked.
    fn is_late(&self, event: &Event) -> bool {
        let seq = match event {
            Event::CacheHit { seq, .. }
            | Event::CacheMiss { seq }
            | Event::CacheWriteReady { seq }
            | Event::CacheWriteRefused { seq, .. }
            | Event::Resolved { seq, .. }
            | Event::ResolveFailed { seq, .. }
            | Event::Connected { seq }
            | Event::ConnectFailed { seq, .. } => *seq,
            on!(host client read store flight origin) => None,
        };
        seq.is_some_and(|seq| seq != self.seq)
    }
}

impl State {
    fn is_past_head(&self) -> bool {
        !matches!(self, Self::Start | Self::ReadRequest(_))
    }

    /// What has to be let go of when it ends here.
    fn held(&self) -> Held {
        let none = Held::default();
        match self {
            Self::Start
            | Self::ReadRequest(_)
            | Self::CacheLookup(_)
            | Self::WaitFlight(_)
            | Self::Commit(_)
            | Self::DrainClient(_)
            | Self::Done => none,
            Self::CacheRead(_) => Held { reads_cache: true, ..none },
            // Also when the answer is still to come.
            Self::CachePrepareWrite(_) => Held { writes_cache: true, ..none },
            Self::Resolve(fetch) => Held { resolving: true, writes_cache: fetch.is_stored, ..none },
            Self::Connect(c) => Held { connecting: true, writes_cache: c.fetch.is_stored, ..none },
            Self::SendRequest(s) => Held { origin: true, writes_cache: s.fetch.is_stored, ..none },
            Self::ReadOrigin(r) => Held { origin: true, writes_cache: r.fetch.is_stored, ..none },
        }
    }
}
