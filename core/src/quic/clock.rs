//! Wall-clock time from the `now` of the caller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::time::{OffsetDateTime, macros::format_description};
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

    /// The UTC date and time of `at`; 1970 for what is beyond the year 9999.
    #[must_use]
    pub fn date_at(&self, at: Instant) -> OffsetDateTime {
        let unix = ::time::Duration::try_from(self.unix_at(at)).unwrap_or_default();
        OffsetDateTime::UNIX_EPOCH.checked_add(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The same in RFC 3339, in milliseconds: `2026-11-25T13:23:05.553Z`.
    #[must_use]
    pub fn rfc3339_at(&self, at: Instant) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        self.date_at(at).format(format).unwrap_or_default()
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
