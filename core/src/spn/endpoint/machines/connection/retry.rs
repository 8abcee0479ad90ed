//! Another try: when it is safe, and what it makes good (docs/protocols/spn.md, Endpoint connection, EPC-4 and EPC-5).

use std::time::{Duration, Instant};

use super::{Action, Connection, Sending, State, Timer};
use crate::spn::{Role, wire::code};

impl Connection {
    /// Makes good on the new stream what the local side and earlier tries have done.
    pub(super) fn on_opened(&mut self) {
        self.timers.stop(Timer::Lookup);
        self.timers.stop(Timer::Dial);
        if self.flow.sent {
            self.actions.push(Action::SendHeld);
        }
        if self.flow.sending == Sending::Finished {
            self.actions.push(Action::FinishStream);
        }
        if let Some(code) = self.flow.deaf {
            self.stop(code);
        }
        self.set_state(State::Connected);
        self.end_if_over();
    }

    pub(super) fn on_session_lost(&mut self, now: Instant) {
        if self.is_unclaimed() {
            self.spent = false;
            self.timers.set(Timer::Total, now + self.config.total);
            self.forget_stream();
            self.look_up(now, Duration::ZERO);
        } else if self.flow.resumable {
            self.pause(now);
        } else {
            self.fail(code::PARTNER_LOST);
        }
    }

    /// Whether a provider cannot have seen this connection, for all we know, and all can be said again.
    pub(super) fn can_repeat(&self) -> bool {
        let flow = self.flow;
        let repeatable = !flow.sent || flow.held;
        self.role == Role::Consumer && !flow.received && repeatable && flow.sending != Sending::Stopped
    }

    /// On this stream no byte has moved, and it need not be the last one.
    fn is_untouched(&self) -> bool {
        self.can_repeat() && (matches!(self.state, State::Connecting) || !self.flow.sent)
    }

    /// No byte has moved, and no provider has answered: a new connection is as good as this one.
    pub(super) fn is_unclaimed(&self) -> bool {
        self.is_untouched() && !(self.flow.resumable && self.flow.confirmed)
    }

    pub(super) fn repeat(&mut self, now: Instant, code: u64, pause: Duration) {
        let before = self.flow.sending;
        self.cut(code);
        self.flow.sending = before;
        self.forget_stream();
        self.look_up(now, pause);
    }

    /// What was said on it is to be said again on the next one.
    pub(super) fn forget_stream(&mut self) {
        self.flow.receiving = false;
        (self.flow.resumable, self.flow.confirmed, self.flow.acked) = (false, false, false);
        self.timers.stop(Timer::Pause);
        self.timers.stop(Timer::Settled);
        if self.flow.sending == Sending::Delivered {
            self.flow.sending = Sending::Finished;
        }
    }

    pub(super) fn look_up(&mut self, now: Instant, pause: Duration) {
        self.timers.set(Timer::Lookup, now + self.config.lookup);
        if pause.is_zero() {
            self.actions.push(Action::LookUp);
        } else {
            self.timers.set(Timer::Again, now + pause);
        }
        self.set_state(State::LookingUpSession { asked: pause.is_zero() });
    }
}
