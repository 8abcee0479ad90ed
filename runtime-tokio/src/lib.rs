//! Towline on tokio: sockets, an alarm and tasks for the loops of `towline_core::host`, which carry bytes to the state machines.
//!
//! - [`hub`]: hubs, each in a thread of its own.
//! - [`cluster`]: what starts and stops providers for a hub.
//! - [`endpoint`]: consumers and providers, as streams or as agents in front of TCP.
//! - [`proxy`]: the caching proxy for transactions.
//!
//! The programs `spnhub`, `spnagent` and `towline` are built from these.

pub mod cluster;
pub mod endpoint;
pub mod hub;
pub mod inventory;
pub mod lines;
pub mod log;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod resolve;
mod runtime;
pub mod settings;
mod stream;

pub use runtime::Tokio;
pub use stream::Stream;
