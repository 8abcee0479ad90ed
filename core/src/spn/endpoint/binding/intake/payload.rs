//! The host's side of a connection: reads, writes and ends.
//!
//! How an end of data (FIN) goes from a provider to its consumer, or back: the host calls `finish`, the machine asks for `FinishStream`, and FIN goes
//! behind the last byte (`conn/output.rs`). The hub relays it. At the other end `read_some` finds `ReadOutcome::Finished`, which the host gets after
//! all bytes; the machine hears `StreamFinished`, and the next report says that the direction is over (RES-8). The sender's machine counts the end as
//! arrived when the hub has acknowledged FIN (`StreamAcked`) or, of a connection that can be resumed, when the partner has reported it (`SentOver`).

use bytes::Bytes;

use super::Intake;
use crate::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        Protocol,
        endpoint::{
            binding::conn::{NoWrite, Reset},
            config::ConnId,
            context::Context,
            machines::connection::Event,
            ports::Due,
        },
        wire::code::StreamCode,
    },
};

const NO_ROOM: WriteOutcome = WriteOutcome::Blocked { bytes: 0, chunks: 0 };

impl Intake {
    /// The host acts on the connection: a provider's has been dialled, then.
    fn open_provider(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if self.parts().conns.get_mut(id).is_some_and(|conn| conn.local.open()) {
            self.exchange.conn_event(cx, id, Event::Opened);
        }
    }

    /// The host reads.
    pub(in crate::spn::endpoint) fn read(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        chunks: &mut Vec<Bytes>,
        max: usize,
    ) -> ReadOutcome {
        self.open_provider(cx, id);
        let outcome = self.read_some(cx, id, chunks, max);
        self.settle(cx);
        outcome
    }

    fn read_some(&mut self, cx: &mut Context<'_>, id: ConnId, chunks: &mut Vec<Bytes>, max: usize) -> ReadOutcome {
        if !self.read_answer(cx, id) {
            return self.after_end(cx, id, ReadOutcome::Blocked);
        }
        let Some(conn) = self.parts().conns.get_mut(id) else { return ReadOutcome::Gone };
        let (before, carrier) = (chunks.len(), conn.carrier());
        let outcome = conn.input.read(carrier, chunks, max, &mut cx.ports.quic);
        let Some(carrier) = carrier else {
            conn.local.want_read();
            return outcome;
        };
        let bytes: usize = chunks.iter().skip(before).map(Bytes::len).sum();
        if bytes > 0 {
            conn.take(chunks, before, bytes);
            if conn.local.note_read() {
                self.exchange.conn_event(cx, id, Event::BytesReceived);
                self.exchange.note_heard(cx, id);
            }
            if let Some(wire) = self.parts().links.wire_at(carrier.link, carrier.handle) {
                wire.flow_mut().received(cx.now, bytes, cx.ports);
            }
            self.parts().conns.note_progress(cx.now, id, cx.ports);
        }
        self.parts().note_read(cx, id, outcome == ReadOutcome::More);
        match outcome {
            ReadOutcome::More | ReadOutcome::Gone => outcome,
            ReadOutcome::Blocked => {
                if let Some(conn) = self.parts().conns.get_mut(id) {
                    conn.local.want_read();
                }
                outcome
            }
            ReadOutcome::Finished => {
                if let Some(conn) = self.parts().conns.get_mut(id) {
                    conn.halves.end_receiving();
                    conn.end_receiving();
                }
                self.exchange.note_heard(cx, id);
                self.parts().conns.note_progress(cx.now, id, cx.ports);
                self.exchange.conn_event(cx, id, Event::StreamFinished);
                self.exchange.note_stream_end(cx, id);
                self.after_end(cx, id, outcome)
            }
            ReadOutcome::Reset(code) => {
                self.exchange.on_reset(cx, id, StreamCode(code));
                self.after_end(cx, id, outcome)
            }
        }
    }

    /// What the host sees of the stream's end: nothing, when another stream takes its place.
    fn after_end(&mut self, cx: &mut Context<'_>, id: ConnId, outcome: ReadOutcome) -> ReadOutcome {
        match self.parts().conns.get_mut(id) {
            Some(conn) if conn.carrier().is_none() || outcome == ReadOutcome::Blocked => {
                conn.local.want_read();
                ReadOutcome::Blocked
            }
            Some(_) => outcome,
            // The machine may have seen more in it than a clean end; the notice that was just queued says what.
            None => cx.ports.last_reset(id).map_or(outcome, |code| ReadOutcome::Reset(code.0)),
        }
    }

    /// The host writes.
    pub(in crate::spn::endpoint) fn write(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        chunks: &mut [Bytes],
    ) -> WriteOutcome {
        self.open_provider(cx, id);
        let outcome = self.write_some(cx, id, chunks);
        self.settle(cx);
        outcome
    }

    fn write_some(&mut self, cx: &mut Context<'_>, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        let room = self.parts().conns.room(id);
        let Some(conn) = self.parts().conns.get_mut(id) else { return WriteOutcome::Gone };
        match conn.local.may_write() {
            Ok(()) => conn.local.want_write(true),
            Err(NoWrite::Finished) => return WriteOutcome::Gone,
            Err(NoWrite::Stopped(code)) => return WriteOutcome::Stopped(code.0),
        }
        let Some(carrier) = conn.carrier() else { return NO_ROOM };
        if !conn.flush(cx.ports) {
            return NO_ROOM;
        }
        // What can be resumed is kept anyway, up to its own limit, until the partner has been heard of.
        let size = chunks.iter().map(Bytes::len).sum();
        let unkept = conn.ledger.is_none() && conn.held.after(size) > cx.setup.config().limits.held_bytes;
        let release = (carrier.protocol == Protocol::Sc01 || unkept) && conn.held.release();
        let offered = if conn.held.is_on() { chunks.to_vec() } else { Vec::new() };
        let outcome = if conn.ledger.is_none() {
            conn.write(cx.now, chunks, room, cx.ports)
        } else if !conn.machine().is_connected() {
            NO_ROOM
        } else if room == 0 && size > 0 {
            self.parts().conns.starve(id);
            NO_ROOM
        } else {
            let outcome = conn.write(cx.now, chunks, room, cx.ports);
            self.parts().conns.account(id, cx.ports);
            outcome
        };
        let bytes = match outcome {
            WriteOutcome::Written { bytes } | WriteOutcome::Blocked { bytes, .. } => bytes,
            WriteOutcome::Stopped(_) | WriteOutcome::Gone => 0,
        };
        self.note_sent(cx, id, offered, bytes, release);
        if let Some(wire) = self.parts().links.wire_at(carrier.link, carrier.handle) {
            wire.flow_mut().sent(cx.now, bytes, cx.ports);
            if bytes > 0 {
                wire.listen(cx.now, cx.ports);
            }
        }
        match outcome {
            WriteOutcome::Written { .. } => {
                if let Some(conn) = self.parts().conns.get_mut(id) {
                    conn.local.want_write(false);
                }
                outcome
            }
            WriteOutcome::Blocked { .. } | WriteOutcome::Gone => outcome,
            WriteOutcome::Stopped(code) => {
                self.exchange.conn_event(cx, id, Event::StreamStopped { code: StreamCode(code) });
                match self.parts().conns.get(id) {
                    Some(conn) if conn.carrier().is_none() => NO_ROOM,
                    Some(_) | None => outcome,
                }
            }
        }
    }

    /// Of what was `offered`, to be held, only what was taken is kept.
    fn note_sent(&mut self, cx: &mut Context<'_>, id: ConnId, offered: Vec<Bytes>, bytes: usize, release: bool) {
        let Some(conn) = self.parts().conns.get_mut(id) else { return };
        conn.held.hold(offered, bytes);
        let is_first = bytes > 0 && {
            conn.note_sent(cx.now);
            conn.local.note_written()
        };
        let is_held = conn.held.is_on();
        if is_first {
            self.exchange.conn_event(cx, id, Event::BytesSent);
        }
        if release || (is_first && !is_held) {
            self.exchange.conn_event(cx, id, Event::BytesReleased);
        }
    }

    /// The host has written everything.
    pub(in crate::spn::endpoint) fn finish(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.open_provider(cx, id);
        if let Some(conn) = self.parts().conns.get_mut(id) {
            if conn.local.finish()
                && let Some(ledger) = &mut conn.ledger
            {
                ledger.finish();
            }
            self.exchange.conn_event(cx, id, Event::LocalFinish);
        }
        self.settle(cx);
    }

    /// The host reads no more.
    pub(in crate::spn::endpoint) fn stop_reading(&mut self, cx: &mut Context<'_>, id: ConnId, code: StreamCode) {
        self.open_provider(cx, id);
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.end_receiving();
        }
        self.parts().conns.note_progress(cx.now, id, cx.ports);
        self.exchange.conn_event(cx, id, Event::LocalStop { code });
        self.settle(cx);
    }

    /// The host breaks the connection off.
    pub(in crate::spn::endpoint) fn reset(&mut self, cx: &mut Context<'_>, id: ConnId, code: StreamCode) {
        self.exchange.conn_event(cx, id, Event::LocalAbort { code });
        self.settle(cx);
    }

    /// The host breaks the connection off, but not before the partner has what was written.
    pub(in crate::spn::endpoint) fn reset_delivered(&mut self, cx: &mut Context<'_>, id: ConnId, code: StreamCode) {
        if let Some(conn) = self.parts().conns.get_mut(id) {
            conn.part(code, cx.now + cx.setup.config().limits.parting);
            self.part(cx, id);
            self.settle(cx);
        }
    }

    /// Resets a connection that is to be reset, or looks again later.
    pub(in crate::spn::endpoint) fn part(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.parts().conns.get(id) else { return };
        let rtt = conn.carrier().and_then(|carrier| cx.ports.quic.rtt(carrier.handle));
        match conn.due_reset(cx.now, rtt, cx.setup.config().limits.parting) {
            None => {}
            Some(Reset::At(due)) => cx.ports.remind(due, Due::Parting(id)),
            Some(Reset::Now(code)) => self.exchange.conn_event(cx, id, Event::LocalAbort { code }),
        }
    }
}
