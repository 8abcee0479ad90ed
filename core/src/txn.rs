//! Transactions: a caching proxy for a protocol of one request and one file a connection, and the model machine of the house.
//!
//! The reference is `docs/protocols/txn.md`; the state tables are in `docs/protocols/txn-states.md`; `docs/writing-a-machine.md` builds one like it.
//!
//! Read in this order: [`request`], what a client asks for; [`transaction`], the machine that answers it; [`accept`], the machine that makes
//! transactions; [`cache`], what they share; [`lookups`], who may ask for a name; [`proxy`], the binding that a host drives.

mod binding;
mod machines;
mod policy;
pub mod record;
mod wire;

pub use binding::proxy;
pub use machines::{accept, transaction};
pub use policy::{allow, cache, lookups};
pub use wire::request;
