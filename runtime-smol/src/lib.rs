//! Towline on smol: thin loops that carry bytes between sockets and the state machines of `towline-core`.
//!
//! Everything here stands beside its twin in `towline-tokio`, and differs from it only where the runtimes do.

mod bridge;
mod dns;
pub mod endpoint;
pub mod hub;
pub mod proxy;
pub mod resolve;
mod runtime;
pub mod stream;
mod tcp;
