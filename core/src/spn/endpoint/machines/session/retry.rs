//! Tries, and the times between them: back-off, reserve, and giving up.

use std::time::{Duration, Instant};

use super::{Action, Session, SessionTimer, State};
use crate::spn::wire::code::SessionCode;

impl Session {
    pub(super) fn dial(&mut self, now: Instant) -> State {
        self.parts.timers.stop(SessionTimer::Reserve);
        self.parts.timers.set_after(SessionTimer::Handshake, now, self.config.handshake);
        self.parts.act(Action::Dial);
        State::SessionConnecting { asked: None }
    }

    pub(super) fn close_and_try_again(&mut self, now: Instant, code: SessionCode, at_least: Duration) -> State {
        self.parts.act(Action::Close { code });
        self.try_again(now, at_least)
    }

    /// After a try that failed.
    pub(super) fn try_again(&mut self, now: Instant, at_least: Duration) -> State {
        if self.config.retry_limit.is_some_and(|limit| self.retries >= limit) {
            self.end(State::Failed)
        } else {
            self.wait(now, at_least)
        }
    }

    /// More tries than allowed: those of provisional successes are noticed only when the next one is due.
    pub(super) fn is_spent(&self) -> bool {
        self.config.retry_limit.is_some_and(|limit| self.retries > limit)
    }

    /// Ends an Established session that is wanted still.
    pub(super) fn break_off(&mut self, now: Instant, code: SessionCode) -> State {
        self.parts.act(Action::SessionLost);
        self.parts.act(Action::Close { code });
        self.wait(now, Duration::ZERO)
    }

    pub(super) fn wait(&mut self, now: Instant, at_least: Duration) -> State {
        let retry = self.back_off().max(at_least.min(self.config.retry_after_max));
        self.retries = self.retries.saturating_add(1);
        self.stop_tries();
        self.parts.timers.set_after(SessionTimer::Retry, now, retry);
        self.parts.act(Action::Waiting { retry });
        State::Waiting
    }

    fn back_off(&mut self) -> Duration {
        let doubled = self.config.retry_min.saturating_mul(1 << self.retries.min(31));
        self.jitter.scatter(doubled.min(self.config.retry_max))
    }

    /// All timers but the deadline of an endpoint that ends.
    fn stop_tries(&mut self) {
        use SessionTimer as T;
        for timer in [T::Handshake, T::Ack, T::Retry, T::Settled, T::Linger, T::Reserve] {
            self.parts.timers.stop(timer);
        }
        if !self.leaving {
            self.parts.timers.stop(T::Closing);
        }
    }

    /// Waits, and looks now and then whether the address leads to another hub.
    pub(super) fn reserve(&mut self, now: Instant) -> State {
        if self.is_done() {
            return self.end(State::Closed);
        }
        self.retries = 0;
        self.stop_tries();
        let pause = self.jitter.scatter(self.config.reserve);
        self.parts.timers.set_after(SessionTimer::Reserve, now, pause);
        self.parts.act(Action::Reserved);
        State::Reserve
    }

    pub(super) fn abort_to_reserve(&mut self, now: Instant) -> State {
        self.parts.act(Action::Close { code: SessionCode::OK });
        self.reserve(now)
    }

    pub(super) fn abort(&mut self, state: State) -> State {
        self.parts.act(Action::Close { code: SessionCode::OK });
        self.end(state)
    }

    /// Closed or Failed.
    pub(super) fn end(&mut self, state: State) -> State {
        self.parts.timers.stop_all();
        self.parts.act(if matches!(state, State::Failed) { Action::Failed } else { Action::Closed });
        state
    }
}
