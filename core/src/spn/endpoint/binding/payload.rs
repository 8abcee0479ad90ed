//! The host's side of a connection: reads, writes and ends.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        Protocol,
        endpoint::{
            ConnId, Endpoint,
            carrier::Carrier,
            machines::connection::Event,
            parts::{
                conn::{NoWrite, Reset},
                ports::Due,
            },
        },
    },
};

const NO_ROOM: WriteOutcome = WriteOutcome::Blocked { bytes: 0, chunks: 0 };

impl Endpoint {
    /// The host acts on the connection: a provider's has been dialled, then.
    fn open_provider(&mut self, now: Instant, id: ConnId) {
        if self.conns.get_mut(id).is_some_and(|conn| conn.local.open()) {
            self.conn_event(now, id, Event::Opened);
        }
    }

    /// Takes up to `max` chunks of what has arrived, appending them to `chunks`. None of them is empty; there may be none although
    /// there are more, after a resume in which the partner has repeated what was here.
    ///
    /// [`ReadOutcome::Blocked`]: that is all; [`Notice::Readable`](crate::spn::endpoint::Notice::Readable) says that there is more.
    /// [`ReadOutcome::Finished`]: that is all, and the other side has ended. [`ReadOutcome::Gone`]: the connection is over, or
    /// [`stop_reading`](Self::stop_reading) was called.
    pub fn read(&mut self, now: Instant, id: ConnId, chunks: &mut Vec<Bytes>, max: usize) -> ReadOutcome {
        self.open_provider(now, id);
        let outcome = self.read_some(now, id, chunks, max);
        self.settle(now);
        outcome
    }

    fn read_some(&mut self, now: Instant, id: ConnId, chunks: &mut Vec<Bytes>, max: usize) -> ReadOutcome {
        if !self.read_answer(now, id) {
            return self.after_end(id, ReadOutcome::Blocked);
        }
        let Some(conn) = self.conns.get_mut(id) else { return ReadOutcome::Gone };
        let (before, carrier) = (chunks.len(), conn.carrier());
        let outcome = conn.input.read(carrier, chunks, max, &mut self.ports.quic);
        let Some(carrier) = carrier else {
            conn.local.want_read();
            return outcome;
        };
        let bytes: usize = chunks.iter().skip(before).map(Bytes::len).sum();
        if bytes > 0 {
            conn.take(chunks, before, bytes);
            if conn.local.note_read() {
                self.conn_event(now, id, Event::BytesReceived);
                self.note_heard(now, id);
            }
            if let Some(wire) = self.links.wire_at(carrier.link, carrier.handle) {
                wire.flow_mut().received(now, bytes, &mut self.ports);
            }
            self.conns.note_progress(now, id, &mut self.ports);
        }
        self.note_read(now, id, outcome == ReadOutcome::More);
        match outcome {
            ReadOutcome::More | ReadOutcome::Gone => outcome,
            ReadOutcome::Blocked => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.local.want_read();
                }
                outcome
            }
            ReadOutcome::Finished => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.halves.end_receiving();
                    conn.end_receiving();
                }
                self.note_heard(now, id);
                self.conns.note_progress(now, id, &mut self.ports);
                self.conn_event(now, id, Event::StreamFinished);
                self.note_stream_end(now, id);
                self.after_end(id, outcome)
            }
            ReadOutcome::Reset(code) => {
                self.on_reset(now, id, code);
                self.after_end(id, outcome)
            }
        }
    }

    /// What the host sees of the stream's end: nothing, when another stream takes its place.
    fn after_end(&mut self, id: ConnId, outcome: ReadOutcome) -> ReadOutcome {
        match self.conns.get_mut(id) {
            Some(conn) if conn.carrier().is_none() || outcome == ReadOutcome::Blocked => {
                conn.local.want_read();
                ReadOutcome::Blocked
            }
            Some(_) => outcome,
            // The machine may have seen more in it than a clean end; the notice that was just queued says what.
            None => self.ports.last_reset(id).map_or(outcome, ReadOutcome::Reset),
        }
    }

    /// The host has read; `left`: not everything.
    pub(super) fn note_read(&mut self, now: Instant, id: ConnId, left: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if left {
            return conn.note_unread(now, &mut self.ports);
        }
        conn.unread_mut().end();
        if let Some((link, handle)) = conn.unread_mut().unpark()
            && let Some(wire) = self.links.wire_at(link, handle)
        {
            wire.flow_mut().unstall(&mut self.ports);
        }
    }

    /// The host may have left something unread for long enough.
    pub(in crate::spn::endpoint) fn expire_stall(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(Carrier { link, handle, .. }) = conn.look_at_unread(now, &mut self.ports)
            && let Some(wire) = self.links.wire_at(link, handle)
        {
            wire.flow_mut().stall(now, &mut self.ports);
        }
    }

    /// Gives chunks, uncopied, as far as there is room; [`Notice::Writable`](crate::spn::endpoint::Notice::Writable) says that there is more.
    pub fn write(&mut self, now: Instant, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        self.open_provider(now, id);
        let outcome = self.write_some(now, id, chunks);
        self.settle(now);
        outcome
    }

    fn write_some(&mut self, now: Instant, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        let room = self.conns.room(id);
        let Some(conn) = self.conns.get_mut(id) else { return WriteOutcome::Gone };
        match conn.local.may_write() {
            Ok(()) => conn.local.want_write(true),
            Err(NoWrite::Finished) => return WriteOutcome::Gone,
            Err(NoWrite::Stopped(code)) => return WriteOutcome::Stopped(code),
        }
        let Some(carrier) = conn.carrier() else { return NO_ROOM };
        if !conn.flush(&mut self.ports) {
            return NO_ROOM;
        }
        // What can be resumed is kept anyway, up to its own limit, until the partner has been heard of.
        let size = chunks.iter().map(Bytes::len).sum();
        let unkept = conn.ledger.is_none() && conn.held.after(size) > self.setup.config().limits.held_bytes;
        let release = (carrier.protocol == Protocol::Sc01 || unkept) && conn.held.release();
        let offered = if conn.held.is_on() { chunks.to_vec() } else { Vec::new() };
        let outcome = if conn.ledger.is_none() {
            conn.write(now, chunks, room, &mut self.ports)
        } else if !conn.machine().is_connected() {
            NO_ROOM
        } else if room == 0 && size > 0 {
            self.conns.starve(id);
            NO_ROOM
        } else {
            let outcome = conn.write(now, chunks, room, &mut self.ports);
            self.conns.account(id, &mut self.ports);
            outcome
        };
        let bytes = match outcome {
            WriteOutcome::Written { bytes } | WriteOutcome::Blocked { bytes, .. } => bytes,
            WriteOutcome::Stopped(_) | WriteOutcome::Gone => 0,
        };
        self.note_sent(now, id, offered, bytes, release);
        if let Some(wire) = self.links.wire_at(carrier.link, carrier.handle) {
            wire.flow_mut().sent(now, bytes, &mut self.ports);
            if bytes > 0 {
                wire.listen(now, &mut self.ports);
            }
        }
        match outcome {
            WriteOutcome::Written { .. } => {
                if let Some(conn) = self.conns.get_mut(id) {
                    conn.local.want_write(false);
                }
                outcome
            }
            WriteOutcome::Blocked { .. } | WriteOutcome::Gone => outcome,
            WriteOutcome::Stopped(code) => {
                self.conn_event(now, id, Event::StreamStopped { code });
                match self.conns.get(id) {
                    Some(conn) if conn.carrier().is_none() => NO_ROOM,
                    Some(_) | None => outcome,
                }
            }
        }
    }

    /// Of what was `offered`, to be held, only what was taken is kept.
    fn note_sent(&mut self, now: Instant, id: ConnId, offered: Vec<Bytes>, bytes: usize, release: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.held.hold(offered, bytes);
        let is_first = bytes > 0 && {
            conn.note_sent(now);
            conn.local.note_written()
        };
        let is_held = conn.held.is_on();
        if is_first {
            self.conn_event(now, id, Event::BytesSent);
        }
        if release || (is_first && !is_held) {
            self.conn_event(now, id, Event::BytesReleased);
        }
    }

    /// Ends our direction in good order, after what was written.
    pub fn finish(&mut self, now: Instant, id: ConnId) {
        self.open_provider(now, id);
        if let Some(conn) = self.conns.get_mut(id) {
            if conn.local.finish()
                && let Some(ledger) = &mut conn.ledger
            {
                ledger.finish();
            }
            self.conn_event(now, id, Event::LocalFinish);
        }
        self.settle(now);
    }

    /// Reads no more; the other direction goes on.
    pub fn stop_reading(&mut self, now: Instant, id: ConnId, code: u64) {
        self.open_provider(now, id);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.end_receiving();
        }
        self.conns.note_progress(now, id, &mut self.ports);
        self.conn_event(now, id, Event::LocalStop { code });
        self.settle(now);
    }

    /// Breaks the connection off, in both directions. A provider that cannot dial says it with [`PEER_ABORTED`](crate::spn::wire::code::PEER_ABORTED).
    pub fn reset(&mut self, now: Instant, id: ConnId, code: u64) {
        self.conn_event(now, id, Event::LocalAbort { code });
        self.settle(now);
    }

    /// Breaks the connection off as [`reset`](Self::reset) does, but not before the partner has what was written, or
    /// [`Limits::parting`](crate::spn::endpoint::Limits::parting) has passed. The host is done with the connection: it neither reads nor writes any more.
    pub fn reset_delivered(&mut self, now: Instant, id: ConnId, code: u64) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.part(code, now + self.setup.config().limits.parting);
            self.part(now, id);
            self.settle(now);
        }
    }

    /// Something may have been delivered of a connection that is to be reset.
    pub(super) fn note_delivered(&mut self, id: ConnId) {
        if let Some(code) = self.conns.get(id).and_then(|conn| conn.delivered()) {
            self.ports.post_conn(id, Event::LocalAbort { code });
        }
    }

    /// Resets a connection that is to be reset, or looks again later.
    pub(in crate::spn::endpoint) fn part(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let rtt = conn.carrier().and_then(|carrier| self.ports.quic.rtt(carrier.handle));
        match conn.due_reset(now, rtt, self.setup.config().limits.parting) {
            None => {}
            Some(Reset::At(due)) => self.ports.remind(due, Due::Parting(id)),
            Some(Reset::Now(code)) => self.conn_event(now, id, Event::LocalAbort { code }),
        }
    }
}
