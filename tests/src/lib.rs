//! Support for tests that need several crates: programs, servers, simulations, the soak.

pub mod greet;
pub mod legacy;
pub mod needs;
pub mod ours;
pub mod programs;
pub mod random;
pub mod servers;
pub mod sim;
pub mod soak;
pub mod tables;
pub mod txn;
pub mod vectors;
pub mod wan;
