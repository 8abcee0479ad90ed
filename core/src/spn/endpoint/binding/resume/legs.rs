//! Legs: the streams after the first, which begin with RESUME and go on where the one before has stopped.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    quic::{ReadOutcome, StreamId},
    spn::{
        ConnKey, Protocol,
        endpoint::{
            ConnId, Endpoint, Notice,
            binding::{conn::conn_of, ledger::Ledger},
            carrier::{Carrier, LinkId},
            machines::{connection::Event, session},
        },
        wire::{
            code,
            frame::flag,
            preamble::{Collector, Preamble},
        },
    },
};

impl Endpoint {
    /// Consumer: the next stream, on the session that has answered first.
    pub(super) fn open_leg(&mut self, now: Instant, link: LinkId, id: ConnId) {
        // The values may have ended or broken it.
        if self.conn_mut(id).is_none_or(|conn| !conn.machine.is_paused()) {
            return;
        }
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        let handle = wire.handle;
        let Some(stream) = self.quic.open(handle) else {
            // It is as if the answer had been on its way for longer.
            wire.legs.insert(id);
            return;
        };
        wire.streams.insert(stream, id);
        if let Some(conn) = self.conn_mut(id) {
            conn.answer = Some(Collector::default());
            if let Some(ledger) = &mut conn.ledger {
                ledger.generation = ledger.generation.saturating_add(1);
            }
        }
        self.link_event(now, link, session::Event::ConnectionOpened);
        self.begin_leg(now, id, Carrier { link, handle, stream, protocol: Protocol::Sc02 });
        self.listen(now, link);
    }

    /// There is stream credit again: what waits for it goes on, in order.
    pub(in crate::spn::endpoint::binding) fn serve_legs(&mut self, now: Instant, link: LinkId) {
        loop {
            let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
            let Some(id) = wire.legs.pop_first() else { return };
            self.open_leg(now, link, id);
            let wire = self.links.get(&link).and_then(|link| link.wire.as_ref());
            if wire.is_some_and(|wire| wire.legs.contains(&id)) {
                return;
            }
        }
    }

    /// Begins a stream with RESUME, and goes on where the partner has stopped.
    fn begin_leg(&mut self, now: Instant, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.board(carrier);
        conn.asked.clear();
        if let (Some(key), Some(ledger)) = (conn.key, &mut conn.ledger) {
            ledger.doubt_reports();
            conn.out.push_back(resume(key, ledger));
        }
        self.conn_event(now, id, Event::Resumed);
        self.note_progress(now, id);
    }

    /// Provider: RESUME has come on a stream of the hub. The code refuses it.
    pub(in crate::spn::endpoint::binding) fn take_leg(
        &mut self,
        now: Instant,
        link: LinkId,
        stream: StreamId,
        preamble: &Preamble,
        rest: Bytes,
    ) -> Result<(), u64> {
        let &Preamble::Resume { conn: key, flags, generation, offset, received } = preamble else {
            return Err(code::MALFORMED);
        };
        let id = *self.by_key.get(&key).ok_or(code::RESUME_PARTNER_MISSING)?;
        let conn = self.conn_mut(id).ok_or(code::RESUME_PARTNER_MISSING)?;
        let ledger = conn.ledger.as_mut().ok_or(code::RESUME_PARTNER_MISSING)?;
        if generation <= ledger.generation || !conn.machine.can_resume() {
            return Err(code::PAUSED);
        }
        if ledger.begin_leg(offset).is_err() {
            self.conn_event(now, id, Event::Mismatch);
            return Err(code::CONN_IN_USE);
        }
        ledger.generation = generation;
        if let Some(Carrier { handle, stream, .. }) = conn.carrier {
            self.quic.reset(handle, stream, code::PAUSED);
            self.quic.stop(handle, stream, code::PAUSED);
        }
        self.leave(id);
        // Its report is taken before anything is sent again; it may be the last that was missing.
        if !self.acknowledge(now, id, received, 0) {
            return Err(code::CONN_IN_USE);
        }
        let wire = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()).ok_or(code::PAUSED)?;
        wire.streams.insert(stream, id);
        let carrier = Carrier { link, handle: wire.handle, stream, protocol: Protocol::Sc02 };
        self.link_event(now, link, session::Event::ConnectionOpened);
        if let Some(conn) = self.conn_mut(id) {
            conn.ahead = rest;
        }
        if flags & flag::OVER != 0
            && let Some(ledger) = self.conn_mut(id).and_then(|conn| conn.ledger.as_mut())
        {
            ledger.release();
            self.account(id);
        }
        self.begin_leg(now, id, carrier);
        self.conn_event(now, id, Event::PartnerResumed);
        if flags & flag::OVER != 0 {
            self.conn_event(now, id, Event::SentOver);
        }
        if let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.wants_read)
        {
            self.notices.push_back(Notice::Readable(id));
        }
        Ok(())
    }

    /// Consumer, on a new leg: reads the provider's RESUME. Says whether payload may be read.
    pub(in crate::spn::endpoint::binding) fn read_answer(&mut self, now: Instant, id: ConnId) -> bool {
        let mut chunks = Vec::new();
        while let Some(conn) = conn_of(&mut self.conns, id) {
            let (Some(collector), Some(carrier)) = (&mut conn.answer, conn.carrier) else { return true };
            let outcome = self.quic.read(carrier.handle, carrier.stream, &mut chunks, 1);
            let Some(mut chunk) = chunks.pop() else {
                match outcome {
                    ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone => {}
                    ReadOutcome::Finished => self.conn_event(now, id, Event::Mismatch),
                    ReadOutcome::Reset(code) => self.on_reset(now, id, code),
                }
                return false;
            };
            match collector.take(&mut chunk) {
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    conn.answer = None;
                    conn.ahead = chunk;
                    self.on_answer(now, id, &preamble);
                }
                Err(_) => self.conn_event(now, id, Event::Mismatch),
            }
        }
        false
    }

    fn on_answer(&mut self, now: Instant, id: ConnId, preamble: &Preamble) {
        let Some(conn) = self.conn_mut(id) else { return };
        let (key, Some(ledger)) = (conn.key, &mut conn.ledger) else { return };
        match *preamble {
            Preamble::Resume { conn, flags, generation, offset, received }
                if key == Some(conn) && generation == ledger.generation && ledger.begin_leg(offset).is_ok() =>
            {
                self.conn_event(now, id, Event::PartnerResumed);
                self.acknowledge(now, id, received, flags);
                self.note_progress(now, id);
            }
            Preamble::Connect { .. } | Preamble::Resume { .. } => self.conn_event(now, id, Event::Mismatch),
        }
    }
}

fn resume(conn: ConnKey, ledger: &Ledger) -> Bytes {
    Preamble::Resume {
        conn,
        flags: ledger.flags(),
        generation: ledger.generation,
        offset: ledger.acknowledged(),
        received: ledger.received(),
    }
    .to_bytes()
}
