//! What a session's machine asks of the whole endpoint, and which connection gets which session.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Exchange, Parts};
use crate::spn::{
    Protocol, Role,
    endpoint::{
        binding::{
            conn::Conn,
            link::links::{Ended, Wish},
        },
        carrier::LinkId,
        context::Context,
        machines::{connection, session::Event},
        policy::silence::Sight,
        ports::Work,
    },
    wire::code::StreamCode,
};

/// The least time between the beginnings of two sessions with an address.
const MIN_REDIAL_INTERVAL: Duration = Duration::from_secs(1);

/// How much earlier IPv6 is dialled where a name has addresses of both families (RFC 8305 §8: Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

impl Exchange {
    /// Gives every listed address that has no session one, if sessions are to be made.
    pub(in crate::spn::endpoint) fn begin_sessions(&mut self, cx: &mut Context<'_>) {
        if !cx.phase.wants_sessions(cx.now, self.parts.conns.waiting()) {
            return;
        }
        let (v6, v4): (Vec<_>, Vec<_>) = self.parts.links.missing().into_iter().partition(SocketAddr::is_ipv6);
        // Both families are dialled; of two addresses of one hub the first that answers keeps the session.
        let second = if v6.is_empty() { cx.now } else { cx.now + HEAD_START };
        for (remotes, at) in [(v6, cx.now), (v4, second)] {
            for remote in remotes {
                self.add_link(cx, remote, at);
            }
        }
    }

    /// Begins a session with an address, `at` that time.
    fn add_link(&mut self, cx: &mut Context<'_>, remote: SocketAddr, at: Instant) {
        let machine = cx.setup.session(cx.phase.time_left(cx.now));
        let id = self.parts.links.add(cx.now, remote, at, machine, cx.ports);
        if self.parts.conns.waiting() > 0 {
            cx.ports.post_link(id, Event::Needed { needed: true });
        }
        if let Some(event) = cx.phase.missed() {
            cx.ports.post_link(id, event);
        }
    }

    pub(in crate::spn::endpoint) fn expire_link(&mut self, cx: &mut Context<'_>, at: Instant, id: LinkId) {
        if self.parts.links.expire(cx.now, at, id) {
            self.run_link(cx, id);
        }
    }

    /// Does what the session's machine asks for.
    pub(super) fn run_link(&mut self, cx: &mut Context<'_>, id: LinkId) {
        while let Some(wish) = self.parts.links.next_wish(cx.now, id, cx.setup, cx.ports) {
            match wish {
                Wish::Established { standby } => self.on_established(cx, id, standby),
                Wish::MoveAway => self.parts.move_away(cx, id),
                Wish::SessionLost => self.parts.lose_conns(cx, id),
                Wish::Ended { again } => self.on_ended(cx, id, again),
            }
        }
        self.pass_turn(cx);
    }

    /// Lets the next session ask its hub, if none does.
    pub(in crate::spn::endpoint) fn pass_turn(&mut self, cx: &mut Context<'_>) {
        if let Some(id) = self.parts.links.pass_turn() {
            // At once: it asks before anybody looks again.
            self.link_event(cx, id, Event::Connected { protocol: Protocol::Sc02 });
        }
    }

    fn on_established(&mut self, cx: &mut Context<'_>, id: LinkId, standby: bool) {
        self.parts.links.establish(id, standby, cx.ports);
        self.parts.ask_new_session(cx, id);
        if !cx.setup.is_consumer() {
            self.standstill.begin(cx.now);
            if let Some(wire) = self.parts.links.wire_mut(id) {
                wire.listen(cx.now, cx.ports);
            }
        }
        cx.ports.post(Work::Early(id));
    }

    /// The machine is at its end; another one takes its place if the address is still wanted.
    fn on_ended(&mut self, cx: &mut Context<'_>, id: LinkId, again: bool) {
        let Some(Ended { remote, begun }) = self.parts.links.end(cx.now, id, cx.ports) else { return };
        // After a hub's shutdown the address is tried again at once, if it is still listed (Endpoint session); but a hub that lets us in
        // only to send us away is not asked more than once a second.
        if again && cx.phase.wants_sessions(cx.now, self.parts.conns.waiting()) && self.parts.links.is_listed(&remote) {
            self.add_link(cx, remote, cx.now.max(begun + MIN_REDIAL_INTERVAL));
        }
    }

    /// Gives the connections that wait for a session one, in order, as long as there is room.
    pub(in crate::spn::endpoint) fn serve_queue(&mut self, cx: &mut Context<'_>) {
        while let Some(conn) = self.parts.queue.first() {
            let Some(id) = self.parts.links.best(cx.ports) else { return };
            let Some(wire) = self.parts.links.wire_mut(id) else { return };
            let Some(stream) = wire.open_stream(cx.ports) else { continue };
            wire.streams_mut().add(stream, conn);
            let carrier = wire.carrier(stream);
            // First of all: `request_provider_start` goes before the first stream.
            self.link_event(cx, id, Event::ConnectionOpened);
            self.carry(cx, conn, carrier);
            if let Some(wire) = self.parts.links.wire_mut(id) {
                wire.listen(cx.now, cx.ports);
            }
        }
    }
}

impl Parts {
    /// The connections on the session that can go on on another one leave it.
    fn move_away(&mut self, cx: &mut Context<'_>, id: LinkId) {
        for conn in self.links.desert(id) {
            let machine = self.conns.get(conn).map(Conn::machine);
            if machine.is_some_and(|machine| machine.is_resumable() && machine.can_resume()) {
                cx.ports.post_conn(conn, connection::Event::StreamReset { code: StreamCode::PAUSED });
            }
        }
    }

    /// The session is lost, and so are the streams of its connections.
    fn lose_conns(&mut self, cx: &mut Context<'_>, id: LinkId) {
        let Some(wire) = self.links.wire(id) else { return };
        for conn in wire.streams().conns() {
            if let Some(conn) = self.conns.get_mut(conn) {
                conn.lose_stream(wire.roster());
            }
        }
        let (conns, is_disowned) = self.links.lose(id);
        let resumes = cx.setup.config().resume;
        // Of these two, no connection comes back.
        let event = if resumes && is_disowned {
            connection::Event::StreamReset { code: StreamCode::NOT_ENTITLED }
        } else if resumes && cx.phase.is_out_of_time(cx.now) {
            connection::Event::StreamReset { code: StreamCode::PARTNER_LOST }
        } else {
            connection::Event::SessionLost
        };
        for conn in conns {
            cx.ports.post_conn(conn, event.clone());
        }
        self.forget_session(cx, id);
    }

    /// Looks whether a session's hub has fallen silent under its connections.
    pub(in crate::spn::endpoint) fn expire_silence(&mut self, cx: &mut Context<'_>, id: LinkId) {
        let Self { links, conns, .. } = self;
        let Some(wire) = links.wire_mut(id) else { return };
        let (signs, streams) = wire.signs_mut();
        let config = cx.setup.config();
        let sight = |heard| Sight {
            role: config.role,
            heard,
            waits: config.role == Role::Consumer
                && streams.conns().any(|conn| conns.get(conn).is_some_and(Conn::is_unheard)),
            in_use: conns.waiting() > 0 || !streams.is_empty(),
            keep_alive: Duration::from_millis(config.transport.keep_alive_ms.into()),
        };
        signs.look(cx.now, sight, cx.ports);
    }
}
