//! One socket's worth of QUIC.

mod half_open;
mod streams;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{
    AcceptError, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Incoming, StreamEvent, VarInt,
    crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;

use self::half_open::{HalfOpen, Verdict};
use super::{
    ClientConfig, Clock, Ecn, EndpointConfig, PeerIdentity, Received, ServerConfig, StreamId, Transmit,
    config::{LastCid, is_dialable},
};
use crate::machine::{Armed, Deadlines};

/// The largest UDP payload over IPv4; a send with segmentation offload is one payload to the kernel.
const MAX_SEND: usize = 65_507;
/// Sends of one connection before the next one has its turn.
const SENDS_A_TURN: usize = 16;
/// Stateless answers that wait to be sent; more are dropped, as the network may.
const MAX_ANSWERS: usize = 256;
/// RFC 9000 §20.1.
const CONNECTION_REFUSED: u64 = 0x02;

/// A connection of an [`Endpoint`]. Never used twice, so an old one is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

impl Handle {
    /// A number that no other connection of its endpoint has.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The connection of such a number.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[cfg(test)]
impl Handle {
    /// One of no connection.
    pub(crate) fn of_test(index: u32) -> Self {
        Self { index, generation: 0 }
    }
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client began a handshake; the first event of a connection that we did not dial.
    Incoming {
        /// Its address.
        remote: SocketAddr,
    },
    /// The handshake is done.
    Connected {
        /// The protocol that was agreed on.
        alpn: Vec<u8>,
        /// Who the peer is.
        peer: PeerIdentity,
    },
    /// The peer opened a stream, and it may be readable.
    StreamOpened(StreamId),
    /// [`Endpoint::open`] may work again.
    StreamsAvailable,
    /// There may be something to read.
    Readable(StreamId),
    /// There may be room to write.
    Writable(StreamId),
    /// The peer wants no more, with this code.
    Stopped(StreamId, u64),
    /// The peer has everything up to our end of the stream.
    Acked(StreamId),
    /// A word came (QUIC DATAGRAM).
    Datagram(Bytes),
    /// It is over; the last event. Without `Connected` before it the handshake failed.
    Closed(CloseReason),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer's application closed it.
    #[error("closed by the peer with code 0x{code:x} ({reason})")]
    Peer {
        /// Its code.
        code: u64,
        /// Its reason text.
        reason: String,
    },
    /// We closed it.
    #[error("closed here")]
    Local,
    /// QUIC or TLS failed, here or there.
    #[error("{text} (QUIC error 0x{code:x})")]
    Transport {
        /// The error code of RFC 9000 §20.1; 0x100 and up are TLS alerts.
        code: u64,
        /// What went wrong.
        text: String,
    },
    /// The peer has lost its state (stateless reset): it restarted.
    #[error("reset by the peer, which has lost its state")]
    Reset,
    /// The peer was silent for the whole idle timeout.
    #[error("the peer has been silent for too long")]
    TimedOut,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Took as many chunks as it was allowed; there may be more.
    More,
    /// Took all there is; [`Event::Readable`] tells of more.
    Blocked,
    /// Took all there is, and the peer's end of data.
    Finished,
    /// The peer aborted.
    Reset(u64),
    /// There is no such stream any more.
    Gone,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All is taken.
    Written {
        /// How much that was.
        bytes: usize,
    },
    /// No more room; [`Event::Writable`] tells of more.
    Blocked {
        /// Bytes taken.
        bytes: usize,
        /// Chunks taken whole; the one behind them has been advanced by what was taken of it.
        chunks: usize,
    },
    /// The peer wants no more, with this code.
    Stopped(u64),
    /// There is no such stream any more.
    Gone,
}

/// Why a connection cannot be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address has no port or no host.
    #[error("{0} cannot be dialled")]
    Address(SocketAddr),
    /// The name is neither a DNS name nor an IP address.
    #[error("`{0}` is no valid server name")]
    Name(String),
    /// There are too many connections.
    #[error("no room for another connection")]
    Full,
}

struct Conn {
    quic: Connection,
    generation: u32,
    armed: Armed,
    /// Hex of our first connection id.
    id: String,
    phase: Phase,
    /// It is in the queue of those that may have events.
    in_touched: bool,
    /// It is in the queue of those that may have something to send.
    in_sendable: bool,
    /// It is to use another of the peer's connection ids as soon as one has come.
    wants_id: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// [`Event::Closed`] has been said.
    Closed,
}

/// Newcomers that were turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnedAway {
    /// One of them.
    pub remote: SocketAddr,
    /// Why that one was.
    pub reason: &'static str,
    /// How many they are.
    pub count: u64,
}

/// A QUIC endpoint: all connections of one socket.
pub struct Endpoint {
    quic: quinn_proto::Endpoint,
    clock: Clock,
    last_cid: LastCid,
    server: Option<ServerConfig>,
    accepting: bool,
    max_segments: usize,
    max_connections: usize,
    half_open: HalfOpen,
    turned_away: Option<TurnedAway>,
    retry: RetryGauge,
    conns: Vec<Option<Conn>>,
    generations: Vec<u32>,
    open: usize,
    events: VecDeque<(Handle, Event)>,
    touched: VecDeque<Handle>,
    sendable: VecDeque<Handle>,
    sends: usize,
    deadlines: Deadlines<Handle>,
    answers: VecDeque<(Transmit, Vec<u8>)>,
    spare: Vec<u8>,
}

/// Counts handshakes from unvalidated addresses, second by second.
struct RetryGauge {
    above: u32,
    second: Option<Instant>,
    count: u32,
}

impl RetryGauge {
    fn is_exceeded(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|began| now >= began + Duration::from_secs(1)) {
            self.second = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count > self.above
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("connections", &self.open).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint without connections. Without a server configuration it only dials.
    #[must_use]
    pub fn new(config: EndpointConfig, server: Option<ServerConfig>) -> Self {
        let (quic, last_cid) = config.build();
        let quic = quinn_proto::Endpoint::new(
            quic.into(),
            server.as_ref().map(|server| server.0.clone()),
            true, // Whether the host's sockets set "don't fragment": MTU discovery needs it.
            Some(config.seed),
        );
        Self {
            quic,
            last_cid,
            clock: config.clock,
            accepting: server.is_some(),
            server,
            max_segments: config.max_segments.clamp(1, 64),
            max_connections: config.max_connections,
            half_open: HalfOpen::new(half_open::Limits {
                total: config.max_handshakes,
                per_source: config.max_handshakes_per_source,
                retry_above: config.retry_handshakes,
                time: config.handshake_time,
            }),
            turned_away: None,
            retry: RetryGauge { above: config.retry_above, second: None, count: 0 },
            conns: Vec::new(),
            generations: Vec::new(),
            open: 0,
            events: VecDeque::new(),
            touched: VecDeque::new(),
            sendable: VecDeque::new(),
            sends: 0,
            deadlines: Deadlines::default(),
            answers: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Changes certificate and client CA for handshakes from now on; existing connections are not touched.
    pub fn set_server_config(&mut self, config: ServerConfig) {
        self.quic.set_server_config(Some(config.0.clone()));
        self.server = Some(config);
    }

    /// Whether new connections are accepted; if not, they are refused (CONNECTION_REFUSED).
    pub fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    /// Segments that one send call may carry from now on (GSO).
    pub fn set_max_segments(&mut self, segments: usize) {
        self.max_segments = segments.clamp(1, 64);
    }

    /// Connections, those included that are still closing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    /// Begins a connection to `remote`, which must show a certificate for `server_name` (a DNS name or an IP address).
    ///
    /// # Errors
    /// An address or name that cannot be dialled, or too many connections.
    pub fn connect(
        &mut self,
        now: Instant,
        config: &ClientConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<Handle, ConnectError> {
        self.clock.advance(now);
        if !is_dialable(remote) {
            return Err(ConnectError::Address(remote));
        }
        if self.open >= self.max_connections {
            return Err(ConnectError::Full);
        }
        let (ch, conn) =
            self.quic.connect(now, config.0.clone(), remote, server_name).map_err(|error| match error {
                quinn_proto::ConnectError::InvalidServerName(name) => ConnectError::Name(name),
                quinn_proto::ConnectError::InvalidRemoteAddress(address) => ConnectError::Address(address),
                quinn_proto::ConnectError::CidsExhausted
                | quinn_proto::ConnectError::EndpointStopping
                | quinn_proto::ConnectError::NoDefaultClientConfig
                | quinn_proto::ConnectError::UnsupportedVersion => ConnectError::Full,
            })?;
        Ok(self.add(ch, conn))
    }

    /// Takes a datagram from the socket. Garbage is ignored, as RFC 9000 §5.2 has it.
    pub fn handle_datagram(&mut self, now: Instant, received: Received) {
        self.clock.advance(now);
        let Received { remote, local_ip, ecn, data } = received;
        let mut answer = std::mem::take(&mut self.spare);
        answer.clear();
        match self.quic.handle(now, remote, local_ip, ecn.map(Ecn::to_quinn), data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(ch, event)) => {
                if let Some(handle) = self.handle_of(ch) {
                    if let Some(conn) = self.get(handle) {
                        conn.quic.handle_event(event);
                    }
                    self.touch(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let transmit = self.incoming(now, incoming, &mut answer);
                self.answer(transmit, &mut answer);
            }
            Some(DatagramEvent::Response(transmit)) => self.answer(Some(transmit), &mut answer),
            None => {}
        }
        self.spare = answer;
    }

    fn incoming(&mut self, now: Instant, incoming: Incoming, answer: &mut Vec<u8>) -> Option<quinn_proto::Transmit> {
        if !self.accepting {
            return Some(self.quic.refuse(incoming, answer));
        }
        let (remote, validated) = (incoming.remote_address(), incoming.remote_address_validated());
        // The rate counts as well: many that begin at once are not half-open for long, but each costs a signature.
        let is_fast = !validated && self.retry.is_exceeded(now);
        let verdict = self.half_open.judge(now, remote, validated);
        if (is_fast || verdict == Verdict::Retry) && incoming.may_retry() {
            // `may_retry` was asked, so this cannot fail; if it did, the incoming connection is dropped with the error.
            return self.quic.retry(incoming, answer).ok();
        }
        if self.open >= self.max_connections {
            self.turn_away(remote, "too many connections");
            return Some(self.quic.refuse(incoming, answer));
        }
        match verdict {
            Verdict::Replace(oldest) => self.give_up(oldest, "gave way to newer handshakes"),
            // It says so again in a moment; a refusal would be the end for an honest one.
            Verdict::Drop => {
                self.turn_away(remote, "too many handshakes at once");
                self.quic.ignore(incoming);
                return None;
            }
            Verdict::Accept | Verdict::Retry => {}
        }
        // The id of the handshake is quiet: see `change_id`.
        self.last_cid.set_quiet(true);
        let accepted = self.quic.accept(incoming, now, answer, None);
        self.last_cid.set_quiet(false);
        match accepted {
            Ok((ch, conn)) => {
                let handle = self.add(ch, conn);
                self.half_open.add(now, handle, remote, validated);
                self.events.push_back((handle, Event::Incoming { remote }));
                None
            }
            Err(AcceptError { cause, response }) => {
                tracing::debug!(%cause, "connection refused");
                response
            }
        }
    }

    /// Ends a handshake silently, and frees all it had at once.
    fn give_up(&mut self, handle: Handle, why: &str) {
        let reason = CloseReason::Transport { code: CONNECTION_REFUSED, text: why.to_owned() };
        self.say_closed(handle, reason);
        if self.get(handle).is_some() {
            self.quic.handle_event(ConnectionHandle(handle.index as usize), quinn_proto::EndpointEvent::drained());
            self.remove(handle);
        }
    }

    fn turn_away(&mut self, remote: SocketAddr, reason: &'static str) {
        self.turned_away.get_or_insert(TurnedAway { remote, reason, count: 0 }).count += 1;
    }

    /// Newcomers that were turned away before they had a connection, since the last call.
    pub fn take_turned_away(&mut self) -> Option<TurnedAway> {
        self.turned_away.take()
    }

    fn answer(&mut self, transmit: Option<quinn_proto::Transmit>, buffer: &mut Vec<u8>) {
        if let Some(transmit) = transmit
            && self.answers.len() < MAX_ANSWERS
        {
            self.answers.push_back((transmit.into(), std::mem::take(buffer)));
        }
    }

    fn add(&mut self, ch: ConnectionHandle, quic: Connection) -> Handle {
        if self.conns.len() <= ch.0 {
            self.conns.resize_with(ch.0 + 1, || None);
            self.generations.resize(ch.0 + 1, 0);
        }
        let mut generation = 0;
        if let Some(last) = self.generations.get_mut(ch.0) {
            *last = last.wrapping_add(1);
            generation = *last;
        }
        let handle = Handle { index: ch.0 as u32, generation };
        let id = self.last_cid.hex();
        let conn = Conn {
            quic,
            generation,
            armed: Armed::default(),
            id,
            phase: Phase::Handshake,
            in_touched: false,
            in_sendable: false,
            wants_id: false,
        };
        if let Some(slot) = self.conns.get_mut(ch.0) {
            *slot = Some(conn);
        }
        self.open += 1;
        self.touch(handle);
        handle
    }

    fn handle_of(&self, ch: ConnectionHandle) -> Option<Handle> {
        let conn = self.conns.get(ch.0)?.as_ref()?;
        Some(Handle { index: ch.0 as u32, generation: conn.generation })
    }

    fn get(&mut self, handle: Handle) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(handle.index as usize)?.as_mut()?;
        (conn.generation == handle.generation).then_some(conn)
    }

    /// A connection that the caller may still use.
    fn live(&mut self, handle: Handle) -> Option<&mut Conn> {
        self.get(handle).filter(|conn| conn.phase != Phase::Closed)
    }

    /// Notes that a connection may have events and something to send.
    fn touch(&mut self, handle: Handle) {
        let Some(conn) = self.get(handle) else { return };
        let (touched, sendable) = (!conn.in_touched, !conn.in_sendable);
        (conn.in_touched, conn.in_sendable) = (true, true);
        if touched {
            self.touched.push_back(handle);
        }
        if sendable {
            self.sendable.push_back(handle);
        }
    }

    /// Notes that a connection may have something to send.
    fn wants_to_send(&mut self, handle: Handle) {
        let Some(conn) = self.get(handle) else { return };
        if !std::mem::replace(&mut conn.in_sendable, true) {
            self.sendable.push_back(handle);
        }
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock.advance(now);
        while let Some((at, handle)) = self.deadlines.expire(now) {
            let Some(conn) = self.get(handle) else { continue };
            if !conn.armed.take(at) {
                continue;
            }
            if conn.quic.poll_timeout().is_some_and(|due| due <= now) {
                conn.quic.handle_timeout(now);
                self.touch(handle);
            } else {
                self.arm(handle);
            }
        }
        while let Some(handle) = self.half_open.expired(now) {
            self.half_open.remove(handle);
            self.give_up(handle, "the handshake has taken too long");
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. Ask after [`poll_transmit`](Self::poll_transmit) has been drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.deadlines.next(), self.half_open.next_due()].into_iter().flatten().min()
    }

    fn arm(&mut self, handle: Handle) {
        let Some(conn) = self.conns.get_mut(handle.index as usize).and_then(Option::as_mut) else { return };
        if conn.generation == handle.generation {
            let due = conn.quic.poll_timeout();
            self.deadlines.arm(&mut conn.armed, due, handle);
        }
    }

    /// The next event, until there is none.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<(Handle, Event)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let handle = self.touched.pop_front()?;
            if let Some(conn) = self.get(handle) {
                conn.in_touched = false;
            }
            self.collect(handle);
        }
    }

    /// Moves a connection's events over, and lets connection and endpoint talk to each other.
    fn collect(&mut self, handle: Handle) {
        let ch = ConnectionHandle(handle.index as usize);
        while let Some(event) = self.get(handle).and_then(|conn| conn.quic.poll()) {
            self.translate(handle, event);
        }
        while let Some(conn) = self.get(handle) {
            let Some(event) = conn.quic.poll_endpoint_events() else { break };
            let drained = event.is_drained();
            if let Some(answer) = self.quic.handle_event(ch, event)
                && let Some(conn) = self.get(handle)
            {
                conn.quic.handle_event(answer);
                self.wants_to_send(handle);
            }
            if drained {
                self.remove(handle);
                return;
            }
        }
        self.use_new_id(handle);
    }

    fn remove(&mut self, handle: Handle) {
        self.say_closed(handle, CloseReason::Local);
        if let Some(slot) = self.conns.get_mut(handle.index as usize) {
            *slot = None;
            self.open -= 1;
        }
    }

    /// Says the last event of a connection, once.
    fn say_closed(&mut self, handle: Handle, reason: CloseReason) {
        let Some(conn) = self.live(handle) else { return };
        let was = std::mem::replace(&mut conn.phase, Phase::Closed);
        if was == Phase::Handshake {
            self.half_open.remove(handle);
        }
        self.events.push_back((handle, Event::Closed(reason)));
    }

    fn translate(&mut self, handle: Handle, event: quinn_proto::Event) {
        use quinn_proto::Event as E;
        let Some(conn) = self.live(handle) else { return };
        let event = match event {
            E::HandshakeDataReady | E::DatagramsUnblocked => return,
            E::Connected => {
                conn.phase = Phase::Open;
                let tls = conn.quic.crypto_session();
                let alpn = tls
                    .handshake_data()
                    .and_then(|data| data.downcast::<HandshakeData>().ok())
                    .and_then(|data| data.protocol);
                let peer = tls
                    .peer_identity()
                    .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
                    .and_then(|chain| chain.first().map(PeerIdentity::from_certificate));
                self.half_open.remove(handle);
                Event::Connected { alpn: alpn.unwrap_or_default(), peer: peer.unwrap_or_default() }
            }
            E::ConnectionLost { reason } => return self.say_closed(handle, close_reason(reason)),
            E::DatagramReceived => {
                while let Some(word) = self.live(handle).and_then(|conn| conn.quic.datagrams().recv()) {
                    self.events.push_back((handle, Event::Datagram(word)));
                }
                return;
            }
            E::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(id) = self.live(handle).and_then(|conn| conn.quic.streams().accept(Dir::Bi)) {
                    self.events.push_back((handle, Event::StreamOpened(StreamId(id))));
                }
                return;
            }
            E::Stream(StreamEvent::Available { dir: Dir::Bi }) => Event::StreamsAvailable,
            E::Stream(StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { dir: Dir::Uni }) => return,
            E::Stream(StreamEvent::Readable { id }) => Event::Readable(StreamId(id)),
            E::Stream(StreamEvent::Writable { id }) => Event::Writable(StreamId(id)),
            E::Stream(StreamEvent::Stopped { id, error_code }) => Event::Stopped(StreamId(id), error_code.into_inner()),
            E::Stream(StreamEvent::Finished { id }) => Event::Acked(StreamId(id)),
        };
        self.events.push_back((handle, event));
    }

    /// The next datagrams to send, until there are none: `buffer` is cleared and filled with one or more segments of equal size (the last may be shorter).
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.clock.advance(now);
        buffer.clear();
        if let Some((transmit, bytes)) = self.answers.pop_front() {
            buffer.extend_from_slice(&bytes);
            self.spare = bytes;
            return Some(transmit);
        }
        while let Some(&handle) = self.sendable.front() {
            let max_segments = self.max_segments;
            let transmit = self.get(handle).and_then(|conn| {
                let fit = MAX_SEND / usize::from(conn.quic.current_mtu()).max(1);
                conn.quic.poll_transmit(now, max_segments.min(fit).max(1), buffer)
            });
            let turn_over = match &transmit {
                Some(_) => {
                    self.sends += 1;
                    self.sends >= SENDS_A_TURN
                }
                None => true,
            };
            if turn_over {
                self.sends = 0;
                self.sendable.pop_front();
                if transmit.is_some() {
                    self.sendable.push_back(handle);
                } else {
                    if let Some(conn) = self.get(handle) {
                        conn.in_sendable = false;
                    }
                    self.collect(handle);
                    self.arm(handle);
                }
            }
            if let Some(transmit) = transmit {
                return Some(transmit.into());
            }
        }
        None
    }
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// A peer's text for people: whatever it holds, it writes no line of its own into a log.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

fn close_reason(error: ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::Peer {
            code: close.error_code.into_inner(),
            reason: one_line(&String::from_utf8_lossy(&close.reason)),
        },
        ConnectionError::ConnectionClosed(close) => CloseReason::Transport {
            code: close.error_code.into(),
            text: match String::from_utf8_lossy(&close.reason) {
                reason if reason.is_empty() => format!("the peer gave up: {}", close.error_code),
                reason => format!("the peer gave up: {}", one_line(&reason)),
            },
        },
        ConnectionError::TransportError(error) => {
            CloseReason::Transport { code: error.code.into(), text: error.reason }
        }
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::VersionMismatch => {
            CloseReason::Transport { code: 0x11, text: "no common QUIC version".to_owned() }
        }
        ConnectionError::CidsExhausted => {
            CloseReason::Transport { code: 0x02, text: "no connection id is left".to_owned() }
        }
    }
}
