//! One session of an endpoint: its machine, its QUIC connection, and why it is not there.

use std::{net::SocketAddr, time::Instant};

use super::wire::Wire;
use crate::{
    machine::{Automaton as _, Deadlines, Hosted, Inspect as _, Machine as _},
    spn::endpoint::{
        machines::session::{Action, Event, Session, SessionTimer},
        parts::ports::Due,
    },
};

/// A session with a hub address, in whatever state.
pub(super) struct Link {
    pub(super) remote: SocketAddr,
    machine: Hosted<Session>,
    /// When its last try began, or is to begin.
    pub(super) begun: Instant,
    /// Why the session is not there, for people.
    pub(super) reason: String,
    /// The hub that has answered last at this address,
    pub(super) hub: Option<[u8; 16]>,
    /// whether its session is established,
    pub(super) is_live: bool,
    /// and the one of which the host knows that the address is in reserve for it.
    pub(super) reserved_for: Option<[u8; 16]>,
    /// The QUIC connection of the present try.
    pub(super) wire: Option<Wire>,
}

impl Link {
    pub(super) fn new(remote: SocketAddr, begun: Instant, machine: Session) -> Self {
        Self {
            remote,
            machine: Hosted::new(machine),
            begun,
            reason: String::new(),
            hub: None,
            is_live: false,
            reserved_for: None,
            wire: None,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        self.machine.state()
    }

    pub(super) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline, due `at`, has come. Says whether the machine is to be drained.
    pub(super) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        let due = self.machine.parts().timers.next().filter(|(due, _)| *due <= now);
        let is_current = self.machine.expire(now, at);
        if is_current {
            match due {
                Some((_, SessionTimer::Handshake)) => "the hub does not answer".clone_into(&mut self.reason),
                Some((_, SessionTimer::Ack)) => "the hub does not answer SESSION_OPEN".clone_into(&mut self.reason),
                Some(_) | None => {}
            }
        }
        is_current
    }

    pub(super) fn next_action(&mut self, deadlines: &mut Deadlines<Due>, due: Due) -> Option<Action> {
        self.machine.next_action(deadlines, due)
    }

    /// Whether SESSION_OPEN is on its way.
    pub(super) fn is_asking(&self) -> bool {
        self.machine.is_asking()
    }

    /// Whether it was established and is no more, which is noted once.
    pub(super) fn take_loss(&mut self) -> bool {
        let is_lost = self.is_live && !self.machine.is_established();
        self.is_live &= !is_lost;
        is_lost
    }

    /// Whether RESUME_REQ may go to it: established, and not about to end.
    pub(super) fn is_askable(&self) -> bool {
        self.machine.is_established() && self.wire.as_ref().is_some_and(Wire::is_askable)
    }

    /// Whether it is the established session with that hub.
    pub(super) fn is_live_with(&self, hub: [u8; 16]) -> bool {
        self.is_live && self.hub == Some(hub)
    }

    /// Gives a reason why the session is not there, if there is none yet.
    pub(super) fn explain(&mut self, reason: impl FnOnce() -> String) {
        if self.reason.is_empty() {
            self.reason = reason();
        }
    }

    pub(super) fn establish(&mut self, standby: bool) {
        self.reason.clear();
        (self.is_live, self.reserved_for) = (true, None);
        if let Some(wire) = &mut self.wire {
            (wire.is_up, wire.is_usable, wire.is_standby) = (true, true, standby);
        }
    }

    pub(super) fn stand_by(&mut self, standby: bool) {
        if let Some(wire) = &mut self.wire {
            wire.is_standby = standby;
        }
    }

    /// No new connection begins on it.
    pub(super) fn hide(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.is_usable = false;
        }
    }

    /// SESSION_CLOSE is on its way.
    pub(super) fn leave(&mut self) {
        if let Some(wire) = &mut self.wire {
            (wire.has_left, wire.is_usable) = (true, false);
        }
    }
}
