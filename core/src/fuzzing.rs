//! The bodies of the fuzz targets in `fuzz/`: functions that take any bytes, and panic when something is not as it must be.
//!
//! They are built and run with the other tests, so they cannot rot; a target is one line that calls one.

#![allow(clippy::missing_panics_doc, reason = "panicking is what they are for")]

mod datagrams;
mod frames;
mod head;
mod machines;
mod messages;
mod sessions;
mod transaction;

use arbitrary::Unstructured;

/// Takes any bytes.
pub type Body = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: &[(&str, Body)] = &[
    ("txn_head", head::run),
    ("txn_transaction", transaction::run),
    ("machines", machines::run),
    ("pipe_msgpack", messages::msgpack),
    ("pipe_simple", messages::simple),
    ("spn_frames", frames::run),
    ("spn_hub_datagrams", datagrams::run),
    ("spn_sessions", sessions::run),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of that name");
    body(data);
}

/// A number below `bound`; 0 when the bytes have run out.
fn below(data: &mut Unstructured<'_>, bound: usize) -> usize {
    data.int_in_range(0..=bound.saturating_sub(1)).unwrap_or(0)
}
