//! The end of a connection: asked for by either side, or come to (docs/protocols/spn.md, Endpoint connection, EPC-6 to EPC-12).

use std::time::Instant;

use super::{Action, Connection, Event, Sending, State, Timer};
use crate::spn::wire::code;

impl Connection {
    pub(super) fn on_disconnecting(&mut self, event: &Event) {
        match event {
            Event::StreamFinished => {
                self.flow.receiving = false;
                self.end_if_over();
            }
            Event::StreamStopped { code } => {
                self.reset(*code);
                self.end_if_over();
            }
            Event::StreamAcked => self.on_delivered(),
            Event::StreamReset { code } => {
                self.flow.receiving = false;
                self.cut(*code);
                self.end();
            }
            Event::LocalAbort { code } => {
                self.cut(*code);
                self.end();
            }
            Event::LocalStop { code } => {
                self.stop(*code);
                self.end_if_over();
            }
            Event::CloseReq { .. } => self.actions.push(Action::SendCloseAck),
            Event::PauseReq if self.flow.resumable => self.actions.push(Action::SendPauseAck),
            Event::StreamClosed => {
                self.cut(code::OK);
                self.end();
            }
            // A hub answers so when there is no partner to be told: if it comes back, it is to hear of it.
            Event::CloseAck => {
                self.cut(code::OK);
                self.leave_closing();
            }
            Event::SessionLost => self.leave_closing(),
            Event::SentOver if self.flow.resumable => self.on_delivered(),
            Event::Connect
            | Event::Incoming { .. }
            | Event::SessionFound { .. }
            | Event::Opened
            | Event::BytesSent
            | Event::BytesReleased
            | Event::BytesReceived
            | Event::LocalFinish
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

    pub(super) fn on_close_req(&mut self, now: Instant, code: u64) {
        self.actions.push(Action::SendCloseAck);
        if code == code::OK {
            if self.flow.sending == Sending::Open {
                self.actions.push(Action::LocalStopped { code });
            }
            self.finish();
        } else {
            self.cut(code);
            self.actions.push(Action::LocalReset { code });
        }
        self.start_closing(now);
    }

    /// Ends both directions on the local side's wish. FIN and RESET_STREAM are all that `sc01` has for it.
    pub(super) fn abort(&mut self, now: Instant, code: u64) {
        if !self.is_sc02() {
            self.cut(code);
            return self.end();
        }
        self.closing = code;
        self.actions.push(Action::SendCloseReq { code });
        if code == code::OK {
            self.finish();
            self.stop(code);
        } else {
            self.cut(code);
        }
        self.start_closing(now);
    }

    pub(super) fn start_closing(&mut self, now: Instant) {
        self.timers.stop_all();
        self.timers.set(Timer::Closing, now + self.config.closing);
        self.set_state(State::Disconnecting);
    }

    /// Ends our half in good order, if it is open.
    pub(super) fn finish(&mut self) {
        if self.flow.sending == Sending::Open {
            self.flow.sending = Sending::Finished;
            self.actions.push(Action::FinishStream);
        }
    }

    /// Our end has arrived where it counts.
    pub(super) fn on_delivered(&mut self) {
        if self.flow.sending == Sending::Finished {
            self.flow.sending = Sending::Delivered;
        }
        self.end_if_over();
    }

    /// Resets what is still open of our half; says whether there was any.
    pub(super) fn reset(&mut self, code: u64) -> bool {
        let open = matches!(self.flow.sending, Sending::Open | Sending::Finished);
        if open {
            self.flow.sending = Sending::Stopped;
            self.actions.push(Action::ResetStream { code });
        }
        open
    }

    pub(super) fn stop(&mut self, code: u64) {
        if self.flow.receiving {
            self.flow.receiving = false;
            self.actions.push(Action::StopStream { code });
        }
    }

    pub(super) fn cut(&mut self, code: u64) {
        self.reset(code);
        self.stop(code);
    }

    pub(super) fn end_if_over(&mut self) {
        if !self.flow.receiving && matches!(self.flow.sending, Sending::Delivered | Sending::Stopped) {
            self.end();
        }
    }

    pub(super) fn fail(&mut self, code: u64) {
        self.actions.push(Action::LocalReset { code });
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.timers.stop_all();
        self.actions.push(Action::Disconnected);
        self.set_state(State::Disconnected);
    }
}
