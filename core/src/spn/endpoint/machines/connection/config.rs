//! Settings of an endpoint connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine;

/// Limits and times of an endpoint connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long it looks for a session with room for it.
    #[serde(rename = "lookup_ms", with = "machine::ms")]
    pub lookup: Duration,
    /// How long, in all, tries may be repeated.
    #[serde(rename = "total_ms", with = "machine::ms")]
    pub total: Duration,
    /// First pause before a refused try is repeated; it doubles.
    #[serde(rename = "again_min_ms", with = "machine::ms")]
    pub again_min: Duration,
    /// Largest pause before a refused try is repeated.
    #[serde(rename = "again_max_ms", with = "machine::ms")]
    pub again_max: Duration,
    /// How long a provider may take to dial.
    #[serde(rename = "dial_ms", with = "machine::ms")]
    pub dial: Duration,
    /// How long after PAUSE_ACK the hub may leave the stream as it is.
    #[serde(rename = "pausing_ms", with = "machine::ms")]
    pub pausing: Duration,
    /// How long, in all, it may be without a stream.
    #[serde(rename = "pause_ms", with = "machine::ms")]
    pub pause: Duration,
    /// The same, when nothing was ever heard of a partner.
    #[serde(rename = "unclaimed_ms", with = "machine::ms")]
    pub unclaimed: Duration,
    /// A resumed stream that has lasted so long is no failed try.
    #[serde(rename = "settled_ms", with = "machine::ms")]
    pub settled: Duration,
    /// How long the end of the streams may take after CLOSE_REQ.
    #[serde(rename = "closing_ms", with = "machine::ms")]
    pub closing: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lookup: Duration::from_secs(10),
            total: Duration::from_secs(60),
            again_min: Duration::from_millis(100),
            again_max: Duration::from_secs(5),
            dial: Duration::from_secs(60),
            pausing: Duration::from_secs(5),
            pause: Duration::from_secs(120),
            unclaimed: Duration::from_secs(15),
            settled: Duration::from_secs(10),
            closing: Duration::from_secs(5),
        }
    }
}
