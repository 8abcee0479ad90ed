//! Wall-clock time from the `now` of the caller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// One moment, on both clocks. Given once, it turns every later `Instant` into wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// The moment on the monotonic clock.
    pub instant: Instant,
    /// The same moment, since 1970-01-01 00:00 UTC.
    pub unix: Duration,
}

impl Epoch {
    /// Wall-clock time of `at`, since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn unix_at(&self, at: Instant) -> Duration {
        match at.checked_duration_since(self.instant) {
            Some(later) => self.unix + later,
            None => self.unix.saturating_sub(self.instant.duration_since(at)),
        }
    }
}

/// The time that certificates and tokens are judged by: it stands still between two calls of the endpoint that it belongs to.
#[derive(Debug, Clone)]
pub struct Clock {
    epoch: Epoch,
    now: Arc<Now>,
}

/// Milliseconds since 1970, as of the last call.
#[derive(Debug)]
struct Now(AtomicU64);

impl Clock {
    /// A clock that shows `epoch` until it is advanced.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, now: Arc::new(Now(AtomicU64::new(epoch.unix.as_millis() as u64))) }
    }

    /// The pair that it was made from.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn advance(&self, now: Instant) {
        self.now.0.store(self.epoch.unix_at(now).as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn tls(&self) -> Arc<dyn TimeProvider> {
        self.now.clone()
    }

    pub(super) fn quic(&self) -> Arc<dyn quinn_proto::TimeSource> {
        self.now.clone()
    }
}

impl Now {
    fn since_unix(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_unix()))
    }
}

impl quinn_proto::TimeSource for Now {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.since_unix()
    }
}
