//! A connection of which nothing has been heard when its stream is lost: whom its consumer asks, and what a provider answers
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-3 to SEK-7).

use std::time::Instant;

use crate::spn::{
    ConnKey,
    endpoint::{
        ConnId, Endpoint,
        carrier::LinkId,
        machines::connection::Event,
        parts::ports::Due,
        policy::seek::{Instance, Prospect},
    },
    wire::{code, frame::Frame},
};

impl Endpoint {
    /// The partner has been heard of: it has the connection.
    pub(super) fn note_heard(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.claim.hear() && conn.held.release() && conn.local.has_written() {
            self.conn_event(now, id, Event::BytesReleased);
        }
    }

    /// Asks a session for those who could have a connection of which nothing has been heard.
    pub(super) fn seek(&mut self, link: LinkId, id: ConnId) {
        let Self { links, conns, ports, .. } = self;
        let Some(conn) = conns.get(id).filter(|conn| conn.machine().is_paused()) else { return };
        let (Some(key), Some(roster)) = (conn.key(), links.wire(link).and_then(|wire| wire.roster())) else { return };
        for instance in conn.claim.ask(roster) {
            links.send(link, &Frame::Seek { conn: key, instance }, ports);
        }
    }

    /// The connection has asked for its next stream: it waits for who may have it, or begins again.
    pub(super) fn note_sought(&mut self, id: ConnId) {
        match self.conns.get(id).map(|conn| conn.claim.prospect()) {
            Some(Prospect::Absent) => self.begin_again(id),
            Some(Prospect::Sought) => self.ports.post_conn(id, Event::Sought),
            Some(Prospect::Unknown) | None => {}
        }
    }

    /// A session has another list of providers: those that are new on it are asked, too.
    pub(super) fn on_listed(&mut self, link: LinkId) {
        for id in self.conns.ids(|conn| conn.claim.is_sought() && conn.asked.contains(&link)) {
            self.seek(link, id);
        }
    }

    /// ABSENT.
    pub(super) fn on_absent(&mut self, key: ConnKey, instance: Instance) {
        let Some(id) = self.conns.by_key(&key) else { return };
        if self.conns.get_mut(id).is_some_and(|conn| conn.claim.rule_out(&instance)) {
            self.begin_again(id);
        }
    }

    /// Nobody who could have it has it, or will.
    fn begin_again(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.machine().is_paused()) else { return };
        conn.claim.forget();
        if let Some(key) = conn.key() {
            for link in &conn.asked {
                let request = Frame::CloseReq { conn: key, code: code::NOT_STARTED };
                self.links.send(*link, &request, &mut self.ports);
            }
        }
        self.ports.post_conn(id, Event::Absent);
    }

    /// SEEK: a consumer has lost its stream, and has heard nothing of this provider.
    pub(super) fn on_seek(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if self.tombstones.has(&key) {
            return self.repeat_tombstone(key);
        }
        if let Some(id) = self.conns.by_key(&key) {
            // Its stream is no good any more; without one, it has asked for the next everywhere.
            if self.conns.get(id).is_some_and(|conn| conn.ledger.is_some() && !conn.machine().is_paused()) {
                self.conn_event(now, id, Event::StreamReset { code: code::PAUSED });
            }
            return;
        }
        if let Some(until) = self.spent.refuse(now, key) {
            self.ports.remind(until, Due::Spent(key));
            let instance = self.setup.instance();
            self.links.send(link, &Frame::Absent { conn: key, instance }, &mut self.ports);
        }
    }
}
