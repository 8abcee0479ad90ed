//! Lines of a log that come again and again: the first ones are said, the others are counted.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// So many lines of one kind are said in one window, and no more than one when more had come in the window before.
const BURST: u32 = 20;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(10);
/// So many kinds are counted by themselves. Further kinds share a place.
const KINDS: usize = 256;

/// Decides which lines are said. `K` is what makes two lines the same kind: where in the program they come from, usually.
///
/// ```
/// use std::time::Duration;
/// use towline_core::{host::Repeats, testing::first_instant};
///
/// let (mut repeats, start) = (Repeats::default(), first_instant());
/// let said = (0..1000).filter(|_| repeats.is_said(start, &"here", || "nobody is there".to_owned())).count();
/// assert_eq!(said, 20);
/// let later = repeats.poll_timeout().unwrap();
/// assert_eq!(later, start + Duration::from_secs(10));
/// assert_eq!(repeats.poll_report(later).unwrap().to_string(), "980 more times in 10 s: nobody is there");
/// ```
#[derive(Debug)]
pub struct Repeats<K> {
    kinds: Vec<Kind<K>>,
}

#[derive(Debug)]
struct Kind<K> {
    /// None for those that share a place.
    key: Option<K>,
    since: Instant,
    said: u32,
    held: u64,
    /// One of those that were held back.
    sample: String,
}

/// Lines that were not said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated<K> {
    /// Their kind; none, if there are too many kinds.
    pub key: Option<K>,
    /// How many they were,
    pub count: u64,
    /// in which time.
    pub within: Duration,
    /// What one of them said.
    pub sample: String,
}

impl<K> fmt::Display for Repeated<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more times in {} s: {}", self.count, self.within.as_secs().max(1), self.sample)
    }
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { kinds: Vec::new() }
    }
}

impl<K: PartialEq + Clone> Repeats<K> {
    /// Whether a line of this kind is to be said. `sample` is what it says.
    pub fn is_said(&mut self, now: Instant, key: &K, sample: impl FnOnce() -> String) -> bool {
        let kind = self.kind(now, key);
        if kind.held == 0 && now.saturating_duration_since(kind.since) >= WINDOW {
            (kind.since, kind.said) = (now, 0);
        }
        if kind.said < BURST {
            kind.said += 1;
            return true;
        }
        if kind.held == 0 {
            kind.sample = sample();
        }
        kind.held += 1;
        false
    }

    fn kind(&mut self, now: Instant, key: &K) -> &mut Kind<K> {
        let found = self.kinds.iter().position(|kind| kind.key.as_ref() == Some(key));
        let at = found.unwrap_or_else(|| self.place(now, key));
        &mut self.kinds[at]
    }

    /// A place for a kind that has none: a new one, that of a kind that has gone quiet, or the shared one.
    fn place(&mut self, now: Instant, key: &K) -> usize {
        let is_quiet = |kind: &Kind<K>| {
            kind.key.is_some() && kind.held == 0 && now.saturating_duration_since(kind.since) >= WINDOW
        };
        let new = Kind::new(Some(key.clone()), now);
        if self.kinds.len() < KINDS {
            self.kinds.push(new);
            self.kinds.len() - 1
        } else if let Some(at) = self.kinds.iter().position(is_quiet) {
            self.kinds[at] = new;
            at
        } else if let Some(at) = self.kinds.iter().position(|kind| kind.key.is_none()) {
            at
        } else {
            self.kinds.push(Kind::new(None, now));
            self.kinds.len() - 1
        }
    }

    /// When the next report is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.kinds.iter().filter(|kind| kind.held > 0).map(|kind| kind.since + WINDOW).min()
    }

    /// What was held back, for a window that is over.
    pub fn poll_report(&mut self, now: Instant) -> Option<Repeated<K>> {
        let is_due = |kind: &&mut Kind<K>| kind.held > 0 && now.saturating_duration_since(kind.since) >= WINDOW;
        self.kinds.iter_mut().find(is_due).map(|kind| kind.report(now))
    }

    /// What was held back, as if all windows were over: there will be no more lines.
    pub fn poll_last(&mut self, now: Instant) -> Option<Repeated<K>> {
        self.kinds.iter_mut().find(|kind| kind.held > 0).map(|kind| kind.report(now))
    }
}

impl<K: Clone> Kind<K> {
    fn new(key: Option<K>, since: Instant) -> Self {
        Self { key, since, said: 0, held: 0, sample: String::new() }
    }

    fn report(&mut self, now: Instant) -> Repeated<K> {
        let within = now.saturating_duration_since(self.since);
        // Should they go on, one in a window shows what they say now.
        (self.since, self.said) = (now, BURST - 1);
        Repeated {
            key: self.key.clone(),
            count: std::mem::take(&mut self.held),
            within,
            sample: std::mem::take(&mut self.sample),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    /// Lines of one kind, and how many of them are said.
    fn say(repeats: &mut Repeats<u32>, now: Instant, key: u32, count: u32) -> usize {
        (0..count).filter(|_| repeats.is_said(now, &key, || format!("line {key}"))).count()
    }

    #[test]
    fn what_comes_at_an_ordinary_rate_is_said() {
        let (mut repeats, start) = (Repeats::default(), first_instant());
        for second in 0..1000 {
            assert_eq!(say(&mut repeats, start + Duration::from_secs(second), 1, 2), 2, "{second}");
        }
        assert_eq!((repeats.poll_timeout(), repeats.poll_last(start)), (None, None));
    }

    #[test]
    fn a_flood_is_one_line_and_a_count_in_ten_seconds() {
        let (mut repeats, start) = (Repeats::default(), first_instant());
        assert_eq!(say(&mut repeats, start, 1, 5000), 20);
        assert_eq!(say(&mut repeats, start, 2, 3), 3, "another kind");
        for window in 1..10 {
            let now = start + window * WINDOW;
            assert_eq!(repeats.poll_timeout(), Some(now));
            assert_eq!(repeats.poll_report(now - Duration::from_millis(1)), None);
            let report = repeats.poll_report(now).expect("a report");
            assert_eq!((report.key, report.count), (Some(1), if window == 1 { 4980 } else { 4999 }));
            assert_eq!(repeats.poll_report(now), None);
            assert_eq!(say(&mut repeats, now, 1, 5000), 1, "window {window}");
        }
        let end = start + 10 * WINDOW;
        assert!(repeats.poll_report(end).is_some());
        assert_eq!(say(&mut repeats, end + WINDOW, 1, 5000), 20, "quiet in between");
        assert_eq!(repeats.poll_last(end + WINDOW).map(|report| report.count), Some(4980), "the end");
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut repeats, start) = (Repeats::default(), first_instant());
        let said: usize = (0..10_000).map(|key| say(&mut repeats, start, key, 1)).sum();
        assert_eq!(said, KINDS + BURST as usize);
        assert_eq!(repeats.kinds.len(), KINDS + 1);
        let later = start + WINDOW;
        assert_eq!(repeats.poll_report(later).map(|report| (report.key, report.count)), Some((None, 9724)));
        assert_eq!(say(&mut repeats, later, 20_000, 1), 1, "who is quiet makes room");
    }
}
