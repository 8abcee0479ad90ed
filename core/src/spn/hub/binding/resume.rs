//! What the hub does for connections that outlive their streams: requests to resume, their pairing, the next leg, and reports between the ends
//! (docs/protocols/spn.md, Pause and resume, RES-25 to RES-35). It keeps no payload, and nothing that a restarted hub would miss.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::parked::{End, Request};
use crate::{
    quic::{Handle, StreamId},
    spn::{
        ConnKey, Side, Tag,
        hub::{Due, Hub, machines::connection::Event},
        wire::{
            code,
            frame::{AckEntry, Frame, ResumeAck, ResumeReq, flag},
            preamble::Preamble,
        },
    },
};

/// How often a session's requests are looked through for those that have waited too long, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Hub {
    /// Pauses a service: its connections that can be resumed leave their streams, those that cannot run on, and nothing is begun or resumed
    /// until [`unpause`](Self::unpause). Endpoints wait for as long as their settings say (120 s). Says whether there is such a service.
    pub fn pause(&mut self, now: Instant, urn: &str) -> bool {
        let Some(service) = self.registry.find(urn) else { return false };
        if let Some(entry) = self.registry.get_mut(service) {
            entry.is_paused = true;
        }
        let of_it = self.connections.iter().filter(|(_, it)| it.service == service && !it.machine.is_choosing());
        for id in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.connection_event(now, id, Event::PauseWanted);
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
        for key in self.parked.keys().copied().collect::<Vec<_>>() {
            self.pair(key);
        }
        self.dirty = true;
        true
    }

    fn is_paused(&self, service: usize) -> bool {
        self.registry.get(service).is_some_and(|entry| entry.is_paused)
    }

    /// Consumer and provider of a connection that has a leg here.
    fn owners(&self, key: ConnKey) -> Option<(Tag, Tag)> {
        let connection = self.connections.get(self.keys.get(&key)?)?;
        let tag = |side| Some(self.sessions.get(&connection.leg(side)?.session)?.tag);
        Some((tag(Side::Consumer)?, tag(Side::Provider)?))
    }

    /// Whether a connection is another identity's, or another service's.
    pub(super) fn is_foreign(&self, handle: Handle, key: ConnKey) -> bool {
        let Some(session) = self.sessions.get(&handle) else { return true };
        let side = session.side();
        let leg = self.keys.get(&key).and_then(|id| self.connections.get(id)).is_some_and(|connection| {
            let owner = match side {
                Side::Consumer => Some(&connection.identity),
                Side::Provider => connection
                    .leg(side)
                    .and_then(|leg| self.sessions.get(&leg.session))
                    .map(|session| &session.identity),
            };
            connection.service != session.service || owner.is_some_and(|owner| *owner != session.identity)
        });
        leg || self.parked.get(&key).is_some_and(|parked| parked.is_foreign(session.end(parked.of(handle))))
    }

    /// Sends those away to whom the connection does not belong, as it turns out.
    fn refuse_foreign(&mut self, key: ConnKey) {
        let Some(parked) = self.parked.get(&key) else { return };
        let foreign: Vec<Handle> =
            parked.requests.iter().filter(|it| parked.is_foreign(it.end)).map(|it| it.session).collect();
        for session in foreign {
            self.forget_requests(key, |request| request.session == session);
            self.refuse_resume(session, key, code::NOT_ENTITLED, 0);
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
        let (key, generation) = (values.conn, values.generation);
        let Some(session) = self.sessions.get(&handle) else { return };
        let side = session.side();
        let is_full = session.parked.len() >= self.config.limits.connections_per_session as usize
            && !session.parked.contains(&key);
        let refusal = if !self.machine.is_listening() {
            Some(code::PAUSED)
        } else if self.is_foreign(handle, key) {
            Some(code::NOT_ENTITLED)
        } else if is_full {
            Some(code::TOO_MANY_SESSIONS)
        } else {
            None
        };
        if let Some(code) = refusal {
            return self.refuse_resume(handle, key, code, 0);
        }
        self.park(now, handle, values, partner);
        self.refuse_foreign(key);
        let leg = self.keys.get(&key).and_then(|&id| Some((id, self.connections.get(&id)?.generation)));
        match leg {
            // Who asks has lost the leg.
            Some((id, present)) if generation >= present => self.connection_event(now, id, Event::ResumeReq { side }),
            Some(_) => {}
            None => self.pair(key),
        }
    }

    pub(super) fn refuse_resume(&mut self, handle: Handle, conn: ConnKey, status: u64, flags: u8) {
        let ack = ResumeAck { conn, status, generation: 0, received: 0, flags };
        self.send(handle, &Frame::ResumeAck(ack));
    }

    fn park(&mut self, now: Instant, handle: Handle, values: ResumeReq, partner: Option<Tag>) {
        let owners = self.owners(values.conn);
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        let until = now + Duration::from_millis(self.config.limits.resume_wait_ms.into());
        let key = values.conn;
        let end = End { partner, ..session.end(None) };
        session.parked.insert(key);
        let remind = !std::mem::replace(&mut session.parked_reminded, true);
        let parked = self.parked.entry(key).or_default();
        parked.owners = owners.or(parked.owners);
        parked.requests.retain(|request| request.session != handle);
        let sought = BTreeSet::new();
        parked.requests.push(Request { session: handle, end, values, until, sought });
        if remind {
            self.remind(until, Due::Parked(handle));
        }
        self.grant_streams(handle);
    }

    /// A consumer looks for its connection at a provider; says whether that is to be asked.
    pub(in crate::spn::hub) fn note_sought(&mut self, key: ConnKey, consumer: Handle, provider: Handle) -> bool {
        let requests = self.parked.get_mut(&key).map(|parked| parked.requests.iter_mut());
        let mut own = requests.into_iter().flatten().filter(|request| request.session == consumer);
        own.next().is_some_and(|request| request.end.side == Side::Consumer && request.sought.insert(provider))
    }

    /// The consumers that have had a provider asked for a connection.
    pub(in crate::spn::hub) fn seekers(&self, key: ConnKey, provider: Handle) -> Vec<Handle> {
        let requests = self.parked.get(&key).map(|parked| parked.requests.iter());
        let seekers = requests.into_iter().flatten().filter(|request| request.sought.contains(&provider));
        seekers.map(|request| request.session).collect()
    }

    /// Answers both ends, if both have asked and there is no leg.
    pub(in crate::spn::hub) fn pair(&mut self, key: ConnKey) {
        if self.keys.contains_key(&key) {
            return;
        }
        let Some((consumer, provider)) = self.parked.get(&key).and_then(|parked| parked.pair()) else { return };
        if self.is_paused(consumer.end.service) {
            return;
        }
        let is_aborted = consumer.values.is_aborted() || provider.values.is_aborted();
        let both = [consumer.end, provider.end].map(|end| (end.service, end.tag));
        let answers = [(consumer.session, provider.for_partner()), (provider.session, consumer.for_partner())];
        for (session, answer) in answers {
            self.send_latest(session, key, answer);
        }
        if is_aborted {
            self.forget_requests(key, |request| both.contains(&(request.end.service, request.end.tag)));
        }
    }

    /// Forgets requests to resume a connection.
    pub(super) fn forget_requests(&mut self, key: ConnKey, mut which: impl FnMut(&Request) -> bool) {
        let Some(parked) = self.parked.get_mut(&key) else { return };
        let sessions = &mut self.sessions;
        parked.requests.retain(|request| {
            let forget = which(request);
            if forget && let Some(session) = sessions.get_mut(&request.session) {
                session.parked.remove(&key);
            }
            !forget
        });
        if parked.requests.is_empty() {
            self.parked.remove(&key);
        }
    }

    /// A session has ended, and what it asked for with it.
    pub(super) fn forget_session_requests(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        for key in std::mem::take(&mut session.parked) {
            self.forget_requests(key, |request| request.session == handle);
            self.pair(key);
        }
    }

    /// Answers those requests of a session that have waited too long.
    pub(in crate::spn::hub) fn parked_timeout(&mut self, now: Instant, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        session.parked_reminded = false;
        let service = session.service;
        let (mut late, mut next) = (Vec::new(), None::<Instant>);
        for key in &session.parked {
            let parked = self.parked.get(key).map(|parked| parked.requests.iter());
            for request in parked.into_iter().flatten().filter(|request| request.session == handle) {
                if request.until <= now {
                    late.push(*key);
                } else {
                    next = Some(next.map_or(request.until, |next| next.min(request.until)));
                }
            }
        }
        if let Some(next) = next {
            session.parked_reminded = true;
            self.remind(next.max(now + LOOK_EVERY), Due::Parked(handle));
        }
        for key in late {
            self.forget_requests(key, |request| request.session == handle);
            self.refuse_resume(handle, key, code::RESUME_PARTNER_MISSING, 0);
            self.pair(key);
        }
        self.look_at_provider(now, service);
    }

    /// The hub leaves: nothing will be resumed here.
    pub(in crate::spn::hub) fn refuse_parked(&mut self) {
        for (key, parked) in std::mem::take(&mut self.parked) {
            for request in parked.requests {
                if let Some(session) = self.sessions.get_mut(&request.session) {
                    session.parked.remove(&key);
                }
                self.refuse_resume(request.session, key, code::PAUSED, 0);
            }
        }
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
        if self.is_foreign(handle, key) {
            return Err(code::NOT_ENTITLED);
        }
        let session = self.sessions.get(&handle).filter(|session| !self.is_paused(session.service));
        let (Some(session), true) = (session, self.machine.is_listening()) else { return Err(code::PAUSED) };
        let Some(parked) = self.parked.get(&key) else { return Err(code::PAUSED) };
        let end = session.end(parked.of(handle));
        let is_own = |request: &Request| (request.end.side, request.end.tag) == (end.side, end.tag);
        // It has been given up already.
        if parked.requests.iter().any(|request| is_own(request) && request.values.generation >= generation) {
            return Err(code::PAUSED);
        }
        let provider = parked.partner_for(end).map(|request| request.session).ok_or(code::PAUSED)?;
        let leg = self.keys.get(&key).and_then(|&id| Some((id, self.connections.get(&id)?)));
        let older = match leg {
            Some((_, connection)) if connection.generation >= generation || !connection.machine.may_be_superseded() => {
                return Err(code::PAUSED);
            }
            Some((id, _)) => Some(id),
            None => None,
        };
        self.forget_requests(key, is_own);
        if let Some(id) = older {
            self.connection_event(now, id, Event::Superseded);
        }
        self.add_leg(now, (handle, stream), provider, preamble)
    }

    /// The provider has said something on this leg: it knows which connection it is.
    pub(in crate::spn::hub) fn answered(&mut self, now: Instant, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (key, generation) = (connection.key(), connection.generation);
        self.forget_requests(key, |request| {
            request.end.side == Side::Provider && request.values.generation < generation
        });
        self.connection_event(now, id, Event::Answered);
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
                self.connection_event(now, id, Event::Answered);
            }
            let is_over = entry.flags & flag::OVER != 0;
            self.send_report(to.session, entry);
            if is_over {
                self.connection_event(now, id, Event::Reported { side });
            }
        }
    }

    /// CLOSE_REQ for what has no leg of this session.
    pub(super) fn close_parked(&mut self, handle: Handle, key: ConnKey, code: u64) {
        self.send(handle, &Frame::CloseAck { conn: key });
        if self.keys.contains_key(&key) || self.is_foreign(handle, key) {
            return;
        }
        let (Some(session), Some(parked)) = (self.sessions.get(&handle), self.parked.get(&key)) else { return };
        let end = session.end(parked.of(handle));
        let partner = parked.partner_for(end).map(|request| (request.session, request.end.tag));
        if let Some((session, _)) = partner {
            self.send_latest(session, key, Frame::CloseReq { conn: key, code });
        }
        let both = [Some(end.tag), partner.map(|(_, tag)| tag)];
        self.forget_requests(key, |request| {
            request.end.service == end.service && both.contains(&Some(request.end.tag))
        });
    }
}
