//! What a runtime brings to the loops: sockets that know when they are ready, an alarm, clocks. It knows no protocol.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll},
    time::Instant,
};

use crate::quic::Epoch;

/// A runtime, by its types. Nothing is ever called through a `dyn`: each runtime has loops of its own, made by the compiler.
pub trait Runtime: Send + Sync + 'static {
    /// A UDP socket.
    type Udp: UdpSocket;
    /// A timer.
    type Alarm: Alarm;

    /// The monotonic clock.
    fn now() -> Instant;

    /// One moment on both clocks: now.
    fn epoch() -> Epoch;

    /// Runs a future on a thread of its own, which makes it, too.
    ///
    /// # Errors
    /// No thread, or no runtime in it.
    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()>;
}

/// A UDP socket of a runtime: the runtime knows when it is ready, the loop makes the system calls.
pub trait UdpSocket: AsFd + Sized + Send {
    /// Takes a bound socket, which does not block.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    fn new(socket: OwnedFd) -> io::Result<Self>;

    /// Calls `receive` when there may be something to receive, until it gives something else than
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), or has to wait.
    ///
    /// # Errors
    /// Those of `receive`.
    fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        receive: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>>;

    /// The same for `send`, when there may be room.
    ///
    /// # Errors
    /// Those of `send`.
    fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>>;
}

/// Wakes its task at a time that may be moved.
pub trait Alarm: Send {
    /// An alarm of the current task's runtime.
    fn new() -> Self;

    /// Says whether the time has come; else the task is woken then.
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool;
}
