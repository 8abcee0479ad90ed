//! TCP sockets and a clock, as a proxy's loop wants them: everything is polled.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::Async;
use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use towline_core::host::ReadBuffer;

/// Connections that the kernel keeps while nobody accepts them.
const BACKLOG: i32 = 1024;
/// With a linger time of 0, closing is a reset: the end of a connection is the end of its message here, and a part of one must not look whole.
const RESET: Option<Duration> = Some(Duration::ZERO);

/// A listening socket.
pub(crate) struct Listener(Async<TcpListener>);

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
        Ok(Self(Async::new_nonblocking(socket.into())?))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Tcp, SocketAddr)>> {
        loop {
            match self.0.get_ref().accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_readable(cx))?,
                accepted => {
                    let (socket, peer) = accepted?;
                    return Poll::Ready(Ok((Tcp::new(Async::new(socket)?), peer)));
                }
            }
        }
    }
}

/// A connected socket.
pub(crate) struct Tcp {
    socket: Async<TcpStream>,
    /// There may be something to read: until a read has brought less than it might have.
    is_readable: bool,
}

impl Tcp {
    fn new(socket: Async<TcpStream>) -> Self {
        Self { socket, is_readable: true }
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Async::<TcpStream>::connect(address).await?;
        socket.get_ref().set_nodelay(true)?;
        SockRef::from(socket.get_ref()).set_linger(RESET)?;
        Ok(Self::new(socket))
    }

    /// Reads once; no bytes mean the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuffer,
        max: usize,
    ) -> Poll<io::Result<Bytes>> {
        loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            let space = buffer.space(max);
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

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    /// Closes it in good order. Up to `unread` bytes that wait to be read are thrown away first.
    pub(crate) fn close(self, unread: usize) {
        let socket = SockRef::from(self.socket.get_ref());
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
