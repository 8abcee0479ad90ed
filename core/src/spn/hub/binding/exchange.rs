//! Joins the machines of a hub: what the machine of a session, of a connection, of requests to resume or of a managed provider asks for is carried
//! out here, and what that means for another machine is that one's next event.
//!
//! The parts do not know each other: [`Links`] and [`Connections`] have what is on the wire, [`Services`] who is there, [`Pairings`] who wants
//! to resume, [`Cluster`] what is started and stopped. Each file below carries out the actions of one kind of machine.

mod check;
mod connection_actions;
mod managed_actions;
mod pairing_actions;
mod session_actions;

use std::time::Duration;

use super::{
    conn::connections::Connections,
    link::{Link, links::Links},
    pairings::Pairings,
    services::Services,
};
use crate::{
    Epoch,
    machine::later,
    spn::{
        Role,
        hub::{
            Config, Service, Status,
            context::{Context, Due},
            machines::{connection, pairing, session::Event},
            policy::cluster::Cluster,
        },
    },
};

/// So long before the end of a drain the connections of `sc01` consumers end, so that their ends come before that of the session.
const LEGACY_END: Duration = Duration::from_secs(2);

/// The parts of a hub that its machines share.
pub(crate) struct Exchange {
    /// Whether new work is accepted.
    is_listening: bool,
    links: Links,
    connections: Connections,
    pairings: Pairings,
    services: Services,
    cluster: Cluster,
    /// A machine has acted: what follows from that is still to be found and sent.
    has_acted: bool,
}

/// Each part of the exchange.
pub(crate) struct Parts<'a> {
    pub(crate) links: &'a mut Links,
    pub(crate) connections: &'a mut Connections,
    pub(crate) pairings: &'a mut Pairings,
    pub(crate) services: &'a mut Services,
    pub(crate) cluster: &'a mut Cluster,
}

impl Exchange {
    pub(crate) fn new(config: &Config, epoch: Epoch) -> Self {
        Self {
            is_listening: false,
            links: Links::new(config.limits.relay_memory),
            connections: Connections::default(),
            pairings: Pairings::default(),
            services: Services::default(),
            cluster: Cluster::new(epoch),
            has_acted: false,
        }
    }

    /// The parts, for what is no matter of several machines.
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        Parts {
            links: &mut self.links,
            connections: &mut self.connections,
            pairings: &mut self.pairings,
            services: &mut self.services,
            cluster: &mut self.cluster,
        }
    }

    /// Whether a machine has acted since the last call.
    pub(crate) fn take_acted(&mut self) -> bool {
        std::mem::take(&mut self.has_acted)
    }

    /// Whether new work is accepted.
    pub(crate) fn is_listening(&self) -> bool {
        self.is_listening
    }

    /// New work is accepted from now on.
    pub(crate) fn set_listening(&mut self) {
        self.is_listening = true;
    }

    pub(crate) fn has_no_sessions(&self) -> bool {
        self.links.is_empty()
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    #[cfg(test)]
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    #[cfg(test)]
    pub(crate) fn pairings(&self) -> &Pairings {
        &self.pairings
    }

    /// Who is here.
    pub(crate) fn status(&self) -> Status {
        let count = |role| {
            let is_meant = |link: &Link| link.party.role == role && link.machine().is_established();
            self.links.iter().filter(|(_, link)| is_meant(link)).count()
        };
        Status {
            providers: count(Role::Provider),
            consumers: count(Role::Consumer),
            connections: self.connections.len(),
            paused: self.pairings.without_leg(),
            services: self.services.status(&self.cluster),
        }
    }

    /// Takes a new inventory, and says what changed: sessions that lose their right end, and managed providers are started if they are to run.
    pub(crate) fn apply_inventory(&mut self, cx: &mut Context<'_>, services: Option<Vec<Service>>) -> Vec<String> {
        let changes = services.map(|services| self.services.apply(services)).unwrap_or_default();
        let lost = self.links.filter(|link| {
            let machine = link.machine();
            (machine.is_established() || machine.is_held() || machine.is_early()) && !self.services.still_entitles(link)
        });
        self.each_session_event(cx, lost, Event::EntitlementLost);
        self.apply_availability(cx);
        changes
    }

    /// The hub leaves: sessions are sent that, and connections that can be resumed are paused, if they are to be resumed elsewhere.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>, deadline: Duration, resumable: bool) {
        self.leave(cx);
        let sessions = self.links.filter(|_| true);
        self.each_session_event(cx, sessions, Event::HubDraining { deadline, resumable });
        cx.remind(later(cx.now, deadline.saturating_sub(LEGACY_END)), Due::LegacyEnds);
        // What waits for a provider need not wait here; what has one runs on when it cannot be paused.
        let leaving = self.connections.filter(|connection| resumable || connection.is_held());
        self.each_connection_event(cx, leaving, connection::Event::PauseWanted);
        self.each_pairing_event(cx, &pairing::Event::HubLeaving);
    }

    /// The hub ends now.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        self.leave(cx);
        let sessions = self.links.filter(|_| true);
        self.each_session_event(cx, sessions, Event::HubStopping);
    }

    fn leave(&mut self, cx: &mut Context<'_>) {
        self.is_listening = false;
        self.cluster.leave();
        cx.quic.set_accepting(false);
    }
}
