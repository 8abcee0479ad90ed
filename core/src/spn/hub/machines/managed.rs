//! The provider of a service that the hub starts and stops by a cluster manager (docs/protocols/spn.md, Starting and stopping providers, MNG-2 to MNG-11).
//!
//! Diagram: `docs/states/spn.managed_provider.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::machine::{self, Automaton, Describe, Inspect as _, Parts, Timer};

/// When a provider is started and stopped. In JSON a duration is an integer whose name ends in `_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Start it when a consumer finds no provider.
    pub on_consumer: bool,
    /// Start it on the first payload.
    pub on_payload: bool,
    /// Stop it after so long without connections, if it is started on demand; 0 is never.
    #[serde(rename = "idle_ms", with = "machine::ms")]
    pub idle: Duration,
    /// Once started, it is expected to open its session within this.
    #[serde(rename = "join_ms", with = "machine::ms")]
    pub join: Duration,
    /// A start that failed is tried again after this; after twice as long the next time, up to 32 times.
    #[serde(rename = "retry_ms", with = "machine::ms")]
    pub retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            on_consumer: true,
            on_payload: true,
            idle: Duration::from_secs(60),
            join: Duration::from_secs(60),
            retry: Duration::from_secs(10),
        }
    }
}

impl Config {
    fn is_on_demand(&self) -> bool {
        self.on_consumer || self.on_payload
    }

    /// Whether a provider without connections is ever stopped.
    fn ends_idle(&self) -> bool {
        self.is_on_demand() && !self.idle.is_zero()
    }
}

/// The states of a managed provider. None of them is final: its service may always need it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No provider is here, and none was started.
    #[default]
    Stopped,
    /// The cluster manager starts it.
    Starting {
        /// It is to be stopped again at once.
        unwanted: bool,
    },
    /// It has been started, and has yet to open its session.
    Joining,
    /// It is here.
    Running,
    /// The cluster manager stops it.
    Stopping {
        /// It is to be started again at once.
        wanted: bool,
    },
    /// The start failed; the next one comes later.
    Failed {
        /// It is still to be started.
        wanted: bool,
    },
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Starting { .. } => "Starting",
            Self::Joining => "Joining",
            Self::Running => "Running",
            Self::Stopping { .. } => "Stopping",
            Self::Failed { .. } => "Failed",
        }
    }
}

/// What happened to the provider, or to those that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The inventory has a managed provider for the first time, or with changed settings.
    Loaded,
    /// A consumer's session has begun, and found no provider.
    ConsumerCame,
    /// PROVIDER_START, or the control datagram `request_provider_start`.
    PayloadAnnounced,
    /// A connection has found no provider.
    ConnectionWaits,
    /// The schedule starts it.
    ScheduledStart,
    /// The schedule stops it.
    ScheduledStop,
    /// The cluster manager has done its task, or has failed.
    ClusterDone {
        /// It has done it.
        ok: bool,
    },
    /// A provider's session has begun: the first.
    ProviderCame,
    /// The last session of a provider has ended.
    ProviderGone,
    /// There are connections, or requests to resume some.
    Busy,
    /// There are neither connections nor requests to resume.
    Idle,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Have the cluster manager start it.
    ClusterStart,
    /// Have the cluster manager stop it.
    ClusterStop,
    /// Close the sessions of the service's providers, with code 0.
    CloseProviders,
    /// Send the service's consumers PROVIDER_STOPPED, or the control datagram `notify_provider_stopped`.
    TellStopped,
}

/// The timers of a managed provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedTimer {
    /// Its session is due.
    Join,
    /// A failed start may be tried again.
    Retry,
    /// It has been without connections for too long.
    Idle,
}

impl Timer for ManagedTimer {
    const ALL: &'static [Self] = &[Self::Join, Self::Retry, Self::Idle];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Retry => "retry",
            Self::Idle => "idle",
        }
    }
}

/// So many failures in a row still double the time until the next start.
const MAX_DOUBLINGS: u32 = 5;

/// A provider that the hub starts and stops.
#[derive(Debug, Clone)]
pub struct ManagedProvider {
    config: Config,
    /// A session of a provider is there.
    is_here: bool,
    /// It has connections, or requests to resume some.
    is_busy: bool,
    /// Starts that failed in a row.
    failures: u32,
    parts: Parts<State, ManagedTimer, Action>,
}

impl ManagedProvider {
    /// A provider that does not run.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, is_here: false, is_busy: false, failures: 0, parts: Parts::new(State::Stopped) }
    }

    /// Takes new settings: they count from the next decision on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Whether a start is under way at the cluster manager.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(self.parts.state(), State::Starting { .. })
    }

    /// Whether no provider is here, and no start or stop is under way.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.parts.state() == State::Stopped
    }

    /// Whether a session of a provider is there.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// Whether it has connections, or requests to resume some.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

impl Automaton for ManagedProvider {
    const NAME: &'static str = "spn.managed_provider";
    type State = State;
    type Timer = ManagedTimer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, ManagedTimer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, ManagedTimer, Action> {
        &mut self.parts
    }

    // Whether a provider is here, and has connections, is noted in every state.
    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match event {
            Event::ProviderCame => self.is_here = true,
            Event::ProviderGone => (self.is_here, self.is_busy) = (false, false),
            Event::Busy => self.is_busy = true,
            Event::Idle => self.is_busy = false,
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
            | Event::ScheduledStop
            | Event::ClusterDone { .. } => {}
        }
        match state {
            State::Stopped => self.stopped(now, event),
            State::Starting { unwanted } => self.starting(now, event, unwanted),
            State::Joining => self.joining(now, event),
            State::Running => self.running(now, event),
            State::Stopping { wanted } => self.stopping(now, event, wanted),
            State::Failed { wanted } => self.failed(now, event, wanted),
        }
    }

    fn on_timeout(&mut self, _now: Instant, state: State, timer: ManagedTimer) -> State {
        match (timer, state) {
            (ManagedTimer::Idle, State::Running) => {
                self.parts.act(Action::CloseProviders);
                self.stop()
            }
            (ManagedTimer::Retry, State::Failed { wanted: true }) => self.start(),
            // Those that wait for it ask again.
            (ManagedTimer::Join, State::Joining) | (ManagedTimer::Retry, State::Failed { wanted: false }) => {
                State::Stopped
            }
            // A state's timer is stopped when the state is left.
            (ManagedTimer::Join | ManagedTimer::Retry | ManagedTimer::Idle, state) => state,
        }
    }
}

impl ManagedProvider {
    fn stopped(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::ProviderCame => self.run(now),
            // It may run without having found the hub.
            Event::ScheduledStop => self.stop(),
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
                if self.is_wanted(event) =>
            {
                self.start()
            }
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
            | Event::ClusterDone { .. }
            | Event::ProviderGone
            | Event::Busy
            | Event::Idle => self.parts.ignore(State::Stopped),
        }
    }

    fn starting(&mut self, now: Instant, event: Event, unwanted: bool) -> State {
        match event {
            Event::ClusterDone { ok: true } if unwanted => self.stop(),
            // If the start failed, it was started by other means before.
            Event::ClusterDone { .. } if self.is_here => self.run(now),
            Event::ClusterDone { ok: true } => {
                self.parts.timers.set_after(ManagedTimer::Join, now, self.config.join);
                State::Joining
            }
            Event::ClusterDone { ok: false } if unwanted => State::Stopped,
            Event::ClusterDone { ok: false } => self.fail(now),
            Event::ScheduledStop => State::Starting { unwanted: true },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => State::Starting { unwanted: unwanted && !self.is_wanted(event) },
            // The cluster manager's answer decides.
            Event::ProviderCame | Event::ProviderGone | Event::Busy | Event::Idle => State::Starting { unwanted },
        }
    }

    fn joining(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::ProviderCame => self.run(now),
            Event::ScheduledStop => self.stop(),
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
            | Event::ClusterDone { .. }
            | Event::ProviderGone
            | Event::Busy
            | Event::Idle => self.parts.ignore(State::Joining),
        }
    }

    fn running(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::ProviderGone => {
                self.parts.timers.stop_all();
                State::Stopped
            }
            // Its cluster manager signals it, and it retires: connections have time to end.
            Event::ScheduledStop => self.stop(),
            Event::Busy => {
                self.parts.timers.stop_all();
                State::Running
            }
            Event::Idle => self.run(now),
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
            | Event::ClusterDone { .. }
            | Event::ProviderCame => self.parts.ignore(State::Running),
        }
    }

    fn stopping(&mut self, now: Instant, event: Event, wanted: bool) -> State {
        match event {
            Event::ClusterDone { ok } => {
                if ok {
                    self.parts.act(Action::TellStopped);
                }
                match (self.is_here, wanted) {
                    (true, _) => self.run(now),
                    (false, true) => self.start(),
                    (false, false) => State::Stopped,
                }
            }
            Event::ScheduledStop => State::Stopping { wanted: false },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => State::Stopping { wanted: wanted || self.is_wanted(event) },
            // It was asked to leave, and may come back until the cluster manager is done.
            Event::ProviderCame | Event::ProviderGone | Event::Busy | Event::Idle => State::Stopping { wanted },
        }
    }

    fn failed(&mut self, now: Instant, event: Event, wanted: bool) -> State {
        match event {
            Event::ProviderCame => self.run(now),
            Event::ScheduledStop => State::Failed { wanted: false },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => State::Failed { wanted: wanted || self.is_wanted(event) },
            Event::ClusterDone { .. } | Event::ProviderGone | Event::Busy | Event::Idle => {
                self.parts.ignore(State::Failed { wanted })
            }
        }
    }

    /// Whether an event asks for a provider, and the settings permit a start.
    fn is_wanted(&self, event: Event) -> bool {
        match event {
            Event::Loaded => !self.config.is_on_demand(),
            Event::ConsumerCame => self.config.on_consumer,
            Event::PayloadAnnounced => self.config.on_payload,
            // A connection counts as payload; its consumer has found no provider.
            Event::ConnectionWaits => self.config.is_on_demand(),
            Event::ScheduledStart => true,
            Event::ScheduledStop
            | Event::ClusterDone { .. }
            | Event::ProviderCame
            | Event::ProviderGone
            | Event::Busy
            | Event::Idle => false,
        }
    }

    fn start(&mut self) -> State {
        self.parts.act(Action::ClusterStart);
        State::Starting { unwanted: false }
    }

    fn fail(&mut self, now: Instant) -> State {
        let wait = self.config.retry.saturating_mul(1 << self.failures);
        self.failures = MAX_DOUBLINGS.min(self.failures + 1);
        self.parts.timers.set_after(ManagedTimer::Retry, now, wait);
        // One that runs from the load on is not started on demand.
        State::Failed { wanted: !self.config.is_on_demand() }
    }

    /// A provider is here.
    fn run(&mut self, now: Instant) -> State {
        self.parts.timers.stop_all();
        self.failures = 0;
        if !self.is_busy && self.config.ends_idle() {
            self.parts.timers.set_after(ManagedTimer::Idle, now, self.config.idle);
        }
        State::Running
    }

    fn stop(&mut self) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::ClusterStop);
        State::Stopping { wanted: false }
    }
}

impl Describe for ManagedProvider {
    const ABOUT: &'static str =
        "a provider that the hub has started and stopped: at load, on demand, on schedule, when idle";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    // Times that differ.
    fn small() -> Config {
        Config { idle: Duration::from_secs(30), ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let facts = (self.is_here, self.is_busy, self.failures);
        format!("{facts:?} {}", self.parts.fingerprint())
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        vec![
            E::Loaded,
            E::ConsumerCame,
            E::PayloadAnnounced,
            E::ConnectionWaits,
            E::ScheduledStart,
            E::ScheduledStop,
            E::ClusterDone { ok: true },
            E::ClusterDone { ok: false },
            E::ProviderCame,
            E::ProviderGone,
            E::Busy,
            E::Idle,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let timer = match self.parts.state() {
            State::Joining => Some(ManagedTimer::Join),
            State::Failed { .. } => Some(ManagedTimer::Retry),
            State::Running if !self.is_busy && self.config.ends_idle() => Some(ManagedTimer::Idle),
            // The cluster manager answers.
            State::Stopped | State::Starting { .. } | State::Running | State::Stopping { .. } => None,
        };
        if !self.parts.timers.armed().eq(timer.map(Timer::name)) {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        let may_be_here = match self.parts.state() {
            State::Stopped | State::Joining | State::Failed { .. } => !self.is_here,
            State::Running => self.is_here,
            State::Starting { .. } | State::Stopping { .. } => true,
        };
        if may_be_here { Ok(()) } else { Err(format!("{}, and is_here is {}", self.state(), self.is_here)) }
    }
}

#[cfg(test)]
mod tests;
