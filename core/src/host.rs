//! What every host does alike (feature `host`): two loops, one for datagram bindings and one for byte-stream bindings, generic
//! over one [`Runtime`], and their parts.
//!
//! These are plain `poll` functions. A runtime's crate brings sockets, an alarm, clocks, tasks and a transport for DNS, and names the types.

mod accept;
mod binding;
mod bridge;
mod buffer;
mod byte_stream;
pub mod endpoint;
mod halves;
pub mod hub;
#[cfg(feature = "log-limit")]
mod log_limit;
mod names;
pub mod proxy;
mod reactor;
mod repeats;
pub mod resolve;
mod runtime;
mod streams;
mod tcp;
mod time;
mod udp;
mod wakes;
mod wall;

pub use accept::AcceptPause;
pub use binding::Binding;
pub use bridge::{Bridge, LocalEnd, LocalTcp, Turn};
pub use buffer::ReadBuffer;
pub use byte_stream::ByteStream;
pub use halves::{Local, LoopHalf, UserHalf, pair};
#[cfg(feature = "log-limit")]
pub use log_limit::{Held, LogLimit};
pub use names::Names;
pub use repeats::{Repeated, Repeats};
pub use runtime::{Alarm, Runtime, TcpListener, TcpStream, UdpSocket};
pub use streams::{ListenError, StreamLoop, listen};
pub use wakes::{ConnWaker, Wakes};
pub use wall::Wall;
