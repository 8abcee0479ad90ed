//! The host's side of a connection: reads, writes and ends.

use std::time::Instant;

use bytes::Bytes;

use super::Writing;
use crate::{
    quic::{ReadOutcome, WriteOutcome},
    spn::{
        Protocol,
        endpoint::{ConnId, Endpoint, Notice, machines::connection::Event},
        flow::kept::OF_READS,
    },
};

impl Endpoint {
    /// The host acts on the connection: a provider's has been dialled, then.
    fn open_provider(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !std::mem::replace(&mut conn.opened, true)
        {
            self.conn_event(now, id, Event::Opened);
        }
    }

    /// Takes up to `max` chunks of what has arrived, appending them to `chunks`. None of them is empty; there may be none although
    /// there are more, after a resume in which the partner has repeated what was here.
    ///
    /// [`ReadOutcome::Blocked`]: that is all; [`Notice::Readable`] tells of more. [`ReadOutcome::Finished`]: that is all, and the other
    /// side has ended. [`ReadOutcome::Gone`]: the connection is over, or [`stop_reading`](Self::stop_reading) was called.
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
        let Some(conn) = self.conn_mut(id) else { return ReadOutcome::Gone };
        let (before, mut max) = (chunks.len(), max);
        if !conn.ahead.is_empty() && max > 0 {
            chunks.push(std::mem::take(&mut conn.ahead));
            max -= 1;
        }
        let Some(carrier) = conn.carrier else {
            conn.wants_read = true;
            return ReadOutcome::Blocked;
        };
        let outcome = if std::mem::take(&mut conn.ahead_end) {
            ReadOutcome::Finished
        } else {
            self.quic.read(carrier.handle, carrier.stream, chunks, max)
        };
        let bytes: usize = chunks.iter().skip(before).map(Bytes::len).sum();
        if bytes > 0 {
            if let Some(conn) = self.conn_mut(id) {
                conn.unread.taken += bytes as u64;
                if let Some(ledger) = &mut conn.ledger
                    && ledger.take(chunks.get_mut(before..).unwrap_or_default()) < bytes as u64
                {
                    // What a partner has repeated after a resume is taken off, and a chunk of nothing else is none: whoever writes
                    // chunks until none is left would never be done with one that has no bytes.
                    let mut place = 0;
                    chunks.retain(|chunk| {
                        place += 1;
                        place <= before || !chunk.is_empty()
                    });
                }
            }
            self.note_received(now, id);
            self.note_arrived(now, carrier, bytes);
            self.note_progress(now, id);
        }
        self.note_read(now, id, outcome == ReadOutcome::More);
        match outcome {
            ReadOutcome::More | ReadOutcome::Gone => outcome,
            ReadOutcome::Blocked => {
                if let Some(conn) = self.conn_mut(id) {
                    conn.wants_read = true;
                }
                outcome
            }
            ReadOutcome::Finished => {
                if let Some(conn) = self.conn_mut(id) {
                    conn.halves.end_receiving();
                    if let Some(ledger) = &mut conn.ledger {
                        ledger.end();
                    }
                }
                self.note_heard(now, id);
                self.note_progress(now, id);
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
        match self.conn_mut(id) {
            Some(conn) if conn.carrier.is_none() => {
                conn.wants_read = true;
                ReadOutcome::Blocked
            }
            Some(conn) => {
                conn.wants_read |= outcome == ReadOutcome::Blocked;
                outcome
            }
            // The machine may have seen more in it than a clean end; the notice that was just queued says what.
            None => match self.notices.back() {
                Some(&Notice::Reset(last, code)) if last == id => ReadOutcome::Reset(code),
                Some(_) | None => outcome,
            },
        }
    }

    fn note_received(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if !std::mem::replace(&mut conn.has_received, true) {
            self.conn_event(now, id, Event::BytesReceived);
            self.note_heard(now, id);
        }
    }

    /// Gives chunks, uncopied, as far as there is room; [`Notice::Writable`] tells when there is more.
    pub fn write(&mut self, now: Instant, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        self.open_provider(now, id);
        let outcome = self.write_some(now, id, chunks);
        self.settle(now);
        outcome
    }

    fn write_some(&mut self, now: Instant, id: ConnId, chunks: &mut [Bytes]) -> WriteOutcome {
        const NO_ROOM: WriteOutcome = WriteOutcome::Blocked { bytes: 0, chunks: 0 };
        let Some(conn) = self.conn_mut(id) else { return WriteOutcome::Gone };
        match conn.writing {
            Writing::Open => {}
            Writing::Finished => return WriteOutcome::Gone,
            Writing::Stopped(code) => return WriteOutcome::Stopped(code),
        }
        let carrier = conn.carrier;
        conn.wants_write = true;
        let Some(carrier) = carrier else { return NO_ROOM };
        if !self.flush_conn(id) {
            return NO_ROOM;
        }
        let most = self.config.limits.held_bytes;
        let Some(conn) = self.conn_mut(id) else { return WriteOutcome::Gone };
        // What can be resumed is kept anyway, up to its own limit, until the partner has been heard of.
        let size: usize = chunks.iter().map(Bytes::len).sum();
        let unkept = conn.ledger.is_none() && conn.held_bytes + size > most;
        let release = conn.holding && (carrier.protocol == Protocol::Sc01 || unkept);
        if release {
            conn.holding = false;
            conn.held.clear();
        }
        let offered = if conn.holding { chunks.to_vec() } else { Vec::new() };
        let outcome = match &conn.ledger {
            Some(_) => self.write_kept(now, id, carrier, chunks),
            None => self.quic.write(carrier.handle, carrier.stream, chunks),
        };
        let bytes = match outcome {
            WriteOutcome::Written { bytes } | WriteOutcome::Blocked { bytes, .. } => bytes,
            WriteOutcome::Stopped(_) | WriteOutcome::Gone => 0,
        };
        self.note_sent(now, id, offered, bytes, release);
        self.note_taken(now, carrier, bytes);
        if bytes > 0 {
            self.listen(now, carrier.link);
        }
        match outcome {
            WriteOutcome::Written { .. } => {
                if let Some(conn) = self.conn_mut(id) {
                    conn.wants_write = false;
                }
                outcome
            }
            WriteOutcome::Blocked { .. } | WriteOutcome::Gone => outcome,
            WriteOutcome::Stopped(code) => {
                self.conn_event(now, id, Event::StreamStopped { code });
                match self.conn_mut(id) {
                    Some(conn) if conn.carrier.is_none() => NO_ROOM,
                    Some(_) | None => outcome,
                }
            }
        }
    }

    /// Of what was `offered`, to be held, only what was taken is kept.
    fn note_sent(&mut self, now: Instant, id: ConnId, offered: Vec<Bytes>, bytes: usize, release: bool) {
        let Some(conn) = self.conn_mut(id) else { return };
        if bytes > 0 {
            conn.last_sent = Some(now);
        }
        if conn.holding {
            let mut left = bytes;
            for mut chunk in offered {
                chunk.truncate(left);
                left -= chunk.len();
                conn.held.push(chunk, OF_READS);
            }
            conn.held_bytes += bytes;
        }
        if bytes > 0 && !std::mem::replace(&mut conn.has_sent, true) {
            let held = conn.holding;
            self.conn_event(now, id, Event::BytesSent);
            if !held {
                self.conn_event(now, id, Event::BytesReleased);
            }
        } else if release {
            self.conn_event(now, id, Event::BytesReleased);
        }
    }

    /// Ends our direction in good order, after what was written.
    pub fn finish(&mut self, now: Instant, id: ConnId) {
        self.open_provider(now, id);
        if let Some(conn) = self.conn_mut(id) {
            if matches!(conn.writing, Writing::Open) {
                conn.writing = Writing::Finished;
                if let Some(ledger) = &mut conn.ledger {
                    ledger.finish();
                }
            }
            self.conn_event(now, id, Event::LocalFinish);
        }
        self.settle(now);
    }

    /// Reads no more; the other direction goes on.
    pub fn stop_reading(&mut self, now: Instant, id: ConnId, code: u64) {
        self.open_provider(now, id);
        if let Some(ledger) = self.conn_mut(id).and_then(|conn| conn.ledger.as_mut()) {
            ledger.end();
        }
        self.note_progress(now, id);
        self.conn_event(now, id, Event::LocalStop { code });
        self.settle(now);
    }

    /// Breaks the connection off, in both directions. A provider that cannot dial says it with [`PEER_ABORTED`](crate::spn::wire::code::PEER_ABORTED).
    pub fn reset(&mut self, now: Instant, id: ConnId, code: u64) {
        self.conn_event(now, id, Event::LocalAbort { code });
        self.settle(now);
    }
}
