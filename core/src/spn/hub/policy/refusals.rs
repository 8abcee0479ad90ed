//! How many refusals are reported: a few in each second; the others are counted (docs/protocols/spn.md, Limits, LIM-19).

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Counts refusals, second by second.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    second: Option<Instant>,
    /// Reported in this second.
    reported: u32,
    /// Not reported yet.
    suppressed: u64,
}

impl Refusals {
    /// Whether a refusal at `now` is the first of another second: then what was suppressed is to be reported before it.
    pub(crate) fn begins_second(&mut self, now: Instant) -> bool {
        let begins = self.second.is_none_or(|second| now >= second + SECOND);
        if begins {
            (self.second, self.reported) = (Some(now), 0);
        }
        begins
    }

    /// Whether one more may be reported, of at most `most` in this second; if so, it is counted.
    pub(crate) fn may_report(&mut self, most: u32) -> bool {
        let may = self.reported < most;
        self.reported += u32::from(may);
        may
    }

    /// Counts refusals that are not reported. When to report their number, if that is not arranged yet.
    pub(crate) fn suppress(&mut self, now: Instant, count: u64) -> Option<Instant> {
        let is_first = self.suppressed == 0 && count > 0;
        self.suppressed += count;
        is_first.then(|| now + SECOND)
    }

    /// How many have been suppressed since the last call.
    pub(crate) fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn each_second_has_its_own_count() {
        let now = first_instant();
        let mut refusals = Refusals::default();
        assert!(refusals.begins_second(now) && refusals.may_report(2) && refusals.may_report(2));
        assert!(!refusals.begins_second(now + SECOND / 2) && !refusals.may_report(2));
        assert!(refusals.begins_second(now + SECOND) && refusals.may_report(2));
        assert!(!refusals.may_report(0), "the limit may have been lowered");
    }

    #[test]
    fn one_reminder_is_enough_for_all_that_are_suppressed() {
        let now = first_instant();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.suppress(now, 0), None);
        assert_eq!(refusals.suppress(now, 3), Some(now + SECOND));
        assert_eq!(refusals.suppress(now, 1), None);
        assert_eq!((refusals.take_suppressed(), refusals.take_suppressed()), (4, 0));
        assert_eq!(refusals.suppress(now, 1), Some(now + SECOND));
    }
}
