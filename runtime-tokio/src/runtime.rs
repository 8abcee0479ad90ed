//! Implements the runtime of `towline_core::host` with tokio: sockets, an alarm, clocks, tasks, a transport for DNS.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::{Pin, pin},
    sync::mpsc,
    task::{Context, Poll, ready},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, Bytes, BytesMut};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Builder,
    time::{Sleep, sleep_until},
};
use towline_core::{host, quic::Epoch};

use crate::stream::Stream;

/// The tokio runtime.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

impl host::Runtime for Tokio {
    type Udp = Udp;
    type Listener = Listener;
    type Tcp = Tcp;
    type Alarm = Alarm;
    type Dns = TokioRuntimeProvider;
    type Stream = Stream;

    fn now() -> Instant {
        Instant::now()
    }

    fn epoch() -> Epoch {
        epoch()
    }

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
        let (built, is_built) = mpsc::channel();
        // The new thread builds and drops the runtime: a runtime must not be dropped inside another one, and the caller may be in one.
        thread::Builder::new().name(name).spawn(move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = built.send(Ok(()));
                runtime.block_on(async { task().await });
            }
            Err(error) => drop(built.send(Err(error))),
        })?;
        is_built.recv().map_err(io::Error::other)?
    }

    async fn look_up(address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(address).await?.collect())
    }
}

/// A UDP socket.
#[derive(Debug)]
pub struct Udp(UdpSocket);

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl host::UdpSocket for Udp {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        UdpSocket::from_std(socket.into()).map(Self)
    }

    fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.0.poll_recv_ready(cx))?;
            match self.0.try_io(Interest::READABLE, || receive(self.0.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_send<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.0.poll_send_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, || send(self.0.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl host::TcpListener for Listener {
    type Stream = Tcp;

    fn new(socket: OwnedFd) -> io::Result<Self> {
        TcpListener::from_std(socket.into()).map(Self)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Tcp, SocketAddr)>> {
        self.0.poll_accept(cx).map_ok(|(socket, peer)| (Tcp(socket), peer))
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Tcp(TcpStream);

/// A read buffer without a copy and without an allocation for each read: small reads share a block.
#[derive(Debug)]
pub struct Buffer {
    block: BytesMut,
    size: usize,
}

impl AsFd for Tcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl host::TcpStream for Tcp {
    type Buffer = Buffer;

    fn buffer(size: usize) -> Buffer {
        Buffer { block: BytesMut::new(), size }
    }

    async fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.map(Self)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer, max: usize) -> Poll<io::Result<Bytes>> {
        let Buffer { block, size } = buffer;
        if block.capacity() < size.div_ceil(4).min(max) {
            block.reserve(*size);
        }
        // After a short read, tokio knows that the socket is empty.
        ready!(pin!(self.0.read_buf(&mut (&mut *block).limit(max.min(*size)))).poll(cx))?;
        Poll::Ready(Ok(block.split().freeze()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

/// A timer.
#[derive(Debug)]
pub struct Alarm(Pin<Box<Sleep>>);

impl host::Alarm for Alarm {
    fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now().into())))
    }

    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        if self.0.deadline() != due.into() {
            self.0.as_mut().reset(due.into());
        }
        self.0.as_mut().poll(cx).is_ready()
    }
}

/// The current time on both clocks.
#[must_use]
pub fn epoch() -> Epoch {
    Epoch { instant: Instant::now(), unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) }
}
