//! One queue of deadlines for many machines.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

/// The deadlines of many machines, earliest first; `K` says whose.
///
/// Entries are never searched for or removed: a machine that moved its deadline later is found early, asked again, and put back.
#[derive(Debug)]
pub struct Deadlines<K>(BinaryHeap<Reverse<(Instant, K)>>);

/// The earliest entry that a machine has in a [`Deadlines`]; kept beside the machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct Armed(Option<Instant>);

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord> Deadlines<K> {
    /// Notes a machine's deadline, after each of its `handle_*` calls. Adds an entry only when it became earlier.
    pub fn arm(&mut self, armed: &mut Armed, due: Option<Instant>, key: K) {
        if let Some(at) = due
            && armed.0.is_none_or(|entry| at < entry)
        {
            armed.0 = Some(at);
            self.0.push(Reverse((at, key)));
        }
    }

    /// Notes a deadline that never moves, of something that is no machine.
    pub fn push(&mut self, at: Instant, key: K) {
        self.0.push(Reverse((at, key)));
    }

    /// Takes an entry that is due at `now`; call [`Armed::take`] on its machine's, then look at the machine's own deadline.
    pub fn expire(&mut self, now: Instant) -> Option<(Instant, K)> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Drops the entries of machines that are no more, now and then: only when they are most of all, so that each costs little.
    /// `live` is how many machines there are, and `is_live` whether one is.
    pub fn sweep(&mut self, live: usize, mut is_live: impl FnMut(&K) -> bool) {
        if self.0.len() > 64 + 4 * live {
            self.0.retain(|Reverse((_, key))| is_live(key));
        }
    }

    /// When the earliest entry is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}

impl Armed {
    /// Whether the entry that was due `at` is the machine's current one; if so, it has none now.
    pub fn take(&mut self, at: Instant) -> bool {
        let current = self.0 == Some(at);
        if current {
            self.0 = None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_later_deadline_is_found_by_asking_again() {
        let start = crate::testing::first_instant();
        let at = |s| start + Duration::from_secs(s);
        let (mut deadlines, mut armed) = (Deadlines::default(), Armed::default());
        deadlines.arm(&mut armed, Some(at(5)), 'a');
        deadlines.arm(&mut armed, Some(at(9)), 'a');
        assert_eq!(deadlines.next(), Some(at(5)));
        assert_eq!(deadlines.expire(at(4)), None);
        assert_eq!(deadlines.expire(at(5)), Some((at(5), 'a')));
        assert!(armed.take(at(5)));
        deadlines.arm(&mut armed, Some(at(9)), 'a');
        assert_eq!(deadlines.next(), Some(at(9)));
    }

    #[test]
    fn what_is_no_more_is_swept_when_it_is_most() {
        let start = crate::testing::first_instant();
        let mut deadlines = Deadlines::default();
        for key in 0..64u32 {
            deadlines.push(start, key);
        }
        deadlines.sweep(0, |_| false);
        assert!(deadlines.next().is_some(), "too few to care");
        deadlines.push(start + Duration::from_secs(1), 64);
        deadlines.sweep(0, |&key| key == 64);
        assert_eq!(deadlines.expire(start + Duration::from_secs(2)), Some((start + Duration::from_secs(1), 64)));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn an_earlier_deadline_makes_the_old_entry_void() {
        let start = crate::testing::first_instant();
        let at = |s| start + Duration::from_secs(s);
        let (mut deadlines, mut armed) = (Deadlines::default(), Armed::default());
        deadlines.arm(&mut armed, Some(at(9)), 'a');
        deadlines.arm(&mut armed, Some(at(5)), 'a');
        assert_eq!(deadlines.expire(at(20)), Some((at(5), 'a')));
        assert!(armed.take(at(5)));
        assert_eq!(deadlines.expire(at(20)), Some((at(9), 'a')));
        assert!(!armed.take(at(9)));
    }
}
