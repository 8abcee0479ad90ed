//! How long a peer may take for something, where the network may take longer.

use std::time::Duration;

use crate::quic::{Endpoint, Handle};

/// A limit that begins again whenever nothing has been heard of the peer for a moment: what it has sent may be lost and on its way once more.
/// It is looked at every [`EVERY`](Self::EVERY), and asks for a sign of life each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Patience {
    /// Datagrams of the peer, at the last look.
    heard: u64,
    /// Looks in a row at which there were new ones.
    alive: u32,
}

impl Patience {
    pub(crate) const EVERY: Duration = Duration::from_secs(1);

    /// It begins.
    pub(crate) fn new(quic: &mut Endpoint, peer: Handle) -> Self {
        quic.ping(peer);
        Self { heard: quic.received_datagrams(peer), alive: 0 }
    }

    /// What is left of it after one more [`EVERY`](Self::EVERY); nothing, once the peer has been heard for `limit` without a break.
    pub(crate) fn look(self, quic: &mut Endpoint, peer: Handle, limit: Duration) -> Option<Self> {
        let heard = quic.received_datagrams(peer);
        let alive = if heard > self.heard { self.alive + 1 } else { 0 };
        if Self::EVERY.saturating_mul(alive) >= limit {
            return None;
        }
        quic.ping(peer);
        Some(Self { heard, alive })
    }
}
