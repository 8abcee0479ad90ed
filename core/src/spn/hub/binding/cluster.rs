//! Providers that the hub starts and stops: from what happens on it to the machine, and from its actions to the host, which has the cluster
//! managers (docs/protocols/spn.md, Starting and stopping providers, MNG-1).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::spn::{
    Protocol, Role,
    hub::{
        Due, Hub, Notice,
        machines::{
            instance,
            managed::{Action, Event},
            session,
        },
        policy::{availability::Availability, provision::Managed, registry::Entry},
    },
    wire::frame::Frame,
};

/// The control datagram for what is PROVIDER_STOPPED in `sc02`.
const NOTIFY_PROVIDER_STOPPED: &[u8] = b"notify_provider_stopped";

/// What a cluster manager is to do. The host says by [`Hub::cluster_done`] when it is done, or could not be; there is no limit on that here.
#[derive(Debug, Clone)]
pub struct ClusterTask {
    /// Names the task.
    pub id: u64,
    /// Whose provider.
    pub service: Arc<str>,
    /// What to start or stop, and where.
    pub availability: Arc<Availability>,
}

impl Hub {
    /// A cluster manager has done its task, or could not.
    pub fn cluster_done(&mut self, now: Instant, task: u64, ok: bool) {
        let is_its = |entry: &Entry| entry.managed.as_ref().is_some_and(|managed| managed.has_task(task));
        if let Some(service) = self.registry.entries().iter().position(is_its) {
            self.managed_event(now, service, Event::ClusterDone { ok });
        }
        self.starts_done(now);
        self.dirty = true;
    }

    /// Takes what the inventory says of managed providers. Those whose settings are new, or not as they were, are started if they are to run.
    pub(in crate::spn::hub) fn apply_availability(&mut self, now: Instant) {
        let unix = self.clock.epoch().unix_at(now);
        for service in 0..self.registry.entries().len() {
            let Some(entry) = self.registry.get_mut(service) else { continue };
            let Some(availability) = entry.availability() else {
                // What it has started runs on: another hub may serve it now.
                entry.managed = None;
                continue;
            };
            if entry.managed.as_ref().is_some_and(|managed| **managed.availability() == *availability) {
                continue;
            }
            let (availability, is_wanted) = (availability.clone(), !availability.is_out_of_hours(unix));
            match &mut entry.managed {
                Some(managed) => managed.set_availability(availability),
                None => entry.managed = Some(Managed::new(availability)),
            }
            self.look_at_provider(now, service);
            if is_wanted {
                self.managed_event(now, service, Event::Loaded);
            }
            self.schedule(now, service);
        }
    }

    /// Nothing is started or stopped any more: what is here is to be resumed on another hub.
    pub(in crate::spn::hub) fn leave_providers(&mut self) {
        self.registry.entries_mut().iter_mut().for_each(|entry| entry.managed = None);
    }

    /// The hub may listen once no start is under way.
    pub(in crate::spn::hub) fn starts_done(&mut self, now: Instant) {
        let is_starting = |entry: &Entry| entry.managed.as_ref().is_some_and(Managed::is_starting);
        if self.machine.is_starting() && !self.registry.entries().iter().any(is_starting) {
            self.event(now, instance::Event::StartsDone);
        }
    }

    /// Tells the machine what has changed about the providers of a service and their connections.
    pub(super) fn look_at_provider(&mut self, now: Instant, service: usize) {
        let Some(entry) = self.registry.get(service) else { return };
        let Some(managed) = &entry.managed else { return };
        let (was_here, was_busy) = (managed.is_here(), managed.is_busy());
        let is_here = !entry.providers.is_empty();
        let may_resume = |session| self.sessions.get(session).is_some_and(|session| !session.parked.is_empty());
        let is_busy = entry.providers.iter().any(|provider| provider.open > 0 || may_resume(&provider.session));
        if is_here != was_here {
            self.managed_event(now, service, if is_here { Event::ProviderCame } else { Event::ProviderGone });
        }
        if is_busy != was_busy && is_here {
            self.managed_event(now, service, if is_busy { Event::Busy } else { Event::Idle });
        }
    }

    pub(super) fn managed_event(&mut self, now: Instant, service: usize, event: Event) {
        if let Some(managed) = self.registry.get_mut(service).and_then(|entry| entry.managed.as_mut()) {
            managed.handle_event(now, event);
            self.perform_managed(now, service);
        }
    }

    pub(in crate::spn::hub) fn managed_timeout(&mut self, now: Instant, at: Instant, service: usize) {
        // A request to resume may have come since it was told that nothing is open.
        self.look_at_provider(now, service);
        let managed = self.registry.get_mut(service).and_then(|entry| entry.managed.as_mut());
        if managed.is_some_and(|managed| managed.expire(now, at)) {
            self.perform_managed(now, service);
        }
    }

    fn perform_managed(&mut self, now: Instant, service: usize) {
        while let Some(entry) = self.registry.get_mut(service) {
            let Some(managed) = &mut entry.managed else { return };
            let Some(action) = managed.next_action(&mut self.deadlines, Due::Managed(service)) else {
                // Who has waited through a start that came to nothing, or through the end of the last provider, waits still.
                // One that is not started on demand stays stopped, and asking again would never end.
                if managed.is_stopped() && managed.is_on_demand() && self.is_waited_for(service) {
                    self.managed_event(now, service, Event::ConnectionWaits);
                }
                return;
            };
            match action {
                Action::ClusterStart => self.ask_cluster(service, Notice::ClusterStart),
                Action::ClusterStop => self.ask_cluster(service, Notice::ClusterStop),
                Action::CloseProviders => {
                    for session in entry.providers.iter().map(|provider| provider.session).collect::<Vec<_>>() {
                        self.session_event(now, session, session::Event::Idle);
                    }
                }
                Action::TellStopped => self.tell_stopped(service),
            }
        }
    }

    fn ask_cluster(&mut self, service: usize, what: fn(ClusterTask) -> Notice) {
        let Some(entry) = self.registry.get_mut(service) else { return };
        let Some(managed) = &mut entry.managed else { return };
        self.next_task += 1;
        managed.set_task(self.next_task);
        let (service, availability) = (entry.urn.clone(), managed.availability().clone());
        self.notices.push_back(what(ClusterTask { id: self.next_task, service, availability }));
    }

    /// A connection waits for a provider.
    fn is_waited_for(&self, service: usize) -> bool {
        self.registry.get(service).is_some_and(|entry| !entry.choosing.is_empty())
    }

    fn tell_stopped(&mut self, service: usize) {
        let consumers = self.sessions.iter().filter(|(_, session)| {
            session.service == service && session.role == Role::Consumer && session.machine.is_established()
        });
        for (handle, protocol) in consumers.map(|(handle, it)| (*handle, it.protocol)).collect::<Vec<_>>() {
            match protocol {
                Protocol::Sc02 => self.send(handle, &Frame::ProviderStopped),
                Protocol::Sc01 => self.quic.send_datagram(handle, Bytes::from_static(NOTIFY_PROVIDER_STOPPED)),
            }
        }
    }

    /// The wall clock was set. What begins or ends its hours by that, which nobody will wait for any more, begins or ends them now.
    /// `believed` is what it showed before.
    pub(in crate::spn::hub) fn reschedule(&mut self, now: Instant, believed: Duration) {
        let unix = self.clock.epoch().unix_at(now);
        for service in 0..self.registry.entries().len() {
            let managed = self.registry.get(service).and_then(|entry| entry.managed.as_ref());
            let Some(availability) = managed.map(|managed| managed.availability().clone()) else { continue };
            match (availability.is_out_of_hours(believed), availability.is_out_of_hours(unix)) {
                (true, false) => self.managed_event(now, service, Event::ScheduledStart),
                (false, true) => self.managed_event(now, service, Event::ScheduledStop),
                (true, true) | (false, false) => {}
            }
            self.schedule(now, service);
        }
    }

    /// Looks up the next moment of a service's schedule.
    fn schedule(&mut self, now: Instant, service: usize) {
        let unix = self.clock.epoch().unix_at(now);
        let Some(managed) = self.registry.get_mut(service).and_then(|entry| entry.managed.as_mut()) else { return };
        if let Some(at) = managed.schedule(now, unix) {
            self.deadlines.push(at, Due::Scheduled(service));
        }
    }

    /// A moment of the schedule has come: a start or a stop (MNG-6, MNG-10).
    pub(in crate::spn::hub) fn scheduled(&mut self, now: Instant, at: Instant, service: usize) {
        let managed = self.registry.get(service).and_then(|entry| entry.managed.as_ref());
        // Another moment may have taken its place.
        let Some(next) = managed.and_then(|managed| managed.scheduled_at(at)) else { return };
        // The wall clock may have been slowed down since: then it is a little early.
        if self.clock.epoch().unix_at(now) >= next.unix {
            self.managed_event(now, service, next.event);
        }
        self.schedule(now, service);
    }
}
