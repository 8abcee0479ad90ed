//! The handlers, one for each state.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Action, Alive, Event, Offer, Peer, Role, Session, State, Timer, Violation, Why};
use crate::{machine::later, pipe::wire::sync::SyncConfig};

/// Events that belong to a state that is over, or not there yet. The host has no reason to send some of them.
macro_rules! on {
    (local) => {
        Event::Sent | Event::Flushed | Event::ReadHeld | Event::ReadResumed
    };
    (ends) => {
        Event::WireEnded | Event::WireFailed | Event::BadBytes | Event::Overload
    };
    (peer) => {
        Event::Sync(_) | Event::SyncShort | Event::Message | Event::Ping | Event::UnknownControl { .. }
    };
}

impl Session {
    pub(super) fn idle(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::WireUp { role } => {
                self.parts.timers.set_after(Timer::Handshake, now, self.config.handshake);
                if role == Role::Client {
                    let version = match self.config.peer {
                        Peer::Deployed => SyncConfig::DEPLOYED,
                        Peer::Towline => SyncConfig::TOWLINE,
                    };
                    let (ping, timeout) = (self.config.ping, self.config.timeout);
                    self.parts.act(Action::SendSync(Offer { version, session_id: Uuid::nil(), ping, timeout }));
                }
                State::AwaitSync(role)
            }
            Event::End { .. } => self.never_began(Why::Ended),
            on!(local) | on!(ends) | on!(peer) | Event::ControlClose => self.parts.ignore(State::Idle),
        }
    }

    pub(super) fn await_sync(&mut self, now: Instant, event: Event, role: Role) -> State {
        match event {
            Event::Sync(offer) => match role {
                Role::Client => self.answered(now, offer),
                Role::Server => self.asked(now, offer),
            },
            Event::SyncShort => self.violation(now, Violation::ShortSync),
            // Even a Control Close (SYN-6).
            Event::Message | Event::Ping | Event::UnknownControl { .. } | Event::ControlClose => {
                self.violation(now, Violation::NoSync)
            }
            // There is nothing to drain, and the peer would take a Control Close for a violation.
            Event::End { .. } => {
                self.end_pipes();
                self.close_wire(Why::Ended, true)
            }
            Event::WireUp { .. } | on!(local) | on!(ends) => self.parts.ignore(State::AwaitSync(role)),
        }
    }

    /// The server has the client's SyncConfig.
    fn asked(&mut self, now: Instant, offer: Offer) -> State {
        if offer.version >> 8 != 0 {
            return self.violation(now, Violation::Version(offer.version));
        }
        if !offer.session_id.is_nil() {
            return self.violation(now, Violation::OldSession);
        }
        let answer = Offer {
            version: if offer.version == SyncConfig::TOWLINE { offer.version } else { SyncConfig::DEPLOYED },
            session_id: self.config.session_id,
            ping: self.config.pings.clamp(offer.ping),
            timeout: self.config.timeouts.clamp(offer.timeout),
        };
        self.parts.act(Action::SendSync(answer));
        let (every, silence) = (seconds(answer.ping), seconds(answer.timeout));
        let pings = Alive::Pings { silence, every, sent: now, received: now, pinged: now };
        let is_watched = answer.version == SyncConfig::TOWLINE;
        self.opened(now, answer, if is_watched { pings } else { Alive::Unwatched })
    }

    /// The client has the server's answer.
    fn answered(&mut self, now: Instant, answer: Offer) -> State {
        if answer.version >> 8 != 0 {
            return self.violation(now, Violation::Version(answer.version));
        }
        if answer.session_id.is_nil() {
            return self.violation(now, Violation::NilSession);
        }
        let is_watched = self.config.peer == Peer::Towline && answer.version == SyncConfig::TOWLINE;
        let answers = Alive::Answers { silence: seconds(answer.timeout) };
        self.opened(now, answer, if is_watched { answers } else { Alive::Unwatched })
    }

    fn opened(&mut self, now: Instant, agreed: Offer, alive: Alive) -> State {
        self.parts.timers.stop(Timer::Handshake);
        self.parts.act(Action::Opened(agreed));
        self.watch(now, &alive);
        State::Open(alive)
    }

    pub(super) fn open(&mut self, now: Instant, event: Event, mut alive: Alive) -> State {
        match event {
            Event::Message => {
                self.heard(now, &mut alive);
                self.parts.act(Action::HandOn);
                State::Open(alive)
            }
            Event::Ping => match &alive {
                Alive::Unwatched => self.violation(now, Violation::Ping),
                Alive::Answers { .. } => {
                    self.parts.act(Action::SendPing);
                    self.heard(now, &mut alive);
                    State::Open(alive)
                }
                // The answer to its own.
                Alive::Pings { .. } => {
                    self.heard(now, &mut alive);
                    State::Open(alive)
                }
            },
            Event::Sent => {
                if let Alive::Pings { sent, .. } = &mut alive {
                    *sent = now;
                    self.arm_ping(&alive);
                }
                State::Open(alive)
            }
            // Whoever does not listen cannot say that the peer is silent.
            Event::ReadHeld => {
                self.parts.timers.stop(Timer::Silence);
                State::Open(alive)
            }
            Event::ReadResumed => {
                self.heard(now, &mut alive);
                State::Open(alive)
            }
            Event::Sync(_) | Event::SyncShort => self.violation(now, Violation::SecondSync),
            Event::UnknownControl { code } => self.violation(now, Violation::UnknownControl(code)),
            Event::ControlClose => {
                self.end_pipes();
                self.close_wire(Why::PeerClosed, true)
            }
            Event::End { .. } => {
                self.end_pipes();
                self.parts.act(Action::Flush);
                self.parts.timers.set_after(Timer::Drain, now, self.config.drain);
                State::Draining(Why::Ended)
            }
            Event::WireUp { .. } | Event::Flushed | on!(ends) => self.parts.ignore(State::Open(alive)),
        }
    }

    pub(super) fn draining(&mut self, now: Instant, event: Event, why: Why) -> State {
        match event {
            Event::Flushed => self.say_close(now, why),
            // It is as if it had been there a moment earlier.
            Event::ControlClose => self.close_wire(why, true),
            // Nothing that comes means anything any more (SES-7).
            Event::WireUp { .. }
            | Event::Sent
            | Event::ReadHeld
            | Event::ReadResumed
            | Event::End { .. }
            | on!(peer)
            | on!(ends) => self.parts.ignore(State::Draining(why)),
        }
    }

    pub(super) fn closing(&mut self, event: Event, why: Why) -> State {
        match event {
            Event::Flushed | Event::ControlClose => self.close_wire(why, true),
            Event::WireUp { .. }
            | Event::Sent
            | Event::ReadHeld
            | Event::ReadResumed
            | Event::End { .. }
            | on!(peer)
            | on!(ends) => self.parts.ignore(State::Closing(why)),
        }
    }

    /// A ping interval has passed in which nothing left, or nothing came.
    pub(super) fn ping(&mut self, now: Instant, mut alive: Alive) -> State {
        if let Alive::Pings { pinged, .. } = &mut alive {
            *pinged = now;
            self.parts.act(Action::SendPing);
            self.arm_ping(&alive);
        }
        State::Open(alive)
    }

    /// A message has come.
    fn heard(&mut self, now: Instant, alive: &mut Alive) {
        if let Alive::Pings { received, .. } = alive {
            *received = now;
        }
        self.watch(now, alive);
    }

    /// Sets the timers of a session that is watched.
    fn watch(&mut self, now: Instant, alive: &Alive) {
        match alive {
            Alive::Unwatched => {}
            Alive::Answers { silence } | Alive::Pings { silence, .. } => {
                self.parts.timers.set_after(Timer::Silence, now, *silence);
                self.arm_ping(alive);
            }
        }
    }

    /// The longer of both silences counts; and a ping has an interval of its own to be answered.
    fn arm_ping(&mut self, alive: &Alive) {
        if let Alive::Pings { every, sent, received, pinged, .. } = alive {
            self.parts.timers.set(Timer::Ping, later(*sent.min(received).max(pinged), *every));
        }
    }

    /// The peer broke a rule: its pipes end, it is told, and the byte stream is closed.
    pub(super) fn violation(&mut self, now: Instant, violation: Violation) -> State {
        self.end_pipes();
        self.say_close(now, Why::Violation(violation))
    }

    fn end_pipes(&mut self) {
        self.parts.timers.stop_all();
        self.parts.act(Action::EndPipes);
    }

    pub(super) fn say_close(&mut self, now: Instant, why: Why) -> State {
        self.parts.timers.stop(Timer::Drain);
        self.parts.act(Action::SendClose);
        self.parts.act(Action::Flush);
        self.parts.timers.set_after(Timer::Flush, now, self.config.flush);
        State::Closing(why)
    }

    pub(super) fn close_wire(&mut self, why: Why, graceful: bool) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::CloseWire { graceful });
        self.parts.act(Action::Closed { why });
        State::Closed
    }

    /// It is over at once, and nothing more is sent.
    pub(super) fn cut(&mut self, state: State, cause: Why) -> State {
        match state {
            State::Idle if cause == Why::Forced => self.never_began(cause),
            // There is no byte stream that could have ended.
            State::Idle => self.parts.ignore(State::Idle),
            State::AwaitSync(_) | State::Open(_) => {
                self.end_pipes();
                self.close_wire(cause, !matches!(cause, Why::Forced | Why::Lost | Why::Silent | Why::Overload))
            }
            // What comes means nothing any more (SES-7), and the peer may still take what goes.
            state @ (State::Draining(_) | State::Closing(_)) if cause == Why::Undecodable => self.parts.ignore(state),
            state @ State::Closing(_) if cause == Why::PeerLeft => self.parts.ignore(state),
            // The reason is that of the first end.
            State::Draining(why) | State::Closing(why) => self.close_wire(why, cause == Why::PeerLeft),
            State::Closed => State::Closed,
        }
    }

    fn never_began(&mut self, why: Why) -> State {
        self.parts.act(Action::Closed { why });
        State::Closed
    }
}

/// A peer's number of seconds; a server of ours has no negative one, and another's counts as none.
fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0).max(1))
}
