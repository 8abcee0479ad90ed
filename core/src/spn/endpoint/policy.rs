//! Decisions of an endpoint: how much is kept of a connection, which providers may have one, and when a provider has stood still.

pub(super) mod retain;
pub(super) mod seek;
pub(super) mod standstill;
