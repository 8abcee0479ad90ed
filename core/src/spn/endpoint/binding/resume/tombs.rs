//! What is left of connections that have ended, for a partner that may have missed the last report.

use std::time::{Duration, Instant};

use crate::spn::{
    ConnKey, Tag,
    endpoint::{ConnId, Due, Endpoint, carrier::LinkId, machines::connection::Event},
    wire::{
        code,
        frame::{Frame, ResumeReq, flag},
    },
};

/// How long a connection that has ended in order is remembered: its last report may have been lost, which a silent hub shows only when the
/// session has been idle for too long (20 s) (RES-12).
const TOMBSTONE: Duration = Duration::from_secs(30);

/// What is left of a connection: values, no bytes.
pub(in crate::spn::endpoint) struct Tomb {
    pub(super) request: ResumeReq,
    pub(super) partner: Option<Tag>,
    /// The session that carried it lives.
    pub(super) link: Option<LinkId>,
    until: Instant,
}

impl Tomb {
    pub(super) fn frame(&self) -> Frame {
        self.request.clone().frame(self.partner)
    }
}

impl Endpoint {
    /// CLOSE_ACK: the hub has no partner that it could tell.
    pub(in crate::spn::endpoint::binding) fn on_close_ack(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if let Some(id) = self.conn_by_key(link, key) {
            self.conn_event(now, id, Event::CloseAck);
        } else if self.tombs.get(&key).is_some_and(|tomb| tomb.link == Some(link) && tomb.request.is_aborted()) {
            self.repeat_tomb(key);
        }
    }

    /// The last report may not have reached the partner: it is left for it wherever it may come to.
    pub(in crate::spn::endpoint) fn repeat_tomb(&mut self, key: ConnKey) {
        let Some(tomb) = self.tombs.get_mut(&key) else { return };
        tomb.link = None;
        let request = tomb.frame();
        self.send_everywhere(&request);
    }

    /// The connection has ended, as this end knows: it is remembered for as long as the partner may miss the last report.
    pub(in crate::spn::endpoint::binding) fn leave_tombstone(&mut self, now: Instant, id: ConnId) {
        if let Some((link, entry)) = self.report(id) {
            self.send(link, &Frame::DataAck(vec![entry]));
        }
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(mut request) = conn.request() else { return };
        request.code = conn.machine.abort_code();
        request.flags |= if request.code == code::OK { 0 } else { flag::ABORTED };
        let (key, link, partner) = (request.conn, conn.carrier.map(|carrier| carrier.link), conn.partner);
        self.add_tomb(Tomb { request, partner, link, until: now + TOMBSTONE });
        if link.is_none() {
            // It ended while it was paused: what it has asked for is out of date.
            self.repeat_tomb(key);
        }
    }

    /// It was broken off without a stream: the partner is told through whatever session there is or comes.
    pub(in crate::spn::endpoint) fn leave_abort(&mut self, now: Instant, id: ConnId, code: u64) {
        let until = now + self.config.connection.pause;
        let Some(conn) = self.conn_mut(id) else { return };
        let (Some(mut request), partner) = (conn.request(), conn.partner) else { return };
        request.flags |= flag::ABORTED;
        request.code = code;
        let tomb = Tomb { request, partner, link: None, until };
        self.send_everywhere(&tomb.frame());
        self.add_tomb(tomb);
    }

    fn add_tomb(&mut self, tomb: Tomb) {
        let key = tomb.request.conn;
        if !self.tombs.contains_key(&key) && self.tombs.len() < self.config.limits.connections {
            self.deadlines.push(tomb.until, Due::Tomb(key));
            self.tombs.insert(key, tomb);
        }
    }

    pub(in crate::spn::endpoint) fn expire_tomb(&mut self, now: Instant, key: ConnKey) {
        if self.tombs.get(&key).is_some_and(|tomb| tomb.until <= now) {
            self.tombs.remove(&key);
        }
    }
}
