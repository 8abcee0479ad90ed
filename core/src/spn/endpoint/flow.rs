//! Windows of sessions: they grow where payload needs it, and what the host leaves unread eats nobody's credit.

use std::time::{Duration, Instant};

use super::{ConnId, Due, Endpoint, conn::Carrier};

/// A connection of which the host has left something unread for so long gets a window of its own,
const STALL_TIME: Duration = Duration::from_millis(50);
/// unless it has taken so many bytes in that time.
const FLOWING: u64 = 512 * 1024;

/// Where a connection's receiving direction stands.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The host has not had everything since then, and what it had taken by then.
    since: Option<(Instant, u64)>,
    /// Bytes that the host has taken.
    pub(super) taken: u64,
    is_reminded: bool,
    /// It has a window of its own.
    is_parked: bool,
}

impl Endpoint {
    /// There is something to read.
    pub(super) fn note_unread(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let unread = &mut conn.unread;
        unread.since.get_or_insert((now, unread.taken));
        if !unread.is_parked && !std::mem::replace(&mut unread.is_reminded, true) {
            self.deadlines.push(now + STALL_TIME, Due::Stall(id));
        }
    }

    /// The host has read; `left`: not everything.
    pub(super) fn note_read(&mut self, now: Instant, id: ConnId, left: bool) {
        if left {
            return self.note_unread(now, id);
        }
        let Some(conn) = self.conn_mut(id) else { return };
        conn.unread.since = None;
        if std::mem::take(&mut conn.unread.is_parked) {
            let carrier = conn.carrier;
            self.parked = self.parked.saturating_sub(self.config.transport.stream_window.into());
            if let Some(Carrier { link, handle, .. }) = carrier
                && let Some(wire) = self.wire_mut(link, handle)
            {
                let window = wire.receive.unpark();
                self.quic.set_receive_window(handle, window);
            }
        }
    }

    pub(super) fn expire_stall(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let unread = &mut conn.unread;
        unread.is_reminded = false;
        let (Some((since, before)), Some(Carrier { link, handle, .. })) = (unread.since, conn.carrier) else { return };
        let later = if now < since + STALL_TIME {
            Some((since, before))
        } else if unread.taken - before >= FLOWING {
            Some((now, unread.taken))
        } else {
            None
        };
        if let Some((since, _)) = later {
            (unread.since, unread.is_reminded) = (later, true);
            return self.deadlines.push(since + STALL_TIME, Due::Stall(id));
        }
        let stream_window = u64::from(self.config.transport.stream_window);
        if self.parked + stream_window > self.config.limits.parked_bytes {
            return;
        }
        let Some(wire) = self.wire_mut(link, handle) else { return };
        let window = wire.receive.park();
        self.quic.set_receive_window(handle, window);
        self.parked += stream_window;
        if let Some(conn) = self.conn_mut(id) {
            conn.unread.is_parked = true;
        }
    }

    /// Payload has come through.
    pub(super) fn note_arrived(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        if let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut())
            && let Some(window) = wire.receive.pass(now, bytes as u64, || self.quic.rtt(handle).unwrap_or_default())
        {
            self.quic.set_receive_window(handle, window);
        }
    }

    /// Payload has been taken.
    pub(super) fn note_taken(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        if let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut())
            && let Some(window) = wire.send.pass(now, bytes as u64, || self.quic.rtt(handle).unwrap_or_default())
        {
            self.quic.set_send_window(handle, window);
        }
    }
}
