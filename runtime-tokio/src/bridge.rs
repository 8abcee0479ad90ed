//! TCP sockets as the local ends of connections.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream};
use towline_core::host::{LocalEnd, LocalTcp};

/// One read from TCP.
const READ: usize = 64 * 1024;
/// How long a provider may dial.
const DIAL: Duration = Duration::from_secs(10);

/// A connected socket.
pub(crate) struct Tcp(TcpStream);

/// Dials a local service.
pub(crate) fn dial(address: &str) -> LocalEnd<Tcp> {
    let address = address.to_owned();
    LocalEnd::Dialing(Box::pin(async move {
        match tokio::time::timeout(DIAL, TcpStream::connect(&address)).await {
            Ok(result) => result.map(Tcp::new),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
        }
        .inspect_err(|error| tracing::warn!(%address, %error, "cannot reach the service; the connection is reset"))
    }))
}

impl Tcp {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        // It fails when the peer has gone already; reading will tell.
        let _ = tcp.set_nodelay(true);
        Self(tcp)
    }
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

    fn break_off(&mut self) {
        // With a linger time of 0, closing sends RST.
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    fn take_error(&self) -> Option<io::Error> {
        self.0.take_error().ok().flatten()
    }
}
