//! Settings of endpoints, servers and clients.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, IdleTimeout, MtuDiscoveryConfig, VarInt};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use rustls::{
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};
use serde::{Deserialize, Serialize};

use super::Congestion;
use crate::tls::{Clock, Identity, IdentityError, Roots, provider};

/// Length of our connection ids, in bytes.
pub(super) const CID_LEN: usize = 8;

/// Round trips after which a packet is lost, if one that was sent later has come.
const TIME_THRESHOLD: f32 = 1.25;

/// Transport settings, the same for all connections of a socket. The defaults are what ships.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// A peer that is silent for so long is lost, in milliseconds.
    pub idle_timeout_ms: u32,
    /// A PING is sent after so long without traffic, in milliseconds.
    pub keep_alive_ms: u32,
    /// Bidirectional streams the peer may have open at first; raise it on demand. Each costs memory as soon as it is allowed.
    pub max_streams: u32,
    /// Bytes the peer may send ahead on one stream. It cannot be changed on a live connection, so it is what the longest path needs, and
    /// the connection's window is the one that binds.
    pub stream_window: u32,
    /// Bytes the peer may send ahead on a connection, at first.
    pub receive_window: u32,
    /// Bytes we may have sent without acknowledgement on a connection, at first.
    pub send_window: u32,
    /// Bytes of received words (QUIC DATAGRAM) that wait to be read; 0 turns words off.
    pub word_buffer: u32,
    /// The largest UDP payload that path MTU discovery tries; 1200 turns discovery off.
    pub mtu_max: u16,
    /// How a sender finds out how much its path carries.
    pub congestion: Congestion,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            idle_timeout_ms: 20_000,
            keep_alive_ms: 5_000,
            max_streams: 100,
            stream_window: 16 * 1024 * 1024,
            receive_window: 512 * 1024,
            send_window: 512 * 1024,
            word_buffer: 1 << 20,
            mtu_max: 1452,
            congestion: Congestion::default(),
        }
    }
}

impl TransportConfig {
    fn build(&self) -> Arc<quinn_proto::TransportConfig> {
        let mut transport = quinn_proto::TransportConfig::default();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_max);
        transport
            .max_concurrent_bidi_streams(self.max_streams.into())
            .max_concurrent_uni_streams(0u32.into())
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(self.idle_timeout_ms))))
            .keep_alive_interval(Some(Duration::from_millis(self.keep_alive_ms.into())))
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.receive_window.into())
            .send_window(self.send_window.into())
            .datagram_receive_buffer_size((self.word_buffer > 0).then_some(self.word_buffer as usize))
            .datagram_send_buffer_size(64 * 1024)
            .mtu_discovery_config((self.mtu_max > 1200).then_some(discovery))
            .congestion_controller_factory(self.congestion.factory())
            // Paths reorder, and a count of packets says little where thousands are on their way: time alone tells a lost packet from a
            // late one (RFC 9002 §6.1.2, as RFC 8985 does), a quarter of a round trip after those that were sent with it.
            .packet_threshold(u32::MAX)
            .time_threshold(TIME_THRESHOLD);
        Arc::new(transport)
    }
}

/// Settings of a socket.
pub struct EndpointConfig {
    /// Source of all randomness of QUIC itself (TLS draws its own).
    pub seed: [u8; 32],
    /// Wall-clock time.
    pub clock: Clock,
    /// Key of stateless resets; [`reset_key`] makes one that outlives a restart.
    pub reset_key: [u8; 32],
    /// Segments that one send call may carry (GSO), at least 1. A send is also bounded by 65 507 bytes.
    pub max_segments: usize,
    /// The largest UDP payload that is accepted, in bytes, 1200 or more.
    pub max_udp_payload: u16,
    /// Handshakes from unvalidated addresses a second before clients are asked to retry (RFC 9000 §8.1.2).
    pub retry_above: u32,
    /// Connections at once; more are refused.
    pub max_connections: usize,
    /// Handshakes at once that others have begun; beyond that the oldest give way to newcomers.
    pub max_handshakes: usize,
    /// The same, of one address (IPv6: of one network of 64 bits).
    pub max_handshakes_per_source: usize,
    /// So many handshakes at once before those from unvalidated addresses are asked to retry; of one address, a quarter of it.
    pub retry_handshakes: usize,
    /// How long a handshake that others have begun may take in all.
    pub handshake_time: Duration,
}

impl EndpointConfig {
    /// The defaults, with a reset key drawn from the seed.
    #[must_use]
    pub fn new(seed: [u8; 32], clock: Clock) -> Self {
        let mut reset_key = [0; 32];
        ChaCha20Rng::from_seed(seed).fill_bytes(&mut reset_key);
        Self {
            seed,
            clock,
            reset_key,
            max_segments: 64,
            max_udp_payload: 1472,
            retry_above: 1000,
            max_connections: 100_000,
            max_handshakes: 4096,
            max_handshakes_per_source: 512,
            retry_handshakes: 256,
            handshake_time: Duration::from_secs(10),
        }
    }

    /// The library's form, and where it leaves the connection id that it made last.
    pub(super) fn build(&self) -> (quinn_proto::EndpointConfig, LastCid) {
        let last = LastCid::default();
        let mut config = quinn_proto::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset_key)));
        let (seed, recorder) = (self.seed, last.clone());
        config.cid_generator(move || Box::new(SeededCids::new(seed, recorder.clone())));
        config.rng_seed(Some(self.seed));
        config.min_reset_interval(Duration::from_millis(1));
        let _ = config.max_udp_payload_size(self.max_udp_payload.max(1200));
        (config, last)
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig")
            .field("max_segments", &self.max_segments)
            .field("max_udp_payload", &self.max_udp_payload)
            .field("retry_above", &self.retry_above)
            .finish_non_exhaustive()
    }
}

/// A key of stateless resets (RFC 9000 §10.3.2) that a restarted process derives again, so that its resets are believed.
#[must_use]
pub fn reset_key(identity: &Identity, context: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, identity.secret()), context);
    let mut key = [0; 32];
    key.copy_from_slice(tag.as_ref());
    key
}

/// A server's settings.
#[derive(Clone)]
pub struct ServerConfig(pub(super) Arc<quinn_proto::ServerConfig>);

impl ServerConfig {
    /// A server that shows `identity`, demands a client certificate signed by one of `clients`, and takes the first of `alpn` that the client offers.
    ///
    /// # Errors
    /// Whatever TLS finds wrong with them.
    pub fn new(
        identity: &Identity,
        clients: &Roots,
        alpn: &[&[u8]],
        transport: &TransportConfig,
        clock: &Clock,
    ) -> Result<Self, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(clients.0.clone(), provider())
            .build()
            .map_err(|error| IdentityError::Root(error.to_string()))?;
        let mut tls = rustls::ServerConfig::builder_with_details(provider(), clock.tls())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| IdentityError::Tls(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // No resumption: every session is judged by its certificate, as of now.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        let crypto = quinn_proto::crypto::rustls::QuicServerConfig::try_from(tls)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"towline retry token").extract(identity.secret());
        let mut config = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        config.transport_config(transport.build()).time_source(Arc::new(Time(clock.clone())));
        Ok(Self(Arc::new(config)))
    }
}

/// The time that tokens are judged by.
struct Time(Clock);

impl quinn_proto::TimeSource for Time {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.shown()
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").finish_non_exhaustive()
    }
}

/// A client's settings.
#[derive(Clone)]
pub struct ClientConfig(pub(super) quinn_proto::ClientConfig);

impl ClientConfig {
    /// A client that shows `identity`, demands a server certificate signed by one of `servers`, and offers `alpn`.
    ///
    /// # Errors
    /// Whatever TLS finds wrong with them.
    pub fn new(
        identity: &Identity,
        servers: &Roots,
        alpn: &[&[u8]],
        transport: &TransportConfig,
        clock: &Clock,
        seed: [u8; 32],
    ) -> Result<Self, IdentityError> {
        let mut tls = rustls::ClientConfig::builder_with_details(provider(), clock.tls())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| IdentityError::Tls(error.to_string()))?
            .with_root_certificates(servers.0.clone())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        tls.resumption = rustls::client::Resumption::disabled();
        let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let mut config = quinn_proto::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport.build());
        config.token_store(Arc::new(quinn_proto::NoneTokenStore));
        let ids = Mutex::new(ChaCha20Rng::from_seed(seed));
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [0; 16];
            if let Ok(mut rng) = ids.lock() {
                rng.fill_bytes(&mut id);
            }
            ConnectionId::new(&id)
        }));
        Ok(Self(config))
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").finish_non_exhaustive()
    }
}

/// The connection id that was made last, and of which kind the next ones are.
#[derive(Debug, Clone, Default)]
pub(super) struct LastCid {
    id: Arc<Mutex<Option<ConnectionId>>>,
    quiet: Arc<AtomicBool>,
}

impl LastCid {
    /// Its bytes in hex.
    pub(super) fn hex(&self) -> String {
        self.id.lock().ok().and_then(|id| id.map(|id| id.to_string())).unwrap_or_default()
    }

    /// Whether ids made from now on are such that a restarted process leaves their packets unanswered, instead of with a stateless reset.
    pub(super) fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }
}

/// Random connection ids from a seed, which say of which kind they are in their last bit.
struct SeededCids {
    rng: ChaCha20Rng,
    last: LastCid,
}

impl SeededCids {
    fn new(seed: [u8; 32], last: LastCid) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(1);
        Self { rng, last }
    }
}

impl ConnectionIdGenerator for SeededCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CID_LEN];
        self.rng.fill_bytes(&mut bytes);
        if let Some(mark) = bytes.last_mut() {
            *mark = *mark & !1 | u8::from(self.last.quiet.load(Ordering::Relaxed));
        }
        let id = ConnectionId::new(&bytes);
        if let Ok(mut last) = self.last.id.lock() {
            *last = Some(id);
        }
        id
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), quinn_proto::InvalidCid> {
        let is_quiet = id.last().is_some_and(|mark| mark & 1 == 1);
        if is_quiet { Err(quinn_proto::InvalidCid) } else { Ok(()) }
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Whether an address can be dialled.
pub(super) fn is_dialable(remote: SocketAddr) -> bool {
    remote.port() != 0 && !remote.ip().is_unspecified()
}
