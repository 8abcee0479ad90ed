//! One connection at an endpoint (docs/protocols/spn.md, Endpoint connection, EPC-1).
//!
//! At a consumer it looks for a session, opens a data stream and, as long as no byte can have reached a provider, tries again elsewhere.
//! At a provider it begins with a stream that the hub has opened. Payload does not pass through here: of the bytes, the machine
//! hears only that the first ones went or came.

mod config;
mod describe;
mod ends;
mod events;
mod pause;
mod retry;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use config::Config;
pub use events::{Action, Event};

use crate::{
    machine::{Actions, Inspect, Jitter, Machine, Timers},
    spn::{Protocol, Role, wire::code},
};

#[derive(Debug, Clone, Copy)]
enum State {
    /// `asked`: the host looks for a session; else it is not wanted yet, or a pause runs.
    LookingUpSession { asked: bool },
    /// Consumer: the stream is being opened. Provider: the local side is being dialled.
    Connecting,
    /// Payload flows.
    Connected,
    /// The hub wants it off its stream: nothing is sent any more, what is on its way is still read.
    Pausing,
    /// Without a stream, and no session knows that it wants one.
    Paused,
    /// Without a stream; at least one session has been asked for another.
    Resuming,
    /// Both directions are to end.
    Disconnecting,
    /// Over.
    Disconnected,
}

/// Our sending direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// The local side has finished; FIN is on its way.
    Finished,
    /// FIN has arrived.
    Delivered,
    /// The other end wants no more, or we have reset it.
    Stopped,
}

/// The two directions, and what has happened on them.
#[derive(Debug, Clone, Copy)]
struct Flow {
    sending: Sending,
    /// The receiving direction is open.
    receiving: bool,
    /// The local side wants no more, with this code.
    deaf: Option<u64>,
    /// Payload was sent, on any try.
    sent: bool,
    /// All of it is held and can be sent again.
    held: bool,
    /// Payload or its end has come.
    received: bool,
    /// Both ends can resume, for all we know.
    resumable: bool,
    /// The partner has been heard of.
    confirmed: bool,
    /// Our FIN is acknowledged by the hub, which says nothing of a partner that can resume.
    acked: bool,
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    Lookup,
    Again,
    Total,
    Dial,
    Pausing,
    Pause,
    Settled,
    Closing,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Connection {
    config: Config,
    state: State,
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
    closing: u64,
    timers: Timers<Timer>,
    actions: Actions<Action>,
}

impl Machine for Connection {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, now: Instant, event: Event) {
        match self.state {
            State::LookingUpSession { asked } => self.on_looking_up_session(now, &event, asked),
            State::Connecting => self.on_connecting(now, &event),
            State::Connected => self.on_connected(now, &event),
            State::Pausing => self.on_pausing(now, &event),
            State::Paused | State::Resuming => self.on_paused(now, &event),
            State::Disconnecting => self.on_disconnecting(&event),
            State::Disconnected => {}
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

impl Connection {
    /// Whether it has no stream and wants one.
    #[must_use]
    pub fn is_looking_up(&self) -> bool {
        matches!(self.state, State::LookingUpSession { .. })
    }

    /// Whether it has lost its stream and waits for the next.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused | State::Resuming)
    }

    /// Whether both ends can resume it, for all we know.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.flow.resumable
    }

    /// Whether it can go on on another stream.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        matches!(self.state, State::Connected | State::Pausing | State::Paused | State::Resuming)
    }

    /// The code with which the local side has broken it off; 0 if it has not.
    #[must_use]
    pub fn abort_code(&self) -> u64 {
        self.closing
    }

    /// Whether the local side reads no more.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.flow.deaf.is_some()
    }

    /// Whether payload may be sent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// Whether the partner is known to have it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.role == Role::Provider || self.flow.confirmed
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Disconnected)
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

    /// Whether it waits for the end of its stream.
    #[must_use]
    pub fn is_disconnecting(&self) -> bool {
        matches!(self.state, State::Disconnecting)
    }

    fn on_looking_up_session(&mut self, now: Instant, event: &Event, asked: bool) {
        match event {
            Event::Connect if !self.timers.is_set(Timer::Lookup) => {
                self.timers.set(Timer::Total, now + self.config.total);
                self.look_up(now, Duration::ZERO);
            }
            Event::Incoming { protocol } if !self.timers.is_set(Timer::Lookup) => {
                self.role = Role::Provider;
                self.protocol = *protocol;
                self.timers.set(Timer::Dial, now + self.config.dial);
                self.flow.receiving = true;
                self.actions.push(Action::Announce);
                self.set_state(State::Connecting);
            }
            Event::SessionFound { protocol } if asked => {
                self.protocol = *protocol;
                self.flow.receiving = true;
                self.actions.push(Action::OpenStream);
                self.set_state(State::Connecting);
            }
            Event::LocalFinish => self.remember_finish(),
            Event::LocalStop { code } => self.flow.deaf = Some(*code),
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
            | Event::Mismatch => {}
        }
    }

    fn on_connecting(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Opened => self.on_opened(),
            Event::LocalFinish => self.remember_finish(),
            Event::LocalStop { code } => self.flow.deaf = Some(*code),
            Event::LocalAbort { code } => {
                // The original's code for a dial that failed (Legacy protocol, Codes).
                let undialled = self.role == Role::Provider && self.protocol == Protocol::Sc01;
                self.abort(now, if undialled { code::DIAL_FAILED } else { *code });
            }
            Event::StreamReset { code } => self.on_reset(now, *code),
            // The consumer reads nothing; it may still have something to say.
            Event::StreamStopped { code } if self.is_undialled() && !means_both(*code) => self.on_stopped(*code),
            Event::StreamStopped { code } => self.on_refused(now, *code),
            Event::CloseReq { code } if self.is_sc02() => {
                self.actions.push(Action::SendCloseAck);
                self.cut(*code);
                self.fail(*code);
            }
            Event::SessionLost => self.on_session_lost(now),
            Event::Resumable if self.is_sc02() => self.flow.resumable = true,
            Event::PauseReq if self.flow.resumable => self.on_pause_req(now),
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
            | Event::Mismatch => {}
        }
    }

    fn on_connected(&mut self, now: Instant, event: &Event) {
        match event {
            Event::BytesSent => {
                self.flow.held = !self.flow.sent || self.flow.held;
                self.flow.sent = true;
            }
            Event::BytesReleased => self.flow.held = false,
            Event::BytesReceived => {
                self.flow.received = true;
                self.flow.confirmed = true;
                self.timers.stop(Timer::Total);
            }
            Event::LocalFinish => self.finish(),
            Event::LocalStop { code } => {
                self.flow.deaf = Some(*code);
                self.stop(*code);
                self.end_if_over();
            }
            Event::LocalAbort { code } => self.abort(now, *code),
            Event::StreamFinished => self.on_finished(now),
            Event::StreamReset { code } => self.on_reset(now, *code),
            Event::StreamStopped { code } if self.is_sc02() && means_both(*code) => self.on_refused(now, *code),
            Event::StreamStopped { code } => {
                self.on_stopped(*code);
                self.end_if_over();
            }
            Event::StreamAcked => self.on_acked(),
            Event::Confirmed { resumable } if self.is_sc02() => {
                self.flow.confirmed = true;
                self.flow.resumable &= *resumable;
                if self.flow.acked {
                    self.on_acked();
                }
            }
            Event::PauseReq if self.flow.resumable => self.on_pause_req(now),
            Event::Opened => self.timers.stop(Timer::Dial),
            Event::Resumed if self.flow.resumable => self.on_resumed(now),
            Event::PartnerResumed if self.flow.resumable => self.timers.stop(Timer::Pause),
            Event::SentOver if self.flow.resumable => self.on_delivered(),
            Event::Mismatch if self.flow.resumable => self.on_mismatch(now),
            Event::CloseReq { code } if self.is_sc02() => self.on_close_req(now, *code),
            Event::SessionLost => self.on_session_lost(now),
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
            | Event::Mismatch => {}
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match (timer, self.state) {
            (Timer::Again, State::LookingUpSession { .. }) => {
                self.actions.push(Action::LookUp);
                self.set_state(State::LookingUpSession { asked: true });
            }
            (Timer::Lookup | Timer::Total, State::LookingUpSession { .. }) => self.fail(code::NOT_STARTED),
            (Timer::Lookup, State::Connecting) => {
                self.cut(code::NOT_STARTED);
                self.fail(code::NOT_STARTED);
            }
            (Timer::Dial, State::Connecting) => {
                self.cut(code::PEER_ABORTED);
                self.fail(code::PEER_ABORTED);
            }
            (Timer::Dial, State::Connected | State::Pausing | State::Paused | State::Resuming) => {
                self.break_off(now, code::PEER_ABORTED)
            }
            (Timer::Total, State::Connecting | State::Connected) => self.spent = true,
            (Timer::Settled, State::Connected) => self.refused = 0,
            (Timer::Pause, State::Connected) => self.break_off(now, code::PAUSE_TIMEOUT),
            (Timer::Pausing, State::Pausing) => {
                self.leave_stream(code::PAUSED);
                self.pause(now);
            }
            (Timer::Again, State::Paused | State::Resuming) => self.actions.push(Action::AskResume),
            (Timer::Pause, State::Paused | State::Resuming) => self.give_up(),
            (Timer::Closing, State::Disconnecting) => {
                self.cut(code::PEER_ABORTED);
                self.end();
            }
            // Timers are stopped with their state.
            (
                Timer::Lookup
                | Timer::Again
                | Timer::Total
                | Timer::Dial
                | Timer::Pausing
                | Timer::Pause
                | Timer::Settled
                | Timer::Closing,
                State::LookingUpSession { .. }
                | State::Connecting
                | State::Connected
                | State::Pausing
                | State::Paused
                | State::Resuming
                | State::Disconnecting
                | State::Disconnected,
            ) => {}
        }
    }

    /// STOP_SENDING: our direction is over.
    fn on_stopped(&mut self, code: u64) {
        // A hub that drops an empty stream may refuse its end before it shows its own (Legacy protocol): only that one counts.
        if self.protocol == Protocol::Sc01 && self.flow.sending == Sending::Finished && !self.flow.sent {
            return;
        }
        let unfinished = self.flow.sending == Sending::Open;
        self.reset(code);
        if unfinished {
            self.actions.push(Action::LocalStopped { code });
        }
    }

    fn on_finished(&mut self, now: Instant) {
        let empty = !self.flow.received && self.role == Role::Consumer && self.protocol == Protocol::Sc01;
        if empty && self.can_repeat() && !self.flow.sent && !self.empty_once {
            self.empty_once = true;
            self.repeat(now, code::OK, Duration::ZERO);
        } else if empty {
            // The original hub shows a failure as an empty end of data: it must not look like a clean one here (Legacy protocol, Codes).
            self.cut(code::PARTNER_LOST);
            self.fail(code::PARTNER_LOST);
        } else {
            self.flow.received = true;
            self.flow.receiving = false;
            self.end_if_over();
        }
    }

    fn on_reset(&mut self, now: Instant, code: u64) {
        // What comes behind a 0x27 comes on the next stream.
        if code != code::PAUSED || !self.flow.resumable {
            self.flow.receiving = false;
        }
        self.on_refused(now, code);
    }

    /// RESET_STREAM, or a STOP_SENDING that means both directions. Only 0x28 leads to a new try, and only 0x27 to a pause (Codes).
    fn on_refused(&mut self, now: Instant, code: u64) {
        if code == code::NOT_STARTED && self.is_sc02() && !self.spent && self.can_repeat() {
            let pause = self.back_off();
            self.repeat(now, code, pause);
        } else if code == code::PAUSED && self.is_sc02() && self.is_unclaimed() {
            self.repeat(now, code, Duration::ZERO);
        } else if code == code::PAUSED && self.flow.resumable {
            self.leave_stream(code);
            self.pause(now);
        } else {
            self.cut(code);
            self.fail(if code == code::PAUSED && self.is_sc02() { code::PARTNER_LOST } else { code });
        }
    }

    /// A provider whose host has not answered yet, on `sc02`.
    fn is_undialled(&self) -> bool {
        self.role == Role::Provider && self.is_sc02()
    }

    fn is_sc02(&self) -> bool {
        self.protocol == Protocol::Sc02
    }

    fn remember_finish(&mut self) {
        if self.flow.sending == Sending::Open {
            self.flow.sending = Sending::Finished;
        }
    }

    fn set_state(&mut self, state: State) {
        let from = self.state();
        self.state = state;
        tracing::trace!(machine = Self::NAME, from, to = self.state());
    }
}

/// These two codes speak of the whole connection, whichever half says so first.
fn means_both(code: u64) -> bool {
    matches!(code, code::NOT_STARTED | code::PAUSED)
}
