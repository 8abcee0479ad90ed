//! The managed providers of all services, and the tasks of their cluster managers (docs/protocols/spn.md, Starting and stopping providers, MNG-1).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Epoch,
    machine::Deadlines,
    spn::hub::{
        context::{Context, Due},
        machines::managed::{Action, Event},
        notice::ClusterTask,
        policy::{availability::Availability, provision::Managed},
    },
};

/// Schedules are computed anew when the wall clock is further from what they were computed with.
const OFF_SCHEDULE: Duration = Duration::from_secs(1);

/// What a service has, as far as its managed provider is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    /// A session of a provider.
    pub(crate) is_here: bool,
    /// Connections, or requests to resume some.
    pub(crate) is_busy: bool,
}

/// The managed providers of a hub, by service.
#[derive(Debug)]
pub(crate) struct Cluster {
    managed: BTreeMap<usize, Managed>,
    last_task: u64,
    /// What the moments of schedules were computed with.
    scheduled_by: Epoch,
}

impl Cluster {
    /// No managed providers yet; schedules are computed with `epoch`.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { managed: BTreeMap::new(), last_task: 0, scheduled_by: epoch }
    }

    pub(crate) fn get(&self, service: usize) -> Option<&Managed> {
        self.managed.get(&service)
    }

    /// Whether consumers may come in without a provider, since one is started for them.
    pub(crate) fn is_on_demand(&self, service: usize) -> bool {
        self.get(service).is_some_and(Managed::is_on_demand)
    }

    /// Whether a start is under way.
    pub(crate) fn is_starting(&self) -> bool {
        self.managed.values().any(Managed::is_starting)
    }

    /// Whether a connection that waits is to be reported again: it has waited through a start that failed, or through the end of the last provider.
    /// A provider that is not started on demand stays stopped, and asking again would never end.
    pub(crate) fn may_ask_again(&self, service: usize) -> bool {
        self.get(service).is_some_and(|managed| managed.is_stopped() && managed.is_on_demand())
    }

    /// Takes what the inventory says of a service. Says whether the settings are new, or changed.
    pub(crate) fn apply(&mut self, service: usize, availability: Option<&Availability>) -> bool {
        let Some(availability) = availability else {
            // What it has started runs on: another hub may serve it now.
            self.managed.remove(&service);
            return false;
        };
        match self.managed.get_mut(&service) {
            Some(managed) if **managed.availability() == *availability => return false,
            Some(managed) => managed.set_availability(availability.clone()),
            None => {
                self.managed.insert(service, Managed::new(availability.clone()));
            }
        }
        true
    }

    /// Nothing is started or stopped any more: what is here is to be resumed on another hub.
    pub(crate) fn leave(&mut self) {
        self.managed.clear();
    }

    /// The service whose cluster manager was given a task last.
    pub(crate) fn service_of(&self, task: u64) -> Option<usize> {
        self.managed.iter().find(|(_, managed)| managed.has_task(task)).map(|(service, _)| *service)
    }

    /// A task for the cluster manager of a service.
    pub(crate) fn next_task(&mut self, service: usize, urn: &Arc<str>) -> Option<ClusterTask> {
        let managed = self.managed.get_mut(&service)?;
        self.last_task += 1;
        managed.set_task(self.last_task);
        Some(ClusterTask { id: self.last_task, service: urn.clone(), availability: managed.availability().clone() })
    }

    /// Returns whether there is such a machine, which is then to be drained.
    pub(crate) fn handle_event(&mut self, now: Instant, service: usize, event: Event) -> bool {
        self.managed.get_mut(&service).map(|managed| managed.handle_event(now, event)).is_some()
    }

    /// A deadline that was due `at` has come. Returns whether the machine is to be drained.
    pub(crate) fn expire(&mut self, now: Instant, at: Instant, service: usize) -> bool {
        self.managed.get_mut(&service).is_some_and(|managed| managed.expire(now, at))
    }

    /// The next action of a service's machine. When there is none, its deadline is noted under `key`.
    pub(crate) fn next_action<K: Ord>(
        &mut self,
        service: usize,
        deadlines: &mut Deadlines<K>,
        key: K,
    ) -> Option<Action> {
        self.managed.get_mut(&service)?.next_action(deadlines, key)
    }

    /// What is news for the machine of a service, in this order: whether there are sessions, and whether there are connections.
    pub(crate) fn news(&self, service: usize, present: Presence) -> [Option<Event>; 2] {
        let Some(managed) = self.get(service) else { return [None, None] };
        let Presence { is_here, is_busy } = present;
        let came = if is_here { Event::ProviderCame } else { Event::ProviderGone };
        let busy = if is_busy { Event::Busy } else { Event::Idle };
        [(is_here != managed.is_here()).then_some(came), (is_busy != managed.is_busy() && is_here).then_some(busy)]
    }

    /// Looks up the next moment of a service's schedule, and sets its deadline.
    pub(crate) fn schedule(&mut self, cx: &mut Context<'_>, service: usize) {
        let unix = cx.unix();
        if let Some(at) = self.managed.get_mut(&service).and_then(|managed| managed.schedule(cx.now, unix)) {
            cx.remind(at, Due::Scheduled(service));
        }
    }

    /// The wall clock shows `epoch` from now on, and showed `before` until now. If schedules are to be computed anew: the time that was shown before
    /// a jump, or the present time if there was none.
    pub(crate) fn set_epoch(&mut self, now: Instant, before: Epoch, epoch: Epoch) -> Option<Duration> {
        let unix = epoch.unix_at(now);
        if self.scheduled_by.unix_at(now).abs_diff(unix) <= OFF_SCHEDULE {
            return None;
        }
        self.scheduled_by = epoch;
        // The clock was set in one step, or adjusted slowly.
        let before = before.unix_at(now);
        Some(if before.abs_diff(unix) > OFF_SCHEDULE { before } else { unix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    fn cluster() -> Cluster {
        Cluster::new(Epoch { instant: first_instant(), unix: Duration::from_secs(1_790_000_000) })
    }

    #[test]
    fn only_new_settings_are_news() {
        let (mut cluster, settings) = (cluster(), Availability { on_consumer: true, ..Availability::default() });
        assert!(cluster.apply(0, Some(&settings)) && !cluster.apply(0, Some(&settings)));
        assert!(cluster.is_on_demand(0) && !cluster.is_on_demand(1));
        assert!(cluster.apply(0, Some(&Availability::default())) && !cluster.is_on_demand(0));
        assert!(!cluster.apply(0, None) && cluster.get(0).is_none());
    }

    #[test]
    fn a_task_belongs_to_the_service_that_was_given_it_last() {
        let mut cluster = cluster();
        assert!(cluster.next_task(3, &"urn:s".into()).is_none());
        cluster.apply(3, Some(&Availability::default()));
        let first = cluster.next_task(3, &"urn:s".into()).unwrap();
        assert_eq!(cluster.service_of(first.id), Some(3));
        let second = cluster.next_task(3, &"urn:s".into()).unwrap();
        assert_eq!((cluster.service_of(first.id), cluster.service_of(second.id)), (None, Some(3)));
    }

    #[test]
    fn a_machine_hears_of_connections_only_while_there_is_a_provider() {
        let mut cluster = cluster();
        cluster.apply(0, Some(&Availability::default()));
        let present = |is_here, is_busy| Presence { is_here, is_busy };
        assert_eq!(cluster.news(0, present(false, true)), [None, None]);
        assert_eq!(cluster.news(0, present(true, true)), [Some(Event::ProviderCame), Some(Event::Busy)]);
        assert!(cluster.handle_event(first_instant(), 0, Event::ProviderCame));
        assert_eq!(cluster.news(0, present(true, false)), [None, None]);
        assert_eq!(cluster.news(1, present(true, true)), [None, None], "it is not managed");
        assert!(!cluster.handle_event(first_instant(), 1, Event::ProviderCame));
    }

    #[test]
    fn a_clock_that_drifts_is_believed_and_one_that_jumps_is_compared() {
        let now = first_instant();
        let at = |secs| Epoch { instant: now, unix: Duration::from_secs(secs) };
        let mut cluster = Cluster::new(at(1_790_000_000));
        let begun = at(1_790_000_000);
        assert_eq!(cluster.set_epoch(now, begun, at(1_790_000_001)), None, "near enough");
        assert_eq!(cluster.set_epoch(now, begun, at(1_790_000_002)), Some(begun.unix));
        let drifted = at(1_790_000_004);
        assert_eq!(cluster.set_epoch(now, at(1_790_000_003), drifted), Some(drifted.unix), "adjusted slowly");
    }
}
