//! The session with one hub address: its machine, its QUIC connection, its control stream.

mod frames;
mod reserve;
mod silence;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand_chacha::rand_core::Rng as _;

pub(super) use self::wire::Opening;
use self::wire::Wire;
use crate::{
    machine::{Automaton as _, Hosted, Machine as _},
    quic::{self, Handle},
    spn::{
        Protocol, Role,
        endpoint::{
            Due, Endpoint, Notice, Phase, Work,
            carrier::{Carrier, LinkId},
            machines::{
                connection,
                session::{Action, Event, Session, SessionTimer},
            },
        },
        wire::{
            code,
            control::{Control, ControlError},
            frame::Frame,
        },
    },
};

/// The least time between the beginnings of two sessions with an address.
const MIN_REDIAL_INTERVAL: Duration = Duration::from_secs(1);

/// A session with a hub address, in whatever state.
pub(in crate::spn::endpoint) struct Link {
    pub(in crate::spn::endpoint) remote: SocketAddr,
    pub(in crate::spn::endpoint) machine: Hosted<Session>,
    begun: Instant,
    /// Why the session is not, for people.
    reason: String,
    /// The hub that has answered last at this address,
    hub: Option<[u8; 16]>,
    /// whether its session is established,
    live: bool,
    /// and the one of which the host knows that the address is in reserve for it.
    told: Option<[u8; 16]>,
    /// The QUIC connection of the present try.
    pub(in crate::spn::endpoint) wire: Option<Wire>,
}

impl Endpoint {
    /// Begins a session with an address, `at` that time.
    pub(in crate::spn::endpoint) fn add_link(&mut self, now: Instant, remote: SocketAddr, at: Instant) {
        let id = self.next_link;
        self.next_link += 1;
        let mut config = self.config.session.clone();
        if let Phase::Ending { until } = self.phase {
            config.closing = until.saturating_duration_since(now);
        }
        let machine = Session::new(config, self.random.next_u64());
        let link = Link {
            remote,
            machine: Hosted::new(machine),
            begun: at,
            reason: String::new(),
            hub: None,
            live: false,
            told: None,
            wire: None,
        };
        if at <= now {
            self.begin_link(id);
        } else {
            self.deadlines.push(at, Due::Begin(id));
        }
        self.links.insert(id, link);
        if self.paused > 0 {
            self.work.push_back(Work::Link(id, Event::Needed { needed: true }));
        }
        match self.phase {
            Phase::Running | Phase::Closing | Phase::Closed => {}
            Phase::Retired => self.work.push_back(Work::Link(id, Event::SetWeight { weight: 0 })),
            Phase::Ending { .. } => self.work.push_back(Work::Link(id, Event::LocalShutdown)),
        }
    }

    /// The session of an address may begin.
    pub(in crate::spn::endpoint) fn begin_link(&mut self, id: LinkId) {
        self.work.push_back(Work::Link(id, Event::Connect { role: self.config.role }));
    }

    pub(in crate::spn::endpoint) fn expire_link(&mut self, now: Instant, at: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let due = link.machine.parts().timers.next().filter(|(due, _)| *due <= now);
        if !link.machine.expire(now, at) {
            return;
        }
        match due {
            Some((_, SessionTimer::Handshake)) => "the hub does not answer".clone_into(&mut link.reason),
            Some((_, SessionTimer::Ack)) => "the hub does not answer SESSION_OPEN".clone_into(&mut link.reason),
            Some(_) | None => {}
        }
        self.run_link(now, id);
    }

    pub(in crate::spn::endpoint) fn link_event(&mut self, now: Instant, id: LinkId, event: Event) {
        if let Some(link) = self.links.get_mut(&id) {
            link.machine.handle_event(now, event);
            self.run_link(now, id);
        }
    }

    /// Does what the session's machine asks for.
    fn run_link(&mut self, now: Instant, id: LinkId) {
        while let Some(link) = self.links.get_mut(&id) {
            let Some(action) = link.machine.next_action(&mut self.deadlines, Due::Link(id)) else { break };
            match action {
                Action::Dial => self.dial(now, id),
                Action::SendSessionOpen { weight } => self.send_session_open(id, weight),
                Action::Established { standby } => self.on_established(now, id, standby),
                Action::State { standby } => {
                    if let Some(wire) = &mut link.wire {
                        wire.standby = standby;
                    }
                    self.serve = true;
                }
                Action::Hide => {
                    if let Some(wire) = &mut link.wire {
                        wire.usable = false;
                    }
                }
                Action::MoveAway => self.move_away(id),
                Action::RefuseStreams => {
                    if let Some(wire) = &mut link.wire {
                        wire.granted = u32::MAX; // not to be raised again
                        self.quic.set_max_streams(wire.handle, 0);
                    }
                }
                Action::SendProviderStart => match link.wire.as_ref().map(|wire| wire.protocol) {
                    Some(Protocol::Sc01) => self.send_control_datagram(id, b"request_provider_start"),
                    Some(Protocol::Sc02) => self.send(id, &Frame::ProviderStart),
                    None => {}
                },
                Action::SendSetWeight { weight } => self.send(id, &Frame::SetWeight { weight }),
                Action::SendDrained => self.send(id, &Frame::Drained),
                Action::SendNotifyShutdown => self.send_control_datagram(id, b"notify_shutdown"),
                Action::SendSessionClose { code } => {
                    if let Some(wire) = &mut link.wire {
                        (wire.left, wire.usable) = (true, false);
                    }
                    self.send(id, &Frame::SessionClose { code, text: code::text(code).to_owned() });
                }
                Action::SessionLost => self.lose_conns(now, id),
                Action::Close { code } => self.close_wire(now, id, code),
                Action::Waiting { retry } => {
                    if let Some(wire) = link.wire.take() {
                        wire.windows.end(&mut self.budget);
                        self.by_handle.remove(&wire.handle);
                    }
                    let notice = Notice::SessionWaiting {
                        remote: link.remote,
                        reason: std::mem::take(&mut link.reason),
                        retry_ms: u64::try_from(retry.as_millis()).unwrap_or(u64::MAX),
                    };
                    self.notices.push_back(notice);
                }
                Action::Reserved => self.on_reserved(now, id),
                Action::Closed => self.on_ended(now, id, true),
                Action::Failed => self.on_ended(now, id, false),
            }
        }
        self.note_live(id);
        self.pass_turn(now);
    }

    /// The QUIC connection of a session, if it is still that one.
    pub(in crate::spn::endpoint) fn wire_mut(&mut self, id: LinkId, handle: Handle) -> Option<&mut Wire> {
        wire_of(&mut self.links, id, handle)
    }

    fn dial(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.begun = now;
        match self.quic.connect(now, &self.client, link.remote, &self.config.server_name) {
            Ok(handle) => {
                link.wire = Some(Wire::new(handle, &self.config.transport, self.config.limits.window_max));
                self.by_handle.insert(handle, id);
            }
            Err(error) => {
                link.reason = error.to_string();
                self.work.push_back(Work::Link(id, Event::Lost));
            }
        }
    }

    fn on_established(&mut self, now: Instant, id: LinkId, standby: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.reason.clear();
        (link.live, link.told) = (true, None);
        let Some(wire) = &mut link.wire else { return };
        (wire.up, wire.usable, wire.standby) = (true, true, standby);
        if wire.protocol == Protocol::Sc02 {
            // A hub that has restarted says so at once to those that go on elsewhere, and to nobody else.
            self.quic.change_id(wire.handle);
        }
        self.notices.push_back(Notice::SessionUp {
            remote: link.remote,
            protocol: wire.protocol,
            session_id: wire.session_id.clone(),
            service: wire.service.clone(),
        });
        self.serve = true;
        self.ask_new_session(id);
        self.begin_ticking(now);
        if self.config.role == Role::Provider {
            self.listen(now, id);
        }
        self.work.push_back(Work::Early(id));
    }

    /// The machine is at its end; another one takes its place if the address is still wanted.
    fn on_ended(&mut self, now: Instant, id: LinkId, again: bool) {
        if let Some(link) = self.links.get_mut(&id) {
            link.live = false;
        }
        self.call_reserve(id);
        let Some(mut link) = self.links.remove(&id) else { return };
        if let Some(wire) = link.wire.take() {
            wire.windows.end(&mut self.budget);
            self.by_handle.remove(&wire.handle);
            self.quic.close(now, wire.handle, code::OK, code::text(code::OK));
        }
        if link.reason.is_empty() {
            code::text(code::OK).clone_into(&mut link.reason);
        }
        self.notices.push_back(Notice::SessionEnded { remote: link.remote, reason: link.reason });
        // After a hub's shutdown the address is tried again at once, if it is still listed (Endpoint session); but a hub that lets us in
        // only to send us away is not asked more than once a second.
        if again && self.wants_sessions(now) && self.listed.contains(&link.remote) {
            self.add_link(now, link.remote, now.max(link.begun + MIN_REDIAL_INTERVAL));
        }
    }

    /// The connections on the session that can go on on another one leave it.
    fn move_away(&mut self, id: LinkId) {
        let Some(wire) = self.links.get(&id).and_then(|link| link.wire.as_ref()) else { return };
        for conn in wire.streams.values().copied().collect::<Vec<_>>() {
            let moves =
                self.conn_mut(conn).is_some_and(|conn| conn.machine.is_resumable() && conn.machine.can_resume());
            if moves {
                self.work.push_back(Work::Conn(conn, connection::Event::StreamReset { code: code::PAUSED }));
            }
        }
    }

    /// The connections on the session are told that it is lost.
    fn lose_conns(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        (wire.usable, wire.left) = (false, true);
        for conn in wire.streams.values().copied().collect::<Vec<_>>() {
            self.note_candidates(conn);
        }
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let stopping = match self.phase {
            Phase::Running | Phase::Retired => false,
            Phase::Ending { until } => until <= now,
            Phase::Closing | Phase::Closed => true,
        };
        // Of these two, no connection comes back.
        let event = match (self.config.resume && wire.disowned, self.config.resume && stopping) {
            (true, _) => connection::Event::StreamReset { code: code::NOT_ENTITLED },
            (false, true) => connection::Event::StreamReset { code: code::PARTNER_LOST },
            (false, false) => connection::Event::SessionLost,
        };
        for (_, conn) in std::mem::take(&mut wire.streams) {
            self.work.push_back(Work::Conn(conn, event.clone()));
        }
        wire.openings.clear();
        wire.legs.clear();
        self.forget_session(id);
    }

    fn close_wire(&mut self, now: Instant, id: LinkId, code: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(wire) = link.wire.take() {
            wire.windows.end(&mut self.budget);
            self.by_handle.remove(&wire.handle);
            self.quic.close(now, wire.handle, code, code::text(code));
        }
        if link.reason.is_empty() {
            code::text(code).clone_into(&mut link.reason);
        }
    }

    pub(in crate::spn::endpoint) fn quic_event(
        &mut self,
        now: Instant,
        id: LinkId,
        handle: Handle,
        event: quic::Event,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(wire) = &mut link.wire else { return };
        let control = wire.control.as_ref().map(Control::stream);
        match event {
            quic::Event::Connected { alpn, peer: _ } => match Role::from_alpn(&alpn) {
                Some((role, protocol)) if role == self.config.role => {
                    wire.protocol = protocol;
                    match protocol {
                        Protocol::Sc02 => {
                            wire.turn = Some(now);
                            self.pass_turn(now);
                        }
                        // It asks for nothing, and tells nothing of its hub.
                        Protocol::Sc01 => self.work.push_back(Work::Link(id, Event::Connected { protocol })),
                    }
                }
                Some(_) | None => {
                    link.reason = format!("the hub chose the protocol `{}`", alpn.escape_ascii());
                    if let Some(wire) = link.wire.take() {
                        wire.windows.end(&mut self.budget);
                    }
                    self.by_handle.remove(&handle);
                    self.quic.close(now, handle, code::ROLE_MISMATCH, code::text(code::ROLE_MISMATCH));
                    self.work.push_back(Work::Link(id, Event::Lost));
                }
            },
            quic::Event::Incoming { .. } => {}
            quic::Event::StreamOpened(stream) => self.on_stream_opened(now, id, stream),
            quic::Event::StreamsAvailable => {
                wire.exhausted = false;
                self.serve = true;
                self.serve_legs(now, id);
            }
            quic::Event::Readable(stream) if control == Some(stream) => self.read_control(now, id),
            quic::Event::Readable(stream) => match wire.streams.get(&stream) {
                Some(&conn) => self.on_readable(now, conn),
                None => {
                    self.read_preamble(now, id, stream);
                    self.note_weighed(id);
                }
            },
            quic::Event::Writable(stream) if control == Some(stream) => self.flush = true,
            quic::Event::Writable(stream) => {
                if let Some(&conn) = wire.streams.get(&stream) {
                    self.on_writable(conn);
                }
            }
            quic::Event::Stopped(stream, _) if control == Some(stream) => {
                self.violation(id, code::CONTROL_LOST, ControlError::Ended.to_string());
            }
            quic::Event::Stopped(stream, code) => {
                if let Some(&conn) = wire.streams.get(&stream) {
                    self.conn_event(now, conn, connection::Event::StreamStopped { code });
                } else if wire.openings.contains_key(&stream) {
                    self.on_opening_stopped(id, stream, code);
                }
            }
            quic::Event::Acked(stream) => {
                if let Some(&conn) = wire.streams.get(&stream) {
                    self.on_acked(now, conn);
                }
            }
            quic::Event::Datagram(word) => self.on_control_datagram(id, &word),
            quic::Event::Closed(reason) => {
                wire.disowned |= matches!(reason, quic::CloseReason::Peer { code: code::NOT_ENTITLED, .. });
                if link.reason.is_empty() {
                    link.reason = reason.to_string();
                }
                wire.turn = None;
                self.by_handle.remove(&handle);
                self.work.push_back(Work::Link(id, Event::Lost));
            }
        }
    }

    /// Gives the connections that wait for a session one, in order, as long as there is room.
    pub(in crate::spn::endpoint) fn serve_waiting(&mut self, now: Instant) {
        while let Some((_, &conn)) = self.waiting.first_key_value() {
            let Some(id) = self.best_link() else { return };
            let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
            let Some(stream) = self.quic.open(wire.handle) else {
                wire.exhausted = true;
                continue;
            };
            wire.streams.insert(stream, conn);
            let (handle, protocol) = (wire.handle, wire.protocol);
            // First of all: `request_provider_start` goes before the first stream.
            self.link_event(now, id, Event::ConnectionOpened);
            self.carry(now, conn, Carrier { link: id, handle, stream, protocol });
            self.listen(now, id);
        }
    }

    /// Of the sessions with room, the one with the fewest connections; of equal ones the nearest.
    fn best_link(&mut self) -> Option<LinkId> {
        let mut best = None;
        for (&id, link) in &self.links {
            let Some(wire) = &link.wire else { continue };
            if wire.has_room() {
                let rank = (wire.streams.len(), self.quic.rtt(wire.handle));
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, id));
                }
            }
        }
        best.map(|(_, id)| id)
    }

    /// A connection has left the stream that carried it.
    pub(super) fn release(&mut self, carrier: Carrier) {
        if let Some(wire) = self.wire_mut(carrier.link, carrier.handle)
            && wire.streams.remove(&carrier.stream).is_some()
        {
            self.work.push_back(Work::Link(carrier.link, Event::ConnectionEnded));
            self.serve = true;
        }
    }
}

/// [`Endpoint::wire_mut`], for whoever needs other parts of the endpoint beside it.
pub(super) fn wire_of(links: &mut BTreeMap<LinkId, Link>, id: LinkId, handle: Handle) -> Option<&mut Wire> {
    links.get_mut(&id)?.wire.as_mut().filter(|wire| wire.handle == handle)
}

impl Link {
    /// Whether RESUME_REQ may go to it: established, and not about to end.
    pub(super) fn is_askable(&self) -> bool {
        self.machine.is_established()
            && self.wire.as_ref().is_some_and(|wire| wire.protocol == Protocol::Sc02 && wire.up && !wire.left)
    }
}
