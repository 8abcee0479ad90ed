//! From the bytes of one session to the machines, and back: no I/O, no clock.
//!
//! [`SessionBinding`] is what a host drives. Its data is in parts: what came (`inbound`), what is to go (`outbound`),
//! and the pipes (`calls`).

mod calls;
mod config;
mod error;
mod event;
mod inbound;
mod outbound;
mod session;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{ChooseError, CloseError, OpenError, ReadError, SendError};
pub use event::{Event, PipeKey, Read, Refused};
pub use session::SessionBinding;
