//! TCP sockets as the local ends of connections.

use std::{
    future::Future,
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncReadExt, net::TcpStream};
use towline_core::host::{LocalEnd, LocalTcp};

/// One read from TCP.
const READ: usize = 64 * 1024;
/// How long a provider may dial.
const DIAL: Duration = Duration::from_secs(10);

/// Probes without an answer that end a connection; they are sent in the course of one more of those times.
const PROBES: u32 = 4;

/// Sets what every local socket has; those that a listener accepts inherit it.
pub(crate) fn set_up(socket: &SockRef<'_>, keepalive: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // Closing it is a reset until both directions have ended: also when this process is killed.
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

/// Whether the kernel has sent all that was written: nobody says so here.
#[cfg(not(target_os = "linux"))]
fn is_drained(_: &impl AsFd) -> bool {
    true
}

/// A connected socket, on which [`set_up`] has been called.
pub(crate) struct Tcp(pub(crate) TcpStream);

/// Dials a local service.
pub(crate) fn dial(address: &str, keepalive: Option<Duration>) -> LocalEnd<Tcp> {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        match tokio::time::timeout(DIAL, TcpStream::connect(&address)).await {
            Ok(result) => result.map(|tcp| {
                // It fails when the peer has gone already; reading will tell.
                let _ = set_up(&SockRef::from(&tcp), keepalive);
                Tcp(tcp)
            }),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
        }
        .inspect_err(|error| tracing::warn!(%address, %error, "cannot reach the service; the connection is reset"))
    }))
}

impl LocalTcp for Tcp {
    type Buffer = BytesMut;

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<Bytes>> {
        if buffer.capacity() < READ / 4 {
            buffer.reserve(READ);
        }
        // A short read tells tokio that there is no more: the next one is no system call.
        ready!(pin!(self.0.read_buf(buffer)).poll(cx))?;
        Poll::Ready(Ok(buffer.split().freeze()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn finish(&mut self) {
        // It fails when the peer has gone; reading will tell.
        let _ = SockRef::from(&self.0).shutdown(std::net::Shutdown::Write);
    }

    fn close(&mut self) {
        // It fails when the peer has gone, and then there is nobody to tell.
        let _ = SockRef::from(&self.0).set_linger(None);
    }

    fn is_drained(&self) -> bool {
        is_drained(&self.0)
    }

    fn take_error(&self) -> Option<io::Error> {
        self.0.take_error().ok().flatten()
    }
}
