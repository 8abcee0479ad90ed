//! What crosses crates.

pub mod tables;
