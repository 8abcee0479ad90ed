//! One socket's worth of QUIC.

mod conns;
mod half_open;
mod streams;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::{AcceptError, DatagramEvent, Dir, Incoming, StreamEvent, VarInt, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;

pub use self::conns::Handle;
use self::{
    conns::{Conns, Phase},
    half_open::{HalfOpen, Verdict},
};
use super::{
    ClientConfig, Clock, CloseReason, ConnectError, Ecn, EndpointConfig, Event, PeerIdentity, Received, ServerConfig,
    StreamId, Transmit,
    config::{LastCid, is_dialable},
    event::close_reason,
};
use crate::machine::Deadlines;

/// The largest UDP payload over IPv4; a send with segmentation offload is one payload to the kernel.
const MAX_SEND: usize = 65_507;
/// Stateless answers that wait to be sent; more are dropped, as the network may.
const MAX_ANSWERS: usize = 256;
/// RFC 9000 §20.1.
const CONNECTION_REFUSED: u64 = 0x02;

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
    conns: Conns,
    events: VecDeque<(Handle, Event)>,
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
        f.debug_struct("Endpoint").field("connections", &self.conns.len()).finish_non_exhaustive()
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
            conns: Conns::default(),
            events: VecDeque::new(),
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
        self.conns.len()
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
        if self.conns.len() >= self.max_connections {
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
        Ok(self.conns.insert(ch, conn, self.last_cid.hex()))
    }

    /// Takes a datagram from the socket. Garbage is ignored, as RFC 9000 §5.2 has it.
    pub fn handle_datagram(&mut self, now: Instant, received: Received) {
        self.clock.advance(now);
        let Received { remote, local_ip, ecn, data } = received;
        let mut answer = std::mem::take(&mut self.spare);
        answer.clear();
        match self.quic.handle(now, remote, local_ip, ecn.map(Ecn::to_quinn), data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(ch, event)) => {
                if let Some(handle) = self.conns.handle_of(ch) {
                    if let Some(conn) = self.conns.get(handle) {
                        conn.quic.handle_event(event);
                    }
                    self.conns.touch(handle);
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
        if self.conns.len() >= self.max_connections {
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
                let handle = self.conns.insert(ch, conn, self.last_cid.hex());
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
        self.report_closed(handle, reason);
        if self.conns.get(handle).is_some() {
            self.quic.handle_event(handle.to_quinn(), quinn_proto::EndpointEvent::drained());
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

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock.advance(now);
        while let Some((at, handle)) = self.deadlines.expire(now) {
            let Some(conn) = self.conns.get(handle) else { continue };
            if !conn.armed.take(at) {
                continue;
            }
            if conn.quic.poll_timeout().is_some_and(|due| due <= now) {
                conn.quic.handle_timeout(now);
                self.conns.touch(handle);
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
        if let Some(conn) = self.conns.get(handle) {
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
            let handle = self.conns.next_touched()?;
            self.collect(handle);
        }
    }

    /// Moves a connection's events over, and lets connection and endpoint talk to each other.
    fn collect(&mut self, handle: Handle) {
        let ch = handle.to_quinn();
        while let Some(event) = self.conns.get(handle).and_then(|conn| conn.quic.poll()) {
            self.translate(handle, event);
        }
        while let Some(conn) = self.conns.get(handle) {
            let Some(event) = conn.quic.poll_endpoint_events() else { break };
            let drained = event.is_drained();
            if let Some(answer) = self.quic.handle_event(ch, event)
                && let Some(conn) = self.conns.get(handle)
            {
                conn.quic.handle_event(answer);
                self.conns.wants_to_send(handle);
            }
            if drained {
                self.remove(handle);
                return;
            }
        }
        self.use_new_id(handle);
    }

    fn remove(&mut self, handle: Handle) {
        self.report_closed(handle, CloseReason::Local);
        self.conns.remove(handle);
    }

    /// Reports the last event of a connection, once.
    fn report_closed(&mut self, handle: Handle, reason: CloseReason) {
        let Some(conn) = self.conns.live(handle) else { return };
        let was = std::mem::replace(&mut conn.phase, Phase::Closed);
        if was == Phase::Handshake {
            self.half_open.remove(handle);
        }
        self.events.push_back((handle, Event::Closed(reason)));
    }

    fn translate(&mut self, handle: Handle, event: quinn_proto::Event) {
        use quinn_proto::Event as E;
        let Some(conn) = self.conns.live(handle) else { return };
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
            E::ConnectionLost { reason } => return self.report_closed(handle, close_reason(reason)),
            E::DatagramReceived => {
                while let Some(word) = self.conns.live(handle).and_then(|conn| conn.quic.datagrams().recv()) {
                    self.events.push_back((handle, Event::Datagram(word)));
                }
                return;
            }
            E::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(id) = self.conns.live(handle).and_then(|conn| conn.quic.streams().accept(Dir::Bi)) {
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
        while let Some(handle) = self.conns.sender() {
            let max_segments = self.max_segments;
            let transmit = self.conns.get(handle).and_then(|conn| {
                let fit = MAX_SEND / usize::from(conn.quic.current_mtu()).max(1);
                conn.quic.poll_transmit(now, max_segments.min(fit).max(1), buffer)
            });
            if let Some(transmit) = transmit {
                self.conns.has_sent();
                return Some(transmit.into());
            }
            self.conns.has_sent_all();
            self.collect(handle);
            self.arm(handle);
        }
        None
    }
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
