//! The wall clock, which may be set while a program runs.

use std::time::{Duration, Instant};

use crate::quic::Epoch;

/// How often it is looked at, at most,
const OFTEN: Duration = Duration::from_secs(1);
/// and at least.
const AT_LEAST: Duration = Duration::from_secs(60);
/// What is more than the clocks' drift.
const JUMP: Duration = Duration::from_secs(1);

/// When a loop is to look at the wall clock, and what it has seen there.
///
/// A machine without a battery starts in 1970 and hears of the time later; a laptop sleeps, and only its wall clock goes on. Whoever
/// has read the wall clock once, and counts from there, refuses good certificates then, and its records are wrong.
#[derive(Debug)]
pub struct Wall {
    seen: Epoch,
}

impl Wall {
    /// `seen` is what both clocks show now.
    #[must_use]
    pub fn new(seen: Epoch) -> Self {
        Self { seen }
    }

    /// Whether the loop, which is awake at `now`, is to read both clocks.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.seen.instant + OFTEN
    }

    /// When the loop is to wake up for it.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.seen.instant + AT_LEAST
    }

    /// Takes what was read. If the wall clock was set, says by how many milliseconds.
    pub fn look(&mut self, read: Epoch) -> Option<i64> {
        let expected = self.seen.unix_at(read.instant);
        self.seen = read;
        let jump = expected.abs_diff(read.unix);
        let milliseconds = i64::try_from(jump.as_millis()).unwrap_or(i64::MAX);
        (jump > JUMP).then_some(if read.unix < expected { -milliseconds } else { milliseconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_drifts() {
        let start = first_instant();
        let at =
            |ms, unix_ms| Epoch { instant: start + Duration::from_millis(ms), unix: Duration::from_millis(unix_ms) };
        let mut wall = Wall::new(at(0, 1_000_000));
        assert!(!wall.is_due(start + Duration::from_millis(999)));
        assert!(wall.is_due(start + Duration::from_secs(1)));
        assert_eq!(wall.deadline(), start + Duration::from_secs(60));
        assert_eq!(wall.look(at(60_000, 1_060_900)), None);
        assert_eq!(wall.deadline(), start + Duration::from_secs(120));
        assert_eq!(wall.look(at(61_000, 1_061_000)), None, "it is compared with the last look");
        assert_eq!(wall.look(at(62_000, 9_062_000)), Some(8_000_000));
        assert_eq!(wall.look(at(63_000, 63_000)), Some(-9_000_000));
    }
}
