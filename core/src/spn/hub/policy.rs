//! Decisions of a hub about services and their providers: who may come in, who gets a connection, who is silent, what is started when.

pub(super) mod availability;
pub mod balance;
pub(super) mod provision;
pub(super) mod registry;
pub(super) mod seek;
pub(super) mod silence;
