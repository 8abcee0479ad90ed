//! Providers that the hub starts and stops: from what happens on it to the machine, and from its actions to the host, which has the cluster
//! managers (docs/protocols/spn.md, Starting and stopping providers, MNG-1).

use std::time::{Duration, Instant};

use super::Exchange;
use crate::spn::hub::{
    binding::cluster::Presence,
    context::{Context, Due},
    machines::{
        managed::{Action, Event},
        session,
    },
    notice::Notice,
    policy::provision::Managed,
};

impl Exchange {
    /// Takes what the inventory says of managed providers. Those with new or changed settings are started if they are to run.
    pub(crate) fn apply_availability(&mut self, cx: &mut Context<'_>) {
        for service in 0..self.services.entries().len() {
            let Some(entry) = self.services.get(service) else { continue };
            if !self.cluster.apply(service, entry.availability()) {
                continue;
            }
            let availability = self.cluster.get(service).map(Managed::availability);
            let is_wanted = availability.is_some_and(|availability| !availability.is_out_of_hours(cx.unix()));
            self.update_managed(cx, service);
            if is_wanted {
                self.managed_event(cx, service, Event::Loaded);
            }
            self.cluster.schedule(cx, service);
        }
    }

    /// Reports to the machine what has changed about the providers of a service and their connections.
    pub(crate) fn update_managed(&mut self, cx: &mut Context<'_>, service: usize) {
        if self.cluster.get(service).is_none() {
            return;
        }
        let Some(roster) = self.services.get(service).map(|entry| entry.roster()) else { return };
        let may_resume = |session| self.links.get(session).is_some_and(|link| !link.requests().is_empty());
        let is_busy = roster.open().any(|(session, open)| open > 0 || may_resume(session));
        let news = self.cluster.news(service, Presence { is_here: !roster.is_empty(), is_busy });
        for event in news.into_iter().flatten() {
            self.managed_event(cx, service, event);
        }
    }

    pub(crate) fn managed_event(&mut self, cx: &mut Context<'_>, service: usize, event: Event) {
        if self.cluster.handle_event(cx.now, service, event) {
            self.perform_managed(cx, service);
        }
    }

    pub(crate) fn managed_timeout(&mut self, cx: &mut Context<'_>, at: Instant, service: usize) {
        // A request to resume may have come since the last report to the machine.
        self.update_managed(cx, service);
        if self.cluster.expire(cx.now, at, service) {
            self.perform_managed(cx, service);
        }
    }

    fn perform_managed(&mut self, cx: &mut Context<'_>, service: usize) {
        while let Some(action) = self.cluster.next_action(service, cx.deadlines, Due::Managed(service)) {
            match action {
                Action::ClusterStart | Action::ClusterStop => {
                    let Some(urn) = self.services.get(service).map(|entry| entry.urn()) else { continue };
                    let Some(task) = self.cluster.next_task(service, urn) else { continue };
                    let is_start = action == Action::ClusterStart;
                    cx.notify(if is_start { Notice::ClusterStart(task) } else { Notice::ClusterStop(task) });
                }
                Action::CloseProviders => {
                    let roster = self.services.get(service).map(|entry| entry.roster());
                    let sessions: Vec<_> = roster.into_iter().flat_map(|roster| roster.sessions()).collect();
                    self.each_session_event(cx, sessions, session::Event::Idle);
                }
                Action::TellStopped => self.links.report_stopped(cx, service),
            }
        }
        let is_waited_for = self.services.get(service).is_some_and(|entry| entry.waiting().next().is_some());
        if is_waited_for && self.cluster.may_ask_again(service) {
            self.managed_event(cx, service, Event::ConnectionWaits);
        }
    }

    /// The wall clock was set; `before` is what it showed until now. A start or stop whose moment was skipped happens now.
    pub(crate) fn reschedule(&mut self, cx: &mut Context<'_>, before: Duration) {
        for service in 0..self.services.entries().len() {
            let Some(managed) = self.cluster.get(service) else { continue };
            if let Some(event) = managed.changed_hours(before, cx.unix()) {
                self.managed_event(cx, service, event);
            }
            self.cluster.schedule(cx, service);
        }
    }
}
