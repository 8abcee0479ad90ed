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
mod policy;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

pub use binding::ledger::Progress;
pub use config::{Config, ConfigError, ConnId, ConnectError, Limits, Notice};

use self::{
    binding::{conn::Conn, link::Link, resume::Tomb},
    carrier::LinkId,
    machines::{connection, session},
    policy::seek::Spent,
};
use crate::{
    machine::{Deadlines, Inspect},
    quic::{self, ClientConfig, Clock, EndpointConfig, Epoch, Handle, Identity, Received, Roots, StreamId, Transmit},
    spn::{ConnKey, Role, flow::budget::Budget, wire::code},
};

/// How much earlier IPv6 is dialled where a name has addresses of both families (RFC 8305 §8: Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// One endpoint of a service.
pub struct Endpoint {
    config: Config,
    client: ClientConfig,
    clock: Clock,
    quic: quic::Endpoint,
    random: ChaCha20Rng,
    /// Random, for the life of the process.
    instance: [u8; 16],
    /// What DNS lists.
    listed: BTreeSet<SocketAddr>,
    links: BTreeMap<LinkId, Link>,
    next_link: u32,
    by_handle: BTreeMap<Handle, LinkId>,
    conns: Vec<Option<Conn>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    open: usize,
    /// Memory for the windows of all sessions.
    budget: Budget,
    by_key: BTreeMap<ConnKey, ConnId>,
    /// Bytes that connections keep to send them again,
    retained: u64,
    /// and those that could write if others kept less.
    starved: BTreeSet<ConnId>,
    /// Connections with something to report.
    reports: BTreeSet<ConnId>,
    /// What is left of connections that can be asked for.
    tombs: BTreeMap<ConnKey, Tomb>,
    /// A provider's: connections that it takes no more,
    spent: Spent,
    /// and of these has said that it never had them.
    refused: BTreeSet<ConnKey>,
    /// Connections that look for a session, oldest first.
    waiting: BTreeMap<u64, ConnId>,
    next_ticket: u64,
    /// A session or stream credit may have turned up for them.
    serve: bool,
    work: VecDeque<Work>,
    /// A control stream may have something to send.
    flush: bool,
    deadlines: Deadlines<Due>,
    notices: VecDeque<Notice>,
    phase: Phase,
    /// Connections without a stream, which wait for the next one.
    paused: usize,
    /// [`Notice::Closed`] has been said.
    told_closed: bool,
    /// When a provider wants to be called at the latest: it is to notice that it has stood still.
    tick: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// A provider whose weight is 0: sessions that end are not begun again.
    Retired,
    /// It ends: sessions are begun only for connections that have lost theirs, until then.
    Ending {
        until: Instant,
    },
    Closing,
    Closed,
}

/// What one machine's actions mean to another; done one by one, so that no machine is called from within itself.
enum Work {
    /// SESSION_ACK is in, or a hold is over: look at the streams that came before it.
    Early(LinkId),
    Link(LinkId, session::Event),
    Conn(ConnId, connection::Event),
}

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A session whose beginning was put off.
    Begin(LinkId),
    Link(LinkId),
    Conn(ConnId),
    Preamble(LinkId, StreamId),
    /// The host may have left something unread.
    Stall(ConnId),
    /// What a session's stalled connections hold is to be looked at again.
    Stalled(LinkId, Handle),
    /// Grown windows of a session may be of no use any more.
    Rest(LinkId, Handle),
    /// Progress is to be reported.
    Report(ConnId),
    /// It is to be reset when its partner has what was written.
    Parting(ConnId),
    /// PAUSE_REQ for a connection that was not known.
    StrayPause(LinkId, ConnKey),
    Tomb(ConnKey),
    Spent(ConnKey),
    /// A provider's session may have fallen silent under its connections.
    Silence(LinkId),
    /// New streams of a provider that stood still wait.
    Hold(LinkId, Handle),
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { links, open, phase, .. } = self;
        f.debug_struct("Endpoint")
            .field("sessions", &links.len())
            .field("connections", open)
            .field("phase", phase)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint without addresses: give it some with [`handle_addresses`](Self::handle_addresses).
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(config: Config, seed: [u8; 32], epoch: Epoch) -> Result<Self, ConfigError> {
        config.check()?;
        let mut random = ChaCha20Rng::from_seed(seed);
        let mut draw = || {
            let mut drawn = [0; 32];
            random.fill_bytes(&mut drawn);
            drawn
        };
        let clock = Clock::new(epoch);
        let client = config.client(&clock, draw())?;
        let quic = quic::Endpoint::new(EndpointConfig::new(draw(), clock.clone()), None);
        let mut instance = [0; 16];
        random.fill_bytes(&mut instance);
        Ok(Self {
            budget: Budget::new(config.limits.parked_bytes),
            config,
            client,
            clock,
            quic,
            random,
            instance,
            listed: BTreeSet::new(),
            links: BTreeMap::new(),
            next_link: 0,
            by_handle: BTreeMap::new(),
            conns: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            open: 0,
            by_key: BTreeMap::new(),
            retained: 0,
            starved: BTreeSet::new(),
            reports: BTreeSet::new(),
            tombs: BTreeMap::new(),
            spent: Spent::default(),
            refused: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            serve: false,
            work: VecDeque::new(),
            flush: false,
            deadlines: Deadlines::default(),
            notices: VecDeque::new(),
            phase: Phase::Running,
            paused: 0,
            told_closed: false,
            tick: None,
        })
    }

    /// Segments that one send call may carry from now on (GSO).
    pub fn set_max_segments(&mut self, segments: usize) {
        self.quic.set_max_segments(segments);
    }

    /// The addresses that the hub's name has now. New ones get a session, those of others end. An empty answer changes nothing.
    pub fn handle_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
        if addresses.is_empty() || matches!(self.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        self.listed = addresses.iter().copied().collect();
        if self.listed.len() > self.config.limits.addresses {
            let limit = self.config.limits.addresses;
            let what = format!("{} addresses: only {limit} are used", self.listed.len());
            self.notices.push_back(Notice::Limit { what });
            self.listed = addresses.iter().copied().take(limit).collect();
        }
        for (id, link) in &self.links {
            if !self.listed.contains(&link.remote) {
                self.work.push_back(Work::Link(*id, session::Event::AddressLost));
            }
        }
        self.begin_sessions(now);
        self.settle(now);
    }

    /// Whether sessions are to be made: a retired provider, or an endpoint that ends, has use for one only to go on with what is paused.
    fn wants_sessions(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Running => true,
            Phase::Retired => self.paused > 0,
            Phase::Ending { until } => self.paused > 0 && now < until,
            Phase::Closing | Phase::Closed => false,
        }
    }

    /// Connections without a stream have become one more or one fewer.
    fn note_paused(&mut self, now: Instant, before: usize) {
        if (before == 0) == (self.paused == 0) {
            return;
        }
        let needed = self.paused > 0;
        for id in self.links.keys() {
            self.work.push_back(Work::Link(*id, session::Event::Needed { needed }));
        }
        self.begin_sessions(now);
    }

    /// Gives every listed address that has no session one.
    fn begin_sessions(&mut self, now: Instant) {
        if !self.wants_sessions(now) {
            return;
        }
        let busy: BTreeSet<_> = self.links.values().map(|link| link.remote).collect();
        let missing: Vec<_> = self.listed.difference(&busy).copied().collect();
        let (v6, v4): (Vec<_>, Vec<_>) = missing.into_iter().partition(SocketAddr::is_ipv6);
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
        self.quic.handle_datagram(now, received);
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.watch_standstill(now);
        self.quic.handle_timeout(now);
        while let Some((at, due)) = self.deadlines.expire(now) {
            match due {
                Due::Begin(id) => self.begin_link(id),
                Due::Link(id) => self.expire_link(now, at, id),
                Due::Conn(id) => self.expire_conn(now, at, id),
                Due::Preamble(id, stream) => self.expire_preamble(id, stream),
                Due::Stall(id) => self.expire_stall(now, id),
                Due::Stalled(link, handle) => self.expire_stalled(now, link, handle),
                Due::Rest(link, handle) => self.expire_rest(now, link, handle),
                Due::Report(id) => self.expire_report(id),
                Due::Parting(id) => self.part(now, id),
                Due::StrayPause(id, key) => self.expire_stray_pause(now, id, key),
                Due::Tomb(key) => self.expire_tomb(now, key),
                Due::Spent(key) => self.expire_spent(now, key),
                Due::Silence(id) => self.expire_silence(now, id),
                Due::Hold(id, handle) => self.expire_hold(now, id, handle),
            }
            self.settle(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next. Ask after [`poll_transmit`](Self::poll_transmit) has been drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.quic.poll_timeout(), self.deadlines.next(), self.tick].into_iter().flatten().min()
    }

    /// The next datagrams to send, until there are none; `buffer` is lent, and filled with segments of equal size.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.watch_standstill(now);
        loop {
            let moved = self.pump(now);
            let transmit = self.quic.poll_transmit(now, buffer);
            if transmit.is_some() || !moved {
                return transmit;
            }
        }
    }

    /// What the host must know, until there is nothing.
    #[must_use]
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Asks for a connection to the service. It may be written to at once, which is to say: as soon as a session has room for it.
    ///
    /// # Errors
    /// This is a provider, it is leaving, or it has too many connections.
    pub fn connect(&mut self, now: Instant) -> Result<ConnId, ConnectError> {
        if self.config.role != Role::Consumer {
            return Err(ConnectError::NotConsumer);
        }
        if self.phase != Phase::Running {
            return Err(ConnectError::Closed);
        }
        if self.open >= self.config.limits.connections {
            return Err(ConnectError::TooMany(self.open));
        }
        let id = self.add_conn();
        self.conn_event(now, id, connection::Event::Connect);
        self.settle(now);
        Ok(id)
    }

    /// Takes another certificate and key, and other authorities of hubs: sessions that are made from now on use them.
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it is.
    pub fn set_identity(&mut self, identity: Identity, roots: Roots) -> Result<(), ConfigError> {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let config = Config { identity, roots, ..self.config.clone() };
        self.client = config.client(&self.clock, seed)?;
        self.config = config;
        Ok(())
    }

    /// Takes what both clocks show now. To be called now and then: certificates are judged by it.
    pub fn set_epoch(&mut self, _now: Instant, epoch: Epoch) {
        self.clock.set(epoch);
    }

    /// Changes a provider's share of new connections. 0 retires it: when the last connection has ended, its sessions end, and
    /// [`Notice::Closed`] says so; until then, or even after, another weight takes it back.
    pub fn set_weight(&mut self, now: Instant, weight: u16) {
        if self.config.role != Role::Provider || !matches!(self.phase, Phase::Running | Phase::Retired) {
            return;
        }
        self.config.session.weight = weight;
        self.phase = if weight == 0 { Phase::Retired } else { Phase::Running };
        self.told_closed = false;
        for id in self.links.keys() {
            self.work.push_back(Work::Link(*id, session::Event::SetWeight { weight }));
        }
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
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = match self.phase {
            Phase::Running | Phase::Retired if signals == 1 => {
                Phase::Ending { until: now + self.config.session.closing }
            }
            Phase::Running | Phase::Retired | Phase::Ending { .. } | Phase::Closing | Phase::Closed => Phase::Closing,
        };
        let links: Vec<_> = self.links.keys().copied().collect();
        // From now on, those that look for a session need one.
        for id in self.conns.iter().flatten().map(|conn| conn.id).collect::<Vec<_>>() {
            self.count_paused(now, id);
        }
        for _ in 0..signals {
            for id in &links {
                self.work.push_back(Work::Link(*id, session::Event::LocalShutdown));
            }
        }
        self.settle(now);
    }

    /// The sessions: where to, and in which state.
    pub fn sessions(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        self.links.values().map(|link| (link.remote, link.machine.state()))
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    /// How far a connection is; `None` when it has ended, or cannot be resumed.
    #[must_use]
    pub fn progress(&self, id: ConnId) -> Option<Progress> {
        let conn = self.conns.get(id.index as usize)?.as_ref().filter(|conn| conn.id == id)?;
        conn.ledger.as_ref().map(|ledger| ledger.progress())
    }

    /// Does the work that QUIC's events make; says whether there was any.
    fn pump(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((handle, event)) = self.quic.poll_event() {
            moved = true;
            if let Some(&id) = self.by_handle.get(&handle) {
                self.quic_event(now, id, handle, event);
                self.settle(now);
            }
        }
        if std::mem::take(&mut self.flush) {
            moved = true;
            self.flush_controls(now);
        }
        moved
    }

    /// Lets the machines settle: does what they want of each other, and finds sessions for whoever waits.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(work) = self.work.pop_front() {
                match work {
                    Work::Early(id) => self.serve_early_streams(now, id),
                    Work::Link(id, event) => self.link_event(now, id, event),
                    Work::Conn(id, event) => self.conn_event(now, id, event),
                }
            } else if std::mem::take(&mut self.serve) {
                self.serve_waiting(now);
            } else {
                return self.close_down(now);
            }
        }
    }

    /// Says when no session is left and none will come.
    fn close_down(&mut self, now: Instant) {
        if self.told_closed || self.phase == Phase::Running || !self.links.is_empty() {
            return;
        }
        if matches!(self.phase, Phase::Ending { .. } | Phase::Closing) {
            self.phase = Phase::Closed;
            let code = |conn: &Conn| if conn.machine.is_paused() { code::PARTNER_LOST } else { code::NOT_STARTED };
            let left: Vec<_> = self.conns.iter().flatten().map(|conn| (conn.id, code(conn))).collect();
            for (id, code) in left {
                self.notices.push_back(Notice::Reset(id, code));
                self.remove_conn(now, id);
            }
        }
        self.told_closed = true;
        self.notices.push_back(Notice::Closed);
    }
}
