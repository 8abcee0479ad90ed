//! The vocabulary of byte-stream bindings: what a host and a binding say to each other about connections.
//!
//! A byte-stream binding puts machines on connections that carry bytes in order: TCP, TLS, an SPN connection, a pair in memory. It implements
//! [`StreamBinding`] and does no I/O. The host reports what happened to a connection as an [`Event`], and performs each [`Command`].
//! A host over sockets is in [`host`](../host/index.html) (feature `host`); a test or a simulation is another one.
//!
//! # The life of a connection
//!
//! The binding numbers all connections, incoming and outgoing alike; [`Table`] makes the numbers.
//!
//! | phase | begins with | the binding may say | the host answers |
//! |---|---|---|---|
//! | name | [`Resolve`](Command::Resolve) on a new number | – | [`Resolved`](Event::Resolved) or [`ResolveFailed`](Event::ResolveFailed) |
//! | dial | [`Connect`](Command::Connect), on a new number or after `Resolved` | – | [`Connected`](Event::Connected) or [`ConnectFailed`](Event::ConnectFailed) |
//! | open | `Connected`, or [`handle_incoming`](StreamBinding::handle_incoming) | [`Read`](Command::Read) | [`Data`](Event::Data), [`End`](Event::End) or [`Error`](Event::Error) |
//! | | | [`Write`](Command::Write) | [`Sent`](Event::Sent) or `Error` |
//! | over | [`Close`](Command::Close), in any phase | nothing | nothing |
//!
//! - Each question has one answer. A connection has at most one unanswered `Read` and one unanswered `Write`.
//! - A `Read` is a credit: without one the host reads nothing, and the peer's bytes stay in the transport. This is the back-pressure of every
//!   binding.
//! - `Close` ends each connection, exactly once. It also withdraws what is unanswered: a look-up, a dial, a read, a write. After a failure
//!   (`ResolveFailed`, `ConnectFailed`, `Error`) the binding still closes.
//! - A number is not used again. A binding ignores an event for a number that it has closed: a host cannot always withdraw in time.
//!
//! An adaptor between stream and stream is a binding around a binding: it changes the bytes of `Data` and `Write`. It keeps the numbers, or, when
//! its connections outlive those of the inner binding, has numbers of its own; [`tls::Tls`](../tls/struct.Tls.html) does.
//!
//! # A binding and its host
//!
//! ```
//! use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, time::Instant};
//! use towline_core::net::{AcceptFault, Close, Command, ConnId, Event, StreamBinding, Table};
//!
//! /// Returns to each client what it sends.
//! #[derive(Default)]
//! struct Echo {
//!     clients: Table<ConnId, ()>,
//!     commands: VecDeque<Command>,
//! }
//!
//! impl StreamBinding for Echo {
//!     type Notice = Infallible;
//!
//!     fn wants_accept(&self) -> bool {
//!         self.clients.len() < 100
//!     }
//!     fn handle_incoming(&mut self, _now: Instant, _peer: SocketAddr) -> ConnId {
//!         let conn = self.clients.insert(());
//!         self.commands.push_back(Command::Read { conn, max: 1024 });
//!         conn
//!     }
//!     fn handle_accept_failed(&mut self, _now: Instant, _fault: AcceptFault) {}
//!     fn handle_event(&mut self, _now: Instant, conn: ConnId, event: Event) {
//!         if !self.clients.contains(conn) {
//!             return;
//!         }
//!         self.commands.push_back(match event {
//!             Event::Data { bytes } => Command::Write { conn, bytes },
//!             Event::Sent { .. } => Command::Read { conn, max: 1024 },
//!             _ => {
//!                 self.clients.remove(conn);
//!                 Command::Close { conn, how: Close::Fin, unread: 0 }
//!             }
//!         });
//!     }
//!     fn handle_timeout(&mut self, _now: Instant) {}
//!     fn poll_timeout(&self) -> Option<Instant> {
//!         None
//!     }
//!     fn poll_command(&mut self) -> Option<Command> {
//!         self.commands.pop_front()
//!     }
//!     fn poll_notice(&mut self) -> Option<Infallible> {
//!         None
//!     }
//! }
//!
//! // The host is this test: no socket is involved.
//! let now = towline_core::testing::first_instant(); // a real host's clock: `Instant::now()`
//! let mut echo = Echo::default();
//! assert!(echo.wants_accept());
//! let conn = echo.handle_incoming(now, ([192, 0, 2, 7], 1234).into());
//! assert_eq!(echo.poll_command(), Some(Command::Read { conn, max: 1024 }));
//! echo.handle_event(now, conn, Event::Data { bytes: "hello".into() });
//! assert_eq!(echo.poll_command(), Some(Command::Write { conn, bytes: "hello".into() }));
//! assert_eq!(echo.poll_command(), None, "nothing is read before the client has taken it");
//! echo.handle_event(now, conn, Event::Sent { len: 5 });
//! assert_eq!(echo.poll_command(), Some(Command::Read { conn, max: 1024 }));
//! echo.handle_event(now, conn, Event::End);
//! assert_eq!(echo.poll_command(), Some(Command::Close { conn, how: Close::Fin, unread: 0 }));
//! ```

mod fault;
mod hosts;
mod table;

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use fault::{AcceptFault, Fault};
pub use hosts::{Hosts, HostsError};
pub use table::Table;

/// The number of a connection, incoming or outgoing. The binding chooses it; it is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The place of the connection in a table: a small number, free for another connection after [`Command::Close`].
    #[must_use]
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

impl From<u64> for ConnId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<ConnId> for u64 {
    fn from(conn: ConnId) -> Self {
        conn.0
    }
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The name has addresses.
    Resolved {
        /// In the resolver's order; at least one.
        addresses: Vec<IpAddr>,
    },
    /// The name has no address, or no resolver answers.
    ResolveFailed {
        /// The reason.
        fault: Fault,
    },
    /// The peer accepted: the connection is open.
    Connected,
    /// The peer did not accept.
    ConnectFailed {
        /// The reason.
        fault: Fault,
    },
    /// The peer sent bytes: an answer to [`Command::Read`].
    Data {
        /// At least one byte, at most as many as the credit allowed.
        bytes: Bytes,
    },
    /// The peer ended its direction in good order: an answer to [`Command::Read`]. Bytes can still be written.
    End,
    /// The transport took all bytes of a [`Command::Write`].
    Sent {
        /// Their number.
        len: u64,
    },
    /// The connection broke: an answer to [`Command::Read`] or [`Command::Write`].
    Error {
        /// The reason.
        fault: Fault,
    },
}

/// What the host does for a binding.
///
/// The enum is exhaustive: a host that skips a command breaks the protocol above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Look up the addresses of a name, for a connection to be.
    Resolve {
        /// A new number.
        conn: ConnId,
        /// The name, as it came: not necessarily UTF-8.
        name: Bytes,
    },
    /// Connect to an address.
    Connect {
        /// A new number, or one whose name was resolved.
        conn: ConnId,
        /// The peer.
        address: SocketAddr,
    },
    /// Read once.
    Read {
        /// An open connection.
        conn: ConnId,
        /// The largest number of bytes; at least 1.
        max: usize,
    },
    /// Write all of these bytes.
    Write {
        /// An open connection.
        conn: ConnId,
        /// At least one byte.
        bytes: Bytes,
    },
    /// Close the connection and forget its number. What is unanswered needs no answer any more.
    Close {
        /// A connection in any phase.
        conn: ConnId,
        /// In good order or with a reset. Only an open connection has an order to keep.
        how: Close,
        /// Before an end in good order, the host discards at most so many bytes that have arrived and were not read: bytes that are left unread
        /// when a socket is closed turn the end into a reset (RFC 9293 §3.10.4).
        unread: usize,
    },
    /// Close the listeners. Accepted connections stay open.
    StopListening,
    /// End: the binding has nothing more to do, and this is its last command. The host closes what is still open with a reset.
    Stop,
}

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// In good order, after everything that was written.
    Fin,
    /// With a reset: what was sent is not all of it.
    Abort,
}

/// A protocol over byte streams, without I/O and without a clock.
///
/// # Contract
///
/// 1. While [`wants_accept`](Self::wants_accept), the host accepts a connection and hands it in with
///    [`handle_incoming`](Self::handle_incoming). At other times clients wait in the queue of the listener.
/// 2. The host hands in what happened with [`handle_event`](Self::handle_event), and calls [`handle_timeout`](Self::handle_timeout) when it is due.
/// 3. After each `handle_*` call it drains [`poll_command`](Self::poll_command) and performs each command in order; then it drains
///    [`poll_notice`](Self::poll_notice).
/// 4. It sleeps until [`poll_timeout`](Self::poll_timeout), or until something happens.
///
/// Orders of the owner, as to end, are methods of the binding itself; step 3 follows them as well.
///
/// `now` may repeat; if it goes backwards, timers fire late, and nothing else happens.
pub trait StreamBinding {
    /// What the owner of the host must know: a log record, the end of a service.
    type Notice;

    /// Whether one more connection may be accepted. The answer changes only in `handle_*` calls, and with an order of the owner.
    #[must_use]
    fn wants_accept(&self) -> bool;

    /// Takes an accepted connection and numbers it. A connection that is refused has a number as well: [`Command::Close`] follows.
    fn handle_incoming(&mut self, now: Instant, peer: SocketAddr) -> ConnId;

    /// Takes the failure of an accept. The listener stays ready for another try: a binding whose host ran out of files or memory stops wanting
    /// connections for a while.
    fn handle_accept_failed(&mut self, now: Instant, fault: AcceptFault);

    /// Takes what happened to a connection. Events of a connection that was closed have no effect.
    fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event);

    /// Fires what is due at `now`. An early call does nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`handle_timeout`](Self::handle_timeout) next. The answer changes only in `handle_*` calls, and with an order of the owner.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next command, until there is none.
    #[must_use]
    fn poll_command(&mut self) -> Option<Command>;

    /// The next notice, until there is none.
    #[must_use]
    fn poll_notice(&mut self) -> Option<Self::Notice>;
}
