//! Pipe RPC: two peers call each other's functions over one byte stream, and each call is a pipe for messages and bytes both ways.
//!
//! The reference is `docs/protocols/pipe.md`.
//!
//! Read in this order: [`value`], what calls carry; [`message`], the four messages; [`sync`], what the first of each side says; [`codec`],
//! how messages are bytes, with [`msgpack`] and [`simple`], the codecs of deployed peers; [`json`], how messages are lines of text for people
//! and scripts. Then what is decided: [`session`], the machine of one byte stream; [`caller`] and [`callee`], those of the two ends of a pipe, and
//! [`end`], what these share; [`receiver`], that of the blocks that come; [`ids`], [`queue`], [`load`] and [`aborts`], the policies. [`binding`]
//! puts them on bytes: it is what a host drives.
//!
//! The state tables are in `docs/protocols/pipe-states.md`.

pub mod binding;
mod machines;
mod policy;
mod wire;

pub use machines::{callee, caller, end, receiver, session};
pub use policy::{aborts, ids, load, queue};
pub use wire::{
    codec::{self, msgpack, simple},
    json, message, sync, value,
};
