//! A whole caching proxy, as a binding: what its sockets and its resolver say goes in, what they are to do comes out.
//!
//! One [`Proxy`] is the accept machine, a transaction machine for each connection, and what they share: the cache, and who waits for whom.
//! It answers the machines' questions to the cache itself; the host is left with sockets and names.
//!
//! # Call contract
//!
//! 1. While [`wants_accept`](Proxy::wants_accept), accept a connection, and hand it in with [`handle_incoming`](Proxy::handle_incoming).
//! 2. Hand in what has happened with [`handle_event`](Proxy::handle_event), and [`handle_timeout`](Proxy::handle_timeout) when it is due.
//! 3. After each of these, [`poll_command`](Proxy::poll_command) until `None`, and do what it says; then [`poll_notice`](Proxy::poll_notice) until `None`.
//! 4. Sleep until [`poll_timeout`](Proxy::poll_timeout), or until something happens.
//!
//! ```
//! use towline_core::txn::{allow::Allow, proxy::{Command, Config, Proxy}, transaction::Event};
//!
//! let now = towline_core::testing::first_instant(); // a real host's clock: `Instant::now()`
//! let mut config = Config::default();
//! config.transaction.allow = Allow::everything();
//! let mut proxy = Proxy::new(config);
//! proxy.start(now);
//! assert!(proxy.wants_accept());
//! let conn = proxy.handle_incoming(now, ([192, 0, 2, 7], 1234).into()).expect("there is room");
//! assert_eq!(proxy.poll_command(), Some(Command::ReadClient { conn, max: 2050 }));
//!
//! let bytes = b"origin.test hello.txt \r\n\r\n"[..].into();
//! proxy.handle_event(now, conn, Event::ClientData { bytes });
//! assert_eq!(proxy.poll_command(), Some(Command::ReadClient { conn, max: 65536 }));
//! let name = b"origin.test"[..].into();
//! assert_eq!(proxy.poll_command(), Some(Command::Resolve { conn, name, seq: 3 }));
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
    machine::{Armed, Deadlines, Machine},
    txn::{
        accept::{self, Accept, AcceptFault},
        cache::{self, Cache, Flights, Reader},
        lookups::{self, Lookups},
        record::{Lookup, Record},
        transaction::{self, Close, Event, Transaction},
    },
};

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

/// A connection, for as long as it lasts; numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    /// Small numbers, used again: for tables of the host's own.
    #[must_use]
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// What the host is to do. Each is answered by events of the same name; see [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Read once from the client: at most `max` bytes.
    ReadClient {
        /// Whose.
        conn: ConnId,
        /// Bytes.
        max: usize,
    },
    /// Write to the client.
    WriteClient {
        /// Whose.
        conn: ConnId,
        /// These.
        bytes: Bytes,
    },
    /// Close the client's connection. Before it is closed in good order, throw away up to `unread` bytes that have come in the meantime:
    /// what is left unread when a socket is closed turns the end into a reset (RFC 9293 §3.10.4).
    CloseClient {
        /// Whose.
        conn: ConnId,
        /// How.
        how: Close,
        /// Bytes.
        unread: usize,
    },
    /// Ask for the addresses of a name.
    Resolve {
        /// For whom.
        conn: ConnId,
        /// The name.
        name: Bytes,
        /// To be given back with the answer.
        seq: u64,
    },
    /// They are not wanted any more.
    CancelResolve {
        /// For whom.
        conn: ConnId,
    },
    /// Connect to the origin.
    Connect {
        /// For whom.
        conn: ConnId,
        /// Where to.
        address: SocketAddr,
        /// To be given back with the answer.
        seq: u64,
    },
    /// That is not wanted any more.
    CancelConnect {
        /// For whom.
        conn: ConnId,
    },
    /// Write to the origin.
    WriteOrigin {
        /// Whose.
        conn: ConnId,
        /// These.
        bytes: Bytes,
    },
    /// Read once from the origin: at most `max` bytes.
    ReadOrigin {
        /// Whose.
        conn: ConnId,
        /// Bytes.
        max: usize,
    },
    /// Close the origin's connection.
    CloseOrigin {
        /// Whose.
        conn: ConnId,
        /// How.
        how: Close,
    },
    /// It is over: forget it, and close what is still open.
    Forget {
        /// Whom.
        conn: ConnId,
    },
}

/// What the host must know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A lookup ended.
    Lookup(Lookup),
    /// A transaction ended.
    Finished(Record),
    /// Close the listeners.
    StopListening,
    /// It is all over, and this is the last notice; unless it was told to end, the listener has failed.
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

struct Conn {
    machine: Transaction,
    armed: Armed,
    client: IpAddr,
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

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Accept,
    Lookups,
    Conn(ConnId),
}

/// A caching proxy. See the top of the file for how to drive it.
pub struct Proxy {
    max_per_client: usize,
    transaction: Arc<transaction::Config>,
    accept: Accept,
    armed: Armed,
    /// A connection may be accepted.
    wants_accept: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    clients: BTreeMap<IpAddr, usize>,
    cache: Cache,
    flights: Flights<ConnId>,
    lookups: Lookups<ConnId>,
    lookups_armed: Armed,
    /// What one machine's actions mean to itself and to others; done one by one, so that no machine is called from within another.
    work: VecDeque<(ConnId, Event)>,
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
            accept: Accept::new(config.accept),
            armed: Armed::default(),
            wants_accept: false,
            slots: Vec::new(),
            free: Vec::new(),
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

    /// Whether a connection may be accepted. Otherwise leave it in the kernel's queue.
    #[must_use]
    pub fn wants_accept(&self) -> bool {
        self.wants_accept
    }

    /// Takes an accepted connection; `None` means: close it at once.
    pub fn handle_incoming(&mut self, now: Instant, client: SocketAddr) -> Option<ConnId> {
        let client = client.ip().to_canonical();
        let of_client = self.clients.get(&client).copied().unwrap_or(0);
        if of_client >= self.max_per_client && !client.is_loopback() {
            self.counters.refused += 1;
            return None;
        }
        self.clients.insert(client, of_client + 1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = self.slots.get_mut(index as usize)?;
        let id = ConnId::new(index, slot.generation);
        slot.conn = Some(Conn {
            machine: Transaction::new(self.transaction.clone()),
            armed: Armed::default(),
            client,
            began: now,
            hit: None,
            reader: None,
            writes: None,
            waits: None,
            has_open_head: true,
        });
        self.wants_accept = false;
        self.accept_event(now, accept::Event::Incoming { conn: id.0 });
        // Unless the accept machine refused it.
        self.conn(id).is_some().then_some(id)
    }

    /// No connection could be accepted.
    pub fn handle_accept_failed(&mut self, now: Instant, kind: AcceptFault) {
        self.wants_accept = false;
        self.accept_event(now, accept::Event::AcceptFailed { kind });
    }

    /// Takes what has happened to a connection: the events of sockets and names. Those of a connection that is over mean nothing.
    pub fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        if let Event::OriginData { bytes } = &event {
            self.counters.bytes_in += bytes.len() as u64;
        }
        if let Event::Resolved { addrs, .. } = &event {
            self.end_lookup(conn, !addrs.is_empty());
        }
        if let Event::ResolveFailed { .. } = &event {
            self.end_lookup(conn, false);
        }
        self.work.push_back((conn, event));
        self.settle(now);
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

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, due)) = self.deadlines.expire(now) {
            match due {
                Due::Accept => {
                    if self.armed.take(at) {
                        self.accept.handle_timeout(now);
                        self.perform_accept();
                        self.settle(now);
                    }
                }
                Due::Lookups => {
                    if self.lookups_armed.take(at) {
                        self.settle(now);
                    }
                }
                Due::Conn(id) => {
                    if let Some(conn) = self.conn(id)
                        && conn.armed.take(at)
                    {
                        conn.machine.handle_timeout(now);
                        self.perform(now, id);
                        self.settle(now);
                    }
                }
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The next thing to do, until there is none.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next thing the host must know, until there is none.
    #[must_use]
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
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
