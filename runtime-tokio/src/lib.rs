//! Towline on tokio: sockets, an alarm and tasks for the loops of `towline_core::host`, which carry bytes to the state machines.
//!
//! - [`hub`]: hubs, each in a thread of its own.
//! - [`endpoint`]: consumers and providers, as streams or as agents in front of TCP.
//! - [`proxy`]: the caching proxy for transactions.
//!
//! The programs `spnhub`, `spnagent` and `towline` are built from these modules and from `cli` (feature `cli`, on by default). Without that
//! feature none of their dependencies is compiled: no clap, hyper, rcgen or YAML.

#[cfg(feature = "cli")]
pub mod cli;
pub mod endpoint;
pub mod hub;
pub mod proxy;
pub mod resolve;
mod runtime;
mod stream;

pub use runtime::Tokio;
pub use stream::{Io, Stream};
