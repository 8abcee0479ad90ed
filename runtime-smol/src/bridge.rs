//! TCP sockets as the local ends of connections.

use std::{
    io::{self, IoSlice, Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::future;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{SockRef, TcpKeepalive};
use towline_core::host::{LocalEnd, LocalTcp, ReadBuffer};

/// One read from TCP.
pub(crate) const READ: usize = 64 * 1024;
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
pub(crate) struct Tcp {
    socket: Async<TcpStream>,
    /// There may be something to read: until a read has brought less than it might have.
    is_readable: bool,
}

/// Dials a local service.
pub(crate) fn dial(address: &str, keepalive: Option<Duration>) -> LocalEnd<Tcp> {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        let late = async {
            Timer::after(DIAL).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))
        };
        future::or(connect(&address), late)
            .await
            .inspect(|tcp| {
                // It fails when the peer has gone already; reading will tell.
                let _ = set_up(&SockRef::from(tcp.socket.get_ref()), keepalive);
            })
            .inspect_err(|error| tracing::warn!(%address, %error, "cannot reach the service; the connection is reset"))
    }))
}

/// Tries the addresses of a name, one after another.
async fn connect(address: &str) -> io::Result<Tcp> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in smol::net::resolve(address).await? {
        match Async::<TcpStream>::connect(address).await {
            Ok(socket) => return Ok(Tcp::new(socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Tcp {
    pub(crate) fn new(socket: Async<TcpStream>) -> Self {
        Self { socket, is_readable: true }
    }
}

impl LocalTcp for Tcp {
    type Buffer = ReadBuffer;

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuffer) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            let space = buffer.space(READ);
            match self.socket.get_ref().read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(len) => {
                    self.is_readable = len == space.len();
                    return Poll::Ready(Ok(buffer.take(len)));
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn finish(&mut self) {
        // It fails when the peer has gone; reading will tell.
        let _ = SockRef::from(self.socket.get_ref()).shutdown(std::net::Shutdown::Write);
    }

    fn close(&mut self) {
        // It fails when the peer has gone, and then there is nobody to tell.
        let _ = SockRef::from(self.socket.get_ref()).set_linger(None);
    }

    fn is_drained(&self) -> bool {
        is_drained(self.socket.get_ref())
    }

    fn take_error(&self) -> Option<io::Error> {
        self.socket.get_ref().take_error().ok().flatten()
    }
}
