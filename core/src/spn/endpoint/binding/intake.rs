//! Takes what comes in, from the hub through QUIC and from the host, to the machines and the parts.

mod frames;
mod legs;
mod payload;
mod resume;
mod streams;

use std::time::Instant;

use super::exchange::{Exchange, Parts};
use crate::{
    quic,
    spn::{
        endpoint::{
            carrier::LinkId,
            config::{Config, ConnId},
            context::Context,
            machines::connection::Event,
            ports::{Due, Work},
        },
        wire::{
            code::{SessionCode, StreamCode},
            control::ControlError,
        },
    },
};

/// The way in.
pub(in crate::spn::endpoint) struct Intake {
    exchange: Exchange,
}

impl Intake {
    pub(in crate::spn::endpoint) fn new(config: &Config) -> Self {
        Self { exchange: Exchange::new(config) }
    }

    pub(in crate::spn::endpoint) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(in crate::spn::endpoint) fn exchange_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    fn parts(&mut self) -> &mut Parts {
        self.exchange.parts()
    }

    /// Does the work that QUIC's events make. Says whether there was any.
    pub(in crate::spn::endpoint) fn pump(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some((handle, event)) = cx.ports.quic.poll_event() {
            moved = true;
            if let Some(id) = self.parts().links.of_handle(handle) {
                self.quic_event(cx, id, event);
                self.settle(cx);
            }
        }
        if cx.ports.take_frames() {
            moved = true;
            self.flush_controls(cx);
        }
        moved
    }

    /// Lets the machines settle: does what they want of each other, and finds sessions for whoever waits.
    pub(in crate::spn::endpoint) fn settle(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(work) = cx.ports.take_work() {
                match work {
                    Work::Early(id) => self.serve_early_streams(cx, id),
                    Work::Link(id, event) => self.exchange.link_event(cx, id, event),
                    Work::Conn(id, event) => self.exchange.conn_event(cx, id, event),
                }
            } else if cx.ports.take_room() {
                self.exchange.serve_queue(cx);
            } else {
                return self.exchange.close_down(cx);
            }
        }
    }

    /// A deadline, due `at`, has come.
    pub(in crate::spn::endpoint) fn expire(&mut self, cx: &mut Context<'_>, at: Instant, due: Due) {
        let parts = self.exchange.parts();
        match due {
            Due::Begin(id) => parts.links.begin(id, cx.ports),
            Due::Link(id) => self.exchange.expire_link(cx, at, id),
            Due::Conn(id) => self.exchange.expire_conn(cx, at, id),
            Due::Preamble(id, stream) => self.expire_preamble(cx, id, stream),
            Due::Stall(id) => parts.expire_stall(cx, id),
            Due::Stalled(id, handle) => {
                if let Some(wire) = parts.links.wire_at(id, handle) {
                    wire.flow_mut().look(cx.now, cx.ports);
                }
            }
            Due::Rest(id, handle) => {
                if let Some(wire) = parts.links.wire_at(id, handle) {
                    wire.flow_mut().rest(cx.now, cx.ports);
                }
            }
            Due::Report(id) => parts.conns.expire_report(id, cx.ports),
            Due::Parting(id) => self.part(cx, id),
            Due::StrayPause(id, key) => self.expire_stray_pause(cx, id, key),
            Due::Tombstone(key) => parts.tombstones.expire(cx.now, &key),
            Due::Spent(key) => parts.spent.expire(cx.now, &key),
            Due::Silence(id) => parts.expire_silence(cx, id),
            Due::Hold(id, handle) => {
                let wire = parts.links.wire_at(id, handle);
                if wire.is_some_and(|wire| wire.signs_mut().0.look_at_hold(cx.now, cx.ports)) {
                    cx.ports.post(Work::Early(id));
                }
            }
        }
    }

    /// QUIC says something of a session.
    fn quic_event(&mut self, cx: &mut Context<'_>, id: LinkId, event: quic::Event) {
        let Parts { links, conns, .. } = self.exchange.parts();
        let Some(wire) = links.wire_mut(id) else { return };
        match event {
            quic::Event::Connected { alpn, peer: _ } => {
                links.take_handshake(cx.now, id, &alpn, cx.ports);
                self.exchange.pass_turn(cx);
            }
            quic::Event::Incoming { .. } => {}
            quic::Event::StreamOpened(stream) => self.on_stream_opened(cx, id, stream),
            quic::Event::StreamsAvailable => {
                wire.note_credit();
                cx.ports.note_room();
                self.serve_legs(cx, id);
            }
            quic::Event::Readable(stream) if wire.is_control(stream) => self.read_control(cx, id),
            quic::Event::Readable(stream) => match wire.streams().conn(stream) {
                Some(conn) => self.on_readable(cx, conn),
                None => {
                    self.read_preamble(cx, id, stream);
                    self.parts().links.note_weight(id, cx.ports);
                }
            },
            quic::Event::Writable(stream) if wire.is_control(stream) => cx.ports.note_frames(),
            quic::Event::Writable(stream) => {
                if let Some(conn) = wire.streams().conn(stream).and_then(|conn| conns.get_mut(conn)) {
                    conn.note_writable(cx.ports);
                }
            }
            quic::Event::Stopped(stream, _) if wire.is_control(stream) => {
                links.violation(id, SessionCode::CONTROL_LOST, ControlError::Ended.to_string(), cx.ports);
            }
            quic::Event::Stopped(stream, code) => match (wire.streams().conn(stream), StreamCode(code)) {
                (Some(conn), code) => self.exchange.conn_event(cx, conn, Event::StreamStopped { code }),
                // What has moved to another provider must not begin here, too.
                (None, code @ StreamCode::NOT_STARTED) if wire.streams_mut().opening(stream).is_some() => {
                    wire.refuse(stream, code, cx.ports);
                }
                (None, _) => {}
            },
            quic::Event::Acked(stream) => {
                if let Some(conn) = wire.streams().conn(stream) {
                    self.on_acked(cx, conn);
                }
            }
            quic::Event::Datagram(text) => links.take_datagram(id, &text, cx.ports),
            quic::Event::Closed(reason) => links.note_closed(id, &reason, cx.ports),
        }
    }

    fn on_readable(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.parts().conns.get_mut(id) else { return };
        // A reset must be heard of even when the host does not read.
        if let Some(code) = conn.received_reset(cx.ports) {
            return self.exchange.on_reset(cx, id, code);
        }
        if !self.read_answer(cx, id) {
            return;
        }
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.note_unread(cx.now, cx.ports);
            conn.local.note_readable(cx.ports);
        }
    }

    fn on_acked(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.halves.end_sending();
            self.exchange.conn_event(cx, id, Event::StreamAcked);
            self.exchange.note_stream_end(cx, id);
            self.parts().note_delivered(cx, id);
        }
    }
}
