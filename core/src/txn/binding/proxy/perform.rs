//! What the machines want done: passed on to the host, or to the cache, or to one another.

use std::{net::IpAddr, time::Instant};

use super::{Conn, Due, Notice, Proxy, REFUSED_UNREAD, Side, Txn, TxnId};
use crate::{
    machine::{Hosted, Machine},
    net::{self, Close, Command, ConnId},
    txn::{
        accept,
        cache::WriteError,
        lookups::Order,
        record::{Lookup, Record},
        transaction::{Action, Event, Flight, Limit, Outcome, Transaction, WriteRefusal},
    },
};

impl Proxy {
    /// Makes a transaction of a connection that has come, which the accept machine does not know of yet.
    pub(super) fn begin(&mut self, now: Instant, client_ip: IpAddr) -> ConnId {
        let txns = &mut self.txns;
        self.conns.insert_with(|client| {
            let txn = txns.insert(Txn {
                machine: Hosted::new(Transaction::new(self.transaction.clone())),
                client,
                client_ip,
                origin: None,
                began: now,
                hit: None,
                reader: None,
                writes: None,
                waits: None,
                has_open_head: true,
            });
            Conn { txn, side: Side::Client }
        })
    }

    pub(super) fn txn(&mut self, id: TxnId) -> Option<&mut Txn> {
        self.txns.get_mut(id)
    }

    /// What happened to a connection to an origin, as the transaction sees it.
    pub(super) fn on_origin(&mut self, id: TxnId, seq: u64, event: net::Event) -> Option<Event> {
        let seq = Some(seq);
        Some(match event {
            net::Event::Resolved { addresses } => {
                self.end_lookup(id, !addresses.is_empty());
                Event::Resolved { addrs: addresses, seq }
            }
            net::Event::ResolveFailed { fault } => {
                self.end_lookup(id, false);
                self.close_origin(id, Close::Abort);
                Event::ResolveFailed { why: fault, seq }
            }
            net::Event::Connected => Event::Connected { seq },
            net::Event::ConnectFailed { fault } => {
                // The next address is another connection.
                self.close_origin(id, Close::Abort);
                Event::ConnectFailed { why: fault, seq }
            }
            net::Event::Data { bytes } => {
                self.counters.bytes_in += bytes.len() as u64;
                Event::OriginData { bytes }
            }
            net::Event::End => Event::OriginEof,
            net::Event::Sent { len } => Event::OriginSent { len },
            net::Event::Error { fault } => Event::OriginError { kind: fault },
        })
    }

    /// The connection to the origin, for its next question: the one whose name was resolved, or a new one.
    fn origin(&mut self, id: TxnId, seq: u64) -> Option<ConnId> {
        let txn = self.txns.get_mut(id)?;
        let side = Side::Origin { seq };
        if let Some(conn) = txn.origin {
            self.conns.get_mut(conn)?.side = side;
            return Some(conn);
        }
        txn.origin = Some(self.conns.insert(Conn { txn: id, side }));
        txn.origin
    }

    /// Closes a connection, unless that has been done.
    fn close(&mut self, conn: ConnId, how: Close, unread: usize) {
        if self.conns.remove(conn).is_some() {
            self.commands.push_back(Command::Close { conn, how, unread });
        }
    }

    /// Closes the connection to the origin in whatever phase it is, if there is one.
    fn close_origin(&mut self, id: TxnId, how: Close) {
        if let Some(conn) = self.txn(id).and_then(|txn| txn.origin.take()) {
            self.close(conn, how, 0);
        }
    }

    /// Closes a connection that is not to become a transaction.
    pub(super) fn refuse(&mut self, id: TxnId) {
        self.counters.refused += 1;
        if let Some(txn) = self.remove(id) {
            self.close(txn.client, Close::Fin, REFUSED_UNREAD);
        }
    }

    pub(super) fn accept_event(&mut self, now: Instant, event: accept::Event) {
        self.accept.handle_event(now, event);
        self.perform_accept();
        self.settle(now);
    }

    pub(super) fn perform_accept(&mut self) {
        while let Some(action) = self.accept.next_action(&mut self.deadlines, Due::Accept) {
            match action {
                // The host has opened its listeners before it started this.
                accept::Action::Listen { .. } => {}
                accept::Action::AcceptMore => self.wants_accept = true,
                accept::Action::Spawn { conn } => {
                    self.counters.accepted += 1;
                    self.work.push_back((TxnId(conn), Event::Accepted));
                }
                accept::Action::Refuse { conn } => self.refuse(TxnId(conn)),
                accept::Action::GiveWay { conn } => self.work.push_back((TxnId(conn), Event::GiveWay)),
                accept::Action::StopListening => {
                    self.wants_accept = false;
                    self.commands.push_back(Command::StopListening);
                }
                accept::Action::KillAll => self.cut_off_all(),
                accept::Action::Finished { error } => {
                    // After a fault of the listener some may still be there.
                    self.cut_off_all();
                    self.stopped = Some(Notice::Stopped { error });
                }
            }
        }
    }

    pub(super) fn kill_all(&mut self) {
        self.work.extend(self.txns.iter().map(|(id, _)| (id, Event::Shutdown)));
    }

    /// Ends every transaction. The first shutdown lets clients take what was already written to them; the second does not.
    fn cut_off_all(&mut self) {
        self.kill_all();
        self.kill_all();
    }

    /// Does the work that machines make for one another.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some((id, event)) = self.work.pop_front() {
                if let Some(txn) = self.txn(id) {
                    txn.machine.handle_event(now, event);
                    self.perform(now, id);
                }
            }
            match self.lookups.poll(now) {
                Some(Order::Ask { id, name, seq }) => {
                    let asked = self.origin(id, seq).map(|conn| Command::Resolve { conn, name });
                    self.commands.extend(asked);
                }
                Some(Order::GiveWay { id }) => self.work.push_back((id, Event::GiveWay)),
                None => break,
            }
        }
        self.deadlines.arm(&mut self.lookups_armed, self.lookups.poll_timeout(), Due::Lookups);
        if let Some(stopped) = self.stopped.take() {
            self.notices.push_back(stopped);
            self.commands.push_back(Command::Stop);
        }
    }

    /// The question for a connection's name is over; says what has been learnt of that name.
    pub(super) fn end_lookup(&mut self, id: TxnId, has_addresses: bool) {
        let asked = self.txn(id).and_then(|txn| txn.machine.asked()).map(|request| request.server.clone());
        if let Some(name) = asked {
            self.lookups.learn(&name, has_addresses);
        }
        self.lookups.end(id);
    }

    /// Drains a transaction.
    pub(super) fn perform(&mut self, now: Instant, id: TxnId) {
        // A write that was given up in this turn: the answer for its waiters depends on how the turn ends.
        let mut aborted = None;
        let finished = loop {
            let Some(txn) = self.txns.get_mut(id) else { break None };
            let (client, origin) = (txn.client, txn.origin);
            let Some(action) = txn.machine.next_action(&mut self.deadlines, Due::Txn(id)) else { break None };
            match action {
                Action::ReadClient { max } => self.commands.push_back(Command::Read { conn: client, max }),
                Action::WriteClient { bytes } => {
                    self.counters.bytes_out += bytes.len() as u64;
                    self.commands.push_back(Command::Write { conn: client, bytes });
                }
                Action::CloseClient { how } => {
                    let unread = txn.machine.may_discard();
                    self.close(client, how, unread);
                }
                Action::Resolve { name, seq } => {
                    let client_ip = txn.client_ip;
                    self.lookups.want(now, id, client_ip, name, seq);
                }
                Action::CancelResolve => {
                    // Its name is slow, or its client is: it is no name that others should wait for.
                    self.end_lookup(id, false);
                    self.close_origin(id, Close::Abort);
                }
                Action::Connect { addr, port, seq } => {
                    let address = (addr, port).into();
                    let dialled = self.origin(id, seq).map(|conn| Command::Connect { conn, address });
                    self.commands.extend(dialled);
                }
                Action::CancelConnect => self.close_origin(id, Close::Abort),
                Action::WriteOrigin { bytes } => {
                    self.counters.fetches += 1;
                    self.commands.extend(origin.map(|conn| Command::Write { conn, bytes }));
                }
                Action::ReadOrigin { max } => self.commands.extend(origin.map(|conn| Command::Read { conn, max })),
                Action::CloseOrigin { how } => self.close_origin(id, how),
                Action::OpenCacheRead { key, seq } => {
                    let reader = self.cache.open_read(now, &key);
                    let answer = match &reader {
                        Some(reader) => Event::CacheHit { len: reader.len(), seq: Some(seq) },
                        None => Event::CacheMiss { seq: Some(seq) },
                    };
                    if let Some(txn) = self.txn(id) {
                        txn.reader = reader;
                    }
                    self.work.push_back((id, answer));
                }
                Action::ReadCache { max } => {
                    let read = self.txn(id).and_then(|txn| txn.reader.as_mut()).and_then(|reader| reader.read(max));
                    let answer = read.map_or(Event::CacheReadFailed, |bytes| Event::CacheData { bytes });
                    self.work.push_back((id, answer));
                }
                Action::CloseCache => {
                    if let Some(txn) = self.txn(id) {
                        txn.reader = None;
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
                    let key = self.txn(id).and_then(|txn| txn.writes.clone());
                    let written = key.is_some_and(|key| self.cache.write(&key, bytes).is_ok());
                    let answer = if written { Event::CacheStored { len } } else { Event::CacheWriteFailed };
                    self.work.push_back((id, answer));
                }
                Action::CommitCache => {
                    if let Some(key) = self.txn(id).and_then(|txn| txn.writes.take()) {
                        let (answer, flight) = match self.cache.commit(now, &key) {
                            Ok(()) => (Event::CacheCommitted, Flight::Ok),
                            Err(_) => (Event::CacheWriteFailed, Flight::Abandoned),
                        };
                        self.work.push_back((id, answer));
                        self.land(id, &key, &flight);
                    }
                }
                Action::AbortCache => {
                    aborted = self.txn(id).and_then(|txn| txn.writes.take());
                    if let Some(key) = &aborted {
                        self.cache.abort(key);
                    }
                }
                Action::LeaveFlight => self.leave_flight(id),
                Action::Log { file, server, hit } => {
                    let count = if hit { &mut self.counters.hits } else { &mut self.counters.misses };
                    *count += 1;
                    if let Some(txn) = self.txn(id) {
                        txn.hit.get_or_insert(hit);
                    }
                    self.notices.push_back(Notice::Lookup(Lookup { at: now, file, server, hit }));
                }
                Action::Finished { outcome } => break Some(outcome),
            }
        };
        if let Some(txn) = self.txn(id)
            && txn.has_open_head
            && txn.machine.asked().is_some()
        {
            txn.has_open_head = false;
            self.accept.handle_event(now, accept::Event::HeadComplete { conn: id.0 });
            self.perform_accept();
        }
        if let Some(key) = aborted {
            self.land(id, &key, &finished.map_or(Flight::Abandoned, shared));
        }
        if let Some(outcome) = finished {
            self.finish(now, id, outcome);
        }
    }

    /// Begins to write an object, or waits for the transaction that writes it.
    fn open_write(&mut self, id: TxnId, key: &bytes::Bytes) -> Result<(), WriteRefusal> {
        match self.cache.open_write(key) {
            Ok(()) => {
                if let Some(txn) = self.txn(id) {
                    txn.writes = Some(key.clone());
                }
                Ok(())
            }
            Err(WriteError::Locked) if !self.transaction.single_flight => Err(WriteRefusal::Locked),
            Err(WriteError::Locked) if self.flights.join(key, id) => {
                self.counters.coalesced += 1;
                if let Some(txn) = self.txn(id) {
                    txn.waits = Some(key.clone());
                }
                Err(WriteRefusal::Locked)
            }
            Err(WriteError::Locked) => Err(WriteRefusal::Busy),
            Err(WriteError::Full | WriteError::TooLarge | WriteError::NotBegun) => Err(WriteRefusal::Failed),
        }
    }

    /// Tells everybody who has waited for an object.
    fn land(&mut self, leader: TxnId, key: &bytes::Bytes, flight: &Flight) {
        let server = |txn: &mut Txn| txn.machine.asked().map(|request| request.server.clone());
        let asked = self.txn(leader).and_then(server);
        for id in self.flights.land(key) {
            let Some(txn) = self.txn(id) else { continue };
            txn.waits = None;
            // With file-only keys (K1) it may have been another server that failed, which says nothing of this one.
            let is_of_another = matches!(flight, Flight::Failed(_)) && server(txn) != asked;
            let flight = if is_of_another { Flight::Abandoned } else { flight.clone() };
            self.work.push_back((id, Event::FlightDone(flight)));
        }
    }

    fn leave_flight(&mut self, id: TxnId) {
        if let Some(key) = self.txn(id).and_then(|txn| txn.waits.take()) {
            self.flights.leave(&key, &id);
        }
    }

    fn finish(&mut self, now: Instant, id: TxnId, outcome: Outcome) {
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
        let Some(txn) = self.remove(id) else { return };
        let asked = txn.machine.asked();
        let name = |of: fn(&crate::txn::request::Request) -> &bytes::Bytes| asked.map(of).cloned().unwrap_or_default();
        let record = Record {
            at: now,
            file: name(|request| &request.file),
            server: name(|request| &request.server),
            hit: txn.hit == Some(true),
            outcome,
            bytes: txn.machine.given(),
            ms: u64::try_from(now.saturating_duration_since(txn.began).as_millis()).unwrap_or(u64::MAX),
        };
        self.notices.push_back(Notice::Finished { client: txn.client, record });
        // What the machine has left open: a client that has gone, and an origin that was about to be asked.
        self.close(txn.client, Close::Abort, 0);
        if let Some(origin) = txn.origin {
            self.close(origin, Close::Abort, 0);
        }
        self.accept.handle_event(now, accept::Event::Ended { conn: id.0 });
        self.perform_accept();
    }

    /// Takes a transaction out of everything that points to it, but for its connections.
    fn remove(&mut self, id: TxnId) -> Option<Txn> {
        let txn = self.txns.remove(id)?;
        self.lookups.end(id);
        if let Some(of_client) = self.clients.get_mut(&txn.client_ip) {
            *of_client -= 1;
            if *of_client == 0 {
                self.clients.remove(&txn.client_ip);
            }
        }
        let txns = &self.txns;
        self.deadlines.sweep(txns.len(), |due| match due {
            Due::Accept | Due::Lookups => true,
            Due::Txn(id) => txns.contains(*id),
        });
        Some(txn)
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
