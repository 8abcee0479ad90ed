//! The end of a session that carries connections: when nothing keeps it, and how it leaves.

use std::time::{Duration, Instant};

use super::{Action, Closing, Live, Session, SessionTimer, State};
use crate::spn::{Protocol, Role, wire::code::SessionCode};

impl Session {
    /// The session of a retired provider, or of an endpoint that ends, of which nobody wants anything.
    pub(super) fn is_done(&self) -> bool {
        (self.retired || self.leaving) && !self.needed
    }

    /// Whether nothing keeps a session that is there.
    pub(super) fn is_spare(&self, live: &Live) -> bool {
        self.is_done() && (live.retiring || self.role == Role::Consumer) && live.is_drained()
    }

    /// Whether nothing keeps one that is closing.
    pub(super) fn is_finished(&self, live: &Live) -> bool {
        live.is_drained() && !(live.resumes && self.needed)
    }

    /// The endpoint ends while there is no session. Something may wait for one, and gets it until the deadline; a second signal ends that.
    pub(super) fn outlives_shutdown(&mut self, now: Instant) -> bool {
        let stays = self.needed && !self.leaving;
        if stays {
            self.leaving = true;
            self.parts.timers.set_after(SessionTimer::Closing, now, self.config.closing);
        }
        stays
    }

    /// Stays Established, unless this was the end of a retirement by weight 0, which has no deadline.
    pub(super) fn go_on(&mut self, now: Instant, live: Live) -> State {
        match live.protocol {
            Protocol::Sc02 if self.is_spare(&live) => {
                self.parts.act(Action::Hide);
                self.leave(now, Closing { live, left: false, signalled: false })
            }
            // A hub goes on to send what is bound to this provider, so it might never be empty: leave with a deadline.
            Protocol::Sc01 if self.is_done() => self.start_closing(now, live, false),
            Protocol::Sc01 | Protocol::Sc02 => State::Established(live),
        }
    }

    /// The hub shuts down; connections have until `asked`, or as configured if it is zero.
    pub(super) fn follow_hub(&mut self, now: Instant, live: Live, asked: Duration) -> State {
        match live.protocol {
            // The control datagram is answered with the same (Legacy protocol, Control datagrams).
            Protocol::Sc01 => {
                self.parts.act(Action::RefuseStreams);
                self.start_closing(now, live, false)
            }
            Protocol::Sc02 => {
                let asked = if asked.is_zero() { self.config.closing } else { asked };
                self.hide(now, Live { retiring: false, ..live }, asked.min(self.config.closing_max), false)
            }
        }
    }

    /// The address is not to be used any more: what can go on elsewhere goes, the rest drains.
    pub(super) fn move_away(&mut self, now: Instant, live: Live) -> State {
        let moving = live.protocol == Protocol::Sc02;
        if moving {
            self.parts.act(Action::MoveAway);
        }
        self.start_closing(now, Live { moving, ..live }, false)
    }

    /// Asks the hub for nothing new, then drains.
    pub(super) fn start_closing(&mut self, now: Instant, mut live: Live, signalled: bool) -> State {
        match live.protocol {
            Protocol::Sc01 => {
                self.parts.act(Action::SendNotifyShutdown);
                self.parts.timers.set_after(SessionTimer::Linger, now, self.config.notify);
            }
            Protocol::Sc02 => live = self.weigh(Live { retiring: self.role == Role::Provider, ..live }),
        }
        self.hide(now, live, self.config.closing, signalled)
    }

    fn hide(&mut self, now: Instant, live: Live, closing: Duration, signalled: bool) -> State {
        // A consumer that ends asks for nothing new, but what it has may have to begin again.
        if !live.resumes || self.role == Role::Provider {
            self.parts.act(Action::Hide);
        }
        self.parts.timers.stop(SessionTimer::Settled);
        if !self.leaving {
            self.parts.timers.set_after(SessionTimer::Closing, now, closing);
        }
        self.drain(now, Closing { live, left: false, signalled: signalled || self.leaving })
    }

    pub(super) fn drain(&mut self, now: Instant, closing: Closing) -> State {
        if !closing.left && self.is_finished(&closing.live) {
            self.leave(now, closing)
        } else {
            State::Closing(closing)
        }
    }

    /// Connections have had their time.
    pub(super) fn leave_behind(&mut self, now: Instant, closing: Closing) -> State {
        self.lose(closing.live);
        self.leave(now, Closing { live: Live { open: 0, ..closing.live }, ..closing })
    }

    /// No connection is left: says goodbye.
    fn leave(&mut self, now: Instant, closing: Closing) -> State {
        let live = closing.live;
        self.parts.timers.stop(SessionTimer::Closing);
        match live.protocol {
            Protocol::Sc02 => {
                if live.retiring {
                    self.parts.act(Action::SendDrained);
                }
                let code = if live.moving { SessionCode::PAUSED } else { SessionCode::OK };
                self.parts.act(Action::SendSessionClose { code });
                self.parts.timers.set_after(SessionTimer::Linger, now, self.config.close);
                State::Closing(Closing { left: true, ..closing })
            }
            // A close would overtake the control datagram (Endpoint session).
            Protocol::Sc01 if self.parts.timers.is_set(SessionTimer::Linger) => {
                State::Closing(Closing { left: true, ..closing })
            }
            Protocol::Sc01 => self.force(now, live, SessionCode::OK),
        }
    }

    /// Ends a session that is leaving, at once.
    pub(super) fn force(&mut self, now: Instant, live: Live, code: SessionCode) -> State {
        self.lose(live);
        self.parts.act(Action::Close { code });
        self.over(now, live)
    }

    /// After Closing.
    pub(super) fn over(&mut self, now: Instant, live: Live) -> State {
        if live.surplus && !self.leaving { self.reserve(now) } else { self.end(State::Closed) }
    }

    pub(super) fn lose(&mut self, live: Live) {
        if live.open > 0 {
            self.parts.act(Action::SessionLost);
        }
    }
}
