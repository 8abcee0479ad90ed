//! SPN: consumers of a service reach its providers through a hub, over QUIC, with mutual TLS.
//!
//! The reference is `docs/protocols/spn.md`.

pub mod code;
pub mod control;
pub mod endpoint;
pub mod frame;
pub mod hub;
pub mod inventory;
pub(crate) mod kept;
pub mod preamble;
pub mod record;
mod types;
pub mod window;

pub use types::{ConnKey, Protocol, Role, Side, Tag};
