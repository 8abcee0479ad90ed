//! Pause and resume: from the loss of a stream to the next one (docs/protocols/spn.md, Pause and resume, RES-33 and RES-34).
//!
//! When `pause_max` has passed without a stream on which the partner has said anything, the timer `pause` fires and `give_up` decides: the abort is
//! left for the partner on every session (`LeaveAbort`, code 0x22), the host is shown a reset, and the connection is over. If both directions were
//! complete for the local side, it ends in silence.

use std::time::{Duration, Instant};

use super::{Action, Connection, ConnectionTimer, Event, Sending, State};
use crate::spn::{Role, wire::code::StreamCode};

impl Connection {
    pub(super) fn start_pausing(&mut self, now: Instant) -> State {
        self.parts.act(Action::SendPauseAck);
        self.parts.timers.stop(ConnectionTimer::Settled);
        self.parts.timers.set_after(ConnectionTimer::Pausing, now, self.config.pausing);
        State::Pausing
    }

    pub(super) fn pausing(&mut self, now: Instant, event: Event) -> State {
        let state = State::Pausing;
        match event {
            Event::BytesReceived => {
                self.flow.received = true;
                self.flow.confirmed = true;
                state
            }
            Event::Opened => {
                self.parts.timers.stop(ConnectionTimer::Dial);
                state
            }
            Event::BytesReleased => {
                self.flow.held = false;
                state
            }
            Event::LocalFinish => {
                self.flow.remember_finish();
                state
            }
            Event::LocalStop { code } => {
                self.flow.read_closed = Some(code);
                self.stop(code);
                self.end_if_over(state)
            }
            Event::LocalAbort { code } => {
                self.cut(code);
                self.leave_abort(code)
            }
            Event::StreamFinished => {
                self.flow.received = true;
                self.flow.receiving = false;
                self.end_if_over(state)
            }
            Event::StreamReset { code: StreamCode::PAUSED } | Event::StreamStopped { code: StreamCode::PAUSED } => {
                self.break_stream(StreamCode::PAUSED);
                self.pause(now)
            }
            // No provider has had it: it may begin again.
            Event::StreamReset { code: StreamCode::NOT_STARTED } if self.can_repeat() => {
                self.flow.receiving = false;
                self.parts.timers.stop(ConnectionTimer::Pausing);
                self.parts.timers.set_after(ConnectionTimer::Total, now, self.config.total);
                self.repeat(now, StreamCode::NOT_STARTED, Duration::ZERO)
            }
            Event::StreamReset { code } => {
                self.flow.receiving = false;
                self.cut(code);
                self.fail(code)
            }
            Event::StreamStopped { code } => {
                self.take_stop(code);
                self.end_if_over(state)
            }
            Event::CloseReq { code } => self.follow_close(now, code),
            Event::SessionLost => self.pause(now),
            Event::PauseReq => {
                self.parts.act(Action::SendPauseAck);
                state
            }
            Event::Confirmed { resumable: true } => {
                self.flow.confirmed = true;
                state
            }
            Event::Resumed => self.resume(now),
            Event::PartnerResumed => {
                self.parts.timers.stop(ConnectionTimer::Pause);
                state
            }
            Event::SentOver => self.deliver(state),
            Event::Mismatch => self.reject_partner(now),
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::BytesSent
            | Event::StreamAcked
            | Event::StreamClosed
            | Event::CloseAck
            | Event::Resumable
            | Event::Confirmed { resumable: false }
            | Event::ResumeAsked
            | Event::ResumeUnasked
            | Event::ResumeRefused
            | Event::Sought
            | Event::Absent
            | Event::ResumeAborted { .. } => self.parts.ignore(state),
        }
    }

    /// Paused and Resuming.
    pub(super) fn paused(&mut self, now: Instant, event: Event, state: State) -> State {
        let asked = matches!(state, State::Resuming);
        match event {
            Event::ResumeAsked if !asked => State::Resuming,
            Event::ResumeUnasked if asked => State::Paused,
            Event::ResumeRefused if asked => {
                self.ask_later(now);
                state
            }
            // Its first stream came to nothing: it may begin again.
            Event::ResumeAborted { code: StreamCode::NOT_STARTED } if asked && self.can_repeat() => {
                self.begin_again(now)
            }
            Event::Absent if self.can_repeat() => self.begin_again(now),
            Event::Absent => self.fail(StreamCode::NOT_STARTED),
            // The providers will say what became of it: they are waited for like any partner.
            Event::Sought => {
                if !std::mem::replace(&mut self.flow.confirmed, true) {
                    self.parts.timers.set_after(ConnectionTimer::Pause, now, self.config.pause);
                }
                state
            }
            Event::ResumeAborted { code } if asked => self.fail(code),
            Event::Opened => {
                self.parts.timers.stop(ConnectionTimer::Dial);
                state
            }
            Event::BytesReleased => {
                self.flow.held = false;
                state
            }
            Event::LocalFinish => {
                self.flow.remember_finish();
                state
            }
            Event::LocalStop { code } => {
                self.flow.read_closed = Some(code);
                self.flow.receiving = false;
                self.end_if_over(state)
            }
            Event::LocalAbort { code } => self.leave_abort(code),
            Event::CloseReq { code } => self.fail(code),
            Event::Resumed => self.resume(now),
            Event::SentOver => self.deliver(state),
            Event::Mismatch => {
                self.parts.act(Action::LeaveAbort { code: StreamCode::CONN_IN_USE });
                self.fail(StreamCode::CONN_IN_USE)
            }
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::BytesSent
            | Event::BytesReceived
            | Event::StreamFinished
            | Event::StreamReset { .. }
            | Event::StreamStopped { .. }
            | Event::StreamAcked
            | Event::StreamClosed
            | Event::CloseAck
            | Event::SessionLost
            | Event::Resumable
            | Event::Confirmed { .. }
            | Event::PauseReq
            | Event::ResumeAsked
            | Event::ResumeUnasked
            | Event::ResumeRefused
            | Event::ResumeAborted { .. }
            | Event::PartnerResumed => self.parts.ignore(state),
        }
    }

    /// The stream is gone, or to be left: from now on, the next one counts. After a try that did not hold, it is asked for with a delay.
    pub(super) fn pause(&mut self, now: Instant) -> State {
        for timer in [ConnectionTimer::Total, ConnectionTimer::Pausing, ConnectionTimer::Settled] {
            self.parts.timers.stop(timer);
        }
        if !self.parts.timers.is_set(ConnectionTimer::Pause) {
            let claimed = self.role == Role::Provider || self.flow.confirmed;
            let pause = if claimed { self.config.pause } else { self.config.unclaimed };
            self.parts.timers.set_after(ConnectionTimer::Pause, now, pause);
        }
        self.parts.act(Action::LeaveStream);
        if self.refused == 0 {
            self.parts.act(Action::AskResume);
        } else {
            self.ask_later(now);
        }
        State::Paused
    }

    fn begin_again(&mut self, now: Instant) -> State {
        self.parts.timers.set_after(ConnectionTimer::Total, now, self.config.total);
        self.parts.timers.stop(ConnectionTimer::Again);
        self.forget_stream();
        self.look_up(now, Duration::ZERO)
    }

    fn ask_later(&mut self, now: Instant) {
        let pause = self.back_off();
        self.parts.timers.set_after(ConnectionTimer::Again, now, pause);
    }

    /// How long the next try waits: longer after each that came to nothing.
    pub(super) fn back_off(&mut self) -> Duration {
        let doubled = self.config.again_min.saturating_mul(1 << self.refused.min(16)).min(self.config.again_max);
        self.refused = self.refused.saturating_add(1);
        self.jitter.scatter(doubled)
    }

    /// Resets and stops what is still open of the stream; the directions stay what they are.
    pub(super) fn break_stream(&mut self, code: StreamCode) {
        self.parts.act(Action::ResetStream { code });
        self.parts.act(Action::StopStream { code });
    }

    /// The next stream: what is not acknowledged goes again, and what had ended ends again.
    pub(super) fn resume(&mut self, now: Instant) -> State {
        for timer in [ConnectionTimer::Again, ConnectionTimer::Pausing] {
            self.parts.timers.stop(timer);
        }
        // The partner has asked for it, so it has it: not only a hub that died.
        if !std::mem::replace(&mut self.flow.confirmed, true) && self.parts.timers.is_set(ConnectionTimer::Pause) {
            self.parts.timers.set_after(ConnectionTimer::Pause, now, self.config.pause);
        }
        self.refused = self.refused.saturating_add(1);
        self.parts.timers.set_after(ConnectionTimer::Settled, now, self.config.settled);
        self.parts.act(Action::SendKept);
        if self.flow.sending != Sending::Open {
            self.parts.act(Action::FinishStream);
        }
        if let Some(code) = self.flow.read_closed {
            self.parts.act(Action::StopStream { code });
        }
        State::Connected
    }

    /// The hub has our FIN, in Connected; of a connection that can resume, only the partner's report counts.
    pub(super) fn take_ack(&mut self) -> State {
        self.flow.acked = true;
        if self.flow.resumable { self.end_if_over(State::Connected) } else { self.deliver(State::Connected) }
    }

    /// The partner's offsets cannot be, and there is a stream.
    pub(super) fn reject_partner(&mut self, now: Instant) -> State {
        self.closing = StreamCode::CONN_IN_USE;
        self.parts.act(Action::SendCloseReq { code: StreamCode::CONN_IN_USE });
        self.cut(StreamCode::CONN_IN_USE);
        self.parts.act(Action::LocalReset { code: StreamCode::CONN_IN_USE });
        self.start_closing(now)
    }

    /// Connected, it has waited for too long, for its host or for its partner.
    pub(super) fn break_off(&mut self, now: Instant, code: StreamCode) -> State {
        self.parts.act(Action::LocalReset { code });
        self.abort(now, code)
    }

    /// The same, without a stream or about to lose it.
    pub(super) fn break_off_paused(&mut self, code: StreamCode) -> State {
        self.break_stream(code);
        self.parts.act(Action::LeaveAbort { code });
        self.fail(code)
    }

    /// The session is gone before the partner can have answered (EPC-12).
    pub(super) fn leave_closing(&mut self) -> State {
        if self.flow.resumable {
            self.parts.act(Action::LeaveAbort { code: self.closing });
        }
        self.end()
    }

    fn leave_abort(&mut self, code: StreamCode) -> State {
        self.parts.act(Action::LeaveAbort { code });
        self.end()
    }

    /// It was without a stream for too long. What is complete for the local side is no failure (RES-34).
    pub(super) fn give_up(&mut self) -> State {
        if self.flow.sending == Sending::Open || self.flow.receiving {
            self.parts.act(Action::LeaveAbort { code: StreamCode::PAUSE_TIMEOUT });
            self.fail(StreamCode::PAUSE_TIMEOUT)
        } else {
            self.end()
        }
    }
}
