//! What every host does alike (feature `host`): the loops of hubs and endpoints, generic over one [`Runtime`], and their parts.
//!
//! These are plain `poll` functions. A runtime's crate brings sockets, an alarm, clocks and threads, and names the types.

mod accept;
mod binding;
mod bridge;
mod buffer;
pub mod hub;
#[cfg(feature = "log-limit")]
mod log_limit;
mod pipe;
mod reactor;
mod repeats;
mod runtime;
mod udp;
mod wakes;
mod wall;

pub use accept::AcceptPause;
pub use binding::Binding;
pub use bridge::{Bridge, LocalEnd, LocalTcp, Turn};
pub use buffer::ReadBuffer;
#[cfg(feature = "log-limit")]
pub use log_limit::{Held, LogLimit};
pub use pipe::{Local, LoopHalf, UserHalf, pair};
pub use reactor::{Reactor, TURNS};
pub use repeats::{Repeated, Repeats};
pub use runtime::{Alarm, Runtime, UdpSocket};
pub use udp::Udp;
pub use wakes::{ConnWaker, Wakes};
pub use wall::Wall;
