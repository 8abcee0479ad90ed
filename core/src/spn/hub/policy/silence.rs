//! Silent providers (docs/protocols/spn.md, Choosing a provider, PRV-12 to PRV-15).
//!
//! QUIC takes a peer for dead after its idle timeout. Long before that, a provider that acknowledges nothing gets no new connections while another
//! one answers; and connections that it was given, and has not acknowledged, go to another one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{quic::Handle, spn::patience::LATE};

/// After such a silence a provider's connections go to another one.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// A provider's session that owes an acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Watch {
    since: Instant,
    /// Datagrams that had come from it by then.
    heard: u64,
}

/// The providers' sessions that owe an acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    watches: BTreeMap<Handle, Watch>,
}

/// What a check of a session shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It came too late to show anything.
    Late,
    /// A datagram has come from the session.
    Heard,
    /// No datagram has come from the session.
    Silent {
        /// For so long that its connections go to another one.
        is_given_up: bool,
    },
}

impl Silence {
    /// A session owes an acknowledgement; `heard` datagrams have come from it. Says whether this is new: then a check is to be arranged.
    pub(crate) fn watch(&mut self, now: Instant, session: Handle, heard: u64) -> bool {
        let is_new = !self.watches.contains_key(&session);
        self.watches.entry(session).or_insert(Watch { since: now, heard });
        is_new
    }

    /// Whether a session owes an acknowledgement.
    pub(crate) fn is_watched(&self, session: Handle) -> bool {
        self.watches.contains_key(&session)
    }

    /// Checks, at `now`, whether a datagram has come from a session since it received something; the check was due at `due`. If one has come,
    /// `owes` says whether the session has received something since.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        due: Instant,
        session: Handle,
        heard: u64,
        owes: impl FnOnce() -> bool,
    ) -> Option<Finding> {
        let watch = self.watches.get_mut(&session)?;
        let renewed = Watch { since: now, heard };
        if now >= due + LATE {
            *watch = renewed;
            return Some(Finding::Late);
        }
        if heard == watch.heard {
            return Some(Finding::Silent { is_given_up: now >= watch.since + GIVEN_UP });
        }
        if owes() {
            *watch = renewed;
        } else {
            self.watches.remove(&session);
        }
        Some(Finding::Heard)
    }

    /// A session has ended.
    pub(crate) fn forget(&mut self, session: Handle) {
        self.watches.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    fn session(n: u32) -> Handle {
        Handle::of_test(n)
    }

    #[test]
    fn a_session_that_says_nothing_is_silent_and_then_given_up() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        assert!(silence.watch(now, it, 5), "a look is to be arranged");
        assert!(!silence.watch(now + GIVEN_UP, it, 9), "there is one already, and the first debt counts");
        let at = |ms| now + Duration::from_millis(ms);
        let mut look = |ms| silence.look(at(ms), at(ms), it, 5, || unreachable!("nothing was said"));
        assert_eq!(look(200), Some(Finding::Silent { is_given_up: false }));
        assert_eq!(look(1999), Some(Finding::Silent { is_given_up: false }));
        assert_eq!(look(2000), Some(Finding::Silent { is_given_up: true }));
        assert_eq!(silence.look(now, now, session(2), 0, || false), None, "it is not watched");
    }

    #[test]
    fn a_session_that_says_something_owes_only_what_it_has_got_since() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        silence.watch(now, it, 5);
        assert_eq!(silence.look(now, now, it, 6, || true), Some(Finding::Heard));
        assert!(silence.is_watched(it));
        let later = now + GIVEN_UP;
        assert_eq!(silence.look(later, later, it, 6, || true), Some(Finding::Silent { is_given_up: true }));
        assert_eq!(silence.look(later, later, it, 7, || false), Some(Finding::Heard));
        assert!(!silence.is_watched(it));
    }

    #[test]
    fn a_late_look_shows_nothing() {
        let (now, it) = (first_instant(), session(1));
        let mut silence = Silence::default();
        silence.watch(now, it, 5);
        let late = now + GIVEN_UP + LATE;
        assert_eq!(silence.look(late, late - LATE, it, 5, || true), Some(Finding::Late));
        assert_eq!(
            silence.look(late, late, it, 5, || true),
            Some(Finding::Silent { is_given_up: false }),
            "from then on"
        );
        silence.forget(it);
        assert!(!silence.is_watched(it));
    }
}
