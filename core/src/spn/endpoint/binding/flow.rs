//! Windows of sessions: they grow where payload needs it, and what the host leaves unread eats nobody's credit.

use std::time::Instant;

use super::link::wire_of;
use crate::{
    quic::Handle,
    spn::{
        endpoint::{
            ConnId, Due, Endpoint,
            carrier::{Carrier, LinkId},
        },
        flow::stall::Look,
    },
};

impl Endpoint {
    /// There is something to read.
    pub(super) fn note_unread(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let unread = &mut conn.unread;
        if let Some(at) = unread.stall.begin(now, unread.taken, unread.parked.is_some()) {
            self.deadlines.push(at, Due::Stall(id));
        }
    }

    /// The host has read; `left`: not everything.
    pub(super) fn note_read(&mut self, now: Instant, id: ConnId, left: bool) {
        if left {
            return self.note_unread(now, id);
        }
        let Some(conn) = self.conn_mut(id) else { return };
        conn.unread.stall.end();
        self.unstall(id);
    }

    /// What the host has left unread of the connection is none of its session's any more.
    pub(super) fn unstall(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if let Some((link, handle)) = conn.unread.parked.take()
            && let Some(wire) = wire_of(&mut self.links, link, handle)
        {
            wire.windows.unstall(&mut self.budget, &mut self.quic, handle);
        }
    }

    pub(in crate::spn::endpoint) fn expire_stall(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let unread = &mut conn.unread;
        let carrier = conn.carrier.as_ref().map(|carrier| (carrier.link, carrier.handle));
        match unread.stall.look(now, unread.taken, carrier.is_some()) {
            Look::Over => {}
            Look::Again(at) => self.deadlines.push(at, Due::Stall(id)),
            Look::Stalled => {
                let Some((link, handle)) = carrier else { return };
                unread.parked = carrier;
                if let Some(wire) = wire_of(&mut self.links, link, handle)
                    && let Some(at) = wire.windows.stall(now, &mut self.budget, &mut self.quic, handle)
                {
                    self.deadlines.push(at, Due::Stalled(link, handle));
                }
            }
        }
    }

    pub(in crate::spn::endpoint) fn expire_stalled(&mut self, now: Instant, link: LinkId, handle: Handle) {
        if let Some(wire) = wire_of(&mut self.links, link, handle)
            && let Some(at) = wire.windows.look(now, &mut self.budget, &mut self.quic, handle)
        {
            self.deadlines.push(at, Due::Stalled(link, handle));
        }
    }

    /// Payload has come through.
    pub(super) fn note_arrived(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        if let Some(wire) = wire_of(&mut self.links, link, handle)
            && let Some(at) = wire.windows.received(now, bytes as u64, &mut self.budget, &mut self.quic, handle)
        {
            self.deadlines.push(at, Due::Rest(link, handle));
        }
    }

    /// Payload has been taken.
    pub(super) fn note_taken(&mut self, now: Instant, Carrier { link, handle, .. }: Carrier, bytes: usize) {
        if let Some(wire) = wire_of(&mut self.links, link, handle)
            && let Some(at) = wire.windows.sent(now, bytes as u64, &mut self.budget, &mut self.quic, handle)
        {
            self.deadlines.push(at, Due::Rest(link, handle));
        }
    }

    /// Windows that have grown and are not used are small again.
    pub(in crate::spn::endpoint) fn expire_rest(&mut self, now: Instant, link: LinkId, handle: Handle) {
        if let Some(wire) = wire_of(&mut self.links, link, handle)
            && let Some(at) = wire.windows.rest(now, &mut self.budget, &mut self.quic, handle)
        {
            self.deadlines.push(at, Due::Rest(link, handle));
        }
    }
}
