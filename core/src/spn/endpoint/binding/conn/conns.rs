//! The connections of an endpoint: where they are found, what all of them keep together, and what they report.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{
    Conn,
    ledger::{Ledger, Mismatch, REPORT_AFTER},
    retention::Retention,
};
use crate::spn::{
    ConnKey,
    endpoint::{
        carrier::LinkId,
        config::{ConnId, Limits},
        machines::connection::Connection,
        ports::{Due, Ports},
    },
    wire::frame::{AckEntry, Flags},
};

/// A place for a connection.
#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// All connections.
pub(in crate::spn::endpoint) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    by_key: BTreeMap<ConnKey, ConnId>,
    /// Those that wait for a stream.
    waiting: usize,
    /// What they keep to send it again.
    retention: Retention,
    /// Those with something to report.
    reports: BTreeSet<ConnId>,
}

impl Conns {
    pub(in crate::spn::endpoint) fn new(limits: &Limits) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            by_key: BTreeMap::new(),
            waiting: 0,
            retention: Retention::new(limits),
            reports: BTreeSet::new(),
        }
    }

    pub(in crate::spn::endpoint) fn add(&mut self, machine: Connection, is_consumer: bool) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        let id = ConnId { index, generation };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.conn = Some(Conn::new(id, machine, is_consumer));
        }
        self.open += 1;
        id
    }

    /// Forgets a connection that has no stream and no key any more. Its id is never used again.
    pub(in crate::spn::endpoint) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let conn = slot.conn.take_if(|conn| conn.id() == id)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.open -= 1;
        self.waiting -= usize::from(conn.waits);
        Some(conn)
    }

    pub(in crate::spn::endpoint) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.slots.get(id.index as usize)?.conn.as_ref().filter(|conn| conn.id() == id)
    }

    pub(in crate::spn::endpoint) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots.get_mut(id.index as usize)?.conn.as_mut().filter(|conn| conn.id() == id)
    }

    /// How many there are.
    pub(in crate::spn::endpoint) fn len(&self) -> usize {
        self.open
    }

    pub(in crate::spn::endpoint) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.slots.iter().filter_map(|slot| slot.conn.as_ref())
    }

    /// Those of which `is_wanted` is true, as their owner changes while they are gone through.
    pub(in crate::spn::endpoint) fn ids(&self, is_wanted: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        self.iter().filter(|conn| is_wanted(conn)).map(Conn::id).collect()
    }

    /// A connection has that key from now on.
    pub(in crate::spn::endpoint) fn bind(&mut self, id: ConnId, key: ConnKey) {
        if let Some(conn) = self.get_mut(id) {
            conn.key = Some(key);
            self.by_key.insert(key, id);
        }
    }

    /// A connection has no key any more.
    pub(in crate::spn::endpoint) fn unbind(&mut self, id: ConnId) {
        if let Some(key) = self.get_mut(id).and_then(|conn| conn.key.take()) {
            self.by_key.remove(&key);
        }
    }

    pub(in crate::spn::endpoint) fn by_key(&self, key: &ConnKey) -> Option<ConnId> {
        self.by_key.get(key).copied()
    }

    /// A connection on a stream of that session.
    pub(in crate::spn::endpoint) fn on_link(&self, link: LinkId, key: &ConnKey) -> Option<ConnId> {
        let conn = self.get(self.by_key(key)?)?;
        conn.carrier().is_some_and(|carrier| carrier.link == link).then_some(conn.id())
    }

    /// A connection without a stream: any session may speak of it.
    pub(in crate::spn::endpoint) fn paused(&self, key: &ConnKey) -> Option<ConnId> {
        let conn = self.get(self.by_key(key)?)?;
        conn.machine().is_paused().then_some(conn.id())
    }

    /// Connections that wait for a stream.
    pub(in crate::spn::endpoint) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Notes whether a connection waits for a stream.
    pub(in crate::spn::endpoint) fn set_waits(&mut self, id: ConnId, waits: bool) {
        let Some(conn) = self.get_mut(id) else { return };
        match (std::mem::replace(&mut conn.waits, waits), waits) {
            (false, true) => self.waiting += 1,
            (true, false) => self.waiting -= 1,
            (true, true) | (false, false) => {}
        }
    }

    /// A connection can be resumed, if the partner can do it, too.
    pub(in crate::spn::endpoint) fn begin_ledger(&mut self, id: ConnId, limits: &Limits) {
        let Some(conn) = self.get_mut(id) else { return };
        let mut ledger = Box::new(Ledger::new(limits));
        if conn.machine().read_closed() {
            ledger.end();
        }
        conn.ledger = Some(ledger);
    }

    /// It cannot: nothing is kept for it.
    pub(in crate::spn::endpoint) fn drop_ledger(&mut self, id: ConnId, ports: &mut Ports) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.ledger = None;
        conn.asked.clear();
        conn.input.forget_answer();
        self.account(id, ports);
    }

    /// Counts what a connection keeps; what it has let go makes room, also for others.
    pub(in crate::spn::endpoint) fn account(&mut self, id: ConnId, ports: &mut Ports) {
        let Some(conn) = self.get_mut(id) else { return };
        let kept = conn.ledger.as_ref().map_or(0, |ledger| ledger.kept());
        let before = std::mem::replace(&mut conn.retained, kept);
        for id in self.retention.change(id, before, kept) {
            if let Some(conn) = self.get_mut(id) {
                conn.local.note_writable(ports);
            }
        }
    }

    /// Bytes that a connection may send and keep now.
    pub(in crate::spn::endpoint) fn room(&self, id: ConnId) -> u64 {
        let ledger = self.get(id).and_then(|conn| conn.ledger.as_ref());
        ledger.map_or(u64::MAX, |ledger| self.retention.room(ledger.kept(), ledger.most()))
    }

    /// A connection has found no room: it is to hear of it when others keep less, if it may keep more itself.
    pub(in crate::spn::endpoint) fn starve(&mut self, id: ConnId) {
        let ledger = self.get(id).and_then(|conn| conn.ledger.as_ref());
        if ledger.is_some_and(|ledger| ledger.kept() < ledger.most()) {
            self.retention.starve(id);
        }
    }

    /// Bytes that all of them keep.
    #[cfg(test)]
    pub(in crate::spn::endpoint) fn retained(&self) -> u64 {
        self.retention.kept()
    }

    /// The partner reports what it has. Says what that means, if the connection can be resumed.
    pub(in crate::spn::endpoint) fn acknowledge(
        &mut self,
        now: Instant,
        id: ConnId,
        received: u64,
        flags: Flags,
        ports: &mut Ports,
    ) -> Option<Result<Progressed, Mismatch>> {
        let ledger = self.get_mut(id)?.ledger.as_mut()?;
        let is_over = flags.contains(Flags::OVER);
        let before = ledger.acknowledged();
        let outcome = ledger.acknowledge(received);
        ledger.note_acknowledged(now, before);
        if is_over {
            ledger.release();
        }
        self.account(id, ports);
        Some(outcome.map(|()| if is_over { Progressed::Over } else { Progressed::On }))
    }

    /// Our direction is over for the partner: nothing is kept for it.
    pub(in crate::spn::endpoint) fn release(&mut self, id: ConnId, ports: &mut Ports) {
        if let Some(ledger) = self.get_mut(id).and_then(|conn| conn.ledger.as_mut()) {
            ledger.release();
            self.account(id, ports);
        }
    }

    /// The local side has taken something, or will take no more: the partner is to hear of it.
    pub(in crate::spn::endpoint) fn note_progress(&mut self, now: Instant, id: ConnId, ports: &mut Ports) {
        let Some(conn) = self.get_mut(id) else { return };
        match conn.ledger.as_ref().and_then(|ledger| ledger.wants_report()) {
            Some(true) => {
                self.reports.insert(id);
                ports.note_frames();
            }
            Some(false) if !std::mem::replace(&mut conn.is_report_due, true) => {
                ports.remind(now + REPORT_AFTER, Due::Report(id));
            }
            Some(false) | None => {}
        }
    }

    /// A report has waited for long enough.
    pub(in crate::spn::endpoint) fn expire_report(&mut self, id: ConnId, ports: &mut Ports) {
        if let Some(conn) = self.get_mut(id) {
            conn.is_report_due = false;
            self.reports.insert(id);
            ports.note_frames();
        }
    }

    /// The connection's report, if one is due and there is a way for it. The hub has no route for a consumer's before CONNECTED, or on a
    /// later leg before the provider's preamble has come.
    pub(in crate::spn::endpoint) fn report(&mut self, id: ConnId) -> Option<(LinkId, AckEntry)> {
        let conn = self.get_mut(id)?;
        let has_route = conn.machine().is_confirmed() && !conn.input.is_answer_awaited();
        if !has_route && !conn.machine().is_over() {
            return None;
        }
        let (carrier, key, ledger) = (conn.carrier()?, conn.key?, conn.ledger.as_mut()?);
        ledger.wants_report()?;
        let (received, flags) = ledger.report();
        Some((carrier.link, AckEntry { conn: key, received, flags }))
    }

    /// The reports that are due, by session.
    pub(in crate::spn::endpoint) fn take_reports(&mut self) -> BTreeMap<LinkId, Vec<AckEntry>> {
        let mut lists: BTreeMap<LinkId, Vec<AckEntry>> = BTreeMap::new();
        for id in std::mem::take(&mut self.reports) {
            if let Some((link, entry)) = self.report(id) {
                lists.entry(link).or_default().push(entry);
            }
        }
        lists
    }
}

/// What a partner's report means for our direction.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Progressed {
    /// It goes on.
    On,
    /// It is over for the partner.
    Over,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        quic::{Handle, StreamId},
        spn::{
            Protocol,
            endpoint::{carrier::Carrier, config::Notice, machines::connection::Config},
        },
        testing::first_instant,
    };

    const KEY: ConnKey = ConnKey([7; 16]);

    fn add(conns: &mut Conns) -> ConnId {
        conns.add(Connection::new(Config::default(), 0), true)
    }

    /// Puts a connection with a ledger on a stream of session 3.
    fn carry(conns: &mut Conns, id: ConnId, limits: &Limits) {
        let (handle, stream) = (Handle::of_test(0), StreamId::of_test(0));
        conns.get_mut(id).unwrap().board(Carrier { link: 3, handle, stream, protocol: Protocol::Sc02 });
        conns.bind(id, KEY);
        conns.begin_ledger(id, limits);
    }

    fn keep(conns: &mut Conns, id: ConnId, bytes: usize, ports: &mut Ports) {
        conns.get_mut(id).unwrap().ledger.as_mut().unwrap().keep([Bytes::from(vec![0; bytes])]);
        conns.account(id, ports);
    }

    #[test]
    fn an_id_is_never_used_again() {
        let mut conns = Conns::new(&Limits::default());
        let (first, second) = (add(&mut conns), add(&mut conns));
        conns.set_waits(first, true);
        conns.set_waits(first, true);
        assert_eq!((conns.len(), conns.waiting()), (2, 1));
        assert!(conns.remove(first).is_some() && conns.remove(first).is_none());
        assert_eq!((conns.len(), conns.waiting()), (1, 0));
        let third = add(&mut conns);
        assert_eq!(third.index, first.index);
        assert!(third != first && conns.get(first).is_none() && conns.get_mut(first).is_none());
        assert_eq!(conns.ids(|_| true), [third, second]);
        conns.set_waits(first, true);
        assert_eq!(conns.waiting(), 0, "an old id is harmless");
    }

    #[test]
    fn a_connection_is_found_by_its_key_on_the_session_that_carries_it() {
        let limits = Limits::default();
        let mut conns = Conns::new(&limits);
        let id = add(&mut conns);
        assert_eq!(conns.by_key(&KEY), None);
        carry(&mut conns, id, &limits);
        assert_eq!((conns.on_link(3, &KEY), conns.on_link(2, &KEY), conns.paused(&KEY)), (Some(id), None, None));
        assert!(conns.get_mut(id).unwrap().leave().is_some());
        assert_eq!((conns.on_link(3, &KEY), conns.by_key(&KEY)), (None, Some(id)));
        conns.unbind(id);
        assert_eq!(conns.by_key(&KEY), None);
    }

    #[test]
    fn what_one_lets_go_makes_room_for_another() {
        let limits =
            Limits { retain_base: 100, retain_max: 100, retain_min: 10, retain_total: 100, ..Limits::default() };
        let (mut conns, mut ports) = (Conns::new(&limits), Ports::of_test());
        let (one, two) = (add(&mut conns), add(&mut conns));
        assert_eq!(conns.room(one), u64::MAX, "without a ledger nothing is kept");
        conns.begin_ledger(one, &limits);
        conns.begin_ledger(two, &limits);
        keep(&mut conns, one, 95, &mut ports);
        keep(&mut conns, two, 10, &mut ports);
        assert_eq!((conns.room(one), conns.room(two), conns.retained()), (0, 0, 105));
        conns.get_mut(two).unwrap().local.want_write(true);
        conns.starve(two);
        let now = first_instant();
        assert_eq!(conns.acknowledge(now, one, 40, Flags::NONE, &mut ports), Some(Ok(Progressed::On)));
        assert_eq!((ports.take_notice(), ports.take_notice()), (Some(Notice::Writable(two)), None));
        assert_eq!(conns.acknowledge(now, one, 96, Flags::NONE, &mut ports), Some(Err(Mismatch)));
        assert_eq!(conns.acknowledge(now, one, 95, Flags::OVER, &mut ports), Some(Ok(Progressed::Over)));
        conns.drop_ledger(two, &mut ports);
        assert_eq!((conns.retained(), conns.acknowledge(now, two, 1, Flags::NONE, &mut ports)), (0, None));
    }

    #[test]
    fn reports_go_to_the_session_that_carries_the_connection() {
        let limits = Limits::default();
        let (mut conns, mut ports) = (Conns::new(&limits), Ports::of_test());
        let (id, now) = (conns.add(Connection::new(Config::default(), 0), false), first_instant());
        let incoming = crate::spn::endpoint::machines::connection::Event::Incoming { protocol: Protocol::Sc02 };
        conns.get_mut(id).unwrap().handle_event(now, incoming);
        carry(&mut conns, id, &limits);
        conns.note_progress(now, id, &mut ports);
        assert_eq!(conns.take_reports(), BTreeMap::new(), "there is nothing to report");
        let mut chunks = vec![Bytes::from_static(b"hello")];
        conns.get_mut(id).unwrap().take(&mut chunks, 0, 5);
        conns.note_progress(now, id, &mut ports);
        assert_eq!((conns.take_reports(), ports.deadlines.next()), (BTreeMap::new(), Some(now + REPORT_AFTER)));
        conns.expire_report(id, &mut ports);
        let entry = AckEntry { conn: KEY, received: 5, flags: Flags::NONE };
        assert!(ports.take_frames());
        assert_eq!(conns.take_reports(), BTreeMap::from([(3, vec![entry])]));
        // The end of the direction does not wait.
        conns.get_mut(id).unwrap().end_receiving();
        conns.note_progress(now, id, &mut ports);
        let entry = AckEntry { conn: KEY, received: 5, flags: Flags::OVER };
        assert_eq!(conns.take_reports(), BTreeMap::from([(3, vec![entry])]));
    }
}
