//! One moment on both clocks: how an `Instant` becomes a date.

use std::time::{Duration, Instant};

use ::time::{OffsetDateTime, macros::format_description};

/// One moment, on both clocks. It turns every `Instant` into wall-clock time, until the wall clock is set.
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
