//! Windows of sessions: they grow where payload needs it, and what the host leaves unread eats nobody's credit.

use std::time::{Duration, Instant};

use super::{
    conn::Carrier,
    link::{LinkId, Wire},
};
use crate::{
    quic::Handle,
    spn::{
        endpoint::{ConnId, Due, Endpoint},
        flow::window::REST,
    },
};

/// What the host has left unread of a connection for so long comes on top of its session's window,
const STALL_TIME: Duration = Duration::from_millis(50);
/// unless it has taken so many bytes in that time.
const FLOWING: u64 = 512 * 1024;
/// What stalled connections hold is looked at at least so often (CTL-16).
const STALL_LOOK: Duration = Duration::from_millis(200);

/// Where a connection's receiving direction stands.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Unread {
    /// The host has not had everything since then, and what it had taken by then.
    since: Option<(Instant, u64)>,
    /// Bytes that the host has taken.
    pub(in crate::spn::endpoint) taken: u64,
    is_reminded: bool,
    /// What is unread comes on top of this session's window.
    parked: Option<(LinkId, Handle)>,
}

impl Endpoint {
    /// There is something to read.
    pub(super) fn note_unread(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let unread = &mut conn.unread;
        unread.since.get_or_insert((now, unread.taken));
        if unread.parked.is_none() && !std::mem::replace(&mut unread.is_reminded, true) {
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
        self.unstall(id);
    }

    /// What the host has left unread of the connection is none of its session's any more.
    pub(super) fn unstall(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if let Some((link, handle)) = conn.unread.parked.take()
            && let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut())
            && wire.handle == handle
        {
            let before = wire.receive.parked();
            let window = wire.receive.unstall();
            self.parked = self.parked - before + wire.receive.parked();
            if let Some(window) = window {
                self.quic.set_receive_window(handle, window);
            }
        }
    }

    pub(in crate::spn::endpoint) fn expire_stall(&mut self, now: Instant, id: ConnId) {
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
        unread.parked = Some((link, handle));
        let arrived = self.quic.arrived(handle);
        if let Some(wire) = self.wire_mut(link, handle) {
            wire.receive.stall(arrived);
        }
        self.look_at_stalled(now, link, handle);
    }

    /// What a session's stalled connections may hold comes on top of its window. It is looked at again soon while it changes.
    fn look_at_stalled(&mut self, now: Instant, link: LinkId, handle: Handle) {
        let room = self.config.limits.parked_bytes.saturating_sub(self.parked);
        let arrived = self.quic.arrived(handle);
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        let before = wire.receive.parked();
        let window = wire.receive.park(arrived, room);
        self.parked = self.parked - before + wire.receive.parked();
        if let Some(window) = window {
            self.quic.set_receive_window(handle, window);
        }
        let next = if window.is_some() { STALL_TIME } else { STALL_LOOK };
        if !std::mem::replace(&mut wire.stall_look, true) {
            self.deadlines.push(now + next, Due::Stalled(link, handle));
        }
    }

    pub(in crate::spn::endpoint) fn expire_stalled(&mut self, now: Instant, link: LinkId, handle: Handle) {
        let Some(wire) = self.wire_mut(link, handle) else { return };
        wire.stall_look = false;
        if wire.receive.is_stalled() {
            self.look_at_stalled(now, link, handle);
        }
    }

    /// Payload has come through.
    pub(super) fn note_arrived(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        let room = (self.config.limits.parked_bytes / 2).saturating_sub(self.grown);
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        let before = wire.receive.grown();
        if let Some(window) = wire.receive.pass(now, bytes as u64, room, || self.quic.rtt(handle).unwrap_or_default()) {
            self.grown = self.grown - before + wire.receive.grown();
            self.quic.set_receive_window(handle, window);
            self.remind_to_rest(now, link, handle);
        }
    }

    /// Payload has been taken.
    pub(super) fn note_taken(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        let room = (self.config.limits.parked_bytes / 2).saturating_sub(self.grown);
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        let before = wire.send.grown();
        if let Some(window) = wire.send.pass(now, bytes as u64, room, || self.quic.rtt(handle).unwrap_or_default()) {
            self.grown = self.grown - before + wire.send.grown();
            self.quic.set_send_window(handle, window);
            self.remind_to_rest(now, link, handle);
        }
    }

    fn remind_to_rest(&mut self, now: Instant, link: LinkId, handle: Handle) {
        if let Some(wire) = self.wire_mut(link, handle)
            && wire.receive.grown() + wire.send.grown() > 0
            && !std::mem::replace(&mut wire.rests, true)
        {
            self.deadlines.push(now + REST, Due::Rest(link, handle));
        }
    }

    /// Windows that have grown and are not used are small again.
    pub(in crate::spn::endpoint) fn expire_rest(&mut self, now: Instant, link: LinkId, handle: Handle) {
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        if wire.handle != handle {
            return;
        }
        wire.rests = false;
        let before = wire.receive.grown() + wire.send.grown();
        if let Some(window) = wire.receive.rest(now) {
            self.quic.set_receive_window(handle, window);
        }
        if let Some(window) = wire.send.rest(now) {
            self.quic.set_send_window(handle, window);
        }
        self.grown = self.grown - before + wire.receive.grown() + wire.send.grown();
        self.remind_to_rest(now, link, handle);
    }
}

impl Wire {
    /// The session is over: what its windows had is free, of all that are parked and grown.
    pub(super) fn free_windows(&self, parked: &mut u64, grown: &mut u64) {
        *parked -= self.receive.parked();
        *grown -= self.receive.grown() + self.send.grown();
    }
}
