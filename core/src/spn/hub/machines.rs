//! What a hub decides, as pure state machines: the hub itself, its sessions, its connections, the requests to resume them, and the
//! providers that it starts.

pub mod connection;
pub mod instance;
pub mod managed;
pub mod pairing;
pub mod session;
