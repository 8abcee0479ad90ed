//! Legs: the streams after the first, which begin with RESUME and go on where the one before has stopped.

use bytes::Bytes;

use super::{Intake, Parts};
use crate::{
    quic::StreamId,
    spn::{
        endpoint::{
            binding::conn::Answer,
            carrier::{Carrier, LinkId},
            config::ConnId,
            context::Context,
            machines::{connection::Event, session},
        },
        wire::{code::StreamCode, frame::Flags, preamble::Preamble},
    },
};

impl Intake {
    /// Consumer: the next stream, on the session that has answered first.
    pub(super) fn open_leg(&mut self, cx: &mut Context<'_>, link: LinkId, id: ConnId) {
        let Parts { links, conns, .. } = self.parts();
        let Some(conn) = conns.get_mut(id) else { return };
        // The values may have ended or broken it.
        if !conn.machine().is_paused() {
            return;
        }
        let Some(wire) = links.wire_mut(link) else { return };
        let Some(stream) = wire.open_stream(cx.ports) else {
            // It is as if the answer had been on its way for longer.
            return wire.streams_mut().await_credit(id);
        };
        wire.streams_mut().add(stream, id);
        let carrier = wire.carrier(stream);
        conn.input.await_answer();
        if let Some(ledger) = &mut conn.ledger {
            ledger.open_leg();
        }
        self.exchange.link_event(cx, link, session::Event::ConnectionOpened);
        self.begin_leg(cx, id, carrier);
        if let Some(wire) = self.parts().links.wire_mut(link) {
            wire.listen(cx.now, cx.ports);
        }
    }

    /// There is stream credit again: what waits for it goes on, in order.
    pub(super) fn serve_legs(&mut self, cx: &mut Context<'_>, link: LinkId) {
        while let Some(id) = self.parts().links.wire_mut(link).and_then(|wire| wire.streams_mut().take_leg()) {
            self.open_leg(cx, link, id);
            if self.parts().links.wire(link).is_some_and(|wire| wire.streams().awaits_credit(id)) {
                return;
            }
        }
    }

    /// Begins a stream with RESUME, and goes on where the partner has stopped.
    fn begin_leg(&mut self, cx: &mut Context<'_>, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.parts().conns.get_mut(id) else { return };
        conn.board(carrier);
        conn.asked.clear();
        conn.push_resume();
        self.exchange.conn_event(cx, id, Event::Resumed);
        self.parts().conns.note_progress(cx.now, id, cx.ports);
    }

    /// Provider: RESUME has come on a stream of the hub. The code refuses it.
    pub(super) fn take_leg(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        stream: StreamId,
        preamble: &Preamble,
        rest: Bytes,
    ) -> Result<(), StreamCode> {
        let &Preamble::Resume { conn: key, flags, generation, offset, received } = preamble else {
            return Err(StreamCode::MALFORMED);
        };
        let id = self.parts().conns.by_key(&key).ok_or(StreamCode::RESUME_PARTNER_MISSING)?;
        let conn = self.parts().conns.get_mut(id).ok_or(StreamCode::RESUME_PARTNER_MISSING)?;
        let can_resume = conn.machine().can_resume();
        let carrier = conn.carrier();
        let ledger = conn.ledger.as_mut().ok_or(StreamCode::RESUME_PARTNER_MISSING)?;
        if generation <= ledger.generation() || !can_resume {
            return Err(StreamCode::PAUSED);
        }
        if ledger.take_leg(generation, offset).is_err() {
            self.exchange.conn_event(cx, id, Event::Mismatch);
            return Err(StreamCode::CONN_IN_USE);
        }
        if let Some(Carrier { handle, stream, .. }) = carrier {
            cx.ports.quic.reset(handle, stream, StreamCode::PAUSED.0);
            cx.ports.quic.stop(handle, stream, StreamCode::PAUSED.0);
        }
        self.parts().leave(cx, id);
        // Its report is taken before anything is sent again; it may be the last that was missing.
        if !self.exchange.acknowledge(cx, id, received, Flags::NONE) {
            return Err(StreamCode::CONN_IN_USE);
        }
        let wire = self.parts().links.wire_mut(link).ok_or(StreamCode::PAUSED)?;
        wire.streams_mut().add(stream, id);
        let carrier = wire.carrier(stream);
        self.exchange.link_event(cx, link, session::Event::ConnectionOpened);
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.input.begin(rest, false);
        }
        let is_over = flags.contains(Flags::OVER);
        if is_over {
            self.parts().conns.release(id, cx.ports);
        }
        self.begin_leg(cx, id, carrier);
        self.exchange.conn_event(cx, id, Event::PartnerResumed);
        if is_over {
            self.exchange.conn_event(cx, id, Event::SentOver);
        }
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.local.note_readable(cx.ports);
        }
        Ok(())
    }

    /// Consumer, on a new leg: reads the provider's RESUME. Says whether payload may be read.
    pub(super) fn read_answer(&mut self, cx: &mut Context<'_>, id: ConnId) -> bool {
        let Some(conn) = self.parts().conns.get_mut(id) else { return false };
        let carrier = conn.carrier();
        match conn.input.read_answer(carrier, &mut cx.ports.quic) {
            Answer::None => return true,
            Answer::Awaited => return false,
            Answer::Come(preamble) => self.on_answer(cx, id, &preamble),
            Answer::Reset(code) => self.exchange.on_reset(cx, id, StreamCode(code)),
            Answer::Wrong => self.exchange.conn_event(cx, id, Event::Mismatch),
        }
        self.parts().conns.get(id).is_some_and(|conn| !conn.input.is_answer_awaited())
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, id: ConnId, preamble: &Preamble) {
        let Some(conn) = self.parts().conns.get_mut(id) else { return };
        let (key, Some(ledger)) = (conn.key(), &mut conn.ledger) else { return };
        match *preamble {
            Preamble::Resume { conn, flags, generation, offset, received }
                if key == Some(conn) && generation == ledger.generation() && ledger.begin_leg(offset).is_ok() =>
            {
                self.exchange.conn_event(cx, id, Event::PartnerResumed);
                self.exchange.acknowledge(cx, id, received, flags);
                self.parts().conns.note_progress(cx.now, id, cx.ports);
            }
            Preamble::Connect { .. } | Preamble::Resume { .. } => self.exchange.conn_event(cx, id, Event::Mismatch),
        }
    }
}
