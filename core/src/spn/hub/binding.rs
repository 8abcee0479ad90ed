//! From QUIC to the machines, and from the machines to QUIC.
//!
//! Parts, which own their data and know neither each other's nor the hub's: [`link`] (sessions), [`conn`] (connections and their payload),
//! [`pairings`] (requests to resume), [`services`] (who is there for what), [`cluster`]
//! (managed providers). Two types join them: [`intake`] takes what comes in, [`exchange`]
//! carries out what the machines decide.

pub(super) mod cluster;
pub(super) mod conn;
pub(super) mod exchange;
pub(super) mod intake;
pub(super) mod link;
pub(super) mod pairings;
pub(super) mod services;
