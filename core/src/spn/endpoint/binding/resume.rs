//! What outlives a session: reports, and requests to resume (docs/protocols/spn.md, Pause and resume, RES-25 to RES-36).

mod legs;
mod tombs;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(in crate::spn::endpoint) use self::tombs::Tomb;
use super::{
    conn::{Conn, conn_of},
    ledger::{Ledger, Mismatch, REPORT_AFTER},
};
use crate::{
    quic::WriteOutcome,
    spn::{
        ConnKey, Role, Tag,
        endpoint::{
            ConnId, Due, Endpoint, Notice, Work,
            carrier::{Carrier, LinkId},
            machines::connection::Event,
        },
        wire::{
            code,
            frame::{AckEntry, Frame, MAX_LIST, ResumeAck, ResumeReq, flag},
        },
    },
};

/// PAUSE_REQ may overtake the stream that it speaks of (RES-14).
const STRAY_PAUSE: Duration = Duration::from_secs(1);

impl Endpoint {
    /// PARTNER: the hub says who serves a connection of this consumer.
    pub(super) fn on_partner(&mut self, link: LinkId, key: ConnKey, partner: Tag) {
        if let Some(conn) = self.conn_by_key(link, key).and_then(|id| self.conn_mut(id)) {
            conn.partner = Some(partner);
        }
    }

    /// Whether a connection, or what is left of it, began for somebody else than the hub names now. A hub of an earlier release names nobody.
    pub(super) fn is_of_another(&self, key: ConnKey, owner: Option<Tag>) -> bool {
        let conn = self.by_key.get(&key).and_then(|id| self.conns.get(id.index as usize)?.as_ref());
        let known = conn.map_or_else(|| self.tombs.get(&key).and_then(|tomb| tomb.partner), |conn| conn.partner);
        known.is_some_and(|known| owner.is_some_and(|owner| owner != known))
    }

    /// The connection can be resumed, if the partner can do it, too.
    pub(super) fn begin_ledger(&mut self, now: Instant, id: ConnId) {
        let ledger = Ledger::new(&self.config.limits);
        if let Some(conn) = self.conn_mut(id) {
            let mut ledger = Box::new(ledger);
            if conn.machine.read_closed() {
                ledger.end();
            }
            conn.ledger = Some(ledger);
            self.conn_event(now, id, Event::Resumable);
        }
    }

    /// It cannot: nothing is kept for it.
    pub(super) fn drop_ledger(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.ledger = None;
        conn.asked.clear();
        conn.answer = None;
        self.account(id);
    }

    /// Counts what the connection keeps; what it has let go makes room, also for others.
    pub(super) fn account(&mut self, id: ConnId) {
        let Some(conn) = conn_of(&mut self.conns, id) else { return };
        let kept = conn.ledger.as_ref().map_or(0, |ledger| ledger.kept());
        let before = std::mem::replace(&mut conn.retained, kept);
        self.retained = self.retained + kept - before;
        if kept < before {
            let mut roomy = std::mem::take(&mut self.starved);
            roomy.insert(id);
            for id in roomy {
                if let Some(conn) = self.conn_mut(id)
                    && std::mem::take(&mut conn.wants_write)
                {
                    self.notices.push_back(Notice::Writable(id));
                }
            }
        }
    }

    /// Writes what there is room to keep, and keeps it.
    pub(super) fn write_kept(
        &mut self,
        now: Instant,
        id: ConnId,
        carrier: Carrier,
        chunks: &mut [Bytes],
    ) -> WriteOutcome {
        const NO_ROOM: WriteOutcome = WriteOutcome::Blocked { bytes: 0, chunks: 0 };
        let limits = &self.config.limits;
        let (least, total) = (limits.retain_min, limits.retain_total);
        let left = total.saturating_sub(self.retained);
        let Some(conn) = conn_of(&mut self.conns, id) else {
            return WriteOutcome::Gone;
        };
        let Some(ledger) = &mut conn.ledger else { return WriteOutcome::Gone };
        if !conn.machine.is_connected() {
            return NO_ROOM;
        }
        // Some of it is everybody's own: connections whose readers sleep must not stop the others.
        let (kept, most) = (ledger.kept(), ledger.most());
        let room = most.saturating_sub(kept).min(left.max(least.saturating_sub(kept)));
        if room == 0 && chunks.iter().any(|chunk| !chunk.is_empty()) {
            if kept < most {
                self.starved.insert(id);
            }
            return NO_ROOM;
        }
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut offered = Vec::with_capacity(chunks.len());
        for chunk in &*chunks {
            let part = chunk.slice(..chunk.len().min(room));
            room -= part.len();
            offered.push(part);
        }
        let bytes = match self.quic.write(carrier.handle, carrier.stream, &mut offered) {
            WriteOutcome::Written { bytes } | WriteOutcome::Blocked { bytes, .. } => bytes,
            outcome @ (WriteOutcome::Stopped(_) | WriteOutcome::Gone) => return outcome,
        };
        let (mut left, mut whole) = (bytes, 0);
        for chunk in chunks.iter_mut() {
            if chunk.len() > left {
                ledger.keep([chunk.split_to(left)]);
                break;
            }
            left -= chunk.len();
            whole += 1;
            ledger.keep([std::mem::take(chunk)]);
        }
        ledger.note_sent(now);
        self.account(id);
        if whole == chunks.len() {
            WriteOutcome::Written { bytes }
        } else {
            WriteOutcome::Blocked { bytes, chunks: whole }
        }
    }

    /// The local side has taken something, or will take no more: the partner is to hear of it.
    pub(super) fn note_progress(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        match conn.ledger.as_ref().and_then(|ledger| ledger.wants_report()) {
            Some(true) => {
                self.reports.insert(id);
                self.flush = true;
            }
            Some(false) if !std::mem::replace(&mut conn.reminded, true) => {
                self.deadlines.push(now + REPORT_AFTER, Due::Report(id));
            }
            Some(false) | None => {}
        }
    }

    pub(in crate::spn::endpoint) fn expire_report(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id) {
            conn.reminded = false;
            self.reports.insert(id);
            self.flush = true;
        }
    }

    /// The connection's report, if one is due and there is a way for it. The hub has no route for a consumer's before CONNECTED, or on a
    /// later leg before the provider's preamble has come.
    fn report(&mut self, id: ConnId) -> Option<(LinkId, AckEntry)> {
        let conn = self.conn_mut(id)?;
        let (carrier, key, ledger) = (conn.carrier?, conn.key?, conn.ledger.as_mut()?);
        if (conn.answer.is_some() || !conn.machine.is_confirmed()) && !conn.machine.is_over() {
            return None;
        }
        ledger.wants_report()?;
        let (received, flags) = ledger.report();
        Some((carrier.link, AckEntry { conn: key, received, flags }))
    }

    /// Queues the reports that are due; those of a session share frames.
    pub(super) fn send_reports(&mut self) {
        let mut lists: BTreeMap<LinkId, Vec<AckEntry>> = BTreeMap::new();
        for id in std::mem::take(&mut self.reports) {
            if let Some((link, entry)) = self.report(id) {
                lists.entry(link).or_default().push(entry);
            }
        }
        for (link, entries) in lists {
            for entries in entries.chunks(MAX_LIST as usize) {
                self.send(link, &Frame::DataAck(entries.to_vec()));
            }
        }
    }

    /// DATA_ACK: what the partner has taken.
    pub(super) fn on_data_ack(&mut self, now: Instant, entries: Vec<AckEntry>) {
        for AckEntry { conn, received, flags } in entries {
            if let Some(&id) = self.by_key.get(&conn) {
                self.conn_event(now, id, Event::Confirmed { resumable: true });
                self.note_heard(now, id);
                self.acknowledge(now, id, received, flags);
            }
        }
    }

    /// Takes the partner's report of what it has; says whether the connection is still there.
    fn acknowledge(&mut self, now: Instant, id: ConnId, received: u64, flags: u8) -> bool {
        let Some(conn) = self.conn_mut(id) else { return false };
        let Some(ledger) = &mut conn.ledger else { return true };
        let is_over = flags & flag::OVER != 0;
        let before = ledger.acknowledged();
        let outcome = ledger.acknowledge(received);
        ledger.note_acknowledged(now, before);
        if is_over {
            ledger.release();
        }
        self.account(id);
        match outcome {
            Err(Mismatch) => self.conn_event(now, id, Event::Mismatch),
            Ok(()) if is_over => self.conn_event(now, id, Event::SentOver),
            Ok(()) => {}
        }
        self.note_delivered(id);
        self.conn_mut(id).is_some()
    }

    /// CONNECTED.
    pub(in crate::spn::endpoint) fn on_connected(&mut self, now: Instant, link: LinkId, key: ConnKey, flags: u8) {
        if let Some(id) = self.conn_by_key(link, key) {
            let resumable = flags & flag::RESUMABLE != 0;
            self.conn_event(now, id, Event::Confirmed { resumable });
            if resumable {
                self.note_progress(now, id);
            } else {
                self.drop_ledger(id);
            }
        }
    }

    /// PAUSE_REQ. What is not known is answered when its stream has had time to come.
    pub(in crate::spn::endpoint) fn on_pause_req(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if let Some(id) = self.conn_by_key(link, key) {
            return self.conn_event(now, id, Event::PauseReq);
        }
        if self.tombs.contains_key(&key) {
            self.send(link, &Frame::PauseAck { conn: key });
            return self.repeat_tomb(key);
        }
        if self.paused_by_key(key).is_some() {
            return self.send(link, &Frame::PauseAck { conn: key });
        }
        let most = self.config.limits.connections;
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        if wire.stray_pauses.len() >= most {
            return self.send(link, &Frame::PauseAck { conn: key });
        }
        if wire.stray_pauses.insert(key) {
            self.deadlines.push(now + STRAY_PAUSE, Due::StrayPause(link, key));
        }
    }

    pub(in crate::spn::endpoint) fn expire_stray_pause(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        if wire.stray_pauses.remove(&key) {
            match self.conn_by_key(link, key) {
                Some(id) => self.conn_event(now, id, Event::PauseReq),
                None => self.send(link, &Frame::PauseAck { conn: key }),
            }
        }
    }

    /// A connection without a stream: any session may speak of it.
    pub(super) fn paused_by_key(&self, key: ConnKey) -> Option<ConnId> {
        let id = *self.by_key.get(&key)?;
        let conn = self.conns.get(id.index as usize)?.as_ref()?;
        conn.machine.is_paused().then_some(id)
    }

    /// Sessions that may be asked to resume something.
    fn askable(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.is_askable()).map(|(&id, _)| id).collect()
    }

    /// Asks every session for the next stream.
    pub(super) fn ask_resume(&mut self, id: ConnId) {
        self.leave(id);
        for link in self.askable() {
            self.ask_session(link, id);
            self.grant(link);
        }
        self.note_sought(id);
    }

    fn ask_session(&mut self, link: LinkId, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(request) = conn.request() else { return };
        let partner = conn.partner;
        conn.asked.insert(link);
        if let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) {
            wire.legs.remove(&id);
        }
        self.send(link, &request.frame(partner));
        self.work.push_back(Work::Conn(id, Event::ResumeAsked));
        self.seek(link, id);
    }

    /// A session is there: what waits for one asks it, too.
    pub(super) fn ask_new_session(&mut self, link: LinkId) {
        if !self.links.get(&link).is_some_and(super::link::Link::is_askable) {
            return;
        }
        let paused: Vec<_> =
            self.conns.iter().flatten().filter(|conn| conn.machine.is_paused()).map(|conn| conn.id).collect();
        for id in paused {
            self.ask_session(link, id);
        }
        self.grant(link);
        let lost: Vec<_> = self.tombs.values().filter(|tomb| tomb.link.is_none()).map(Tomb::frame).collect();
        for request in lost {
            self.send(link, &request);
        }
    }

    /// What was asked of a session is forgotten with it, and so may be the last reports over it.
    pub(super) fn forget_session(&mut self, link: LinkId) {
        let asked: Vec<_> =
            self.conns.iter().flatten().filter(|conn| conn.asked.contains(&link)).map(|conn| conn.id).collect();
        for id in asked {
            self.unask(id, link);
        }
        let mut lost = Vec::new();
        for tomb in self.tombs.values_mut().filter(|tomb| tomb.link == Some(link)) {
            tomb.link = None;
            lost.push(tomb.frame());
        }
        for request in lost {
            self.send_everywhere(&request);
        }
    }

    fn send_everywhere(&mut self, request: &Frame) {
        for link in self.askable() {
            self.send(link, request);
        }
    }

    fn unask(&mut self, id: ConnId, link: LinkId) {
        if let Some(conn) = self.conn_mut(id)
            && conn.asked.remove(&link)
            && conn.asked.is_empty()
        {
            self.work.push_back(Work::Conn(id, Event::ResumeUnasked));
        }
    }

    /// RESUME_ACK.
    pub(super) fn on_resume_ack(&mut self, now: Instant, link: LinkId, ack: ResumeAck) {
        let ResumeAck { conn: key, status, generation, received, flags } = ack;
        let Some(&id) = self.by_key.get(&key) else {
            match self.tombs.get(&key) {
                // Whoever waited for it knows now.
                Some(tomb) if tomb.request.is_aborted() => drop(self.tombs.remove(&key)),
                Some(_) => {}
                None if status == code::OK => {
                    self.send(link, &Frame::CloseReq { conn: key, code: code::RESUME_PARTNER_MISSING });
                }
                None => {}
            }
            return;
        };
        let consumer = self.config.role == Role::Consumer;
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(ledger) = &conn.ledger else { return };
        let is_paused = conn.machine.is_paused();
        match status {
            // The partner has lost the stream on which this end still is.
            code::OK if consumer && !is_paused => {
                if generation >= u64::from(ledger.generation) {
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

impl Conn {
    /// What RESUME_REQ says of this end.
    fn request(&self) -> Option<ResumeReq> {
        let ledger = self.ledger.as_ref()?;
        Some(ResumeReq {
            conn: self.key?,
            generation: ledger.generation.into(),
            received: ledger.received(),
            sent: ledger.sent(),
            flags: ledger.flags(),
            code: code::OK,
        })
    }
}
