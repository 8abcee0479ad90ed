//! The end of a connection, and what is left of it for a partner that may have missed the last report.

use std::time::Instant;

use crate::spn::{
    ConnKey,
    endpoint::{ConnId, Endpoint, carrier::LinkId, machines::connection::Event, parts::ports::Due},
    wire::frame::Frame,
};

impl Endpoint {
    /// The machine is at its end: the host hears of it, and the partner finds what it may need.
    pub(super) fn end_conn(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.local.is_reset() && conn.machine().is_resumable() {
            self.leave_tombstone(now, id);
        }
        let Some(conn) = self.conns.get(id) else { return };
        let is_broken = conn.local.is_broken() || conn.machine().abort_code() != 0;
        if let Some(key) = conn.key()
            && !self.setup.is_consumer()
            && is_broken
            && conn.ledger.is_some()
            && let Some(until) = self.spent.add_broken(now, key)
        {
            self.ports.remind(until, Due::Spent(key));
        }
        conn.local.end(&mut self.ports);
        self.remove_conn(now, id);
    }

    /// The connection has ended, as this end knows: it is remembered for as long as the partner may miss the last report.
    fn leave_tombstone(&mut self, now: Instant, id: ConnId) {
        let Self { links, conns, tombstones, ports, .. } = self;
        if let Some((link, entry)) = conns.report(id) {
            links.send(link, &Frame::DataAck(vec![entry]), ports);
        }
        let Some(conn) = conns.get(id) else { return };
        let Some(request) = conn.request() else { return };
        let (key, link) = (request.conn, conn.carrier().map(|carrier| carrier.link));
        let until = tombstones.add_ended(now, request, conn.machine().abort_code(), conn.partner(), link);
        if let Some(until) = until {
            ports.remind(until, Due::Tombstone(key));
        }
        if link.is_none() {
            // It ended while it was paused: what it has asked for is out of date.
            self.repeat_tombstone(key);
        }
    }

    /// It was broken off without a stream: the partner hears of it through whatever session there is or comes.
    pub(super) fn leave_abort(&mut self, now: Instant, id: ConnId, code: u64) {
        let Self { links, conns, tombstones, ports, .. } = self;
        let Some(conn) = conns.get(id) else { return };
        let Some(request) = conn.request() else { return };
        let (key, until) = (request.conn, now + self.setup.config().connection.pause);
        let (frame, until) = tombstones.add_aborted(until, request, code, conn.partner());
        links.send_everywhere(&frame, ports);
        if let Some(until) = until {
            ports.remind(until, Due::Tombstone(key));
        }
    }

    /// The last report may not have reached the partner: it is left for it wherever it may come to.
    pub(super) fn repeat_tombstone(&mut self, key: ConnKey) {
        if let Some(request) = self.tombstones.repeat(&key) {
            self.links.send_everywhere(&request, &mut self.ports);
        }
    }

    /// CLOSE_ACK: the hub has no partner that it could inform.
    pub(super) fn on_close_ack(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if let Some(id) = self.conns.on_link(link, &key) {
            self.conn_event(now, id, Event::CloseAck);
        } else if self.tombstones.is_undelivered(&key, link) {
            self.repeat_tombstone(key);
        }
    }
}
