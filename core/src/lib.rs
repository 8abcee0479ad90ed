//! Protocols that keep things reachable over connections that break, as pure state machines.
//!
//! Two floors live here: **machines** (what a protocol decides: typed events in, typed actions out) and **bindings**
//! (what it looks like on a wire: bytes in, bytes out). Neither does I/O, reads a clock or draws a random number.
//!
//! # Features
//!
//! - `spn` (default): services behind a hub, over QUIC.
//! - `txn` (default): transactions, by way of a caching proxy.
//! - `host`: the loops that carry bytes between bindings and sockets, generic over a runtime.
//!
//! Without any, the pattern ([`machine`]) and its [`tools`] remain, for machines of your own.

#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, reason = "a test may panic on all the rest"))]

// The example in `machine` is read as documentation, where the crate has its outside name.
extern crate self as towline_core;

pub mod epoch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "host")]
pub mod host;
pub mod machine;
#[cfg(feature = "spn")]
pub mod quic;
#[cfg(feature = "spn")]
pub mod spn;
#[doc(hidden)]
pub mod testing;
pub mod tools;
#[cfg(feature = "txn")]
pub mod txn;
