//! Settings of an endpoint, and what it says.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;

use super::machines::{connection, session};
use crate::{
    quic::{ClientConfig, Clock, Identity, IdentityError, Roots, TransportConfig},
    spn::{
        Protocol, Role,
        wire::{code::StreamCode, frame},
    },
};

/// The settings of an endpoint.
#[derive(Debug, Clone)]
pub struct Config {
    /// Consumer or provider.
    pub role: Role,
    /// The name or address that the hub's certificate must show.
    pub server_name: String,
    /// This endpoint's certificate and key.
    pub identity: Identity,
    /// CAs trusted to sign the hub's certificate.
    pub roots: Roots,
    /// URN of the service; empty means the only one that the identity is entitled to. `sc01` knows no choice.
    pub service: String,
    /// Offer `sc02` only: no hub, or whoever rolls one back, can choose `sc01`.
    pub require_sc02: bool,
    /// Connections outlive their session, when the hub and the partner can do that, too (`sc02`).
    pub resume: bool,
    /// Times and limits of sessions; the weight, too.
    pub session: session::Config,
    /// Times and limits of connections.
    pub connection: connection::Config,
    /// Settings of QUIC. Its `max_streams` is what a provider lets a hub open at first.
    pub transport: TransportConfig,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// The defaults, for a hub of that name.
    #[must_use]
    pub fn new(role: Role, server_name: &str, identity: Identity, roots: Roots) -> Self {
        Self {
            role,
            server_name: server_name.to_owned(),
            identity,
            roots,
            service: String::new(),
            require_sc02: false,
            resume: true,
            session: session::Config::default(),
            connection: connection::Config::default(),
            transport: TransportConfig::default(),
            limits: Limits::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if ServerName::try_from(self.server_name.as_str()).is_err() {
            return Err(ConfigError::ServerName(self.server_name.clone()));
        }
        if self.service.len() > frame::MAX_STRING {
            return Err(ConfigError::Service(self.service.len()));
        }
        Ok(())
    }

    /// How hubs are dialled.
    pub(super) fn client(&self, clock: &Clock, seed: [u8; 32]) -> Result<ClientConfig, ConfigError> {
        let mut transport = self.transport.clone();
        if self.role == Role::Consumer {
            transport.max_streams = 0; // a hub has no reason to open streams to it
        }
        Ok(ClientConfig::new(&self.identity, &self.roots, &self.alpn(), &transport, clock, seed)?)
    }

    /// The protocols that are offered, best first.
    fn alpn(&self) -> Vec<&'static [u8]> {
        let offered = if self.require_sc02 { &[Protocol::Sc02][..] } else { &[Protocol::Sc02, Protocol::Sc01] };
        offered.iter().map(|protocol| self.role.alpn(*protocol)).collect()
    }
}

/// Bounds of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. A consumer's further ones are an error, a provider's are reset with 0x25.
    pub connections: usize,
    /// Addresses of hubs; further ones are left out.
    pub addresses: usize,
    /// Bytes of a consumer's connection that are held until the first answer, so that they can be sent again when the hub refuses it.
    pub held_bytes: usize,
    /// Bytes that a connection that can be resumed keeps, until the partner has them: it bounds the throughput to so much a round trip
    /// from end to end.
    pub retain_base: u64,
    /// Where that round trip asks for it, what is kept grows up to this.
    pub retain_max: u64,
    /// Bytes that it may always keep, whatever the others do.
    pub retain_min: u64,
    /// Bytes that all of them keep, apart from that.
    pub retain_total: u64,
    /// How long the preamble of a stream may take.
    pub preamble: Duration,
    /// How long a reset may wait for what was written before it.
    pub parting: Duration,
    /// The base window of a session grows up to this, in bytes, where the round-trip time asks for it.
    pub window_max: u32,
    /// Bytes that the host leaves unread, over all connections, beyond which windows are raised no more for them; half as many are there
    /// for windows that grow with their paths.
    pub parked_bytes: u64,
    /// Bytes for a hub that does not read its control stream; over it, that stream is read no further.
    pub control_backlog: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            addresses: 64,
            held_bytes: 64 * 1024,
            retain_base: 1024 * 1024,
            retain_max: 16 * 1024 * 1024,
            retain_min: 64 * 1024,
            retain_total: 256 * 1024 * 1024,
            preamble: Duration::from_secs(10),
            parting: Duration::from_secs(3),
            window_max: 16 * 1024 * 1024,
            parked_bytes: 256 * 1024 * 1024,
            control_backlog: 64 * 1024,
        }
    }
}

/// Why there is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Neither a DNS name nor an IP address.
    #[error("`{0}` is no server name: expected a DNS name or an IP address")]
    ServerName(String),
    /// The URN does not fit into its frame.
    #[error("the service URN has {0} bytes: expected at most {max}", max = frame::MAX_STRING)]
    Service(usize),
    /// Certificate, key or CA.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A provider waits to be called.
    #[error("a provider cannot open connections")]
    NotConsumer,
    /// [`Limits::connections`] are open.
    #[error("{0} connections are open, which is the limit")]
    TooMany(usize),
    /// The endpoint is leaving, or has left.
    #[error("the endpoint is closed")]
    Closed,
}

/// A connection of an endpoint. Never used twice, so an old one is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// What an endpoint reports to its host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A session is established.
    SessionUp {
        /// The hub's address.
        remote: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
        /// Its name in the hub's records; empty on `sc01`.
        session_id: String,
        /// The service; empty on `sc01`.
        service: String,
    },
    /// A session was lost or could not be made; the next try follows.
    SessionWaiting {
        /// The hub's address.
        remote: SocketAddr,
        /// What happened, for people.
        reason: String,
        /// When the next try begins.
        retry_ms: u64,
    },
    /// A session is over. While its address is listed, a new one follows at once, unless it was given up.
    SessionEnded {
        /// The hub's address.
        remote: SocketAddr,
        /// What happened, for people.
        reason: String,
    },
    /// An address leads to a hub with which there is a session by another address. It is in reserve: tried as soon as that session is lost.
    SessionReserved {
        /// The address in reserve.
        remote: SocketAddr,
        /// The address of the session.
        through: SocketAddr,
    },
    /// Somebody calls this provider: dial, then read and write, or reset.
    Incoming(ConnId),
    /// A read that found nothing may find something now.
    Readable(ConnId),
    /// A write that found no room may find some now.
    Writable(ConnId),
    /// The other side reads no more, with this code; what it says goes on.
    Stopped(ConnId, StreamCode),
    /// The last of a connection: it was broken off, with this code. Never to be shown as a clean end.
    Reset(ConnId, StreamCode),
    /// The last of a connection: both directions have ended.
    Ended(ConnId),
    /// Something was left out because of a limit.
    Limit {
        /// What, for people.
        what: String,
    },
    /// All sessions have ended, as was asked for; there is nothing to come. Send what there is to send before you go.
    Closed,
}
