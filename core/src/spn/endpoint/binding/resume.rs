//! What outlives a session: reports, requests to resume, legs, and what is left of connections that have ended
//! (docs/protocols/spn.md, Pause and resume, RES-25 to RES-36).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    conn::{Carrier, Conn, conn_of},
    ledger::{Ledger, Mismatch, REPORT_AFTER},
    link::LinkId,
};
use crate::{
    quic::{ReadOutcome, StreamId, WriteOutcome},
    spn::{
        ConnKey, Protocol, Role, Tag,
        endpoint::{
            ConnId, Due, Endpoint, Notice, Work,
            machines::{connection::Event, session},
        },
        wire::{
            code,
            frame::{AckEntry, Frame, MAX_LIST, ResumeAck, ResumeReq, flag},
            preamble::{Collector, Preamble},
        },
    },
};

/// How long a connection that has ended in order is remembered: its last report may have been lost, which a silent hub shows only when the
/// session has been idle for too long (20 s) (RES-12).
const TOMBSTONE: Duration = Duration::from_secs(30);
/// PAUSE_REQ may overtake the stream that it speaks of (RES-14).
const STRAY_PAUSE: Duration = Duration::from_secs(1);

/// What is left of a connection: values, no bytes.
pub(in crate::spn::endpoint) struct Tomb {
    request: ResumeReq,
    partner: Option<Tag>,
    /// The session that carried it lives.
    link: Option<LinkId>,
    until: Instant,
}

impl Tomb {
    fn frame(&self) -> Frame {
        self.request.clone().frame(self.partner)
    }
}

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
            if conn.machine.is_deaf() {
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

    /// Takes the partner's word for what it has; says whether the connection is still there.
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

    /// CLOSE_ACK: the hub has no partner that it could tell.
    pub(super) fn on_close_ack(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if let Some(id) = self.conn_by_key(link, key) {
            self.conn_event(now, id, Event::CloseAck);
        } else if self.tombs.get(&key).is_some_and(|tomb| tomb.link == Some(link) && tomb.request.is_aborted()) {
            self.repeat_tomb(key);
        }
    }

    /// The last word may not have reached the partner: it is left for it wherever it may come to.
    pub(in crate::spn::endpoint) fn repeat_tomb(&mut self, key: ConnKey) {
        let Some(tomb) = self.tombs.get_mut(&key) else { return };
        tomb.link = None;
        let request = tomb.frame();
        self.send_everywhere(&request);
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

    /// The connection has ended, as this end knows: it is remembered for as long as the partner may miss the last word.
    pub(super) fn bury(&mut self, now: Instant, id: ConnId) {
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

    /// Consumer: the next stream, on the session that has answered first.
    fn open_leg(&mut self, now: Instant, link: LinkId, id: ConnId) {
        // The values may have ended or broken it.
        if self.conn_mut(id).is_none_or(|conn| !conn.machine.is_paused()) {
            return;
        }
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        let handle = wire.handle;
        let Some(stream) = self.quic.open(handle) else {
            // It is as if the answer had been on its way for longer.
            wire.legs.insert(id);
            return;
        };
        wire.streams.insert(stream, id);
        if let Some(conn) = self.conn_mut(id) {
            conn.answer = Some(Collector::default());
            if let Some(ledger) = &mut conn.ledger {
                ledger.generation = ledger.generation.saturating_add(1);
            }
        }
        self.link_event(now, link, session::Event::ConnectionOpened);
        self.begin_leg(now, id, Carrier { link, handle, stream, protocol: Protocol::Sc02 });
        self.listen(now, link);
    }

    /// There is stream credit again: what waits for it goes on, in order.
    pub(super) fn serve_legs(&mut self, now: Instant, link: LinkId) {
        loop {
            let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
            let Some(id) = wire.legs.pop_first() else { return };
            self.open_leg(now, link, id);
            let wire = self.links.get(&link).and_then(|link| link.wire.as_ref());
            if wire.is_some_and(|wire| wire.legs.contains(&id)) {
                return;
            }
        }
    }

    /// Begins a stream with RESUME, and goes on where the partner has stopped.
    fn begin_leg(&mut self, now: Instant, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.board(carrier);
        conn.asked.clear();
        if let (Some(key), Some(ledger)) = (conn.key, &mut conn.ledger) {
            ledger.doubt_reports();
            conn.out.push_back(resume(key, ledger));
        }
        self.conn_event(now, id, Event::Resumed);
        self.note_progress(now, id);
    }

    /// Provider: RESUME has come on a stream of the hub. The code refuses it.
    pub(super) fn take_leg(
        &mut self,
        now: Instant,
        link: LinkId,
        stream: StreamId,
        preamble: &Preamble,
        rest: Bytes,
    ) -> Result<(), u64> {
        let &Preamble::Resume { conn: key, flags, generation, offset, received } = preamble else {
            return Err(code::MALFORMED);
        };
        let id = *self.by_key.get(&key).ok_or(code::RESUME_PARTNER_MISSING)?;
        let conn = self.conn_mut(id).ok_or(code::RESUME_PARTNER_MISSING)?;
        let ledger = conn.ledger.as_mut().ok_or(code::RESUME_PARTNER_MISSING)?;
        if generation <= ledger.generation || !conn.machine.can_resume() {
            return Err(code::PAUSED);
        }
        if ledger.begin_leg(offset).is_err() {
            self.conn_event(now, id, Event::Mismatch);
            return Err(code::CONN_IN_USE);
        }
        ledger.generation = generation;
        if let Some(Carrier { handle, stream, .. }) = conn.carrier {
            self.quic.reset(handle, stream, code::PAUSED);
            self.quic.stop(handle, stream, code::PAUSED);
        }
        self.leave(id);
        // Its word is taken before anything is sent again; it may be the last that was missing.
        if !self.acknowledge(now, id, received, 0) {
            return Err(code::CONN_IN_USE);
        }
        let wire = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()).ok_or(code::PAUSED)?;
        wire.streams.insert(stream, id);
        let carrier = Carrier { link, handle: wire.handle, stream, protocol: Protocol::Sc02 };
        self.link_event(now, link, session::Event::ConnectionOpened);
        if let Some(conn) = self.conn_mut(id) {
            conn.ahead = rest;
        }
        if flags & flag::OVER != 0
            && let Some(ledger) = self.conn_mut(id).and_then(|conn| conn.ledger.as_mut())
        {
            ledger.release();
            self.account(id);
        }
        self.begin_leg(now, id, carrier);
        self.conn_event(now, id, Event::PartnerResumed);
        if flags & flag::OVER != 0 {
            self.conn_event(now, id, Event::SentOver);
        }
        if let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.wants_read)
        {
            self.notices.push_back(Notice::Readable(id));
        }
        Ok(())
    }

    /// Consumer, on a new leg: reads the provider's RESUME. Says whether payload may be read.
    pub(super) fn read_answer(&mut self, now: Instant, id: ConnId) -> bool {
        let mut chunks = Vec::new();
        while let Some(conn) = conn_of(&mut self.conns, id) {
            let (Some(collector), Some(carrier)) = (&mut conn.answer, conn.carrier) else { return true };
            let outcome = self.quic.read(carrier.handle, carrier.stream, &mut chunks, 1);
            let Some(mut chunk) = chunks.pop() else {
                match outcome {
                    ReadOutcome::More | ReadOutcome::Blocked | ReadOutcome::Gone => {}
                    ReadOutcome::Finished => self.conn_event(now, id, Event::Mismatch),
                    ReadOutcome::Reset(code) => self.on_reset(now, id, code),
                }
                return false;
            };
            match collector.take(&mut chunk) {
                Ok(None) => {}
                Ok(Some(preamble)) => {
                    conn.answer = None;
                    conn.ahead = chunk;
                    self.on_answer(now, id, &preamble);
                }
                Err(_) => self.conn_event(now, id, Event::Mismatch),
            }
        }
        false
    }

    fn on_answer(&mut self, now: Instant, id: ConnId, preamble: &Preamble) {
        let Some(conn) = self.conn_mut(id) else { return };
        let (key, Some(ledger)) = (conn.key, &mut conn.ledger) else { return };
        match *preamble {
            Preamble::Resume { conn, flags, generation, offset, received }
                if key == Some(conn) && generation == ledger.generation && ledger.begin_leg(offset).is_ok() =>
            {
                self.conn_event(now, id, Event::PartnerResumed);
                self.acknowledge(now, id, received, flags);
                self.note_progress(now, id);
            }
            Preamble::Connect { .. } | Preamble::Resume { .. } => self.conn_event(now, id, Event::Mismatch),
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

fn resume(conn: ConnKey, ledger: &Ledger) -> Bytes {
    Preamble::Resume {
        conn,
        flags: ledger.flags(),
        generation: ledger.generation,
        offset: ledger.acknowledged(),
        received: ledger.received(),
    }
    .to_bytes()
}

/// Sessions that were asked for the next stream of a connection.
pub(in crate::spn::endpoint) type Asked = BTreeSet<LinkId>;
