//! Towline on smol: sockets, an alarm and tasks for the loops of `towline_core::host`, which carry bytes to the state machines.
//!
//! This crate has the same modules as the library `towline-tokio`; its streams have the traits of `futures-io`.

mod dns;
pub mod endpoint;
pub mod hub;
pub mod proxy;
pub mod resolve;
mod runtime;
pub mod stream;

pub use runtime::Smol;
