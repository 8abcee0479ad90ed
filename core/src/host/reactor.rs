//! One socket, one binding, one loop: what is the same for hubs and endpoints.

use std::{
    io,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    Binding, Wall,
    runtime::{Alarm, Runtime},
    udp::Udp,
};
use crate::quic::Transmit;

/// Turns of a loop before other futures of the thread get theirs.
pub(super) const TURNS: usize = 64;

/// A binding on a socket.
pub(super) struct Reactor<B, R: Runtime> {
    pub(super) binding: B,
    udp: Udp<R::Udp>,
    buffer: Vec<u8>,
    /// Polled, but not taken by the socket: it is in `buffer`.
    pending: Option<Transmit>,
    alarm: R::Alarm,
    segments: usize,
    wall: Wall,
}

impl<B: Binding, R: Runtime> Reactor<B, R> {
    /// Puts the binding on the socket.
    pub(super) fn new(mut binding: B, udp: Udp<R::Udp>) -> Self {
        let segments = udp.max_segments();
        binding.set_max_segments(segments);
        Self {
            binding,
            udp,
            buffer: Vec::new(),
            pending: None,
            alarm: R::Alarm::new(),
            segments,
            wall: Wall::new(R::epoch()),
        }
    }

    /// Looks at the wall clock, if that was not done a moment ago.
    fn follow(&mut self, now: Instant) {
        if !self.wall.is_due(now) {
            return;
        }
        let read = R::epoch();
        if let Some(jump_ms) = self.wall.look(read) {
            tracing::info!(
                jump_ms,
                "the system's clock was set: certificates and schedules are judged by the new time"
            );
        }
        self.binding.set_epoch(now, read);
    }

    /// Takes one batch of datagrams and fires what is due; says whether there was anything.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        self.follow(now);
        let (binding, udp) = (&mut self.binding, &mut self.udp);
        let received = binding.is_reading()
            && match udp.poll_receive(cx, |received| binding.handle_datagram(now, received)) {
                Poll::Ready(result) => result.map(|()| true)?,
                Poll::Pending => false,
            };
        let is_due = self.binding.poll_timeout().is_some_and(|due| due <= now);
        if is_due {
            self.binding.handle_timeout(now);
        }
        Ok(received || is_due)
    }

    /// Sends what there is to send, as far as the socket takes it.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        loop {
            if self.pending.is_none() {
                self.pending = self.binding.poll_transmit(now, &mut self.buffer);
            }
            let Some(transmit) = &self.pending else { break };
            match self.udp.poll_send(cx, transmit, &self.buffer) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            self.pending = None;
        }
        // The kernel may have turned out to know no GSO.
        if self.udp.max_segments() != self.segments {
            self.segments = self.udp.max_segments();
            self.binding.set_max_segments(self.segments);
        }
        Ok(())
    }

    /// Waits for the next deadline; says whether it is there.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let look = self.wall.deadline();
        let due = self.binding.poll_timeout().map_or(look, |due| due.min(look));
        self.alarm.poll(cx, due)
    }
}
