//! Several addresses of one hub: one of them has the session, the others are in reserve (docs/protocols/spn.md, Several hubs, ADR-3 to ADR-7).

use std::time::Instant;

use super::Links;
use crate::spn::{
    endpoint::{carrier::LinkId, config::Notice, machines::session::Event, ports::Ports},
    wire::code::SessionCode,
};

impl Links {
    /// Whose turn it is to ask its hub for a session, if it is anybody's.
    pub(in crate::spn::endpoint) fn pass_turn(&mut self) -> Option<LinkId> {
        self.turns.pass()
    }

    /// The hub says that this process has a session with it already, as its SESSION_OPEN has listed.
    pub(super) fn note_spare(&mut self, id: LinkId, hub: [u8; 16], ports: &mut Ports) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.wire.as_ref().is_some_and(|wire| wire.hubs.contains(&hub)) {
            let reason = "the hub names a session that it does not have with this endpoint".to_owned();
            return self.violation(id, SessionCode::MALFORMED, reason, ports);
        }
        link.hub = Some(hub);
        ports.post_link(id, Event::Elsewhere);
    }

    /// A hub has answered at `id`: its other addresses are too much, and what they try would replace this session.
    pub(super) fn supersede(&self, id: LinkId, hub: [u8; 16], ports: &mut Ports) {
        for (other, link) in &self.links {
            if *other != id && link.hub == Some(hub) {
                ports.post_link(*other, Event::Elsewhere);
            }
        }
    }

    /// An address is in reserve. The host hears of it once for each hub.
    pub(super) fn reserve(&mut self, now: Instant, id: LinkId, ports: &mut Ports) {
        self.turns.end(id);
        if let Some(handle) = self.drop_wire(id, ports) {
            ports.quic.close(now, handle, SessionCode::OK.0, SessionCode::OK.text());
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.reason.clear();
        let (hub, remote) = (link.hub, link.remote);
        let known = std::mem::replace(&mut link.reserved_for, hub);
        let live = self.links.values().find(|other| other.is_live && other.hub == hub);
        match live.map(|link| link.remote) {
            // It has been lost meanwhile, or is about to come: then the hub says the same again.
            None => self.begin(id, ports),
            Some(through) if known != hub => ports.notify(Notice::SessionReserved { remote, through }),
            Some(_) => {}
        }
    }

    /// The session is there no more: has the addresses dialled that are in reserve for its hub, unless another one of them has its session.
    pub(super) fn call_reserve(&mut self, id: LinkId, ports: &mut Ports) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_live = false;
        let Some(hub) = link.hub else { return };
        if self.links.values().any(|link| link.is_live_with(hub)) {
            return;
        }
        for (other, link) in &self.links {
            if *other != id && link.hub == Some(hub) {
                self.begin(*other, ports);
            }
        }
    }
}
