//! A session, as the hub sees it (docs/protocols/spn.md, Hub session, ADM-1).
//!
//! Whether an endpoint is admitted is decided by the registry (`policy/registry.rs`) and arrives here as an event; this machine decides what follows
//! from it.
//!
//! Diagram: `docs/states/spn.hub_session.md`.

mod describe;
mod events;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::events::{Action, Event, SessionTimer};
use super::connection::Loss;
use crate::{
    machine::{self, Automaton, Parts},
    spn::{Protocol, record::TerminateReason, wire::code::SessionCode},
};

/// Times of a session on a hub. In JSON a duration is an integer whose name ends in `_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// SESSION_OPEN must come within this after the handshake.
    #[serde(rename = "open_timeout_ms", with = "machine::ms")]
    pub open_timeout: Duration,
    /// After SESSION_REJECT or SESSION_CLOSE the endpoint closes; if not, we do after this.
    #[serde(rename = "close_wait_ms", with = "machine::ms")]
    pub close_wait: Duration,
    /// How long a singleton's new provider waits for a sign of life of the old one.
    #[serde(rename = "hold_ms", with = "machine::ms")]
    pub hold: Duration,
    /// How long a consumer may wait for the first provider of its service: after a hub's restart they come in any order.
    #[serde(rename = "provider_wait_ms", with = "machine::ms")]
    pub provider_wait: Duration,
    /// The retry-after for a consumer whose service has no provider.
    #[serde(rename = "no_provider_retry_ms", with = "machine::ms")]
    pub no_provider_retry: Duration,
    /// The retry-after for a singleton's second provider.
    #[serde(rename = "occupied_retry_ms", with = "machine::ms")]
    pub occupied_retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            open_timeout: Duration::from_secs(10),
            close_wait: Duration::from_secs(3),
            hold: Duration::from_secs(3),
            provider_wait: Duration::from_secs(1),
            no_provider_retry: Duration::from_secs(1),
            occupied_retry: Duration::from_secs(5),
        }
    }
}

/// The states of a session on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// TLS is not done.
    Handshaking,
    /// `sc02`: SESSION_OPEN has not come.
    AwaitOpen,
    /// A singleton's second provider, while the first is asked for a sign of life.
    Held {
        /// What it speaks.
        protocol: Protocol,
        /// Its weight, once it is admitted.
        weight: u16,
    },
    /// A consumer, while its service has no provider.
    Early {
        /// Its weight, once it is admitted.
        weight: u16,
    },
    /// New connections may be put on it.
    Active {
        /// What it speaks.
        protocol: Protocol,
        /// It has reported that it has no connections left (DRAINED).
        drained: bool,
    },
    /// Weight 0: no new connections.
    Retiring {
        /// What it speaks.
        protocol: Protocol,
        /// It has reported that it has no connections left (DRAINED).
        drained: bool,
    },
    /// The hub is leaving.
    Draining {
        /// What it speaks.
        protocol: Protocol,
    },
    /// We have sent the last frame, and the endpoint closes.
    Closing {
        /// With this code; so do we if it does not.
        code: SessionCode,
    },
    /// It is over.
    #[default]
    Closed,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Handshaking => "Handshaking",
            Self::AwaitOpen => "AwaitOpen",
            Self::Held { .. } => "Held",
            Self::Early { .. } => "Early",
            Self::Active { .. } => "Active",
            Self::Retiring { .. } => "Retiring",
            Self::Draining { .. } => "Draining",
            Self::Closing { .. } => "Closing",
            Self::Closed => "Closed",
        }
    }
}

impl State {
    fn of_weight(protocol: Protocol, weight: u16) -> Self {
        match weight {
            0 => Self::Retiring { protocol, drained: false },
            _ => Self::Active { protocol, drained: false },
        }
    }

    /// Whether an endpoint that leaves leaves in good order: it has reported that it has nothing left, or was asked to leave.
    fn is_in_order(self) -> bool {
        matches!(
            self,
            Self::Active { drained: true, .. } | Self::Retiring { drained: true, .. } | Self::Draining { .. }
        )
    }

    /// Why an endpoint left: of its own accord, or because the hub is leaving.
    fn left(self) -> TerminateReason {
        if matches!(self, Self::Draining { .. }) {
            TerminateReason::Shutdown
        } else {
            TerminateReason::TerminatedByPeer
        }
    }
}

/// The weight of a provider that has set none (PRV-11).
const DEFAULT_WEIGHT: u16 = 100;

/// A session on the hub.
#[derive(Debug, Clone)]
pub struct HubSession {
    config: Config,
    parts: Parts<State, SessionTimer, Action>,
}

impl HubSession {
    /// A session whose handshake has begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, parts: Parts::new(State::Handshaking) }
    }

    /// Whether new connections may be put on it (for a provider: unless its weight is 0).
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.parts.state(), State::Active { .. })
    }

    /// Whether it has begun and not ended.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.parts.state(), State::Active { .. } | State::Retiring { .. } | State::Draining { .. })
    }

    /// Whether SESSION_OPEN is still to come.
    #[must_use]
    pub fn awaits_open(&self) -> bool {
        *self.parts.state() == State::AwaitOpen
    }

    /// Whether it waits for a singleton's first provider.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.parts.state(), State::Held { .. })
    }

    /// Whether it waits for the first provider of its service.
    #[must_use]
    pub fn is_early(&self) -> bool {
        matches!(self.parts.state(), State::Early { .. })
    }

    /// Whether it is over, but for QUIC's own end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.parts.state(), State::Closing { .. } | State::Closed)
    }
}

impl Automaton for HubSession {
    const NAME: &'static str = "spn.hub_session";
    type State = State;
    type Timer = SessionTimer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, SessionTimer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, SessionTimer, Action> {
        &mut self.parts
    }

    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match state {
            State::Handshaking => self.handshaking(now, event),
            State::AwaitOpen => self.await_open(now, event),
            State::Held { protocol, weight } => self.held(now, event, protocol, weight),
            State::Early { weight } => self.early(now, event, weight),
            State::Active { protocol, .. } | State::Retiring { protocol, .. } | State::Draining { protocol } => {
                self.established(now, event, state, protocol)
            }
            State::Closing { code } => self.closing(event, code),
            State::Closed => self.parts.ignore(State::Closed),
        }
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: SessionTimer) -> State {
        match (timer, state) {
            (SessionTimer::Open, State::AwaitOpen) => self.close(SessionCode::OPEN_TIMEOUT),
            (SessionTimer::Hold, State::Held { protocol, weight }) => {
                self.parts.act(Action::EvictIncumbent);
                self.begin(protocol, weight)
            }
            (SessionTimer::Provider, State::Early { .. }) => self.reject(now, SessionCode::NO_PROVIDER),
            (SessionTimer::Close, State::Closing { code }) => self.close(code),
            // A state's timer is stopped when the state is left.
            (SessionTimer::Open | SessionTimer::Hold | SessionTimer::Provider | SessionTimer::Close, state) => state,
        }
    }
}

impl HubSession {
    fn handshaking(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::ExtendedHandshake => {
                self.parts.timers.set_after(SessionTimer::Open, now, self.config.open_timeout);
                State::AwaitOpen
            }
            Event::LegacyAdmitted => self.begin(Protocol::Sc01, DEFAULT_WEIGHT),
            Event::LegacyRefused { code } => self.close(code),
            Event::LegacyOccupied => self.hold(now, Protocol::Sc01, DEFAULT_WEIGHT),
            Event::HubDraining { .. } | Event::HubStopping => self.close(SessionCode::OK),
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
            | Event::SessionClose { .. } => self.parts.ignore(State::Handshaking),
        }
    }

    fn await_open(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::OpenAdmitted { weight } => self.begin(Protocol::Sc02, weight),
            Event::OpenRefused { code } => self.reject(now, code),
            Event::OpenOccupied { weight } => self.hold(now, Protocol::Sc02, weight),
            Event::OpenEarly { weight } => self.wait(now, weight),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Any other frame before SESSION_OPEN.
            Event::SetWeight { .. } => self.close(SessionCode::MALFORMED),
            Event::HubDraining { .. } => self.reject(now, SessionCode::HUB_REMOVED),
            Event::HubStopping => self.close(SessionCode::OK),
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
            | Event::Idle => self.parts.ignore(State::AwaitOpen),
        }
    }

    fn held(&mut self, now: Instant, event: Event, protocol: Protocol, weight: u16) -> State {
        match event {
            Event::IncumbentGone => self.begin(protocol, weight),
            Event::IncumbentAlive => self.refuse(now, protocol, SessionCode::SINGLETON_OCCUPIED),
            Event::EntitlementLost => self.refuse(now, protocol, SessionCode::NOT_ENTITLED),
            Event::HubDraining { .. } => self.refuse(now, protocol, SessionCode::HUB_REMOVED),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Frames before SESSION_ACK (a second SESSION_OPEN is one of them).
            Event::SetWeight { .. }
            | Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => self.close(SessionCode::MALFORMED),
            Event::Replaced | Event::HubStopping => self.close(SessionCode::OK),
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::ProviderCame
            | Event::NotifyShutdown
            | Event::Drained
            | Event::Idle => self.parts.ignore(State::Held { protocol, weight }),
        }
    }

    fn early(&mut self, now: Instant, event: Event, weight: u16) -> State {
        match event {
            Event::ProviderCame => self.begin(Protocol::Sc02, weight),
            Event::EntitlementLost => self.reject(now, SessionCode::NOT_ENTITLED),
            Event::HubDraining { .. } => self.reject(now, SessionCode::HUB_REMOVED),
            Event::ControlViolation { code } | Event::SessionClose { code } => self.close(code),
            // Frames before SESSION_ACK (a second SESSION_OPEN is one of them).
            Event::SetWeight { .. }
            | Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => self.close(SessionCode::MALFORMED),
            Event::HubStopping => self.close(SessionCode::OK),
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
            | Event::Idle => self.parts.ignore(State::Early { weight }),
        }
    }

    /// Active, Retiring and Draining take the same.
    fn established(&mut self, now: Instant, event: Event, state: State, protocol: Protocol) -> State {
        match event {
            Event::SetWeight { weight } => self.set_weight(state, protocol, weight),
            Event::NotifyShutdown => self.retire(state),
            Event::Drained => self.drained(state),
            Event::HubDraining { deadline, resumable } => self.drain(state, protocol, deadline, resumable),
            Event::EntitlementLost => self.end_by_frame(now, protocol, SessionCode::NOT_ENTITLED, Loss::Left),
            Event::Replaced | Event::Idle => self.end_by_frame(now, protocol, SessionCode::OK, Loss::Away),
            Event::HubStopping => self.end(SessionCode::OK, TerminateReason::Shutdown),
            Event::ControlViolation { code } => self.end(code, TerminateReason::Error),
            // A second SESSION_OPEN.
            Event::OpenAdmitted { .. }
            | Event::OpenRefused { .. }
            | Event::OpenOccupied { .. }
            | Event::OpenEarly { .. } => self.end(SessionCode::MALFORMED, TerminateReason::Error),
            // The receiver of SESSION_CLOSE closes, with its code: the sender's own close would overtake its frame.
            Event::SessionClose { code } => {
                let loss = if state.is_in_order() && code == SessionCode::OK { Loss::Drained } else { leaving(code) };
                self.parts.act(Action::End { reason: state.left(), loss });
                self.close(code)
            }
            Event::ClosedByPeer { code } => self.ended(state.left(), leaving(code)),
            Event::Lost => self.ended(TerminateReason::Error, Loss::Away),
            Event::ExtendedHandshake
            | Event::LegacyAdmitted
            | Event::LegacyRefused { .. }
            | Event::LegacyOccupied
            | Event::ProviderCame
            | Event::IncumbentAlive
            | Event::IncumbentGone => self.parts.ignore(state),
        }
    }

    fn closing(&mut self, event: Event, code: SessionCode) -> State {
        match event {
            Event::ClosedByPeer { .. } | Event::Lost => self.closed(),
            Event::HubStopping => self.close(SessionCode::OK),
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
            | Event::SessionClose { .. } => self.parts.ignore(State::Closing { code }),
        }
    }

    fn begin(&mut self, protocol: Protocol, weight: u16) -> State {
        self.parts.timers.stop_all();
        if protocol == Protocol::Sc02 {
            self.parts.act(Action::SendAck);
        }
        self.parts.act(Action::Begin { weight });
        State::of_weight(protocol, weight)
    }

    fn hold(&mut self, now: Instant, protocol: Protocol, weight: u16) -> State {
        self.parts.timers.stop_all();
        self.parts.timers.set_after(SessionTimer::Hold, now, self.config.hold);
        self.parts.act(Action::ProbeIncumbent);
        State::Held { protocol, weight }
    }

    fn wait(&mut self, now: Instant, weight: u16) -> State {
        self.parts.timers.stop_all();
        self.parts.timers.set_after(SessionTimer::Provider, now, self.config.provider_wait);
        State::Early { weight }
    }

    fn set_weight(&mut self, state: State, protocol: Protocol, weight: u16) -> State {
        self.parts.act(Action::SetWeight { weight });
        self.parts.act(Action::SendWeightAck { weight });
        if matches!(state, State::Draining { .. }) { state } else { State::of_weight(protocol, weight) }
    }

    fn retire(&mut self, state: State) -> State {
        let State::Active { protocol, drained } = state else { return self.parts.ignore(state) };
        self.parts.act(Action::SetWeight { weight: 0 });
        State::Retiring { protocol, drained }
    }

    fn drained(&mut self, state: State) -> State {
        match state {
            State::Active { protocol, .. } => State::Active { protocol, drained: true },
            State::Retiring { protocol, .. } => State::Retiring { protocol, drained: true },
            // An endpoint that leaves a leaving hub always does so in good order.
            State::Draining { .. } => state,
            State::Handshaking
            | State::AwaitOpen
            | State::Held { .. }
            | State::Early { .. }
            | State::Closing { .. }
            | State::Closed => self.parts.ignore(state),
        }
    }

    fn drain(&mut self, state: State, protocol: Protocol, deadline: Duration, resumable: bool) -> State {
        if matches!(state, State::Draining { .. }) {
            return self.parts.ignore(state);
        }
        self.parts.act(match protocol {
            Protocol::Sc02 => Action::SendShutdown { deadline, resumable },
            Protocol::Sc01 => Action::SendNotifyShutdown,
        });
        State::Draining { protocol }
    }

    /// Refuses with SESSION_REJECT, for which `sc01` has only the close.
    fn refuse(&mut self, now: Instant, protocol: Protocol, code: SessionCode) -> State {
        match protocol {
            Protocol::Sc02 => self.reject(now, code),
            Protocol::Sc01 => self.close(code),
        }
    }

    fn reject(&mut self, now: Instant, code: SessionCode) -> State {
        let retry_after = match code {
            SessionCode::NO_PROVIDER => self.config.no_provider_retry,
            SessionCode::SINGLETON_OCCUPIED => self.config.occupied_retry,
            _ => Duration::ZERO,
        };
        self.parts.act(Action::SendReject { code, retry_after });
        self.await_close(now, code)
    }

    /// Ends an established session by SESSION_CLOSE, for which `sc01` has only the close.
    fn end_by_frame(&mut self, now: Instant, protocol: Protocol, code: SessionCode, loss: Loss) -> State {
        let end = Action::End { reason: TerminateReason::Shutdown, loss };
        match protocol {
            Protocol::Sc02 => {
                self.parts.act(Action::SendClose { code });
                self.parts.act(end);
                self.await_close(now, code)
            }
            Protocol::Sc01 => {
                self.parts.act(end);
                self.close(code)
            }
        }
    }

    fn await_close(&mut self, now: Instant, code: SessionCode) -> State {
        self.parts.timers.stop_all();
        self.parts.timers.set_after(SessionTimer::Close, now, self.config.close_wait);
        State::Closing { code }
    }

    fn end(&mut self, code: SessionCode, reason: TerminateReason) -> State {
        self.parts.act(Action::End { reason, loss: Loss::Away });
        self.close(code)
    }

    fn ended(&mut self, reason: TerminateReason, loss: Loss) -> State {
        self.parts.act(Action::End { reason, loss });
        self.closed()
    }

    fn close(&mut self, code: SessionCode) -> State {
        self.parts.act(Action::Close { code });
        self.closed()
    }

    fn closed(&mut self) -> State {
        self.parts.timers.stop_all();
        State::Closed
    }
}

/// The loss that a close with this code means: 0 is the wish of the endpoint's user, any other code concerns only it and this hub.
fn leaving(code: SessionCode) -> Loss {
    if matches!(code, SessionCode::OK | SessionCode::NOT_ENTITLED) { Loss::Left } else { Loss::Away }
}

#[cfg(test)]
mod tests;
