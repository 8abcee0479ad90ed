//! Streams of sessions: their preambles, with which connections begin, and what QUIC says of them (docs/protocols/spn.md, Data streams).

use std::time::Duration;

use bytes::Bytes;
use rand_chacha::rand_core::Rng;

use super::Intake;
use crate::{
    quic::{Handle, ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol, Role,
        hub::{
            binding::{
                conn::relay::Leg,
                link::{data::DataStream, links::Links},
            },
            context::{Context, Due},
            machines::connection::Event,
        },
        wire::{
            code::{SessionCode, StreamCode},
            control::Control,
            frame::Flags,
            preamble::{Collector, Preamble},
        },
    },
};

/// A preamble must be complete so long after its first byte (DAT-5).
const PREAMBLE_TIME: Duration = Duration::from_secs(10);

/// Reads one chunk of a stream.
fn read_chunk(cx: &mut Context<'_>, session: Handle, stream: StreamId) -> (Option<Bytes>, ReadOutcome) {
    let outcome = cx.quic.read(session, stream, cx.scratch, 1);
    (cx.scratch.pop(), outcome)
}

impl Intake {
    pub(super) fn stream_opened(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        let links = self.exchange.parts().links;
        let Some(link) = links.get_mut(session).filter(|link| !link.machine().is_over()) else { return };
        let (role, protocol) = (link.party.role, link.party.protocol);
        if protocol == Protocol::Sc02 && stream.index() == 0 {
            link.control_mut().open(Control::new(cx.quic, session, stream));
            return self.read_control(cx, session);
        }
        if !link.is_open() {
            // `sc01` has no request to wait for: a held provider opens none, and a consumer is admitted at once.
            if protocol == Protocol::Sc02 {
                let detail = format!("stream {}", stream.index());
                self.violation(cx, session, SessionCode::DATA_BEFORE_ACK, detail);
            }
            return;
        }
        match (role, protocol) {
            (Role::Provider, _) => links.refuse_stream(cx, session, stream, StreamCode::MALFORMED),
            (Role::Consumer, Protocol::Sc01) => {
                link.streams_mut().insert(stream, DataStream::Silent);
                self.read_silent(cx, session, stream);
            }
            (Role::Consumer, Protocol::Sc02) => {
                link.streams_mut().insert(stream, DataStream::Preamble(Collector::default()));
                self.read_preamble(cx, session, stream);
            }
        }
        self.exchange.parts().links.grant_streams(cx, session);
    }

    /// The peer sends no more of it, or a network or an exhausted window delays it: an end that can resume tries again (DAT-5).
    pub(super) fn preamble_timeout(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        let links = self.exchange.parts().links;
        if links.get_mut(session).is_some_and(|link| link.streams_mut().collector(stream).is_some()) {
            links.refuse_stream(cx, session, stream, StreamCode::PAUSED);
        }
    }

    fn read_silent(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        let (chunk, outcome) = read_chunk(cx, session, stream);
        let is_end = match (&chunk, outcome) {
            (Some(_), _) => false,
            (None, ReadOutcome::Finished) => true,
            (None, ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone) => return,
            (None, ReadOutcome::Reset(code)) => {
                return self.exchange.parts().links.refuse_stream(cx, session, stream, StreamCode(code));
            }
        };
        // It has none of its own.
        let mut key = ConnKey([0; 16]);
        self.rng.fill_bytes(&mut key.0);
        let begun = self.exchange.connect(cx, Leg { session, stream }, key, false);
        self.begun(cx, Leg { session, stream }, begun, chunk.unwrap_or_default(), is_end);
    }

    fn read_preamble(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        loop {
            let (chunk, outcome) = read_chunk(cx, session, stream);
            let links = self.exchange.parts().links;
            let Some(mut chunk) = chunk else {
                match outcome {
                    ReadOutcome::Finished | ReadOutcome::Reset(_) => {
                        links.refuse_stream(cx, session, stream, StreamCode::MALFORMED);
                    }
                    ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone => {}
                }
                return;
            };
            let Some(link) = links.get_mut(session) else { return };
            let Some(collector) = link.streams_mut().collector(stream) else { return };
            let is_first = collector.is_empty();
            match collector.take(&mut chunk) {
                // Most are complete at once, and need no deadline. Before its first byte a stream may be open because a later one is.
                Ok(None) if is_first => cx.remind(cx.now + PREAMBLE_TIME, Due::Preamble(session, stream)),
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    link.streams_mut().remove(stream);
                    let leg = Leg { session, stream };
                    let begun = match preamble {
                        Preamble::Connect { conn, flags } => {
                            self.exchange.connect(cx, leg, conn, flags.contains(Flags::RESUMABLE))
                        }
                        Preamble::Resume { .. } => self.resume(cx, leg, preamble),
                    };
                    return self.begun(cx, leg, begun, chunk, false);
                }
                Err(_) => return links.refuse_stream(cx, session, stream, StreamCode::MALFORMED),
            }
        }
    }

    /// A stream has become a connection, or is refused. `chunk` came together with its preamble; `is_end`: and nothing follows.
    fn begun(&mut self, cx: &mut Context<'_>, leg: Leg, begun: Result<u64, StreamCode>, chunk: Bytes, is_end: bool) {
        let parts = self.exchange.parts();
        match begun {
            Ok(id) => parts.connections.first_bytes(cx, id, chunk, is_end),
            Err(code) => parts.links.refuse_stream(cx, leg.session, leg.stream, code),
        }
    }

    /// A session has stream credit: legs that wait for a provider's stream go first, in order, and then new connections.
    pub(super) fn streams_available(&mut self, cx: &mut Context<'_>, session: Handle) {
        let oldest = |links: &Links| links.get(session).and_then(|link| link.legs().first().copied());
        while let Some(id) = oldest(self.exchange.parts().links) {
            let Some(stream) = cx.quic.open(session) else { break };
            let parts = self.exchange.parts();
            parts.connections.stop_waiting(parts.links, id);
            self.exchange.board_provider(cx, id, Leg { session, stream });
            self.exchange.connection_event(cx, id, Event::ResumeStream);
        }
        let parts = self.exchange.parts();
        let Some(service) = parts.links.get(session).map(|link| link.party.service) else { return };
        if parts.services.get_mut(service).is_some_and(|entry| entry.roster_mut().has_credit(session)) {
            self.exchange.choose_for_waiting(cx, service);
        }
    }

    pub(super) fn readable(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get_mut(session) else { return };
        if link.control().is_on(stream) {
            return self.read_control(cx, session);
        }
        if link.streams_mut().read_discarded(cx.quic, session, stream, cx.scratch) {
            return;
        }
        match link.streams().get(stream) {
            Some(DataStream::Preamble(_)) => self.read_preamble(cx, session, stream),
            Some(DataStream::Silent) => self.read_silent(cx, session, stream),
            Some(&DataStream::Relayed(id)) => {
                let side = link.party.side();
                let is_held = parts.connections.get(id).is_some_and(|connection| connection.is_held());
                if !is_held {
                    parts.connections.ready(id, side);
                } else if let Some(code) = cx.quic.received_reset(session, stream) {
                    self.exchange.connection_event(cx, id, Event::Reset { side, code: StreamCode(code) });
                } else {
                    parts.connections.stall_while_held(cx, id);
                }
            }
            None => {}
        }
    }

    pub(super) fn writable(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) {
        let parts = self.exchange.parts();
        let Some(link) = parts.links.get(session) else { return };
        if link.control().is_on(stream) {
            return self.flush(cx, session);
        }
        if let Some(&DataStream::Relayed(id)) = link.streams().get(stream) {
            parts.connections.ready(id, link.party.side().other());
        }
    }

    /// STOP_SENDING counts at any time, also while the writer is blocked.
    pub(super) fn stopped(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId, code: StreamCode) {
        let Some(link) = self.exchange.parts().links.get(session) else { return };
        if link.control().is_on(stream) {
            let detail = "the control stream was stopped".to_owned();
            return self.violation(cx, session, SessionCode::CONTROL_LOST, detail);
        }
        match link.streams().get(stream) {
            Some(&DataStream::Relayed(id)) => {
                let side = link.party.side();
                self.exchange.stopped(cx, id, side, code);
            }
            // A connection that is over, or not yet begun: free the stream (RFC 9000 §3.5).
            Some(DataStream::Preamble(_) | DataStream::Silent) | None => cx.quic.reset(session, stream, code.0),
        }
    }
}
