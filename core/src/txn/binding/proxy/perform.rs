//! What the machines want done: passed on to the host, or to the cache, or to one another.

use std::time::Instant;

use super::{Command, Conn, ConnId, Due, Notice, Proxy};
use crate::{
    machine::Machine,
    txn::{
        accept,
        cache::WriteError,
        lookups::Order,
        record::{Lookup, Record},
        transaction::{Action, Event, Flight, Limit, Outcome, WriteRefusal},
    },
};

impl Proxy {
    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index())?;
        if ConnId::new(id.index() as u32, slot.generation) == id { slot.conn.as_mut() } else { None }
    }

    pub(super) fn accept_event(&mut self, now: Instant, event: accept::Event) {
        self.accept.handle_event(now, event);
        self.perform_accept();
        self.settle(now);
    }

    pub(super) fn perform_accept(&mut self) {
        while let Some(action) = self.accept.poll_action() {
            match action {
                // The host has opened its listeners before it started this.
                accept::Action::Listen { .. } => {}
                accept::Action::AcceptMore => self.wants_accept = true,
                accept::Action::Spawn { conn } => {
                    self.counters.accepted += 1;
                    self.work.push_back((ConnId(conn), Event::Accepted));
                }
                accept::Action::Refuse { conn } => {
                    self.counters.refused += 1;
                    self.remove(ConnId(conn));
                }
                accept::Action::GiveWay { conn } => self.work.push_back((ConnId(conn), Event::GiveWay)),
                accept::Action::StopListening => {
                    self.wants_accept = false;
                    self.notices.push_back(Notice::StopListening);
                }
                accept::Action::KillAll => self.cut_off_all(),
                accept::Action::Finished { error } => {
                    // After a fault of the listener some may still be there.
                    self.cut_off_all();
                    self.stopped = Some(Notice::Stopped { error });
                }
            }
        }
        let due = self.accept.poll_timeout();
        self.deadlines.arm(&mut self.armed, due, Due::Accept);
    }

    pub(super) fn kill_all(&mut self) {
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.conn.is_some() {
                self.work.push_back((ConnId::new(index as u32, slot.generation), Event::Shutdown));
            }
        }
    }

    /// Leaves nobody behind. The first shutdown lets those who have been given everything take it; the second does not.
    fn cut_off_all(&mut self) {
        self.kill_all();
        self.kill_all();
    }

    /// Does the work that machines make for one another.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some((id, event)) = self.work.pop_front() {
                if let Some(conn) = self.conn(id) {
                    conn.machine.handle_event(now, event);
                    self.perform(now, id);
                }
            }
            match self.lookups.poll(now) {
                Some(Order::Ask { id, name, seq }) => {
                    self.commands.push_back(Command::Resolve { conn: id, name, seq });
                }
                Some(Order::GiveWay { id }) => self.work.push_back((id, Event::GiveWay)),
                None => break,
            }
        }
        self.deadlines.arm(&mut self.lookups_armed, self.lookups.poll_timeout(), Due::Lookups);
        self.notices.extend(self.stopped.take());
    }

    /// The question for a connection's name is over; says what has been learnt of that name.
    pub(super) fn end_lookup(&mut self, id: ConnId, has_addresses: bool) {
        let asked = self.conn(id).and_then(|conn| conn.machine.asked()).map(|request| request.server.clone());
        if let Some(name) = asked {
            self.lookups.learn(&name, has_addresses);
        }
        self.lookups.end(id);
    }

    /// Drains a transaction.
    pub(super) fn perform(&mut self, now: Instant, id: ConnId) {
        // A write that was given up in this turn: what its waiters are told depends on how the turn ends.
        let mut aborted = None;
        let finished = loop {
            let Some(action) = self.conn(id).and_then(|conn| conn.machine.poll_action()) else { break None };
            match action {
                Action::ReadClient { max } => self.commands.push_back(Command::ReadClient { conn: id, max }),
                Action::WriteClient { bytes } => {
                    self.counters.bytes_out += bytes.len() as u64;
                    self.commands.push_back(Command::WriteClient { conn: id, bytes });
                }
                Action::CloseClient { how } => {
                    let unread = self.conn(id).map_or(0, |conn| conn.machine.may_discard());
                    self.commands.push_back(Command::CloseClient { conn: id, how, unread });
                }
                Action::Resolve { name, seq } => {
                    if let Some(client) = self.conn(id).map(|conn| conn.client) {
                        self.lookups.want(now, id, client, name, seq);
                    }
                }
                Action::CancelResolve => {
                    // Its name is slow, or its client is: it is no name that others should wait for.
                    self.end_lookup(id, false);
                    self.commands.push_back(Command::CancelResolve { conn: id });
                }
                Action::Connect { addr, port, seq } => {
                    self.commands.push_back(Command::Connect { conn: id, address: (addr, port).into(), seq });
                }
                Action::CancelConnect => self.commands.push_back(Command::CancelConnect { conn: id }),
                Action::WriteOrigin { bytes } => {
                    self.counters.fetches += 1;
                    self.commands.push_back(Command::WriteOrigin { conn: id, bytes });
                }
                Action::ReadOrigin { max } => self.commands.push_back(Command::ReadOrigin { conn: id, max }),
                Action::CloseOrigin { how } => self.commands.push_back(Command::CloseOrigin { conn: id, how }),
                Action::OpenCacheRead { key, seq } => {
                    let reader = self.cache.open_read(now, &key);
                    let answer = match &reader {
                        Some(reader) => Event::CacheHit { len: reader.len(), seq: Some(seq) },
                        None => Event::CacheMiss { seq: Some(seq) },
                    };
                    if let Some(conn) = self.conn(id) {
                        conn.reader = reader;
                    }
                    self.work.push_back((id, answer));
                }
                Action::ReadCache { max } => {
                    let read = self.conn(id).and_then(|conn| conn.reader.as_mut()).and_then(|reader| reader.read(max));
                    let answer = read.map_or(Event::CacheReadFailed, |bytes| Event::CacheData { bytes });
                    self.work.push_back((id, answer));
                }
                Action::CloseCache => {
                    if let Some(conn) = self.conn(id) {
                        conn.reader = None;
                    }
                }
                Action::OpenCacheWrite { key, seq } => {
                    let answer = match self.open_write(id, &key) {
                        Ok(()) => Event::CacheWriteReady { seq: Some(seq) },
                        Err(why) => Event::CacheWriteRefused { why, seq: Some(seq) },
                    };
                    self.work.push_back((id, answer));
                }
                Action::WriteCache { bytes } => {
                    let len = bytes.len() as u64;
                    let key = self.conn(id).and_then(|conn| conn.writes.clone());
                    let written = key.is_some_and(|key| self.cache.write(&key, bytes).is_ok());
                    let answer = if written { Event::CacheStored { len } } else { Event::CacheWriteFailed };
                    self.work.push_back((id, answer));
                }
                Action::CommitCache => {
                    if let Some(key) = self.conn(id).and_then(|conn| conn.writes.take()) {
                        let (answer, flight) = match self.cache.commit(now, &key) {
                            Ok(()) => (Event::CacheCommitted, Flight::Ok),
                            Err(_) => (Event::CacheWriteFailed, Flight::Abandoned),
                        };
                        self.work.push_back((id, answer));
                        self.land(id, &key, &flight);
                    }
                }
                Action::AbortCache => {
                    aborted = self.conn(id).and_then(|conn| conn.writes.take());
                    if let Some(key) = &aborted {
                        self.cache.abort(key);
                    }
                }
                Action::LeaveFlight => self.leave_flight(id),
                Action::Log { file, server, hit } => {
                    let count = if hit { &mut self.counters.hits } else { &mut self.counters.misses };
                    *count += 1;
                    if let Some(conn) = self.conn(id) {
                        conn.hit.get_or_insert(hit);
                    }
                    self.notices.push_back(Notice::Lookup(Lookup { at: now, file, server, hit }));
                }
                Action::Finished { outcome } => break Some(outcome),
            }
        };
        if let Some(conn) = self.conn(id)
            && conn.has_open_head
            && conn.machine.asked().is_some()
        {
            conn.has_open_head = false;
            self.accept.handle_event(now, accept::Event::HeadComplete { conn: id.0 });
            self.perform_accept();
        }
        if let Some(key) = aborted {
            self.land(id, &key, &finished.map_or(Flight::Abandoned, shared));
        }
        match finished {
            Some(outcome) => self.finish(now, id, outcome),
            None => {
                if let Some(slot) = self.slots.get_mut(id.index())
                    && let Some(conn) = &mut slot.conn
                {
                    self.deadlines.arm(&mut conn.armed, conn.machine.poll_timeout(), Due::Conn(id));
                }
            }
        }
    }

    /// Begins to write an object, or waits for whoever writes it.
    fn open_write(&mut self, id: ConnId, key: &bytes::Bytes) -> Result<(), WriteRefusal> {
        match self.cache.open_write(key) {
            Ok(()) => {
                if let Some(conn) = self.conn(id) {
                    conn.writes = Some(key.clone());
                }
                Ok(())
            }
            Err(WriteError::Locked) if !self.transaction.single_flight => Err(WriteRefusal::Locked),
            Err(WriteError::Locked) if self.flights.join(key, id) => {
                self.counters.coalesced += 1;
                if let Some(conn) = self.conn(id) {
                    conn.waits = Some(key.clone());
                }
                Err(WriteRefusal::Locked)
            }
            Err(WriteError::Locked) => Err(WriteRefusal::Busy),
            Err(WriteError::Full | WriteError::TooLarge | WriteError::NotBegun) => Err(WriteRefusal::Failed),
        }
    }

    /// Tells everybody who has waited for an object.
    fn land(&mut self, leader: ConnId, key: &bytes::Bytes, flight: &Flight) {
        let server = |conn: &mut Conn| conn.machine.asked().map(|request| request.server.clone());
        let asked = self.conn(leader).and_then(server);
        for id in self.flights.land(key) {
            let Some(conn) = self.conn(id) else { continue };
            conn.waits = None;
            // With file-only keys (K1) it may have been another server that failed, which says nothing of this one.
            let is_of_another = matches!(flight, Flight::Failed(_)) && server(conn) != asked;
            let flight = if is_of_another { Flight::Abandoned } else { flight.clone() };
            self.work.push_back((id, Event::FlightDone(flight)));
        }
    }

    fn leave_flight(&mut self, id: ConnId) {
        if let Some(key) = self.conn(id).and_then(|conn| conn.waits.take()) {
            self.flights.leave(&key, &id);
        }
    }

    fn finish(&mut self, now: Instant, id: ConnId, outcome: Outcome) {
        match outcome {
            Outcome::Served { .. } => {}
            Outcome::Malformed { .. } => self.counters.malformed += 1,
            Outcome::ClientLeft
            | Outcome::NoSuchFile
            | Outcome::ResolveFailed
            | Outcome::ConnectFailed
            | Outcome::OriginFailed
            | Outcome::RefusedOrigin
            | Outcome::CacheFailed
            | Outcome::Busy
            | Outcome::TimedOut { .. }
            | Outcome::ShutDown => *self.counters.failures.entry(outcome.name()).or_default() += 1,
        }
        self.leave_flight(id);
        let Some(conn) = self.remove(id) else { return };
        let asked = conn.machine.asked();
        let name = |of: fn(&crate::txn::request::Request) -> &bytes::Bytes| asked.map(of).cloned().unwrap_or_default();
        self.notices.push_back(Notice::Finished(Record {
            at: now,
            file: name(|request| &request.file),
            server: name(|request| &request.server),
            hit: conn.hit == Some(true),
            outcome,
            bytes: conn.machine.given(),
            ms: u64::try_from(now.saturating_duration_since(conn.began).as_millis()).unwrap_or(u64::MAX),
        }));
        self.commands.push_back(Command::Forget { conn: id });
        self.accept.handle_event(now, accept::Event::Ended { conn: id.0 });
        self.perform_accept();
    }

    /// Takes a connection out of everything that points to it.
    fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.conn(id)?;
        let slot = self.slots.get_mut(id.index())?;
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index() as u32);
        self.lookups.end(id);
        if let Some(of_client) = self.clients.get_mut(&conn.client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.clients.remove(&conn.client);
            }
        }
        let live = self.slots.len() - self.free.len();
        let slots = &self.slots;
        self.deadlines.sweep(live, |due| match due {
            Due::Accept | Due::Lookups => true,
            Due::Conn(id) => slots
                .get(id.index())
                .is_some_and(|slot| slot.conn.is_some() && ConnId::new(id.index() as u32, slot.generation) == *id),
        });
        Some(conn)
    }
}

/// What a failed fetch means to those who waited for it: the same, unless it says nothing of the object (rule P3).
fn shared(outcome: Outcome) -> Flight {
    match outcome {
        Outcome::NoSuchFile
        | Outcome::ResolveFailed
        | Outcome::ConnectFailed
        | Outcome::OriginFailed
        | Outcome::RefusedOrigin
        | Outcome::CacheFailed => Flight::Failed(outcome),
        Outcome::Served { .. }
        | Outcome::Malformed { .. }
        | Outcome::ClientLeft
        | Outcome::Busy
        | Outcome::TimedOut { which: Limit::Head | Limit::ClientWrite | Limit::Transaction }
        | Outcome::ShutDown => Flight::Abandoned,
    }
}
