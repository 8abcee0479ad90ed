//! A provider's memory of connections that it must not take, or not again (docs/protocols/spn.md, A connection that was never confirmed, SEK-4 to
//! SEK-6).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::spn::ConnKey;

/// For how long a provider remembers a connection that it must not take: longer than its consumer looks for it, and than a hub keeps the stream
/// of a consumer that is gone (SEK-5).
const REMEMBERED: Duration = Duration::from_secs(180);
/// So many times [`Limits::connections`](crate::spn::endpoint::Limits) connections are remembered (SEK-6).
const MEMORY: usize = 4;

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Reason {
    /// It was here, and was broken off.
    Broken,
    /// ABSENT has said that it never came.
    Refused,
}

/// The connections that a provider takes no more.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Spent {
    most: usize,
    keys: BTreeMap<ConnKey, (Reason, Instant)>,
    /// Something was left out: nothing is known for certain before then.
    doubtful_until: Option<Instant>,
}

impl Spent {
    /// Of a provider that takes so many connections at once.
    pub(in crate::spn::endpoint) fn new(connections: usize) -> Self {
        Self { most: connections.saturating_mul(MEMORY), keys: BTreeMap::new(), doubtful_until: None }
    }

    /// Why a connection is not taken, if it is not.
    pub(in crate::spn::endpoint) fn reason(&self, key: &ConnKey) -> Option<Reason> {
        self.keys.get(key).map(|(reason, _)| *reason)
    }

    /// A connection was broken off. Until when it is remembered; `None`: there is no room for it.
    pub(in crate::spn::endpoint) fn add_broken(&mut self, now: Instant, key: ConnKey) -> Option<Instant> {
        self.add(now, key, Reason::Broken)
    }

    /// SEEK for a connection that is not here. If it was never here, for certain, the time says until when it is refused from now on; `None`: silence
    /// is the answer.
    pub(in crate::spn::endpoint) fn refuse(&mut self, now: Instant, key: ConnKey) -> Option<Instant> {
        let was_here = self.reason(&key) == Some(Reason::Broken);
        if was_here || self.doubtful_until.is_some_and(|until| now < until) {
            return None;
        }
        self.add(now, key, Reason::Refused)
    }

    fn add(&mut self, now: Instant, key: ConnKey, reason: Reason) -> Option<Instant> {
        let until = now + REMEMBERED;
        if self.keys.len() >= self.most && !self.keys.contains_key(&key) {
            self.doubtful_until = Some(until);
            return None;
        }
        self.keys.insert(key, (reason, until));
        Some(until)
    }

    /// A connection may have been remembered for long enough.
    pub(in crate::spn::endpoint) fn expire(&mut self, now: Instant, key: &ConnKey) {
        if self.keys.get(key).is_some_and(|(_, until)| *until <= now) {
            self.keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    const fn key(n: u8) -> ConnKey {
        ConnKey([n; 16])
    }

    #[test]
    fn what_was_broken_off_gets_no_answer_and_what_never_came_is_refused() {
        let now = first_instant();
        let mut spent = Spent::new(1);
        let until = spent.add_broken(now, key(1)).unwrap();
        assert_eq!(until, now + REMEMBERED);
        assert_eq!((spent.refuse(now, key(1)), spent.reason(&key(1))), (None, Some(Reason::Broken)));
        assert_eq!((spent.refuse(now, key(2)), spent.reason(&key(2))), (Some(until), Some(Reason::Refused)));
        // Another SEEK makes it last longer.
        let later = now + Duration::from_secs(1);
        assert_eq!(spent.refuse(later, key(2)), Some(later + REMEMBERED));
        spent.expire(until, &key(1));
        spent.expire(until, &key(2));
        assert_eq!((spent.reason(&key(1)), spent.reason(&key(2))), (None, Some(Reason::Refused)));
        spent.expire(later + REMEMBERED, &key(2));
        assert_eq!(spent.reason(&key(2)), None);
    }

    #[test]
    fn a_full_memory_answers_nothing_for_as_long_as_it_may_be_wrong() {
        let now = first_instant();
        let mut spent = Spent::new(1);
        for n in 0..MEMORY as u8 {
            spent.add_broken(now, key(n)).unwrap();
        }
        assert_eq!(spent.add_broken(now, key(9)), None);
        for n in 0..MEMORY as u8 {
            spent.expire(now + REMEMBERED, &key(n));
        }
        let just_before = now + REMEMBERED - Duration::from_millis(1);
        assert_eq!(spent.refuse(just_before, key(9)), None);
        assert!(spent.refuse(now + REMEMBERED, key(9)).is_some());
    }
}
