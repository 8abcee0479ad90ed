//! Hubs on tokio: each has a thread of its own, with one socket and one loop.

use towline_core::host::hub;
pub use towline_core::host::hub::{StartError, seed};

use crate::runtime::Tokio;
pub use crate::runtime::epoch;

/// A running hub. Dropping it lets the hub run on.
pub type HubHandle = hub::HubHandle<Tokio>;
