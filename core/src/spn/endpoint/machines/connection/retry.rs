//! Another try: when it is safe, and what it makes good (docs/protocols/spn.md, Endpoint connection, EPC-4 and EPC-5).

use std::time::{Duration, Instant};

use super::{Action, Connection, ConnectionTimer, Sending, State};
use crate::spn::{Role, wire::code::StreamCode};

impl Connection {
    /// The stream is there: makes good on it what the local side and earlier tries have done.
    pub(super) fn open(&mut self) -> State {
        self.parts.timers.stop(ConnectionTimer::Lookup);
        self.parts.timers.stop(ConnectionTimer::Dial);
        if self.flow.sent {
            self.parts.act(Action::SendHeld);
        }
        if self.flow.sending == Sending::Finished {
            self.parts.act(Action::FinishStream);
        }
        if let Some(code) = self.flow.read_closed {
            self.stop(code);
        }
        self.end_if_over(State::Connected)
    }

    /// The session is gone, in Connecting or Connected.
    pub(super) fn lose_session(&mut self, now: Instant, state: State) -> State {
        if self.is_unclaimed(state) {
            self.spent = false;
            self.parts.timers.set_after(ConnectionTimer::Total, now, self.config.total);
            self.forget_stream();
            self.look_up(now, Duration::ZERO)
        } else if self.flow.resumable {
            self.pause(now)
        } else {
            self.fail(StreamCode::PARTNER_LOST)
        }
    }

    /// Whether a provider cannot have seen this connection, for all we know, and all can be said again.
    pub(super) fn can_repeat(&self) -> bool {
        let flow = self.flow;
        let repeatable = !flow.sent || flow.held;
        self.role == Role::Consumer && !flow.received && repeatable && flow.sending != Sending::Stopped
    }

    /// On this stream no byte has moved, and it need not be the last one.
    fn is_untouched(&self, state: State) -> bool {
        self.can_repeat() && (matches!(state, State::Connecting) || !self.flow.sent)
    }

    /// No byte has moved, and no provider has answered: a new connection is as good as this one.
    pub(super) fn is_unclaimed(&self, state: State) -> bool {
        self.is_untouched(state) && !(self.flow.resumable && self.flow.confirmed)
    }

    pub(super) fn repeat(&mut self, now: Instant, code: StreamCode, pause: Duration) -> State {
        let before = self.flow.sending;
        self.cut(code);
        self.flow.sending = before;
        self.forget_stream();
        self.look_up(now, pause)
    }

    /// What was sent on it is to be sent again on the next one.
    pub(super) fn forget_stream(&mut self) {
        self.parts.act(Action::ForgetStream);
        self.flow.receiving = false;
        (self.flow.resumable, self.flow.confirmed, self.flow.acked) = (false, false, false);
        self.parts.timers.stop(ConnectionTimer::Pause);
        self.parts.timers.stop(ConnectionTimer::Settled);
        if self.flow.sending == Sending::Delivered {
            self.flow.sending = Sending::Finished;
        }
    }

    pub(super) fn look_up(&mut self, now: Instant, pause: Duration) -> State {
        self.parts.timers.set_after(ConnectionTimer::Lookup, now, self.config.lookup);
        if pause.is_zero() {
            self.parts.act(Action::LookUp);
        } else {
            self.parts.timers.set_after(ConnectionTimer::Again, now, pause);
        }
        State::LookingUpSession { asked: pause.is_zero() }
    }
}
