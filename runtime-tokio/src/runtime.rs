//! tokio, as the loops of `towline_core::host` see it: sockets, an alarm, clocks, threads.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::mpsc,
    task::{Context, Poll, ready},
    thread,
    time::Instant,
};

use tokio::{
    io::Interest,
    net::UdpSocket,
    runtime::Builder,
    time::{Sleep, sleep_until},
};
use towline_core::{host, quic::Epoch};

use crate::hub::epoch;

/// tokio.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

impl host::Runtime for Tokio {
    type Udp = Udp;
    type Alarm = Alarm;

    fn now() -> Instant {
        Instant::now()
    }

    fn epoch() -> Epoch {
        epoch()
    }

    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
        let (built, is_built) = mpsc::channel();
        // The runtime lives and dies in there: none may end within another one, which is where we may be.
        thread::Builder::new().name(name).spawn(move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = built.send(Ok(()));
                runtime.block_on(async { task().await });
            }
            Err(error) => drop(built.send(Err(error))),
        })?;
        is_built.recv().map_err(io::Error::other)?
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
