//! Decisions of a hub about services and their providers, each as a part with data of its own: who may come in, who gets a connection, who is
//! silent, what is started when, what is reported.

pub(super) mod availability;
pub mod balance;
pub(super) mod newcomers;
pub(super) mod provision;
pub(super) mod refusals;
pub(super) mod registry;
pub(super) mod roster;
pub(super) mod seek;
pub(super) mod silence;
