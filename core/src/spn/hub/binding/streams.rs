//! Data streams of sessions on the hub: credit, preambles, and what QUIC says of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_chacha::rand_core::Rng;

use super::conn::Connection;
use crate::{
    quic::{Handle, ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol, Role, Side,
        hub::{
            Due, Hub,
            machines::connection::{Event, Loss},
        },
        wire::{
            code,
            control::Control,
            frame::flag,
            preamble::{Collector, Preamble},
        },
    },
};

/// A preamble must be complete so long after its first byte (DAT-5).
const PREAMBLE_TIME: Duration = Duration::from_secs(10);

/// What a session's data stream is at the moment.
pub(in crate::spn::hub) enum DataStream {
    /// Its preamble is not complete.
    Preamble(Collector),
    /// `sc01`: it may be open only because a later one is (RFC 9000 §2.1). It is a connection from its first own byte, or its end.
    Silent,
    /// It belongs to this connection.
    Relayed(u64),
}

impl Hub {
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
                session.streams.insert(stream, DataStream::Silent);
                self.read_silent(now, handle, stream);
            }
            (Role::Consumer, Protocol::Sc02) => {
                session.streams.insert(stream, DataStream::Preamble(Collector::default()));
                self.read_preamble(now, handle, stream);
            }
        }
        self.grant_streams(handle);
    }

    /// Raises a consumer's stream credit while it is being used up, or will be: who asks for the next stream of a connection comes back with it.
    pub(super) fn grant_streams(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(&handle).filter(|session| session.role == Role::Consumer) else {
            return;
        };
        // The control stream and streams that are about to be refused count, too.
        let max = self.config.limits.connections_per_session.saturating_add(1);
        let used = (session.streams.len() + session.discarded.len() + session.parked.len()) as u64 + 1;
        let before = session.credit;
        while used * 4 > u64::from(session.credit) * 3 && session.credit < max {
            session.credit = session.credit.saturating_mul(2).clamp(1, max);
        }
        if session.credit > before {
            self.quic.set_max_streams(handle, session.credit);
        }
    }

    pub(super) fn refuse_stream(&mut self, handle: Handle, stream: StreamId, code: u64) {
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.streams.remove(&stream);
        }
        self.abort_stream(handle, stream, code);
        self.stop_stream(handle, stream, code);
    }

    /// A deployed consumer takes a broken stream for a failed try: it opens another one for the same client, in mid-connection, and so joins the
    /// client to a second connection of the service (docs/protocols/spn.md, Legacy protocol, LEG-27). It must not see one.
    fn is_legacy_consumer(&self, handle: Handle) -> bool {
        let session = self.sessions.get(&handle);
        session.is_some_and(|session| (session.protocol, session.role) == (Protocol::Sc01, Role::Consumer))
    }

    /// Ends our direction of a stream before its time.
    pub(super) fn abort_stream(&mut self, handle: Handle, stream: StreamId, code: u64) {
        if self.is_legacy_consumer(handle) {
            self.quic.finish_or_reset(handle, stream, code);
        } else {
            self.quic.reset(handle, stream, code);
        }
    }

    /// Nobody wants what still comes on a stream.
    pub(super) fn stop_stream(&mut self, handle: Handle, stream: StreamId, code: u64) {
        if !self.is_legacy_consumer(handle) {
            return self.quic.stop(handle, stream, code);
        }
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.discarded.insert(stream);
        }
        self.discard(handle, stream);
    }

    /// The hub is about to close its sessions. A deployed consumer would go on with what is still open on the next one: it sees the end first.
    pub(in crate::spn::hub) fn end_legacy_connections(&mut self, now: Instant) {
        let is_its = |connection: &&Connection| {
            connection.leg(Side::Consumer).is_some_and(|leg| self.is_legacy_consumer(leg.session))
        };
        let open = self.connections.iter().filter(|(_, connection)| is_its(connection));
        let open: Vec<_> = open.map(|(id, connection)| (*id, connection.leg(Side::Provider))).collect();
        for (id, provider) in open {
            if let Some(leg) = provider {
                self.abort_stream(leg.session, leg.stream, code::PARTNER_LOST);
                self.stop_stream(leg.session, leg.stream, code::PARTNER_LOST);
            }
            self.connection_event(now, id, Event::SessionLost { side: Side::Provider, loss: Loss::Left });
        }
    }

    /// Reads what nobody wants, and says whether it was such a stream. A stream window is the most that there is at once.
    fn discard(&mut self, handle: Handle, stream: StreamId) -> bool {
        let Some(session) = self.sessions.get_mut(&handle).filter(|session| session.discarded.contains(&stream)) else {
            return false;
        };
        match self.quic.read(handle, stream, &mut self.scratch, usize::MAX) {
            ReadOutcome::More | ReadOutcome::Blocked => {}
            ReadOutcome::Finished | ReadOutcome::Reset(_) | ReadOutcome::Gone => {
                session.discarded.remove(&stream);
            }
        }
        self.scratch.clear();
        true
    }

    /// The peer sends no more of it, or a network or an exhausted window holds it up: whoever can resume tries again (DAT-5).
    pub(in crate::spn::hub) fn preamble_timeout(&mut self, handle: Handle, stream: StreamId) {
        let session = self.sessions.get(&handle);
        if session.is_some_and(|session| matches!(session.streams.get(&stream), Some(DataStream::Preamble(_)))) {
            self.refuse_stream(handle, stream, code::PAUSED);
        }
    }

    fn read_silent(&mut self, now: Instant, handle: Handle, stream: StreamId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.quic.read(handle, stream, &mut scratch, 1);
        let chunk = scratch.pop();
        self.scratch = scratch;
        let ended = match (&chunk, outcome) {
            (Some(_), _) => false,
            (None, ReadOutcome::Finished) => true,
            (None, ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone) => return,
            (None, ReadOutcome::Reset(code)) => return self.refuse_stream(handle, stream, code),
        };
        let mut key = ConnKey([0; 16]);
        self.rng.fill_bytes(&mut key.0);
        match self.connect(now, handle, stream, key, false) {
            Ok(id) => {
                if ended && let Some(connection) = self.connections.get_mut(&id) {
                    connection.relay.up.end();
                }
                self.first_bytes(now, id, chunk.unwrap_or_default());
            }
            Err(code) => self.refuse_stream(handle, stream, code),
        }
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
            let is_first = collector.is_empty();
            match collector.take(&mut chunk) {
                // Most are complete at once, and need no deadline. Before its first byte a stream may be open because a later one is.
                Ok(None) if is_first => self.remind(now + PREAMBLE_TIME, Due::Preamble(handle, stream)),
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    session.streams.remove(&stream);
                    let begun = match preamble {
                        Preamble::Connect { conn, flags } => {
                            self.connect(now, handle, stream, conn, flags & flag::RESUMABLE != 0)
                        }
                        Preamble::Resume { .. } => self.resume(now, handle, stream, preamble),
                    };
                    match begun {
                        Ok(id) => self.first_bytes(now, id, chunk),
                        Err(code) => self.refuse_stream(handle, stream, code),
                    }
                    return;
                }
                Err(_) => return self.refuse_stream(handle, stream, code::MALFORMED),
            }
        }
    }

    /// Payload that came together with the preamble.
    fn first_bytes(&mut self, now: Instant, id: u64, chunk: Bytes) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.relay.up.hold(chunk);
        }
        self.ready_to_move(id, Side::Consumer);
        self.stall_while_held(now, id);
    }

    pub(super) fn streams_available(&mut self, now: Instant, handle: Handle) {
        self.serve_legs(now, handle);
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
        if self.discard(handle, stream) {
            return;
        }
        let Some(session) = self.sessions.get(&handle) else { return };
        match session.streams.get(&stream) {
            Some(DataStream::Preamble(_)) => self.read_preamble(now, handle, stream),
            Some(DataStream::Silent) => self.read_silent(now, handle, stream),
            Some(&DataStream::Relayed(id)) => {
                let side = session.side();
                let is_held = self.connections.get(&id).is_some_and(|connection| connection.is_held());
                if !is_held {
                    self.ready_to_move(id, side);
                } else if let Some(code) = self.quic.received_reset(handle, stream) {
                    self.connection_event(now, id, Event::Reset { side, code });
                } else {
                    self.stall_while_held(now, id);
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
    pub(in crate::spn::hub) fn stopped(&mut self, now: Instant, handle: Handle, stream: StreamId, code: u64) {
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
            Some(DataStream::Preamble(_) | DataStream::Silent) | None => self.quic.reset(handle, stream, code),
        }
    }

    /// A code from one end, as the other end is to see it.
    pub(super) fn passed_on(&self, id: u64, from: Side, code: u64) -> u64 {
        let protocol = |side| {
            let leg = self.connections.get(&id).and_then(|connection| connection.leg(side))?;
            self.sessions.get(&leg.session).map(|session| session.protocol)
        };
        match (protocol(from), protocol(from.other())) {
            (Some(from), Some(to)) => code::passed_on(code, from, to),
            _ => code,
        }
    }
}
