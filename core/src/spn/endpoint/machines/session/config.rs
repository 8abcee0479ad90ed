//! Settings of an endpoint session.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine;

/// Limits and times of an endpoint session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A provider's share of new connections.
    pub weight: u16,
    /// How long a QUIC handshake may take.
    #[serde(rename = "handshake_ms", with = "machine::ms")]
    pub handshake: Duration,
    /// How long SESSION_ACK may take.
    #[serde(rename = "ack_ms", with = "machine::ms")]
    pub ack: Duration,
    /// First delay before another try; it doubles, ±20 %.
    #[serde(rename = "retry_min_ms", with = "machine::ms")]
    pub retry_min: Duration,
    /// Largest delay before another try, ±20 %.
    #[serde(rename = "retry_max_ms", with = "machine::ms")]
    pub retry_max: Duration,
    /// The longest *retry after* that a hub can ask for.
    #[serde(rename = "retry_after_max_ms", with = "machine::ms")]
    pub retry_after_max: Duration,
    /// Tries in a row after the first; none means for ever.
    pub retry_limit: Option<u32>,
    /// How long an `sc01` session must have lived before it counts as a success.
    #[serde(rename = "settled_ms", with = "machine::ms")]
    pub settled: Duration,
    /// How long connections may drain, unless SESSION_SHUTDOWN says otherwise.
    #[serde(rename = "closing_ms", with = "machine::ms")]
    pub closing: Duration,
    /// The longest deadline that a SESSION_SHUTDOWN can set.
    #[serde(rename = "closing_max_ms", with = "machine::ms")]
    pub closing_max: Duration,
    /// How long the hub may take to close QUIC after SESSION_CLOSE.
    #[serde(rename = "close_ms", with = "machine::ms")]
    pub close: Duration,
    /// How long an `sc01` close waits for the control datagram before it.
    #[serde(rename = "notify_ms", with = "machine::ms")]
    pub notify: Duration,
    /// How long an address stays in reserve before it is looked at again, ±20 %.
    #[serde(rename = "reserve_ms", with = "machine::ms")]
    pub reserve: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weight: 100,
            handshake: Duration::from_secs(20),
            ack: Duration::from_secs(10),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(600),
            retry_limit: None,
            settled: Duration::from_secs(1),
            closing: Duration::from_secs(30),
            closing_max: Duration::from_secs(600),
            close: Duration::from_secs(3),
            notify: Duration::from_millis(100),
            reserve: Duration::from_secs(300),
        }
    }
}
