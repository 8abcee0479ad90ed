//! One transaction: a client asks for a file, and gets it out of the cache or, by way of the cache, from its origin (docs/protocols/txn-states.md).
//!
//! Everything that happens comes in through one door, the main handler. It does what is the same in every state, looks at the state, and
//! calls that state's handler. The handler does the state's part, names the next state, and asks for exactly the work whose completion
//! will be the next event. So back-pressure is part of the protocol: no read happens without a request for it.
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
mod state;
mod states;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

pub use config::{Config, KeyMode, Serve};
pub use events::{Action, Event, Flight, Limit, Outcome, WriteRefusal};

pub use crate::net::{Close, Fault};

use self::state::{CacheRead, Committing, Connecting, Fetch, Held, Lookup, Reading, Sending, Source, State};
use crate::{
    machine::{self, Automaton, Parts},
    txn::request::Request,
};

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

/// T1 to T10.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// For the head to be complete.
    Head,
    /// For the addresses of a name.
    Resolve,
    /// For one address to answer.
    Connect,
    /// For the origin to send or take something.
    Origin,
    /// For the client to take what it was given.
    ClientWrite,
    /// For the cache to answer.
    Cache,
    /// For all of it.
    Transaction,
    /// For another transaction's fetch.
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
    client: Client,
    /// What the head says, once it is there.
    asked: Option<Request>,
    /// Of the question that was asked last.
    seq: u64,
    parts: Parts<State, Timer, Action>,
}

impl Automaton for Transaction {
    const NAME: &'static str = "txn.transaction";
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
        if self.is_late(&event) {
            return state;
        }
        match (state, event) {
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
        }
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: Timer) -> State {
        match timer {
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
        }
    }
}

impl Transaction {
    /// A transaction whose client has not connected yet: [`Event::Accepted`] kicks it off.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, client: Client::default(), asked: None, seq: 0, parts: Parts::new(State::Start) }
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
        self.parts.ignored()
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
