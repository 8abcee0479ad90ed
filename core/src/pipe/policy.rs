//! Decisions of Pipe RPC that are plain data: which ids are free, what is sent first, how much is too much.

pub mod aborts;
pub mod ids;
pub mod load;
pub mod queue;
