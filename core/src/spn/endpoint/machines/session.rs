//! The session of an endpoint with one hub address (docs/protocols/spn.md, Endpoint session, EPS-1).
//!
//! It dials, asks for the session, tries again after losses, and leaves in order. One machine lives as long as its address is wanted:
//! Closed and Failed are final, and an address that is wanted again gets a new machine.
//!
//! What `sc01` says by words and `sc02` by frames is one event here; the binding translates.

mod config;
mod describe;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use config::Config;

use crate::{
    machine::{Actions, Inspect, Jitter, Machine, Timers},
    spn::{Protocol, Role, wire::code},
};

#[derive(Debug, Clone, Copy)]
enum State {
    /// The address is known.
    IpFound,
    /// QUIC handshake; then SESSION_OPEN is unanswered, which asked for a weight.
    SessionConnecting { asked: Option<u16> },
    /// Until the next try.
    Waiting,
    /// The hub behind the address has a session with this endpoint by another address: nothing is open here.
    Reserve,
    /// Connections may use it.
    Established(Live),
    /// No new connections. `left`: the last one is gone and the end is on its way.
    /// `signalled`: a local shutdown asked for it, so another one forces it.
    Closing { live: Live, left: bool, signalled: bool },
    /// Over.
    Closed,
    /// Given up.
    Failed,
}

/// A session that carries connections.
#[derive(Debug, Clone, Copy)]
struct Live {
    protocol: Protocol,
    /// Connections on it.
    open: u32,
    standby: bool,
    /// The next connection is announced by `request_provider_start`.
    start_armed: bool,
    /// The weight that was said last.
    said: u16,
    /// The weight that the hub has confirmed last.
    in_force: u16,
    /// A SET_WEIGHT is unanswered.
    weighing: bool,
    /// This provider asked for weight 0: DRAINED and SESSION_CLOSE follow the last connection.
    retiring: bool,
    /// Its connections go on elsewhere: SESSION_CLOSE may overtake their resets, so it says the same.
    moving: bool,
    /// The address stays in reserve when the session has ended.
    surplus: bool,
    /// It drains for the endpoint's end, and may be used by connections that have lost another session.
    resumes: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Event {
    /// The host wants the session: at first, and when the one is lost for which the address was in reserve.
    Connect { role: Role },
    /// QUIC handshake done; the ALPN value names the protocol.
    Connected { protocol: Protocol },
    /// SESSION_ACK; `standby`: not for new connections.
    SessionAck { standby: bool },
    /// SESSION_REJECT: why, and how long not to try again.
    SessionReject { code: u64, retry_after_ms: u64 },
    /// SESSION_SHUTDOWN or the word `notify_shutdown`: how long connections may drain (0: as configured).
    SessionShutdown { deadline_ms: u64 },
    /// SESSION_CLOSE.
    SessionClose { code: u64 },
    /// SESSION_STATE, or the words `notify_standby` and `notify_active`.
    SessionState { standby: bool },
    /// PROVIDER_STOPPED or the word `notify_provider_stopped`: the next connection announces itself again.
    ProviderStopped,
    /// SET_WEIGHT_ACK: the weight now in force.
    SetWeightAck { weight: u16 },
    /// The hub broke the protocol, as the codec saw; the code is what it is closed with.
    Violation { code: u64 },
    /// QUIC was closed by the hub, lost, or never established.
    Lost,
    /// DNS lists the address no more.
    AddressLost,
    /// The host asks for another weight; 0 retires a provider.
    SetWeight { weight: u16 },
    /// The host shuts down: connections may drain, and what waits for a session gets one until then. The second time at once.
    LocalShutdown,
    /// A connection is about to use the session.
    ConnectionOpened,
    /// A connection of the session is over.
    ConnectionEnded,
    /// Connections of the endpoint wait for any session, or no longer.
    Needed { needed: bool },
    /// The hub has a newer session with this endpoint by another address.
    Elsewhere,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Action {
    /// Start a QUIC connection to the address.
    Dial,
    /// Send SESSION_OPEN with this weight.
    SendSessionOpen { weight: u16 },
    /// Connections may use it; not new ones while `standby`.
    Established { standby: bool },
    /// It went to stand-by, or back.
    State { standby: bool },
    /// Open no new connections on it.
    Hide,
    /// Grant the hub no more streams.
    RefuseStreams,
    /// Send `request_provider_start`: PROVIDER_START or the word.
    SendProviderStart,
    /// Take the connections that can be resumed off the session: they go on on another one.
    MoveAway,
    /// Send SET_WEIGHT.
    SendSetWeight { weight: u16 },
    /// Send DRAINED.
    SendDrained,
    /// Send the word `notify_shutdown`.
    SendNotifyShutdown,
    /// Send SESSION_CLOSE.
    SendSessionClose { code: u64 },
    /// The connections on it have lost their session.
    SessionLost,
    /// Close QUIC with this code; what that QUIC connection says from now on is of no interest.
    Close { code: u64 },
    /// The next try comes after that time.
    Waiting { retry_ms: u64 },
    /// The address is in reserve.
    Reserved,
    /// Final: it ended in order.
    Closed,
    /// Final: it was given up.
    Failed,
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    Handshake,
    Ack,
    Retry,
    Settled,
    Closing,
    Linger,
    Reserve,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    state: State,
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
    timers: Timers<Timer>,
    actions: Actions<Action>,
}

impl Machine for Session {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        if let Event::Needed { needed } = event {
            self.needed = needed;
        }
        match self.state {
            State::IpFound | State::Waiting | State::Reserve => self.on_idle(now, &event),
            State::SessionConnecting { asked: None } => self.on_dialling(now, &event),
            State::SessionConnecting { asked: Some(weight) } => self.on_asked(now, &event, weight),
            State::Established(live) => self.on_established(now, &event, live),
            State::Closing { live, left, signalled } => self.on_closing(now, &event, live, left, signalled),
            State::Closed | State::Failed => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.timers.expire(now) {
            self.on_timer(now, timer);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }
}

impl Session {
    /// Whether it is there, and connections that wait for a session may use it.
    #[must_use]
    pub fn is_established(&self) -> bool {
        match self.state {
            State::Established(_) => true,
            State::Closing { live, left, .. } => live.resumes && !left,
            State::IpFound
            | State::SessionConnecting { .. }
            | State::Waiting
            | State::Reserve
            | State::Closed
            | State::Failed => false,
        }
    }

    /// Whether SESSION_OPEN is on its way.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::SessionConnecting { asked: Some(_) })
    }

    /// IPFound, Waiting and Reserve: there is nothing but the wish.
    fn on_idle(&mut self, now: Instant, event: &Event) {
        match event {
            // The back-off of Waiting is for the sake of a hub that has trouble: it is kept.
            Event::Connect { role } if matches!(self.state, State::IpFound) => {
                self.role = *role;
                self.dial(now);
            }
            Event::Connect { .. } if matches!(self.state, State::Reserve) => self.dial(now),
            Event::Elsewhere if matches!(self.state, State::Waiting) => self.reserve(now),
            Event::AddressLost => self.end(State::Failed),
            Event::LocalShutdown if self.outlives_shutdown(now) => {}
            Event::LocalShutdown => self.end(State::Closed),
            Event::SetWeight { weight } => {
                self.set_weight(*weight);
                if self.is_done() {
                    self.end(State::Closed);
                }
            }
            Event::Needed { .. } if self.is_done() => self.end(State::Closed),
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
            | Event::Needed { .. }
            | Event::Elsewhere => {}
        }
    }

    /// SessionConnecting, before the handshake's end.
    fn on_dialling(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Connected { protocol: Protocol::Sc02 } => {
                self.timers.stop(Timer::Handshake);
                self.timers.set(Timer::Ack, now + self.config.ack);
                let weight = self.wanted();
                self.actions.push(Action::SendSessionOpen { weight });
                self.set_state(State::SessionConnecting { asked: Some(weight) });
            }
            // What waits cannot go on there, and nothing else may begin.
            Event::Connected { protocol: Protocol::Sc01 } if self.leaving => self.close_and_try_again(now, code::OK, 0),
            // `sc01` has no answer, and a refusal comes after the handshake's end: this success is provisional (Legacy protocol, TLS).
            Event::Connected { protocol: Protocol::Sc01 } => {
                self.timers.stop(Timer::Handshake);
                self.timers.set(Timer::Settled, now + self.config.settled);
                self.establish(Protocol::Sc01, false, self.weight);
            }
            Event::Lost => self.try_again(now, 0),
            Event::Elsewhere => self.abort_to_reserve(now),
            Event::AddressLost => self.abort(State::Failed),
            Event::LocalShutdown if self.outlives_shutdown(now) => {}
            Event::LocalShutdown => self.abort(State::Closed),
            Event::SetWeight { weight } => {
                self.set_weight(*weight);
                if self.is_done() {
                    self.abort(State::Closed);
                }
            }
            Event::Needed { .. } if self.is_done() => self.abort(State::Closed),
            Event::Connect { .. }
            | Event::SessionAck { .. }
            | Event::SessionReject { .. }
            | Event::SessionShutdown { .. }
            | Event::SessionClose { .. }
            | Event::SessionState { .. }
            | Event::ProviderStopped
            | Event::SetWeightAck { .. }
            | Event::Violation { .. }
            | Event::ConnectionOpened
            | Event::ConnectionEnded
            | Event::Needed { .. } => {}
        }
    }

    /// SessionConnecting, with SESSION_OPEN on its way.
    fn on_asked(&mut self, now: Instant, event: &Event, asked: u16) {
        match event {
            Event::SessionAck { standby } => {
                self.timers.stop(Timer::Ack);
                self.retries = 0;
                self.establish(Protocol::Sc02, *standby, asked);
            }
            // The receiver of REJECT and CLOSE closes QUIC: a close by the sender would overtake its own frame (Control stream).
            Event::SessionReject { code, retry_after_ms } => self.close_and_try_again(now, *code, *retry_after_ms),
            Event::SessionClose { code } => self.close_and_try_again(now, *code, 0),
            Event::SessionShutdown { .. } => self.close_and_try_again(now, code::OK, 0),
            // No other frame may come before the session exists.
            Event::SessionState { .. } | Event::ProviderStopped | Event::SetWeightAck { .. } => {
                self.close_and_try_again(now, code::MALFORMED, 0);
            }
            Event::Violation { code } => self.close_and_try_again(now, *code, 0),
            Event::Lost => self.try_again(now, 0),
            Event::Elsewhere => self.abort_to_reserve(now),
            Event::AddressLost => self.abort(State::Failed),
            Event::LocalShutdown if self.outlives_shutdown(now) => {}
            Event::LocalShutdown => self.abort(State::Closed),
            Event::SetWeight { weight } => {
                self.set_weight(*weight);
                if self.is_done() {
                    self.abort(State::Closed);
                }
            }
            Event::Needed { .. } if self.is_done() => self.abort(State::Closed),
            Event::Connect { .. }
            | Event::Connected { .. }
            | Event::ConnectionOpened
            | Event::ConnectionEnded
            | Event::Needed { .. } => {}
        }
    }

    fn on_established(&mut self, now: Instant, event: &Event, mut live: Live) {
        match event {
            Event::ConnectionOpened => {
                if live.start_armed {
                    self.actions.push(Action::SendProviderStart);
                }
                live = Live { open: live.open.saturating_add(1), start_armed: false, ..live };
                self.state = State::Established(live);
            }
            Event::ConnectionEnded => {
                self.go_on(now, Live { open: live.open.saturating_sub(1), ..live });
            }
            Event::Needed { .. } => self.go_on(now, live),
            Event::SetWeight { weight } if self.role == Role::Provider => {
                self.set_weight(*weight);
                match live.protocol {
                    Protocol::Sc02 => {
                        live.retiring = self.retired;
                        self.weigh(&mut live);
                        self.go_on(now, live);
                    }
                    Protocol::Sc01 => self.go_on(now, live),
                }
            }
            Event::SetWeightAck { weight } => {
                live = Live { in_force: *weight, weighing: false, ..live };
                self.weigh(&mut live);
                self.go_on(now, live);
            }
            Event::SessionState { standby } => {
                if live.standby != *standby {
                    self.actions.push(Action::State { standby: *standby });
                    self.state = State::Established(Live { standby: *standby, ..live });
                }
            }
            Event::ProviderStopped => {
                live.start_armed = self.role == Role::Consumer;
                self.state = State::Established(live);
            }
            Event::SessionShutdown { deadline_ms } => self.on_hub_shutdown(now, live, *deadline_ms),
            Event::AddressLost => self.move_away(now, live),
            Event::Elsewhere if live.protocol == Protocol::Sc02 => {
                self.move_away(now, Live { surplus: true, ..live });
            }
            Event::LocalShutdown if self.leaving => self.force(now, live, code::OK),
            Event::LocalShutdown => {
                self.start_closing(now, Live { resumes: live.protocol == Protocol::Sc02, ..live }, true);
            }
            Event::Lost => {
                self.actions.push(Action::SessionLost);
                self.wait(now, 0);
            }
            Event::SessionClose { code } | Event::Violation { code } => self.break_off(now, *code),
            Event::SessionAck { .. } | Event::SessionReject { .. } => self.break_off(now, code::MALFORMED),
            Event::Connect { .. } | Event::Connected { .. } | Event::SetWeight { .. } | Event::Elsewhere => {}
        }
    }

    fn on_closing(&mut self, now: Instant, event: &Event, mut live: Live, left: bool, signalled: bool) {
        match event {
            // What was on its way when the hub heard of the end.
            Event::ConnectionOpened => {
                live.open = live.open.saturating_add(1);
                self.state = State::Closing { live, left, signalled };
            }
            Event::ConnectionEnded => {
                live.open = live.open.saturating_sub(1);
                self.drain(now, live, left, signalled);
            }
            Event::SetWeightAck { weight } if !left => {
                live = Live { in_force: *weight, weighing: false, ..live };
                self.weigh(&mut live);
                self.drain(now, live, left, signalled);
            }
            // The endpoint, or the address, is not wanted: nothing stays in reserve.
            Event::LocalShutdown if !signalled => {
                live.surplus = false;
                self.state = State::Closing { live, left, signalled: true };
            }
            Event::LocalShutdown => self.force(now, live, code::OK),
            Event::AddressLost => {
                live.surplus = false;
                self.state = State::Closing { live, left, signalled };
            }
            // For the session that may follow out of the reserve.
            Event::SetWeight { weight } => self.set_weight(*weight),
            Event::SessionClose { code } | Event::Violation { code } => self.force(now, live, *code),
            Event::SessionAck { .. } | Event::SessionReject { .. } => self.force(now, live, code::MALFORMED),
            Event::Lost => {
                self.lose(live);
                self.over(now, live);
            }
            // The hub goes, too: what waits cannot go on here.
            Event::SessionShutdown { .. } if live.resumes => {
                live.resumes = false;
                self.drain(now, live, left, signalled);
            }
            Event::Needed { .. } => self.drain(now, live, left, signalled),
            Event::Connect { .. }
            | Event::Connected { .. }
            | Event::SessionShutdown { .. }
            | Event::SessionState { .. }
            | Event::ProviderStopped
            | Event::SetWeightAck { .. }
            | Event::Elsewhere => {}
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match (timer, self.state) {
            (Timer::Handshake, State::SessionConnecting { .. }) => self.close_and_try_again(now, code::OK, 0),
            (Timer::Ack, State::SessionConnecting { .. }) => self.close_and_try_again(now, code::OPEN_TIMEOUT, 0),
            (Timer::Retry, State::Waiting) if self.is_spent() => self.end(State::Failed),
            (Timer::Retry, State::Waiting) if self.is_done() => self.end(State::Closed),
            (Timer::Retry, State::Waiting) => self.dial(now),
            (Timer::Settled, State::Established(_)) => self.retries = 0,
            (Timer::Closing, State::Closing { live, signalled, .. }) => {
                self.lose(live);
                self.leave(now, Live { open: 0, ..live }, signalled);
            }
            // The endpoint has waited for long enough.
            (Timer::Closing, State::Established(live)) => {
                self.actions.push(Action::Hide);
                self.lose(live);
                self.leave(now, Live { open: 0, ..live }, true);
            }
            (Timer::Closing, State::SessionConnecting { .. }) => self.abort(State::Closed),
            (Timer::Closing, State::IpFound | State::Waiting | State::Reserve) => self.end(State::Closed),
            (Timer::Linger, State::Closing { live, left: true, .. }) => self.force(now, live, code::OK),
            (Timer::Reserve, State::Reserve) => self.dial(now),
            // `Linger` before the last connection's end: the word has had its time. The others are stopped with their state.
            (
                Timer::Handshake
                | Timer::Ack
                | Timer::Retry
                | Timer::Settled
                | Timer::Closing
                | Timer::Linger
                | Timer::Reserve,
                State::IpFound
                | State::SessionConnecting { .. }
                | State::Waiting
                | State::Reserve
                | State::Established(_)
                | State::Closing { .. }
                | State::Closed
                | State::Failed,
            ) => {}
        }
    }

    fn dial(&mut self, now: Instant) {
        self.timers.stop(Timer::Reserve);
        self.timers.set(Timer::Handshake, now + self.config.handshake);
        self.actions.push(Action::Dial);
        self.set_state(State::SessionConnecting { asked: None });
    }

    fn establish(&mut self, protocol: Protocol, standby: bool, said: u16) {
        self.actions.push(Action::Established { standby });
        let mut live = Live {
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
        };
        self.weigh(&mut live);
        self.set_state(State::Established(live));
    }

    fn set_weight(&mut self, weight: u16) {
        self.weight = weight;
        self.retired = self.role == Role::Provider && weight == 0;
    }

    /// The session of a retired provider, or of an endpoint that ends, of which nobody wants anything.
    fn is_done(&self) -> bool {
        (self.retired || self.leaving) && !self.needed
    }

    /// Whether nothing keeps a session that is there.
    fn is_spare(&self, live: &Live) -> bool {
        self.is_done() && (live.retiring || self.role == Role::Consumer) && live.is_drained()
    }

    /// Whether nothing keeps one that is closing.
    fn is_finished(&self, live: &Live) -> bool {
        live.is_drained() && !(live.resumes && self.needed)
    }

    /// The endpoint ends while there is no session. Something may wait for one, and gets it until the deadline; a second signal ends that.
    fn outlives_shutdown(&mut self, now: Instant) -> bool {
        let stays = self.needed && !self.leaving;
        if stays {
            self.leaving = true;
            self.timers.set(Timer::Closing, now + self.config.closing);
        }
        stays
    }

    /// The weight to ask for: a provider that ends takes nothing new.
    fn wanted(&self) -> u16 {
        if self.leaving && self.role == Role::Provider { 0 } else { self.weight }
    }

    /// Says the wanted weight: one SET_WEIGHT at a time, the newest value after the answer to the one before.
    fn weigh(&mut self, live: &mut Live) {
        let wanted = if live.retiring { 0 } else { self.wanted() };
        let speaks = self.role == Role::Provider && live.protocol == Protocol::Sc02;
        if speaks && !live.weighing && live.said != wanted {
            live.said = wanted;
            live.weighing = true;
            self.actions.push(Action::SendSetWeight { weight: wanted });
        }
    }

    /// Stays Established, unless this was the end of a retirement by weight 0, which has no deadline.
    fn go_on(&mut self, now: Instant, live: Live) {
        self.state = State::Established(live);
        match live.protocol {
            Protocol::Sc02 if self.is_spare(&live) => {
                self.actions.push(Action::Hide);
                self.leave(now, live, false);
            }
            // A hub goes on to send what is bound to this provider, so it might never be empty: leave with a deadline.
            Protocol::Sc01 if self.is_done() => self.start_closing(now, live, false),
            Protocol::Sc01 | Protocol::Sc02 => {}
        }
    }

    fn on_hub_shutdown(&mut self, now: Instant, mut live: Live, deadline_ms: u64) {
        match live.protocol {
            // The word is answered with the word (Legacy protocol, Control datagrams).
            Protocol::Sc01 => {
                self.actions.push(Action::RefuseStreams);
                self.start_closing(now, live, false);
            }
            Protocol::Sc02 => {
                live.retiring = false;
                let asked = if deadline_ms == 0 { self.config.closing } else { Duration::from_millis(deadline_ms) };
                self.hide(now, live, asked.min(self.config.closing_max), false);
            }
        }
    }

    /// The address is not to be used any more: what can go on elsewhere goes, the rest drains.
    fn move_away(&mut self, now: Instant, mut live: Live) {
        live.moving = live.protocol == Protocol::Sc02;
        if live.moving {
            self.actions.push(Action::MoveAway);
        }
        self.start_closing(now, live, false);
    }

    /// Asks the hub for nothing new, then drains.
    fn start_closing(&mut self, now: Instant, mut live: Live, signalled: bool) {
        match live.protocol {
            Protocol::Sc01 => {
                self.actions.push(Action::SendNotifyShutdown);
                self.timers.set(Timer::Linger, now + self.config.word);
            }
            Protocol::Sc02 => {
                live.retiring = self.role == Role::Provider;
                self.weigh(&mut live);
            }
        }
        self.hide(now, live, self.config.closing, signalled);
    }

    fn hide(&mut self, now: Instant, live: Live, closing: Duration, signalled: bool) {
        // A consumer that ends asks for nothing new, but what it has may have to begin again.
        if !live.resumes || self.role == Role::Provider {
            self.actions.push(Action::Hide);
        }
        self.timers.stop(Timer::Settled);
        let signalled = signalled || self.leaving;
        if !self.leaving {
            self.timers.set(Timer::Closing, now + closing);
        }
        self.set_state(State::Closing { live, left: false, signalled });
        self.drain(now, live, false, signalled);
    }

    fn drain(&mut self, now: Instant, live: Live, left: bool, signalled: bool) {
        self.state = State::Closing { live, left, signalled };
        if !left && self.is_finished(&live) {
            self.leave(now, live, signalled);
        }
    }

    /// No connection is left: says goodbye.
    fn leave(&mut self, now: Instant, live: Live, signalled: bool) {
        self.timers.stop(Timer::Closing);
        match live.protocol {
            Protocol::Sc02 => {
                if live.retiring {
                    self.actions.push(Action::SendDrained);
                }
                let code = if live.moving { code::PAUSED } else { code::OK };
                self.actions.push(Action::SendSessionClose { code });
                self.timers.set(Timer::Linger, now + self.config.close);
                self.set_state(State::Closing { live, left: true, signalled });
            }
            // A close would overtake the word (Endpoint session).
            Protocol::Sc01 if self.timers.is_set(Timer::Linger) => {
                self.set_state(State::Closing { live, left: true, signalled });
            }
            Protocol::Sc01 => self.force(now, live, code::OK),
        }
    }

    /// Ends a session that is leaving, at once.
    fn force(&mut self, now: Instant, live: Live, code: u64) {
        self.lose(live);
        self.actions.push(Action::Close { code });
        self.over(now, live);
    }

    /// After Closing.
    fn over(&mut self, now: Instant, live: Live) {
        if live.surplus && !self.leaving {
            self.reserve(now);
        } else {
            self.end(State::Closed);
        }
    }

    /// Waits, and looks now and then whether the address leads to another hub.
    fn reserve(&mut self, now: Instant) {
        if self.is_done() {
            return self.end(State::Closed);
        }
        self.retries = 0;
        self.stop_tries();
        self.timers.set(Timer::Reserve, now + self.jitter.scatter(self.config.reserve));
        self.actions.push(Action::Reserved);
        self.set_state(State::Reserve);
    }

    fn abort_to_reserve(&mut self, now: Instant) {
        self.actions.push(Action::Close { code: code::OK });
        self.reserve(now);
    }

    fn lose(&mut self, live: Live) {
        if live.open > 0 {
            self.actions.push(Action::SessionLost);
        }
    }

    fn abort(&mut self, state: State) {
        self.actions.push(Action::Close { code: code::OK });
        self.end(state);
    }

    /// Ends an Established session that is wanted still.
    fn break_off(&mut self, now: Instant, code: u64) {
        self.actions.push(Action::SessionLost);
        self.actions.push(Action::Close { code });
        self.wait(now, 0);
    }

    fn close_and_try_again(&mut self, now: Instant, code: u64, at_least_ms: u64) {
        self.actions.push(Action::Close { code });
        self.try_again(now, at_least_ms);
    }

    /// After a try that failed.
    fn try_again(&mut self, now: Instant, at_least_ms: u64) {
        if self.config.retry_limit.is_some_and(|limit| self.retries >= limit) {
            self.end(State::Failed);
        } else {
            self.wait(now, at_least_ms);
        }
    }

    /// More tries than allowed: those of provisional successes are noticed only when the next one is due.
    fn is_spent(&self) -> bool {
        self.config.retry_limit.is_some_and(|limit| self.retries > limit)
    }

    fn wait(&mut self, now: Instant, at_least_ms: u64) {
        let asked = Duration::from_millis(at_least_ms).min(self.config.retry_after_max);
        let retry_ms = self.back_off_ms().max(to_ms(asked));
        self.retries = self.retries.saturating_add(1);
        self.stop_tries();
        self.timers.set(Timer::Retry, now + Duration::from_millis(retry_ms));
        self.actions.push(Action::Waiting { retry_ms });
        self.set_state(State::Waiting);
    }

    fn back_off_ms(&mut self) -> u64 {
        let doubled = self.config.retry_min.saturating_mul(1 << self.retries.min(31));
        let delay = to_ms(doubled.min(self.config.retry_max));
        to_ms(self.jitter.scatter(Duration::from_millis(delay)))
    }

    /// All timers but the deadline of an endpoint that ends.
    fn stop_tries(&mut self) {
        for timer in [Timer::Handshake, Timer::Ack, Timer::Retry, Timer::Settled, Timer::Linger, Timer::Reserve] {
            self.timers.stop(timer);
        }
        if !self.leaving {
            self.timers.stop(Timer::Closing);
        }
    }

    fn end(&mut self, state: State) {
        self.timers.stop_all();
        self.actions.push(if matches!(state, State::Failed) { Action::Failed } else { Action::Closed });
        self.set_state(state);
    }

    fn set_state(&mut self, state: State) {
        let from = self.state();
        self.state = state;
        tracing::debug!(machine = Self::NAME, from, to = self.state());
    }
}

impl Live {
    /// Nothing is left, and nothing will come: the hub has heard of weight 0 if it had to.
    fn is_drained(&self) -> bool {
        self.open == 0 && (!self.retiring || (self.in_force == 0 && !self.weighing))
    }
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
