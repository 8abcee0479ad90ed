//! The hub itself: one realm's hub record, one UDP socket (docs/protocols/spn.md, Hub, HUB-1).
//!
//! Diagram: `docs/states/spn.hub.md`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::machine::{Actions, Describe, Machine, Timer, Timers};

/// Times of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long the starts of managed providers may hold up the first session, in milliseconds.
    pub start_ms: u32,
    /// How long sessions may take to end in a shutdown, in milliseconds.
    pub drain_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { start_ms: 10_000, drain_ms: 30_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Loading,
    /// Managed providers are being started.
    Starting,
    Listening,
    Draining,
    Stopped,
}

/// What happened to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its record and services are there: at start, or again after a reload.
    InventoryLoaded,
    /// They are not.
    LoadFailed,
    /// No start of a managed provider is under way: they are done, or failed, or there is none.
    StartsDone,
    /// A reload no longer has this hub; another may serve its endpoints.
    Removed,
    /// Its realm is disabled: nobody is to serve them.
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
    /// Accept no new session, and tell every session to leave.
    DrainSessions {
        /// How long they have.
        deadline_ms: u32,
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
    state: State,
    timers: Timers<HubTimer, 2>,
    actions: Actions<Action, 2>,
}

impl Instance {
    /// A hub that waits for its inventory.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, state: State::Loading, timers: Timers::default(), actions: Actions::default() }
    }

    /// Whether new work is accepted.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.state == State::Listening
    }

    /// Whether it will listen once its managed providers have started.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.state == State::Starting
    }

    /// How much of the drain time is left at `now`, in milliseconds; `None` unless it drains.
    #[must_use]
    pub fn drain_left_ms(&self, now: Instant) -> Option<u32> {
        let (due, HubTimer::Drain) = self.timers.next()? else { return None };
        Some(due.saturating_duration_since(now).as_millis() as u32)
    }

    fn loading(&mut self, now: Instant, event: Event) {
        match event {
            Event::InventoryLoaded => {
                self.state = State::Starting;
                self.timers.set(HubTimer::Start, now + Duration::from_millis(self.config.start_ms.into()));
                self.actions.push(Action::ApplyInventory);
            }
            Event::LoadFailed | Event::Removed | Event::Disabled | Event::Shutdown | Event::Stop => self.stopped(),
            Event::StartsDone | Event::AllSessionsGone => {}
        }
    }

    fn starting(&mut self, event: Event) {
        match event {
            Event::InventoryLoaded => self.actions.push(Action::ApplyInventory),
            Event::StartsDone => self.listen(),
            Event::Removed | Event::Disabled | Event::Shutdown | Event::Stop => self.stopped(),
            Event::LoadFailed | Event::AllSessionsGone => {}
        }
    }

    fn listening(&mut self, now: Instant, event: Event) {
        match event {
            Event::InventoryLoaded => self.actions.push(Action::ApplyInventory),
            Event::Removed | Event::Shutdown => self.drain(now, true),
            Event::Disabled => self.drain(now, false),
            Event::Stop => self.close_all(),
            // A failed reload changes nothing.
            Event::LoadFailed | Event::StartsDone | Event::AllSessionsGone => {}
        }
    }

    fn draining(&mut self, event: Event) {
        match event {
            Event::Shutdown | Event::Stop => self.close_all(),
            Event::AllSessionsGone => self.stopped(),
            Event::InventoryLoaded | Event::LoadFailed | Event::StartsDone | Event::Removed | Event::Disabled => {}
        }
    }

    fn listen(&mut self) {
        self.state = State::Listening;
        self.timers.stop_all();
        self.actions.push(Action::Listen);
    }

    fn drain(&mut self, now: Instant, resumable: bool) {
        self.state = State::Draining;
        self.timers.set(HubTimer::Drain, now + Duration::from_millis(self.config.drain_ms.into()));
        self.actions.push(Action::DrainSessions { deadline_ms: self.config.drain_ms, resumable });
    }

    fn close_all(&mut self) {
        self.actions.push(Action::CloseSessions);
        self.stopped();
    }

    fn stopped(&mut self) {
        self.state = State::Stopped;
        self.timers.stop_all();
        self.actions.push(Action::CloseSocket);
    }
}

impl Machine for Instance {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::Loading => self.loading(now, event),
            State::Starting => self.starting(event),
            State::Listening => self.listening(now, event),
            State::Draining => self.draining(event),
            State::Stopped => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self.timers.expire(now) {
            Some(HubTimer::Start) => self.listen(),
            Some(HubTimer::Drain) => self.close_all(),
            None => {}
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Describe for Instance {
    const NAME: &'static str = "spn.hub";
    const ABOUT: &'static str = "a hub: one realm's hub record, from loading to stopped";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(config)
    }

    fn state(&self) -> &'static str {
        match self.state {
            State::Loading => "Loading",
            State::Starting => "Starting",
            State::Listening => "Listening",
            State::Draining => "Draining",
            State::Stopped => "Stopped",
        }
    }

    fn due(&self) -> Option<&'static str> {
        self.timers.next().map(|(_, timer)| timer.name())
    }

    fn fingerprint(&self) -> String {
        format!("{:?} {:?}", self.state, self.timers.armed().collect::<Vec<_>>())
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
        match timed.iter().find(|(timer, state)| self.timers.is_set(*timer) != (self.state == *state)) {
            Some((timer, _)) => Err(format!("{}: deadline {}", self.state(), timer.name())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

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
        assert_eq!(actions, [Action::DrainSessions { deadline_ms: 30_000, resumable: true }]);
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
        let drain = Action::DrainSessions { deadline_ms: 30_000, resumable: false };
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
