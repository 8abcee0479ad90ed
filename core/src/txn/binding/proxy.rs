//! A whole caching proxy, as a byte-stream binding (see [`net`]).
//!
//! One [`Proxy`] is the accept machine, a transaction machine for each client, and what they share: the cache, and who waits for whom.
//! It answers the machines' questions to the cache itself; the host is left with connections and names. A transaction has up to two
//! connections, its client's and its origin's; each has a number of its own. The origin's begins with the question for its name.
//!
//! # Call contract
//!
//! [`start`](Proxy::start) it; then the contract is that of [`StreamBinding`].
//!
//! ```
//! use towline_core::{net::{Command, Event, StreamBinding}, txn::{allow::Allow, proxy::{Config, Proxy}}};
//!
//! let now = towline_core::testing::first_instant(); // a real host's clock: `Instant::now()`
//! let mut config = Config::default();
//! config.transaction.allow = Allow::everything();
//! let mut proxy = Proxy::new(config);
//! proxy.start(now);
//! assert!(proxy.wants_accept());
//! let client = proxy.handle_incoming(now, ([192, 0, 2, 7], 1234).into());
//! assert_eq!(proxy.poll_command(), Some(Command::Read { conn: client, max: 2050 }));
//!
//! let bytes = b"origin.test hello.txt \r\n\r\n"[..].into();
//! proxy.handle_event(now, client, Event::Data { bytes });
//! assert_eq!(proxy.poll_command(), Some(Command::Read { conn: client, max: 65536 }));
//! let Some(Command::Resolve { conn: origin, name }) = proxy.poll_command() else { panic!("a name is to be looked up") };
//! assert!(origin != client && name == b"origin.test"[..]);
//! assert_eq!(proxy.poll_command(), None);
//! ```

mod perform;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    machine::{Armed, Deadlines, Hosted},
    net::{self, AcceptFault, Command, ConnId, StreamBinding, Table},
    txn::{
        accept::{self, Accept},
        cache::{self, Cache, Flights, Reader},
        lookups::{self, Lookups},
        record::{Lookup, Record},
        transaction::{self, Event, Transaction},
    },
};

/// Bytes of a client that is refused that are discarded, so that it sees FIN (P9): more than any head has.
const REFUSED_UNREAD: usize = 4096;

/// Limits, times and choices of a proxy. The defaults are what ships, and allow no origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Of the accept machine.
    pub accept: accept::Config,
    /// Of each transaction.
    pub transaction: transaction::Config,
    /// Of the cache.
    pub cache: cache::Config,
    /// Of questions for the addresses of names.
    pub lookups: lookups::Config,
    /// Transactions at once of one client address (P9). Loopback has no such limit: it is this machine, and may stand for many clients, as an
    /// agent does that brings them from elsewhere.
    pub max_per_client: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            accept: accept::Config::default(),
            transaction: transaction::Config::default(),
            cache: cache::Config::default(),
            lookups: lookups::Config::default(),
            max_per_client: 64,
        }
    }
}

/// What the host must know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A lookup ended.
    Lookup(Lookup),
    /// A transaction ended.
    Finished {
        /// The connection of its client.
        client: ConnId,
        /// What is recorded of it.
        record: Record,
    },
    /// The proxy has ended, and this is the last notice; unless its owner asked for the end, the listener has failed.
    Stopped {
        /// Why.
        error: Option<AcceptFault>,
    },
}

/// What has been, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections that became transactions.
    pub accepted: u64,
    /// Connections that did not.
    pub refused: u64,
    /// Heads that are none.
    pub malformed: u64,
    /// Lookups that found something.
    pub hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Misses that waited for another's fetch.
    pub coalesced: u64,
    /// Origins that were asked.
    pub fetches: u64,
    /// Transactions that were not served, by the name of their outcome.
    pub failures: BTreeMap<&'static str, u64>,
    /// Bytes from origins.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Objects that had to go for others.
    pub evictions: u64,
    /// Transactions at the moment.
    pub live: usize,
    /// The longest queue for one fetch, at the moment.
    pub longest_queue: usize,
}

/// The number of a transaction; not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TxnId(u64);

impl From<u64> for TxnId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<TxnId> for u64 {
    fn from(id: TxnId) -> Self {
        id.0
    }
}

struct Txn {
    machine: Hosted<Transaction>,
    /// The number of its client's connection, also when that is closed.
    client: ConnId,
    client_ip: IpAddr,
    /// The connection to its origin, from the question for its name on.
    origin: Option<ConnId>,
    began: Instant,
    /// How the first lookup ended.
    hit: Option<bool>,
    reader: Option<Reader>,
    /// It writes the object with this key.
    writes: Option<Bytes>,
    /// It waits for the object with this key.
    waits: Option<Bytes>,
    /// The accept machine does not know yet that its head is complete.
    has_open_head: bool,
}

/// What a connection is to its transaction.
#[derive(Debug, Clone, Copy)]
struct Conn {
    txn: TxnId,
    side: Side,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    /// With the number of the machine's question: for the name, or for the connection.
    Origin {
        seq: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Accept,
    Lookups,
    Txn(TxnId),
}

/// A caching proxy. See the top of the file for how to drive it.
pub struct Proxy {
    max_per_client: usize,
    transaction: Arc<transaction::Config>,
    accept: Hosted<Accept>,
    /// A connection may be accepted.
    wants_accept: bool,
    txns: Table<TxnId, Txn>,
    /// All that are not closed.
    conns: Table<ConnId, Conn>,
    /// Transactions by the addresses of their clients.
    clients: BTreeMap<IpAddr, usize>,
    cache: Cache,
    flights: Flights<TxnId>,
    lookups: Lookups<TxnId>,
    lookups_armed: Armed,
    /// What one machine's actions mean to itself and to others; done one by one, so that no machine is called from within another.
    work: VecDeque<(TxnId, Event)>,
    deadlines: Deadlines<Due>,
    commands: VecDeque<Command>,
    notices: VecDeque<Notice>,
    /// The last notice, when there is nothing else to do any more.
    stopped: Option<Notice>,
    counters: Counters,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy that accepts nothing yet: [`start`](Self::start) it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            max_per_client: config.max_per_client,
            accept: Hosted::new(Accept::new(config.accept)),
            wants_accept: false,
            txns: Table::default(),
            conns: Table::default(),
            clients: BTreeMap::new(),
            flights: Flights::new(config.cache.max_waiters),
            lookups: Lookups::new(config.lookups),
            lookups_armed: Armed::default(),
            // An object that the cache does not take is one that the machine must not store.
            transaction: Arc::new(transaction::Config {
                max_object: config.transaction.max_object.min(config.cache.max_object),
                ..config.transaction
            }),
            cache: Cache::new(config.cache),
            work: VecDeque::new(),
            deadlines: Deadlines::default(),
            commands: VecDeque::new(),
            notices: VecDeque::new(),
            stopped: None,
            counters: Counters::default(),
        }
    }

    /// The listeners are open.
    pub fn start(&mut self, now: Instant) {
        self.accept_event(now, accept::Event::Start);
    }

    /// Accepts nothing more, and ends with the last transaction, or when the drain time is over. [`Notice::Stopped`] follows.
    pub fn drain(&mut self, now: Instant) {
        self.accept_event(now, accept::Event::Drain);
    }

    /// Ends every transaction now. [`Notice::Stopped`] follows.
    pub fn stop(&mut self, now: Instant) {
        self.drain(now);
        self.kill_all();
        self.settle(now);
    }

    /// What has been.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            evictions: self.cache.evictions(),
            live: self.accept.live(),
            longest_queue: self.flights.longest(),
            ..self.counters.clone()
        }
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Forgets a stored object, by its key ([`transaction::KeyMode::key`]); says whether there was one.
    pub fn purge(&mut self, key: &Bytes) -> bool {
        self.cache.purge(key)
    }
}

impl StreamBinding for Proxy {
    type Notice = Notice;

    fn wants_accept(&self) -> bool {
        self.wants_accept
    }

    fn handle_incoming(&mut self, now: Instant, peer: SocketAddr) -> ConnId {
        let client_ip = peer.ip().to_canonical();
        let of_client = self.clients.entry(client_ip).or_default();
        *of_client += 1;
        let is_over_its_share = *of_client > self.max_per_client && !client_ip.is_loopback();
        let conn = self.begin(now, client_ip);
        let Some(&Conn { txn, .. }) = self.conns.get(conn) else { return conn };
        if is_over_its_share {
            self.refuse(txn);
        } else {
            self.wants_accept = false;
            self.accept_event(now, accept::Event::Incoming { conn: txn.0 });
        }
        conn
    }

    fn handle_accept_failed(&mut self, now: Instant, kind: AcceptFault) {
        self.wants_accept = false;
        self.accept_event(now, accept::Event::AcceptFailed { kind });
    }

    fn handle_event(&mut self, now: Instant, conn: ConnId, event: net::Event) {
        let Some(&Conn { txn, side }) = self.conns.get(conn) else { return };
        let event = match side {
            Side::Client => on_client(event),
            Side::Origin { seq } => self.on_origin(txn, seq, event),
        };
        if let Some(event) = event {
            self.work.push_back((txn, event));
            self.settle(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, due)) = self.deadlines.expire(now) {
            match due {
                Due::Accept => {
                    if self.accept.expire(now, at) {
                        self.perform_accept();
                        self.settle(now);
                    }
                }
                Due::Lookups => {
                    if self.lookups_armed.take(at) {
                        self.settle(now);
                    }
                }
                Due::Txn(id) => {
                    if self.txns.get_mut(id).is_some_and(|txn| txn.machine.expire(now, at)) {
                        self.perform(now, id);
                        self.settle(now);
                    }
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

/// What happened to a client's connection, as the transaction sees it. A client is never looked up or dialled.
fn on_client(event: net::Event) -> Option<Event> {
    match event {
        net::Event::Data { bytes } => Some(Event::ClientData { bytes }),
        net::Event::End => Some(Event::ClientEof),
        net::Event::Sent { len } => Some(Event::ClientSent { len }),
        net::Event::Error { fault } => Some(Event::ClientError { kind: fault }),
        net::Event::Resolved { .. }
        | net::Event::ResolveFailed { .. }
        | net::Event::Connected
        | net::Event::ConnectFailed { .. } => None,
    }
}
