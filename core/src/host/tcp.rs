//! TCP sockets: what every loop sets on them, how services are dialled, and how a connection is closed.

use std::{
    io::{self, IoSlice, Read},
    net::SocketAddr,
    os::fd::AsFd,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::{
    bridge::{LocalEnd, LocalTcp},
    runtime::{Runtime, TcpListener, TcpStream},
    time::within,
};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// One read from a local end.
pub(super) const READ: usize = 64 * 1024;
/// How long a provider may dial.
const DIAL: Duration = Duration::from_secs(10);
/// Probes without an answer that end a connection; they are sent in the course of one more of those times.
const PROBES: u32 = 4;

/// Listens on `address`, and says where that is. Those that are accepted inherit what [`set_up`] sets.
pub(super) fn listen<L: TcpListener>(
    address: SocketAddr,
    is_only_v6: bool,
    keepalive: Option<Duration>,
) -> io::Result<(L, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_only_v6 && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    set_up(&socket, keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let local = local_addr(&socket)?;
    Ok((L::new(socket.into())?, local))
}

/// Where a socket is bound.
pub(super) fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Sets what every socket has.
fn set_up(socket: &impl AsFd, keepalive: Option<Duration>) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    // With a linger time of 0, closing is a reset, also when this process is killed: the end of a connection may be the end of its message,
    // and a part of one must not look whole.
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(idle) = keepalive {
        let probes = TcpKeepalive::new()
            .with_time(idle)
            .with_interval((idle / PROBES).max(Duration::from_secs(1)))
            .with_retries(PROBES);
        socket.set_tcp_keepalive(&probes)?;
    }
    Ok(())
}

/// Connects to an address.
pub(super) async fn connect<S: TcpStream>(address: SocketAddr) -> io::Result<S> {
    let socket = S::connect(address).await?;
    set_up(&socket, None)?;
    Ok(socket)
}

/// Dials a local service.
pub(super) fn dial<R: Runtime>(address: &str, keepalive: Option<Duration>) -> LocalEnd<Tcp<R::Tcp>> {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"));
        within::<R, _>(DIAL, connect_any::<R>(&address))
            .await
            .unwrap_or_else(late)
            .map(|tcp| {
                // It fails when the peer has gone already; the next read reports that.
                let _ = set_up(&tcp, keepalive);
                Tcp(tcp)
            })
            .inspect_err(|error| tracing::warn!(%address, %error, "cannot reach the service; the connection is reset"))
    }))
}

/// Tries the addresses of a name, one after another.
async fn connect_any<R: Runtime>(address: &str) -> io::Result<R::Tcp> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in R::look_up(address).await? {
        match R::Tcp::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Closes a connection in good order. Up to `unread` bytes that wait to be read are thrown away first. Everything else that closes it, and
/// be it the end of the process, is a reset.
pub(super) fn close(socket: impl AsFd, unread: usize) {
    let socket = SockRef::from(&socket);
    discard(&socket, unread);
    // It fails when the peer has gone, which needs no further end.
    let _ = socket.set_linger(None);
}

/// Reads what is there, at most so many bytes.
fn discard(socket: &Socket, mut unread: usize) {
    let (mut socket, mut waste) = (socket, [0; 4096]);
    while unread > 0 {
        let most = unread.min(waste.len());
        let Some(space) = waste.get_mut(..most) else { break };
        match socket.read(space) {
            Ok(1..) if unread > most => unread -= most,
            _ => break,
        }
    }
}

/// Whether the kernel has sent all that was written.
#[cfg(target_os = "linux")]
fn is_drained(socket: &impl AsFd) -> bool {
    // With this mark a socket is writable when nothing is unsent. It fails when the peer has gone, and then nothing is left to send.
    if SockRef::from(socket).set_tcp_notsent_lowat(1).is_err() {
        return true;
    }
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    !matches!(rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Whether the kernel has sent all that was written: this system does not report it.
#[cfg(not(target_os = "linux"))]
fn is_drained(_: &impl AsFd) -> bool {
    true
}

/// A connected socket as the local end of a connection; [`set_up`] has been called on it.
pub(super) struct Tcp<S>(pub(super) S);

impl<S: TcpStream> LocalTcp for Tcp<S> {
    type Buffer = S::Buffer;

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut S::Buffer) -> Poll<io::Result<Bytes>> {
        self.0.poll_read(cx, buffer, READ)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, slices)
    }

    fn finish(&mut self) {
        // It fails when the peer has gone; the next read reports that.
        let _ = SockRef::from(&self.0).shutdown(std::net::Shutdown::Write);
    }

    fn close(&mut self) {
        // It fails when the peer has gone, which needs no further end.
        let _ = SockRef::from(&self.0).set_linger(None);
    }

    fn is_drained(&self) -> bool {
        is_drained(&self.0)
    }

    fn take_error(&self) -> Option<io::Error> {
        SockRef::from(&self.0).take_error().ok().flatten()
    }
}
