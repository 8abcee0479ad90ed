//! Wall-clock time from the `now` of the caller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

use crate::epoch::Epoch;

/// The time that certificates and tokens are judged by: it stands still between two calls of the endpoint that it belongs to.
///
/// All clones are one clock, so that what was made with it (TLS, tokens) follows when it is [set](Self::set).
#[derive(Debug, Clone)]
pub struct Clock(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    base: Instant,
    /// Microseconds from 1970 to `base`; below 0 when a wall clock that begins in 1970 was set to it later than at `base`.
    offset: AtomicI64,
    /// Milliseconds since 1970, as of the last call.
    now: AtomicU64,
}

impl Clock {
    /// A clock that shows `epoch` until it is advanced.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        let (offset, now) = (AtomicI64::new(0), AtomicU64::new(0));
        let clock = Self(Arc::new(Shown { base: epoch.instant, offset, now }));
        clock.set(epoch);
        clock
    }

    /// The wall clock is this, from now on: somebody has set it, or the machine has slept.
    pub fn set(&self, epoch: Epoch) {
        let (later, earlier) = (
            epoch.instant.saturating_duration_since(self.0.base),
            self.0.base.saturating_duration_since(epoch.instant),
        );
        let offset = micros(epoch.unix).saturating_add(micros(earlier)).saturating_sub(micros(later));
        self.0.offset.store(offset, Ordering::Relaxed);
        self.advance(epoch.instant);
    }

    /// A pair of moments that belong together.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let offset = self.0.offset.load(Ordering::Relaxed);
        let distance = Duration::from_micros(offset.unsigned_abs());
        if offset < 0 {
            Epoch { instant: self.0.base + distance, unix: Duration::ZERO }
        } else {
            Epoch { instant: self.0.base, unix: distance }
        }
    }

    pub(crate) fn advance(&self, now: Instant) {
        self.0.now.store(self.epoch().unix_at(now).as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn tls(&self) -> Arc<dyn TimeProvider> {
        self.0.clone()
    }

    /// The time since 1970 that it shows.
    #[must_use]
    pub fn shown(&self) -> Duration {
        Duration::from_millis(self.0.now.load(Ordering::Relaxed))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl TimeProvider for Shown {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.now.load(Ordering::Relaxed))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn a_clock_that_is_set_is_followed_by_all_that_have_it() {
        let start = first_instant() + Duration::from_secs(10_000);
        let of = |instant, seconds| Epoch { instant, unix: Duration::from_secs(seconds) };
        let clock = Clock::new(of(start, 1_000));
        let tls = clock.tls();
        let shows = |seconds| {
            assert_eq!(tls.current_time(), Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds))));
            assert_eq!(clock.shown(), Duration::from_secs(seconds));
        };
        let later = start + Duration::from_secs(60);
        clock.advance(later);
        shows(1_060);
        clock.clone().set(of(later, 5_000));
        shows(5_000);
        assert_eq!(clock.epoch().unix_at(later), Duration::from_secs(5_000));
        // Back to before the time that it has run; what was before 1970 is not shown.
        clock.set(of(later, 7));
        clock.advance(later + Duration::from_secs(3));
        shows(10);
        assert_eq!(clock.epoch().unix_at(start), Duration::ZERO);
        // A pair from before the clock was made.
        clock.set(of(start - Duration::from_secs(5), 2_000));
        clock.advance(start);
        shows(2_005);
    }
}
