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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quic::StreamId,
        spn::{Protocol, flow::stall::STALL_TIME},
        testing::first_instant,
    };

    #[test]
    fn what_is_left_unread_for_long_is_parked_on_the_session_that_carries_it() {
        let (now, handle) = (first_instant(), Handle::of_test(0));
        let carrier = Carrier { link: 3, handle, stream: StreamId::of_test(0), protocol: Protocol::Sc02 };
        let mut unread = Unread::default();
        let due = unread.begin(now).unwrap();
        assert_eq!((due, unread.begin(now)), (now + STALL_TIME, None), "there will be a look");
        assert_eq!(unread.look(due, Some(carrier)), Look::Stalled);
        assert_eq!(unread.begin(due), None, "it is parked");
        assert_eq!((unread.unpark(), unread.unpark()), (Some((3, handle)), None));
        unread.take(5);
        unread.end();
        assert_eq!(unread.look(due, Some(carrier)), Look::Over);
    }
}
