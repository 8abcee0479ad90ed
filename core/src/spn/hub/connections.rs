//! Connections on the hub: data streams in, a provider's stream for each, and the bytes between them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand_chacha::rand_core::Rng;

use super::{
    Due, Hub, balance,
    connection::{Action, Event, HubConnection},
    relay::{Found, Leg, Relay},
};
use crate::{
    machine::{Armed, Machine},
    quic::{Handle, ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol, Role, Side, code,
        control::Control,
        frame::Frame,
        preamble::{Collector, Preamble},
        record::{ConnectionRecord, RecordEvent},
    },
};

/// A preamble must be complete within this.
const PREAMBLE_TIME: Duration = Duration::from_secs(10);
/// A direction whose target has had no room for so long gets a window of its own,
const STALL_TIME: Duration = Duration::from_millis(50);
/// unless so many bytes have moved in that time: then it is the path that is full, and more in front of it would help nobody.
const FLOWING: u64 = 512 * 1024;

/// What a session's data stream is at the moment.
pub(super) enum DataStream {
    /// Its preamble is not complete.
    Preamble(Collector),
    /// It belongs to this connection.
    Relayed(u64),
}

/// A connection on the hub.
pub(super) struct Connection {
    machine: HubConnection,
    armed: Armed,
    key: ConnKey,
    service: usize,
    /// The consumer that the key belongs to.
    identity: Arc<str>,
    consumer: Leg,
    provider: Option<Leg>,
    relay: Relay,
    began: Option<(Instant, ConnectionRecord)>,
    up: Turn,
    down: Turn,
}

/// Where a direction stands between two turns.
#[derive(Debug, Default)]
struct Turn {
    is_queued: bool,
    /// Its target has had no room since then, and what had been relayed by then.
    stalled: Option<(Instant, u64)>,
    is_reminded: bool,
    /// Bytes of the window of its own that it has, if it has one.
    parked: u64,
}

impl Connection {
    pub(super) fn leg(&self, side: Side) -> Option<Leg> {
        match side {
            Side::Consumer => Some(self.consumer),
            Side::Provider => self.provider,
        }
    }

    fn turn(&mut self, source: Side) -> &mut Turn {
        match source {
            Side::Consumer => &mut self.up,
            Side::Provider => &mut self.down,
        }
    }
}

impl Hub {
    /// The connection that a session calls `key`, if it is one of its own.
    pub(super) fn own_connection(&self, handle: Handle, key: ConnKey) -> Option<(u64, Side)> {
        let id = *self.keys.get(&key)?;
        let side = self.sessions.get(&handle)?.side();
        (self.connections.get(&id)?.leg(side)?.session == handle).then_some((id, side))
    }

    pub(super) fn stream_opened(&mut self, now: Instant, handle: Handle, stream: StreamId) {
        let Some(session) = self.sessions.get_mut(&handle).filter(|session| !session.machine.is_over()) else { return };
        if session.protocol == Protocol::Sc02 && stream.index() == 0 {
            session.control = Some(Control::new(&mut self.quic, handle, stream));
            return self.read_control(now, handle);
        }
        if !session.is_open {
            // `sc01` has no request to wait for: a held provider opens none, and a consumer is let in at once.
            if session.protocol == Protocol::Sc02 {
                let detail = format!("stream {}", stream.index());
                self.violation(now, handle, code::DATA_BEFORE_ACK, detail);
            }
            return;
        }
        match (session.role, session.protocol) {
            (Role::Provider, _) => self.refuse_stream(handle, stream, code::MALFORMED),
            (Role::Consumer, Protocol::Sc01) => {
                let mut key = ConnKey([0; 16]);
                self.rng.fill_bytes(&mut key.0);
                self.connect(now, handle, stream, key);
            }
            (Role::Consumer, Protocol::Sc02) => {
                session.streams.insert(stream, DataStream::Preamble(Collector::default()));
                self.read_preamble(now, handle, stream);
                // Most are complete at once, and need no deadline.
                if self.awaits_preamble(handle, stream) {
                    self.remind(now + PREAMBLE_TIME, Due::Preamble(handle, stream));
                }
            }
        }
        self.grant_streams(handle);
    }

    /// Raises a consumer's stream credit while it is being used up.
    fn grant_streams(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle).filter(|session| session.role == Role::Consumer) else {
            return;
        };
        // The control stream and streams that are about to be refused count, too.
        let max = self.config.limits.connections_per_session.saturating_add(1);
        let used = session.streams.len() as u64 + 1;
        if used * 4 > u64::from(session.credit) * 3 && session.credit < max {
            session.credit = session.credit.saturating_mul(2).min(max);
            self.quic.set_max_streams(handle, session.credit);
        }
    }

    fn refuse_stream(&mut self, handle: Handle, stream: StreamId, code: u64) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.streams.remove(&stream);
        }
        self.quic.reset(handle, stream, code);
        self.quic.stop(handle, stream, code);
    }

    pub(super) fn preamble_timeout(&mut self, handle: Handle, stream: StreamId) {
        if self.awaits_preamble(handle, stream) {
            self.refuse_stream(handle, stream, code::MALFORMED);
        }
    }

    fn awaits_preamble(&self, handle: Handle, stream: StreamId) -> bool {
        let session = self.sessions.get(&handle);
        session.is_some_and(|session| matches!(session.streams.get(&stream), Some(DataStream::Preamble(_))))
    }

    fn read_preamble(&mut self, now: Instant, handle: Handle, stream: StreamId) {
        loop {
            let mut scratch = std::mem::take(&mut self.scratch);
            let outcome = self.quic.read(handle, stream, &mut scratch, 1);
            let chunk = scratch.pop();
            self.scratch = scratch;
            let Some(mut chunk) = chunk else {
                match outcome {
                    ReadOutcome::Finished | ReadOutcome::Reset(_) => {
                        self.refuse_stream(handle, stream, code::MALFORMED);
                    }
                    ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone => {}
                }
                return;
            };
            let Some(session) = self.sessions.get_mut(&handle) else { return };
            let Some(DataStream::Preamble(collector)) = session.streams.get_mut(&stream) else { return };
            match collector.take(&mut chunk) {
                Ok(None) => {}
                Ok(Some(Preamble::Connect { conn, .. })) => {
                    session.streams.remove(&stream);
                    if let Some(connection) = self.connect(now, handle, stream, conn) {
                        if let Some(connection) = self.connections.get_mut(&connection) {
                            connection.relay.up.hold(chunk);
                        }
                        self.ready_to_move(connection, Side::Consumer);
                    }
                    return;
                }
                // Nothing is ever paused here, so there is nothing to go on with.
                Ok(Some(Preamble::Resume { .. })) => return self.refuse_stream(handle, stream, code::PAUSED),
                Err(_) => return self.refuse_stream(handle, stream, code::MALFORMED),
            }
        }
    }

    /// A consumer's stream asks for a provider.
    fn connect(&mut self, now: Instant, handle: Handle, stream: StreamId, key: ConnKey) -> Option<u64> {
        let session = self.sessions.get_mut(&handle)?;
        let known = self.keys.get(&key).and_then(|id| self.connections.get(id));
        let refusal = if !self.machine.is_listening() {
            Some(code::NOT_STARTED)
        } else if let Some(known) = known {
            let is_own = known.service == session.service && known.identity == session.identity;
            Some(if is_own { code::CONN_IN_USE } else { code::NOT_ENTITLED })
        } else if session.streams.len() >= self.config.limits.connections_per_session as usize {
            Some(code::CONNECTION_LIMIT)
        } else {
            None
        };
        if let Some(code) = refusal {
            self.refuse_stream(handle, stream, code);
            return None;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        session.streams.insert(stream, DataStream::Relayed(id));
        let service = session.service;
        let mut machine = HubConnection::new(self.config.connection);
        machine.handle_event(now, Event::ConnectStream);
        let connection = Connection {
            machine,
            armed: Armed::default(),
            key,
            service,
            identity: session.identity.clone(),
            consumer: Leg { session: handle, stream },
            provider: None,
            relay: Relay::default(),
            began: None,
            up: Turn::default(),
            down: Turn::default(),
        };
        self.connections.insert(id, connection);
        self.keys.insert(key, id);
        if let Some(entry) = self.registry.get_mut(service) {
            entry.choosing.push_back(id);
        }
        self.choose_for_waiting(now, service);
        // Only now, since most have their provider by now, and no deadline any more.
        self.perform_connection(now, id);
        self.stall_while_choosing(now, id);
        Some(id)
    }

    /// Gives waiting connections of a service to providers, in order, as long as there is one.
    pub(super) fn choose_for_waiting(&mut self, now: Instant, service: usize) {
        while let Some(&id) = self.registry.get(service).and_then(|entry| entry.choosing.front()) {
            let waits = self.connections.get(&id).is_some_and(|connection| connection.machine.is_choosing());
            if waits && !self.choose(now, service, id) {
                return;
            }
            if let Some(entry) = self.registry.get_mut(service) {
                entry.choosing.pop_front();
            }
        }
    }

    /// Finds a provider for a connection (docs/protocols/spn.md, Choosing a provider).
    fn choose(&mut self, now: Instant, service: usize, id: u64) -> bool {
        loop {
            let Some(entry) = self.registry.get_mut(service) else { return false };
            let free = entry.providers.iter().enumerate().filter(|(_, provider)| !provider.out_of_credit);
            let candidates = free.clone().map(|(_, p)| balance::Candidate { weight: p.weight, open: p.open });
            let chosen = balance::choose(candidates).and_then(|nth| free.clone().nth(nth)).map(|(index, _)| index);
            let Some(provider) = chosen.and_then(|index| entry.providers.get_mut(index)) else {
                self.connection_event(now, id, Event::NoneAvailable);
                return false;
            };
            let session = provider.session;
            let Some(stream) = self.quic.open(session) else {
                provider.out_of_credit = true;
                continue;
            };
            provider.open += 1;
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.provider = Some(Leg { session, stream });
            }
            if let Some(session) = self.sessions.get_mut(&session) {
                session.streams.insert(stream, DataStream::Relayed(id));
                session.total += 1;
            }
            self.connection_event(now, id, Event::ProviderChosen);
            return true;
        }
    }

    pub(super) fn streams_available(&mut self, now: Instant, handle: Handle) {
        let Some(service) = self.sessions.get(&handle).map(|session| session.service) else { return };
        if let Some(provider) = self.registry.get_mut(service).and_then(|entry| entry.provider(handle)) {
            provider.out_of_credit = false;
            self.choose_for_waiting(now, service);
        }
    }

    pub(super) fn readable(&mut self, now: Instant, handle: Handle, stream: StreamId) {
        let Some(session) = self.sessions.get(&handle) else { return };
        if session.control.as_ref().is_some_and(|control| control.stream() == stream) {
            return self.read_control(now, handle);
        }
        match session.streams.get(&stream) {
            Some(DataStream::Preamble(_)) => self.read_preamble(now, handle, stream),
            Some(&DataStream::Relayed(id)) => {
                let side = session.side();
                let is_choosing = self.connections.get(&id).is_some_and(|connection| connection.machine.is_choosing());
                if !is_choosing {
                    self.ready_to_move(id, side);
                } else if let Some(code) = self.quic.received_reset(handle, stream) {
                    self.connection_event(now, id, Event::Reset { side, code });
                } else {
                    self.stall_while_choosing(now, id);
                }
            }
            None => {}
        }
    }

    pub(super) fn writable(&mut self, now: Instant, handle: Handle, stream: StreamId) {
        let Some(session) = self.sessions.get(&handle) else { return };
        if session.control.as_ref().is_some_and(|control| control.stream() == stream) {
            return self.flush(now, handle);
        }
        if let Some(&DataStream::Relayed(id)) = session.streams.get(&stream) {
            let source = session.side().other();
            self.ready_to_move(id, source);
        }
    }

    /// STOP_SENDING is heard at any time, also while the writer is blocked.
    pub(super) fn stopped(&mut self, now: Instant, handle: Handle, stream: StreamId, code: u64) {
        let Some(session) = self.sessions.get(&handle) else { return };
        if session.control.as_ref().is_some_and(|control| control.stream() == stream) {
            return self.violation(now, handle, code::CONTROL_LOST, "the control stream was stopped".to_owned());
        }
        match session.streams.get(&stream) {
            Some(&DataStream::Relayed(id)) => {
                let side = session.side();
                let code = self.passed_on(id, side, code);
                self.connection_event(now, id, Event::Stop { side, code });
            }
            // A connection that is over, or not yet begun: free the stream (RFC 9000 §3.5).
            Some(DataStream::Preamble(_)) | None => self.quic.reset(handle, stream, code),
        }
    }

    /// A code from one end, as the other end is to see it.
    fn passed_on(&self, id: u64, from: Side, code: u64) -> u64 {
        let protocol = |side| {
            let leg = self.connections.get(&id).and_then(|connection| connection.leg(side))?;
            self.sessions.get(&leg.session).map(|session| session.protocol)
        };
        match (protocol(from), protocol(from.other())) {
            (Some(from), Some(to)) => code::passed_on(code, from, to),
            _ => code,
        }
    }

    fn ready_to_move(&mut self, id: u64, source: Side) {
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
    fn stall_while_choosing(&mut self, now: Instant, id: u64) {
        if self.connections.get(&id).is_some_and(|connection| connection.machine.is_choosing()) {
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
        if self.parked + stream_window <= self.config.limits.relay_memory {
            turn.parked = stream_window;
            self.parked += stream_window;
            self.quic.set_receive_window(from.session, session.receive.park());
        }
    }

    /// A direction has been read empty, or is over.
    fn unstall(&mut self, id: u64, source: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let from = connection.leg(source);
        let turn = connection.turn(source);
        turn.stalled = None;
        let parked = std::mem::take(&mut turn.parked);
        self.parked -= parked;
        if parked > 0
            && let Some(from) = from
            && let Some(session) = self.sessions.get_mut(&from.session)
        {
            self.quic.set_receive_window(from.session, session.receive.unpark());
        }
    }

    pub(super) fn connection_event(&mut self, now: Instant, id: u64, event: Event) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.machine.handle_event(now, event);
        }
        self.perform_connection(now, id);
    }

    pub(super) fn connection_timeout(&mut self, now: Instant, at: Instant, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.armed.take(at)
        {
            connection.machine.handle_timeout(now);
            self.perform_connection(now, id);
        }
    }

    fn perform_connection(&mut self, now: Instant, id: u64) {
        while let Some(connection) = self.connections.get_mut(&id) {
            let Some(action) = connection.machine.poll_action() else {
                let due = connection.machine.poll_timeout();
                self.deadlines.arm(&mut connection.armed, due, Due::Connection(id));
                break;
            };
            let (key, leg) = (connection.key, |side| connection.leg(side));
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
                        self.quic.reset(leg.session, leg.stream, code);
                    }
                    self.unstall(id, to.other());
                }
                Action::StopSending { to, code } => {
                    if let Some(leg) = leg(to) {
                        self.quic.stop(leg.session, leg.stream, code);
                    }
                }
                Action::SendCloseReq { to, code } => {
                    if let Some(leg) = leg(to) {
                        self.send(leg.session, &Frame::CloseReq { conn: key, code });
                    }
                }
                Action::SendCloseAck { to } => {
                    if let Some(leg) = leg(to) {
                        self.send(leg.session, &Frame::CloseAck { conn: key });
                    }
                }
                Action::End { reason } => {
                    self.unstall(id, Side::Consumer);
                    self.unstall(id, Side::Provider);
                    let Some(connection) = self.connections.remove(&id) else { return };
                    self.forget(&connection);
                    if let (Some(reason), Some((began, record))) = (reason, connection.began) {
                        let event = RecordEvent::EndConnection {
                            connection: record,
                            sent: connection.relay.up.relayed(),
                            received: connection.relay.down.relayed(),
                            elapsed_ms: now.saturating_duration_since(began).as_millis() as u64,
                            reason,
                        };
                        self.record(now, event);
                    }
                }
            }
        }
        self.dirty = true;
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
        if self.sessions.get(&provider.session).is_some_and(|session| session.protocol == Protocol::Sc02) {
            connection.relay.up.prefix(Preamble::Connect { conn: key, flags: 0 }.to_bytes());
        }
        if let Some(session) = self.sessions.get_mut(&consumer.session) {
            session.total += 1;
        }
        self.send(consumer.session, &Frame::Connected { conn: key, flags: 0 });
        self.record(now, RecordEvent::StartConnection(record));
        self.ready_to_move(id, Side::Consumer);
        self.ready_to_move(id, Side::Provider);
    }

    /// Takes a connection out of everything that points to it.
    fn forget(&mut self, connection: &Connection) {
        self.keys.remove(&connection.key);
        for leg in [Some(connection.consumer), connection.provider].into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&leg.session) {
                session.streams.remove(&leg.stream);
            }
        }
        if let Some(leg) = connection.provider
            && let Some(entry) = self.registry.get_mut(connection.service)
            && let Some(provider) = entry.provider(leg.session)
        {
            provider.open -= 1;
        }
    }
}
