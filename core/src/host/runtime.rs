//! What a runtime brings to the loops: sockets that know when they are ready, an alarm, clocks, tasks, a transport for DNS. It knows no protocol.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use hickory_resolver::net::runtime::RuntimeProvider;

use super::halves::UserHalf;
use crate::quic::Epoch;

/// A runtime, by its types. Nothing is ever called through a `dyn`: each runtime has loops of its own, made by the compiler.
pub trait Runtime: Send + Sync + 'static {
    /// A UDP socket.
    type Udp: UdpSocket;
    /// A TCP listener.
    type Listener: TcpListener<Stream = Self::Tcp>;
    /// A TCP connection.
    type Tcp: TcpStream;
    /// A timer.
    type Alarm: Alarm;
    /// What the DNS library goes through.
    type Dns: RuntimeProvider + Default;
    /// A connection as its user holds it, with the traits of the runtime's ecosystem.
    type Stream: From<UserHalf> + Into<UserHalf> + Send + 'static;

    /// The monotonic clock.
    fn now() -> Instant;

    /// One moment on both clocks: now.
    fn epoch() -> Epoch;

    /// Runs a task beside the others.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// Runs a future on a thread of its own, which makes it, too.
    ///
    /// # Errors
    /// No thread, or no runtime in it.
    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()>;

    /// The addresses of `host:port`, as the system resolves names.
    ///
    /// # Errors
    /// The system's.
    fn look_up(address: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
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

/// A listening socket of a runtime.
pub trait TcpListener: Sized + Send + 'static {
    /// A connection.
    type Stream: TcpStream;

    /// Takes a listening socket, which does not block.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    fn new(socket: OwnedFd) -> io::Result<Self>;

    /// The next connection, and whose it is.
    ///
    /// # Errors
    /// The system's.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, SocketAddr)>>;
}

/// A connected socket of a runtime.
pub trait TcpStream: AsFd + Sized + Send + 'static {
    /// What its reads go through; all sockets of a loop share one.
    type Buffer: Send;

    /// A buffer for reads of up to `size` bytes.
    fn buffer(size: usize) -> Self::Buffer;

    /// Connects to an address.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self>> + Send;

    /// Reads once, at most `max` bytes; no bytes mean the end. A read that has brought less than it might have says that there is no more:
    /// the next one waits before it makes a system call.
    ///
    /// # Errors
    /// The socket's.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Self::Buffer, max: usize) -> Poll<io::Result<Bytes>>;

    /// Writes some of the bytes.
    ///
    /// # Errors
    /// The socket's.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Writes some of the slices.
    ///
    /// # Errors
    /// The socket's.
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

/// Wakes its task at a time that may be moved.
pub trait Alarm: Send {
    /// An alarm of the current task's runtime.
    fn new() -> Self;

    /// Says whether the time has come; else the task is woken then.
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool;
}
