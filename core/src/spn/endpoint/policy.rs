//! Decisions of an endpoint: how much is kept of a connection, which providers may have one, whether the hub is there, and whether a provider has
//! stood still. They have data and no way out: they are asked, and answer.

pub(super) mod retain;
pub(super) mod seek;
pub(super) mod silence;
pub(super) mod spent;
pub(super) mod standstill;
