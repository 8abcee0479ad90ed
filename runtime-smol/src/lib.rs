//! Towline on smol: thin loops that carry bytes between sockets and the state machines of `towline-core`.
//!
//! Everything here stands beside its twin in `towline-tokio`, and differs from it only where the runtimes do.

mod dns;
pub mod proxy;
pub mod resolve;
mod tcp;
