//! SPN: consumers of a service reach its providers through a hub, over QUIC, with mutual TLS.
//!
//! The reference is `docs/protocols/spn.md`.

pub mod endpoint;
pub mod flow;
pub mod hub;
pub mod inventory;
mod patience;
pub mod record;
mod types;
pub mod wire;

pub use types::{ConnKey, Protocol, Role, Side, Tag};
