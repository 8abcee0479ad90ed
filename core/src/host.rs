//! Parts of a host's loop that are the same on every runtime, and do no I/O.

mod binding;
mod bridge;
mod buffer;
mod pipe;
mod wakes;
mod wall;

pub use binding::Binding;
pub use bridge::{Bridge, LocalEnd, LocalTcp, Turn};
pub use buffer::ReadBuffer;
pub use pipe::{Local, LoopHalf, UserHalf, pair};
pub use wakes::{ConnWaker, Wakes};
pub use wall::Wall;
