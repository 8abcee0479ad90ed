//! What Pipe RPC decides: sessions, the two ends of a pipe, and what becomes of blocks that come.
//!
//! No machine holds payload: an event says what came or what is wanted, and the binding has the message itself at hand while it drains.

pub mod callee;
pub mod caller;
pub mod end;
pub mod receiver;
pub mod session;
