//! How the provider of a service is started and stopped: the settings (docs/protocols/spn.md, Starting and stopping providers, MNG-12).

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use croner::Cron;
use serde::{Deserialize, Serialize};

/// How the provider of a service is started and stopped by a cluster manager.
///
/// Besides the hub's own rules (when) this is what a cluster manager needs to know (what); it depends on the manager how much of that it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Availability {
    /// Which cluster manager, e.g. `docker:`.
    pub cluster_manager: String,
    /// The provider's name there.
    pub service_id: String,
    /// Start it when a consumer finds no provider.
    pub on_consumer: bool,
    /// Start it on the first payload.
    pub on_payload: bool,
    /// Start it at these times.
    pub start_at: Option<Schedule>,
    /// Stop it at these times.
    pub stop_at: Option<Schedule>,
    /// Stop it after so long without connections, in seconds, if it is started on demand; 0 is never.
    pub idle_timeout_s: u64,
    /// What to run.
    pub image: String,
    /// With which command.
    pub command: Vec<String>,
    /// With which options.
    pub options: Vec<String>,
    /// With which environment.
    pub env: BTreeMap<String, String>,
    /// With which volumes: size in GiB, and where.
    pub mount_points: Vec<(u64, String)>,
}

impl Availability {
    /// Started when it is needed; if not, it runs from the load on.
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.on_consumer || self.on_payload
    }

    /// Whether the schedule says at `unix` (since 1970-01-01 00:00 UTC) that it is not to run: it was to be stopped later than started.
    #[must_use]
    pub fn is_out_of_hours(&self, unix: Duration) -> bool {
        let last = |schedule: &Option<Schedule>| schedule.as_ref().and_then(|schedule| schedule.last(unix));
        match (last(&self.start_at), last(&self.stop_at)) {
            (Some(started), Some(stopped)) => started < stopped,
            // Its first start is still to come.
            (None, _) => self.start_at.is_some(),
            (Some(_), None) => false,
        }
    }

    /// The next moment that the schedule names, after `unix`, and whether it starts the provider then. If both are at the same moment, the start counts.
    #[must_use]
    pub fn next_scheduled(&self, unix: Duration) -> Option<(Duration, bool)> {
        let next = |schedule: &Option<Schedule>| schedule.as_ref().and_then(|schedule| schedule.next(unix));
        match (next(&self.start_at), next(&self.stop_at)) {
            (Some(start), Some(stop)) if stop < start => Some((stop, false)),
            (Some(start), _) => Some((start, true)),
            (None, stop) => stop.map(|stop| (stop, false)),
        }
    }
}

/// Moments in UTC, as a cron pattern: minute, hour, day of the month, month, day of the week; with six fields seconds go first, with seven
/// the year goes last.
///
/// ```
/// use towline_core::spn::hub::Schedule;
///
/// let weekdays_at_eight: Schedule = "0 0 8 * * MON-FRI *".parse()?;
/// assert_eq!(weekdays_at_eight.to_string(), "0 0 8 * * MON-FRI *");
/// assert!("0 0 25 * * *".parse::<Schedule>().is_err());
/// # Ok::<(), towline_core::spn::hub::ScheduleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// A malformed cron pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no cron pattern: {reason}; expected e.g. `0 0 8 * * MON-FRI` (second, minute, hour, day, month, weekday; UTC)"
)]
pub struct ScheduleError {
    text: String,
    reason: String,
}

impl Schedule {
    /// The first moment after `unix`, both since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn next(&self, unix: Duration) -> Option<Duration> {
        self.cron.find_next_occurrence(&date(unix)?, false).ok().and_then(since_1970)
    }

    /// The last moment that was not after `unix`.
    #[must_use]
    pub fn last(&self, unix: Duration) -> Option<Duration> {
        self.cron.find_previous_occurrence(&date(unix)?, true).ok().and_then(since_1970)
    }
}

fn date(unix: Duration) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(unix.as_secs()).ok()?, unix.subsec_nanos())
}

fn since_1970(date: DateTime<Utc>) -> Option<Duration> {
    // Patterns have a resolution of one second.
    u64::try_from(date.timestamp()).ok().map(Duration::from_secs)
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match Cron::from_str(text) {
            Ok(cron) => Ok(Self { text: text.to_owned(), cron }),
            Err(error) => {
                Err(ScheduleError { text: text.to_owned(), reason: error.to_string().trim_end_matches('.').to_owned() })
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21 14:13:20 UTC, a Monday.
    const MONDAY: Duration = Duration::from_secs(1_790_000_000);

    fn office(start: &str, stop: &str) -> Availability {
        Availability { start_at: start.parse().ok(), stop_at: stop.parse().ok(), ..Availability::default() }
    }

    fn hours(from_monday: i64) -> Duration {
        let midnight = 1_790_000_000 - (14 * 3600 + 13 * 60 + 20);
        Duration::from_secs((midnight + from_monday * 3600) as u64)
    }

    #[test]
    fn office_hours() {
        let it = office("0 0 8 * * MON-FRI", "0 0 18 * * MON-FRI");
        assert!(!it.is_out_of_hours(MONDAY));
        assert_eq!(it.next_scheduled(MONDAY), Some((hours(18), false)));
        assert_eq!(it.next_scheduled(hours(18)), Some((hours(32), true)), "the moment itself has passed");
        assert!(it.is_out_of_hours(hours(18)), "the moment itself counts");
        assert!(it.is_out_of_hours(hours(31)));
        assert!(it.is_out_of_hours(hours(5 * 24 + 12)), "Saturday noon");
        assert_eq!(it.next_scheduled(hours(5 * 24)), Some((hours(7 * 24 + 8), true)));
    }

    #[test]
    fn half_a_schedule_and_none() {
        assert!(!Availability::default().is_out_of_hours(MONDAY));
        assert_eq!(Availability::default().next_scheduled(MONDAY), None);
        let only_stop = office("", "0 18 * * *");
        assert!(!only_stop.is_out_of_hours(MONDAY), "a load starts it, and 18:00 stops it");
        assert_eq!(only_stop.next_scheduled(MONDAY), Some((hours(18), false)));
        let only_start = office("0 8 * * *", "");
        assert!(!only_start.is_out_of_hours(MONDAY));
        assert_eq!(only_start.next_scheduled(MONDAY), Some((hours(32), true)));
    }

    #[test]
    fn once_and_never_again() {
        let it = office("0 0 0 1 1 ? 2020", "");
        assert_eq!((it.next_scheduled(MONDAY), it.is_out_of_hours(MONDAY)), (None, false));
        let it = office("0 0 0 1 1 ? 2030", "");
        assert!(it.is_out_of_hours(MONDAY), "it is to begin in 2030");
    }

    #[test]
    fn both_at_once_is_a_start() {
        assert_eq!(office("0 18 * * *", "0 18 * * *").next_scheduled(MONDAY), Some((hours(18), true)));
    }
}
