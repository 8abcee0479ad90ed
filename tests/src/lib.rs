//! What crosses crates.

pub mod greet;
pub mod legacy;
pub mod ours;
pub mod programs;
pub mod random;
pub mod servers;
pub mod sim;
pub mod tables;
pub mod txn;
pub mod vectors;
pub mod wan;
