//! The session with one hub address: what its machine asks of the whole endpoint, and what QUIC says of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    quic,
    spn::{
        Protocol, Role,
        endpoint::{
            Endpoint,
            carrier::LinkId,
            machines::{connection, session::Event},
            parts::{
                conn::Conn,
                link::{Ended, Wish},
                ports::Work,
            },
            policy::silence::Sight,
        },
        wire::{code, control::ControlError},
    },
};

/// The least time between the beginnings of two sessions with an address.
const MIN_REDIAL_INTERVAL: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Begins a session with an address, `at` that time.
    pub(in crate::spn::endpoint) fn add_link(&mut self, now: Instant, remote: SocketAddr, at: Instant) {
        let machine = self.setup.session(self.phase.time_left(now));
        let id = self.links.add(now, remote, at, machine, &mut self.ports);
        if self.conns.waiting() > 0 {
            self.ports.post_link(id, Event::Needed { needed: true });
        }
        if let Some(event) = self.phase.missed() {
            self.ports.post_link(id, event);
        }
    }

    pub(in crate::spn::endpoint) fn link_event(&mut self, now: Instant, id: LinkId, event: Event) {
        self.links.handle_event(now, id, event);
        self.run_link(now, id);
    }

    pub(in crate::spn::endpoint) fn expire_link(&mut self, now: Instant, at: Instant, id: LinkId) {
        if self.links.expire(now, at, id) {
            self.run_link(now, id);
        }
    }

    /// Does what the session's machine asks for.
    fn run_link(&mut self, now: Instant, id: LinkId) {
        while let Some(wish) = self.links.next_wish(now, id, &self.setup, &mut self.ports) {
            match wish {
                Wish::Established { standby } => self.on_established(now, id, standby),
                Wish::MoveAway => self.move_away(id),
                Wish::SessionLost => self.lose_conns(now, id),
                Wish::Ended { again } => self.on_ended(now, id, again),
            }
        }
        self.links.note_loss(id, &mut self.ports);
        self.pass_turn(now);
    }

    /// Lets the next session ask its hub, if none does.
    fn pass_turn(&mut self, now: Instant) {
        if let Some(id) = self.links.pass_turn() {
            // At once: it asks before anybody looks again.
            self.link_event(now, id, Event::Connected { protocol: Protocol::Sc02 });
        }
    }

    fn on_established(&mut self, now: Instant, id: LinkId, standby: bool) {
        self.links.establish(id, standby, &mut self.ports);
        self.ask_new_session(id);
        if !self.setup.is_consumer() {
            self.standstill.begin(now);
            if let Some(wire) = self.links.wire_mut(id) {
                wire.listen(now, &mut self.ports);
            }
        }
        self.ports.post(Work::Early(id));
    }

    /// The machine is at its end; another one takes its place if the address is still wanted.
    fn on_ended(&mut self, now: Instant, id: LinkId, again: bool) {
        let Some(Ended { remote, begun }) = self.links.end(now, id, &mut self.ports) else { return };
        // After a hub's shutdown the address is tried again at once, if it is still listed (Endpoint session); but a hub that lets us in
        // only to send us away is not asked more than once a second.
        if again && self.phase.wants_sessions(now, self.conns.waiting()) && self.links.is_listed(&remote) {
            self.add_link(now, remote, now.max(begun + MIN_REDIAL_INTERVAL));
        }
    }

    /// The connections on the session that can go on on another one leave it.
    fn move_away(&mut self, id: LinkId) {
        for conn in self.links.desert(id) {
            let machine = self.conns.get(conn).map(Conn::machine);
            if machine.is_some_and(|machine| machine.is_resumable() && machine.can_resume()) {
                self.ports.post_conn(conn, connection::Event::StreamReset { code: code::PAUSED });
            }
        }
    }

    /// The session is lost, and so are the streams of its connections.
    fn lose_conns(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.wire(id) else { return };
        for conn in wire.streams().conns() {
            if let Some(conn) = self.conns.get_mut(conn) {
                conn.lose_stream(wire.roster());
            }
        }
        let (conns, is_disowned) = self.links.lose(id);
        let resumes = self.setup.config().resume;
        // Of these two, no connection comes back.
        let event = if resumes && is_disowned {
            connection::Event::StreamReset { code: code::NOT_ENTITLED }
        } else if resumes && self.phase.is_out_of_time(now) {
            connection::Event::StreamReset { code: code::PARTNER_LOST }
        } else {
            connection::Event::SessionLost
        };
        for conn in conns {
            self.ports.post_conn(conn, event.clone());
        }
        self.forget_session(id);
    }

    pub(in crate::spn::endpoint) fn quic_event(&mut self, now: Instant, id: LinkId, event: quic::Event) {
        let Self { links, ports, .. } = self;
        let Some(wire) = links.wire_mut(id) else { return };
        match event {
            quic::Event::Connected { alpn, peer: _ } => {
                links.take_handshake(now, id, &alpn, ports);
                self.pass_turn(now);
            }
            quic::Event::Incoming { .. } => {}
            quic::Event::StreamOpened(stream) => self.on_stream_opened(now, id, stream),
            quic::Event::StreamsAvailable => {
                wire.note_credit();
                ports.note_room();
                self.serve_legs(now, id);
            }
            quic::Event::Readable(stream) if wire.is_control(stream) => self.read_control(now, id),
            quic::Event::Readable(stream) => match wire.streams().conn(stream) {
                Some(conn) => self.on_readable(now, conn),
                None => {
                    self.read_preamble(now, id, stream);
                    self.links.note_weight(id, &mut self.ports);
                }
            },
            quic::Event::Writable(stream) if wire.is_control(stream) => ports.note_frames(),
            quic::Event::Writable(stream) => {
                if let Some(conn) = wire.streams().conn(stream).and_then(|conn| self.conns.get_mut(conn)) {
                    conn.note_writable(ports);
                }
            }
            quic::Event::Stopped(stream, _) if wire.is_control(stream) => {
                links.violation(id, code::CONTROL_LOST, ControlError::Ended.to_string(), ports);
            }
            quic::Event::Stopped(stream, code) => match wire.streams().conn(stream) {
                Some(conn) => self.conn_event(now, conn, connection::Event::StreamStopped { code }),
                // What has moved to another provider must not begin here, too.
                None if code == code::NOT_STARTED && wire.streams_mut().opening(stream).is_some() => {
                    wire.refuse(stream, code, ports);
                }
                None => {}
            },
            quic::Event::Acked(stream) => {
                if let Some(conn) = wire.streams().conn(stream) {
                    self.on_acked(now, conn);
                }
            }
            quic::Event::Datagram(text) => links.take_datagram(id, &text, ports),
            quic::Event::Closed(reason) => links.note_closed(id, &reason, ports),
        }
    }

    /// Gives the connections that wait for a session one, in order, as long as there is room.
    pub(in crate::spn::endpoint) fn serve_queue(&mut self, now: Instant) {
        while let Some(conn) = self.queue.first() {
            let Some(id) = self.links.best(&mut self.ports) else { return };
            let Some(wire) = self.links.wire_mut(id) else { return };
            let Some(stream) = wire.open_stream(&mut self.ports) else { continue };
            wire.streams_mut().add(stream, conn);
            let carrier = wire.carrier(stream);
            // First of all: `request_provider_start` goes before the first stream.
            self.link_event(now, id, Event::ConnectionOpened);
            self.carry(now, conn, carrier);
            if let Some(wire) = self.links.wire_mut(id) {
                wire.listen(now, &mut self.ports);
            }
        }
    }

    /// Looks whether a session's hub has fallen silent under its connections.
    pub(in crate::spn::endpoint) fn expire_silence(&mut self, now: Instant, id: LinkId) {
        let Self { links, conns, setup, ports, .. } = self;
        let Some(wire) = links.wire_mut(id) else { return };
        let (signs, streams) = wire.signs_mut();
        let config = setup.config();
        let sight = |heard| Sight {
            role: config.role,
            heard,
            waits: config.role == Role::Consumer
                && streams.conns().any(|conn| conns.get(conn).is_some_and(Conn::is_unheard)),
            in_use: conns.waiting() > 0 || !streams.is_empty(),
            keep_alive: Duration::from_millis(config.transport.keep_alive_ms.into()),
        };
        signs.look(now, sight, ports);
    }
}
