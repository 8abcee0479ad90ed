//! A connection of which nothing has been heard when its stream is lost: does a provider have it, or may it begin again?
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-2 to SEK-7).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::spn::{
    ConnKey,
    endpoint::{ConnId, Due, Endpoint, carrier::LinkId, machines::connection::Event},
    wire::{
        code,
        frame::{Frame, flag},
    },
};

/// For how long a provider remembers a connection that it must not take: longer than its consumer looks for it, and than a hub keeps the stream
/// of a consumer that is gone (SEK-5).
const REMEMBERED: Duration = Duration::from_secs(180);
/// Providers that have left and are remembered; older ones could have had anything.
const LEFT: usize = 256;
/// So many times [`Limits::connections`](crate::spn::endpoint::Limits) connections are remembered (SEK-6).
const MEMORY: usize = 4;

/// A provider process.
type Instance = [u8; 16];

/// Who may get the connections of a consumer's session, and who might once.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Roster {
    pub(in crate::spn::endpoint) number: u64,
    present: BTreeSet<Instance>,
    /// They get no connection, and can be asked.
    retiring: BTreeSet<Instance>,
    /// And the number of the first list that they were missing on.
    left: Vec<(Instance, u64)>,
    /// Up to that number there were some that cannot be asked, or are forgotten.
    opaque: u64,
}

impl Roster {
    pub(super) fn update(&mut self, number: u64, flags: u8, instances: Vec<Instance>, retiring: Vec<Instance>) {
        if number < self.number {
            return;
        }
        self.retiring = retiring.into_iter().collect();
        let present: BTreeSet<_> = instances.into_iter().collect();
        self.left.extend(self.present.difference(&present).map(|instance| (*instance, number)));
        if self.left.len() > LEFT {
            let excess = self.left.len() - LEFT;
            let forgotten = self.left.drain(..excess).map(|(_, until)| until).max();
            self.opaque = self.opaque.max(forgotten.unwrap_or_default());
        }
        // It is over with the first list that says so.
        if self.opaque == u64::MAX {
            self.opaque = number;
        }
        if flags & flag::OTHERS != 0 {
            self.opaque = u64::MAX;
        }
        (self.number, self.present) = (number, present);
    }

    /// Everybody who could have got a connection that was begun when that list was the newest; `None`: nobody can tell.
    fn since(&self, number: u64) -> Option<BTreeSet<Instance>> {
        let left = self.left.iter().filter(|(_, until)| *until > number).map(|(instance, _)| *instance);
        (self.opaque <= number).then(|| left.chain(self.present.iter().copied()).collect())
    }

    /// Whether it can be asked here.
    pub(in crate::spn::endpoint) fn has(&self, instance: &Instance) -> bool {
        self.present.contains(instance) || self.retiring.contains(instance)
    }
}

/// A provider's memory of connections that it must not take, or not again.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Spent {
    keys: BTreeMap<ConnKey, Instant>,
    /// Something was left out: it knows of nothing for certain before then.
    doubtful_until: Option<Instant>,
}

impl Spent {
    pub(in crate::spn::endpoint) fn has(&self, key: &ConnKey) -> bool {
        self.keys.contains_key(key)
    }
}

impl Endpoint {
    /// A consumer's connection is about to lose its stream: notes who could have it.
    pub(in crate::spn::endpoint) fn note_candidates(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.index as usize).and_then(Option::as_mut) else { return };
        let is_unheard = conn.ledger.is_some() && !conn.heard && conn.candidates.is_none();
        let Some(carrier) = conn.carrier.filter(|_| is_unheard && conn.key.is_some()) else { return };
        let wire = self.links.get(&carrier.link).and_then(|link| link.wire.as_ref());
        let roster = wire.filter(|wire| wire.handle == carrier.handle).and_then(|wire| wire.roster.as_ref());
        conn.candidates = roster.and_then(|roster| roster.since(conn.listed));
    }

    /// The partner has been heard of: it has the connection.
    pub(in crate::spn::endpoint) fn note_heard(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.candidates = None;
        if !std::mem::replace(&mut conn.heard, true) && std::mem::take(&mut conn.holding) {
            conn.held.clear();
            if conn.has_sent {
                self.conn_event(now, id, Event::BytesReleased);
            }
        }
    }

    /// Asks a session for those who could have a connection of which nothing has been heard.
    pub(in crate::spn::endpoint) fn seek(&mut self, link: LinkId, id: ConnId) {
        let Some(conn) = self.conns.get(id.index as usize).and_then(Option::as_ref) else { return };
        let (Some(conn_key), Some(candidates)) = (conn.key, &conn.candidates) else { return };
        if !conn.machine.is_paused() {
            return;
        }
        let wire = self.links.get(&link).and_then(|link| link.wire.as_ref());
        let Some(roster) = wire.and_then(|wire| wire.roster.as_ref()) else { return };
        let here: Vec<_> = candidates.iter().filter(|instance| roster.has(instance)).copied().collect();
        for instance in here {
            self.send(link, &Frame::Seek { conn: conn_key, instance });
        }
    }

    /// What can be sought is waited for like any connection, also while there is no session that could be asked; what nobody could have begins again.
    pub(in crate::spn::endpoint) fn note_sought(&mut self, id: ConnId) {
        match self.conn_mut(id).and_then(|conn| conn.candidates.as_ref()).map(BTreeSet::is_empty) {
            Some(true) => self.begin_again(id),
            Some(false) => self.work.push_back(crate::spn::endpoint::Work::Conn(id, Event::Sought)),
            None => {}
        }
    }

    /// PROVIDERS.
    pub(in crate::spn::endpoint) fn on_providers(
        &mut self,
        link: LinkId,
        number: u64,
        flags: u8,
        instances: Vec<Instance>,
        retiring: Vec<Instance>,
    ) {
        let Some(wire) = self.links.get_mut(&link).and_then(|link| link.wire.as_mut()) else { return };
        wire.roster.get_or_insert_default().update(number, flags, instances, retiring);
        self.send(link, &Frame::ProvidersAck { number });
        let sought = self.conns.iter().flatten().filter(|conn| conn.candidates.is_some() && conn.asked.contains(&link));
        for id in sought.map(|conn| conn.id).collect::<Vec<_>>() {
            self.seek(link, id);
        }
    }

    /// ABSENT.
    pub(in crate::spn::endpoint) fn on_absent(&mut self, key: ConnKey, instance: Instance) {
        let Some(&id) = self.by_key.get(&key) else { return };
        let Some(candidates) = self.conn_mut(id).and_then(|conn| conn.candidates.as_mut()) else { return };
        if candidates.remove(&instance) && candidates.is_empty() {
            self.begin_again(id);
        }
    }

    /// Nobody who could have it has it, or will.
    fn begin_again(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id).filter(|conn| conn.machine.is_paused()) else { return };
        conn.candidates = None;
        let (key, asked) = (conn.key, conn.asked.clone());
        for link in asked {
            if let Some(conn) = key {
                self.send(link, &Frame::CloseReq { conn, code: code::NOT_STARTED });
            }
        }
        self.work.push_back(crate::spn::endpoint::Work::Conn(id, Event::Absent));
    }

    /// SEEK: a consumer has lost its stream, and has heard nothing of this provider.
    pub(in crate::spn::endpoint) fn on_seek(&mut self, now: Instant, link: LinkId, key: ConnKey) {
        if self.tombs.contains_key(&key) {
            return self.repeat_tomb(key);
        }
        if let Some(&id) = self.by_key.get(&key) {
            // Its stream is no good any more; without one, it has asked for the next everywhere.
            let has_stream = self.conn_mut(id).is_some_and(|conn| conn.ledger.is_some() && !conn.machine.is_paused());
            if has_stream {
                self.conn_event(now, id, Event::StreamReset { code: code::PAUSED });
            }
            return;
        }
        let has_had_it = self.spent.has(&key) && !self.refused.contains(&key);
        if has_had_it || self.spent.doubtful_until.is_some_and(|until| now < until) {
            return;
        }
        self.remember(now, key);
        if self.spent.has(&key) {
            self.refused.insert(key);
            let instance = self.instance;
            self.send(link, &Frame::Absent { conn: key, instance });
        }
    }

    /// A provider will not take this connection, or not again.
    pub(in crate::spn::endpoint) fn remember(&mut self, now: Instant, key: ConnKey) {
        if self.spent.keys.len() >= self.config.limits.connections.saturating_mul(MEMORY) {
            self.spent.doubtful_until = Some(now + REMEMBERED);
            return;
        }
        let until = now + REMEMBERED;
        self.spent.keys.insert(key, until);
        self.deadlines.push(until, Due::Spent(key));
    }

    pub(in crate::spn::endpoint) fn expire_spent(&mut self, now: Instant, key: ConnKey) {
        if self.spent.keys.get(&key).is_some_and(|until| *until <= now) {
            self.spent.keys.remove(&key);
            self.refused.remove(&key);
        }
    }
}
