//! From sockets and names to the machines, and back.

pub mod proxy;
