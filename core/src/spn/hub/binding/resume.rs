//! What the hub does for connections that outlive their streams: requests to resume, the next leg, and reports between the ends
//! (docs/protocols/spn.md, Pause and resume, RES-25 to RES-35). It keeps no payload, and nothing that a restarted hub would miss.
//!
//! The [machine](pairing) of a connection decides; here its events are made of frames and streams, and its actions are performed.

use std::time::{Duration, Instant};

use crate::{
    quic::{Handle, StreamId},
    spn::{
        ConnKey, Side, Tag,
        hub::{
            Due, Hub,
            machines::{
                connection,
                pairing::{self, Action, Admission, Event, Owners, SessionRef, Values},
            },
        },
        wire::{
            code,
            frame::{AckEntry, Frame, ResumeAck, ResumeReq, flag},
            preamble::Preamble,
        },
    },
};

/// How often a session's requests are looked through for those that have waited too long, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl From<Handle> for SessionRef {
    fn from(handle: Handle) -> Self {
        Self(handle.to_bits())
    }
}

impl From<SessionRef> for Handle {
    fn from(SessionRef(bits): SessionRef) -> Self {
        Self::from_bits(bits)
    }
}

/// A consumer's stream that begins with RESUME.
struct Offered {
    session: Handle,
    stream: StreamId,
    generation: u64,
    preamble: Preamble,
}

impl Hub {
    /// Pauses a service: its connections that can be resumed leave their streams, those that cannot run on, and nothing is begun or resumed
    /// until [`unpause`](Self::unpause). Endpoints wait for as long as their settings say (120 s). Says whether there is such a service.
    pub fn pause(&mut self, now: Instant, urn: &str) -> bool {
        let Some(service) = self.registry.find(urn) else { return false };
        if let Some(entry) = self.registry.get_mut(service) {
            entry.is_paused = true;
        }
        self.each_pairing(now, &Event::ServicePaused { service: number(service) });
        let of_it = self.connections.iter().filter(|(_, it)| it.service == service && !it.machine.is_choosing());
        for id in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.connection_event(now, id, connection::Event::PauseWanted);
        }
        true
    }

    /// Ends a pause. Says whether there is such a service.
    pub fn unpause(&mut self, now: Instant, urn: &str) -> bool {
        let Some(service) = self.registry.find(urn) else { return false };
        if let Some(entry) = self.registry.get_mut(service) {
            entry.is_paused = false;
        }
        self.choose_for_waiting(now, service);
        self.each_pairing(now, &Event::ServiceUnpaused { service: number(service) });
        self.dirty = true;
        true
    }

    fn is_paused(&self, service: usize) -> bool {
        self.registry.get(service).is_some_and(|entry| entry.is_paused)
    }

    /// Consumer and provider of a connection that has a leg here.
    fn owners(&self, key: ConnKey) -> Option<Owners> {
        let connection = self.connections.get(self.keys.get(&key)?)?;
        let tag = |side| Some(self.sessions.get(&connection.leg(side)?.session)?.tag);
        Some(Owners { consumer: tag(Side::Consumer)?, provider: tag(Side::Provider)? })
    }

    /// The generation of the leg that a connection has here.
    fn leg_generation(&self, key: ConnKey) -> Option<u64> {
        Some(self.connections.get(self.keys.get(&key)?)?.generation)
    }

    /// Whether a stream of a session may ask for a connection, as far as the hub and the present leg are concerned.
    fn admission(&self, handle: Handle, key: ConnKey) -> Admission {
        if self.is_foreign_leg(handle, key) {
            Admission::Foreign
        } else if !self.machine.is_listening() {
            Admission::Leaving
        } else {
            Admission::Free
        }
    }

    /// Whether a connection has a leg that is another identity's, or another service's (OWN-4).
    fn is_foreign_leg(&self, handle: Handle, key: ConnKey) -> bool {
        let Some(session) = self.sessions.get(&handle) else { return true };
        let side = session.side();
        self.keys.get(&key).and_then(|id| self.connections.get(id)).is_some_and(|connection| {
            let owner = match side {
                Side::Consumer => Some(&connection.identity),
                Side::Provider => connection
                    .leg(side)
                    .and_then(|leg| self.sessions.get(&leg.session))
                    .map(|session| &session.identity),
            };
            connection.service != session.service || owner.is_some_and(|owner| *owner != session.identity)
        })
    }

    /// An event that may be the first of a connection's requests.
    fn begin_pairing(&mut self, now: Instant, key: ConnKey, event: Event) -> Vec<Action> {
        let config = pairing::Config { resume_wait: self.resume_wait() };
        self.pairings.begin(now, key, (config, self.leg_generation(key)), event)
    }

    /// An event that matters only if the connection has requests.
    pub(in crate::spn::hub) fn pairing_event(&mut self, now: Instant, key: ConnKey, event: Event) {
        let actions = self.pairings.on(now, key, event);
        self.perform_pairing(now, key, actions);
    }

    fn each_pairing(&mut self, now: Instant, event: &Event) {
        for key in self.pairings.keys() {
            self.pairing_event(now, key, event.clone());
        }
    }

    fn perform_pairing(&mut self, now: Instant, key: ConnKey, actions: Vec<Action>) {
        for action in actions {
            // Without a stream there is nothing to open or to refuse.
            let _ = self.perform_pairing_action(now, key, action, None);
        }
    }

    /// Performs an action. If it decides on a stream, returns the connection that this is now, or the code that refuses it.
    fn perform_pairing_action(
        &mut self,
        now: Instant,
        key: ConnKey,
        action: Action,
        offered: Option<&Offered>,
    ) -> Option<Result<u64, u64>> {
        match action {
            Action::Park { session } => self.note_parked(now, session.into(), key),
            Action::Unpark { sessions } => {
                for handle in sessions.into_iter().map(Handle::from) {
                    if let Some(session) = self.sessions.get_mut(&handle) {
                        session.parked.remove(&key);
                    }
                }
            }
            Action::Answer { session, status, generation, received, flags } => {
                let ack = ResumeAck { conn: key, status, generation, received, flags };
                self.send_latest(session.into(), key, Frame::ResumeAck(ack));
            }
            Action::Refuse { sessions, code } => {
                sessions.into_iter().for_each(|session| self.refuse_resume(session.into(), key, code, 0));
            }
            Action::LoseLeg { side } => self.leg_event(now, key, connection::Event::ResumeReq { side }),
            Action::SupersedeLeg => self.leg_event(now, key, connection::Event::Superseded),
            Action::OpenLeg { provider } => {
                let Offered { session, stream, generation, preamble } = offered?;
                let opened = self.add_leg(now, (*session, *stream), provider.into(), preamble.clone());
                if opened.is_err() {
                    self.pairing_event(now, key, Event::LegRefused { generation: *generation });
                }
                return Some(opened);
            }
            Action::RefuseStream { code } => return Some(Err(code)),
            Action::SendCloseReq { session, code } => {
                self.send_latest(session.into(), key, Frame::CloseReq { conn: key, code });
            }
            Action::SendCloseAck { session } => self.send(session.into(), &Frame::CloseAck { conn: key }),
            Action::SendSeek { provider } => {
                let provider = provider.into();
                if let Some(instance) = self.sessions.get(&provider).map(|session| session.instance) {
                    self.send(provider, &Frame::Seek { conn: key, instance });
                }
            }
            Action::SendAbsent { consumers, provider } => {
                if let Some(instance) = self.sessions.get(&provider.into()).map(|session| session.instance) {
                    let absent = Frame::Absent { conn: key, instance };
                    consumers.into_iter().for_each(|consumer| self.send(consumer.into(), &absent));
                }
            }
            // The machine is gone already.
            Action::End => {}
        }
        None
    }

    fn leg_event(&mut self, now: Instant, key: ConnKey, event: connection::Event) {
        if let Some(&id) = self.keys.get(&key) {
            self.connection_event(now, id, event);
        }
    }

    /// RESUME_REQ.
    pub(in crate::spn::hub) fn resume_req(
        &mut self,
        now: Instant,
        handle: Handle,
        values: ResumeReq,
        partner: Option<Tag>,
    ) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let ResumeReq { conn: key, generation, received, flags, code, .. } = values;
        let admission = if !self.machine.is_listening() {
            Admission::Leaving
        } else if self.is_foreign_leg(handle, key) {
            Admission::Foreign
        } else if session.parked.len() >= self.config.limits.connections_per_session as usize {
            Admission::Full
        } else {
            Admission::Free
        };
        let event = Event::ResumeReq {
            session: handle.into(),
            end: pairing::End { partner, ..session.end() },
            values: Values { generation, received, flags, code },
            admission,
            owners: self.owners(key),
            paused: self.is_paused(session.service),
        };
        let actions = self.begin_pairing(now, key, event);
        self.perform_pairing(now, key, actions);
    }

    pub(super) fn refuse_resume(&mut self, handle: Handle, conn: ConnKey, status: u64, flags: u8) {
        let ack = ResumeAck { conn, status, generation: 0, received: 0, flags };
        self.send(handle, &Frame::ResumeAck(ack));
    }

    fn resume_wait(&self) -> Duration {
        Duration::from_millis(self.config.limits.resume_wait_ms.into())
    }

    /// A session has a request. One reminder for all requests of a session is enough: they come due in the order in which they came.
    fn note_parked(&mut self, now: Instant, handle: Handle, key: ConnKey) {
        let until = now + self.resume_wait();
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.parked.insert(key);
        if !std::mem::replace(&mut session.parked_reminded, true) {
            self.remind(until, Due::Parked(handle));
        }
        self.grant_streams(handle);
    }

    /// A session has ended, and its requests with it.
    pub(super) fn forget_session_requests(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        for key in std::mem::take(&mut session.parked) {
            self.pairing_event(now, key, Event::SessionEnded { session: handle.into() });
        }
    }

    /// Lets the requests of a session that have waited too long expire.
    pub(in crate::spn::hub) fn parked_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.parked_reminded = false;
        let service = session.service;
        let is_late = |key: &ConnKey| self.pairings.due(*key).is_some_and(|at| at <= now);
        for key in session.parked.iter().copied().filter(is_late).collect::<Vec<_>>() {
            let actions = self.pairings.expire(now, key);
            self.perform_pairing(now, key, actions);
        }
        // The oldest request of a connection may have been another session's.
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if let Some(next) = session.parked.iter().filter_map(|key| self.pairings.due(*key)).min() {
            session.parked_reminded = true;
            self.remind(next.max(now + LOOK_EVERY), Due::Parked(handle));
        }
        self.look_at_provider(now, service);
    }

    /// The hub leaves: nothing will be resumed here.
    pub(in crate::spn::hub) fn refuse_parked(&mut self, now: Instant) {
        self.each_pairing(now, &Event::HubLeaving);
    }

    /// A consumer's stream begins with RESUME. The code refuses it.
    pub(in crate::spn::hub) fn resume(
        &mut self,
        now: Instant,
        handle: Handle,
        stream: StreamId,
        preamble: Preamble,
    ) -> Result<u64, u64> {
        let &Preamble::Resume { conn: key, generation, .. } = &preamble else { return Err(code::MALFORMED) };
        let generation = u64::from(generation);
        let Some(session) = self.sessions.get(&handle) else { return Err(code::NOT_ENTITLED) };
        let leg = self.keys.get(&key).and_then(|id| self.connections.get(id));
        let event = Event::ResumeStream {
            session: handle.into(),
            end: session.end(),
            generation,
            admission: self.admission(handle, key),
            yields: leg.is_some_and(|connection| connection.machine.may_be_superseded()),
        };
        let offered = Offered { session: handle, stream, generation, preamble };
        self.decide_stream(now, key, event, Some(&offered))
    }

    /// A consumer's stream begins with CONNECT of a connection that is known. Returns the code that refuses it.
    pub(super) fn refuse_connect(&mut self, now: Instant, handle: Handle, key: ConnKey) -> u64 {
        let Some(session) = self.sessions.get(&handle) else { return code::NOT_ENTITLED };
        let (session, end) = (handle.into(), session.end());
        let event = Event::ConnectStream { session, end, admission: self.admission(handle, key) };
        self.decide_stream(now, key, event, None).err().unwrap_or(code::CONN_IN_USE)
    }

    fn decide_stream(
        &mut self,
        now: Instant,
        key: ConnKey,
        event: Event,
        offered: Option<&Offered>,
    ) -> Result<u64, u64> {
        let mut decision = Err(code::INTERNAL);
        for action in self.begin_pairing(now, key, event) {
            decision = self.perform_pairing_action(now, key, action, offered).unwrap_or(decision);
        }
        decision
    }

    /// The provider's preamble has come on this leg: it knows which connection it is.
    pub(in crate::spn::hub) fn answered(&mut self, now: Instant, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let key = connection.key();
        self.pairing_event(now, key, Event::ProviderAnswered);
        self.connection_event(now, id, connection::Event::Answered);
    }

    /// DATA_ACK: what an end has taken is told to the other.
    pub(super) fn data_ack(&mut self, now: Instant, handle: Handle, entries: Vec<AckEntry>) {
        for entry in entries {
            let Some((id, side)) = self.own_connection(handle, entry.conn) else { continue };
            let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.machine.is_routed())
            else {
                continue;
            };
            let Some(to) = connection.leg(side.other()) else { continue };
            // On a later leg the provider's preamble goes before its reports.
            let answers = side == Side::Provider && !std::mem::replace(&mut connection.answered, true);
            if answers {
                self.connection_event(now, id, connection::Event::Answered);
            }
            let is_over = entry.flags & flag::OVER != 0;
            self.send_report(to.session, entry);
            if is_over {
                self.connection_event(now, id, connection::Event::Reported { side });
            }
        }
    }

    /// CLOSE_REQ for a connection that has no leg of this session.
    pub(super) fn close_parked(&mut self, now: Instant, handle: Handle, key: ConnKey, code: u64) {
        let Some(session) = self.sessions.get(&handle) else { return };
        let event = Event::CloseReq { session: handle.into(), end: session.end(), code };
        let actions = self.begin_pairing(now, key, event);
        self.perform_pairing(now, key, actions);
    }
}

/// A service, as machines number it.
pub(super) fn number(service: usize) -> u32 {
    u32::try_from(service).unwrap_or(u32::MAX)
}
