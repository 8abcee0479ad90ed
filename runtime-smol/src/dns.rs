//! The runtime of the DNS library: tasks, timers and sockets of smol.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpStream, UdpSocket},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::{Async, Timer};
use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::{FutureExt, future};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

/// How long a server may take to accept a TCP connection, unless the library says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The smol runtime for the DNS library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runtime;

impl Spawn for Runtime {
    fn spawn_bg(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }
}

impl RuntimeProvider for Runtime {
    type Handle = Self;
    type Timer = Clock;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Self {
        *self
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Future<Output = io::Result<Tcp>> + Send>> {
        Box::pin(async move {
            let connect = Async::<TcpStream>::connect(server);
            let socket = Clock::timeout(timeout.unwrap_or(CONNECT_TIMEOUT), connect).await??;
            socket.get_ref().set_nodelay(true)?;
            Ok(Tcp(socket))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Udp>> + Send>> {
        Box::pin(future::ready(Async::<UdpSocket>::bind(local).map(Udp)))
    }
}

/// smol's timers.
#[derive(Debug, Clone, Copy)]
pub struct Clock;

#[async_trait::async_trait]
impl Time for Clock {
    async fn delay_for(duration: Duration) {
        Timer::after(duration).await;
    }

    async fn timeout<F: Future + Send + 'static>(duration: Duration, work: F) -> io::Result<F::Output> {
        let late = async {
            Timer::after(duration).await;
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {duration:?}")))
        };
        async { Ok(work.await) }.or(late).await
    }
}

/// A UDP socket of smol.
#[derive(Debug)]
pub struct Udp(Async<UdpSocket>);

impl DnsUdpSocket for Udp {
    type Time = Clock;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            match self.0.get_ref().recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_readable(cx))?,
                received => return Poll::Ready(received),
            }
        }
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buffer: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        loop {
            match self.0.get_ref().send_to(buffer, target) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_writable(cx))?,
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// A TCP stream of smol.
#[derive(Debug)]
pub struct Tcp(Async<TcpStream>);

impl DnsTcpStream for Tcp {
    type Time = Clock;
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
