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
//! there is, and a notice tells when there is more. Every connection ends with exactly one of [`Notice::Ended`] and [`Notice::Reset`].

mod binding;
mod carrier;
mod config;
pub mod machines;
mod parts;
mod policy;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use config::{Config, ConfigError, ConnId, ConnectError, Limits, Notice};
pub use parts::conn::ledger::Progress;

use self::{
    machines::{connection, session},
    parts::{
        conn::Conns,
        link::Links,
        phase::{End, Phase},
        ports::{Due, Ports, Work},
        queue::Queue,
        setup::Setup,
        tombstones::Tombstones,
    },
    policy::{spent::Spent, standstill::Standstill},
};
use crate::{
    quic::{Epoch, Identity, Received, Roots, Transmit},
    spn::{flow::budget::Budget, wire::code},
};

/// How much earlier IPv6 is dialled where a name has addresses of both families (RFC 8305 §8: Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// One endpoint of a service.
pub struct Endpoint {
    setup: Setup,
    ports: Ports,
    links: Links,
    conns: Conns,
    /// Connections that look for a session.
    queue: Queue,
    /// What is left of connections that can be asked for.
    tombstones: Tombstones,
    /// A provider's: connections that it takes no more.
    spent: Spent,
    /// A provider's: whether it has stood still.
    standstill: Standstill,
    phase: Phase,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { links, conns, phase, .. } = self;
        f.debug_struct("Endpoint")
            .field("sessions", &links.len())
            .field("connections", &conns.len())
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
        let (role, limits) = (config.role, config.limits.clone());
        let (setup, quic) = Setup::new(config, seed, epoch)?;
        Ok(Self {
            setup,
            ports: Ports::new(quic, Budget::new(limits.parked_bytes)),
            links: Links::new(role),
            conns: Conns::new(&limits),
            queue: Queue::default(),
            tombstones: Tombstones::new(limits.connections),
            spent: Spent::new(limits.connections),
            standstill: Standstill::default(),
            phase: Phase::new(),
        })
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
        self.links.list(addresses, self.setup.config().limits.addresses, &mut self.ports);
        self.begin_sessions(now);
        self.settle(now);
    }

    /// Gives every listed address that has no session one, if sessions are to be made.
    fn begin_sessions(&mut self, now: Instant) {
        if !self.phase.wants_sessions(now, self.conns.waiting()) {
            return;
        }
        let (v6, v4): (Vec<_>, Vec<_>) = self.links.missing().into_iter().partition(SocketAddr::is_ipv6);
        // Both families are dialled; of two addresses of one hub the first that answers keeps the session.
        let second = if v6.is_empty() { now } else { now + HEAD_START };
        for (remotes, at) in [(v6, now), (v4, second)] {
            for remote in remotes {
                self.add_link(now, remote, at);
            }
        }
    }

    /// Takes a datagram from the socket.
    pub fn handle_datagram(&mut self, now: Instant, received: Received) {
        self.ports.quic.handle_datagram(now, received);
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.watch_standstill(now);
        self.ports.quic.handle_timeout(now);
        while let Some((at, due)) = self.ports.deadlines.expire(now) {
            self.expire(now, at, due);
            self.settle(now);
        }
    }

    fn expire(&mut self, now: Instant, at: Instant, due: Due) {
        let Self { links, conns, ports, .. } = self;
        match due {
            Due::Begin(id) => links.begin(id, ports),
            Due::Link(id) => self.expire_link(now, at, id),
            Due::Conn(id) => self.expire_conn(now, at, id),
            Due::Preamble(id, stream) => self.expire_preamble(id, stream),
            Due::Stall(id) => self.expire_stall(now, id),
            Due::Stalled(id, handle) => {
                if let Some(wire) = links.wire_at(id, handle) {
                    wire.flow_mut().look(now, ports);
                }
            }
            Due::Rest(id, handle) => {
                if let Some(wire) = links.wire_at(id, handle) {
                    wire.flow_mut().rest(now, ports);
                }
            }
            Due::Report(id) => conns.expire_report(id, ports),
            Due::Parting(id) => self.part(now, id),
            Due::StrayPause(id, key) => self.expire_stray_pause(now, id, key),
            Due::Tombstone(key) => self.tombstones.expire(now, &key),
            Due::Spent(key) => self.spent.expire(now, &key),
            Due::Silence(id) => self.expire_silence(now, id),
            Due::Hold(id, handle) => {
                if links.wire_at(id, handle).is_some_and(|wire| wire.signs_mut().0.look_at_hold(now, ports)) {
                    ports.post(Work::Early(id));
                }
            }
        }
    }

    /// To be called whenever the host is here, before anything new is looked at.
    fn watch_standstill(&mut self, now: Instant) {
        let Self { links, standstill, ports, .. } = self;
        if standstill.look(now, || links.is_any_up()) {
            links.hold(now, ports);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. Ask after [`poll_transmit`](Self::poll_transmit) has been drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Ports { quic, deadlines, .. } = &self.ports;
        [quic.poll_timeout(), deadlines.next(), self.standstill.next()].into_iter().flatten().min()
    }

    /// The next datagrams to send, until there are none; `buffer` is lent, and filled with segments of equal size.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.watch_standstill(now);
        loop {
            let moved = self.pump(now);
            let transmit = self.ports.quic.poll_transmit(now, buffer);
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
        if self.conns.len() >= self.setup.config().limits.connections {
            return Err(ConnectError::TooMany(self.conns.len()));
        }
        let id = self.conns.add(self.setup.connection(), true);
        self.conn_event(now, id, connection::Event::Connect);
        self.settle(now);
        Ok(id)
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
        self.links.post_all(&session::Event::SetWeight { weight }, &mut self.ports);
        self.begin_sessions(now);
        self.settle(now);
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
        if !self.phase.shut_down(signals > 1, until) {
            return;
        }
        // From now on, those that look for a session need one. A session that is begun for them knows that the endpoint ends.
        let links = self.links.ids();
        let is_ending = self.phase.is_ending();
        for id in self.conns.ids(|conn| conn.machine().is_looking_up()) {
            self.set_waits(now, id, is_ending);
        }
        for _ in 0..signals {
            for id in &links {
                self.ports.post_link(*id, session::Event::LocalShutdown);
            }
        }
        self.settle(now);
    }

    /// The sessions: where to, and in which state. The names are those of the table *spn.endpoint_session* in docs/protocols/spn-states.md, which
    /// are part of the protocol's documentation; they are for people and for tests, and no program needs to compare them.
    pub fn sessions(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        self.links.states()
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// How far a connection is; `None` when it has ended, or cannot be resumed.
    #[must_use]
    pub fn progress(&self, id: ConnId) -> Option<Progress> {
        self.conns.get(id)?.ledger.as_ref().map(|ledger| ledger.progress())
    }

    /// Does the work that QUIC's events make; says whether there was any.
    fn pump(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((handle, event)) = self.ports.quic.poll_event() {
            moved = true;
            if let Some(id) = self.links.of_handle(handle) {
                self.quic_event(now, id, event);
                self.settle(now);
            }
        }
        if self.ports.take_frames() {
            moved = true;
            self.flush_controls(now);
        }
        moved
    }

    /// Lets the machines settle: does what they want of each other, and finds sessions for whoever waits.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(work) = self.ports.take_work() {
                match work {
                    Work::Early(id) => self.serve_early_streams(now, id),
                    Work::Link(id, event) => self.link_event(now, id, event),
                    Work::Conn(id, event) => self.conn_event(now, id, event),
                }
            } else if self.ports.take_room() {
                self.serve_queue(now);
            } else {
                return self.close_down(now);
            }
        }
    }

    /// Says when no session is left and none will come.
    fn close_down(&mut self, now: Instant) {
        if self.links.len() > 0 {
            return;
        }
        match self.phase.end() {
            None => return,
            Some(End::Retired) => {}
            Some(End::Closed) => {
                for id in self.conns.ids(|_| true) {
                    let is_paused = self.conns.get(id).is_some_and(|conn| conn.machine().is_paused());
                    let code = if is_paused { code::PARTNER_LOST } else { code::NOT_STARTED };
                    self.ports.notify(Notice::Reset(id, code));
                    self.remove_conn(now, id);
                }
            }
        }
        self.ports.notify(Notice::Closed);
    }
}
