//! What crosses crates.

pub mod programs;
pub mod servers;
pub mod tables;
