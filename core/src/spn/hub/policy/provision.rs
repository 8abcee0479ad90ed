//! The provider of a service that the hub starts and stops: its settings, its machine, and its schedule
//! (docs/protocols/spn.md, Starting and stopping providers, MNG-1).
//!
//! Where a cron start is decided: [`Managed::schedule`] looks up the next moment of the schedule, and [`Managed::scheduled_event`] makes the event
//! `ScheduledStart` of it when it has come; [`Managed::changed_hours`] does so when the wall clock was set. The
//! [machine](crate::spn::hub::machines::managed) then asks for the start, if the provider does not run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::availability::Availability;
use crate::{
    machine::{Deadlines, Hosted, Inspect as _, Machine as _},
    spn::hub::machines::managed::{Action, Config, Event, ManagedProvider},
};

impl From<&Availability> for Config {
    /// What the settings of a service say, with the defaults for all else.
    fn from(availability: &Availability) -> Self {
        Self {
            on_consumer: availability.on_consumer,
            on_payload: availability.on_payload,
            idle: Duration::from_secs(availability.idle_timeout_s),
            ..Self::default()
        }
    }
}

/// The managed provider of a service.
#[derive(Debug)]
pub(crate) struct Managed {
    machine: Hosted<ManagedProvider>,
    availability: Arc<Availability>,
    /// What the cluster manager was asked for last.
    task: u64,
    /// The next moment of the schedule.
    scheduled: Option<Scheduled>,
}

/// A moment of a schedule.
#[derive(Debug, Clone, Copy)]
struct Scheduled {
    at: Instant,
    /// The same, since 1970.
    unix: Duration,
    /// What it is for the machine.
    event: Event,
}

impl Managed {
    pub(crate) fn new(availability: Availability) -> Self {
        Self {
            machine: Hosted::new(ManagedProvider::new(Config::from(&availability))),
            availability: Arc::new(availability),
            task: 0,
            scheduled: None,
        }
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.machine.is_starting()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.machine.is_stopped()
    }

    pub(crate) fn is_here(&self) -> bool {
        self.machine.is_here()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.machine.is_busy()
    }

    /// Consumers are admitted without a provider: one is started for them.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.availability.is_on_demand()
    }

    /// The state, as the [status](crate::spn::hub::ServiceStatus) of the hub has it.
    pub(crate) fn status(&self) -> &'static str {
        self.machine.state()
    }

    pub(crate) fn availability(&self) -> &Arc<Availability> {
        &self.availability
    }

    /// Takes new settings: they count from the next decision on.
    pub(crate) fn set_availability(&mut self, availability: Availability) {
        self.machine.set_config(Config::from(&availability));
        self.availability = Arc::new(availability);
    }

    /// Whether this is the task that its cluster manager was given last.
    pub(crate) fn has_task(&self, task: u64) -> bool {
        self.task == task
    }

    pub(crate) fn set_task(&mut self, task: u64) {
        self.task = task;
    }

    pub(crate) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline that was due `at` has come. If it is the machine's present one, its timer fires, and the machine is to be drained.
    pub(crate) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        self.machine.expire(now, at)
    }

    /// The machine's next action. When there is none, its deadline is noted under `key`.
    pub(crate) fn next_action<K: Ord>(&mut self, deadlines: &mut Deadlines<K>, key: K) -> Option<Action> {
        self.machine.next_action(deadlines, key)
    }

    /// Looks up the next moment of the schedule; `unix` is the wall-clock time of `now`.
    pub(crate) fn schedule(&mut self, now: Instant, unix: Duration) -> Option<Instant> {
        self.scheduled = self.availability.next_scheduled(unix).and_then(|(next, is_start)| {
            let wait = next.saturating_sub(unix).max(Duration::from_millis(1));
            let event = if is_start { Event::ScheduledStart } else { Event::ScheduledStop };
            Some(Scheduled { at: now.checked_add(wait)?, unix: next, event })
        });
        self.scheduled.map(|next| next.at)
    }

    /// A moment of the schedule was due `at`, and it is `unix` now: the start or stop, if it is the next one and has come (MNG-6, MNG-10). None if
    /// another moment has taken its place, or if the wall clock was slowed down since and it has not come yet.
    pub(crate) fn scheduled_event(&self, at: Instant, unix: Duration) -> Option<Event> {
        let next = self.scheduled.filter(|next| next.at == at)?;
        (unix >= next.unix).then_some(next.event)
    }

    /// Whether a moment of the schedule that is due `at` is the next one.
    pub(crate) fn is_scheduled(&self, at: Instant) -> bool {
        self.scheduled.is_some_and(|next| next.at == at)
    }

    /// The wall clock was set from `before` to `unix`: the start or stop whose moment was skipped by that.
    pub(crate) fn changed_hours(&self, before: Duration, unix: Duration) -> Option<Event> {
        match (self.availability.is_out_of_hours(before), self.availability.is_out_of_hours(unix)) {
            (true, false) => Some(Event::ScheduledStart),
            (false, true) => Some(Event::ScheduledStop),
            (true, true) | (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    /// 2026-09-21 14:13:20 UTC, a Monday.
    const MONDAY: Duration = Duration::from_secs(1_790_000_000);

    fn office_hours() -> Availability {
        let (start_at, stop_at) = ("0 0 8 * * MON-FRI".parse().ok(), "0 0 18 * * MON-FRI".parse().ok());
        Availability { start_at, stop_at, ..Availability::default() }
    }

    #[test]
    fn the_next_moment_of_the_schedule_is_one_event_at_its_time() {
        let now = first_instant();
        let mut managed = Managed::new(office_hours());
        // 18:00, in 3 h 46 min 40 s.
        let until = Duration::from_secs(3 * 3600 + 46 * 60 + 40);
        let at = managed.schedule(now, MONDAY).unwrap();
        assert_eq!(at, now + until);
        let due = MONDAY + until;
        assert_eq!(managed.scheduled_event(at, due), Some(Event::ScheduledStop));
        assert_eq!(managed.scheduled_event(at, due - Duration::from_millis(1)), None, "the clock was slowed down");
        assert_eq!((managed.scheduled_event(now, due), managed.is_scheduled(now)), (None, false));
        let next = managed.schedule(at, due).unwrap();
        assert_eq!(managed.scheduled_event(next, due + Duration::from_secs(14 * 3600)), Some(Event::ScheduledStart));
        assert_eq!(managed.scheduled_event(at, due), None, "another moment has taken its place");
        managed.set_availability(Availability::default());
        assert_eq!(managed.schedule(at, MONDAY + until), None);
    }

    #[test]
    fn a_clock_that_was_set_begins_or_ends_hours() {
        let managed = Managed::new(office_hours());
        let evening = MONDAY + Duration::from_secs(6 * 3600);
        assert_eq!(managed.changed_hours(MONDAY, evening), Some(Event::ScheduledStop));
        assert_eq!(managed.changed_hours(evening, MONDAY), Some(Event::ScheduledStart));
        assert_eq!(managed.changed_hours(MONDAY, MONDAY + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_task_is_known_by_its_number() {
        let mut managed = Managed::new(Availability::default());
        managed.set_task(7);
        assert!(managed.has_task(7) && !managed.has_task(6));
    }
}
