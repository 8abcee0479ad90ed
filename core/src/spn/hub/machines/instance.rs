//! The hub itself: one realm's hub record, one UDP socket (docs/protocols/spn.md, Hub, HUB-1).
//!
//! Diagram: `docs/states/spn.hub.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::machine::{self, Automaton, Describe, Inspect as _, Parts, Timer};

/// Times of a hub. In JSON a duration is an integer whose name ends in `_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long the starts of managed providers may hold up the first session.
    #[serde(rename = "start_ms", with = "machine::ms")]
    pub start: Duration,
    /// How long sessions may take to end in a shutdown.
    #[serde(rename = "drain_ms", with = "machine::ms")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { start: Duration::from_secs(10), drain: Duration::from_secs(30) }
    }
}

/// The states of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// The inventory has not been read yet.
    Loading,
    /// Managed providers are being started.
    Starting,
    /// Sessions are accepted.
    Listening,
    /// Sessions have time to end; none is accepted.
    Draining,
    /// The hub has ended.
    #[default]
    Stopped,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Loading => "Loading",
            Self::Starting => "Starting",
            Self::Listening => "Listening",
            Self::Draining => "Draining",
            Self::Stopped => "Stopped",
        }
    }
}

/// What happened to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its record and services have been loaded: at start, or again after a reload.
    InventoryLoaded,
    /// Loading the inventory failed.
    LoadFailed,
    /// No start of a managed provider is under way: all are done or have failed.
    StartsDone,
    /// The reloaded inventory no longer has this hub; another may serve its endpoints.
    Removed,
    /// Its realm is disabled: no hub is to serve them.
    Disabled,
    /// SIGTERM.
    Shutdown,
    /// SIGINT.
    Stop,
    /// The last session has ended.
    AllSessionsGone,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Take what has been loaded: new handshakes and new decisions follow it, sessions that lost their right end, and managed providers that
    /// are to run are started.
    ApplyInventory,
    /// Accept sessions.
    Listen,
    /// Accept no new session, and notify every session that the hub leaves.
    DrainSessions {
        /// How long they have.
        #[serde(rename = "deadline_ms", with = "machine::ms")]
        deadline: Duration,
        /// Their connections are paused, to be resumed on another hub.
        resumable: bool,
    },
    /// Close every session that is left, with code 0.
    CloseSessions,
    /// The hub has ended: close the socket.
    CloseSocket,
}

/// The timers of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubTimer {
    /// Managed providers have had time to start.
    Start,
    /// End of a shutdown.
    Drain,
}

impl Timer for HubTimer {
    const ALL: &'static [Self] = &[Self::Start, Self::Drain];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Drain => "drain",
        }
    }
}

/// A hub's life.
#[derive(Debug, Clone)]
pub struct Instance {
    config: Config,
    parts: Parts<State, HubTimer, Action>,
}

impl Instance {
    /// A hub that waits for its inventory.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Loading) }
    }

    /// Whether new work is accepted.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        *self.parts.state() == State::Listening
    }

    /// Whether it will listen once its managed providers have started.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        *self.parts.state() == State::Starting
    }
}

impl Automaton for Instance {
    const NAME: &'static str = "spn.hub";
    type State = State;
    type Timer = HubTimer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, HubTimer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, HubTimer, Action> {
        &mut self.parts
    }

    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match state {
            State::Loading => self.loading(now, event),
            State::Starting => self.starting(event),
            State::Listening => self.listening(now, event),
            State::Draining => self.draining(event),
            State::Stopped => self.parts.ignore(state),
        }
    }

    fn on_timeout(&mut self, _now: Instant, _state: State, timer: HubTimer) -> State {
        match timer {
            HubTimer::Start => self.listen(),
            HubTimer::Drain => self.close_all(),
        }
    }
}

impl Instance {
    fn loading(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::InventoryLoaded => {
                self.parts.timers.set_after(HubTimer::Start, now, self.config.start);
                self.apply(State::Starting)
            }
            Event::LoadFailed | Event::Removed | Event::Disabled | Event::Shutdown | Event::Stop => self.stop(),
            Event::StartsDone | Event::AllSessionsGone => self.parts.ignore(State::Loading),
        }
    }

    fn starting(&mut self, event: Event) -> State {
        match event {
            Event::InventoryLoaded => self.apply(State::Starting),
            Event::StartsDone => self.listen(),
            Event::Removed | Event::Disabled | Event::Shutdown | Event::Stop => self.stop(),
            Event::LoadFailed | Event::AllSessionsGone => self.parts.ignore(State::Starting),
        }
    }

    fn listening(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::InventoryLoaded => self.apply(State::Listening),
            Event::Removed | Event::Shutdown => self.drain(now, true),
            Event::Disabled => self.drain(now, false),
            Event::Stop => self.close_all(),
            // A failed reload changes nothing.
            Event::LoadFailed | Event::StartsDone | Event::AllSessionsGone => self.parts.ignore(State::Listening),
        }
    }

    fn draining(&mut self, event: Event) -> State {
        match event {
            Event::Shutdown | Event::Stop => self.close_all(),
            Event::AllSessionsGone => self.stop(),
            Event::InventoryLoaded | Event::LoadFailed | Event::StartsDone | Event::Removed | Event::Disabled => {
                self.parts.ignore(State::Draining)
            }
        }
    }

    fn apply(&mut self, state: State) -> State {
        self.parts.act(Action::ApplyInventory);
        state
    }

    fn listen(&mut self) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::Listen);
        State::Listening
    }

    fn drain(&mut self, now: Instant, resumable: bool) -> State {
        self.parts.timers.set_after(HubTimer::Drain, now, self.config.drain);
        self.parts.act(Action::DrainSessions { deadline: self.config.drain, resumable });
        State::Draining
    }

    fn close_all(&mut self) -> State {
        self.parts.act(Action::CloseSessions);
        self.stop()
    }

    fn stop(&mut self) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::CloseSocket);
        State::Stopped
    }
}

impl Describe for Instance {
    const ABOUT: &'static str = "a hub: one realm's hub record, from loading to stopped";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn fingerprint(&self) -> String {
        self.parts.fingerprint()
    }

    fn alphabet() -> Vec<Event> {
        use Event as E;
        vec![
            E::InventoryLoaded,
            E::LoadFailed,
            E::StartsDone,
            E::Removed,
            E::Disabled,
            E::Shutdown,
            E::Stop,
            E::AllSessionsGone,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let timed = [(HubTimer::Start, State::Starting), (HubTimer::Drain, State::Draining)];
        let state = *self.parts.state();
        match timed.iter().find(|(timer, timed)| self.parts.timers.is_set(*timer) != (state == *timed)) {
            Some((timer, _)) => Err(format!("{}: deadline {}", self.state(), timer.name())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Machine as _, testing::first_instant};

    fn run(events: &[Event]) -> (Instance, Vec<Action>) {
        let (mut hub, now) = (Instance::new(Config::default()), first_instant());
        let mut actions = Vec::new();
        for event in events {
            hub.handle_event(now, event.clone());
            actions.extend(std::iter::from_fn(|| hub.poll_action()));
        }
        (hub, actions)
    }

    /// The events that make it listen.
    const UP: [Event; 2] = [Event::InventoryLoaded, Event::StartsDone];

    fn after_up(event: &[Event]) -> (Instance, Vec<Action>) {
        let (hub, actions) = run(&[&UP[..], event].concat());
        assert_eq!(actions[..2], [Action::ApplyInventory, Action::Listen]);
        (hub, actions[2..].to_vec())
    }

    #[test]
    fn it_listens_when_its_providers_have_started_or_had_time_to() {
        let (mut hub, now) = (Instance::new(Config::default()), first_instant());
        hub.handle_event(now, Event::InventoryLoaded);
        assert_eq!((hub.state(), hub.poll_action()), ("Starting", Some(Action::ApplyInventory)));
        let due = hub.poll_timeout().unwrap();
        assert_eq!(due, now + Duration::from_secs(10));
        hub.handle_timeout(due);
        assert_eq!((hub.state(), hub.poll_action(), hub.poll_timeout()), ("Listening", Some(Action::Listen), None));
        let (hub, actions) = run(&[Event::InventoryLoaded, Event::InventoryLoaded]);
        assert_eq!((hub.state(), actions.len()), ("Starting", 2), "a reload counts here, too");
    }

    #[test]
    fn it_may_end_before_it_has_listened() {
        for event in [Event::Shutdown, Event::Stop, Event::Removed, Event::Disabled] {
            let (hub, actions) = run(&[Event::InventoryLoaded, event]);
            assert_eq!((hub.state(), hub.poll_timeout()), ("Stopped", None));
            assert_eq!(actions, [Action::ApplyInventory, Action::CloseSocket]);
        }
    }

    #[test]
    fn a_shutdown_drains_and_then_closes_what_is_left() {
        let (mut hub, actions) = after_up(&[Event::Shutdown]);
        assert_eq!(actions, [Action::DrainSessions { deadline: Duration::from_secs(30), resumable: true }]);
        let due = hub.poll_timeout().unwrap();
        assert_eq!(due, first_instant().max(due), "in the future");
        hub.handle_timeout(due);
        assert_eq!(hub.poll_action(), Some(Action::CloseSessions));
        assert_eq!(hub.poll_action(), Some(Action::CloseSocket));
        assert_eq!((hub.state(), hub.poll_timeout()), ("Stopped", None));
    }

    #[test]
    fn a_disabled_realm_is_served_nowhere() {
        let (hub, actions) = after_up(&[Event::Disabled]);
        let drain = Action::DrainSessions { deadline: Duration::from_secs(30), resumable: false };
        assert_eq!((hub.state(), actions), ("Draining", vec![drain]));
    }

    #[test]
    fn an_empty_hub_stops_at_once_and_a_second_signal_hurries() {
        let (_, actions) = after_up(&[Event::Shutdown, Event::AllSessionsGone]);
        assert_eq!(actions.last(), Some(&Action::CloseSocket));
        let (_, actions) = after_up(&[Event::Shutdown, Event::Shutdown]);
        assert_eq!(actions[1..], [Action::CloseSessions, Action::CloseSocket]);
    }

    #[test]
    fn a_failed_reload_changes_nothing() {
        let (hub, actions) = after_up(&[Event::LoadFailed]);
        assert_eq!((hub.state(), actions.len()), ("Listening", 0));
    }
}
