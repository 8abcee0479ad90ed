//! A table of deadlines, indexed by an enum.

use std::{marker::PhantomData, time::Instant};

/// The timers of one machine: a field-less enum.
pub trait Timer: Copy + 'static {
    /// All of them, in the order in which equal deadlines fire.
    const ALL: &'static [Self];
    /// Position in [`ALL`](Self::ALL).
    fn index(self) -> usize;
    /// Its name in scripts and logs, snake case.
    fn name(self) -> &'static str;
}

/// Deadlines of the `N` timers of `T`; `N` is `T::ALL.len()`.
#[derive(Debug, Clone)]
pub struct Timers<T, const N: usize> {
    due: [Option<Instant>; N],
    kind: PhantomData<T>,
}

impl<T: Timer, const N: usize> Default for Timers<T, N> {
    fn default() -> Self {
        const { assert!(N == T::ALL.len(), "one slot per timer") };
        Self { due: [None; N], kind: PhantomData }
    }
}

impl<T: Timer, const N: usize> Timers<T, N> {
    /// Arms a timer, or moves it.
    pub fn set(&mut self, timer: T, at: Instant) {
        if let Some(slot) = self.due.get_mut(timer.index()) {
            *slot = Some(at);
        }
    }

    /// Disarms a timer.
    pub fn stop(&mut self, timer: T) {
        if let Some(slot) = self.due.get_mut(timer.index()) {
            *slot = None;
        }
    }

    /// Disarms all.
    pub fn stop_all(&mut self) {
        self.due = [None; N];
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
