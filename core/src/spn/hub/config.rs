//! The configuration of a hub, and its status.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    machines::{connection, instance, session},
    policy::registry::Service,
};
use crate::quic::{IdentityError, TransportConfig};

/// What a hub may use up. The defaults are what ships.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// QUIC connections at once; more are refused.
    pub sessions: usize,
    /// Sessions at once of one identity in one role; more are refused with 0x19.
    pub sessions_per_identity: usize,
    /// Connections at once of one consumer session; more are refused with 0x25.
    pub connections_per_session: u32,
    /// Handshakes a second from unvalidated addresses before clients are asked to retry.
    pub retry_above: u32,
    /// Handshakes at once before clients with unvalidated addresses are asked to retry; of one address a quarter of it.
    pub retry_handshakes: usize,
    /// Handshakes at once; beyond that the oldest give way.
    pub handshakes: usize,
    /// The same, of one address (IPv6: of one network of 64 bits).
    pub handshakes_per_source: usize,
    /// How long a handshake may take in all, in milliseconds.
    pub handshake_ms: u32,
    /// Control frames a second of one session; more are read later.
    pub control_rate: u32,
    /// Bytes of control frames that wait for one session to read; while there are more, its own are not read, it gets no new connections, and of
    /// what others cause only the newest of each kind waits for each connection. If 16 times as many wait nevertheless, it is closed with 0x13.
    pub control_backlog: usize,
    /// The base window grows up to this, in bytes, where the round-trip time asks for it.
    pub window_max: u32,
    /// Bytes of stalled streams, over all sessions, beyond which windows are raised no more for them; half as many are there for windows
    /// that grow with their paths.
    pub relay_memory: u64,
    /// Refusals a second that are reported; the others are counted.
    pub refusals_per_second: u32,
    /// How long a request to resume a connection waits for the partner's, in milliseconds. A session may have as many as connections.
    pub resume_wait_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 100_000,
            sessions_per_identity: 1024,
            connections_per_session: 10_000,
            retry_above: 1000,
            retry_handshakes: 256,
            handshakes: 4096,
            handshakes_per_source: 512,
            handshake_ms: 10_000,
            control_rate: 20_000,
            control_backlog: 64 * 1024,
            window_max: 16 * 1024 * 1024,
            relay_memory: 512 * 1024 * 1024,
            refusals_per_second: 10,
            resume_wait_ms: 150_000,
        }
    }
}

/// One hub record of one realm.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the realm.
    pub realm: String,
    /// Name of the hub.
    pub name: String,
    /// The UDP address it is bound to; part of the key of its stateless resets.
    pub bind: SocketAddr,
    /// Its certificate chain, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// Certificate authorities of its endpoints, PEM.
    pub client_ca: String,
    /// Who may provide and use what.
    pub services: Vec<Service>,
    /// What it may use up.
    pub limits: Limits,
    /// QUIC.
    pub transport: TransportConfig,
    /// Times of the hub itself.
    pub instance: instance::Config,
    /// Times of its sessions.
    pub session: session::Config,
    /// Times of its connections.
    pub connection: connection::Config,
}

impl Config {
    /// A hub record with the defaults everywhere else.
    #[must_use]
    pub fn new(realm: &str, name: &str, bind: SocketAddr) -> Self {
        Self {
            realm: realm.to_owned(),
            name: name.to_owned(),
            bind,
            certificate: String::new(),
            key: String::new(),
            client_ca: String::new(),
            services: Vec::new(),
            limits: Limits::default(),
            transport: TransportConfig::default(),
            instance: instance::Config::default(),
            session: session::Config::default(),
            connection: connection::Config::default(),
        }
    }

    /// How long a request to resume waits for the partner's.
    pub(super) fn resume_wait(&self) -> Duration {
        Duration::from_millis(self.limits.resume_wait_ms.into())
    }
}

/// What is wrong with a hub record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Its own certificate or key.
    #[error("server certificate: {0}")]
    Server(IdentityError),
    /// The certificate authorities of its endpoints.
    #[error("client CA: {0}")]
    ClientCa(IdentityError),
}

/// The sessions, connections and services of a hub at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Established sessions of providers.
    pub providers: usize,
    /// Established sessions of consumers.
    pub consumers: usize,
    /// Connections, those included that wait for a provider.
    pub connections: usize,
    /// Connections that wait for their next stream here.
    pub paused: usize,
    /// Those services that have a provider or a managed one, or are paused.
    pub services: Vec<ServiceStatus>,
}

/// A service at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub urn: String,
    /// Sessions of providers.
    pub providers: usize,
    /// Connections that have a provider.
    pub connections: u32,
    /// It is [paused](super::Hub::pause).
    pub is_paused: bool,
    /// The state of its [managed provider](super::machines::managed), if it has one.
    pub managed: Option<String>,
}
