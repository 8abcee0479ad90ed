//! What a proxy decides, as pure state machines: which connections it takes, and what becomes of each.

pub mod accept;
pub mod transaction;
