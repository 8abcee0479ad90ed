//! What outlives a session: reports, and requests to resume (docs/protocols/spn.md, Pause and resume, RES-25 to RES-36).

use std::time::{Duration, Instant};

use crate::spn::{
    ConnKey, Tag,
    endpoint::{
        ConnId, Endpoint,
        carrier::LinkId,
        machines::connection::Event,
        parts::{
            conn::{Progressed, ledger::Mismatch},
            link::StrayPause,
            ports::Due,
        },
    },
    wire::{
        code,
        frame::{AckEntry, Frame, ResumeAck, flag},
    },
};

/// PAUSE_REQ may overtake the stream that it speaks of (RES-14).
const STRAY_PAUSE: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Whether a connection, or what is left of it, began for somebody else than the hub names now. A hub of an earlier release names nobody.
    pub(super) fn is_of_another(&self, key: ConnKey, owner: Option<Tag>) -> bool {
        let conn = self.conns.by_key(&key).and_then(|id| self.conns.get(id));
        let known = conn.map_or_else(|| self.tombstones.partner(&key), |conn| conn.partner());
        known.is_some_and(|known| owner.is_some_and(|owner| owner != known))
    }

    /// The connection can be resumed, if the partner can do it, too.
    pub(super) fn begin_ledger(&mut self, now: Instant, id: ConnId) {
        self.conns.begin_ledger(id, &self.setup.config().limits);
        self.conn_event(now, id, Event::Resumable);
    }

    /// DATA_ACK: what the partner has taken.
    pub(super) fn on_data_ack(&mut self, now: Instant, entries: Vec<AckEntry>) {
        for AckEntry { conn, received, flags } in entries {
            if let Some(id) = self.conns.by_key(&conn) {
                self.conn_event(now, id, Event::Confirmed { resumable: true });
                self.note_heard(now, id);
                self.acknowledge(now, id, received, flags);
            }
        }
    }

    /// Takes the partner's report of what it has. Says whether the connection is still there.
    pub(super) fn acknowledge(&mut self, now: Instant, id: ConnId, received: u64, flags: u8) -> bool {
        match self.conns.acknowledge(now, id, received, flags, &mut self.ports) {
            None => return self.conns.get(id).is_some(),
            Some(Err(Mismatch)) => self.conn_event(now, id, Event::Mismatch),
            Some(Ok(Progressed::Over)) => self.conn_event(now, id, Event::SentOver),
            Some(Ok(Progressed::On)) => {}
        }
        self.note_delivered(id);
        self.conns.get(id).is_some()
    }

    /// CONNECTED.
    pub(super) fn on_connected(&mut self, now: Instant, link: LinkId, key: ConnKey, flags: u8) {
        if let Some(id) = self.conns.on_link(link, &key) {
            let resumable = flags & flag::RESUMABLE != 0;
            self.conn_event(now, id, Event::Confirmed { resumable });
            if resumable {
                self.conns.note_progress(now, id, &mut self.ports);
            } else {
                self.conns.drop_ledger(id, &mut self.ports);
            }
        }
    }

    /// PAUSE_REQ. What is not known is answered when its stream has had time to come.
    pub(super) fn on_pause_req(&mut self, now: Instant, link: LinkId, conn: ConnKey) {
        let Self { links, conns, ports, .. } = self;
        if let Some(id) = conns.on_link(link, &conn) {
            return self.conn_event(now, id, Event::PauseReq);
        }
        if self.tombstones.has(&conn) {
            links.send(link, &Frame::PauseAck { conn }, ports);
            return self.repeat_tombstone(conn);
        }
        if conns.paused(&conn).is_some() {
            return links.send(link, &Frame::PauseAck { conn }, ports);
        }
        let Some(wire) = links.wire_mut(link) else { return };
        match wire.streams_mut().note_stray_pause(conn, self.setup.config().limits.connections) {
            StrayPause::Wait => ports.remind(now + STRAY_PAUSE, Due::StrayPause(link, conn)),
            StrayPause::Waits => {}
            StrayPause::Full => links.send(link, &Frame::PauseAck { conn }, ports),
        }
    }

    pub(in crate::spn::endpoint) fn expire_stray_pause(&mut self, now: Instant, link: LinkId, conn: ConnKey) {
        if self.links.wire_mut(link).is_some_and(|wire| wire.streams_mut().take_stray_pause(&conn)) {
            match self.conns.on_link(link, &conn) {
                Some(id) => self.conn_event(now, id, Event::PauseReq),
                None => self.links.send(link, &Frame::PauseAck { conn }, &mut self.ports),
            }
        }
    }

    /// Asks every session for the next stream.
    pub(super) fn ask_resume(&mut self, id: ConnId) {
        for link in self.links.askable() {
            self.ask_session(link, id);
            self.grant(link);
        }
        self.note_sought(id);
    }

    fn ask_session(&mut self, link: LinkId, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(request) = conn.request() else { return };
        conn.asked.insert(link);
        if let Some(wire) = self.links.wire_mut(link) {
            wire.streams_mut().forget_leg(id);
        }
        self.links.send(link, &request.frame(conn.partner()), &mut self.ports);
        self.ports.post_conn(id, Event::ResumeAsked);
        self.seek(link, id);
    }

    /// A session is there: what waits for one asks it, too.
    pub(super) fn ask_new_session(&mut self, link: LinkId) {
        if !self.links.is_askable(link) {
            return;
        }
        for id in self.conns.ids(|conn| conn.machine().is_paused()) {
            self.ask_session(link, id);
        }
        self.grant(link);
        for request in self.tombstones.frames() {
            self.links.send(link, &request, &mut self.ports);
        }
    }

    /// What was asked of a session is forgotten with it, and so may be the last reports over it.
    pub(super) fn forget_session(&mut self, link: LinkId) {
        for id in self.conns.ids(|conn| conn.asked.contains(&link)) {
            self.unask(id, link);
        }
        for request in self.tombstones.lose_link(link) {
            self.links.send_everywhere(&request, &mut self.ports);
        }
    }

    fn unask(&mut self, id: ConnId, link: LinkId) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.asked.remove(&link)
            && conn.asked.is_empty()
        {
            self.ports.post_conn(id, Event::ResumeUnasked);
        }
    }

    /// RESUME_ACK.
    pub(super) fn on_resume_ack(&mut self, now: Instant, link: LinkId, ack: ResumeAck) {
        let ResumeAck { conn: key, status, generation, received, flags } = ack;
        let Some(id) = self.conns.by_key(&key) else {
            // Whoever waited for what is left of it knows now.
            if !self.tombstones.acknowledge(&key) && status == code::OK {
                let unknown = Frame::CloseReq { conn: key, code: code::RESUME_PARTNER_MISSING };
                self.links.send(link, &unknown, &mut self.ports);
            }
            return;
        };
        let consumer = self.setup.is_consumer();
        let Some(conn) = self.conns.get(id) else { return };
        let Some(ledger) = &conn.ledger else { return };
        let is_paused = conn.machine().is_paused();
        match status {
            // The partner has lost the stream on which this end still is.
            code::OK if consumer && !is_paused => {
                if generation >= u64::from(ledger.generation()) {
                    self.conn_event(now, id, Event::StreamReset { code: code::PAUSED });
                }
            }
            code::OK => {
                self.note_heard(now, id);
                if self.acknowledge(now, id, received, flags) && consumer && is_paused {
                    self.open_leg(now, link, id);
                }
            }
            code if flags & flag::ABORTED != 0 => self.conn_event(now, id, Event::ResumeAborted { code }),
            code::RESUME_PARTNER_MISSING | code::TOO_MANY_SESSIONS => self.conn_event(now, id, Event::ResumeRefused),
            code::NOT_ENTITLED | code::PAUSED => self.unask(id, link),
            code => self.conn_event(now, id, Event::ResumeAborted { code }),
        }
    }
}
