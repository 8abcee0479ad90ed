//! TCP sockets and a clock, as a proxy's loop wants them: everything is polled.

use std::{
    io::{self, Read},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use towline_core::host::ReadBuffer;

/// Connections that the kernel keeps while nobody accepts them.
const BACKLOG: i32 = 1024;
/// With a linger time of 0, closing is a reset: the end of a connection is the end of its message here, and a part of one must not look whole.
const RESET: Option<Duration> = Some(Duration::ZERO);

/// A listening socket.
pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        // Those that are accepted inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(RESET)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(TcpListener::from_std(socket.into())?))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Tcp, SocketAddr)>> {
        self.0.poll_accept(cx).map_ok(|(socket, peer)| (Tcp(socket), peer))
    }
}

/// A connected socket.
pub(crate) struct Tcp(TcpStream);

impl Tcp {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_linger(RESET)?;
        Ok(Self(socket))
    }

    /// Reads once; no bytes mean the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuffer,
        max: usize,
    ) -> Poll<io::Result<Bytes>> {
        let mut space = ReadBuf::new(buffer.space(max));
        match Pin::new(&mut self.0).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) => {
                let len = space.filled().len();
                Poll::Ready(Ok(buffer.take(len)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    /// Closes it in good order. Up to `unread` bytes that wait to be read are thrown away first.
    pub(crate) fn close(self, unread: usize) {
        let socket = SockRef::from(&self.0);
        discard(&socket, unread);
        // It fails when the peer has gone, and then there is nobody to tell.
        let _ = socket.set_linger(None);
    }

    /// Closes it with a reset, as does everything that closes it, and be it the end of the process, but [`close`](Self::close).
    pub(crate) fn abort(self) {}
}

/// Reads what is there, at most so many bytes.
fn discard(socket: &Socket, mut unread: usize) {
    let (mut socket, mut waste) = (socket, [0; 4096]);
    while unread > 0 {
        let most = unread.min(waste.len());
        match socket.read(&mut waste[..most]) {
            Ok(1..) if unread > most => unread -= most,
            _ => break,
        }
    }
}
