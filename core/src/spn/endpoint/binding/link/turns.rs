//! One SESSION_OPEN after the other (docs/protocols/spn.md, Several hubs): the next one says which hub has answered the one before it. If they
//! crossed, a hub with two addresses would begin a session, and connections on it, only to replace it.

use std::{collections::BTreeSet, time::Instant};

use crate::spn::endpoint::carrier::LinkId;

/// Whose turn it is to ask its hub for a session.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that wait, in the order of their handshakes.
    waiting: BTreeSet<(Instant, LinkId)>,
    /// The one whose SESSION_OPEN has no answer yet.
    asking: Option<LinkId>,
}

impl Turns {
    /// The handshake of a session is done: it waits.
    pub(super) fn wait(&mut self, now: Instant, id: LinkId) {
        self.waiting.insert((now, id));
    }

    /// A session waits no more, as its QUIC connection is gone.
    pub(super) fn cancel(&mut self, id: LinkId) {
        self.waiting.retain(|(_, waiting)| *waiting != id);
    }

    /// The session that may ask now, if any waits and none asks.
    pub(super) fn pass(&mut self) -> Option<LinkId> {
        if self.asking.is_none() {
            self.asking = self.waiting.pop_first().map(|(_, id)| id);
            return self.asking;
        }
        None
    }

    /// A session has its answer, or asks no more.
    pub(super) fn end(&mut self, id: LinkId) {
        self.asking = self.asking.filter(|asking| *asking != id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn sessions_ask_one_after_the_other_in_the_order_of_their_handshakes() {
        let now = first_instant();
        let mut turns = Turns::default();
        assert_eq!(turns.pass(), None);
        turns.wait(now + Duration::from_millis(1), 1);
        turns.wait(now, 3);
        turns.wait(now, 2);
        assert_eq!((turns.pass(), turns.pass()), (Some(2), None));
        turns.end(1);
        assert_eq!(turns.pass(), None, "the one that asks has no answer");
        turns.end(2);
        turns.cancel(3);
        assert_eq!(turns.pass(), Some(1));
        turns.end(1);
        assert_eq!(turns.pass(), None);
    }
}
