//! One connection at an endpoint (docs/protocols/spn.md, Endpoint connection, EPC-1).
//!
//! At a consumer it looks for a session, opens a data stream and, as long as no byte can have reached a provider, tries again elsewhere.
//! At a provider it begins with a stream that the hub has opened. Payload does not pass through here: of the bytes, the machine
//! hears only that the first ones went or came.
//!
//! Diagram: `docs/states/spn.endpoint_connection.md`.

mod config;
mod describe;
mod ends;
mod events;
mod pause;
mod retry;
mod state;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::state::{Flow, Sending};
pub use self::{
    config::Config,
    events::{Action, ConnectionTimer, Event},
    state::State,
};
use crate::{
    machine::{Automaton, Jitter, Parts},
    spn::{Protocol, Role, wire::code::StreamCode},
};

/// A connection's life.
#[derive(Debug, Clone)]
pub struct Connection {
    config: Config,
    parts: Parts<State, ConnectionTimer, Action>,
    role: Role,
    /// Of the session that carries it, or did last.
    protocol: Protocol,
    flow: Flow,
    /// Tries that the hub refused.
    refused: u32,
    jitter: Jitter,
    /// No more tries: their time is over.
    spent: bool,
    /// An end without a byte was taken for a failure once.
    empty_once: bool,
    /// With which code it is being closed.
    closing: StreamCode,
}

impl Connection {
    /// A connection that is not wanted yet. `seed` scatters its tries.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            parts: Parts::new(State::LookingUpSession { asked: false }),
            role: Role::Consumer,
            protocol: Protocol::Sc02,
            flow: Flow::new(),
            refused: 0,
            jitter: Jitter::new(seed),
            spent: false,
            empty_once: false,
            closing: StreamCode::OK,
        }
    }

    /// Whether it has no stream and wants one.
    #[must_use]
    pub fn is_looking_up(&self) -> bool {
        matches!(self.parts.state(), State::LookingUpSession { .. })
    }

    /// Whether it has lost its stream and waits for the next.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        matches!(self.parts.state(), State::Paused | State::Resuming)
    }

    /// Whether both ends can resume it, for all we know.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.flow.resumable
    }

    /// Whether it can go on on another stream.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        matches!(self.parts.state(), State::Connected | State::Pausing | State::Paused | State::Resuming)
    }

    /// The code with which the local side has broken it off; 0 if it has not.
    #[must_use]
    pub fn abort_code(&self) -> StreamCode {
        self.closing
    }

    /// Whether the local side reads no more.
    #[must_use]
    pub fn read_closed(&self) -> bool {
        self.flow.read_closed.is_some()
    }

    /// Whether payload may be sent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.parts.state(), State::Connected)
    }

    /// Whether the partner is known to have it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.role == Role::Provider || self.flow.confirmed
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.parts.state(), State::Disconnected)
    }

    /// Whether our direction is over where it counts: its end has arrived, or nobody wants more of it.
    #[must_use]
    pub fn has_delivered(&self) -> bool {
        matches!(self.flow.sending, Sending::Delivered | Sending::Stopped)
    }

    /// Whether the local side has finished, and the end is on its way.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.flow.sending == Sending::Finished
    }
}

impl Automaton for Connection {
    const NAME: &'static str = "spn.endpoint_connection";
    type State = State;
    type Timer = ConnectionTimer;
    type Event = Event;
    type Action = Action;

    fn parts(&self) -> &Parts<State, ConnectionTimer, Action> {
        &self.parts
    }

    fn parts_mut(&mut self) -> &mut Parts<State, ConnectionTimer, Action> {
        &mut self.parts
    }

    fn on_event(&mut self, now: Instant, state: State, event: Event) -> State {
        match state {
            State::LookingUpSession { asked } => self.looking_up_session(now, event, asked),
            State::Connecting => self.connecting(now, event),
            State::Connected => self.connected(now, event),
            State::Pausing => self.pausing(now, event),
            State::Paused | State::Resuming => self.paused(now, event, state),
            State::Disconnecting => self.disconnecting(event),
            State::Disconnected => self.parts.ignore(state),
        }
    }

    fn on_timeout(&mut self, now: Instant, state: State, timer: ConnectionTimer) -> State {
        use ConnectionTimer as T;
        match (timer, state) {
            (T::Again, State::LookingUpSession { .. }) => {
                self.parts.act(Action::LookUp);
                State::LookingUpSession { asked: true }
            }
            (T::Lookup | T::Total, State::LookingUpSession { .. }) => self.fail(StreamCode::NOT_STARTED),
            (T::Lookup, State::Connecting) => {
                self.cut(StreamCode::NOT_STARTED);
                self.fail(StreamCode::NOT_STARTED)
            }
            (T::Dial, State::Connecting) => {
                self.cut(StreamCode::PEER_ABORTED);
                self.fail(StreamCode::PEER_ABORTED)
            }
            (T::Dial, State::Connected) => self.break_off(now, StreamCode::PEER_ABORTED),
            (T::Dial, State::Pausing | State::Paused | State::Resuming) => {
                self.break_off_paused(StreamCode::PEER_ABORTED)
            }
            (T::Total, State::Connecting | State::Connected) => {
                self.spent = true;
                state
            }
            (T::Settled, State::Connected) => {
                self.refused = 0;
                state
            }
            (T::Pause, State::Connected) => self.break_off(now, StreamCode::PAUSE_TIMEOUT),
            (T::Pausing, State::Pausing) => {
                self.break_stream(StreamCode::PAUSED);
                self.pause(now)
            }
            (T::Again, State::Paused | State::Resuming) => {
                self.parts.act(Action::AskResume);
                state
            }
            (T::Pause, State::Paused | State::Resuming) => self.give_up(),
            (T::Closing, State::Disconnecting) => {
                self.cut(StreamCode::PEER_ABORTED);
                self.end()
            }
            // Timers are stopped with their state.
            (
                T::Lookup | T::Again | T::Total | T::Dial | T::Pausing | T::Pause | T::Settled | T::Closing,
                State::LookingUpSession { .. }
                | State::Connecting
                | State::Connected
                | State::Pausing
                | State::Paused
                | State::Resuming
                | State::Disconnecting
                | State::Disconnected,
            ) => state,
        }
    }
}

impl Connection {
    fn looking_up_session(&mut self, now: Instant, event: Event, asked: bool) -> State {
        let state = State::LookingUpSession { asked };
        match event {
            Event::Connect if !self.parts.timers.is_set(ConnectionTimer::Lookup) => {
                self.parts.timers.set_after(ConnectionTimer::Total, now, self.config.total);
                self.look_up(now, Duration::ZERO)
            }
            Event::Incoming { protocol } if !self.parts.timers.is_set(ConnectionTimer::Lookup) => {
                self.role = Role::Provider;
                self.protocol = protocol;
                self.parts.timers.set_after(ConnectionTimer::Dial, now, self.config.dial);
                self.flow.receiving = true;
                self.parts.act(Action::Announce);
                State::Connecting
            }
            Event::SessionFound { protocol } if asked => {
                self.protocol = protocol;
                self.flow.receiving = true;
                self.parts.act(Action::OpenStream);
                State::Connecting
            }
            Event::LocalFinish => {
                self.flow.remember_finish();
                state
            }
            Event::LocalStop { code } => {
                self.flow.read_closed = Some(code);
                state
            }
            Event::LocalAbort { .. } => self.end(),
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::Opened
            | Event::BytesSent
            | Event::BytesReleased
            | Event::BytesReceived
            | Event::StreamFinished
            | Event::StreamReset { .. }
            | Event::StreamStopped { .. }
            | Event::StreamAcked
            | Event::StreamClosed
            | Event::CloseReq { .. }
            | Event::CloseAck
            | Event::SessionLost
            | Event::Resumable
            | Event::Confirmed { .. }
            | Event::PauseReq
            | Event::ResumeAsked
            | Event::ResumeUnasked
            | Event::ResumeRefused
            | Event::Sought
            | Event::Absent
            | Event::ResumeAborted { .. }
            | Event::Resumed
            | Event::PartnerResumed
            | Event::SentOver
            | Event::Mismatch => self.parts.ignore(state),
        }
    }

    fn connecting(&mut self, now: Instant, event: Event) -> State {
        let state = State::Connecting;
        match event {
            Event::Opened => self.open(),
            Event::LocalFinish => {
                self.flow.remember_finish();
                state
            }
            Event::LocalStop { code } => {
                self.flow.read_closed = Some(code);
                state
            }
            Event::LocalAbort { code } => {
                // The original's code for a dial that failed (Legacy protocol, Codes).
                let undialled = self.role == Role::Provider && self.protocol == Protocol::Sc01;
                self.abort(now, if undialled { StreamCode::DIAL_FAILED } else { code })
            }
            Event::StreamReset { code } => self.take_reset(now, code, state),
            // The consumer reads nothing; it may still have something to say.
            Event::StreamStopped { code } if self.is_undialled() && !means_both(code) => {
                self.take_stop(code);
                state
            }
            Event::StreamStopped { code } => self.take_refusal(now, code, state),
            Event::CloseReq { code } if self.is_sc02() => {
                self.parts.act(Action::SendCloseAck);
                self.cut(code);
                self.fail(code)
            }
            Event::SessionLost => self.lose_session(now, state),
            Event::Resumable if self.is_sc02() => {
                self.flow.resumable = true;
                state
            }
            Event::PauseReq if self.flow.resumable => self.start_pausing(now),
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::BytesSent
            | Event::BytesReleased
            | Event::BytesReceived
            | Event::StreamFinished
            | Event::StreamAcked
            | Event::StreamClosed
            | Event::CloseReq { .. }
            | Event::CloseAck
            | Event::Resumable
            | Event::Confirmed { .. }
            | Event::PauseReq
            | Event::ResumeAsked
            | Event::ResumeUnasked
            | Event::ResumeRefused
            | Event::Sought
            | Event::Absent
            | Event::ResumeAborted { .. }
            | Event::Resumed
            | Event::PartnerResumed
            | Event::SentOver
            | Event::Mismatch => self.parts.ignore(state),
        }
    }

    fn connected(&mut self, now: Instant, event: Event) -> State {
        let state = State::Connected;
        match event {
            Event::BytesSent => {
                self.flow.held = !self.flow.sent || self.flow.held;
                self.flow.sent = true;
                state
            }
            Event::BytesReleased => {
                self.flow.held = false;
                state
            }
            Event::BytesReceived => {
                self.flow.received = true;
                self.flow.confirmed = true;
                self.parts.timers.stop(ConnectionTimer::Total);
                state
            }
            Event::LocalFinish => {
                self.finish();
                state
            }
            Event::LocalStop { code } => {
                self.flow.read_closed = Some(code);
                self.stop(code);
                self.end_if_over(state)
            }
            Event::LocalAbort { code } => self.abort(now, code),
            Event::StreamFinished => self.take_end(now),
            Event::StreamReset { code } => self.take_reset(now, code, state),
            Event::StreamStopped { code } if self.is_sc02() && means_both(code) => self.take_refusal(now, code, state),
            Event::StreamStopped { code } => {
                self.take_stop(code);
                self.end_if_over(state)
            }
            Event::StreamAcked => self.take_ack(),
            Event::Confirmed { resumable } if self.is_sc02() => {
                self.flow.confirmed = true;
                self.flow.resumable &= resumable;
                if self.flow.acked { self.take_ack() } else { state }
            }
            Event::PauseReq if self.flow.resumable => self.start_pausing(now),
            Event::Opened => {
                self.parts.timers.stop(ConnectionTimer::Dial);
                state
            }
            Event::Resumed if self.flow.resumable => self.resume(now),
            Event::PartnerResumed if self.flow.resumable => {
                self.parts.timers.stop(ConnectionTimer::Pause);
                state
            }
            Event::SentOver if self.flow.resumable => self.deliver(state),
            Event::Mismatch if self.flow.resumable => self.reject_partner(now),
            Event::CloseReq { code } if self.is_sc02() => self.follow_close(now, code),
            Event::SessionLost => self.lose_session(now, state),
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::StreamClosed
            | Event::CloseReq { .. }
            | Event::CloseAck
            | Event::Resumable
            | Event::Confirmed { .. }
            | Event::PauseReq
            | Event::ResumeAsked
            | Event::ResumeUnasked
            | Event::ResumeRefused
            | Event::Sought
            | Event::Absent
            | Event::ResumeAborted { .. }
            | Event::Resumed
            | Event::PartnerResumed
            | Event::SentOver
            | Event::Mismatch => self.parts.ignore(state),
        }
    }

    /// STOP_SENDING: our direction is over.
    fn take_stop(&mut self, code: StreamCode) {
        // A hub that drops an empty stream may refuse its end before it shows its own (Legacy protocol): only that one counts.
        if self.protocol == Protocol::Sc01 && self.flow.sending == Sending::Finished && !self.flow.sent {
            return;
        }
        let unfinished = self.flow.sending == Sending::Open;
        self.reset(code);
        if unfinished {
            self.parts.act(Action::LocalStopped { code });
        }
    }

    /// FIN, in Connected.
    fn take_end(&mut self, now: Instant) -> State {
        let empty = !self.flow.received && self.role == Role::Consumer && self.protocol == Protocol::Sc01;
        if empty && self.can_repeat() && !self.flow.sent && !self.empty_once {
            self.empty_once = true;
            self.repeat(now, StreamCode::OK, Duration::ZERO)
        } else if empty {
            // The original hub shows a failure as an empty end of data: it must not look like a clean one here (Legacy protocol, Codes).
            self.cut(StreamCode::PARTNER_LOST);
            self.fail(StreamCode::PARTNER_LOST)
        } else {
            self.flow.received = true;
            self.flow.receiving = false;
            self.end_if_over(State::Connected)
        }
    }

    /// RESET_STREAM, in Connecting or Connected.
    fn take_reset(&mut self, now: Instant, code: StreamCode, state: State) -> State {
        // What comes behind a 0x27 comes on the next stream.
        if code != StreamCode::PAUSED || !self.flow.resumable {
            self.flow.receiving = false;
        }
        self.take_refusal(now, code, state)
    }

    /// RESET_STREAM, or a STOP_SENDING that means both directions. Only 0x28 leads to a new try, and only 0x27 to a pause (Codes).
    fn take_refusal(&mut self, now: Instant, code: StreamCode, state: State) -> State {
        if code == StreamCode::NOT_STARTED && self.is_sc02() && !self.spent && self.can_repeat() {
            let pause = self.back_off();
            self.repeat(now, code, pause)
        } else if code == StreamCode::PAUSED && self.is_sc02() && self.is_unclaimed(state) {
            self.repeat(now, code, Duration::ZERO)
        } else if code == StreamCode::PAUSED && self.flow.resumable {
            self.break_stream(code);
            self.pause(now)
        } else {
            self.cut(code);
            self.fail(if code == StreamCode::PAUSED && self.is_sc02() { StreamCode::PARTNER_LOST } else { code })
        }
    }

    /// A provider whose host has not answered yet, on `sc02`.
    fn is_undialled(&self) -> bool {
        self.role == Role::Provider && self.is_sc02()
    }

    fn is_sc02(&self) -> bool {
        self.protocol == Protocol::Sc02
    }
}

/// These two codes speak of the whole connection, whichever half says so first.
fn means_both(code: StreamCode) -> bool {
    matches!(code, StreamCode::NOT_STARTED | StreamCode::PAUSED)
}
