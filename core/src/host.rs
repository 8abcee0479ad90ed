//! Parts of a host's loop that are the same on every runtime, and do no I/O.

mod accept;
mod binding;
mod bridge;
mod buffer;
#[cfg(feature = "log-limit")]
mod log_limit;
mod pipe;
mod repeats;
mod wakes;
mod wall;

pub use accept::AcceptPause;
pub use binding::Binding;
pub use bridge::{Bridge, LocalEnd, LocalTcp, Turn};
pub use buffer::ReadBuffer;
#[cfg(feature = "log-limit")]
pub use log_limit::{Held, LogLimit};
pub use pipe::{Local, LoopHalf, UserHalf, pair};
pub use repeats::{Repeated, Repeats};
pub use wakes::{ConnWaker, Wakes};
pub use wall::Wall;
