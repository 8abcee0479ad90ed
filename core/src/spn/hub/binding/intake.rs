//! All input: events of QUIC, control frames, preambles of data streams, and deadlines. Each becomes an event of a machine, for the
//! [exchange](super::exchange).

mod admission;
mod frames;
mod resume;
mod streams;

use std::time::Instant;

use rand_chacha::ChaCha20Rng;

use super::{
    exchange::Exchange,
    link::{Link, control::Backlog},
};
use crate::{
    Epoch,
    quic::{self, CloseReason, Handle, PeerIdentity, TurnedAway},
    spn::{
        Side,
        hub::{
            config::Config,
            context::{Context, Due},
            machines::{connection, session},
            notice::{Reason, Refusal},
        },
        wire::code::{SessionCode, StreamCode},
    },
};

/// Turns the input of a hub into events of its machines.
pub(crate) struct Intake {
    exchange: Exchange,
    /// For the keys of `sc01` connections, which have none of their own.
    rng: ChaCha20Rng,
}

impl Intake {
    pub(crate) fn new(config: &Config, epoch: Epoch, rng: ChaCha20Rng) -> Self {
        Self { exchange: Exchange::new(config, epoch), rng }
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn exchange_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// Everything that can be done with what has come in, a bounded amount.
    pub(crate) fn work(&mut self, cx: &mut Context<'_>) {
        while let Some((session, event)) = cx.quic.poll_event() {
            self.quic_event(cx, session, event);
        }
        report_turned_away(cx);
        for _ in 0..self.exchange.parts().connections.count_ready() {
            if let Some((connection, source)) = self.exchange.parts().connections.next_ready() {
                self.exchange.pump(cx, connection, source);
            }
        }
        // Reading on behind a flush may queue answers again; the control rate bounds it.
        while let Some(session) = self.exchange.parts().links.next_unflushed() {
            self.flush(cx, session);
        }
    }

    fn quic_event(&mut self, cx: &mut Context<'_>, session: Handle, event: quic::Event) {
        match event {
            quic::Event::Incoming { remote } => self.exchange.parts().links.add(session, Link::new(remote, cx.config)),
            quic::Event::Connected { alpn, peer } => self.connected(cx, session, &alpn, peer),
            quic::Event::StreamOpened(stream) => self.stream_opened(cx, session, stream),
            quic::Event::StreamsAvailable => self.streams_available(cx, session),
            quic::Event::Readable(stream) => self.readable(cx, session, stream),
            quic::Event::Writable(stream) => self.writable(cx, session, stream),
            quic::Event::Stopped(stream, code) => self.stopped(cx, session, stream, StreamCode(code)),
            quic::Event::Acked(_) => {}
            quic::Event::Datagram(datagram) => self.control_datagram(cx, session, &datagram),
            quic::Event::Closed(reason) => self.closed(cx, session, reason),
        }
    }

    fn closed(&mut self, cx: &mut Context<'_>, session: Handle, reason: CloseReason) {
        let Some(link) = self.exchange.parts().links.get(session) else { return };
        if link.party.peer == PeerIdentity::default() && reason != CloseReason::Local {
            let remote = link.party.remote;
            let reason = Reason::Handshake(reason.to_string());
            cx.refuse(Refusal { at: cx.now, remote, subject: None, role: None, reason });
        }
        let event = match reason {
            CloseReason::Peer { code, .. } => session::Event::ClosedByPeer { code: SessionCode(code) },
            CloseReason::Local | CloseReason::Transport { .. } | CloseReason::Reset | CloseReason::TimedOut => {
                session::Event::Lost
            }
        };
        self.exchange.session_event(cx, session, event);
        let parts = self.exchange.parts();
        parts.services.release(parts.links, session);
        parts.services.forget(session);
        parts.links.remove(session);
    }

    /// A deadline that was due `at` has come. The deadline of the hub's own machine is not handled here.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>, at: Instant, due: Due) {
        let exchange = &mut self.exchange;
        match due {
            Due::Session(session) => exchange.session_timeout(cx, at, session),
            Due::Probe(session) => {
                let parts = exchange.parts();
                if parts.services.probe(cx, parts.links, session) {
                    exchange.session_event(cx, session, session::Event::IncumbentAlive);
                }
            }
            Due::Silence(session) => self.silence_timeout(cx, at, session),
            Due::Control(session) => self.control_timeout(cx, session),
            Due::Preamble(session, stream) => self.preamble_timeout(cx, session, stream),
            Due::Connection(connection) => exchange.connection_timeout(cx, at, connection),
            Due::Parked(session) => self.requests_timeout(cx, session),
            Due::Stall(connection, source) => {
                let parts = exchange.parts();
                parts.connections.look_at_stall(cx, parts.links, connection, source);
            }
            Due::Stalled(session) => exchange.parts().links.measure_stalled(cx, session),
            Due::Rest(session) => exchange.parts().links.rest(cx, session),
            Due::Managed(service) => exchange.managed_timeout(cx, at, service),
            Due::Scheduled(service) => self.scheduled(cx, at, service),
            Due::LegacyEnds => self.end_legacy_connections(cx),
            Due::Refusals => cx.outbox.report_suppressed(),
            Due::Hub => {}
        }
    }

    /// A moment of a service's schedule was due `at`.
    fn scheduled(&mut self, cx: &mut Context<'_>, at: Instant, service: usize) {
        // Another moment may have taken its place.
        let cluster = self.exchange.parts().cluster;
        let Some(managed) = cluster.get(service).filter(|managed| managed.is_scheduled(at)) else { return };
        if let Some(event) = managed.scheduled_event(at, cx.unix()) {
            self.exchange.managed_event(cx, service, event);
        }
        self.exchange.parts().cluster.schedule(cx, service);
    }

    /// Sends the control frames of a session that have gathered.
    fn flush(&mut self, cx: &mut Context<'_>, session: Handle) {
        let Some(flushed) = self.exchange.parts().links.flush(cx, session) else { return };
        if flushed.is_free {
            self.exchange.choose_for_waiting(cx, flushed.service);
        }
        if let Err(error) = flushed.result {
            return self.violation(cx, session, SessionCode::CONTROL_LOST, error.to_string());
        }
        match self.exchange.parts().links.after_flush(cx, session) {
            Some(Backlog::Small { was_paused: true }) => self.read_control(cx, session),
            // The session has caused that itself, by streams.
            Some(Backlog::Unread(bytes)) => {
                let detail = format!("{bytes} bytes wait: it is not read");
                self.violation(cx, session, SessionCode::CONTROL_LOST, detail);
            }
            Some(Backlog::Small { was_paused: false } | Backlog::Large) | None => {}
        }
    }

    /// The hub is about to close its sessions. A deployed consumer would go on with what is still open on the next one: it sees the end first.
    fn end_legacy_connections(&mut self, cx: &mut Context<'_>) {
        let parts = self.exchange.parts();
        let open = parts.connections.filter(|connection| {
            let consumer = connection.leg(Side::Consumer).and_then(|leg| parts.links.get(leg.session));
            consumer.is_some_and(|link| link.party.is_legacy_consumer())
        });
        for id in open {
            let parts = self.exchange.parts();
            if let Some(leg) = parts.connections.get(id).and_then(|connection| connection.leg(Side::Provider)) {
                parts.links.abort_stream(cx, leg.session, leg.stream, StreamCode::PARTNER_LOST);
                parts.links.stop_stream(cx, leg.session, leg.stream, StreamCode::PARTNER_LOST);
            }
            let lost = connection::Event::SessionLost { side: Side::Provider, loss: connection::Loss::Left };
            self.exchange.connection_event(cx, id, lost);
        }
    }
}

/// Newcomers that QUIC has turned away by itself.
fn report_turned_away(cx: &mut Context<'_>) {
    let Some(TurnedAway { remote, reason, count }) = cx.quic.take_turned_away() else { return };
    let reason = Reason::Handshake(reason.to_owned());
    cx.refuse(Refusal { at: cx.now, remote, subject: None, role: None, reason });
    cx.suppress_refusals(count - 1);
}
