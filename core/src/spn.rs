//! SPN: consumers of a service reach its providers through a hub, over QUIC, with mutual TLS.
//!
//! The reference is `docs/protocols/spn.md`.

pub mod code;
mod types;

pub use types::{ConnKey, Protocol, Role, Side};
