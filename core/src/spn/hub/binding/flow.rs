//! Payload on its way: the turns of each direction, windows that grow, and directions whose target has no room.

use std::time::Instant;

use super::relay::Found;
use crate::{
    quic::Handle,
    spn::{
        Side,
        flow::stall::Look,
        hub::{Due, Hub, machines::connection::Event},
    },
};

impl Hub {
    /// A direction may be able to move something. Preambles go before payload: when a session's window is exhausted, and what becomes free is
    /// taken by those that come first, a resumed connection must not wait for its preamble until `pause_max` has passed.
    pub(in crate::spn::hub) fn ready_to_move(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.machine.is_flowing(source) && !std::mem::replace(&mut connection.turn(source).is_queued, true) {
            if connection.relay.from(source).has_passed_preamble() {
                self.ready.push_back((id, source));
            } else {
                self.ready.push_front((id, source));
            }
        }
    }

    /// One turn of one direction.
    pub(in crate::spn::hub) fn pump(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.turn(source).is_queued = false;
        if !connection.machine.is_flowing(source) {
            return;
        }
        let (Some(from), Some(to)) = (connection.leg(source), connection.leg(source.other())) else { return };
        let merge = self.sessions.get(&to.session).is_some_and(|session| session.windows.sends_more());
        let direction = connection.relay.from(source);
        let before = direction.relayed();
        let found = direction.pump(&mut self.quic, from, to, &mut self.scratch, merge);
        let moved = direction.relayed() - before;
        let answers = source == Side::Provider && !connection.answered && direction.has_read();
        if answers {
            connection.answered = true;
            self.answered(now, id);
        }
        self.pass_windows(now, from.session, to.session, moved);
        match found {
            Found::Wait { stalled: true } => self.stall(now, id, source),
            Found::Wait { stalled: false } => self.unstall(id, source),
            Found::Again => self.ready_to_move(id, source),
            Found::Fin => self.connection_event(now, id, Event::Fin { side: source }),
            Found::Reset(code) => {
                let code = self.passed_on(id, source, code);
                self.connection_event(now, id, Event::Reset { side: source, code });
            }
            Found::Stop(code) => {
                let side = source.other();
                let code = self.passed_on(id, side, code);
                self.connection_event(now, id, Event::Stop { side, code });
            }
            // The session's own end follows.
            Found::Gone => {}
        }
    }

    /// Lets windows grow where payload needs it.
    fn pass_windows(&mut self, now: Instant, from: Handle, to: Handle, moved: u64) {
        if moved == 0 {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&from)
            && let Some(at) = session.windows.received(now, moved, &mut self.budget, &mut self.quic, from)
        {
            self.remind(at, Due::Rest(from));
        }
        if let Some(session) = self.sessions.get_mut(&to)
            && let Some(at) = session.windows.sent(now, moved, &mut self.budget, &mut self.quic, to)
        {
            self.remind(at, Due::Rest(to));
        }
    }

    /// Windows that have grown and are not used are small again.
    pub(in crate::spn::hub) fn rest_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if let Some(at) = session.windows.rest(now, &mut self.budget, &mut self.quic, handle) {
            self.remind(at, Due::Rest(handle));
        }
    }

    /// A direction's target has no room. If that lasts, what is unread must not eat its neighbours' credit.
    fn stall(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let relayed = connection.relay.from(source).relayed();
        let turn = connection.turn(source);
        if let Some(at) = turn.stall.begin(now, relayed, turn.is_parked) {
            self.remind(at, Due::Stall(id, source));
        }
    }

    /// Without a provider nothing is read: that is a target without room, too.
    pub(super) fn stall_while_held(&mut self, now: Instant, id: u64) {
        if self.connections.get(&id).is_some_and(super::conn::Connection::is_held) {
            self.stall(now, id, Side::Consumer);
        }
    }

    pub(in crate::spn::hub) fn stall_timeout(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, relayed) = (connection.leg(source), connection.relay.from(source).relayed());
        let turn = connection.turn(source);
        match turn.stall.look(now, relayed, from.is_some()) {
            Look::Over => {}
            Look::Again(at) => self.remind(at, Due::Stall(id, source)),
            Look::Stalled => {
                let Some(handle) = from.map(|from| from.session) else { return };
                let Some(session) = self.sessions.get_mut(&handle) else { return };
                turn.is_parked = true;
                if let Some(at) = session.windows.stall(now, &mut self.budget, &mut self.quic, handle) {
                    self.remind(at, Due::Stalled(handle));
                }
            }
        }
    }

    pub(in crate::spn::hub) fn stalled_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if let Some(at) = session.windows.look(now, &mut self.budget, &mut self.quic, handle) {
            self.remind(at, Due::Stalled(handle));
        }
    }

    /// A direction has been read empty, or is over.
    pub(super) fn unstall(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let from = connection.leg(source);
        let turn = connection.turn(source);
        turn.stall.end();
        if std::mem::take(&mut turn.is_parked)
            && let Some(from) = from
            && let Some(session) = self.sessions.get_mut(&from.session)
        {
            session.windows.unstall(&mut self.budget, &mut self.quic, from.session);
        }
    }
}
