//! A session, as the hub sees it (docs/protocols/spn.md, Hub session, ADM-1).
//!
//! Whether an endpoint may come in is judged by the registry (`policy/registry.rs`) and arrives here as an event; this machine decides what follows from it.
//!
//! Diagram: `docs/states/spn.hub_session.md`.

mod describe;
mod events;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::events::{Action, Event, SessionTimer};
use super::connection::Loss;
use crate::{
    machine::{Actions, Machine, Timers},
    spn::{Protocol, record::TerminateReason, wire::code},
};

/// Times of a session on a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// SESSION_OPEN must come within this after the handshake, in milliseconds.
    pub open_timeout_ms: u32,
    /// After SESSION_REJECT or SESSION_CLOSE the endpoint closes; if not, we do after this, in milliseconds.
    pub close_wait_ms: u32,
    /// How long a singleton's new provider waits for a sign of life of the old one, in milliseconds.
    pub hold_ms: u32,
    /// How long a consumer is let wait for the first provider of its service, in milliseconds: after a hub's restart they come in any order.
    pub provider_wait_ms: u32,
    /// What a consumer is told to wait when its service has no provider, in milliseconds.
    pub no_provider_retry_ms: u32,
    /// What a singleton's second provider is told to wait, in milliseconds.
    pub occupied_retry_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            open_timeout_ms: 10_000,
            close_wait_ms: 3_000,
            hold_ms: 3_000,
            provider_wait_ms: 1_000,
            no_provider_retry_ms: 1_000,
            occupied_retry_ms: 5_000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// TLS is not done.
    Handshaking,
    /// `sc02`: SESSION_OPEN has not come.
    AwaitOpen,
    /// A singleton's second provider, while the first is asked whether it lives.
    Held {
        protocol: Protocol,
        weight: u16,
    },
    /// A consumer, while its service has no provider.
    Early {
        weight: u16,
    },
    Active {
        protocol: Protocol,
    },
    /// Weight 0: no new connections.
    Retiring {
        protocol: Protocol,
    },
    /// The hub is leaving.
    Draining {
        protocol: Protocol,
    },
    /// We have said the last word, and the endpoint closes.
    Closing {
        code: u64,
    },
    Closed,
}

/// The weight of a provider that has not said any (PRV-11).
const DEFAULT_WEIGHT: u16 = 100;

/// A session on the hub.
#[derive(Debug, Clone)]
pub struct HubSession {
    config: Config,
    state: State,
    /// A provider that retires has said that it has no connection left.
    drained: bool,
    timers: Timers<SessionTimer>,
    actions: Actions<Action>,
}

impl HubSession {
    /// A session whose handshake has begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (timers, actions) = (Timers::default(), Actions::default());
        Self { config, state: State::Handshaking, drained: false, timers, actions }
    }

    /// Whether new connections may be put on it (for a provider: unless its weight is 0).
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// Whether it has begun and not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Active { .. } | State::Retiring { .. } | State::Draining { .. })
    }

    /// Whether SESSION_OPEN is still to come.
    #[must_use]
    pub fn awaits_open(&self) -> bool {
        matches!(self.state, State::AwaitOpen)
    }

    /// Whether it waits for a singleton's first provider.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// Whether it waits for the first provider of its service.
    #[must_use]
    pub fn is_early(&self) -> bool {
        matches!(self.state, State::Early { .. })
    }

    /// Whether it is over, but for QUIC's own end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closing { .. } | State::Closed)
    }

    fn handshaking(&mut self, now: Instant, event: Event) {
        match event {
            Event::ExtendedHandshake => {
                self.state = State::AwaitOpen;
                self.arm(now, SessionTimer::Open, self.config.open_timeout_ms);
            }
            Event::LegacyAdmitted => self.begin(Protocol::Sc01, DEFAULT_WEIGHT),
            Event::LegacyRefused { code } => self.close(code),
            Event::LegacyOccupied => self.hold(now, Protocol::Sc01, DEFAULT_WEIGHT),
            Event::HubDraining { .. } | Event::HubStopping => self.close(code::OK),
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. }
            | Event::ProviderCame
            | Event::IncumbentAlive
            | Event::IncumbentGone
            | Event::ControlViolation { .. }
            | Event::SetWeight { .. }
            | Event::NotifyShutdown
            | Event::Drained
            | Event::EntitlementLost
            | Event::Replaced
            | Event::Idle
            | Event::SessionClose { .. } => {}
        }
    }

    fn await_open(&mut self, now: Instant, event: Event) {
        match event {
            Event::OpenAdmitted { weight } => self.begin(Protocol::Sc02, weight),
            Event::OpenRefused { code } => self.reject(now, code),
            Event::OpenOccupied { weight } => self.hold(now, Protocol::Sc02, weight),
            Event::OpenEarly { weight } => self.wait(now, weight),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Any other frame before SESSION_OPEN.
            Event::SetWeight { .. } => self.close(code::MALFORMED),
            Event::HubDraining { .. } => self.reject(now, code::HUB_REMOVED),
            Event::HubStopping => self.close(code::OK),
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::ProviderCame
            | Event::IncumbentAlive
            | Event::IncumbentGone
            | Event::NotifyShutdown
            | Event::Drained
            | Event::EntitlementLost
            | Event::Replaced
            | Event::Idle => {}
        }
    }

    fn held(&mut self, now: Instant, protocol: Protocol, weight: u16, event: Event) {
        match event {
            Event::IncumbentGone => self.begin(protocol, weight),
            Event::IncumbentAlive => self.refuse(now, protocol, code::SINGLETON_OCCUPIED),
            Event::EntitlementLost => self.refuse(now, protocol, code::NOT_ENTITLED),
            Event::HubDraining { .. } => self.refuse(now, protocol, code::HUB_REMOVED),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Frames before SESSION_ACK (a second SESSION_OPEN is one of them).
            Event::SetWeight { .. }
            | Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => self.close(code::MALFORMED),
            Event::Replaced | Event::HubStopping => self.close(code::OK),
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::ProviderCame
            | Event::NotifyShutdown
            | Event::Drained
            | Event::Idle => {}
        }
    }

    fn early(&mut self, now: Instant, weight: u16, event: Event) {
        match event {
            Event::ProviderCame => self.begin(Protocol::Sc02, weight),
            Event::EntitlementLost => self.reject(now, code::NOT_ENTITLED),
            Event::HubDraining { .. } => self.reject(now, code::HUB_REMOVED),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Frames before SESSION_ACK (a second SESSION_OPEN is one of them).
            Event::SetWeight { .. }
            | Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => self.close(code::MALFORMED),
            Event::HubStopping => self.close(code::OK),
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::IncumbentAlive
            | Event::IncumbentGone
            | Event::NotifyShutdown
            | Event::Drained
            | Event::Replaced
            | Event::Idle => {}
        }
    }

    /// Active, Retiring and Draining.
    fn established(&mut self, now: Instant, protocol: Protocol, event: Event) {
        match event {
            Event::SetWeight { weight } => self.set_weight(protocol, weight),
            Event::NotifyShutdown => self.retire(protocol),
            Event::Drained => self.drained = true,
            Event::HubDraining { deadline_ms, resumable } => self.drain(protocol, deadline_ms, resumable),
            Event::EntitlementLost => self.end_by_frame(now, protocol, code::NOT_ENTITLED, Loss::Left),
            Event::Replaced | Event::Idle => self.end_by_frame(now, protocol, code::OK, Loss::Away),
            Event::HubStopping => self.end(code::OK, TerminateReason::Shutdown),
            Event::ControlViolation { code } => self.end(code, TerminateReason::Error),
            // A second SESSION_OPEN.
            Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => {
                self.end(code::MALFORMED, TerminateReason::Error);
            }
            // The receiver of SESSION_CLOSE closes, with its code: the sender's own close would overtake its frame.
            Event::SessionClose { code } => {
                let in_order = self.drained || matches!(self.state, State::Draining { .. });
                let loss = if in_order && code == code::OK { Loss::Drained } else { leaving(code) };
                self.actions.push(Action::End { reason: self.left(), loss });
                self.close(code);
            }
            Event::ClosedByPeer { code } => self.ended(self.left(), leaving(code)),
            Event::Lost => self.ended(TerminateReason::Error, Loss::Away),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::ProviderCame
            | Event::IncumbentAlive
            | Event::IncumbentGone => {}
        }
    }

    fn closing(&mut self, event: &Event) {
        match event {
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::HubStopping => self.close(code::OK),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. }
            | Event::ProviderCame
            | Event::IncumbentAlive
            | Event::IncumbentGone
            | Event::ControlViolation { .. }
            | Event::SetWeight { .. }
            | Event::NotifyShutdown
            | Event::Drained
            | Event::EntitlementLost
            | Event::Replaced
            | Event::Idle
            | Event::HubDraining { .. }
            | Event::SessionClose { .. } => {}
        }
    }

    fn arm(&mut self, now: Instant, timer: SessionTimer, ms: u32) {
        self.timers.set(timer, now + Duration::from_millis(ms.into()));
    }

    fn begin(&mut self, protocol: Protocol, weight: u16) {
        self.timers.stop_all();
        self.state = match weight {
            0 => State::Retiring { protocol },
            _ => State::Active { protocol },
        };
        if protocol == Protocol::Sc02 {
            self.actions.push(Action::SendAck);
        }
        self.actions.push(Action::Begin { weight });
    }

    fn hold(&mut self, now: Instant, protocol: Protocol, weight: u16) {
        self.timers.stop_all();
        self.state = State::Held { protocol, weight };
        self.arm(now, SessionTimer::Hold, self.config.hold_ms);
        self.actions.push(Action::ProbeIncumbent);
    }

    fn wait(&mut self, now: Instant, weight: u16) {
        self.timers.stop_all();
        self.state = State::Early { weight };
        self.arm(now, SessionTimer::Provider, self.config.provider_wait_ms);
    }

    fn set_weight(&mut self, protocol: Protocol, weight: u16) {
        self.drained = false;
        if !matches!(self.state, State::Draining { .. }) {
            self.state = if weight == 0 { State::Retiring { protocol } } else { State::Active { protocol } };
        }
        self.actions.push(Action::SetWeight { weight });
        self.actions.push(Action::SendWeightAck { weight });
    }

    fn retire(&mut self, protocol: Protocol) {
        if self.is_active() {
            self.state = State::Retiring { protocol };
            self.actions.push(Action::SetWeight { weight: 0 });
        }
    }

    fn drain(&mut self, protocol: Protocol, deadline_ms: u32, resumable: bool) {
        if matches!(self.state, State::Draining { .. }) {
            return;
        }
        self.state = State::Draining { protocol };
        self.actions.push(match protocol {
            Protocol::Sc02 => Action::SendShutdown { deadline_ms, resumable },
            Protocol::Sc01 => Action::SendNotifyShutdown,
        });
    }

    /// Refuses with SESSION_REJECT, for which `sc01` has only the close.
    fn refuse(&mut self, now: Instant, protocol: Protocol, code: u64) {
        match protocol {
            Protocol::Sc02 => self.reject(now, code),
            Protocol::Sc01 => self.close(code),
        }
    }

    fn reject(&mut self, now: Instant, code: u64) {
        let retry_after_ms = match code {
            code::NO_PROVIDER => self.config.no_provider_retry_ms,
            code::SINGLETON_OCCUPIED => self.config.occupied_retry_ms,
            _ => 0,
        };
        self.actions.push(Action::SendReject { code, retry_after_ms });
        self.await_close(now, code);
    }

    /// Ends an established session by SESSION_CLOSE, for which `sc01` has only the close.
    fn end_by_frame(&mut self, now: Instant, protocol: Protocol, code: u64, loss: Loss) {
        let end = Action::End { reason: TerminateReason::Shutdown, loss };
        match protocol {
            Protocol::Sc02 => {
                self.actions.push(Action::SendClose { code });
                self.actions.push(end);
                self.await_close(now, code);
            }
            Protocol::Sc01 => {
                self.actions.push(end);
                self.close(code);
            }
        }
    }

    /// Why an endpoint left: of its own accord, or because the hub is leaving.
    fn left(&self) -> TerminateReason {
        if matches!(self.state, State::Draining { .. }) {
            TerminateReason::Shutdown
        } else {
            TerminateReason::TerminatedByPeer
        }
    }

    fn await_close(&mut self, now: Instant, code: u64) {
        self.timers.stop_all();
        self.state = State::Closing { code };
        self.arm(now, SessionTimer::Close, self.config.close_wait_ms);
    }

    fn end(&mut self, code: u64, reason: TerminateReason) {
        self.actions.push(Action::End { reason, loss: Loss::Away });
        self.close(code);
    }

    fn ended(&mut self, reason: TerminateReason, loss: Loss) {
        self.actions.push(Action::End { reason, loss });
        self.closed();
    }

    fn close(&mut self, code: u64) {
        self.actions.push(Action::Close { code });
        self.closed();
    }

    fn closed(&mut self) {
        self.timers.stop_all();
        self.state = State::Closed;
    }
}

/// What it means that an endpoint has closed its session with a code: 0 is its user's wish, everything else is between it and this hub.
fn leaving(code: u64) -> Loss {
    if matches!(code, code::OK | code::NOT_ENTITLED) { Loss::Left } else { Loss::Away }
}

impl Machine for HubSession {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::Handshaking => self.handshaking(now, event),
            State::AwaitOpen => self.await_open(now, event),
            State::Held { protocol, weight } => self.held(now, protocol, weight, event),
            State::Early { weight } => self.early(now, weight, event),
            State::Active { protocol } | State::Retiring { protocol } | State::Draining { protocol } => {
                self.established(now, protocol, event);
            }
            State::Closing { .. } => self.closing(&event),
            State::Closed => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.timers.expire(now) {
            match (timer, self.state) {
                (SessionTimer::Open, _) => self.close(code::OPEN_TIMEOUT),
                (SessionTimer::Hold, State::Held { protocol, weight }) => {
                    self.actions.push(Action::EvictIncumbent);
                    self.begin(protocol, weight);
                }
                (SessionTimer::Provider, _) => self.reject(now, code::NO_PROVIDER),
                (SessionTimer::Close, State::Closing { code }) => self.close(code),
                (SessionTimer::Hold | SessionTimer::Close, _) => {}
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

#[cfg(test)]
mod tests;
