//! What an endpoint consists of: parts that own their data, know neither the endpoint nor each other's fields, and are lent the [`ports`] for a call.

pub(super) mod conn;
pub(super) mod link;
pub(super) mod phase;
pub(super) mod ports;
pub(super) mod queue;
pub(super) mod retention;
pub(super) mod setup;
pub(super) mod tombstones;
