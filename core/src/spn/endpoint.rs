//! An endpoint: consumer or provider of a service (docs/protocols/spn.md, Endpoint session and Endpoint connection).
//!
//! [`Endpoint`] is the binding: one UDP socket, a session with each address of the hub, and connections over them. It has no I/O and no
//! clock of its own. The host
//!
//! 1. hands in a batch of datagrams ([`Endpoint::handle_datagram`]), and [`Endpoint::handle_timeout`] when its time has come;
//! 2. sends what [`Endpoint::poll_transmit`] gives, until it gives nothing (the work of step 1 is done here, for the whole batch at once);
//! 3. acts on what [`Endpoint::poll_notice`] says, until it says nothing; if it did anything, back to 2;
//! 4. sleeps until a datagram comes or [`Endpoint::poll_timeout`] is due.
//!
//! A connection is a [`ConnId`]; its bytes go through [`Endpoint::read`] and [`Endpoint::write`], which never wait: they take or give what
//! there is, and a notice says when there is more. Every connection ends with exactly one of [`Notice::Ended`] and [`Notice::Reset`].

mod binding;
mod carrier;
mod config;
mod context;
pub mod machines;
mod phase;
mod policy;
mod ports;
mod setup;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Instant};

use crate::spn::wire::code::StreamCode;
use bytes::Bytes;

pub use binding::conn::ledger::Progress;
pub use config::{Config, ConfigError, ConnId, ConnectError, Limits, Notice};

use self::{
    binding::intake::Intake,
    context::Context,
    machines::{connection, session},
    phase::Phase,
    ports::Ports,
    setup::Setup,
};
use crate::{
    quic::{Epoch, Identity, ReadOutcome, Received, Roots, Transmit, WriteOutcome},
    spn::flow::budget::Budget,
};

/// One endpoint of a service.
pub struct Endpoint {
    setup: Setup,
    phase: Phase,
    ports: Ports,
    intake: Intake,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (phase, sessions) = (&self.phase, self.intake.exchange().parts_ref().links.len());
        f.debug_struct("Endpoint")
            .field("sessions", &sessions)
            .field("connections", &self.connections())
            .field("phase", &format_args!("{phase}"))
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint without addresses: give it some with [`handle_addresses`](Self::handle_addresses).
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(config: Config, seed: [u8; 32], epoch: Epoch) -> Result<Self, ConfigError> {
        let (intake, budget) = (Intake::new(&config), Budget::new(config.limits.parked_bytes));
        let (setup, quic) = Setup::new(config, seed, epoch)?;
        Ok(Self { setup, phase: Phase::new(), ports: Ports::new(quic, budget), intake })
    }

    /// The way in, and what it is handed with each call.
    fn split(&mut self, now: Instant) -> (&mut Intake, Context<'_>) {
        let Self { setup, phase, ports, intake } = self;
        (intake, Context { now, setup, phase, ports })
    }

    /// Segments that one send call may carry from now on (GSO).
    pub fn set_max_segments(&mut self, segments: usize) {
        self.ports.quic.set_max_segments(segments);
    }

    /// The addresses that the hub's name has now. New ones get a session, those of others end. An empty answer changes nothing.
    pub fn handle_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
        if addresses.is_empty() || self.phase.is_over() {
            return;
        }
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        exchange.parts().links.list(addresses, cx.setup.config().limits.addresses, cx.ports);
        exchange.begin_sessions(&mut cx);
        intake.settle(&mut cx);
    }

    /// Takes a datagram from the socket.
    pub fn handle_datagram(&mut self, now: Instant, received: Received) {
        self.ports.quic.handle_datagram(now, received);
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (intake, mut cx) = self.split(now);
        intake.exchange_mut().watch_standstill(&mut cx);
        cx.ports.quic.handle_timeout(now);
        while let Some((at, due)) = cx.ports.deadlines.expire(now) {
            intake.expire(&mut cx, at, due);
            intake.settle(&mut cx);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. Ask after [`poll_transmit`](Self::poll_transmit) has been drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Ports { quic, deadlines, .. } = &self.ports;
        let standstill = self.intake.exchange().standstill().next();
        [quic.poll_timeout(), deadlines.next(), standstill].into_iter().flatten().min()
    }

    /// The next datagrams to send, until there are none; `buffer` is lent, and filled with segments of equal size.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (intake, mut cx) = self.split(now);
        intake.exchange_mut().watch_standstill(&mut cx);
        loop {
            let moved = intake.pump(&mut cx);
            let transmit = cx.ports.quic.poll_transmit(now, buffer);
            if transmit.is_some() || !moved {
                return transmit;
            }
        }
    }

    /// What the host must know, until there is nothing.
    #[must_use]
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.ports.take_notice()
    }

    /// Asks for a connection to the service. It may be written to at once, which is to say: as soon as a session has room for it.
    ///
    /// # Errors
    /// This is a provider, it is leaving, or it has too many connections.
    pub fn connect(&mut self, now: Instant) -> Result<ConnId, ConnectError> {
        if !self.setup.is_consumer() {
            return Err(ConnectError::NotConsumer);
        }
        if !self.phase.is_running() {
            return Err(ConnectError::Closed);
        }
        if self.connections() >= self.setup.config().limits.connections {
            return Err(ConnectError::TooMany(self.connections()));
        }
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        let id = exchange.parts().conns.add(cx.setup.connection(), true);
        exchange.conn_event(&mut cx, id, connection::Event::Connect);
        intake.settle(&mut cx);
        Ok(id)
    }

    /// Takes up to `max` chunks of what has arrived, appending them to `chunks`. None of them is empty; there may be none although
    /// there are more, after a resume in which the partner has repeated what was here.
    ///
    /// [`ReadOutcome::Blocked`]: that is all; [`Notice::Readable`] says that there is more.
    /// [`ReadOutcome::Finished`]: that is all, and the other side has ended. [`ReadOutcome::Gone`]: the connection is over, or
    /// [`stop_reading`](Self::stop_reading) was called.
    pub fn read(&mut self, now: Instant, id: ConnId, chunks: &mut Vec<Bytes>, max: usize) -> ReadOutcome {
        let (intake, mut cx) = self.split(now);
        intake.read(&mut cx, id, chunks, max)
    }

    /// Gives chunks, uncopied, as far as there is room; [`Notice::Writable`] says that there is more.
    pub fn write(&mut self, now: Instant, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        let (intake, mut cx) = self.split(now);
        intake.write(&mut cx, id, chunks)
    }

    /// Ends our direction in good order, after what was written.
    pub fn finish(&mut self, now: Instant, id: ConnId) {
        let (intake, mut cx) = self.split(now);
        intake.finish(&mut cx, id);
    }

    /// Reads no more; the other direction goes on.
    pub fn stop_reading(&mut self, now: Instant, id: ConnId, code: StreamCode) {
        let (intake, mut cx) = self.split(now);
        intake.stop_reading(&mut cx, id, code);
    }

    /// Breaks the connection off, in both directions. A provider that cannot dial says it with [`PEER_ABORTED`](StreamCode::PEER_ABORTED).
    pub fn reset(&mut self, now: Instant, id: ConnId, code: StreamCode) {
        let (intake, mut cx) = self.split(now);
        intake.reset(&mut cx, id, code);
    }

    /// Breaks the connection off as [`reset`](Self::reset) does, but not before the partner has what was written, or
    /// [`Limits::parting`] has passed. The host is done with the connection: it neither reads nor writes any more.
    pub fn reset_delivered(&mut self, now: Instant, id: ConnId, code: StreamCode) {
        let (intake, mut cx) = self.split(now);
        intake.reset_delivered(&mut cx, id, code);
    }

    /// Takes another certificate and key, and other authorities of hubs: sessions that are made from now on use them.
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it is.
    pub fn set_identity(&mut self, identity: Identity, roots: Roots) -> Result<(), ConfigError> {
        self.setup.set_identity(identity, roots)
    }

    /// Takes what both clocks show now. To be called now and then: certificates are judged by it.
    pub fn set_epoch(&mut self, _now: Instant, epoch: Epoch) {
        self.setup.set_epoch(epoch);
    }

    /// Changes a provider's share of new connections. 0 retires it: when the last connection has ended, its sessions end, and
    /// [`Notice::Closed`] says so; until then, or even after, another weight takes it back.
    pub fn set_weight(&mut self, now: Instant, weight: u16) {
        if self.setup.is_consumer() || !self.phase.set_weight(weight) {
            return;
        }
        self.setup.set_weight(weight);
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        exchange.parts().links.post_all(&session::Event::SetWeight { weight }, cx.ports);
        exchange.begin_sessions(&mut cx);
        intake.settle(&mut cx);
    }

    /// Leaves in good order: nothing new, and sessions end with their last connection or after their deadline. Connections that lose their
    /// session meanwhile go on over another one. [`Notice::Closed`] ends it.
    pub fn close(&mut self, now: Instant) {
        self.shut_down(now, 1);
    }

    /// Leaves at once: connections are reset.
    pub fn stop(&mut self, now: Instant) {
        self.shut_down(now, 2);
    }

    fn shut_down(&mut self, now: Instant, signals: usize) {
        let until = now + self.setup.config().session.closing;
        if self.phase.shut_down(signals > 1, until) {
            let (intake, mut cx) = self.split(now);
            intake.exchange_mut().shut_down(&mut cx, signals);
            intake.settle(&mut cx);
        }
    }

    /// The sessions: where to, and in which state. The names are those of the table *spn.endpoint_session* in docs/protocols/spn-states.md, which
    /// are part of the protocol's documentation; they are for people and for tests, and no program needs to compare them.
    pub fn sessions(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        self.intake.exchange().parts_ref().links.states()
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.intake.exchange().parts_ref().conns.len()
    }

    /// How far a connection is; `None` when it has ended, or cannot be resumed.
    #[must_use]
    pub fn progress(&self, id: ConnId) -> Option<Progress> {
        let conn = self.intake.exchange().parts_ref().conns.get(id)?;
        conn.ledger.as_ref().map(|ledger| ledger.progress())
    }
}
