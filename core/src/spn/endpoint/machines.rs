//! What an endpoint decides, as pure state machines: its session with an address of the hub, and its connections.

pub mod connection;
pub mod session;
