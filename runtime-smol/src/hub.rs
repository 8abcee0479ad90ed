//! Hubs on smol: each has a thread of its own, with one socket and one loop.

use towline_core::host::hub;
pub use towline_core::host::hub::{StartError, seed};

use crate::runtime::Smol;
pub use crate::runtime::epoch;

/// A handle of a running hub. Dropping the handle does not stop the hub.
pub type HubHandle = hub::HubHandle<Smol>;
