//! The session of an endpoint with one hub address (docs/protocols/spn.md, Endpoint session, EPS-1).
//!
//! It dials, asks for the session, tries again after losses, and leaves in order. One machine lives as long as its address is wanted:
//! Closed and Failed are final, and an address that is wanted again gets a new machine.
//!
//! What `sc01` says by control datagrams and `sc02` by frames is one event here; the binding translates.
//!
//! Diagram: `docs/states/spn.endpoint_session.md`.

mod config;
mod describe;
mod ends;
mod events;
mod retry;
mod state;
#[cfg(test)]
mod tests;
mod weight;

use std::time::{Duration, Instant};

pub use self::{
    config::Config,
    events::{Action, Event, SessionTimer},
    state::{Closing, Live, State},
};
use crate::{
    machine::{Automaton, Jitter, Parts},
    spn::{Protocol, Role, wire::code::SessionCode},
};

/// A session's life.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    parts: Parts<State, SessionTimer, Action>,
    /// A consumer, until `connect` says what.
    role: Role,
    /// The weight wanted.
    weight: u16,
    /// This provider has asked for weight 0: the session ends when nothing needs it any more.
    retired: bool,
    /// The endpoint ends: so does the session when nothing needs it any more, and at the deadline.
    leaving: bool,
    needed: bool,
    /// Tries since the last success.
    retries: u32,
    jitter: Jitter,
}

impl Session {
    /// A session that is not wanted yet. `seed` scatters its tries.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            role: Role::Consumer,
            weight: config.weight,
            config,
            parts: Parts::new(State::IpFound),
            retired: false,
            leaving: false,
            needed: false,
            retries: 0,
            jitter: Jitter::new(seed),
        }
    }

    /// Whether it is there, and connections that wait for a session may use it.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.parts.state().is_established()
    }

    /// Whether SESSION_OPEN is on its way.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.parts.state(), State::SessionConnecting { asked: Some(_) })
    }
}

impl Automaton for Session {
    const NAME: &'static str = "spn.endpoint_session";
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
        if let Event::Needed { needed } = event {
            self.needed = needed;
        }
        let was_established = state.is_established();
        let next = match state {
            State::IpFound | State::Waiting | State::Reserve => self.idle(now, event, state),
            State::SessionConnecting { asked } => self.session_connecting(now, event, asked),
            State::Established(live) => self.established(now, event, live),
            State::Closing(closing) => self.closing(now, event, closing),
            State::Closed | State::Failed => self.parts.ignore(state),
        };
        self.call_reserve(was_established, next)
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: SessionTimer) -> State {
        use SessionTimer as T;
        let was_established = state.is_established();
        let next = match (timer, state) {
            (T::Handshake, State::SessionConnecting { .. }) => {
                self.close_and_try_again(now, SessionCode::OK, Duration::ZERO)
            }
            (T::Ack, State::SessionConnecting { .. }) => {
                self.close_and_try_again(now, SessionCode::OPEN_TIMEOUT, Duration::ZERO)
            }
            (T::Retry, State::Waiting) if self.is_spent() => self.end(State::Failed),
            (T::Retry, State::Waiting) if self.is_done() => self.end(State::Closed),
            (T::Retry, State::Waiting) => self.dial(now),
            (T::Settled, State::Established(_)) => {
                self.retries = 0;
                state
            }
            (T::Closing, State::Closing(closing)) => self.leave_behind(now, closing),
            // The endpoint has waited for long enough.
            (T::Closing, State::Established(live)) => {
                self.parts.act(Action::Hide);
                self.leave_behind(now, Closing { live, left: false, signalled: true })
            }
            (T::Closing, State::SessionConnecting { .. }) => self.abort(State::Closed),
            (T::Closing, State::IpFound | State::Waiting | State::Reserve) => self.end(State::Closed),
            (T::Linger, State::Closing(Closing { live, left: true, .. })) => self.force(now, live, SessionCode::OK),
            (T::Reserve, State::Reserve) => self.dial(now),
            // `Linger` before the last connection's end: the control datagram has had its time. The others are stopped with their state.
            (
                T::Handshake | T::Ack | T::Retry | T::Settled | T::Closing | T::Linger | T::Reserve,
                State::IpFound
                | State::SessionConnecting { .. }
                | State::Waiting
                | State::Reserve
                | State::Established(_)
                | State::Closing(_)
                | State::Closed
                | State::Failed,
            ) => state,
        };
        self.call_reserve(was_established, next)
    }
}

impl Session {
    /// Whatever ends an established session: the hub may have other addresses (ADR-5). A machine that is over says so itself.
    fn call_reserve(&mut self, was_established: bool, next: State) -> State {
        if was_established && !next.is_established() && !matches!(next, State::Closed | State::Failed) {
            self.parts.act(Action::CallReserve);
        }
        next
    }

    /// IPFound, Waiting and Reserve: there is nothing but the wish.
    fn idle(&mut self, now: Instant, event: Event, state: State) -> State {
        match event {
            // The back-off of Waiting is for the sake of a hub that has trouble: it is kept.
            Event::Connect { role } if matches!(state, State::IpFound) => {
                self.role = role;
                self.dial(now)
            }
            Event::Connect { .. } if matches!(state, State::Reserve) => self.dial(now),
            Event::Elsewhere if matches!(state, State::Waiting) => self.reserve(now),
            Event::AddressLost => self.end(State::Failed),
            Event::LocalShutdown if self.outlives_shutdown(now) => state,
            Event::LocalShutdown => self.end(State::Closed),
            Event::SetWeight { weight } => {
                self.set_weight(weight);
                if self.is_done() { self.end(State::Closed) } else { state }
            }
            Event::Needed { .. } if self.is_done() => self.end(State::Closed),
            Event::Needed { .. } => state,
            Event::Connect { .. }
            | Event::Connected { .. }
            | Event::SessionAck { .. }
            | Event::SessionReject { .. }
            | Event::SessionShutdown { .. }
            | Event::SessionClose { .. }
            | Event::SessionState { .. }
            | Event::ProviderStopped
            | Event::SetWeightAck { .. }
            | Event::Violation { .. }
            | Event::Lost
            | Event::ConnectionOpened
            | Event::ConnectionEnded
            | Event::Elsewhere => self.parts.ignore(state),
        }
    }

    /// Before the handshake's end nothing is asked; then SESSION_OPEN is on its way.
    fn session_connecting(&mut self, now: Instant, event: Event, asked: Option<u16>) -> State {
        let state = State::SessionConnecting { asked };
        match (event, asked) {
            (Event::Connected { protocol }, None) => self.ask(now, protocol),
            (Event::SessionAck { standby }, Some(asked)) => {
                self.parts.timers.stop(SessionTimer::Ack);
                self.retries = 0;
                self.establish(Protocol::Sc02, standby, asked)
            }
            // The receiver of REJECT and CLOSE closes QUIC: a close by the sender would overtake its own frame (Control stream).
            (Event::SessionReject { code, retry_after }, Some(_)) => self.close_and_try_again(now, code, retry_after),
            (Event::SessionClose { code } | Event::Violation { code }, Some(_)) => {
                self.close_and_try_again(now, code, Duration::ZERO)
            }
            (Event::SessionShutdown { .. }, Some(_)) => self.close_and_try_again(now, SessionCode::OK, Duration::ZERO),
            // No other frame may come before the session exists.
            (Event::SessionState { .. } | Event::ProviderStopped | Event::SetWeightAck { .. }, Some(_)) => {
                self.close_and_try_again(now, SessionCode::MALFORMED, Duration::ZERO)
            }
            (Event::Lost, _) => self.try_again(now, Duration::ZERO),
            (Event::Elsewhere, _) => self.abort_to_reserve(now),
            (Event::AddressLost, _) => self.abort(State::Failed),
            (Event::LocalShutdown, _) if self.outlives_shutdown(now) => state,
            (Event::LocalShutdown, _) => self.abort(State::Closed),
            (Event::SetWeight { weight }, _) => {
                self.set_weight(weight);
                if self.is_done() { self.abort(State::Closed) } else { state }
            }
            (Event::Needed { .. }, _) if self.is_done() => self.abort(State::Closed),
            (Event::Needed { .. }, _) => state,
            (
                Event::Connect { .. }
                | Event::Connected { .. }
                | Event::SessionAck { .. }
                | Event::SessionReject { .. }
                | Event::SessionShutdown { .. }
                | Event::SessionClose { .. }
                | Event::SessionState { .. }
                | Event::ProviderStopped
                | Event::SetWeightAck { .. }
                | Event::Violation { .. }
                | Event::ConnectionOpened
                | Event::ConnectionEnded,
                _,
            ) => self.parts.ignore(state),
        }
    }

    fn established(&mut self, now: Instant, event: Event, mut live: Live) -> State {
        match event {
            Event::ConnectionOpened => {
                if live.start_armed {
                    self.parts.act(Action::SendProviderStart);
                }
                State::Established(Live { open: live.open.saturating_add(1), start_armed: false, ..live })
            }
            Event::ConnectionEnded => self.go_on(now, Live { open: live.open.saturating_sub(1), ..live }),
            Event::Needed { .. } => self.go_on(now, live),
            Event::SetWeight { weight } if self.role == Role::Provider => {
                self.set_weight(weight);
                if live.protocol == Protocol::Sc02 {
                    live = self.weigh(Live { retiring: self.retired, ..live });
                }
                self.go_on(now, live)
            }
            Event::SetWeightAck { weight } => {
                let live = self.weigh(Live { in_force: weight, weighing: false, ..live });
                self.go_on(now, live)
            }
            Event::SessionState { standby } => {
                if live.standby != standby {
                    self.parts.act(Action::State { standby });
                }
                State::Established(Live { standby, ..live })
            }
            Event::ProviderStopped => State::Established(Live { start_armed: self.role == Role::Consumer, ..live }),
            Event::SessionShutdown { deadline } => self.follow_hub(now, live, deadline),
            Event::AddressLost => self.move_away(now, live),
            Event::Elsewhere if live.protocol == Protocol::Sc02 => self.move_away(now, Live { surplus: true, ..live }),
            Event::LocalShutdown if self.leaving => self.force(now, live, SessionCode::OK),
            Event::LocalShutdown => {
                self.start_closing(now, Live { resumes: live.protocol == Protocol::Sc02, ..live }, true)
            }
            Event::Lost => {
                self.parts.act(Action::SessionLost);
                self.wait(now, Duration::ZERO)
            }
            Event::SessionClose { code } | Event::Violation { code } => self.break_off(now, code),
            Event::SessionAck { .. } | Event::SessionReject { .. } => self.break_off(now, SessionCode::MALFORMED),
            Event::Connect { .. } | Event::Connected { .. } | Event::SetWeight { .. } | Event::Elsewhere => {
                self.parts.ignore(State::Established(live))
            }
        }
    }

    fn closing(&mut self, now: Instant, event: Event, mut closing: Closing) -> State {
        let live = closing.live;
        match event {
            // What was on its way when the hub heard of the end.
            Event::ConnectionOpened => {
                closing.live.open = live.open.saturating_add(1);
                State::Closing(closing)
            }
            Event::ConnectionEnded => {
                closing.live.open = live.open.saturating_sub(1);
                self.drain(now, closing)
            }
            Event::SetWeightAck { weight } if !closing.left => {
                closing.live = self.weigh(Live { in_force: weight, weighing: false, ..live });
                self.drain(now, closing)
            }
            // The endpoint, or the address, is not wanted: nothing stays in reserve.
            Event::LocalShutdown if !closing.signalled => {
                closing.live.surplus = false;
                closing.signalled = true;
                State::Closing(closing)
            }
            Event::LocalShutdown => self.force(now, live, SessionCode::OK),
            Event::AddressLost => {
                closing.live.surplus = false;
                State::Closing(closing)
            }
            // For the session that may follow out of the reserve.
            Event::SetWeight { weight } => {
                self.set_weight(weight);
                State::Closing(closing)
            }
            Event::SessionClose { code } | Event::Violation { code } => self.force(now, live, code),
            Event::SessionAck { .. } | Event::SessionReject { .. } => self.force(now, live, SessionCode::MALFORMED),
            Event::Lost => {
                self.lose(live);
                self.over(now, live)
            }
            // The hub goes, too: what waits cannot go on here.
            Event::SessionShutdown { .. } if live.resumes => {
                closing.live.resumes = false;
                self.drain(now, closing)
            }
            Event::Needed { .. } => self.drain(now, closing),
            Event::Connect { .. }
            | Event::Connected { .. }
            | Event::SessionShutdown { .. }
            | Event::SessionState { .. }
            | Event::ProviderStopped
            | Event::SetWeightAck { .. }
            | Event::Elsewhere => self.parts.ignore(State::Closing(closing)),
        }
    }

    fn ask(&mut self, now: Instant, protocol: Protocol) -> State {
        match protocol {
            Protocol::Sc02 => {
                self.parts.timers.stop(SessionTimer::Handshake);
                self.parts.timers.set_after(SessionTimer::Ack, now, self.config.ack);
                let weight = self.wanted();
                self.parts.act(Action::SendSessionOpen { weight });
                State::SessionConnecting { asked: Some(weight) }
            }
            // What waits cannot go on there, and nothing else may begin.
            Protocol::Sc01 if self.leaving => self.close_and_try_again(now, SessionCode::OK, Duration::ZERO),
            // `sc01` has no answer, and a refusal comes after the handshake's end: this success is provisional (Legacy protocol, TLS).
            Protocol::Sc01 => {
                self.parts.timers.stop(SessionTimer::Handshake);
                self.parts.timers.set_after(SessionTimer::Settled, now, self.config.settled);
                self.establish(Protocol::Sc01, false, self.weight)
            }
        }
    }

    fn establish(&mut self, protocol: Protocol, standby: bool, said: u16) -> State {
        self.parts.act(Action::Established { standby });
        State::Established(self.weigh(Live {
            protocol,
            open: 0,
            standby,
            start_armed: self.role == Role::Consumer,
            said,
            in_force: said,
            weighing: false,
            retiring: (self.retired || (self.leaving && self.role == Role::Provider)) && protocol == Protocol::Sc02,
            moving: false,
            surplus: false,
            resumes: false,
        }))
    }
}
