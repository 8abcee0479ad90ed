//! Towline on tokio: thin loops that carry bytes between sockets and the state machines of `towline-core`.
//!
//! - [`hub`]: hubs, each in a thread of its own.
//! - [`cluster`]: what starts and stops providers for a hub.
//! - [`endpoint`]: consumers and providers, as streams or as agents in front of TCP.
//! - [`proxy`]: the caching proxy for transactions.
//!
//! The programs `spnhub`, `spnagent` and `towline` are built from these.

mod bridge;
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
mod tcp;

pub use stream::Stream;
