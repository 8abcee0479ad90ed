//! Joins the machines of a hub: the actions of the machines of sessions, connections, requests to resume and managed providers are carried out
//! here, and their consequences for another machine are its next events.
//!
//! Each file below carries out the actions of one kind of machine: `session_actions.rs`, `connection_actions.rs`, `pairing_actions.rs`,
//! `managed_actions.rs`. `check.rs` compares the books of all parts, for tests.

pub(in crate::spn::hub) mod check;
mod connection_actions;
mod managed_actions;
pub(super) mod pairing_actions;
mod session_actions;

use super::{
    cluster::Cluster,
    conn::conns::Conns,
    link::{Link, links::Links},
    pairings::Pairings,
    services::Services,
};
use crate::{
    Epoch,
    spn::{
        Role,
        hub::{
            config::{Config, Status},
            context::Context,
        },
    },
};

/// The parts of a hub that its machines share.
pub(crate) struct Exchange {
    /// Whether new work is accepted.
    is_listening: bool,
    links: Links,
    connections: Conns,
    pairings: Pairings,
    services: Services,
    cluster: Cluster,
    /// A machine has acted: what follows from that is still to be worked off and sent.
    has_acted: bool,
}

/// Each part of the exchange.
pub(crate) struct Parts<'a> {
    pub(crate) links: &'a mut Links,
    pub(crate) connections: &'a mut Conns,
    pub(crate) pairings: &'a mut Pairings,
    pub(crate) services: &'a mut Services,
    pub(crate) cluster: &'a mut Cluster,
}

impl Exchange {
    pub(crate) fn new(config: &Config, epoch: Epoch) -> Self {
        Self {
            is_listening: false,
            links: Links::new(config.limits.relay_memory),
            connections: Conns::default(),
            pairings: Pairings::default(),
            services: Services::default(),
            cluster: Cluster::new(epoch),
            has_acted: false,
        }
    }

    /// The parts, for calls that concern no machine of another part.
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
    pub(crate) fn listen(&mut self) {
        self.is_listening = true;
    }

    /// Sessions, connections and services at the moment.
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

    /// No new work is accepted, and nothing is started or stopped any more: what is here is to be resumed on another hub.
    pub(crate) fn leave(&mut self, cx: &mut Context<'_>) {
        self.is_listening = false;
        self.cluster.leave();
        cx.quic.set_accepting(false);
    }
}
