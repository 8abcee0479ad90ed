//! Payload on its way: the turns of each direction, windows that grow, and directions whose target has no room.

use std::time::{Duration, Instant};

use super::relay::Found;
use crate::{
    quic::Handle,
    spn::{
        Side,
        flow::window::REST,
        hub::{Due, Hub, machines::connection::Event},
    },
};

/// What a direction leaves unread whose target has had no room for so long comes on top of its session's window,
const STALL_TIME: Duration = Duration::from_millis(50);
/// unless so many bytes have moved in that time: then it is the path that is full, and more in front of it would help nobody.
const FLOWING: u64 = 512 * 1024;
/// What stalled streams hold is looked at at least so often (CTL-16).
const STALL_LOOK: Duration = Duration::from_millis(200);

/// Where a direction stands between two turns.
#[derive(Debug, Default)]
pub(super) struct Turn {
    is_queued: bool,
    /// Its target has had no room since then, and what had been relayed by then.
    stalled: Option<(Instant, u64)>,
    is_reminded: bool,
    /// What it leaves unread comes on top of the session's window.
    is_parked: bool,
}

impl Hub {
    pub(super) fn ready_to_move(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.machine.is_flowing(source) && !std::mem::replace(&mut connection.turn(source).is_queued, true) {
            self.ready.push_back((id, source));
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
        let merge = self.sessions.get(&to.session).is_some_and(|session| session.send.grown() > 0);
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
        let most = self.config.limits.relay_memory / 2;
        if let Some(session) = self.sessions.get_mut(&from) {
            let (before, room) = (session.receive.grown(), most.saturating_sub(self.grown));
            if let Some(window) = session.receive.pass(now, moved, room, || self.quic.rtt(from).unwrap_or_default()) {
                self.quic.set_receive_window(from, window);
                self.grown = self.grown - before + session.receive.grown();
                self.remind_to_rest(now, from);
            }
        }
        if let Some(session) = self.sessions.get_mut(&to) {
            let (before, room) = (session.send.grown(), most.saturating_sub(self.grown));
            if let Some(window) = session.send.pass(now, moved, room, || self.quic.rtt(to).unwrap_or_default()) {
                self.quic.set_send_window(to, window);
                self.grown = self.grown - before + session.send.grown();
                self.remind_to_rest(now, to);
            }
        }
    }

    fn remind_to_rest(&mut self, now: Instant, handle: Handle) {
        if let Some(session) = self.sessions.get_mut(&handle)
            && session.receive.grown() + session.send.grown() > 0
            && !std::mem::replace(&mut session.rests, true)
        {
            self.remind(now + REST, Due::Rest(handle));
        }
    }

    /// Windows that have grown and are not used are small again.
    pub(in crate::spn::hub) fn rest_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.rests = false;
        let before = session.receive.grown() + session.send.grown();
        if let Some(window) = session.receive.rest(now) {
            self.quic.set_receive_window(handle, window);
        }
        if let Some(window) = session.send.rest(now) {
            self.quic.set_send_window(handle, window);
        }
        self.grown = self.grown - before + session.receive.grown() + session.send.grown();
        self.remind_to_rest(now, handle);
    }

    /// A direction's target has no room. If that lasts, what is unread must not eat its neighbours' credit.
    fn stall(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let relayed = connection.relay.from(source).relayed();
        let turn = connection.turn(source);
        turn.stalled.get_or_insert((now, relayed));
        if !turn.is_parked && !std::mem::replace(&mut turn.is_reminded, true) {
            self.remind(now + STALL_TIME, Due::Stall(id, source));
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
        turn.is_reminded = false;
        let (Some((since, before)), Some(from)) = (turn.stalled, from) else { return };
        let later = if now < since + STALL_TIME {
            Some((since, before))
        } else if relayed - before >= FLOWING {
            Some((now, relayed))
        } else {
            None
        };
        if let Some((since, _)) = later {
            (turn.stalled, turn.is_reminded) = (later, true);
            return self.remind(since + STALL_TIME, Due::Stall(id, source));
        }
        let Some(session) = self.sessions.get_mut(&from.session) else { return };
        turn.is_parked = true;
        session.receive.stall(self.quic.arrived(from.session));
        self.look_at_stalled(now, from.session);
    }

    /// What a session's stalled streams may hold comes on top of its window. It is looked at again soon while it changes.
    fn look_at_stalled(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let (before, room) = (session.receive.parked(), self.config.limits.relay_memory.saturating_sub(self.stalled));
        let window = session.receive.park(self.quic.arrived(handle), room);
        self.stalled = self.stalled - before + session.receive.parked();
        if let Some(window) = window {
            self.quic.set_receive_window(handle, window);
        }
        let next = if window.is_some() { STALL_TIME } else { STALL_LOOK };
        if !std::mem::replace(&mut session.stall_look, true) {
            self.remind(now + next, Due::Stalled(handle));
        }
    }

    pub(in crate::spn::hub) fn stalled_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.stall_look = false;
        if session.receive.is_stalled() {
            self.look_at_stalled(now, handle);
        }
    }

    /// A direction has been read empty, or is over.
    pub(super) fn unstall(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let from = connection.leg(source);
        let turn = connection.turn(source);
        turn.stalled = None;
        if std::mem::take(&mut turn.is_parked)
            && let Some(from) = from
            && let Some(session) = self.sessions.get_mut(&from.session)
        {
            let before = session.receive.parked();
            let window = session.receive.unstall();
            self.stalled = self.stalled - before + session.receive.parked();
            if let Some(window) = window {
                self.quic.set_receive_window(from.session, window);
            }
        }
    }
}
