//! Bytes that the host leaves unread: when they come on top of their session's window.

use std::time::Instant;

use crate::{
    quic::Handle,
    spn::{
        endpoint::carrier::{Carrier, LinkId},
        flow::stall::{Look, Stall},
    },
};

/// Where a connection's receiving direction stands.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Unread {
    stall: Stall,
    /// Bytes that the host has taken.
    taken: u64,
    /// What is unread comes on top of this session's window.
    parked: Option<(LinkId, Handle)>,
}

impl Unread {
    /// There is something to read. When to look at it, if nobody looks yet.
    pub(in crate::spn::endpoint) fn begin(&mut self, now: Instant) -> Option<Instant> {
        self.stall.begin(now, self.taken, self.parked.is_some())
    }

    /// The host has taken so many bytes.
    pub(in crate::spn::endpoint) fn take(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }

    /// The host has read everything.
    pub(in crate::spn::endpoint) fn end(&mut self) {
        self.stall.end();
    }

    /// The session on whose window its bytes came on top, which they do no more.
    pub(in crate::spn::endpoint) fn unpark(&mut self) -> Option<(LinkId, Handle)> {
        self.parked.take()
    }

    /// Looks whether the host leaves bytes unread. If it does, they come on top of the window of the session that carries them.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, carrier: Option<Carrier>) -> Look {
        let look = self.stall.look(now, self.taken, carrier.is_some());
        if look == Look::Stalled {
            self.parked = carrier.map(|carrier| (carrier.link, carrier.handle));
        }
        look
    }
}
