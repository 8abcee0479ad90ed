//! Protocols that keep things reachable over connections that break, as pure state machines.
//!
//! Two floors live here: **machines** (what a protocol decides: typed events in, typed actions out) and **bindings**
//! (what it looks like on a wire: bytes in, bytes out). Neither does I/O, reads a clock or draws a random number.

#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, reason = "a test may panic on all the rest"))]

// The example in `machine` is read as documentation, where the crate has its outside name.
extern crate self as towline_core;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod machine;
pub mod quic;
pub mod spn;
#[doc(hidden)]
pub mod testing;
pub mod tools;
pub mod txn;
