//! A whole hub, as a binding: UDP datagrams in and out, and [notices](Notice) (docs/protocols/spn.md).
//!
//! One [`Hub`] is one realm's hub record and one UDP socket. It joins what stands beside it: the QUIC [endpoint](crate::quic), the [`machines`]
//! of the hub, its sessions and its connections, the [`policy`] of services and their providers, and the relay that moves payload.
//!
//! # Call contract
//!
//! 1. [`handle_datagram`](Hub::handle_datagram) for each datagram of a batch, [`handle_timeout`](Hub::handle_timeout) when it is due,
//!    [`cluster_done`](Hub::cluster_done) when a cluster manager has done what a notice asked for.
//! 2. [`poll_transmit`](Hub::poll_transmit) until `None`. The work is done here, once a batch, so do not leave this out.
//! 3. [`poll_notice`](Hub::poll_notice) until `None`.
//! 4. Sleep until [`poll_timeout`](Hub::poll_timeout) or the next datagram.
//!
//! `core/examples/hub_on_mio.rs` is such a host, in one thread.

mod binding;
mod config;
pub mod machines;
mod notice;
pub mod policy;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

pub use binding::cluster::ClusterTask;
pub use config::{Config, ConfigError, Limits, ServiceStatus, Status};
pub use notice::{Notice, Reason, Refusal};
pub use policy::{
    availability::{Availability, Schedule, ScheduleError},
    registry::Service,
};

use self::{
    binding::{conn::Connection, link::Session, pairings::Pairings},
    machines::{
        connection,
        instance::{self, Instance},
        session,
    },
    policy::{
        registry::{self, Registry},
        seek::Listeners,
        silence::Silence,
    },
};
use super::{ConnKey, Protocol, Role, Side};
use crate::{
    machine::{Deadlines, Hosted, Machine as _, later},
    quic::{
        Clock, Endpoint, EndpointConfig, Epoch, Handle, Identity, Received, Roots, ServerConfig, StreamId, Transmit,
        TurnedAway, reset_key,
    },
    spn::{
        flow::budget::Budget,
        record::{Record, RecordEvent},
    },
};

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Hub,
    Session(Handle),
    /// A singleton's newcomer looks whether the incumbent has answered.
    Probe(Handle),
    /// A session's control stream may be read again.
    Control(Handle),
    Preamble(Handle, StreamId),
    Connection(u64),
    /// Requests to resume may have waited too long.
    Parked(Handle),
    /// A direction has been stalled for a while.
    Stall(u64, Side),
    /// What a session's stalled streams hold is to be looked at again.
    Stalled(Handle),
    /// Grown windows of a session may be of no use any more.
    Rest(Handle),
    /// A provider has got something, and should have acknowledged it.
    Silence(Handle),
    Managed(usize),
    /// A service's schedule.
    Scheduled(usize),
    /// Suppressed refusals are to be told.
    Refusals,
    /// A drain is nearly over.
    LegacyEnds,
}

/// Counts refusals, second by second.
#[derive(Debug, Default)]
struct RefusalGauge {
    second: Option<Instant>,
    told: u32,
    suppressed: u64,
}

/// A hub.
pub struct Hub {
    config: Config,
    realm: Arc<str>,
    name: Arc<str>,
    clock: Clock,
    /// What the moments of schedules were computed with.
    scheduled_by: Epoch,
    quic: Endpoint,
    machine: Hosted<Instance>,
    id: [u8; 16],
    rng: ChaCha20Rng,
    registry: Registry,
    /// What a reload has brought and the machine has not yet told to apply.
    loaded: Option<Vec<Service>>,
    changes: Vec<String>,
    sessions: BTreeMap<Handle, Session>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    next_task: u64,
    keys: BTreeMap<ConnKey, u64>,
    /// Requests to resume.
    pairings: Pairings,
    silence: Silence,
    listeners: Listeners,
    /// Directions that may have something to move: each is in here once.
    ready: VecDeque<(u64, Side)>,
    /// Sessions with control frames to send.
    unflushed: Vec<Handle>,
    deadlines: Deadlines<Due>,
    notices: VecDeque<Notice>,
    refusals: RefusalGauge,
    /// Memory for the windows of all sessions.
    budget: Budget,
    /// Something came in since the last work.
    dirty: bool,
    scratch: Vec<Bytes>,
}

/// Schedules are computed anew when the wall clock is further from what they were computed with.
const OFF_SCHEDULE: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("realm", &self.realm).field("name", &self.name).finish_non_exhaustive()
    }
}

/// So long before the end of a drain the connections of `sc01` consumers end, so that their ends come before that of the session.
const LEGACY_END: Duration = Duration::from_secs(2);

/// `sc02` before `sc01`, and in each the provider first: the order of preference.
fn alpn() -> [&'static [u8]; 4] {
    [
        Role::Provider.alpn(Protocol::Sc02),
        Role::Consumer.alpn(Protocol::Sc02),
        Role::Provider.alpn(Protocol::Sc01),
        Role::Consumer.alpn(Protocol::Sc01),
    ]
}

fn tls(config: &Config, clock: &Clock) -> Result<(Identity, ServerConfig), ConfigError> {
    let identity = Identity::from_pem(&config.certificate, &config.key).map_err(ConfigError::Server)?;
    let clients = Roots::from_pem(&config.client_ca).map_err(ConfigError::ClientCa)?;
    let server =
        ServerConfig::new(&identity, &clients, &alpn(), &config.transport, clock).map_err(ConfigError::Server)?;
    Ok((identity, server))
}

impl Hub {
    /// A hub that listens, at once or when the managed providers that are to run from the load on have started; [`Notice::Listening`] says when. `seed` feeds its randomness, and `epoch` its wall-clock time.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used.
    pub fn new(now: Instant, config: Config, seed: [u8; 32], epoch: Epoch) -> Result<Self, ConfigError> {
        let clock = Clock::new(epoch);
        let (identity, server) = tls(&config, &clock)?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let (mut id, mut quic_seed) = ([0; 16], [0; 32]);
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut quic_seed);
        let mut quic = EndpointConfig::new(quic_seed, clock.clone());
        quic.reset_key = reset_key(&identity, format!("{} {} {}", config.realm, config.name, config.bind).as_bytes());
        quic.max_udp_payload = config.transport.mtu_max.max(1472);
        quic.retry_above = config.limits.retry_above;
        quic.retry_handshakes = config.limits.retry_handshakes;
        quic.max_handshakes = config.limits.handshakes;
        quic.max_handshakes_per_source = config.limits.handshakes_per_source;
        quic.handshake_time = Duration::from_millis(config.limits.handshake_ms.into());
        quic.max_connections = config.limits.sessions;
        let mut hub = Self {
            realm: config.realm.as_str().into(),
            name: config.name.as_str().into(),
            clock,
            scheduled_by: epoch,
            quic: Endpoint::new(quic, Some(server)),
            machine: Hosted::new(Instance::new(config.instance)),
            id,
            rng,
            registry: Registry::default(),
            loaded: Some(config.services.clone()),
            changes: Vec::new(),
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            next_task: 0,
            keys: BTreeMap::new(),
            pairings: Pairings::default(),
            silence: Silence::default(),
            listeners: Listeners::default(),
            ready: VecDeque::new(),
            unflushed: Vec::new(),
            deadlines: Deadlines::default(),
            notices: VecDeque::new(),
            refusals: RefusalGauge::default(),
            budget: Budget::new(config.limits.relay_memory),
            dirty: false,
            scratch: Vec::new(),
            config,
        };
        hub.event(now, instance::Event::InventoryLoaded);
        Ok(hub)
    }

    /// Segments that one send call may carry (GSO); 64 unless told.
    pub fn set_max_segments(&mut self, segments: usize) {
        self.quic.set_max_segments(segments);
    }

    /// The pair that turns the times of records into timestamps, as of the last [`set_epoch`](Self::set_epoch).
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.clock.epoch()
    }

    /// Takes what both clocks show now. To be called now and then: certificates are judged by it, and providers started and stopped.
    pub fn set_epoch(&mut self, now: Instant, epoch: Epoch) {
        let (before, unix) = (self.clock.epoch().unix_at(now), epoch.unix_at(now));
        self.clock.set(epoch);
        // Set at once, or by and by.
        if self.scheduled_by.unix_at(now).abs_diff(unix) > OFF_SCHEDULE {
            self.scheduled_by = epoch;
            let jumped = before.abs_diff(unix) > OFF_SCHEDULE;
            self.reschedule(now, if jumped { before } else { unix });
            self.dirty = true;
        }
    }

    /// Takes a datagram from the socket. Before it listens it drops them; see [`is_starting`](Self::is_starting).
    pub fn handle_datagram(&mut self, now: Instant, received: Received) {
        if self.machine.is_starting() {
            return;
        }
        self.quic.handle_datagram(now, received);
        self.dirty = true;
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.quic.handle_timeout(now);
        while let Some((at, due)) = self.deadlines.expire(now) {
            self.expire(now, at, due);
        }
        self.dirty = true;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.quic.poll_timeout(), self.deadlines.next()].into_iter().flatten().min()
    }

    /// The next datagrams to send, until there are none; see [`Endpoint::poll_transmit`].
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            // All that came in is worked on before anything is sent: fewer, fuller packets.
            if std::mem::take(&mut self.dirty) {
                self.work(now);
            }
            if let Some(transmit) = self.quic.poll_transmit(now, buffer) {
                return Some(transmit);
            }
            if self.ready.is_empty() {
                return None;
            }
            self.dirty = true;
        }
    }

    /// The next thing the host must know, until there is none.
    #[must_use]
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// SIGTERM: no new work; sessions are told, connections that can be resumed are paused, and what has not ended in time is cut. [`Notice::Stopped`] follows. A second call cuts at once.
    pub fn shutdown(&mut self, now: Instant) {
        self.event(now, instance::Event::Shutdown);
    }

    /// SIGINT: every session is closed now. [`Notice::Stopped`] follows.
    pub fn stop(&mut self, now: Instant) {
        self.event(now, instance::Event::Stop);
    }

    /// The inventory no longer has this hub, or its address has changed and another has taken over: like [`shutdown`](Self::shutdown).
    pub fn remove(&mut self, now: Instant) {
        self.event(now, instance::Event::Removed);
    }

    /// The realm is disabled: as [`remove`](Self::remove), but nothing is paused, since nobody is to serve it.
    pub fn disable(&mut self, now: Instant) {
        self.event(now, instance::Event::Disabled);
    }

    /// Takes a new record (the address must be the same): certificates count for new handshakes, services at once.
    /// Sessions keep running if they keep their right. Says what changed.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used; then everything stays as it is.
    pub fn reload(&mut self, now: Instant, mut config: Config) -> Result<Vec<String>, ConfigError> {
        let (identity, mut server) = tls(&config, &self.clock)?;
        self.changes.clear();
        let unix = self.clock.epoch().unix_at(now);
        if identity.is_early(unix) && !tls(&self.config, &self.clock)?.0.is_early(unix) {
            self.changes
                .push("the new certificate is not valid yet: the old one stays, load again when it is".to_owned());
            config.certificate.clone_from(&self.config.certificate);
            config.key.clone_from(&self.config.key);
            server = tls(&config, &self.clock)?.1;
        }
        if (&config.certificate, &config.key) != (&self.config.certificate, &self.config.key) {
            self.changes.push("certificate changed".to_owned());
        }
        if config.client_ca != self.config.client_ca {
            self.changes.push("client CA changed".to_owned());
        }
        self.quic.set_server_config(server);
        self.loaded = Some(config.services.clone());
        self.budget.set_most(config.limits.relay_memory);
        self.config = config;
        self.event(now, instance::Event::InventoryLoaded);
        Ok(std::mem::take(&mut self.changes))
    }

    /// Whether managed providers are being started: datagrams are better left in the socket until it listens.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.machine.is_starting()
    }

    /// Who is here.
    #[must_use]
    pub fn status(&self) -> Status {
        let count = |role| {
            self.sessions.values().filter(|session| session.role == role && session.machine.is_established()).count()
        };
        let is_told =
            |entry: &&registry::Entry| !entry.providers.is_empty() || entry.is_paused || entry.managed.is_some();
        let services = self.registry.entries().iter().filter(is_told);
        let service = |entry: &registry::Entry| ServiceStatus {
            urn: entry.urn.to_string(),
            providers: entry.providers.len(),
            connections: entry.providers.iter().map(|provider| provider.open).sum(),
            is_paused: entry.is_paused,
            managed: entry.managed.as_ref().map(|managed| managed.state().to_owned()),
        };
        Status {
            providers: count(Role::Provider),
            consumers: count(Role::Consumer),
            connections: self.connections.len(),
            paused: self.pairings.without_leg(),
            services: services.map(service).collect(),
        }
    }

    /// Everything that can be done with what has come in, a bounded amount.
    fn work(&mut self, now: Instant) {
        while let Some((session, event)) = self.quic.poll_event() {
            self.quic_event(now, session, event);
        }
        self.tell_turned_away(now);
        for _ in 0..self.ready.len() {
            if let Some((connection, source)) = self.ready.pop_front() {
                self.pump(now, connection, source);
            }
        }
        self.flush_control(now);
        if self.sessions.is_empty() && !self.machine.is_listening() {
            self.event(now, instance::Event::AllSessionsGone);
        }
    }

    fn event(&mut self, now: Instant, event: instance::Event) {
        self.machine.handle_event(now, event);
        self.perform(now);
    }

    fn perform(&mut self, now: Instant) {
        use instance::Action;
        while let Some(action) = self.machine.next_action(&mut self.deadlines, Due::Hub) {
            match action {
                Action::ApplyInventory => self.apply_inventory(now),
                Action::Listen => self.notices.push_back(Notice::Listening),
                Action::DrainSessions { deadline, resumable } => self.drain_sessions(now, deadline, resumable),
                Action::CloseSessions => self.close_sessions(now),
                Action::CloseSocket => self.notices.push_back(Notice::Stopped),
            }
        }
        self.dirty = true;
    }

    fn apply_inventory(&mut self, now: Instant) {
        if let Some(services) = self.loaded.take() {
            self.changes.extend(self.registry.apply(services));
        }
        let lost: Vec<Handle> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                session.machine.is_established() || session.machine.is_held() || session.machine.is_early()
            })
            .filter(|(_, session)| {
                let names = registry::names(&session.peer);
                !self.registry.still_entitles(session.service, session.role, &names)
            })
            .map(|(handle, _)| *handle)
            .collect();
        for handle in lost {
            self.session_event(now, handle, session::Event::EntitlementLost);
        }
        self.apply_availability(now);
        self.starts_done(now);
    }

    fn drain_sessions(&mut self, now: Instant, deadline: Duration, resumable: bool) {
        self.leave_providers();
        self.quic.set_accepting(false);
        for handle in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.session_event(now, handle, session::Event::HubDraining { deadline, resumable });
        }
        self.remind(later(now, deadline.saturating_sub(LEGACY_END)), Due::LegacyEnds);
        // What waits for a provider need not wait here; what has one runs on when it cannot be paused.
        let leaving = self.connections.iter().filter(|(_, it)| resumable || it.is_held());
        for id in leaving.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.connection_event(now, id, connection::Event::PauseWanted);
        }
        self.refuse_parked(now);
    }

    fn close_sessions(&mut self, now: Instant) {
        self.leave_providers();
        self.quic.set_accepting(false);
        for handle in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.session_event(now, handle, session::Event::HubStopping);
        }
    }

    fn expire(&mut self, now: Instant, at: Instant, due: Due) {
        match due {
            Due::Hub => {
                if self.machine.expire(now, at) {
                    self.perform(now);
                }
            }
            Due::Session(handle) => self.session_timeout(now, at, handle),
            Due::Probe(handle) => self.probe(now, handle),
            Due::Silence(handle) => self.silence_timeout(now, at, handle),
            Due::Control(handle) => self.control_timeout(now, handle),
            Due::Preamble(handle, stream) => self.preamble_timeout(handle, stream),
            Due::Connection(connection) => self.connection_timeout(now, at, connection),
            Due::Parked(handle) => self.parked_timeout(now, handle),
            Due::Stall(connection, source) => self.stall_timeout(now, connection, source),
            Due::Stalled(handle) => self.stalled_timeout(now, handle),
            Due::Rest(handle) => self.rest_timeout(now, handle),
            Due::Managed(service) => self.managed_timeout(now, at, service),
            Due::Scheduled(service) => self.scheduled(now, at, service),
            Due::Refusals => self.tell_suppressed(now),
            Due::LegacyEnds => self.end_legacy_connections(now),
        }
    }

    /// A deadline that is not a machine's: it fires once.
    fn remind(&mut self, at: Instant, due: Due) {
        self.deadlines.push(at, due);
    }

    fn record(&mut self, at: Instant, event: RecordEvent) {
        let record = Record { at, realm: self.realm.clone(), hub: self.name.clone(), event };
        self.notices.push_back(Notice::Record(record));
    }

    /// Tells a refusal, unless there have been too many in this second.
    fn refused(&mut self, refusal: Refusal) {
        let now = refusal.at;
        if self.refusals.second.is_none_or(|second| now >= second + Duration::from_secs(1)) {
            self.tell_suppressed(now);
            self.refusals.second = Some(now);
            self.refusals.told = 0;
        }
        if self.refusals.told < self.config.limits.refusals_per_second {
            self.refusals.told += 1;
            self.notices.push_back(Notice::Refused(refusal));
            return;
        }
        self.suppress(now, 1);
    }

    /// Refusals that are counted only.
    fn suppress(&mut self, now: Instant, count: u64) {
        if self.refusals.suppressed == 0 && count > 0 {
            self.remind(now + Duration::from_secs(1), Due::Refusals);
        }
        self.refusals.suppressed += count;
    }

    /// Newcomers that QUIC has turned away by itself.
    fn tell_turned_away(&mut self, now: Instant) {
        let Some(TurnedAway { remote, reason, count }) = self.quic.take_turned_away() else { return };
        let reason = Reason::Handshake(reason.to_owned());
        self.refused(Refusal { at: now, remote, subject: None, role: None, reason });
        self.suppress(now, count - 1);
    }

    fn tell_suppressed(&mut self, _now: Instant) {
        let count = std::mem::take(&mut self.refusals.suppressed);
        if count > 0 {
            self.notices.push_back(Notice::RefusalsSuppressed { count });
        }
    }
}

#[cfg(test)]
mod tests;
