//! Carries out what the machines of sessions and connections decide, between the parts, QUIC and the host.

mod connection_actions;
mod requests;
mod session_actions;

use super::{conn::conns::Conns, link::links::Links, queue::Queue, tombstones::Tombstones};
use crate::spn::{
    endpoint::{
        carrier::LinkId,
        config::{Config, ConnId, Notice},
        context::Context,
        machines::{connection, session},
        phase::End,
        policy::{spent::Spent, standstill::Standstill},
    },
    wire::code::StreamCode,
};

/// What an endpoint consists of. Its methods are what crosses the parts and runs no machine.
pub(in crate::spn::endpoint) struct Parts {
    pub(in crate::spn::endpoint) links: Links,
    pub(in crate::spn::endpoint) conns: Conns,
    /// Connections that look for a session.
    pub(in crate::spn::endpoint) queue: Queue,
    /// What is left of connections that can be asked for.
    pub(in crate::spn::endpoint) tombstones: Tombstones,
    /// A provider's: connections that it takes no more.
    pub(in crate::spn::endpoint) spent: Spent,
}

/// The parts, and their machines at work.
pub(in crate::spn::endpoint) struct Exchange {
    parts: Parts,
    /// A provider's: whether it has stood still.
    standstill: Standstill,
}

impl Exchange {
    pub(in crate::spn::endpoint) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let parts = Parts {
            links: Links::new(config.role),
            conns: Conns::new(limits),
            queue: Queue::default(),
            tombstones: Tombstones::new(limits.connections),
            spent: Spent::new(limits.connections),
        };
        Self { parts, standstill: Standstill::default() }
    }

    pub(in crate::spn::endpoint) fn parts(&mut self) -> &mut Parts {
        &mut self.parts
    }

    pub(in crate::spn::endpoint) fn parts_ref(&self) -> &Parts {
        &self.parts
    }

    /// Whether the endpoint has stood still, by when it is called.
    pub(in crate::spn::endpoint) fn standstill(&self) -> &Standstill {
        &self.standstill
    }

    /// To be called whenever the host is here, before anything new is looked at.
    pub(in crate::spn::endpoint) fn watch_standstill(&mut self, cx: &mut Context<'_>) {
        let Self { parts, standstill } = self;
        if standstill.look(cx.now, || parts.links.is_any_up()) {
            parts.links.hold(cx.now, cx.ports);
        }
    }

    /// An event for a session's machine; then does what the machine asks for.
    pub(in crate::spn::endpoint) fn link_event(&mut self, cx: &mut Context<'_>, id: LinkId, event: session::Event) {
        self.parts.links.handle_event(cx.now, id, event);
        self.run_link(cx, id);
    }

    /// An event for a connection's machine; then does what the machine asks for.
    pub(in crate::spn::endpoint) fn conn_event(&mut self, cx: &mut Context<'_>, id: ConnId, event: connection::Event) {
        if let Some(conn) = self.parts.conns.get_mut(id) {
            conn.handle_event(cx.now, event);
            self.run_conn(cx, id);
        }
    }

    /// The endpoint is to end: gives its sessions so many signals, and counts those that need one from now on.
    pub(in crate::spn::endpoint) fn shut_down(&mut self, cx: &mut Context<'_>, signals: usize) {
        let links = self.parts.links.ids();
        // A session that is begun for those that look for one knows that the endpoint ends.
        let is_ending = cx.phase.is_ending();
        for id in self.parts.conns.ids(|conn| conn.machine().is_looking_up()) {
            self.set_waits(cx, id, is_ending);
        }
        for _ in 0..signals {
            for id in &links {
                cx.ports.post_link(*id, session::Event::LocalShutdown);
            }
        }
    }

    /// Says when no session is left and none will come.
    pub(in crate::spn::endpoint) fn close_down(&mut self, cx: &mut Context<'_>) {
        if self.parts.links.len() > 0 {
            return;
        }
        match cx.phase.end() {
            None => return,
            Some(End::Retired) => {}
            Some(End::Closed) => {
                for id in self.parts.conns.ids(|_| true) {
                    let is_paused = self.parts.conns.get(id).is_some_and(|conn| conn.machine().is_paused());
                    let code = if is_paused { StreamCode::PARTNER_LOST } else { StreamCode::NOT_STARTED };
                    cx.ports.notify(Notice::Reset(id, code));
                    self.remove_conn(cx, id);
                }
            }
        }
        cx.ports.notify(Notice::Closed);
    }
}
