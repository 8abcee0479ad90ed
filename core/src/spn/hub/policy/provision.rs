//! The provider of a service that the hub starts and stops: its settings, its machine, and its schedule
//! (docs/protocols/spn.md, Starting and stopping providers, MNG-1).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::availability::Availability;
use crate::{
    machine::{Deadlines, Hosted, Inspect as _, Machine as _},
    spn::hub::machines::managed::{Action, Config, Event, ManagedProvider},
};

/// The managed provider of a service.
#[derive(Debug)]
pub(in crate::spn::hub) struct Managed {
    machine: Hosted<ManagedProvider>,
    availability: Arc<Availability>,
    /// What the cluster manager was asked for last.
    task: u64,
    /// The next moment of the schedule.
    scheduled: Option<Scheduled>,
}

/// A moment of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::hub) struct Scheduled {
    at: Instant,
    /// The same, since 1970.
    pub(in crate::spn::hub) unix: Duration,
    /// What it is for the machine.
    pub(in crate::spn::hub) event: Event,
}

impl Managed {
    pub(in crate::spn::hub) fn new(availability: Availability) -> Self {
        Self {
            machine: Hosted::new(ManagedProvider::new(Config::new(&availability))),
            availability: Arc::new(availability),
            task: 0,
            scheduled: None,
        }
    }

    pub(in crate::spn::hub) fn is_starting(&self) -> bool {
        self.machine.is_starting()
    }

    pub(in crate::spn::hub) fn is_stopped(&self) -> bool {
        self.machine.is_stopped()
    }

    pub(in crate::spn::hub) fn is_here(&self) -> bool {
        self.machine.is_here()
    }

    pub(in crate::spn::hub) fn is_busy(&self) -> bool {
        self.machine.is_busy()
    }

    /// Consumers may come in without a provider: one is started for them.
    pub(in crate::spn::hub) fn is_on_demand(&self) -> bool {
        self.availability.is_on_demand()
    }

    pub(in crate::spn::hub) fn state(&self) -> &'static str {
        self.machine.state()
    }

    pub(in crate::spn::hub) fn availability(&self) -> &Arc<Availability> {
        &self.availability
    }

    /// Takes new settings: they count from the next decision on.
    pub(in crate::spn::hub) fn set_availability(&mut self, availability: Availability) {
        self.machine.set_config(Config::new(&availability));
        self.availability = Arc::new(availability);
    }

    /// Whether this is the task that its cluster manager was given last.
    pub(in crate::spn::hub) fn has_task(&self, task: u64) -> bool {
        self.task == task
    }

    pub(in crate::spn::hub) fn set_task(&mut self, task: u64) {
        self.task = task;
    }

    pub(in crate::spn::hub) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline that was due `at` has come. If it is the machine's present one, its timer fires, and the machine is to be drained.
    pub(in crate::spn::hub) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        self.machine.expire(now, at)
    }

    /// The machine's next action. When there is none, its deadline is noted under `key`.
    pub(in crate::spn::hub) fn next_action<K: Ord>(&mut self, deadlines: &mut Deadlines<K>, key: K) -> Option<Action> {
        self.machine.next_action(deadlines, key)
    }

    /// Looks up the next moment of the schedule; `unix` is the wall-clock time of `now`.
    pub(in crate::spn::hub) fn schedule(&mut self, now: Instant, unix: Duration) -> Option<Instant> {
        self.scheduled = self.availability.next_scheduled(unix).and_then(|(next, is_start)| {
            let wait = next.saturating_sub(unix).max(Duration::from_millis(1));
            let event = if is_start { Event::ScheduledStart } else { Event::ScheduledStop };
            Some(Scheduled { at: now.checked_add(wait)?, unix: next, event })
        });
        self.scheduled.map(|next| next.at)
    }

    /// The next moment of the schedule, if it is the one that was due `at`.
    pub(in crate::spn::hub) fn scheduled_at(&self, at: Instant) -> Option<Scheduled> {
        self.scheduled.filter(|next| next.at == at)
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
        let stop = Scheduled { at, unix: MONDAY + until, event: Event::ScheduledStop };
        assert_eq!((managed.scheduled_at(at), managed.scheduled_at(now)), (Some(stop), None));
        let next = managed.schedule(at, MONDAY + until).unwrap();
        assert_eq!(managed.scheduled_at(next).map(|next| next.event), Some(Event::ScheduledStart));
        assert_eq!(managed.scheduled_at(at), None, "another moment has taken its place");
        managed.set_availability(Availability::default());
        assert_eq!(managed.schedule(at, MONDAY + until), None);
    }

    #[test]
    fn a_task_is_known_by_its_number() {
        let mut managed = Managed::new(Availability::default());
        managed.set_task(7);
        assert!(managed.has_task(7) && !managed.has_task(6));
    }
}
