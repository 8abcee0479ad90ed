//! One session of an endpoint: its machine, its QUIC connection, and why it is not there.

mod addresses;
mod flow;
pub(in crate::spn::endpoint) mod links;
mod signs;
pub(in crate::spn::endpoint) mod streams;
mod turns;
mod wire;

use std::{net::SocketAddr, time::Instant};

use self::wire::Wire;
use crate::{
    machine::{Automaton as _, Deadlines, Hosted, Inspect as _, Machine as _},
    spn::endpoint::{
        machines::session::{Action, Event, Session, SessionTimer},
        ports::Due,
    },
};

/// A session with a hub address, in whatever state.
struct Link {
    remote: SocketAddr,
    machine: Hosted<Session>,
    /// When its last try began, or is to begin.
    begun: Instant,
    /// Why the session is not there, for people.
    reason: String,
    /// The hub that has answered last at this address,
    hub: Option<[u8; 16]>,
    /// whether its session is established,
    is_live: bool,
    /// and the one of which the host knows that the address is in reserve for it.
    reserved_for: Option<[u8; 16]>,
    /// The QUIC connection of the present try.
    wire: Option<Wire>,
}

impl Link {
    fn new(remote: SocketAddr, begun: Instant, machine: Session) -> Self {
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

    fn state(&self) -> &'static str {
        self.machine.state()
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline, due `at`, has come. Says whether the machine is to be drained.
    fn expire(&mut self, now: Instant, at: Instant) -> bool {
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

    fn next_action(&mut self, deadlines: &mut Deadlines<Due>, due: Due) -> Option<Action> {
        self.machine.next_action(deadlines, due)
    }

    /// Whether SESSION_OPEN is on its way.
    fn is_asking(&self) -> bool {
        self.machine.is_asking()
    }

    /// Whether RESUME_REQ may go to it: established, and not about to end.
    fn is_askable(&self) -> bool {
        self.machine.is_established() && self.wire.as_ref().is_some_and(Wire::is_askable)
    }

    /// Whether it is the established session with that hub.
    fn is_live_with(&self, hub: [u8; 16]) -> bool {
        self.is_live && self.hub == Some(hub)
    }

    /// Gives a reason why the session is not there, if there is none yet.
    fn explain(&mut self, reason: impl FnOnce() -> String) {
        if self.reason.is_empty() {
            self.reason = reason();
        }
    }

    fn establish(&mut self, standby: bool) {
        self.reason.clear();
        (self.is_live, self.reserved_for) = (true, None);
        if let Some(wire) = &mut self.wire {
            (wire.is_up, wire.is_usable, wire.is_standby) = (true, true, standby);
        }
    }

    fn stand_by(&mut self, standby: bool) {
        if let Some(wire) = &mut self.wire {
            wire.is_standby = standby;
        }
    }

    /// No new connection begins on it.
    fn hide(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.is_usable = false;
        }
    }

    /// SESSION_CLOSE is on its way.
    fn leave(&mut self) {
        if let Some(wire) = &mut self.wire {
            (wire.has_left, wire.is_usable) = (true, false);
        }
    }
}
