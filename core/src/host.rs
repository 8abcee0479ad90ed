//! Parts of a host's loop that are the same on every runtime, and do no I/O.

mod buffer;
mod wakes;

pub use buffer::ReadBuffer;
pub use wakes::{ConnWaker, Wakes};
