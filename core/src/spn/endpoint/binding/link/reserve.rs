//! Several addresses of one hub: one of them has the session, the others are in reserve (docs/protocols/spn.md, Several hubs, ADR-3 to ADR-7).

use std::time::Instant;

use super::{Endpoint, Event, LinkId, Notice, Work};
use crate::spn::{Protocol, wire::code};

impl Endpoint {
    /// One SESSION_OPEN after the other: the next one says which hub has answered the one before it. If they crossed, a hub with two
    /// addresses would begin a session, and connections on it, only to replace it.
    pub(super) fn pass_turn(&mut self, now: Instant) {
        if self.links.values().any(|link| link.machine.is_asking()) {
            return;
        }
        // In the order of their handshakes.
        let turns = self.links.iter().filter_map(|(id, link)| Some((link.wire.as_ref()?.turn?, *id)));
        let Some((_, id)) = turns.min() else { return };
        if let Some(wire) = self.links.get_mut(&id).and_then(|link| link.wire.as_mut()) {
            wire.turn = None;
            // At once: it asks before anybody looks again.
            self.link_event(now, id, Event::Connected { protocol: Protocol::Sc02 });
        }
    }

    /// The hub says that this process has a session with it already, as its SESSION_OPEN has listed.
    pub(super) fn on_spare(&mut self, id: LinkId, hub: [u8; 16]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.wire.as_ref().is_some_and(|wire| wire.listed.contains(&hub)) {
            return self.violation(id, code::MALFORMED, "the hub speaks of a session that is not".to_owned());
        }
        link.hub = Some(hub);
        self.work.push_back(Work::Link(id, Event::Elsewhere));
    }

    /// A hub has answered at `id`: what other addresses of it have is too much, and what they try would replace this session.
    pub(super) fn supersede(&mut self, id: LinkId, hub: [u8; 16]) {
        for (other, link) in &self.links {
            if *other != id && link.hub == Some(hub) {
                self.work.push_back(Work::Link(*other, Event::Elsewhere));
            }
        }
    }

    /// An address is in reserve; says so once for each hub.
    pub(super) fn on_reserved(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(wire) = link.wire.take() {
            self.by_handle.remove(&wire.handle);
            self.quic.close(now, wire.handle, code::OK, code::text(code::OK));
        }
        link.reason.clear();
        let (hub, remote, told) = (link.hub, link.remote, link.told);
        link.told = hub;
        let Some(through) = self.links.values().find(|other| other.live && other.hub == hub).map(|link| link.remote)
        else {
            // It has been lost meanwhile, or is about to come: then the hub says the same again.
            return self.work.push_back(Work::Link(id, Event::Connect { role: self.config.role }));
        };
        if told != hub {
            self.notices.push_back(Notice::SessionReserved { remote, through });
        }
    }

    /// Notes whether the session is established; when it was and is no more, the other addresses of its hub are tried at once.
    pub(super) fn note_live(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.live && !link.machine.is_established() {
            link.live = false;
            self.call_reserve(id);
        }
    }

    /// Has the addresses dialled that are in reserve for the hub of `id`, unless another one of them has its session.
    pub(super) fn call_reserve(&mut self, id: LinkId) {
        let Some(hub) = self.links.get(&id).and_then(|link| link.hub) else { return };
        if self.links.values().any(|link| link.live && link.hub == Some(hub)) {
            return;
        }
        for (other, link) in &self.links {
            if *other != id && link.hub == Some(hub) {
                self.work.push_back(Work::Link(*other, Event::Connect { role: self.config.role }));
            }
        }
    }
}
