//! Hubs on smol: each has a thread of its own, with one socket and one loop.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use towline_core::host::hub::{StartError, seed};
use towline_core::{host::hub, quic::Epoch};

use crate::runtime::Smol;

/// A running hub. Dropping it lets the hub run on.
pub type HubHandle = hub::HubHandle<Smol>;

/// One moment on both clocks: now.
#[must_use]
pub fn epoch() -> Epoch {
    Epoch { instant: Instant::now(), unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) }
}
