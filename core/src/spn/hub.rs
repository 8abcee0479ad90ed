//! A whole hub, as a binding: UDP datagrams in and out, and [notices](Notice) (docs/protocols/spn.md).
//!
//! One [`Hub`] is one realm's hub record and one UDP socket. It is composed of the QUIC [endpoint](crate::quic), the [`machines`] of the hub, its
//! sessions and its connections, the [`policy`] of services and their providers, and the binding between them, which also moves payload.
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
mod context;
pub mod machines;
mod notice;
mod outbox;
pub mod policy;

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

pub use config::{Config, ConfigError, Limits, ServiceStatus, Status};
pub use notice::{ClusterTask, Notice, Reason, Refusal};
pub use policy::{
    availability::{Availability, Schedule, ScheduleError},
    registry::Service,
};

use self::{
    binding::{
        exchange::{Parts, check},
        intake::Intake,
        pairings::number,
    },
    context::{Context, Due},
    machines::{
        connection,
        instance::{self, Instance},
        managed, pairing, session,
    },
    outbox::Outbox,
};
use super::{Protocol, Role};
use crate::{
    machine::{Deadlines, Hosted, Machine as _, later},
    quic::{Clock, Endpoint, EndpointConfig, Epoch, Identity, Received, Roots, ServerConfig, Transmit, reset_key},
};

/// A hub.
pub struct Hub {
    config: Config,
    clock: Clock,
    quic: Endpoint,
    machine: Hosted<Instance>,
    id: [u8; 16],
    /// The services of the inventory, until the machine asks for them.
    loaded: Option<Vec<Service>>,
    changes: Vec<String>,
    intake: Intake,
    deadlines: Deadlines<Due>,
    outbox: Outbox,
    /// Something came in since the last work.
    dirty: bool,
    scratch: Vec<Bytes>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (realm, name) = (&self.config.realm, &self.config.name);
        f.debug_struct("Hub").field("realm", realm).field("name", name).finish_non_exhaustive()
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
    /// A hub that listens, at once or when the managed providers that are to run from the load on have started; [`Notice::Listening`] says when.
    /// `seed` feeds its randomness, and `epoch` its wall-clock time.
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
            clock,
            quic: Endpoint::new(quic, Some(server)),
            machine: Hosted::new(Instance::new(config.instance)),
            id,
            loaded: Some(config.services.clone()),
            changes: Vec::new(),
            intake: Intake::new(&config, epoch, rng),
            deadlines: Deadlines::default(),
            outbox: Outbox::new(&config.realm, &config.name),
            dirty: false,
            scratch: Vec::new(),
            config,
        };
        hub.event(now, instance::Event::InventoryLoaded);
        Ok(hub)
    }

    /// Segments that one send call may carry (GSO); 64 by default.
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
        let before = self.clock.epoch();
        self.clock.set(epoch);
        if let Some(shown) = self.intake.exchange_mut().parts().cluster.set_epoch(now, before, epoch) {
            let (intake, mut cx) = self.split(now);
            intake.exchange_mut().reschedule(&mut cx, shown);
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
            if std::mem::take(&mut self.dirty) | self.intake.exchange_mut().take_acted() {
                self.work(now);
            }
            if let Some(transmit) = self.quic.poll_transmit(now, buffer) {
                return Some(transmit);
            }
            if self.intake.exchange_mut().parts().connections.count_ready() == 0 {
                return None;
            }
            self.dirty = true;
        }
    }

    /// The next notice for the host, until there is none.
    #[must_use]
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.outbox.pop()
    }

    /// SIGTERM: no new work; sessions are notified, connections that can be resumed are paused, and what has not ended in time is cut.
    /// [`Notice::Stopped`] follows. A second call cuts at once.
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

    /// The realm is disabled: as [`remove`](Self::remove), but nothing is paused, since no hub is to serve it.
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
        self.intake.exchange_mut().parts().links.set_memory(config.limits.relay_memory);
        self.config = config;
        self.event(now, instance::Event::InventoryLoaded);
        Ok(std::mem::take(&mut self.changes))
    }

    /// Whether managed providers are being started: datagrams are better left in the socket until it listens.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.machine.is_starting()
    }

    /// Sessions, connections and services at the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.intake.exchange().status()
    }

    /// Pauses a service: its connections that can be resumed leave their streams, those that cannot run on, and nothing is begun or resumed
    /// until [`unpause`](Self::unpause). Endpoints wait for as long as their settings say (120 s). Says whether there is such a service.
    pub fn pause(&mut self, now: Instant, urn: &str) -> bool {
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        let Some(service) = exchange.parts().services.set_paused(urn, true) else { return false };
        exchange.each_pairing_event(&mut cx, &pairing::Event::ServicePaused { service: number(service) });
        let connections = exchange.parts().connections;
        let ids = connections.filter(|it| it.service() == service && !it.machine().is_choosing());
        exchange.each_connection_event(&mut cx, ids, connection::Event::PauseWanted);
        true
    }

    /// Ends a pause. Says whether there is such a service.
    pub fn unpause(&mut self, now: Instant, urn: &str) -> bool {
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        let Some(service) = exchange.parts().services.set_paused(urn, false) else { return false };
        exchange.choose_for_waiting(&mut cx, service);
        exchange.each_pairing_event(&mut cx, &pairing::Event::ServiceUnpaused { service: number(service) });
        self.dirty = true;
        true
    }

    /// A cluster manager has done its task, or has failed.
    pub fn cluster_done(&mut self, now: Instant, task: u64, ok: bool) {
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        if let Some(service) = exchange.parts().cluster.service_of(task) {
            exchange.managed_event(&mut cx, service, managed::Event::ClusterDone { ok });
        }
        self.starts_done(now);
        self.dirty = true;
    }

    /// For tests, fuzzers and simulators: whether every book agrees with the others, and keeps to its bound. It looks at everything there is.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        check::check(self.intake.exchange(), &self.config.limits)
    }

    /// What comes in, and what its parts are handed with each call.
    fn split(&mut self, now: Instant) -> (&mut Intake, Context<'_>) {
        let cx = Context {
            now,
            config: &self.config,
            clock: &self.clock,
            id: self.id,
            quic: &mut self.quic,
            deadlines: &mut self.deadlines,
            outbox: &mut self.outbox,
            scratch: &mut self.scratch,
        };
        (&mut self.intake, cx)
    }

    /// Everything that can be done with what has come in, a bounded amount.
    fn work(&mut self, now: Instant) {
        let (intake, mut cx) = self.split(now);
        intake.work(&mut cx);
        if intake.exchange_mut().parts().links.is_empty() && !self.machine.is_listening() {
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
            let (intake, mut cx) = self.split(now);
            let exchange = intake.exchange_mut();
            match action {
                Action::ApplyInventory => self.apply_inventory(now),
                Action::Listen => {
                    exchange.listen();
                    cx.notify(Notice::Listening);
                }
                Action::DrainSessions { deadline, resumable } => self.drain(now, deadline, resumable),
                Action::CloseSessions => {
                    exchange.leave(&mut cx);
                    let sessions = exchange.parts().links.filter(|_| true);
                    exchange.each_session_event(&mut cx, sessions, session::Event::HubStopping);
                }
                Action::CloseSocket => cx.notify(Notice::Stopped),
            }
        }
        self.dirty = true;
    }

    /// Takes what a reload has brought: sessions that lose their right end, and managed providers are started if they are to run.
    fn apply_inventory(&mut self, now: Instant) {
        let loaded = self.loaded.take();
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        let Parts { links, services, .. } = exchange.parts();
        let changes = loaded.map(|loaded| services.apply(loaded)).unwrap_or_default();
        let lost = links.filter(|link| {
            let machine = link.machine();
            (machine.is_established() || machine.is_held() || machine.is_early()) && !services.still_entitles(link)
        });
        exchange.each_session_event(&mut cx, lost, session::Event::EntitlementLost);
        exchange.apply_availability(&mut cx);
        self.changes.extend(changes);
        self.starts_done(now);
    }

    /// The hub leaves: sessions are sent that, and connections that can be resumed are paused, if they are to be resumed elsewhere.
    fn drain(&mut self, now: Instant, deadline: Duration, resumable: bool) {
        let (intake, mut cx) = self.split(now);
        let exchange = intake.exchange_mut();
        exchange.leave(&mut cx);
        let sessions = exchange.parts().links.filter(|_| true);
        exchange.each_session_event(&mut cx, sessions, session::Event::HubDraining { deadline, resumable });
        cx.remind(later(now, deadline.saturating_sub(LEGACY_END)), Due::LegacyEnds);
        // What waits for a provider need not wait here; what has one runs on when it cannot be paused.
        let leaving = exchange.parts().connections.filter(|connection| resumable || connection.is_held());
        exchange.each_connection_event(&mut cx, leaving, connection::Event::PauseWanted);
        exchange.each_pairing_event(&mut cx, &pairing::Event::HubLeaving);
    }

    /// The hub may listen once no start is under way.
    fn starts_done(&mut self, now: Instant) {
        if self.machine.is_starting() && !self.intake.exchange_mut().parts().cluster.is_starting() {
            self.event(now, instance::Event::StartsDone);
        }
    }

    fn expire(&mut self, now: Instant, at: Instant, due: Due) {
        if due != Due::Hub {
            let (intake, mut cx) = self.split(now);
            intake.expire(&mut cx, at, due);
        } else if self.machine.expire(now, at) {
            self.perform(now);
        }
    }
}

#[cfg(test)]
mod tests;
