//! TCP sockets as the local ends of connections.

use std::{
    io::{self, IoSlice, Read, Write},
    net::TcpStream,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::future;
use socket2::SockRef;
use towline_core::host::{LocalEnd, LocalTcp, ReadBuffer};

/// One read from TCP.
pub(crate) const READ: usize = 64 * 1024;
/// How long a provider may dial.
const DIAL: Duration = Duration::from_secs(10);

/// A connected socket.
pub(crate) struct Tcp {
    socket: Async<TcpStream>,
    /// There may be something to read: until a read has brought less than it might have.
    is_readable: bool,
}

/// Dials a local service.
pub(crate) fn dial(address: &str) -> LocalEnd<Tcp> {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        let late = async {
            Timer::after(DIAL).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))
        };
        future::or(connect(&address), late)
            .await
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
        // It fails when the peer has gone already; reading will tell.
        let _ = socket.get_ref().set_nodelay(true);
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

    fn break_off(&mut self) {
        // With a linger time of 0, closing sends RST.
        let _ = SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO));
    }

    fn take_error(&self) -> Option<io::Error> {
        self.socket.get_ref().take_error().ok().flatten()
    }
}
