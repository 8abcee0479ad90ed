//! A table of deadlines, indexed by an enum.

use std::{
    marker::PhantomData,
    time::{Duration, Instant},
};

/// The timers of one machine: a field-less enum.
pub trait Timer: Copy + 'static {
    /// All of them, in the order in which equal deadlines fire.
    const ALL: &'static [Self];
    /// Position in [`ALL`](Self::ALL).
    fn index(self) -> usize;
    /// Its name in scripts and logs, snake case.
    fn name(self) -> &'static str;
}

/// The most timers that a machine can have.
const MAX: usize = 8;

/// The longest time ahead that a deadline can be: a century. A clock need not be able to say what is later.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The moment that is so much later than `now`. A duration that no clock can hold, as a configuration may name one, is taken for a century.
#[must_use]
pub fn later(now: Instant, after: Duration) -> Instant {
    now + after.min(LONGEST)
}

/// The deadlines of a machine's timers: at most 8.
#[derive(Debug, Clone)]
pub struct Timers<T> {
    due: [Option<Instant>; MAX],
    kind: PhantomData<T>,
}

impl<T: Timer> Default for Timers<T> {
    fn default() -> Self {
        const { assert!(T::ALL.len() <= MAX, "one slot per timer") };
        Self { due: [None; MAX], kind: PhantomData }
    }
}

impl<T: Timer> Timers<T> {
    /// Arms a timer, or moves it.
    pub fn set(&mut self, timer: T, at: Instant) {
        if let Some(slot) = self.due.get_mut(timer.index()) {
            *slot = Some(at);
        }
    }

    /// Arms a timer, or moves it, by how long from `now`; see [`later`] for the longest.
    pub fn set_after(&mut self, timer: T, now: Instant, after: Duration) {
        self.set(timer, later(now, after));
    }

    /// Disarms a timer.
    pub fn stop(&mut self, timer: T) {
        if let Some(slot) = self.due.get_mut(timer.index()) {
            *slot = None;
        }
    }

    /// Disarms all.
    pub fn stop_all(&mut self) {
        self.due = [None; MAX];
    }

    /// Whether a timer is armed.
    #[must_use]
    pub fn is_set(&self, timer: T) -> bool {
        self.due.get(timer.index()).is_some_and(Option::is_some)
    }

    /// The earliest deadline, and whose it is.
    #[must_use]
    pub fn next(&self) -> Option<(Instant, T)> {
        let mut next: Option<(Instant, T)> = None;
        for (&timer, due) in T::ALL.iter().zip(self.due) {
            if let Some(at) = due
                && next.is_none_or(|(earliest, _)| at < earliest)
            {
                next = Some((at, timer));
            }
        }
        next
    }

    /// Takes the earliest timer that is due at `now`, and disarms it.
    pub fn expire(&mut self, now: Instant) -> Option<T> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }

    /// The names of the armed timers, for fingerprints.
    pub fn armed(&self) -> impl Iterator<Item = &'static str> {
        T::ALL.iter().zip(self.due).filter(|(_, due)| due.is_some()).map(|(timer, _)| timer.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Letter(usize);

    impl Timer for Letter {
        const ALL: &'static [Self] = &[Self(0), Self(1), Self(2)];

        fn index(self) -> usize {
            self.0
        }

        fn name(self) -> &'static str {
            ["a", "b", "c"][self.0]
        }
    }

    #[test]
    fn a_duration_beyond_the_clock_is_a_deadline_all_the_same() {
        let (mut timers, now) = (Timers::default(), crate::testing::first_instant());
        timers.set_after(Letter(0), now, Duration::MAX);
        timers.set_after(Letter(1), now, Duration::from_secs(3));
        assert_eq!(timers.next(), Some((now + Duration::from_secs(3), Letter(1))));
        timers.stop(Letter(1));
        assert_eq!(timers.next(), Some((now + LONGEST, Letter(0))));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, u64),
        Stop(usize),
        StopAll,
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize, 0..20u64).prop_map(|(timer, at)| Step::Set(timer, at)),
            2 => (0..3usize).prop_map(Step::Stop),
            1 => Just(Step::StopAll),
            4 => (0..20u64).prop_map(Step::Expire),
        ]
    }

    proptest! {
        /// The earliest deadline goes first, the first of `ALL` among equals, and never before its time.
        #[test]
        fn is_a_table_of_deadlines(steps in proptest::collection::vec(step(), 0..100)) {
            let start = crate::testing::first_instant();
            let at = |ms| start + Duration::from_millis(ms);
            let mut timers = Timers::<Letter>::default();
            let mut model = BTreeMap::<usize, u64>::new();
            for step in steps {
                match step {
                    Step::Set(timer, ms) => {
                        timers.set(Letter(timer), at(ms));
                        model.insert(timer, ms);
                    }
                    Step::Stop(timer) => {
                        timers.stop(Letter(timer));
                        model.remove(&timer);
                    }
                    Step::StopAll => {
                        timers.stop_all();
                        model.clear();
                    }
                    Step::Expire(ms) => {
                        let due = model.iter().map(|(timer, at)| (*at, *timer)).min().filter(|(at, _)| *at <= ms);
                        prop_assert_eq!(timers.expire(at(ms)), due.map(|(_, timer)| Letter(timer)));
                        due.map(|(_, timer)| model.remove(&timer));
                    }
                }
                let next = model.iter().map(|(timer, at)| (*at, *timer)).min();
                prop_assert_eq!(timers.next(), next.map(|(ms, timer)| (at(ms), Letter(timer))));
                prop_assert!((0..3).all(|timer| timers.is_set(Letter(timer)) == model.contains_key(&timer)));
                prop_assert!(timers.armed().eq(model.keys().map(|timer| Letter(*timer).name())));
            }
        }
    }
}
