//! From QUIC to the machines, and from the machines to QUIC.

mod check;
pub(super) mod cluster;
pub(super) mod conn;
mod flow;
mod frames;
pub(super) mod link;
pub(super) mod pairings;
mod relay;
mod resume;
mod streams;
