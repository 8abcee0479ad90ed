//! smol, as the loops of `towline_core::host` see it: sockets, an alarm, clocks, threads.

use std::{
    future::Future,
    io,
    net::UdpSocket,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    thread,
    time::Instant,
};

use async_io::{Async, Timer};
use towline_core::{host, quic::Epoch};

use crate::hub::epoch;

/// smol.
#[derive(Debug, Clone, Copy)]
pub struct Smol;

impl host::Runtime for Smol {
    type Udp = Udp;
    type Alarm = Alarm;

    fn now() -> Instant {
        Instant::now()
    }

    fn epoch() -> Epoch {
        epoch()
    }

    fn spawn_thread<F: Future<Output = ()>>(name: String, task: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name(name).spawn(|| smol::block_on(task())).map(drop)
    }
}

/// A UDP socket.
#[derive(Debug)]
pub struct Udp {
    socket: Async<UdpSocket>,
    /// There may be something to receive: until a try has found nothing.
    is_readable: bool,
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl host::UdpSocket for Udp {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Async::new_nonblocking(socket.into())?, is_readable: true })
    }

    fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if !self.is_readable {
                ready!(self.socket.poll_readable(cx))?;
                self.is_readable = true;
            }
            match receive(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
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
            match send(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                done => return Poll::Ready(done),
            }
        }
    }
}

/// A timer.
#[derive(Debug)]
pub struct Alarm {
    timer: Timer,
    due: Option<Instant>,
}

impl host::Alarm for Alarm {
    fn new() -> Self {
        Self { timer: Timer::never(), due: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        if self.due != Some(due) {
            self.due = Some(due);
            self.timer.set_at(due);
        }
        Pin::new(&mut self.timer).poll(cx).is_ready()
    }
}
