//! Requests to resume: whom a connection without a stream asks for the next one, who is asked for one of which nothing was heard, and what is
//! left of one that has ended (docs/protocols/spn.md, Pause and resume, RES-12, RES-25 to RES-36; A connection that was never confirmed, SEK-3
//! to SEK-7).

use super::Parts;
use crate::spn::{
    ConnKey, Tag,
    endpoint::{
        carrier::LinkId,
        config::ConnId,
        context::Context,
        machines::connection::Event,
        policy::seek::{Instance, Prospect},
        ports::Due,
    },
    wire::{code::StreamCode, frame::Frame},
};

impl Parts {
    /// Whether a connection, or what is left of it, belongs to another owner than the hub names now. A hub of an earlier release names none.
    pub(in crate::spn::endpoint) fn is_of_another(&self, key: ConnKey, owner: Option<Tag>) -> bool {
        let conn = self.conns.by_key(&key).and_then(|id| self.conns.get(id));
        let known = conn.map_or_else(|| self.tombstones.partner(&key), |conn| conn.partner());
        known.is_some_and(|known| owner.is_some_and(|owner| owner != known))
    }

    /// Asks every session for the next stream.
    pub(super) fn ask_resume(&mut self, cx: &mut Context<'_>, id: ConnId) {
        for link in self.links.askable() {
            self.ask_session(cx, link, id);
            self.grant(cx, link);
        }
        self.note_sought(cx, id);
    }

    /// A provider's hub may need more streams soon: connections may come back on them.
    pub(in crate::spn::endpoint) fn grant(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if let Some(wire) = self.links.wire_mut(link).filter(|_| !cx.setup.is_consumer()) {
            wire.grant(cx.setup.config().limits.connections, self.conns.waiting(), cx.ports);
        }
    }

    fn ask_session(&mut self, cx: &mut Context<'_>, link: LinkId, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(request) = conn.request() else { return };
        conn.asked.insert(link);
        if let Some(wire) = self.links.wire_mut(link) {
            wire.streams_mut().forget_leg(id);
        }
        self.links.send(link, &request.frame(conn.partner()), cx.ports);
        cx.ports.post_conn(id, Event::ResumeAsked);
        self.seek(cx, link, id);
    }

    /// A session is there: what waits for one asks it, too.
    pub(super) fn ask_new_session(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if !self.links.is_askable(link) {
            return;
        }
        for id in self.conns.ids(|conn| conn.machine().is_paused()) {
            self.ask_session(cx, link, id);
        }
        self.grant(cx, link);
        for request in self.tombstones.frames() {
            self.links.send(link, &request, cx.ports);
        }
    }

    /// What was asked of a session is forgotten with it, and so may be the last reports over it.
    pub(super) fn forget_session(&mut self, cx: &mut Context<'_>, link: LinkId) {
        for id in self.conns.ids(|conn| conn.asked.contains(&link)) {
            self.unask(cx, id, link);
        }
        for request in self.tombstones.lose_link(link) {
            self.links.send_everywhere(&request, cx.ports);
        }
    }

    pub(in crate::spn::endpoint) fn unask(&mut self, cx: &mut Context<'_>, id: ConnId, link: LinkId) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.asked.remove(&link)
            && conn.asked.is_empty()
        {
            cx.ports.post_conn(id, Event::ResumeUnasked);
        }
    }

    /// Asks a session for those who could have a connection of which nothing has been heard.
    fn seek(&mut self, cx: &mut Context<'_>, link: LinkId, id: ConnId) {
        let Self { links, conns, .. } = self;
        let Some(conn) = conns.get(id).filter(|conn| conn.machine().is_paused()) else { return };
        let (Some(key), Some(roster)) = (conn.key(), links.wire(link).and_then(|wire| wire.roster())) else { return };
        for instance in conn.claim.ask(roster) {
            links.send(link, &Frame::Seek { conn: key, instance }, cx.ports);
        }
    }

    /// The connection has asked for its next stream: it waits for who may have it, or begins again.
    fn note_sought(&mut self, cx: &mut Context<'_>, id: ConnId) {
        match self.conns.get(id).map(|conn| conn.claim.prospect()) {
            Some(Prospect::Absent) => self.begin_again(cx, id),
            Some(Prospect::Sought) => cx.ports.post_conn(id, Event::Sought),
            Some(Prospect::Unknown) | None => {}
        }
    }

    /// A session has another list of providers: those that are new on it are asked, too.
    pub(in crate::spn::endpoint) fn on_listed(&mut self, cx: &mut Context<'_>, link: LinkId) {
        for id in self.conns.ids(|conn| conn.claim.is_sought() && conn.asked.contains(&link)) {
            self.seek(cx, link, id);
        }
    }

    /// ABSENT.
    pub(in crate::spn::endpoint) fn on_absent(&mut self, cx: &mut Context<'_>, key: ConnKey, instance: Instance) {
        let Some(id) = self.conns.by_key(&key) else { return };
        if self.conns.get_mut(id).is_some_and(|conn| conn.claim.rule_out(&instance)) {
            self.begin_again(cx, id);
        }
    }

    /// No provider has the connection, or will take it.
    fn begin_again(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.machine().is_paused()) else { return };
        conn.claim.forget();
        if let Some(key) = conn.key() {
            for link in &conn.asked {
                let request = Frame::CloseReq { conn: key, code: StreamCode::NOT_STARTED };
                self.links.send(*link, &request, cx.ports);
            }
        }
        cx.ports.post_conn(id, Event::Absent);
    }

    /// The connection has ended, as this end knows: it is remembered for as long as the partner may miss the last report.
    pub(super) fn leave_tombstone(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let Self { links, conns, tombstones, .. } = self;
        if let Some((link, entry)) = conns.report(id) {
            links.send(link, &Frame::DataAck(vec![entry]), cx.ports);
        }
        let Some(conn) = conns.get(id) else { return };
        let Some(request) = conn.request() else { return };
        let (key, link) = (request.conn, conn.carrier().map(|carrier| carrier.link));
        let until = tombstones.add_ended(cx.now, request, conn.machine().abort_code(), conn.partner(), link);
        if let Some(until) = until {
            cx.ports.remind(until, Due::Tombstone(key));
        }
        if link.is_none() {
            // It ended while it was paused: what it has asked for is out of date.
            self.repeat_tombstone(cx, key);
        }
    }

    /// It was broken off without a stream: the partner hears of it through whatever session there is or comes.
    pub(super) fn leave_abort(&mut self, cx: &mut Context<'_>, id: ConnId, code: StreamCode) {
        let Self { links, conns, tombstones, .. } = self;
        let Some(conn) = conns.get(id) else { return };
        let Some(request) = conn.request() else { return };
        let (key, until) = (request.conn, cx.now + cx.setup.config().connection.pause);
        let (frame, until) = tombstones.add_aborted(until, request, code, conn.partner());
        links.send_everywhere(&frame, cx.ports);
        if let Some(until) = until {
            cx.ports.remind(until, Due::Tombstone(key));
        }
    }

    /// The last report may not have reached the partner: it is left for it wherever it may come to.
    pub(in crate::spn::endpoint) fn repeat_tombstone(&mut self, cx: &mut Context<'_>, key: ConnKey) {
        if let Some(request) = self.tombstones.repeat(&key) {
            self.links.send_everywhere(&request, cx.ports);
        }
    }
}
