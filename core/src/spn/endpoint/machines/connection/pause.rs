//! Pause and resume: from the loss of a stream to the next one (docs/protocols/spn.md, Pause and resume, RES-33 and RES-34).

use std::time::{Duration, Instant};

use super::{Action, Connection, Event, Sending, State, Timer};
use crate::spn::{Role, wire::code};

impl Connection {
    pub(super) fn on_pause_req(&mut self, now: Instant) {
        self.actions.push(Action::SendPauseAck);
        self.timers.stop(Timer::Settled);
        self.timers.set(Timer::Pausing, now + self.config.pausing);
        self.set_state(State::Pausing);
    }

    pub(super) fn on_pausing(&mut self, now: Instant, event: &Event) {
        match event {
            Event::BytesReceived => {
                self.flow.received = true;
                self.flow.confirmed = true;
            }
            Event::Opened => self.timers.stop(Timer::Dial),
            Event::BytesReleased => self.flow.held = false,
            Event::LocalFinish => self.remember_finish(),
            Event::LocalStop { code } => {
                self.flow.deaf = Some(*code);
                self.stop(*code);
                self.end_if_over();
            }
            Event::LocalAbort { code } => {
                self.cut(*code);
                self.leave_abort(*code);
            }
            Event::StreamFinished => {
                self.flow.received = true;
                self.flow.receiving = false;
                self.end_if_over();
            }
            Event::StreamReset { code: code::PAUSED } | Event::StreamStopped { code: code::PAUSED } => {
                self.leave_stream(code::PAUSED);
                self.pause(now);
            }
            // No provider has had it: it may begin again.
            Event::StreamReset { code: code::NOT_STARTED } if self.can_repeat() => {
                self.flow.receiving = false;
                self.timers.stop(Timer::Pausing);
                self.timers.set(Timer::Total, now + self.config.total);
                self.repeat(now, code::NOT_STARTED, Duration::ZERO);
            }
            Event::StreamReset { code } => {
                self.flow.receiving = false;
                self.cut(*code);
                self.fail(*code);
            }
            Event::StreamStopped { code } => {
                self.on_stopped(*code);
                self.end_if_over();
            }
            Event::CloseReq { code } => self.on_close_req(now, *code),
            Event::SessionLost => self.pause(now),
            Event::PauseReq => self.actions.push(Action::SendPauseAck),
            Event::Confirmed { resumable: true } => self.flow.confirmed = true,
            Event::Resumed => self.on_resumed(now),
            Event::PartnerResumed => self.timers.stop(Timer::Pause),
            Event::SentOver => self.on_delivered(),
            Event::Mismatch => self.on_mismatch(now),
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
            | Event::ResumeAborted { .. } => {}
        }
    }

    /// In Paused and Resuming.
    pub(super) fn on_paused(&mut self, now: Instant, event: &Event) {
        let asked = matches!(self.state, State::Resuming);
        match event {
            Event::ResumeAsked if !asked => self.set_state(State::Resuming),
            Event::ResumeUnasked if asked => self.set_state(State::Paused),
            Event::ResumeRefused if asked => self.ask_later(now),
            // Its first stream came to nothing: it may begin again.
            Event::ResumeAborted { code: code::NOT_STARTED } if asked && self.can_repeat() => self.begin_again(now),
            Event::Absent if self.can_repeat() => self.begin_again(now),
            Event::Absent => self.fail(code::NOT_STARTED),
            // The providers will say what became of it: they are waited for like any partner.
            Event::Sought => {
                if !std::mem::replace(&mut self.flow.confirmed, true) {
                    self.timers.set(Timer::Pause, now + self.config.pause);
                }
            }
            Event::ResumeAborted { code } if asked => self.fail(*code),
            Event::Opened => self.timers.stop(Timer::Dial),
            Event::BytesReleased => self.flow.held = false,
            Event::LocalFinish => self.remember_finish(),
            Event::LocalStop { code } => {
                self.flow.deaf = Some(*code);
                self.flow.receiving = false;
                self.end_if_over();
            }
            Event::LocalAbort { code } => self.leave_abort(*code),
            Event::CloseReq { code } => self.fail(*code),
            Event::Resumed => self.on_resumed(now),
            Event::SentOver => self.on_delivered(),
            Event::Mismatch => self.on_mismatch(now),
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
            | Event::PartnerResumed => {}
        }
    }

    /// The stream is gone, or to be left: from now on, the next one counts. After a try that did not hold, it is asked for with a delay.
    pub(super) fn pause(&mut self, now: Instant) {
        for timer in [Timer::Total, Timer::Pausing, Timer::Settled] {
            self.timers.stop(timer);
        }
        if !self.timers.is_set(Timer::Pause) {
            let claimed = self.role == Role::Provider || self.flow.confirmed;
            self.timers.set(Timer::Pause, now + if claimed { self.config.pause } else { self.config.unclaimed });
        }
        self.set_state(State::Paused);
        if self.refused == 0 {
            self.actions.push(Action::AskResume);
        } else {
            self.ask_later(now);
        }
    }

    fn begin_again(&mut self, now: Instant) {
        self.timers.set(Timer::Total, now + self.config.total);
        self.timers.stop(Timer::Again);
        self.forget_stream();
        self.look_up(now, Duration::ZERO);
    }

    fn ask_later(&mut self, now: Instant) {
        let pause = self.back_off();
        self.timers.set(Timer::Again, now + pause);
    }

    /// How long the next try waits: longer after each that came to nothing.
    pub(super) fn back_off(&mut self) -> Duration {
        let doubled = self.config.again_min.saturating_mul(1 << self.refused.min(16)).min(self.config.again_max);
        self.refused = self.refused.saturating_add(1);
        self.jitter.scatter(doubled)
    }

    /// Resets and stops what is still open of the stream; the directions stay what they are.
    pub(super) fn leave_stream(&mut self, code: u64) {
        self.actions.push(Action::ResetStream { code });
        self.actions.push(Action::StopStream { code });
    }

    /// The next stream: what is not acknowledged goes again, and what had ended ends again.
    pub(super) fn on_resumed(&mut self, now: Instant) {
        for timer in [Timer::Again, Timer::Pausing] {
            self.timers.stop(timer);
        }
        // The partner has asked for it, so it has it: not only a hub that died.
        if !std::mem::replace(&mut self.flow.confirmed, true) && self.timers.is_set(Timer::Pause) {
            self.timers.set(Timer::Pause, now + self.config.pause);
        }
        self.refused = self.refused.saturating_add(1);
        self.timers.set(Timer::Settled, now + self.config.settled);
        self.actions.push(Action::SendKept);
        if self.flow.sending != Sending::Open {
            self.actions.push(Action::FinishStream);
        }
        if let Some(code) = self.flow.deaf {
            self.actions.push(Action::StopStream { code });
        }
        self.set_state(State::Connected);
    }

    /// The hub has our FIN; of a connection that can resume, only the partner's word counts.
    pub(super) fn on_acked(&mut self) {
        self.flow.acked = true;
        if self.flow.resumable {
            self.end_if_over();
        } else {
            self.on_delivered();
        }
    }

    pub(super) fn on_mismatch(&mut self, now: Instant) {
        if self.is_paused() {
            self.actions.push(Action::LeaveAbort { code: code::CONN_IN_USE });
            return self.fail(code::CONN_IN_USE);
        }
        self.closing = code::CONN_IN_USE;
        self.actions.push(Action::SendCloseReq { code: code::CONN_IN_USE });
        self.cut(code::CONN_IN_USE);
        self.actions.push(Action::LocalReset { code: code::CONN_IN_USE });
        self.start_closing(now);
    }

    /// It has waited for too long, for its host or for its partner.
    pub(super) fn break_off(&mut self, now: Instant, code: u64) {
        if matches!(self.state, State::Connected) {
            self.actions.push(Action::LocalReset { code });
            return self.abort(now, code);
        }
        self.leave_stream(code);
        self.actions.push(Action::LeaveAbort { code });
        self.fail(code);
    }

    /// The session is gone before the partner can have answered (EPC-12).
    pub(super) fn leave_closing(&mut self) {
        if self.flow.resumable {
            self.actions.push(Action::LeaveAbort { code: self.closing });
        }
        self.end();
    }

    fn leave_abort(&mut self, code: u64) {
        self.actions.push(Action::LeaveAbort { code });
        self.end();
    }

    /// It was without a stream for too long. What is complete for the local side is no failure (RES-34).
    pub(super) fn give_up(&mut self) {
        if self.flow.sending == Sending::Open || self.flow.receiving {
            self.actions.push(Action::LeaveAbort { code: code::PAUSE_TIMEOUT });
            self.fail(code::PAUSE_TIMEOUT);
        } else {
            self.end();
        }
    }
}
