//! Limits, times and choices of a transaction.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    machine::ms,
    txn::{allow::Allow, request::Request},
};

/// What makes two requests ask for the same thing (docs/protocols/txn.md, Wire rules, K1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// The file's name alone, as in the original: any client can plant content for every other client's origin.
    File,
    /// Server and file.
    #[default]
    ServerAndFile,
}

impl KeyMode {
    /// The key under which the cache knows a request. That of a pair is length-prefixed: no two pairs have the same.
    #[must_use]
    pub fn key(self, request: &Request) -> Bytes {
        match self {
            // A copy: a part of the head would keep the whole of it in memory for as long as the object is kept.
            Self::File => Bytes::copy_from_slice(&request.file),
            Self::ServerAndFile => {
                let mut key = BytesMut::with_capacity(request.server.len() + request.file.len() + 5);
                key.put_slice(request.server.len().to_string().as_bytes());
                key.put_u8(b':');
                key.put_slice(&request.server);
                key.put_slice(&request.file);
                key.freeze()
            }
        }
    }
}

/// How a fetched object reaches the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serve {
    /// It is stored whole, and then the stored copy is sent, as in the original.
    Stored,
    /// Each chunk goes to the client and to the cache as it comes (rule P2).
    #[default]
    Streamed,
}

/// Limits, times and choices. The defaults are what ships, and allow no origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP port of all origins.
    #[serde(deserialize_with = "port")]
    pub origin_port: u16,
    /// Which origins may be asked.
    pub allow: Allow,
    /// Where the proxy itself listens: never an origin.
    pub own: Vec<SocketAddr>,
    /// What makes two requests the same.
    pub key_mode: KeyMode,
    /// How a fetched object reaches the client.
    pub serve: Serve,
    /// Whether a third name in a head makes it malformed (W3).
    pub strict_head: bool,
    /// Whether an origin gets a head without the space before its terminator when the client has sent it so (O2).
    pub forward_as_spaced: bool,
    /// Whether a miss waits while another transaction fetches the same (P3).
    pub single_flight: bool,
    /// Whether a fetch whose client has gone is finished and stored (P4).
    pub finish_fetch: bool,
    /// Longest head in bytes, its terminator included (W2).
    pub head_max: usize,
    /// Most bytes of one read and one write.
    pub chunk: usize,
    /// Most bytes behind the head that are read and thrown away (W5).
    pub discard_max: usize,
    /// Largest object that is stored, in bytes (P5).
    pub max_object: u64,
    /// T1: from the first instant to the end of the head.
    #[serde(rename = "head_timeout_ms", with = "ms")]
    pub head_timeout: Duration,
    /// T2: for the addresses of a name.
    #[serde(rename = "resolve_timeout_ms", with = "ms")]
    pub resolve_timeout: Duration,
    /// T3: for each address.
    #[serde(rename = "connect_timeout_ms", with = "ms")]
    pub connect_timeout: Duration,
    /// T4: for the origin to take the head, and for each chunk of it.
    #[serde(rename = "origin_idle_timeout_ms", with = "ms")]
    pub origin_idle_timeout: Duration,
    /// T7: for the client to take a chunk.
    #[serde(rename = "client_write_timeout_ms", with = "ms")]
    pub client_write_timeout: Duration,
    /// T8: for each answer of the cache.
    #[serde(rename = "cache_timeout_ms", with = "ms")]
    pub cache_timeout: Duration,
    /// T10: for another's fetch; then it is fetched past the cache, as that one may be slow for the sake of its own client. `streamed` only.
    #[serde(rename = "flight_timeout_ms", with = "ms")]
    pub flight_timeout: Duration,
    /// T9: for all of it.
    #[serde(rename = "transaction_timeout_ms", with = "ms")]
    pub transaction_timeout: Duration,
}

/// A port that can be connected to.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    NonZeroU16::deserialize(deserializer).map(NonZeroU16::get)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origin_port: 80,
            allow: Allow::default(),
            own: Vec::new(),
            key_mode: KeyMode::default(),
            serve: Serve::default(),
            strict_head: false,
            forward_as_spaced: false,
            single_flight: true,
            finish_fetch: true,
            head_max: 2050,
            chunk: 64 * 1024,
            discard_max: 64 * 1024,
            max_object: 16 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            resolve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            origin_idle_timeout: Duration::from_secs(30),
            client_write_timeout: Duration::from_secs(30),
            cache_timeout: Duration::from_secs(5),
            flight_timeout: Duration::from_secs(5),
            transaction_timeout: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// The choices of the original (P11): file-only keys, heads forwarded with or without their last space, stored delivery, no waiting
    /// for another's fetch, every origin.
    #[must_use]
    pub fn sample(self) -> Self {
        Self {
            key_mode: KeyMode::File,
            serve: Serve::Stored,
            strict_head: false,
            forward_as_spaced: true,
            single_flight: false,
            allow: Allow::everything(),
            ..self
        }
    }
}
