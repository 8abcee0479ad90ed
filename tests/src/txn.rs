//! Transactions: a proxy in a box, and the vectors of docs/protocols/txn.md.

pub mod lives;
pub mod vectors;
pub mod world;
