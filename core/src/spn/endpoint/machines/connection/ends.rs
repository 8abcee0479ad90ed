//! The end of a connection: asked for by either side, or come to (docs/protocols/spn.md, Endpoint connection, EPC-6 to EPC-12).

use std::time::Instant;

use super::{Action, Connection, ConnectionTimer, Event, Sending, State};
use crate::spn::wire::code::StreamCode;

impl Connection {
    pub(super) fn disconnecting(&mut self, event: Event) -> State {
        let state = State::Disconnecting;
        match event {
            Event::StreamFinished => {
                self.flow.receiving = false;
                self.end_if_over(state)
            }
            Event::StreamStopped { code } => {
                self.reset(code);
                self.end_if_over(state)
            }
            Event::StreamAcked => self.deliver(state),
            Event::StreamReset { code } => {
                self.flow.receiving = false;
                self.cut(code);
                self.end()
            }
            Event::LocalAbort { code } => {
                self.cut(code);
                self.end()
            }
            Event::LocalStop { code } => {
                self.stop(code);
                self.end_if_over(state)
            }
            Event::CloseReq { .. } => {
                self.parts.act(Action::SendCloseAck);
                state
            }
            Event::PauseReq if self.flow.resumable => {
                self.parts.act(Action::SendPauseAck);
                state
            }
            Event::StreamClosed => {
                self.cut(StreamCode::OK);
                self.end()
            }
            // A hub answers so when it has no partner to inform: the end is left for the partner.
            Event::CloseAck => {
                self.cut(StreamCode::OK);
                self.leave_closing()
            }
            Event::SessionLost => self.leave_closing(),
            Event::SentOver if self.flow.resumable => self.deliver(state),
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
            | Event::Mismatch => self.parts.ignore(state),
        }
    }

    /// CLOSE_REQ.
    pub(super) fn follow_close(&mut self, now: Instant, code: StreamCode) -> State {
        self.parts.act(Action::SendCloseAck);
        if code == StreamCode::OK {
            if self.flow.sending == Sending::Open {
                self.parts.act(Action::LocalStopped { code });
            }
            self.finish();
        } else {
            self.cut(code);
            self.parts.act(Action::LocalReset { code });
        }
        self.start_closing(now)
    }

    /// Ends both directions on the local side's wish. FIN and RESET_STREAM are all that `sc01` has for it.
    pub(super) fn abort(&mut self, now: Instant, code: StreamCode) -> State {
        if !self.is_sc02() {
            self.cut(code);
            return self.end();
        }
        self.closing = code;
        self.parts.act(Action::SendCloseReq { code });
        if code == StreamCode::OK {
            self.finish();
            self.stop(code);
        } else {
            self.cut(code);
        }
        self.start_closing(now)
    }

    pub(super) fn start_closing(&mut self, now: Instant) -> State {
        self.parts.timers.stop_all();
        self.parts.timers.set_after(ConnectionTimer::Closing, now, self.config.closing);
        self.parts.act(Action::AwaitStreamEnd);
        State::Disconnecting
    }

    /// Ends our half in good order, if it is open.
    pub(super) fn finish(&mut self) {
        if self.flow.sending == Sending::Open {
            self.flow.sending = Sending::Finished;
            self.parts.act(Action::FinishStream);
        }
    }

    /// Our end has arrived where it counts.
    pub(super) fn deliver(&mut self, state: State) -> State {
        if self.flow.sending == Sending::Finished {
            self.flow.sending = Sending::Delivered;
        }
        self.end_if_over(state)
    }

    /// Resets what is still open of our half.
    pub(super) fn reset(&mut self, code: StreamCode) {
        if matches!(self.flow.sending, Sending::Open | Sending::Finished) {
            self.flow.sending = Sending::Stopped;
            self.parts.act(Action::ResetStream { code });
        }
    }

    pub(super) fn stop(&mut self, code: StreamCode) {
        if self.flow.receiving {
            self.flow.receiving = false;
            self.parts.act(Action::StopStream { code });
        }
    }

    pub(super) fn cut(&mut self, code: StreamCode) {
        self.reset(code);
        self.stop(code);
    }

    pub(super) fn end_if_over(&mut self, state: State) -> State {
        if self.flow.is_over() { self.end() } else { state }
    }

    pub(super) fn fail(&mut self, code: StreamCode) -> State {
        self.parts.act(Action::LocalReset { code });
        self.end()
    }

    pub(super) fn end(&mut self) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::Disconnected);
        State::Disconnected
    }
}
