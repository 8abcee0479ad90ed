//! The provider of a service that the hub starts and stops by a cluster manager (docs/protocols/spn.md, Starting and stopping providers, MNG-2 to MNG-11).
//!
//! Diagram: `docs/states/spn.managed_provider.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    machine::{Actions, Describe, Inspect, Machine, Timer, Timers},
    spn::hub::policy::availability::Availability,
};

/// When a provider is started and stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Start it when a consumer finds no provider.
    pub on_consumer: bool,
    /// Start it on the first payload.
    pub on_payload: bool,
    /// Stop it after so long without connections, in milliseconds, if it is started on demand; 0 is never.
    pub idle_ms: u64,
    /// Once started, it is expected to open its session within this, in milliseconds.
    pub join_ms: u32,
    /// A start that failed is tried again after this, in milliseconds; after twice as long the next time, up to 32 times.
    pub retry_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { on_consumer: true, on_payload: true, idle_ms: 60_000, join_ms: 60_000, retry_ms: 10_000 }
    }
}

impl Config {
    /// What the settings of a service say, with the defaults for all else.
    #[must_use]
    pub fn new(availability: &Availability) -> Self {
        Self {
            on_consumer: availability.on_consumer,
            on_payload: availability.on_payload,
            idle_ms: availability.idle_timeout_s.saturating_mul(1000),
            ..Self::default()
        }
    }

    fn is_on_demand(&self) -> bool {
        self.on_consumer || self.on_payload
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody provides the service, and nobody was asked to.
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
    /// It could not be started; not at once again.
    Failed {
        /// It is still to be started.
        wanted: bool,
    },
}

/// What happened to the provider, or to those that want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The inventory says for the first time, or says anew, that there is to be a provider.
    Loaded,
    /// A consumer's session has begun, and found no provider.
    ConsumerCame,
    /// PROVIDER_START, or the word `request_provider_start`.
    PayloadAnnounced,
    /// A connection has found no provider.
    ConnectionWaits,
    /// The schedule starts it.
    ScheduledStart,
    /// The schedule stops it.
    ScheduledStop,
    /// The cluster manager has done what it was asked for, or could not.
    ClusterDone {
        /// It has.
        ok: bool,
    },
    /// A provider's session has begun: the first.
    ProviderCame,
    /// The last session of a provider has ended.
    ProviderGone,
    /// There are connections, or such as may be resumed.
    Busy,
    /// There are none.
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
    /// Tell the service's consumers: PROVIDER_STOPPED, or the word `notify_provider_stopped`.
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
    state: State,
    /// A session of a provider is there.
    is_here: bool,
    /// It has connections, or such as may be resumed.
    is_busy: bool,
    /// Starts that failed in a row.
    failures: u32,
    timers: Timers<ManagedTimer>,
    actions: Actions<Action>,
}

impl ManagedProvider {
    /// A provider that does not run.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (timers, actions) = (Timers::default(), Actions::default());
        Self { config, state: State::Stopped, is_here: false, is_busy: false, failures: 0, timers, actions }
    }

    /// Takes new settings: they count from the next decision on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Whether a start is under way at the cluster manager.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    /// Whether nobody is here, and nothing is under way.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Whether a session of a provider is there.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// Whether it has connections, or such as may be resumed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether an event asks for a provider, and the settings let it.
    fn is_wanted(&self, event: Event) -> bool {
        match event {
            Event::Loaded => !self.config.is_on_demand(),
            Event::ConsumerCame => self.config.on_consumer,
            Event::PayloadAnnounced => self.config.on_payload,
            // It is a payload, and its consumer has found no provider.
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

    fn stopped(&mut self, now: Instant, event: Event) {
        if event == Event::ProviderCame {
            self.run(now);
        } else if event == Event::ScheduledStop {
            // It may run without having found the hub.
            self.stop();
        } else if self.is_wanted(event) {
            self.start();
        }
    }

    fn starting(&mut self, now: Instant, unwanted: bool, event: Event) {
        match event {
            Event::ClusterDone { ok: true } if unwanted => self.stop(),
            Event::ClusterDone { ok: true } if !self.is_here => {
                self.state = State::Joining;
                self.arm(now, ManagedTimer::Join, self.config.join_ms.into());
            }
            // If the start failed, somebody else has been faster.
            Event::ClusterDone { .. } if self.is_here => self.run(now),
            Event::ClusterDone { .. } if unwanted => self.state = State::Stopped,
            Event::ClusterDone { .. } => {
                let wait = u64::from(self.config.retry_ms) << self.failures;
                self.failures = MAX_DOUBLINGS.min(self.failures + 1);
                // One that runs from the load on is wanted by nobody in particular.
                self.state = State::Failed { wanted: !self.config.is_on_demand() };
                self.arm(now, ManagedTimer::Retry, wait);
            }
            Event::ScheduledStop => self.state = State::Starting { unwanted: true },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => {
                if self.is_wanted(event) {
                    self.state = State::Starting { unwanted: false };
                }
            }
            Event::ProviderCame | Event::ProviderGone | Event::Busy | Event::Idle => {}
        }
    }

    fn joining(&mut self, now: Instant, event: Event) {
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
            | Event::Idle => {}
        }
    }

    fn running(&mut self, now: Instant, event: Event) {
        match event {
            Event::ProviderGone => {
                self.timers.stop_all();
                self.state = State::Stopped;
            }
            // Its cluster manager tells it, and it retires: connections have time to end.
            Event::ScheduledStop => self.stop(),
            Event::Busy => self.timers.stop_all(),
            Event::Idle => self.run(now),
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart
            | Event::ClusterDone { .. }
            | Event::ProviderCame => {}
        }
    }

    fn stopping(&mut self, now: Instant, wanted: bool, event: Event) {
        match event {
            Event::ClusterDone { ok } => {
                if ok {
                    self.actions.push(Action::TellStopped);
                }
                if self.is_here {
                    self.run(now);
                } else if wanted {
                    self.start();
                } else {
                    self.state = State::Stopped;
                }
            }
            Event::ScheduledStop => self.state = State::Stopping { wanted: false },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => {
                self.state = State::Stopping { wanted: wanted || self.is_wanted(event) };
            }
            // It was told to go, and may come back until the cluster manager is done.
            Event::ProviderCame | Event::ProviderGone | Event::Busy | Event::Idle => {}
        }
    }

    fn failed(&mut self, now: Instant, wanted: bool, event: Event) {
        match event {
            Event::ProviderCame => self.run(now),
            Event::ScheduledStop => self.state = State::Failed { wanted: false },
            Event::Loaded
            | Event::ConsumerCame
            | Event::PayloadAnnounced
            | Event::ConnectionWaits
            | Event::ScheduledStart => {
                self.state = State::Failed { wanted: wanted || self.is_wanted(event) };
            }
            Event::ClusterDone { .. } | Event::ProviderGone | Event::Busy | Event::Idle => {}
        }
    }

    fn arm(&mut self, now: Instant, timer: ManagedTimer, ms: u64) {
        self.timers.set(timer, now + Duration::from_millis(ms));
    }

    fn start(&mut self) {
        self.state = State::Starting { unwanted: false };
        self.actions.push(Action::ClusterStart);
    }

    /// A provider is here.
    fn run(&mut self, now: Instant) {
        self.timers.stop_all();
        self.failures = 0;
        self.state = State::Running;
        if !self.is_busy && self.config.is_on_demand() && self.config.idle_ms > 0 {
            self.arm(now, ManagedTimer::Idle, self.config.idle_ms);
        }
    }

    fn stop(&mut self) {
        self.timers.stop_all();
        self.state = State::Stopping { wanted: false };
        self.actions.push(Action::ClusterStop);
    }
}

impl Machine for ManagedProvider {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
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
        match self.state {
            State::Stopped => self.stopped(now, event),
            State::Starting { unwanted } => self.starting(now, unwanted, event),
            State::Joining => self.joining(now, event),
            State::Running => self.running(now, event),
            State::Stopping { wanted } => self.stopping(now, wanted, event),
            State::Failed { wanted } => self.failed(now, wanted, event),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.timers.expire(now) {
            match (timer, self.state) {
                (ManagedTimer::Idle, _) => {
                    self.actions.push(Action::CloseProviders);
                    self.stop();
                }
                (ManagedTimer::Retry, State::Failed { wanted: true }) => self.start(),
                // Who waits for it asks again.
                (ManagedTimer::Join | ManagedTimer::Retry, _) => self.state = State::Stopped,
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Inspect for ManagedProvider {
    const NAME: &'static str = "spn.managed_provider";

    fn state(&self) -> &'static str {
        match self.state {
            State::Stopped => "Stopped",
            State::Starting { .. } => "Starting",
            State::Joining => "Joining",
            State::Running => "Running",
            State::Stopping { .. } => "Stopping",
            State::Failed { .. } => "Failed",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| timer.name())
    }

    fn is_overrun(&self) -> bool {
        self.actions.is_overrun()
    }
}

impl Describe for ManagedProvider {
    const ABOUT: &'static str =
        "a provider that the hub has started and stopped: at load, on demand, on schedule, when idle";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    // Times that can be told apart.
    fn small() -> Config {
        Config { idle_ms: 30_000, ..Config::default() }
    }

    fn fingerprint(&self) -> String {
        let facts = (self.is_here, self.is_busy, self.failures);
        format!("{:?} {facts:?} {:?}", self.state, self.timers.armed().collect::<Vec<_>>())
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
        let timer = match self.state {
            State::Joining => Some(ManagedTimer::Join),
            State::Failed { .. } => Some(ManagedTimer::Retry),
            State::Running if !self.is_busy && self.config.is_on_demand() && self.config.idle_ms > 0 => {
                Some(ManagedTimer::Idle)
            }
            // The cluster manager answers.
            State::Stopped | State::Starting { .. } | State::Running | State::Stopping { .. } => None,
        };
        if self.timers.armed().collect::<Vec<_>>() != timer.map(Timer::name).into_iter().collect::<Vec<_>>() {
            return Err(format!("{}: deadline is {:?}", self.state(), self.due()));
        }
        let may_be_here = match self.state {
            State::Stopped | State::Joining | State::Failed { .. } => !self.is_here,
            State::Running => self.is_here,
            State::Starting { .. } | State::Stopping { .. } => true,
        };
        if may_be_here { Ok(()) } else { Err(format!("{}, and is_here is {}", self.state(), self.is_here)) }
    }
}

#[cfg(test)]
mod tests;
