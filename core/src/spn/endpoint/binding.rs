//! From QUIC and the host to the machines, and from the machines to QUIC.

pub(super) mod conn;
mod flow;
pub(super) mod ledger;
pub(super) mod link;
mod parting;
pub(super) mod resume;
mod streams;
