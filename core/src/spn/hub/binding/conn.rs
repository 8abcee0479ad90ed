//! Connections on the hub: a consumer's stream, a provider chosen for it, and what their machine asks for.

use std::{sync::Arc, time::Instant};

use super::relay::{Leg, Relay};
use crate::{
    machine::{Hosted, Machine as _},
    quic::{Handle, StreamId},
    spn::{
        ConnKey, Protocol, Side,
        flow::stall::Stall,
        hub::{
            Due, Hub,
            machines::{
                connection::{Action, Event, HubConnection},
                managed, pairing,
            },
            policy::{
                balance,
                registry::{Provider, Registry, UNLISTED},
            },
        },
        record::{ConnectionRecord, DisconnectReason, RecordEvent},
        wire::{
            code,
            frame::{Frame, flag},
            preamble::{Preamble, RESUME_LEN},
        },
    },
};

/// Where a direction stands between two turns.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) is_queued: bool,
    /// Its target has no room.
    pub(super) stall: Stall,
    /// What it leaves unread comes on top of the session's window.
    pub(super) is_parked: bool,
}

/// A connection on the hub: of one that is resumed, one leg.
pub(in crate::spn::hub) struct Connection {
    pub(in crate::spn::hub) machine: Hosted<HubConnection>,
    key: ConnKey,
    pub(in crate::spn::hub) service: usize,
    /// The consumer that the key belongs to.
    pub(in crate::spn::hub) identity: Arc<str>,
    consumer: Leg,
    provider: Option<Leg>,
    /// The consumer's end can resume.
    offers_resume: bool,
    /// RESUME, if it began with that.
    resume: Option<Preamble>,
    /// The provider's session that has no stream for it at the moment.
    waits_for: Option<Handle>,
    /// Number of the leg.
    pub(in crate::spn::hub) generation: u64,
    /// Something has come back from the provider.
    pub(in crate::spn::hub) answered: bool,
    /// Datagrams that had come from its provider when that got it; not of a later leg.
    pub(in crate::spn::hub) heard: Option<u64>,
    pub(in crate::spn::hub) relay: Relay,
    began: Option<(Instant, ConnectionRecord)>,
    up: Turn,
    down: Turn,
}

/// What came of the search for a provider.
enum Choice {
    Made,
    /// There is none with room.
    None,
    /// There is one, of which the consumer does not know yet.
    Unknown,
}

impl Connection {
    pub(in crate::spn::hub) fn leg(&self, side: Side) -> Option<Leg> {
        match side {
            Side::Consumer => Some(self.consumer),
            Side::Provider => self.provider,
        }
    }

    pub(in crate::spn::hub) fn key(&self) -> ConnKey {
        self.key
    }

    pub(super) fn turn(&mut self, source: Side) -> &mut Turn {
        match source {
            Side::Consumer => &mut self.up,
            Side::Provider => &mut self.down,
        }
    }

    /// There is no stream to a provider yet: nothing is read.
    pub(in crate::spn::hub) fn is_held(&self) -> bool {
        self.machine.is_choosing() || self.machine.is_waiting()
    }

    /// No payload has gone either way.
    pub(super) fn is_unstarted(&self) -> bool {
        self.resume.is_none() && self.relay.up.relayed() == 0 && self.relay.down.relayed() == 0
    }
}

impl Hub {
    /// The connection that a session calls `key`, if it is one of its own.
    pub(super) fn own_connection(&self, handle: Handle, key: ConnKey) -> Option<(u64, Side)> {
        let id = *self.keys.get(&key)?;
        let side = self.sessions.get(&handle)?.side();
        (self.connections.get(&id)?.leg(side)?.session == handle).then_some((id, side))
    }

    /// A consumer's stream asks for a provider. The code refuses it.
    pub(in crate::spn::hub) fn connect(
        &mut self,
        now: Instant,
        handle: Handle,
        stream: StreamId,
        key: ConnKey,
        resumable: bool,
    ) -> Result<u64, u64> {
        if !self.machine.is_listening() {
            return Err(code::NOT_STARTED);
        }
        if self.keys.contains_key(&key) || self.pairings.contains(key) {
            return Err(self.refuse_connect(now, handle, key));
        }
        let id = self.add_connection(handle, stream, key, None)?;
        let Some(connection) = self.connections.get_mut(&id) else { return Err(code::INTERNAL) };
        let service = connection.service;
        connection.offers_resume = resumable && self.sessions.get(&handle).is_some_and(|session| session.can_resume);
        connection.machine.handle_event(now, Event::ConnectStream);
        if let Some(entry) = self.registry.get_mut(service) {
            entry.choosing.insert(id);
        }
        self.choose_for_waiting(now, service);
        // Only now, since most have their provider by now, and no deadline any more.
        self.perform_connection(now, id);
        Ok(id)
    }

    /// A stream of a consumer's session becomes a connection, with RESUME if it goes on with one.
    fn add_connection(
        &mut self,
        handle: Handle,
        stream: StreamId,
        key: ConnKey,
        resume: Option<Preamble>,
    ) -> Result<u64, u64> {
        let session = self.sessions.get_mut(&handle).ok_or(code::INTERNAL)?;
        if session.connections.len() >= self.config.limits.connections_per_session as usize {
            return Err(if resume.is_some() { code::PAUSED } else { code::CONNECTION_LIMIT });
        }
        let id = self.next_connection;
        self.next_connection += 1;
        session.board(stream, id);
        let generation = match resume {
            Some(Preamble::Resume { generation, .. }) => generation.into(),
            Some(Preamble::Connect { .. }) | None => 0,
        };
        let connection = Connection {
            machine: Hosted::new(HubConnection::new(self.config.connection)),
            key,
            service: session.service,
            identity: session.identity.clone(),
            consumer: Leg { session: handle, stream },
            provider: None,
            offers_resume: true,
            resume,
            waits_for: None,
            generation,
            answered: false,
            heard: None,
            relay: Relay::default(),
            began: None,
            up: Turn::default(),
            down: Turn::default(),
        };
        self.connections.insert(id, connection);
        self.keys.insert(key, id);
        Ok(id)
    }

    /// The next leg of a connection: a consumer's stream, and a provider that has asked for it. The code refuses it.
    pub(super) fn add_leg(
        &mut self,
        now: Instant,
        consumer: (Handle, StreamId),
        provider: Handle,
        resume: Preamble,
    ) -> Result<u64, u64> {
        let id = self.add_connection(consumer.0, consumer.1, resume.conn(), Some(resume))?;
        if let Some(stream) = self.quic.open(provider) {
            self.board_provider(now, id, Leg { session: provider, stream });
            self.connection_event(now, id, Event::ResumeStream);
        } else {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.waits_for = Some(provider);
            }
            if let Some(session) = self.sessions.get_mut(&provider) {
                session.legs.insert(id);
            }
            self.connection_event(now, id, Event::ResumeWaits);
        }
        Ok(id)
    }

    /// A provider's session has stream credit: legs that wait for it go first, in order.
    pub(super) fn serve_legs(&mut self, now: Instant, provider: Handle) {
        while let Some(id) = self.sessions.get(&provider).and_then(|session| session.legs.first().copied()) {
            let Some(stream) = self.quic.open(provider) else { return };
            self.stop_waiting(id);
            self.board_provider(now, id, Leg { session: provider, stream });
            self.connection_event(now, id, Event::ResumeStream);
        }
    }

    fn stop_waiting(&mut self, id: u64) {
        let waits_for = self.connections.get_mut(&id).and_then(|connection| connection.waits_for.take());
        if let Some(session) = waits_for.and_then(|provider| self.sessions.get_mut(&provider)) {
            session.legs.remove(&id);
        }
    }

    fn board_provider(&mut self, now: Instant, id: u64, leg: Leg) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.provider = Some(leg);
        let service = connection.service;
        if let Some(provider) = self.registry.get_mut(connection.service).and_then(|entry| entry.provider(leg.session))
        {
            provider.open += 1;
        }
        if let Some(session) = self.sessions.get_mut(&leg.session) {
            session.board(leg.stream, id);
            session.total += 1;
            session.opened = session.opened.max(leg.stream.index() + 1);
        }
        self.look_at_provider(now, service);
    }

    /// Gives waiting connections of a service to providers, in order, as long as there is one.
    pub(in crate::spn::hub) fn choose_for_waiting(&mut self, now: Instant, service: usize) {
        let mut from = 0;
        let waiting = |registry: &Registry, from| {
            let entry = registry.get(service).filter(|entry| !entry.is_paused)?;
            entry.choosing.range(from..).next().copied()
        };
        while let Some(id) = waiting(&self.registry, from) {
            let waits = self.connections.get(&id).is_some_and(|connection| connection.machine.is_choosing());
            match if waits { self.choose(now, service, id) } else { Choice::Made } {
                Choice::Made => {}
                Choice::None => return,
                // Others may know more.
                Choice::Unknown => {
                    from = id + 1;
                    continue;
                }
            }
            if let Some(entry) = self.registry.get_mut(service) {
                entry.choosing.remove(&id);
            }
        }
    }

    /// Finds a provider for a connection (docs/protocols/spn.md, Choosing a provider, PRV-6, and Hub connection, HBC-4).
    fn choose(&mut self, now: Instant, service: usize, id: u64) -> Choice {
        let consumer = self.connections.get(&id).map(|connection| connection.consumer.session);
        let known = consumer.map_or(u64::MAX, |session| self.listeners.newest_known(session));
        loop {
            let Some(entry) = self.registry.get_mut(service) else { return Choice::None };
            // One that leaves its control stream unread gets nothing more to do.
            let limit = self.config.limits.control_backlog;
            let reads = |session: &Handle| self.sessions.get(session).is_some_and(|session| !session.is_choked(limit));
            let is_free = |(_, provider): &(usize, &Provider)| {
                !provider.out_of_credit && provider.number <= known && reads(&provider.session)
            };
            // A silent one only if no other answers.
            let answers = |it: &(usize, &Provider)| is_free(it) && !it.1.is_silent && it.1.weight > 0;
            let one_answers = entry.providers.iter().enumerate().any(|it| answers(&it));
            let free = entry.providers.iter().enumerate();
            let free = free.filter(|it| if one_answers { answers(it) } else { is_free(it) });
            let candidates = free.clone().map(|(_, p)| balance::Candidate { weight: p.weight, open: p.open });
            let chosen = balance::choose(candidates).and_then(|nth| free.clone().nth(nth)).map(|(index, _)| index);
            let Some(provider) = chosen.and_then(|index| entry.providers.get_mut(index)) else {
                let has_none = entry.providers.is_empty();
                let is_unknown = |it: &Provider| it.number > known && it.number != UNLISTED && !it.out_of_credit;
                if entry.providers.iter().any(is_unknown) {
                    return Choice::Unknown;
                }
                self.connection_event(now, id, Event::NoneAvailable);
                if has_none {
                    self.managed_event(now, service, managed::Event::ConnectionWaits);
                }
                return Choice::None;
            };
            let session = provider.session;
            let Some(stream) = self.quic.open(session) else {
                provider.out_of_credit = true;
                continue;
            };
            let can_resume = self.sessions.get(&session).is_some_and(|session| session.can_resume);
            let offered = self.connections.get(&id).is_some_and(|connection| connection.offers_resume);
            self.board_provider(now, id, Leg { session, stream });
            self.watch_provider(now, id, session);
            self.connection_event(now, id, Event::ProviderChosen { resumable: offered && can_resume });
            return Choice::Made;
        }
    }

    pub(in crate::spn::hub) fn connection_event(&mut self, now: Instant, id: u64, event: Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.machine.handle_event(now, event);
        }
        self.perform_connection(now, id);
    }

    pub(in crate::spn::hub) fn connection_timeout(&mut self, now: Instant, at: Instant, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.machine.expire(now, at)
        {
            self.perform_connection(now, id);
        }
    }

    fn perform_connection(&mut self, now: Instant, id: u64) {
        while let Some(connection) = self.connections.get_mut(&id) {
            let Some(action) = connection.machine.next_action(&mut self.deadlines, Due::Connection(id)) else { break };
            let (key, generation) = (connection.key, connection.generation);
            let leg = |side| connection.leg(side);
            match action {
                Action::Begin => self.begin_connection(now, id),
                Action::Finish { to } => {
                    if let Some(leg) = leg(to) {
                        self.quic.finish(leg.session, leg.stream);
                    }
                    self.unstall(id, to.other());
                }
                Action::Abort { to, code } => {
                    if let Some(leg) = leg(to) {
                        self.abort_stream(leg.session, leg.stream, code);
                    }
                    self.unstall(id, to.other());
                }
                Action::StopSending { to, code } => {
                    if let Some(leg) = leg(to) {
                        self.stop_stream(leg.session, leg.stream, code);
                    }
                }
                Action::SendCloseReq { to, code } => {
                    if let Some(leg) = leg(to) {
                        self.send_latest(leg.session, key, Frame::CloseReq { conn: key, code });
                    }
                }
                Action::SendCloseAck { to } => {
                    if let Some(leg) = leg(to) {
                        self.send(leg.session, &Frame::CloseAck { conn: key });
                    }
                }
                Action::SendPauseReq { to } => {
                    if let Some(leg) = leg(to) {
                        self.send_latest(leg.session, key, Frame::PauseReq { conn: key });
                    }
                }
                Action::RefuseResume { to, code } => {
                    if let Some(leg) = leg(to) {
                        let flags = if code == code::NOT_STARTED { 0 } else { flag::ABORTED };
                        self.pairing_event(now, key, pairing::Event::LegAnswered { side: to });
                        self.refuse_resume(leg.session, key, code, flags);
                    }
                }
                Action::Finished { reason } => {
                    self.leave_streams(id);
                    self.end_record(now, id, reason);
                }
                Action::End { reason } => {
                    self.leave_streams(id);
                    if let Some(reason) = reason {
                        self.end_record(now, id, reason);
                    }
                    self.forget(now, id);
                    // Who waits for the next leg may have it now.
                    self.pairing_event(now, key, pairing::Event::LegEnded { generation });
                }
            }
        }
        self.dirty = true;
    }

    fn end_record(&mut self, now: Instant, id: u64, reason: DisconnectReason) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some((began, record)) = connection.began.take() else { return };
        let event = RecordEvent::EndConnection {
            connection: record,
            sent: connection.relay.up.relayed(),
            received: connection.relay.down.relayed(),
            elapsed_ms: now.saturating_duration_since(began).as_millis() as u64,
            reason,
        };
        self.record(now, event);
    }

    /// A provider has it: the preamble goes ahead of the payload, and both directions may move.
    fn begin_connection(&mut self, now: Instant, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (consumer, key, service) = (connection.consumer, connection.key, connection.service);
        let Some(provider) = connection.provider else { return };
        let session_id = |quic: &mut crate::quic::Endpoint, handle| quic.id(handle).unwrap_or_default().to_owned();
        let record = ConnectionRecord {
            id: format!("{}-{}", u64::from(consumer.stream), u64::from(provider.stream)),
            consumer: session_id(&mut self.quic, consumer.session),
            provider: session_id(&mut self.quic, provider.session),
        };
        connection.began = Some((now, record.clone()));
        tracing::trace!(service, ?key, "provider chosen");
        let flags = if connection.machine.is_resumable() { flag::RESUMABLE } else { 0 };
        let resume = connection.resume.clone();
        let is_new = resume.is_none();
        let reports = matches!(resume, Some(Preamble::Resume { flags, .. }) if flags & flag::OVER != 0);
        // Who the ends are, for those that want to know: only these two are joined again, also by a hub that remembers nothing.
        let name = |leg: Leg| {
            let session = self.sessions.get(&leg.session)?;
            Some((session.tag, session.wants_partners && flags & flag::RESUMABLE != 0))
        };
        let ((owner, consumer_asks), (partner, provider_asks)) =
            (name(consumer).unwrap_or_default(), name(provider).unwrap_or_default());
        if self.sessions.get(&provider.session).is_some_and(|session| session.protocol == Protocol::Sc02) {
            let preamble = resume.unwrap_or(Preamble::Connect { conn: key, flags });
            if !is_new {
                // The provider answers with its own.
                connection.relay.down.expect(RESUME_LEN);
            }
            let bytes = if provider_asks { preamble.to_bytes_of(owner) } else { preamble.to_bytes() };
            connection.relay.up.prefix(bytes);
        }
        if let Some(session) = self.sessions.get_mut(&consumer.session) {
            session.total += 1;
        }
        if is_new {
            self.send(consumer.session, &Frame::Connected { conn: key, flags });
            if consumer_asks {
                self.send(consumer.session, &Frame::Partner { conn: key, partner });
            }
        }
        self.record(now, RecordEvent::StartConnection(record));
        if reports {
            // The provider reads it in the preamble; the consumer may have ended by the time it could repeat it.
            self.connection_event(now, id, Event::Reported { side: Side::Consumer });
        }
        self.ready_to_move(id, Side::Consumer);
        self.ready_to_move(id, Side::Provider);
    }

    /// Takes a connection off its streams.
    fn leave_streams(&mut self, id: u64) {
        self.unstall(id, Side::Consumer);
        self.unstall(id, Side::Provider);
        let Some(connection) = self.connections.get(&id) else { return };
        for leg in [Some(connection.consumer), connection.provider].into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&leg.session) {
                session.streams.remove(&leg.stream);
            }
        }
    }

    /// Takes a connection out of everything that points to it.
    fn forget(&mut self, now: Instant, id: u64) {
        self.stop_waiting(id);
        let Some(connection) = self.connections.remove(&id) else { return };
        self.keys.remove(&connection.key);
        for leg in [Some(connection.consumer), connection.provider].into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&leg.session) {
                session.connections.remove(&id);
            }
        }
        if let Some(entry) = self.registry.get_mut(connection.service) {
            // It may be one that has gone without a provider.
            entry.choosing.remove(&id);
            if let Some(provider) = connection.provider.and_then(|leg| entry.provider(leg.session)) {
                provider.open -= 1;
            }
        }
        self.look_at_provider(now, connection.service);
    }
}
