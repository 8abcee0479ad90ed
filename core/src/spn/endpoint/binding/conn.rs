//! A connection: its machine, and the stream that carries it.

mod halves;
mod payload;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use rand_chacha::rand_core::Rng;

use self::halves::Halves;
use super::ledger::Ledger;
use crate::{
    machine::{Hosted, Machine as _},
    quic::{Handle, WriteOutcome},
    spn::{
        ConnKey, Protocol, Role, Tag,
        endpoint::{
            ConnId, Due, Endpoint, Notice, Phase,
            carrier::{Asked, Carrier, LinkId},
            machines::connection::{Action, Connection, Event},
        },
        flow::{kept::Kept, stall::Stall},
        wire::{
            frame::{Frame, flag},
            preamble::{Collector, Preamble},
        },
    },
};

/// A connection of the endpoint.
pub(in crate::spn::endpoint) struct Conn {
    pub(in crate::spn::endpoint) id: ConnId,
    pub(in crate::spn::endpoint) machine: Hosted<Connection>,
    /// Its place among those that look for a session.
    ticket: Option<u64>,
    pub(in crate::spn::endpoint) carrier: Option<Carrier>,
    pub(in crate::spn::endpoint) key: Option<ConnKey>,
    /// Payload that came together with the preamble.
    pub(super) ahead: Bytes,
    /// The end of the stream was found while its first byte was looked for.
    pub(super) ahead_end: bool,
    /// What goes before the host's next byte: the preamble, bytes to be sent again.
    pub(in crate::spn::endpoint) out: VecDeque<Bytes>,
    /// FIN follows when `out` is empty.
    finish: bool,
    /// What was sent, as long as it may have to be sent again.
    pub(in crate::spn::endpoint) held: Kept,
    held_bytes: usize,
    pub(in crate::spn::endpoint) holding: bool,
    /// The machine knows that the host is there (provider).
    opened: bool,
    pub(in crate::spn::endpoint) has_sent: bool,
    has_received: bool,
    /// The host found nothing when it read, or no room when it wrote, and is to be told.
    pub(super) wants_read: bool,
    pub(super) wants_write: bool,
    pub(in crate::spn::endpoint) unread: Unread,
    /// The host may write.
    writing: Writing,
    halves: Halves,
    /// What is needed to go on on another stream, as long as that is possible.
    pub(in crate::spn::endpoint) ledger: Option<Box<Ledger>>,
    /// What of it was counted as kept.
    pub(in crate::spn::endpoint) retained: u64,
    /// The partner's RESUME is still to come on this stream.
    pub(in crate::spn::endpoint) answer: Option<Collector>,
    /// Who the partner is, if the hub has said so: nobody else goes on with the connection.
    pub(in crate::spn::endpoint) partner: Option<Tag>,
    pub(in crate::spn::endpoint) asked: Asked,
    /// The partner has been heard of.
    pub(in crate::spn::endpoint) heard: bool,
    /// The newest list of providers when it was begun.
    pub(in crate::spn::endpoint) listed: u64,
    /// Without a stream: those who may have it, as long as nothing has been heard.
    pub(in crate::spn::endpoint) candidates: Option<BTreeSet<[u8; 16]>>,
    /// CLOSE_REQ went out, or was left for the partner.
    was_closed: bool,
    /// A report is due some time.
    pub(super) reminded: bool,
    /// It is counted among those that wait for a stream.
    waits: bool,
    /// The reset that the host was shown.
    broken: Option<u64>,
    /// The last bytes were given to a stream then.
    pub(super) last_sent: Option<Instant>,
    /// The host wants it reset, once they are delivered.
    pub(in crate::spn::endpoint) parting: Option<Parting>,
}

/// A connection that is to be reset.
#[derive(Debug, Clone, Copy)]
pub(in crate::spn::endpoint) struct Parting {
    pub(super) code: u64,
    /// Then at the latest.
    pub(super) until: Instant,
}

/// Where a connection's receiving direction stands.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Unread {
    /// The host leaves bytes unread.
    pub(super) stall: Stall,
    /// Bytes that the host has taken.
    pub(in crate::spn::endpoint) taken: u64,
    /// What is unread comes on top of this session's window.
    pub(super) parked: Option<(LinkId, Handle)>,
}

#[derive(Debug, Clone, Copy)]
enum Writing {
    Open,
    Finished,
    Stopped(u64),
}

impl Conn {
    /// Goes onto a stream.
    pub(super) fn board(&mut self, carrier: Carrier) {
        self.carrier = Some(carrier);
        self.halves = Halves::default();
    }
}

impl Endpoint {
    pub(in crate::spn::endpoint) fn add_conn(&mut self) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.generations.push(0);
            (self.conns.len() - 1) as u32
        });
        let generation = self.generations.get(index as usize).copied().unwrap_or_default();
        let id = ConnId { index, generation };
        let seed = self.random.next_u64();
        if let Some(slot) = self.conns.get_mut(index as usize) {
            *slot = Some(Conn {
                id,
                machine: Hosted::new(Connection::new(self.config.connection.clone(), seed)),
                ticket: None,
                carrier: None,
                key: None,
                ahead: Bytes::new(),
                ahead_end: false,
                out: VecDeque::new(),
                finish: false,
                held: Kept::default(),
                held_bytes: 0,
                holding: self.config.role == Role::Consumer,
                opened: self.config.role == Role::Consumer,
                has_sent: false,
                has_received: false,
                wants_read: false,
                wants_write: false,
                unread: Unread::default(),
                writing: Writing::Open,
                halves: Halves::default(),
                ledger: None,
                retained: 0,
                answer: None,
                partner: None,
                asked: Asked::new(),
                heard: false,
                listed: 0,
                candidates: None,
                was_closed: false,
                reminded: false,
                waits: false,
                broken: None,
                last_sent: None,
                parting: None,
            });
        }
        self.open += 1;
        id
    }

    pub(in crate::spn::endpoint) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        conn_of(&mut self.conns, id)
    }

    pub(super) fn conn_by_key(&self, link: LinkId, key: ConnKey) -> Option<ConnId> {
        let id = *self.by_key.get(&key)?;
        let conn = self.conns.get(id.index as usize)?.as_ref()?;
        conn.carrier.is_some_and(|carrier| carrier.link == link).then_some(id)
    }

    /// Forgets a connection.
    pub(in crate::spn::endpoint) fn remove_conn(&mut self, now: Instant, id: ConnId) {
        self.detach(now, id);
        let Some(conn) = self.conns.get_mut(id.index as usize).and_then(|slot| slot.take_if(|conn| conn.id == id))
        else {
            return;
        };
        if let Some(ticket) = conn.ticket {
            self.waiting.remove(&ticket);
        }
        if conn.waits {
            self.paused -= 1;
            self.note_paused(now, self.paused + 1);
        }
        self.open -= 1;
        if let Some(generation) = self.generations.get_mut(id.index as usize) {
            *generation = generation.wrapping_add(1);
        }
        self.free.push(id.index);
    }

    /// Takes a connection off its stream for good: the next one, if any, carries a new one.
    fn detach(&mut self, now: Instant, id: ConnId) {
        self.note_read(now, id, false);
        self.leave(id);
        self.drop_ledger(id);
        let Some(conn) = self.conn_mut(id) else { return };
        conn.partner = None;
        conn.candidates = None;
        if let Some(key) = conn.key.take() {
            self.by_key.remove(&key);
        }
    }

    /// Takes a connection off its stream. What has come and was not read counts as not come.
    pub(in crate::spn::endpoint) fn leave(&mut self, id: ConnId) {
        self.note_candidates(id);
        let Some(conn) = self.conn_mut(id) else { return };
        conn.out.clear();
        conn.finish = false;
        conn.answer = None;
        if conn.ledger.is_some() {
            conn.ahead.clear();
        }
        self.unstall(id);
        if let Some(carrier) = self.conn_mut(id).and_then(|conn| conn.carrier.take()) {
            self.release(carrier);
        }
    }

    pub(in crate::spn::endpoint) fn expire_conn(&mut self, now: Instant, at: Instant, id: ConnId) {
        if self.conn_mut(id).is_some_and(|conn| conn.machine.expire(now, at)) {
            self.run_conn(now, id);
        }
    }

    /// A session has room: the connection goes onto this stream.
    pub(in crate::spn::endpoint) fn carry(&mut self, now: Instant, id: ConnId, carrier: Carrier) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.board(carrier);
        if let Some(ticket) = conn.ticket.take() {
            self.waiting.remove(&ticket);
        }
        self.conn_event(now, id, Event::SessionFound { protocol: carrier.protocol });
    }

    pub(in crate::spn::endpoint) fn conn_event(&mut self, now: Instant, id: ConnId, event: Event) {
        if let Some(conn) = self.conn_mut(id) {
            conn.machine.handle_event(now, event);
            self.run_conn(now, id);
        }
    }

    /// Does what the connection's machine asks for.
    fn run_conn(&mut self, now: Instant, id: ConnId) {
        while let Some(conn) = conn_of(&mut self.conns, id) {
            let Some(action) = conn.machine.next_action(&mut self.deadlines, Due::Conn(id)) else {
                break;
            };
            match action {
                Action::LookUp => {
                    let ticket = self.next_ticket;
                    self.next_ticket += 1;
                    self.waiting.insert(ticket, id);
                    if let Some(conn) = self.conn_mut(id) {
                        conn.ticket = Some(ticket);
                    }
                    self.serve = true;
                }
                Action::Announce => self.notices.push_back(Notice::Incoming(id)),
                Action::OpenStream => self.begin_stream(now, id),
                Action::SendHeld => {
                    conn.out.extend(conn.held.all());
                    if let Some(ledger) = &mut conn.ledger {
                        ledger.keep(conn.held.all());
                    }
                    self.account(id);
                    self.flush_conn(id);
                }
                Action::SendPauseAck => {
                    if let (Some(carrier), Some(key)) = (conn.carrier, conn.key) {
                        self.send(carrier.link, &Frame::PauseAck { conn: key });
                    }
                }
                Action::ForgetStream => self.detach(now, id),
                Action::LeaveStream => {
                    self.note_read(now, id, false);
                    self.leave(id);
                }
                Action::AskResume => self.ask_resume(id),
                Action::SendKept => {
                    if let Some(ledger) = &mut conn.ledger {
                        conn.out.extend(ledger.again());
                    }
                    self.on_writable(id);
                }
                Action::LeaveAbort { code } => {
                    conn.was_closed = true;
                    self.leave_abort(now, id, code);
                }
                Action::FinishStream => {
                    if let Some(ledger) = &mut conn.ledger {
                        ledger.finish();
                    }
                    conn.finish = true;
                    self.flush_conn(id);
                }
                Action::ResetStream { code } => {
                    conn.halves.end_sending();
                    conn.out.clear();
                    conn.finish = false;
                    if let Some(Carrier { handle, stream, .. }) = conn.carrier {
                        self.quic.reset(handle, stream, code);
                    }
                    self.note_stream_end(now, id);
                }
                Action::StopStream { code } => {
                    conn.halves.end_receiving();
                    if let Some(Carrier { handle, stream, .. }) = conn.carrier {
                        self.quic.stop(handle, stream, code);
                    }
                    self.note_stream_end(now, id);
                }
                Action::AwaitStreamEnd => {
                    conn.halves.await_end();
                    self.note_stream_end(now, id);
                }
                Action::SendCloseReq { code } => {
                    conn.was_closed = true;
                    if let (Some(carrier), Some(key)) = (conn.carrier, conn.key) {
                        self.send(carrier.link, &Frame::CloseReq { conn: key, code });
                    }
                }
                Action::SendCloseAck => {
                    if let (Some(carrier), Some(key)) = (conn.carrier, conn.key) {
                        self.send(carrier.link, &Frame::CloseAck { conn: key });
                    }
                }
                Action::LocalReset { code } => conn.broken = Some(code),
                Action::LocalStopped { code } => {
                    conn.writing = Writing::Stopped(code);
                    self.notices.push_back(Notice::Stopped(id, code));
                }
                Action::Disconnected => {
                    if conn.broken.is_none() && conn.machine.is_resumable() {
                        self.leave_tombstone(now, id);
                    }
                    let provides = self.config.role == Role::Provider;
                    let Some(conn) = self.conn_mut(id) else { return };
                    let is_cut = conn.broken.is_some() || conn.was_closed || conn.machine.abort_code() != 0;
                    if let Some(key) = conn.key.filter(|_| provides && is_cut && conn.ledger.is_some()) {
                        self.remember(now, key);
                    }
                    let Some(conn) = self.conn_mut(id) else { return };
                    let notice = match conn.broken {
                        Some(code) => Notice::Reset(id, code),
                        None => Notice::Ended(id),
                    };
                    self.notices.push_back(notice);
                    self.remove_conn(now, id);
                }
            }
        }
        self.count_paused(now, id);
    }

    /// Notes whether a connection waits for a session.
    pub(in crate::spn::endpoint) fn count_paused(&mut self, now: Instant, id: ConnId) {
        let is_ending = matches!(self.phase, Phase::Ending { .. });
        let Some(conn) = self.conn_mut(id) else { return };
        let waits = conn.machine.is_paused() || (is_ending && conn.machine.is_looking_up());
        if std::mem::replace(&mut conn.waits, waits) != waits {
            let before = self.paused;
            self.paused = if waits { before + 1 } else { before - 1 };
            self.note_paused(now, before);
        }
    }

    /// The stream is there: says whose it is.
    fn begin_stream(&mut self, now: Instant, id: ConnId) {
        let mut key = ConnKey([0; 16]);
        self.random.fill_bytes(&mut key.0);
        let resume = self.config.resume;
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.carrier.is_some_and(|carrier| carrier.protocol == Protocol::Sc02) {
            conn.key = Some(key);
            let flags = if resume { flag::RESUMABLE } else { 0 };
            conn.out.push_back(Preamble::Connect { conn: key, flags }.to_bytes());
            self.by_key.insert(key, id);
            if resume {
                self.begin_ledger(now, id);
            }
        }
        let link = self.conn_mut(id).and_then(|conn| conn.carrier).map(|carrier| carrier.link);
        let wire = link.and_then(|link| self.links.get(&link)?.wire.as_ref());
        let listed = wire.and_then(|wire| wire.roster.as_ref()).map_or(0, |roster| roster.number);
        if let Some(conn) = self.conn_mut(id) {
            conn.listed = listed;
            conn.machine.handle_event(now, Event::Opened);
        }
        self.on_writable(id);
    }

    /// Writes what goes before the host's bytes; says whether all of it is written.
    fn flush_conn(&mut self, id: ConnId) -> bool {
        let Some(conn) = conn_of(&mut self.conns, id) else { return false };
        let Some(Carrier { handle, stream, .. }) = conn.carrier else { return false };
        while !conn.out.is_empty() {
            match self.quic.write(handle, stream, conn.out.make_contiguous()) {
                WriteOutcome::Written { .. } => conn.out.clear(),
                WriteOutcome::Blocked { chunks, .. } => {
                    conn.out.drain(..chunks);
                    return false;
                }
                // The events that say so are on their way.
                WriteOutcome::Stopped(_) | WriteOutcome::Gone => return false,
            }
        }
        if std::mem::take(&mut conn.finish) {
            self.quic.finish(handle, stream);
        }
        true
    }

    pub(super) fn on_writable(&mut self, id: ConnId) {
        if self.flush_conn(id)
            && let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.wants_write)
        {
            self.notices.push_back(Notice::Writable(id));
        }
    }

    pub(super) fn on_readable(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let Some(Carrier { handle, stream, .. }) = conn.carrier else { return };
        // A reset must be heard of even when the host does not read.
        if let Some(code) = self.quic.received_reset(handle, stream) {
            return self.on_reset(now, id, code);
        }
        if !self.read_answer(now, id) {
            return;
        }
        self.note_unread(now, id);
        if let Some(conn) = self.conn_mut(id)
            && std::mem::take(&mut conn.wants_read)
        {
            self.notices.push_back(Notice::Readable(id));
        }
    }

    pub(in crate::spn::endpoint) fn on_acked(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.conn_mut(id) {
            conn.halves.end_sending();
            self.conn_event(now, id, Event::StreamAcked);
            self.note_stream_end(now, id);
            self.note_delivered(id);
        }
    }

    pub(in crate::spn::endpoint) fn on_reset(&mut self, now: Instant, id: ConnId, code: u64) {
        if let Some(conn) = self.conn_mut(id) {
            conn.halves.end_receiving();
            self.conn_event(now, id, Event::StreamReset { code });
        }
    }

    /// One half of the stream is gone, or the machine asks for the end of both.
    pub(super) fn note_stream_end(&mut self, now: Instant, id: ConnId) {
        if self.conn_mut(id).is_some_and(|conn| conn.halves.take_end()) {
            self.conn_event(now, id, Event::StreamClosed);
        }
    }
}

/// [`Endpoint::conn_mut`], for whoever needs other parts of the endpoint beside it.
pub(super) fn conn_of(conns: &mut [Option<Conn>], id: ConnId) -> Option<&mut Conn> {
    conns.get_mut(id.index as usize)?.as_mut().filter(|conn| conn.id == id)
}
