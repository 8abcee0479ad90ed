//! Sessions on the hub: from QUIC's events to the session machine, and from its actions to the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{resume::number, streams::DataStream};
use crate::{
    machine::{Hosted, Machine as _},
    quic::{self, CloseReason, Handle, PeerIdentity, StreamId},
    spn::{
        ConnKey, Protocol, Role, Side, Tag,
        flow::budget::Windows,
        hub::{
            Due, Hub,
            machines::{
                connection::{self, Loss},
                managed,
                pairing::End,
                session::{Action, Event, HubSession},
            },
            notice::{Reason, Refusal},
            policy::{
                provision::Managed,
                registry::{self, Provider, UNLISTED},
            },
        },
        record::{RecordEvent, SessionRecord},
        wire::{
            code,
            control::Control,
            frame::{AckEntry, Frame, MAX_LIST, SessionAck, SessionOpen, flag},
        },
    },
};

/// How often a singleton's newcomer looks whether the incumbent has answered its PING (PRV-4).
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// So many times [`Limits::control_backlog`](crate::spn::hub::Limits) may wait for a session to read; then its control stream is taken for lost (LIM-16).
pub(super) const UNREAD: usize = 16;
/// What the original's agents send when they retire.
const NOTIFY_SHUTDOWN: &[u8] = b"notify_shutdown";
/// What the original's agents send before their first stream.
const REQUEST_PROVIDER_START: &[u8] = b"request_provider_start";
/// How often a session is heard with it; more are ignored (MNG-4).
const PROVIDER_START_EVERY: Duration = Duration::from_secs(10);

/// A session on the hub.
pub(in crate::spn::hub) struct Session {
    pub(in crate::spn::hub) machine: Hosted<HubSession>,
    pub(in crate::spn::hub) protocol: Protocol,
    pub(in crate::spn::hub) role: Role,
    pub(in crate::spn::hub) remote: SocketAddr,
    pub(in crate::spn::hub) peer: PeerIdentity,
    /// The name that its service knows it by.
    pub(in crate::spn::hub) identity: Arc<str>,
    /// What its partners know it by.
    pub(super) tag: Tag,
    /// Its service in the registry.
    pub(in crate::spn::hub) service: usize,
    /// What SESSION_OPEN says of the process.
    pub(in crate::spn::hub) instance: [u8; 16],
    pub(in crate::spn::hub) control: Option<Control>,
    pub(super) control_gauge: ControlGauge,
    /// It is left unread until its peer has read our answers.
    pub(super) control_paused: bool,
    /// SESSION_ACK is on its way: data streams may come.
    pub(super) is_open: bool,
    unflushed: bool,
    pub(in crate::spn::hub) streams: BTreeMap<StreamId, DataStream>,
    /// `sc01`: streams on which comes what nobody wants any more.
    pub(in crate::spn::hub) discarded: BTreeSet<StreamId>,
    /// Connections on it, those included whose streams have ended.
    pub(in crate::spn::hub) connections: BTreeSet<u64>,
    /// A provider's: connections whose next leg waits for a stream of it.
    pub(super) legs: BTreeSet<u64>,
    /// It retains what its partners have not acknowledged.
    pub(in crate::spn::hub) can_resume: bool,
    /// It wants to be told who its partners are.
    pub(super) wants_partners: bool,
    /// It knows SEEK.
    pub(in crate::spn::hub) seeks: bool,
    /// Connections that it has asked to resume,
    pub(in crate::spn::hub) parked: BTreeSet<ConnKey>,
    /// and whether there is a time at which to look at them.
    pub(super) parked_reminded: bool,
    /// The newest report for each of its connections, as long as it waits.
    reports: BTreeMap<ConnKey, AckEntry>,
    /// What its partners have caused while it did not read: of each kind of frame the newest for each connection.
    latest: BTreeMap<ConnKey, Vec<Frame>>,
    /// Streams that it may have open.
    pub(in crate::spn::hub) credit: u32,
    /// Connections made on it.
    pub(in crate::spn::hub) total: u64,
    /// Streams that the hub has opened on it.
    pub(in crate::spn::hub) opened: u64,
    began: Option<(Instant, SessionRecord)>,
    /// The incumbent that was asked for a sign of life, and how many datagrams it had sent by then.
    probe: Option<(Handle, u64)>,
    /// When it last asked for a provider's start.
    provider_start: Option<Instant>,
    /// What was wrong with it, beyond the code.
    pub(in crate::spn::hub) detail: String,
    /// It has been told why it is refused, or asked for its end itself: nobody needs to hear more of it.
    settled: bool,
    /// The windows of its payload.
    pub(super) windows: Windows,
}

/// Control frames read in this second.
#[derive(Debug, Default)]
pub(super) struct ControlGauge {
    pub(in crate::spn::hub) second: Option<Instant>,
    pub(in crate::spn::hub) count: u32,
    /// The next second will be told.
    pub(super) is_reminded: bool,
}

impl Session {
    /// Which end of a connection it is.
    pub(in crate::spn::hub) fn side(&self) -> Side {
        self.role.side()
    }

    /// It has left so much unread that no more is put on it by others.
    pub(super) fn is_choked(&self, limit: usize) -> bool {
        !self.latest.is_empty() || self.control.as_ref().is_some_and(|control| control.backlog() > limit)
    }

    /// The end of connections that it is, without a partner.
    pub(super) fn end(&self) -> End {
        End { service: number(self.service), side: self.side(), tag: self.tag, partner: None }
    }

    /// A stream of it carries a connection.
    pub(super) fn board(&mut self, stream: StreamId, connection: u64) {
        self.streams.insert(stream, DataStream::Relayed(connection));
        self.connections.insert(connection);
    }
}

impl Hub {
    pub(in crate::spn::hub) fn quic_event(&mut self, now: Instant, handle: Handle, event: quic::Event) {
        match event {
            quic::Event::Incoming { remote } => self.incoming(handle, remote),
            quic::Event::Connected { alpn, peer } => self.connected(now, handle, &alpn, peer),
            quic::Event::StreamOpened(stream) => self.stream_opened(now, handle, stream),
            quic::Event::StreamsAvailable => self.streams_available(now, handle),
            quic::Event::Readable(stream) => self.readable(now, handle, stream),
            quic::Event::Writable(stream) => self.writable(now, handle, stream),
            quic::Event::Stopped(stream, code) => self.stopped(now, handle, stream, code),
            quic::Event::Acked(_) => {}
            quic::Event::Datagram(word) => self.control_datagram(now, handle, &word),
            quic::Event::Closed(reason) => self.closed(now, handle, reason),
        }
    }

    fn incoming(&mut self, handle: Handle, remote: SocketAddr) {
        let transport = &self.config.transport;
        let session = Session {
            machine: Hosted::new(HubSession::new(self.config.session)),
            protocol: Protocol::Sc02,
            role: Role::Consumer,
            remote,
            peer: PeerIdentity::default(),
            identity: "".into(),
            tag: Tag::default(),
            service: usize::MAX,
            instance: [0; 16],
            control: None,
            control_gauge: ControlGauge::default(),
            control_paused: false,
            is_open: false,
            unflushed: false,
            streams: BTreeMap::new(),
            discarded: BTreeSet::new(),
            connections: BTreeSet::new(),
            legs: BTreeSet::new(),
            can_resume: false,
            wants_partners: false,
            seeks: false,
            parked: BTreeSet::new(),
            parked_reminded: false,
            reports: BTreeMap::new(),
            latest: BTreeMap::new(),
            credit: transport.max_streams,
            total: 0,
            opened: 0,
            began: None,
            probe: None,
            provider_start: None,
            detail: String::new(),
            settled: false,
            windows: Windows::new(transport, self.config.limits.window_max),
        };
        self.sessions.insert(handle, session);
    }

    fn connected(&mut self, now: Instant, handle: Handle, alpn: &[u8], peer: PeerIdentity) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.peer = peer;
        // TLS agreed on one of ours, so there is always a role.
        let Some((role, protocol)) = Role::from_alpn(alpn) else {
            return self.session_event(now, handle, Event::LegacyRefused { code: code::ROLE_UNSUPPORTED });
        };
        (session.role, session.protocol) = (role, protocol);
        let event = match protocol {
            Protocol::Sc02 => Event::ExtendedHandshake,
            Protocol::Sc01 if registry::names(&session.peer).is_empty() => {
                Event::LegacyRefused { code: code::NO_IDENTITY }
            }
            Protocol::Sc01 => match self.admit(now, handle, "", None) {
                Ok(Admission::Free) => Event::LegacyAdmitted,
                Ok(Admission::Occupied) => Event::LegacyOccupied,
                Ok(Admission::Early) => Event::LegacyRefused { code: code::NO_PROVIDER },
                Err(code) => Event::LegacyRefused { code },
            },
        };
        self.session_event(now, handle, event);
    }

    /// SESSION_OPEN, well-formed (docs/protocols/spn.md, Control stream, CTL-14: the order of the tests).
    pub(in crate::spn::hub) fn session_open(&mut self, now: Instant, handle: Handle, open: &SessionOpen) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        // Another address of ours: the process has its session already and, knowing that, goes or asks again (Several hubs).
        if session.machine.awaits_open() && open.hubs.contains(&self.id) {
            let (session_id, service) = (String::new(), String::new());
            let (hub_instance, state) = (self.id, SessionAck::SPARE);
            let ack = SessionAck { session_id, service, hub_instance, max_connections: 0, state };
            return self.send(handle, &Frame::SessionAck(ack));
        }
        session.can_resume = open.flags & flag::RESUMABLE != 0;
        session.wants_partners = open.flags & flag::PARTNERS != 0;
        session.seeks = open.flags & flag::SEEKS != 0;
        let event = if open.role != session.role {
            Event::OpenRefused { code: code::ROLE_MISMATCH }
        } else {
            match self.admit(now, handle, &open.service, Some(open.instance)) {
                Ok(Admission::Free) => Event::OpenAdmitted { weight: open.weight },
                Ok(Admission::Occupied) => Event::OpenOccupied { weight: open.weight },
                Ok(Admission::Early) => Event::OpenEarly { weight: open.weight },
                Err(code) => Event::OpenRefused { code },
            }
        };
        self.session_event(now, handle, event);
    }

    /// Tests whether a session may come in, and notes its service.
    fn admit(&mut self, now: Instant, handle: Handle, urn: &str, instance: Option<[u8; 16]>) -> Result<Admission, u64> {
        let session = self.sessions.get_mut(&handle).ok_or(code::INTERNAL)?;
        let names = registry::names(&session.peer);
        let service = self.registry.judge(session.role, &names, urn)?;
        let role = session.role;
        session.identity = names.first().copied().unwrap_or_default().into();
        session.tag = Tag::of(&session.identity);
        session.service = service;
        session.instance = instance.unwrap_or_default();
        if self.registry.count(&session.identity, role) >= self.config.limits.sessions_per_identity {
            return Err(code::TOO_MANY_SESSIONS);
        }
        match role {
            Role::Provider => {
                if instance.is_some() {
                    self.replace_same_process(now, handle);
                }
                let entry = self.registry.get(service).ok_or(code::INTERNAL)?;
                match (entry.incumbent(), entry.held) {
                    (None, _) => Ok(Admission::Free),
                    (Some(_), None) => Ok(Admission::Occupied),
                    // One newcomer at a time may wait.
                    (Some(_), Some(_)) => Err(code::SINGLETON_OCCUPIED),
                }
            }
            Role::Consumer => {
                let entry = self.registry.get_mut(service).ok_or(code::INTERNAL)?;
                let will_have_one = entry.managed.as_ref().is_some_and(Managed::is_on_demand);
                // `sc01` has no way to wait, so it is let in and its connections wait.
                if instance.is_none() || will_have_one || !entry.providers.is_empty() {
                    return Ok(Admission::Free);
                }
                entry.early.insert(handle);
                Ok(Admission::Early)
            }
        }
    }

    /// The same process has come back: its older session is dead or dying, and no conflict (ADM-6).
    fn replace_same_process(&mut self, now: Instant, handle: Handle) {
        let Some(newer) = self.sessions.get(&handle) else { return };
        let is_older = |older: &Session| {
            older.machine.is_established() && older.instance == newer.instance && older.identity == newer.identity
        };
        let providers = self.registry.get(newer.service).map(|entry| entry.providers.as_slice()).unwrap_or_default();
        let older: Vec<Handle> = providers
            .iter()
            .map(|provider| provider.session)
            .filter(|other| *other != handle && self.sessions.get(other).is_some_and(is_older))
            .collect();
        for older in older {
            self.session_event(now, older, Event::Replaced);
        }
    }

    fn control_datagram(&mut self, now: Instant, handle: Handle, word: &Bytes) {
        let Some(session) = self.sessions.get(&handle) else { return };
        match (session.protocol, session.role, word.trim_ascii()) {
            (Protocol::Sc01, Role::Provider, NOTIFY_SHUTDOWN) => {
                self.session_event(now, handle, Event::NotifyShutdown);
            }
            (Protocol::Sc01, Role::Consumer, REQUEST_PROVIDER_START) => self.provider_start(now, handle),
            // `sc02` has a control stream; control datagrams are ignored there. The others of `sc01` ask for nothing here.
            _ => {}
        }
    }

    /// A consumer's payload is about to come.
    pub(super) fn provider_start(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if session.machine.is_established()
            && session.provider_start.is_none_or(|last| now >= last + PROVIDER_START_EVERY)
        {
            session.provider_start = Some(now);
            let service = session.service;
            self.managed_event(now, service, managed::Event::PayloadAnnounced);
        }
    }

    fn closed(&mut self, now: Instant, handle: Handle, reason: CloseReason) {
        let Some(session) = self.sessions.get(&handle) else { return };
        if session.peer == PeerIdentity::default() && reason != CloseReason::Local {
            let remote = session.remote;
            let reason = Reason::Handshake(reason.to_string());
            self.refused(Refusal { at: now, remote, subject: None, role: None, reason });
        }
        let event = match reason {
            CloseReason::Peer { code, .. } => Event::ClosedByPeer { code },
            CloseReason::Local | CloseReason::Transport { .. } | CloseReason::Reset | CloseReason::TimedOut => {
                Event::Lost
            }
        };
        self.session_event(now, handle, event);
        self.unhold(handle);
        self.silence.forget(handle);
        self.listeners.forget(handle);
        if let Some(session) = self.sessions.remove(&handle) {
            session.windows.end(&mut self.budget);
        }
    }

    /// A violation: `detail` is for the diagnostic.
    pub(super) fn violation(&mut self, now: Instant, handle: Handle, code: u64, detail: String) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.detail = detail;
        }
        self.session_event(now, handle, Event::ControlViolation { code });
    }

    pub(in crate::spn::hub) fn session_event(&mut self, now: Instant, handle: Handle, event: Event) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.machine.handle_event(now, event);
        }
        self.perform_session(now, handle);
    }

    pub(in crate::spn::hub) fn session_timeout(&mut self, now: Instant, at: Instant, handle: Handle) {
        if let Some(session) = self.sessions.get_mut(&handle)
            && session.machine.expire(now, at)
        {
            self.perform_session(now, handle);
        }
    }

    fn perform_session(&mut self, now: Instant, handle: Handle) {
        while let Some(session) = self.sessions.get_mut(&handle)
            && let Some(action) = session.machine.next_action(&mut self.deadlines, Due::Session(handle))
        {
            self.perform_session_action(now, handle, action);
        }
        self.dirty = true;
    }

    fn perform_session_action(&mut self, now: Instant, handle: Handle, action: Action) {
        match action {
            Action::Begin { weight } => self.begin_session(now, handle, weight),
            Action::End { reason, loss } => {
                self.forget_session_requests(now, handle);
                self.lose_connections(now, handle, loss);
                self.unregister(now, handle);
                let Some(session) = self.sessions.get_mut(&handle) else { return };
                if let Some((began, record)) = session.began.take() {
                    let event = RecordEvent::EndSession {
                        session: record,
                        connections: session.total,
                        elapsed_ms: now.saturating_duration_since(began).as_millis() as u64,
                        reason,
                    };
                    self.record(now, event);
                }
            }
            Action::ProbeIncumbent => self.probe_incumbent(now, handle),
            Action::EvictIncumbent => self.evict_incumbent(now, handle),
            Action::SendAck => {
                self.send_ack(handle);
                self.list_providers(handle);
            }
            Action::SendReject { code, retry_after } => {
                self.unhold(handle);
                self.tell_refusal(now, handle, code);
                let text = code::text(code).to_owned();
                self.send(handle, &Frame::SessionReject { code, retry_after_ms: wire_ms(retry_after), text });
            }
            Action::SendClose { code } => {
                self.send(handle, &Frame::SessionClose { code, text: code::text(code).to_owned() });
            }
            Action::SendShutdown { deadline, resumable } => {
                let can_resume = self.sessions.get(&handle).is_some_and(|session| session.can_resume);
                let flags = if resumable && can_resume { flag::RESUMABLE } else { 0 };
                self.send(handle, &Frame::SessionShutdown { flags, deadline_ms: wire_ms(deadline) });
            }
            Action::SendNotifyShutdown => self.quic.send_datagram(handle, Bytes::from_static(NOTIFY_SHUTDOWN)),
            Action::SetWeight { weight } => self.set_weight(now, handle, weight),
            Action::SendWeightAck { weight } => {
                let streams = self.sessions.get(&handle).map_or(0, |session| session.opened);
                self.send(handle, &Frame::SetWeightAck { weight, streams });
            }
            Action::Close { code } => {
                self.unhold(handle);
                self.tell_refusal(now, handle, code);
                let reason = if code == code::OK { "server shutting down" } else { code::text(code) };
                self.quic.close(now, handle, code, reason);
            }
        }
    }

    /// SESSION_CLOSE came: what follows is no refusal of ours.
    pub(super) fn session_close(&mut self, now: Instant, handle: Handle, code: u64) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.settled = true;
        }
        self.session_event(now, handle, Event::SessionClose { code });
    }

    fn tell_refusal(&mut self, now: Instant, handle: Handle, code: u64) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if code == code::OK || std::mem::replace(&mut session.settled, true) {
            return;
        }
        let refusal = Refusal {
            at: now,
            remote: session.remote,
            subject: Some(session.peer.subject.clone()),
            role: Some((session.role, session.protocol)),
            reason: Reason::Code { code, detail: std::mem::take(&mut session.detail) },
        };
        self.refused(refusal);
    }

    fn begin_session(&mut self, now: Instant, handle: Handle, weight: u16) {
        self.unhold(handle);
        let id = self.quic.id(handle).unwrap_or_default().to_owned();
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let Some(entry) = self.registry.get_mut(session.service) else { return };
        let record = SessionRecord {
            id,
            end_point: session.peer.subject.clone(),
            role: session.role,
            service: entry.urn.clone(),
        };
        session.began = Some((now, record.clone()));
        let (service, role, protocol) = (session.service, session.role, session.protocol);
        if protocol == Protocol::Sc01 {
            session.is_open = true;
        }
        if role == Role::Provider {
            entry.number += 1;
            let number = if weight > 0 { entry.number } else { UNLISTED };
            entry.providers.push(Provider {
                session: handle,
                weight,
                open: 0,
                number,
                out_of_credit: false,
                is_silent: false,
            });
            if protocol == Protocol::Sc02 {
                // It opens no stream but the control stream.
                self.quic.set_max_streams(handle, 1);
            }
        }
        let identity = session.identity.clone();
        self.registry.enter(&identity, role);
        self.record(now, RecordEvent::StartSession(record));
        match role {
            Role::Provider => {
                self.providers_changed(service);
                self.provider_came(now, service);
            }
            Role::Consumer if self.registry.get(service).is_some_and(|entry| entry.providers.is_empty()) => {
                self.managed_event(now, service, managed::Event::ConsumerCame);
            }
            Role::Consumer => {}
        }
    }

    fn provider_came(&mut self, now: Instant, service: usize) {
        self.look_at_provider(now, service);
        let early = self.registry.get_mut(service).map(|entry| std::mem::take(&mut entry.early));
        for consumer in early.unwrap_or_default() {
            self.session_event(now, consumer, Event::ProviderCame);
        }
        self.choose_for_waiting(now, service);
    }

    /// Its connections lose it.
    fn lose_connections(&mut self, now: Instant, handle: Handle, loss: Loss) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let side = session.side();
        session.streams.clear();
        for id in std::mem::take(&mut session.legs) {
            self.connection_event(now, id, connection::Event::SessionLost { side, loss });
        }
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        for id in std::mem::take(&mut session.connections) {
            let Some(connection) = self.connections.get(&id) else { continue };
            let speaks_for_itself = loss == Loss::Drained && connection.machine.is_resumable();
            let is_unstarted = connection.is_unstarted() && side == Side::Provider && !speaks_for_itself;
            let loss = if is_unstarted { Loss::Unstarted } else { loss };
            self.connection_event(now, id, connection::Event::SessionLost { side, loss });
        }
    }

    fn unregister(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let (identity, role, service) = (session.identity.clone(), session.role, session.service);
        self.registry.leave(&identity, role);
        let Some(entry) = self.registry.get_mut(service) else { return };
        let before = entry.providers.len();
        entry.providers.retain(|provider| provider.session != handle);
        let has_left = entry.providers.len() < before;
        entry.number += u64::from(has_left);
        if has_left {
            self.providers_changed(service);
        }
        let Some(entry) = self.registry.get_mut(service) else { return };
        if entry.incumbent().is_none()
            && let Some(held) = entry.held.take()
        {
            self.session_event(now, held, Event::IncumbentGone);
        }
        self.look_at_provider(now, service);
    }

    fn set_weight(&mut self, now: Instant, handle: Handle, weight: u16) {
        let Some(service) = self.sessions.get(&handle).map(|session| session.service) else { return };
        let Some(entry) = self.registry.get_mut(service) else { return };
        if let Some(provider) = entry.provider(handle) {
            provider.weight = weight;
            let gets_some = weight > 0 && (!provider.is_silent || provider.number != UNLISTED);
            self.list(service, handle, gets_some);
        }
        let Some(entry) = self.registry.get_mut(service) else { return };
        if entry.incumbent().is_none()
            && let Some(held) = entry.held.take()
        {
            self.session_event(now, held, Event::IncumbentGone);
        }
        self.choose_for_waiting(now, service);
    }

    fn probe_incumbent(&mut self, now: Instant, handle: Handle) {
        let Some(service) = self.sessions.get(&handle).map(|session| session.service) else { return };
        let Some(entry) = self.registry.get_mut(service) else { return };
        let Some(incumbent) = entry.incumbent() else { return };
        entry.held = Some(handle);
        self.quic.ping(incumbent);
        let heard = self.quic.received_datagrams(incumbent);
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.probe = Some((incumbent, heard));
        }
        self.remind(now + PROBE_EVERY, Due::Probe(handle));
    }

    /// Looks whether the incumbent has said anything since it was asked.
    pub(in crate::spn::hub) fn probe(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get(&handle).filter(|session| session.machine.is_held()) else { return };
        let Some((incumbent, heard)) = session.probe else { return };
        if self.quic.received_datagrams(incumbent) > heard {
            self.session_event(now, handle, Event::IncumbentAlive);
        } else {
            self.remind(now + PROBE_EVERY, Due::Probe(handle));
        }
    }

    fn evict_incumbent(&mut self, now: Instant, handle: Handle) {
        let incumbent = self.sessions.get(&handle).and_then(|session| session.probe).map(|(incumbent, _)| incumbent);
        self.unhold(handle);
        if let Some(incumbent) = incumbent {
            self.session_event(now, incumbent, Event::Replaced);
        }
    }

    /// It no longer waits for the end of a singleton's provider, or for the first provider.
    fn unhold(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let Some(entry) = self.registry.get_mut(session.service) else { return };
        if entry.held == Some(handle) {
            entry.held = None;
        }
        entry.early.remove(&handle);
    }

    fn send_ack(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let max_connections = match session.role {
            Role::Provider => 0,
            Role::Consumer => self.config.limits.connections_per_session.into(),
        };
        let service = self.registry.get(session.service).map(|entry| entry.urn.to_string()).unwrap_or_default();
        let session_id = self.quic.id(handle).unwrap_or_default().to_owned();
        let ack = SessionAck { session_id, service, hub_instance: self.id, max_connections, state: 0 };
        self.send(handle, &Frame::SessionAck(ack));
    }

    /// Queues a control frame; nothing on `sc01`.
    pub(in crate::spn::hub) fn send(&mut self, handle: Handle, frame: &Frame) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let Some(control) = &mut session.control else { return };
        control.send(frame);
        if !std::mem::replace(&mut session.unflushed, true) {
            self.unflushed.push(handle);
        }
    }

    /// Queues a frame that the partner has caused. A session that does not read keeps only the newest of each kind for each connection: whatever
    /// the partner sends, it cannot fill another one's control stream.
    pub(super) fn send_latest(&mut self, handle: Handle, conn: ConnKey, frame: Frame) {
        let limit = self.config.limits.control_backlog;
        let Some(session) = self.sessions.get_mut(&handle).filter(|session| session.is_choked(limit)) else {
            return self.send(handle, &frame);
        };
        let waiting = session.latest.entry(conn).or_default();
        waiting.retain(|older| std::mem::discriminant(older) != std::mem::discriminant(&frame));
        waiting.push(frame);
        if !std::mem::replace(&mut session.unflushed, true) {
            self.unflushed.push(handle);
        }
    }

    /// Queues a report for a connection of a session; a newer one takes its place, so that no reader can make the queue grow.
    pub(super) fn send_report(&mut self, handle: Handle, entry: AckEntry) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let waiting = session.reports.entry(entry.conn).or_insert_with(|| entry.clone());
        waiting.received = waiting.received.max(entry.received);
        waiting.flags |= entry.flags;
        if !std::mem::replace(&mut session.unflushed, true) {
            self.unflushed.push(handle);
        }
    }

    /// Sends the control frames that have gathered.
    pub(in crate::spn::hub) fn flush_control(&mut self, now: Instant) {
        // Reading on behind a flush may queue answers again; the control rate bounds it.
        while let Some(handle) = self.unflushed.pop() {
            self.flush(now, handle);
        }
    }

    pub(in crate::spn::hub) fn flush(&mut self, now: Instant, handle: Handle) {
        let limit = self.config.limits.control_backlog;
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let was_choked = session.is_choked(limit);
        session.unflushed = false;
        session.is_open |= session.machine.is_established();
        let Some(control) = &mut session.control else { return };
        let mut flushed = control.flush(&mut self.quic);
        while control.backlog() == 0
            && flushed.is_ok()
            && let Some((_, frames)) = session.latest.pop_first()
        {
            frames.iter().for_each(|frame| control.send(frame));
            flushed = control.flush(&mut self.quic);
        }
        if control.backlog() == 0 && !session.reports.is_empty() {
            let reports: Vec<_> = std::mem::take(&mut session.reports).into_values().collect();
            for entries in reports.chunks(MAX_LIST as usize) {
                control.send(&Frame::DataAck(entries.to_vec()));
            }
            flushed = flushed.and_then(|()| control.flush(&mut self.quic));
        }
        let (is_free, service) = (was_choked && !session.is_choked(limit), session.service);
        if is_free {
            self.choose_for_waiting(now, service);
        }
        let Some(control) = self.sessions.get(&handle).and_then(|session| session.control.as_ref()) else { return };
        match flushed {
            Err(error) => self.violation(now, handle, code::CONTROL_LOST, error.to_string()),
            Ok(()) if control.backlog() <= self.config.limits.control_backlog => {
                let session = self.sessions.get_mut(&handle);
                if session.is_some_and(|session| std::mem::take(&mut session.control_paused)) {
                    self.read_control(now, handle);
                }
            }
            // It has caused that itself, by streams.
            Ok(()) if control.backlog() > self.config.limits.control_backlog.saturating_mul(UNREAD) => {
                let detail = format!("{} bytes wait: it is not read", control.backlog());
                self.violation(now, handle, code::CONTROL_LOST, detail);
            }
            // Writable brings us back here.
            Ok(()) => {}
        }
    }
}

/// A duration in a frame, in whole milliseconds; some 50 days are the most that is said.
fn wire_ms(duration: Duration) -> u64 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).into()
}

/// Whether there is room for a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Free,
    /// A singleton, and its provider looks alive.
    Occupied,
    /// A consumer, and there is no provider.
    Early,
}
