//! The session with one hub address: its machine, its QUIC connection, its control stream.

mod reserve;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    conn::{Carrier, Conn},
    streams::Opening,
};
use crate::{
    machine::{Armed, Describe, Inspect, Machine},
    quic::{self, Handle, StreamId, TransportConfig, one_line},
    spn::{
        ConnKey, Protocol, Role,
        endpoint::{
            ConnId, Due, Endpoint, Notice, Phase, Work,
            machines::{
                connection,
                session::{Action, Event, Session},
            },
            policy::{seek::Roster, standstill::Hold},
        },
        flow::budget::Windows,
        wire::{
            code,
            control::{Control, ControlError},
            frame::{Frame, MAX_LIST, SessionAck, SessionOpen, VERSION, flag},
        },
    },
};

/// Which of the endpoint's sessions. Never used twice.
pub(in crate::spn::endpoint) type LinkId = u32;

/// The least time between the beginnings of two sessions with an address.
const BREATH: Duration = Duration::from_secs(1);
/// An endpoint whose hub has said nothing for so long asks for a sign of life: a provider while it is in use, a consumer while what it has
/// sent may be unheard. A hub that was restarted answers with a stateless reset, and the connections go on. QUIC's own probes come later and
/// later.
const SILENCE: Duration = Duration::from_millis(500);
/// A provider counts as in use for so long after its last connection: a consumer may look for it. Thousands may be idle, so these ask only
/// when not even keep-alives are answered,
const IN_USE: Duration = Duration::from_secs(10);
/// for so long after one was due (RES-22).
const OVERDUE: Duration = Duration::from_secs(1);

/// A session with a hub address, in whatever state.
pub(in crate::spn::endpoint) struct Link {
    pub(in crate::spn::endpoint) remote: SocketAddr,
    pub(in crate::spn::endpoint) machine: Session,
    armed: Armed,
    /// When the machine may begin, as long as it has not.
    begin: Option<Instant>,
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

/// A QUIC connection of a session.
pub(in crate::spn::endpoint) struct Wire {
    pub(in crate::spn::endpoint) handle: Handle,
    pub(in crate::spn::endpoint) protocol: Protocol,
    /// Since when the handshake is done and SESSION_OPEN waits for its turn.
    turn: Option<Instant>,
    /// The hubs that SESSION_OPEN has listed.
    listed: Vec<[u8; 16]>,
    pub(in crate::spn::endpoint) control: Option<Control>,
    /// Control frames were left unread, since the hub has left ours unread.
    control_paused: bool,
    /// Established: streams are served.
    pub(in crate::spn::endpoint) up: bool,
    /// New connections may use it.
    usable: bool,
    standby: bool,
    /// SESSION_CLOSE is on its way: nothing new is served.
    pub(in crate::spn::endpoint) left: bool,
    /// QUIC has no stream credit left.
    exhausted: bool,
    /// The hub says that this identity has no right to be here: its connections end.
    disowned: bool,
    /// Connections that PAUSE_REQ has spoken of before their stream has come.
    pub(super) stray_pauses: BTreeSet<ConnKey>,
    /// Connections that the hub allows at once.
    max_connections: u64,
    session_id: String,
    service: String,
    /// The windows of its payload.
    pub(super) windows: Windows,
    /// A provider's: SET_WEIGHT_ACK, and how many streams the hub had opened by then, as long as some of them have not said what they are.
    weighed: Option<(u16, u64)>,
    /// Streams that the hub has opened, as far as they have come.
    pub(in crate::spn::endpoint) opened: u64,
    /// Streams that the hub may have open.
    pub(super) granted: u32,
    /// Connections by their streams.
    pub(in crate::spn::endpoint) streams: BTreeMap<StreamId, ConnId>,
    /// Streams of the hub whose preamble is not complete, or that have overtaken SESSION_ACK.
    pub(super) openings: BTreeMap<StreamId, Opening>,
    /// Who may get a consumer's connections, as the hub says.
    pub(in crate::spn::endpoint) roster: Option<Roster>,
    /// Datagrams that had come when it was last looked for silence, if it is,
    listened: Option<u64>,
    /// when there were more than the time before,
    heard_at: Option<Instant>,
    /// and when there was a reason to listen.
    used_at: Option<Instant>,
    /// New streams wait: the endpoint stood still.
    pub(in crate::spn::endpoint) hold: Option<Hold>,
    /// Connections that may go on here as soon as there is stream credit.
    pub(super) legs: BTreeSet<ConnId>,
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
        let machine = Session::start(config, rand_chacha::rand_core::Rng::next_u64(&mut self.random));
        let mut link = Link {
            remote,
            machine,
            armed: Armed::default(),
            begin: None,
            begun: at,
            reason: String::new(),
            hub: None,
            live: false,
            told: None,
            wire: None,
        };
        if at <= now {
            self.work.push_back(Work::Link(id, Event::Connect { role: self.config.role }));
        } else {
            link.begin = Some(at);
            self.deadlines.arm(&mut link.armed, Some(at), Due::Link(id));
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

    pub(in crate::spn::endpoint) fn expire_link(&mut self, now: Instant, at: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.armed.take(at) {
            return;
        }
        if link.begin.is_some_and(|begin| begin <= now) {
            link.begin = None;
            self.work.push_back(Work::Link(id, Event::Connect { role: self.config.role }));
            return;
        }
        while let Some(link) = self.links.get_mut(&id)
            && link.machine.poll_timeout().is_some_and(|due| due <= now)
        {
            match link.machine.due() {
                Some("handshake") => "the hub does not answer".clone_into(&mut link.reason),
                Some("ack") => "the hub does not answer SESSION_OPEN".clone_into(&mut link.reason),
                Some(_) | None => {}
            }
            link.machine.handle_timeout(now);
            self.run_link(now, id);
        }
        self.arm_link(id);
    }

    fn arm_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            let due = [link.machine.poll_timeout(), link.begin].into_iter().flatten().min();
            self.deadlines.arm(&mut link.armed, due, Due::Link(id));
        }
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
            let Some(action) = link.machine.poll_action() else { break };
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
                    Some(Protocol::Sc01) => self.send_word(id, b"request_provider_start"),
                    Some(Protocol::Sc02) => self.send(id, &Frame::ProviderStart),
                    None => {}
                },
                Action::SendSetWeight { weight } => self.send(id, &Frame::SetWeight { weight }),
                Action::SendDrained => self.send(id, &Frame::Drained),
                Action::SendNotifyShutdown => self.send_word(id, b"notify_shutdown"),
                Action::SendSessionClose { code } => {
                    if let Some(wire) = &mut link.wire {
                        (wire.left, wire.usable) = (true, false);
                    }
                    self.send(id, &Frame::SessionClose { code, text: code::text(code).to_owned() });
                }
                Action::SessionLost => self.lose_conns(now, id),
                Action::Close { code } => self.close_wire(now, id, code),
                Action::Waiting { retry_ms } => {
                    if let Some(wire) = link.wire.take() {
                        wire.windows.end(&mut self.budget);
                        self.by_handle.remove(&wire.handle);
                    }
                    let notice = Notice::SessionWaiting {
                        remote: link.remote,
                        reason: std::mem::take(&mut link.reason),
                        retry_ms,
                    };
                    self.notices.push_back(notice);
                }
                Action::Reserved => self.on_reserved(now, id),
                Action::Closed => self.on_ended(now, id, true),
                Action::Failed => self.on_ended(now, id, false),
            }
        }
        self.note_live(id);
        self.arm_link(id);
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

    fn send_session_open(&mut self, id: LinkId, weight: u16) {
        let live = self.links.values().filter(|link| link.live).filter_map(|link| link.hub);
        let hubs: Vec<_> = live.take(MAX_LIST as usize).collect();
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        // The first stream that we open is stream 0 (Control stream).
        let Some(stream) = self.quic.open(wire.handle) else {
            return self.violation(id, code::CONTROL_LOST, "the hub allows no control stream".to_owned());
        };
        wire.control = Some(Control::new(&mut self.quic, wire.handle, stream));
        wire.listed.clone_from(&hubs);
        let open = SessionOpen {
            version: VERSION,
            role: self.config.role,
            service: self.config.service.clone(),
            instance: self.instance,
            weight,
            flags: if self.config.resume { flag::RESUMABLE | flag::PARTNERS | flag::SEEKS } else { 0 },
            hubs,
        };
        self.send(id, &Frame::SessionOpen(open));
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
            self.add_link(now, link.remote, now.max(link.begun + BREATH));
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

    /// Queues a control frame.
    pub(in crate::spn::endpoint) fn send(&mut self, id: LinkId, frame: &Frame) {
        if let Some(control) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()?.control.as_mut()) {
            control.send(frame);
            self.flush = true;
        }
    }

    fn send_word(&mut self, id: LinkId, word: &'static [u8]) {
        if let Some(wire) = self.links.get(&id).and_then(|link| link.wire.as_ref()) {
            self.quic.send_word(wire.handle, Bytes::from_static(word));
        }
    }

    fn violation(&mut self, id: LinkId, code: u64, reason: String) {
        if let Some(link) = self.links.get_mut(&id) {
            link.reason = reason;
            self.work.push_back(Work::Link(id, Event::Violation { code }));
        }
    }

    /// Sends what control streams have. There are as many as addresses: few.
    pub(in crate::spn::endpoint) fn flush_controls(&mut self, now: Instant) {
        self.send_reports();
        let mut todo = Vec::new();
        for (id, link) in &mut self.links {
            let Some(wire) = &mut link.wire else { continue };
            let Some(control) = &mut wire.control else { continue };
            let flushed = control.flush(&mut self.quic);
            if flushed.is_err() || std::mem::take(&mut wire.control_paused) {
                todo.push((*id, flushed));
            }
        }
        for (id, flushed) in todo {
            match flushed {
                Ok(()) => self.read_control(now, id),
                Err(error) => self.violation(id, code::CONTROL_LOST, error.to_string()),
            }
            self.settle(now);
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
            quic::Event::Word(word) => self.on_word(id, &word),
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

    /// `sc01` says it by words; the comparison is exact, and unknown words are ignored (Legacy protocol, Control datagrams).
    fn on_word(&mut self, id: LinkId, word: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.wire.as_ref().is_none_or(|wire| wire.protocol != Protocol::Sc01) {
            return;
        }
        let event = match word {
            b"notify_shutdown" => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline_ms: 0 }
            }
            b"notify_standby" => Event::SessionState { standby: true },
            b"notify_active" => Event::SessionState { standby: false },
            b"notify_provider_stopped" => Event::ProviderStopped,
            _ => return,
        };
        self.work.push_back(Work::Link(id, event));
    }

    /// Reads control frames until there are none, or until the hub leaves our answers unread.
    fn read_control(&mut self, now: Instant, id: LinkId) {
        while let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) {
            let Some(control) = &mut wire.control else { return };
            if control.backlog() > self.config.limits.control_backlog {
                wire.control_paused = true;
                return;
            }
            match control.next_frame(&mut self.quic) {
                Ok(Some(frame)) => self.on_frame(now, id, frame),
                Ok(None) => return,
                Err(error) => {
                    let code = match error {
                        ControlError::Frame(_) => code::MALFORMED,
                        ControlError::Ended => code::CONTROL_LOST,
                    };
                    self.violation(id, code, error.to_string());
                    return self.settle(now);
                }
            }
            self.settle(now);
        }
    }

    fn on_frame(&mut self, now: Instant, id: LinkId, frame: Frame) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(wire) = &mut link.wire else { return };
        let consumer = self.config.role == Role::Consumer;
        let event = match frame {
            Frame::SessionAck(ack) if ack.state == SessionAck::SPARE && link.machine.is_asking() => {
                return self.on_spare(id, ack.hub_instance);
            }
            Frame::SessionAck(ack) => {
                if link.machine.is_asking() {
                    link.hub = Some(ack.hub_instance);
                }
                wire.session_id = ack.session_id;
                wire.service = ack.service;
                wire.max_connections = ack.max_connections;
                self.work.push_back(Work::Link(id, Event::SessionAck { standby: ack.state != 0 }));
                return self.supersede(id, ack.hub_instance);
            }
            Frame::SessionReject { code, retry_after_ms, text } => {
                link.reason = format!("the hub refused the session with code 0x{code:x} ({})", one_line(&text));
                Event::SessionReject { code, retry_after_ms }
            }
            Frame::SessionClose { code, text } => {
                wire.disowned = code == code::NOT_ENTITLED;
                link.reason = format!("the hub closed the session with code 0x{code:x} ({})", one_line(&text));
                Event::SessionClose { code }
            }
            Frame::SessionShutdown { flags: _, deadline_ms } => {
                "the hub is shutting down".clone_into(&mut link.reason);
                Event::SessionShutdown { deadline_ms }
            }
            Frame::SessionState { state } => Event::SessionState { standby: state != 0 },
            Frame::ProviderStopped if consumer => Event::ProviderStopped,
            Frame::SetWeightAck { weight, streams } if !consumer => {
                wire.weighed = Some((weight, streams));
                return self.note_weighed(id);
            }
            Frame::CloseReq { conn, code } if wire.up => {
                if let Some(paused) = self.paused_by_key(conn) {
                    self.conn_event(now, paused, connection::Event::CloseReq { code });
                }
                return match self.conn_by_key(id, conn) {
                    Some(known) => self.conn_event(now, known, connection::Event::CloseReq { code }),
                    None => self.send(id, &Frame::CloseAck { conn }),
                };
            }
            Frame::CloseAck { conn } if wire.up => return self.on_close_ack(now, id, conn),
            Frame::Connected { conn, flags } if wire.up && consumer => return self.on_connected(now, id, conn, flags),
            // Of these nothing follows when this end has not said that it can resume.
            Frame::PauseReq { .. } | Frame::ResumeAck(_) | Frame::DataAck(_) if wire.up && !self.config.resume => {
                return;
            }
            Frame::Partner { conn, partner } if wire.up && consumer => return self.on_partner(id, conn, partner),
            Frame::PauseReq { conn } if wire.up => return self.on_pause_req(now, id, conn),
            Frame::ResumeAck(ack) if wire.up => return self.on_resume_ack(now, id, ack),
            Frame::DataAck(entries) if wire.up => return self.on_data_ack(now, entries),
            Frame::Providers { number, flags, instances, retiring } if wire.up && consumer => {
                return self.on_providers(id, number, flags, instances, retiring);
            }
            Frame::Absent { conn, instance } if wire.up && consumer => return self.on_absent(conn, instance),
            Frame::Seek { conn, .. } if wire.up && !consumer => return self.on_seek(now, id, conn),
            // In the wrong direction, or before SESSION_ACK.
            Frame::SessionOpen(_)
            | Frame::SessionOpenVersion { .. }
            | Frame::SessionOpenRole { .. }
            | Frame::CloseReq { .. }
            | Frame::CloseAck { .. }
            | Frame::PauseReq { .. }
            | Frame::PauseAck { .. }
            | Frame::ResumeReq(_)
            | Frame::ResumeReqWith { .. }
            | Frame::ResumeAck(_)
            | Frame::DataAck(_)
            | Frame::Connected { .. }
            | Frame::Partner { .. }
            | Frame::SetWeight { .. }
            | Frame::SetWeightAck { .. }
            | Frame::Drained
            | Frame::ProviderStart
            | Frame::Providers { .. }
            | Frame::ProvidersAck { .. }
            | Frame::Seek { .. }
            | Frame::Absent { .. }
            | Frame::ProviderStopped => {
                "the hub sent a control frame that it must not send now".clone_into(&mut link.reason);
                Event::Violation { code: code::MALFORMED }
            }
        };
        self.work.push_back(Work::Link(id, event));
    }

    /// SET_WEIGHT_ACK overtakes streams that the hub has opened before it: the session has not heard of its weight before they are known, or it
    /// would end under them.
    pub(super) fn note_weighed(&mut self, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let Some((weight, streams)) = wire.weighed else { return };
        // The session hears of a connection before its opening is forgotten.
        let is_known = wire.opened >= streams && wire.openings.keys().all(|stream| stream.index() >= streams);
        if is_known {
            wire.weighed = None;
            self.work.push_back(Work::Link(id, Event::SetWeightAck { weight }));
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

    /// Something is being said, or a provider's session is up: from now on silence is looked for.
    pub(super) fn listen(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        wire.used_at = Some(now);
        if wire.listened.is_none() && wire.protocol == Protocol::Sc02 {
            wire.heard_at = Some(now);
            wire.listened = Some(self.quic.received_datagrams(wire.handle));
            self.deadlines.push(now + SILENCE, Due::Silence(id));
        }
    }

    pub(in crate::spn::endpoint) fn expire_silence(&mut self, now: Instant, id: LinkId) {
        let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) else { return };
        let Some(before) = wire.listened else { return };
        let heard = self.quic.received_datagrams(wire.handle);
        // The hub's QUIC may have had it all, and its partner nothing.
        let waits = |id: &ConnId| {
            let conn = self.conns.get(id.index as usize).and_then(Option::as_ref);
            let ledger = |conn: &Conn| conn.ledger.as_ref().is_some_and(|ledger| ledger.kept() > 0);
            conn.is_some_and(|conn| conn.id == *id && (!conn.heard || ledger(conn)))
        };
        if self.config.role == Role::Consumer && heard > before && !wire.streams.values().any(waits) {
            wire.listened = None;
            return;
        }
        if self.paused > 0 || !wire.streams.is_empty() || !wire.openings.is_empty() {
            wire.used_at = Some(now);
        }
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let keep_alive = Duration::from_millis(self.config.transport.keep_alive_ms.into());
        let is_idle = self.config.role == Role::Provider && since(wire.used_at) >= IN_USE;
        if heard > before {
            wire.heard_at = Some(now);
        } else if !is_idle || since(wire.heard_at) >= keep_alive + OVERDUE {
            self.quic.ping(wire.handle);
        }
        wire.listened = Some(heard);
        self.deadlines.push(now + SILENCE, Due::Silence(id));
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

impl Wire {
    fn new(handle: Handle, transport: &TransportConfig, window_max: u32) -> Self {
        Self {
            handle,
            protocol: Protocol::Sc02,
            turn: None,
            listed: Vec::new(),
            control: None,
            control_paused: false,
            up: false,
            usable: false,
            standby: false,
            left: false,
            exhausted: false,
            disowned: false,
            stray_pauses: BTreeSet::new(),
            max_connections: 0,
            session_id: String::new(),
            service: String::new(),
            windows: Windows::new(transport, window_max),
            weighed: None,
            opened: 0,
            granted: transport.max_streams,
            streams: BTreeMap::new(),
            openings: BTreeMap::new(),
            roster: None,
            listened: None,
            heard_at: None,
            used_at: None,
            hold: None,
            legs: BTreeSet::new(),
        }
    }

    fn has_room(&self) -> bool {
        let allowed = match self.protocol {
            Protocol::Sc01 => true,
            Protocol::Sc02 => (self.streams.len() as u64) < self.max_connections,
        };
        self.usable && !self.standby && !self.exhausted && allowed
    }
}
