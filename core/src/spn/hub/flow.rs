//! Payload on its way: the turns of each direction, windows that grow, and directions whose target has no room.

use std::time::{Duration, Instant};

use super::{Due, Hub, connection::Event, relay::Found};
use crate::{quic::Handle, spn::Side};

/// A direction whose target has had no room for so long gets a window of its own,
const STALL_TIME: Duration = Duration::from_millis(50);
/// unless so many bytes have moved in that time: then it is the path that is full, and more in front of it would help nobody.
const FLOWING: u64 = 512 * 1024;

/// Where a direction stands between two turns.
#[derive(Debug, Default)]
pub(super) struct Turn {
    is_queued: bool,
    /// Its target has had no room since then, and what had been relayed by then.
    stalled: Option<(Instant, u64)>,
    is_reminded: bool,
    /// Bytes of the window of its own that it has, if it has one.
    parked: u64,
}

impl Turn {
    pub(super) fn parked(&self) -> u64 {
        self.parked
    }
}

impl Hub {
    pub(super) fn ready_to_move(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.machine.is_flowing(source) && !std::mem::replace(&mut connection.turn(source).is_queued, true) {
            self.ready.push_back((id, source));
        }
    }

    /// One turn of one direction.
    pub(super) fn pump(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.turn(source).is_queued = false;
        if !connection.machine.is_flowing(source) {
            return;
        }
        let (Some(from), Some(to)) = (connection.leg(source), connection.leg(source.other())) else { return };
        let direction = connection.relay.from(source);
        let before = direction.relayed();
        let found = direction.pump(&mut self.quic, from, to, &mut self.scratch);
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
            && let Some(window) = session.receive.pass(now, moved, || self.quic.rtt(from).unwrap_or_default())
        {
            self.quic.set_receive_window(from, window);
        }
        if let Some(session) = self.sessions.get_mut(&to)
            && let Some(window) = session.send.pass(now, moved, || self.quic.rtt(to).unwrap_or_default())
        {
            self.quic.set_send_window(to, window);
        }
    }

    /// A direction's target has no room. If that lasts, what is unread must not eat its neighbours' credit.
    fn stall(&mut self, now: Instant, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let relayed = connection.relay.from(source).relayed();
        let turn = connection.turn(source);
        turn.stalled.get_or_insert((now, relayed));
        if turn.parked == 0 && !std::mem::replace(&mut turn.is_reminded, true) {
            self.remind(now + STALL_TIME, Due::Stall(id, source));
        }
    }

    /// Without a provider nothing is read: that is a target without room, too.
    pub(super) fn stall_while_held(&mut self, now: Instant, id: u64) {
        if self.connections.get(&id).is_some_and(super::connections::Connection::is_held) {
            self.stall(now, id, Side::Consumer);
        }
    }

    pub(super) fn stall_timeout(&mut self, now: Instant, id: u64, source: Side) {
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
        // That of the session: another configuration may have been loaded since it began.
        let stream_window = session.receive.stream();
        if self.stalled + stream_window <= self.config.limits.relay_memory {
            turn.parked = stream_window;
            self.stalled += stream_window;
            self.quic.set_receive_window(from.session, session.receive.park());
        }
    }

    /// A direction has been read empty, or is over.
    pub(super) fn unstall(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let from = connection.leg(source);
        let turn = connection.turn(source);
        turn.stalled = None;
        let parked = std::mem::take(&mut turn.parked);
        self.stalled -= parked;
        if parked > 0
            && let Some(from) = from
            && let Some(session) = self.sessions.get_mut(&from.session)
        {
            self.quic.set_receive_window(from.session, session.receive.unpark());
        }
    }
}
