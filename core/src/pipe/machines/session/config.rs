//! The session's settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::machine::ms;

/// Who opened the byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// This side.
    Client,
    /// The peer: this side accepted it.
    Server,
}

/// What a client takes its peer for (SYN-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Any: the client says version 0001.
    #[default]
    Deployed,
    /// One of ours: the client says version 0002, and there are pings.
    Towline,
}

/// From where to where a server moves what a client wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: i32,
    /// The most.
    pub max: i32,
}

impl Range {
    /// The nearest number of the range; `min` if there is none.
    #[must_use]
    pub fn clamp(self, wish: i32) -> i32 {
        wish.min(self.max).max(self.min)
    }
}

/// Limits and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What a client takes its peer for.
    pub peer: Peer,
    /// The id that a server gives the session: random, new, and not nil.
    pub session_id: Uuid,
    /// The ping interval that a client wishes, in seconds.
    pub ping: i32,
    /// The session timeout that a client wishes, in seconds.
    pub timeout: i32,
    /// The ping intervals that a server allows, in seconds.
    pub pings: Range,
    /// The session timeouts that a server allows, in seconds.
    pub timeouts: Range,
    /// How long the handshake may take (SYN-10).
    #[serde(rename = "handshake_ms", with = "ms")]
    pub handshake: Duration,
    /// How long what is queued may take after the application has ended the session (SES-4).
    #[serde(rename = "drain_ms", with = "ms")]
    pub drain: Duration,
    /// How long the Control Close may take.
    #[serde(rename = "flush_ms", with = "ms")]
    pub flush: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            peer: Peer::default(),
            session_id: Uuid::from_u128(1),
            ping: 3,
            timeout: 1800,
            pings: Range { min: 1, max: 60 },
            timeouts: Range { min: 60, max: 3600 },
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            flush: Duration::from_secs(5),
        }
    }
}
