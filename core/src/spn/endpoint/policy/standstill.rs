//! A provider that has stood still (docs/protocols/spn.md, Choosing a provider, PRV-16).
//!
//! A process is stopped and goes on, a machine sleeps and wakes up. What the hub sent first stands at the head of the queue then, and that it has
//! been taken back stands at its end, or is still on its way. So what is new waits until the hub has been heard.

use std::time::{Duration, Instant};

use crate::spn::patience::{LATE, LEAST, patience};

/// A provider with sessions wants to be called so often; one that is called [`LATE`] has stood still. A hub waits longer before it gives its
/// connections to another one.
const TICK: Duration = Duration::from_secs(1);

/// Whether a provider has stood still, by when it is called.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Standstill {
    /// When it wants to be called at the latest.
    tick: Option<Instant>,
}

impl Standstill {
    /// A provider's session is up.
    pub(in crate::spn::endpoint) fn begin(&mut self, now: Instant) {
        self.tick.get_or_insert(now + TICK);
    }

    /// When to call [`look`](Self::look) at the latest.
    pub(in crate::spn::endpoint) fn next(&self) -> Option<Instant> {
        self.tick
    }

    /// The host is here; `is_up` says whether any session is up. Says whether the endpoint has stood still.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, is_up: impl FnOnce() -> bool) -> bool {
        let Some(due) = self.tick.filter(|due| now >= *due) else { return false };
        self.tick = is_up().then(|| now + TICK);
        now >= due + LATE
    }
}

/// A session whose new streams wait until its hub has been heard.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::endpoint) struct Hold {
    /// Datagrams that had come when the wait was over; the next one lets the streams in.
    heard: Option<u64>,
}

impl Hold {
    /// The wait begins for a session with that round-trip time. When to look at it.
    pub(in crate::spn::endpoint) fn begin(now: Instant, rtt: Option<Duration>) -> (Self, Instant) {
        (Self { heard: None }, now + patience(rtt))
    }

    /// Looks at it: so many datagrams have come. When to look again; `None`: it is over.
    pub(in crate::spn::endpoint) fn look(&mut self, now: Instant, heard: u64) -> Option<Instant> {
        let is_over = self.heard.is_some_and(|before| heard > before);
        self.heard = Some(heard);
        (!is_over).then_some(now + LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn a_provider_that_is_called_late_has_stood_still() {
        let now = first_instant();
        let mut standstill = Standstill::default();
        assert!(!standstill.look(now + Duration::from_secs(60), || true), "it has no session");
        standstill.begin(now);
        standstill.begin(now + TICK);
        assert_eq!(standstill.next(), Some(now + TICK), "the first session counts");
        assert!(!standstill.look(now, || unreachable!("it is not time yet")));
        let late = now + TICK + LATE - Duration::from_millis(1);
        assert!(!standstill.look(late, || true));
        assert!(standstill.look(late + TICK + LATE, || true));
        assert!(!standstill.look(late + TICK + LATE + TICK, || false));
        assert_eq!(standstill.next(), None, "no session is left");
    }

    #[test]
    fn streams_wait_for_a_datagram_that_comes_after_the_wait() {
        let now = first_instant();
        let (mut hold, due) = Hold::begin(now, Some(Duration::from_millis(100)));
        assert_eq!(due, now + Duration::from_millis(400));
        // What came before may be what the hub sent before the endpoint stood still.
        assert_eq!(hold.look(due, 9), Some(due + LEAST));
        assert_eq!(hold.look(due + LEAST, 9), Some(due + 2 * LEAST));
        assert_eq!(hold.look(due + 2 * LEAST, 10), None);
    }
}
