//! One handler for each state: it does the state's part, names the next state, and arranges the next event.
//!
//! An event that no row of the tables in docs/protocols/txn-states.md names is a fault of the host: it is counted, and nothing else.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Action, CacheRead, Close, Committing, Connecting, Event, Fetch, Flight, Held, Lookup, Outcome, Reading, Sending,
    Serve, Source, State, Timer, Transaction, WriteRefusal,
};
use crate::{
    machine::State as _,
    txn::{
        allow::literal,
        request::{HeadReader, Progress, Request},
    },
};

impl Transaction {
    pub(super) fn start(&mut self, now: Instant, event: Event) -> State {
        match event {
            Event::Accepted => {}
            other @ (Event::GiveWay | Event::Shutdown | on!(client lookup read room store flight name dial origin)) => {
                return self.unexpected(State::Start, &other);
            }
        }
        self.parts.timers.set_after(Timer::Head, now, self.config.head_timeout);
        self.parts.timers.set_after(Timer::Transaction, now, self.config.transaction_timeout);
        self.parts.act(Action::ReadClient { max: self.config.head_max });
        State::ReadRequest(HeadReader::new(self.config.head_max, self.config.strict_head))
    }

    pub(super) fn read_request(&mut self, now: Instant, event: Event, mut head: HeadReader) -> State {
        let bytes = match event {
            Event::ClientData { bytes } => bytes,
            Event::ClientEof => return self.fail(Held::default(), Outcome::ClientLeft),
            other @ (Event::ClientError { .. }
            | Event::ClientSent { .. }
            | on!(host lookup read room store flight name dial origin)) => {
                return self.unexpected(State::ReadRequest(head), &other);
            }
        };
        match head.push(bytes) {
            Ok(Progress::More(room)) => {
                self.parts.act(Action::ReadClient { max: room });
                State::ReadRequest(head)
            }
            Ok(Progress::Complete { request, surplus }) => {
                self.parts.timers.stop(Timer::Head);
                self.asked = Some(request.clone());
                if !self.config.allow.allows_name(&request.server) {
                    return self.fail(Held::default(), Outcome::RefusedOrigin);
                }
                let key = self.config.key_mode.key(&request);
                let next = self.look_up(now, Lookup { request, key, source: Source::Unknown });
                self.discard(surplus);
                next
            }
            Err(why) => self.fail(Held::default(), Outcome::Malformed { why }),
        }
    }

    /// Asks the cache.
    fn look_up(&mut self, now: Instant, lookup: Lookup) -> State {
        let seq = self.next_seq();
        self.parts.act(Action::OpenCacheRead { key: lookup.key.clone(), seq });
        self.parts.timers.set_after(Timer::Cache, now, self.config.cache_timeout);
        State::CacheLookup(lookup)
    }

    pub(super) fn cache_lookup(&mut self, now: Instant, event: Event, lookup: Lookup) -> State {
        match event {
            // An object has at least one byte (O3).
            Event::CacheHit { len: 0, .. } => {
                self.fail(Held { reads_cache: true, ..Held::default() }, Outcome::CacheFailed)
            }
            Event::CacheHit { len, .. } => {
                self.log(&lookup.request, true);
                self.read_on(now, CacheRead { lookup, left: len })
            }
            Event::CacheMiss { .. } => {
                self.log(&lookup.request, false);
                if lookup.source != Source::Unknown {
                    return self.fail(Held::default(), Outcome::CacheFailed); // D15
                }
                self.prepare_write(now, Fetch { request: lookup.request, key: lookup.key, is_stored: true })
            }
            other @ (on!(host client read room store flight name dial origin)) => {
                self.unexpected(State::CacheLookup(lookup), &other)
            }
        }
    }

    /// Asks for the next piece of the object.
    fn read_on(&mut self, now: Instant, read: CacheRead) -> State {
        let left = usize::try_from(read.left).unwrap_or(usize::MAX);
        self.parts.act(Action::ReadCache { max: left.min(self.config.chunk) });
        self.parts.timers.set_after(Timer::Cache, now, self.config.cache_timeout);
        State::CacheRead(read)
    }

    pub(super) fn cache_read(&mut self, now: Instant, event: Event, mut read: CacheRead) -> State {
        match event {
            Event::CacheData { bytes } if self.client.owed == 0 && (1..=read.left).contains(&(bytes.len() as u64)) => {
                read.left -= bytes.len() as u64;
                self.parts.timers.stop(Timer::Cache);
                self.give(now, bytes);
                State::CacheRead(read)
            }
            Event::ClientSent { len } => match (self.took(len), read.left) {
                (false, _) => State::CacheRead(read),
                (true, 0) => {
                    self.parts.act(Action::CloseCache);
                    self.close_client(Close::Fin);
                    self.end(Outcome::Served { hit: read.lookup.source != Source::Own, bytes: self.client.given })
                }
                (true, _) => self.read_on(now, read),
            },
            // Once, and only while the client has nothing of it yet (E5).
            Event::CacheReadFailed if self.client.given == 0 && read.lookup.source == Source::Unknown => {
                self.parts.act(Action::CloseCache);
                self.prepare_write(now, Fetch { request: read.lookup.request, key: read.lookup.key, is_stored: true })
            }
            Event::CacheReadFailed => self.fail(State::CacheRead(read).held(), Outcome::CacheFailed),
            other @ (Event::ClientData { .. }
            | Event::ClientEof
            | Event::ClientError { .. }
            | Event::CacheData { .. }
            | on!(host lookup room store flight name dial origin)) => self.unexpected(State::CacheRead(read), &other),
        }
    }

    /// Asks the cache for room.
    fn prepare_write(&mut self, now: Instant, fetch: Fetch) -> State {
        let seq = self.next_seq();
        self.parts.act(Action::OpenCacheWrite { key: fetch.key.clone(), seq });
        self.parts.timers.set_after(Timer::Cache, now, self.config.cache_timeout);
        State::CachePrepareWrite(fetch)
    }

    pub(super) fn cache_prepare_write(&mut self, now: Instant, event: Event, fetch: Fetch) -> State {
        let why = match event {
            Event::CacheWriteReady { .. } => {
                self.parts.timers.stop(Timer::Cache);
                return self.fetch(now, fetch);
            }
            Event::CacheWriteRefused { why, .. } => why,
            other @ (on!(host client lookup read store flight name dial origin)) => {
                return self.unexpected(State::CachePrepareWrite(fetch), &other);
            }
        };
        self.parts.timers.stop(Timer::Cache);
        match (why, self.config.serve) {
            (WriteRefusal::Locked, serve) if self.config.single_flight => {
                // It goes on when the flight is abandoned and another one leads the next.
                if serve == Serve::Streamed && !self.parts.timers.is_set(Timer::Flight) {
                    self.parts.timers.set_after(Timer::Flight, now, self.config.flight_timeout);
                }
                State::WaitFlight(fetch)
            }
            (WriteRefusal::Busy, _) | (WriteRefusal::Locked, Serve::Stored) => {
                self.fail(Held::default(), Outcome::Busy)
            }
            (WriteRefusal::Failed, Serve::Stored) => self.fail(Held::default(), Outcome::CacheFailed),
            // The client can be served without the cache.
            (WriteRefusal::Locked | WriteRefusal::Failed, Serve::Streamed) => {
                self.fetch(now, Fetch { is_stored: false, ..fetch })
            }
        }
    }

    pub(super) fn wait_flight(&mut self, now: Instant, event: Event, fetch: Fetch) -> State {
        let flight = match event {
            Event::FlightDone(flight) => flight,
            other @ (on!(host client lookup read room store name dial origin)) => {
                return self.unexpected(State::WaitFlight(fetch), &other);
            }
        };
        match flight {
            Flight::Ok => {
                self.parts.timers.stop(Timer::Flight);
                self.look_up(now, Lookup { request: fetch.request, key: fetch.key, source: Source::Another })
            }
            Flight::Failed(outcome) => self.fail(Held::default(), outcome),
            Flight::Abandoned => self.prepare_write(now, fetch),
        }
    }

    /// A fetch that is paced by a slow client of its own must not hold up others.
    pub(super) fn flight_timeout(&mut self, now: Instant, state: State) -> State {
        let State::WaitFlight(fetch) = state else { return state };
        self.parts.act(Action::LeaveFlight);
        self.fetch(now, Fetch { is_stored: false, ..fetch })
    }

    /// Begins to fetch: an address is connected to, a name is resolved first.
    fn fetch(&mut self, now: Instant, fetch: Fetch) -> State {
        self.parts.timers.stop(Timer::Flight);
        if let Some(address) = literal(&fetch.request.server) {
            return self.choose_address(now, fetch, vec![address]);
        }
        let seq = self.next_seq();
        self.parts.act(Action::Resolve { name: fetch.request.server.clone(), seq });
        self.parts.timers.set_after(Timer::Resolve, now, self.config.resolve_timeout);
        State::Resolve(fetch)
    }

    pub(super) fn resolve(&mut self, now: Instant, event: Event, fetch: Fetch) -> State {
        match event {
            Event::Resolved { addrs, .. } => {
                self.parts.timers.stop(Timer::Resolve);
                self.choose_address(now, fetch, addrs)
            }
            Event::ResolveFailed { .. } => {
                self.fail(Held { writes_cache: fetch.is_stored, ..Held::default() }, Outcome::ResolveFailed)
            }
            other @ (on!(host client lookup read room store flight dial origin)) => {
                self.unexpected(State::Resolve(fetch), &other)
            }
        }
    }

    /// Tries those addresses that may be asked: a name that is allowed may still lead where it must not (P7).
    fn choose_address(&mut self, now: Instant, fetch: Fetch, addresses: Vec<IpAddr>) -> State {
        let config = self.config.clone();
        let none = if addresses.is_empty() { Outcome::ResolveFailed } else { Outcome::RefusedOrigin };
        let may = |ip: &IpAddr| config.allow.allows_address(SocketAddr::new(*ip, config.origin_port), &config.own);
        let left = alternate(addresses.into_iter().filter(may));
        self.connect_next(now, Connecting { fetch, left }, none)
    }

    /// Tries the next address; without one the transaction ends with `otherwise`.
    fn connect_next(&mut self, now: Instant, mut connecting: Connecting, otherwise: Outcome) -> State {
        let Some(addr) = connecting.left.pop_front() else {
            return self.fail(Held { writes_cache: connecting.fetch.is_stored, ..Held::default() }, otherwise);
        };
        let seq = self.next_seq();
        self.parts.act(Action::Connect { addr, port: self.config.origin_port, seq });
        self.parts.timers.set_after(Timer::Connect, now, self.config.connect_timeout);
        State::Connect(connecting)
    }

    pub(super) fn connect(&mut self, now: Instant, event: Event, connecting: Connecting) -> State {
        match event {
            Event::Connected { .. } => {
                self.parts.timers.stop(Timer::Connect);
                let request = &connecting.fetch.request;
                let head = if self.config.forward_as_spaced { request.head_as_spaced() } else { request.head() };
                let unsent = head.len() as u64;
                self.parts.act(Action::WriteOrigin { bytes: head });
                self.parts.timers.set_after(Timer::Origin, now, self.config.origin_idle_timeout);
                State::SendRequest(Sending { fetch: connecting.fetch, unsent })
            }
            Event::ConnectFailed { .. } => self.connect_next(now, connecting, Outcome::ConnectFailed),
            other @ (on!(host client lookup read room store flight name origin)) => {
                self.unexpected(State::Connect(connecting), &other)
            }
        }
    }

    pub(super) fn connect_timeout(&mut self, now: Instant, state: State) -> State {
        let State::Connect(connecting) = state else { return state };
        self.parts.act(Action::CancelConnect);
        self.connect_next(now, connecting, Outcome::ConnectFailed)
    }

    pub(super) fn send_request(&mut self, now: Instant, event: Event, mut sending: Sending) -> State {
        match event {
            Event::OriginSent { len } if len < sending.unsent => {
                sending.unsent -= len;
                State::SendRequest(sending)
            }
            Event::OriginSent { .. } => {
                self.ask_origin(now, Reading { fetch: sending.fetch, received: 0, unstored: 0 })
            }
            Event::OriginEof | Event::OriginError { .. } => {
                self.fail(State::SendRequest(sending).held(), Outcome::OriginFailed)
            }
            other @ (Event::OriginData { .. } | on!(host client lookup read room store flight name dial)) => {
                self.unexpected(State::SendRequest(sending), &other)
            }
        }
    }

    /// Asks the origin for the next piece.
    fn ask_origin(&mut self, now: Instant, reading: Reading) -> State {
        self.parts.act(Action::ReadOrigin { max: self.config.chunk });
        self.parts.timers.set_after(Timer::Origin, now, self.config.origin_idle_timeout);
        State::ReadOrigin(reading)
    }

    pub(super) fn read_origin(&mut self, now: Instant, event: Event, mut reading: Reading) -> State {
        match event {
            Event::OriginData { bytes } if self.is_asking_origin() && !bytes.is_empty() => {
                self.parts.timers.stop(Timer::Origin);
                reading.received += bytes.len() as u64;
                if reading.fetch.is_stored && reading.received > self.config.max_object {
                    match self.config.serve {
                        Serve::Stored => return self.fail(State::ReadOrigin(reading).held(), Outcome::OriginFailed),
                        Serve::Streamed => self.give_up_storing(&mut reading),
                    }
                }
                if self.config.serve == Serve::Streamed && self.client.gone.is_none() {
                    self.give(now, bytes.clone());
                }
                if reading.fetch.is_stored {
                    reading.unstored = bytes.len() as u64;
                    self.parts.act(Action::WriteCache { bytes });
                    self.parts.timers.set_after(Timer::Cache, now, self.config.cache_timeout);
                }
                self.go_on(now, reading)
            }
            Event::CacheStored { len } if reading.unstored > 0 => {
                reading.unstored = reading.unstored.saturating_sub(len);
                if reading.unstored == 0 {
                    self.parts.timers.stop(Timer::Cache);
                }
                self.go_on(now, reading)
            }
            Event::ClientSent { len } if self.client.owed > 0 => {
                self.took(len);
                self.go_on(now, reading)
            }
            Event::CacheWriteFailed if reading.fetch.is_stored => self.cache_write_failed(now, reading),
            Event::OriginEof if self.is_asking_origin() => self.origin_eof(now, reading),
            Event::OriginError { .. } => self.fail(State::ReadOrigin(reading).held(), Outcome::OriginFailed),
            other @ (Event::OriginSent { .. }
            | Event::OriginData { .. }
            | Event::OriginEof
            | on!(host client lookup read room store flight name dial)) => {
                self.unexpected(State::ReadOrigin(reading), &other)
            }
        }
    }

    /// Whatever is slower sets the pace: the next piece is asked for when cache and client have taken this one.
    fn go_on(&mut self, now: Instant, reading: Reading) -> State {
        if !reading.fetch.is_stored && self.client.gone.is_some() {
            // No client is left that wants the object.
            return self.fail(State::ReadOrigin(reading).held(), Outcome::ClientLeft);
        }
        if reading.unstored > 0 || self.client.owed > 0 || self.is_asking_origin() {
            return State::ReadOrigin(reading);
        }
        self.ask_origin(now, reading)
    }

    /// Whether a piece has been asked for, and has not come: exactly then T4 runs.
    fn is_asking_origin(&self) -> bool {
        self.parts.timers.is_set(Timer::Origin)
    }

    fn origin_eof(&mut self, now: Instant, reading: Reading) -> State {
        self.parts.timers.stop(Timer::Origin);
        let Reading { fetch: Fetch { request, key, is_stored }, received: total, .. } = reading;
        if total == 0 {
            // No such file (O3): emptiness is not kept, and the next request asks again.
            if is_stored {
                self.parts.act(Action::AbortCache);
            }
            self.parts.act(Action::CloseOrigin { how: Close::Fin });
            self.close_client(Close::Fin);
            return self.end(Outcome::NoSuchFile);
        }
        self.parts.act(Action::CloseOrigin { how: Close::Fin });
        if is_stored {
            self.parts.act(Action::CommitCache);
            self.parts.timers.set_after(Timer::Cache, now, self.config.cache_timeout);
        }
        if self.config.serve == Serve::Streamed {
            self.close_client(Close::Fin);
        }
        if is_stored {
            State::Commit(Committing { request, key, total })
        } else {
            self.end(Outcome::Served { hit: false, bytes: total })
        }
    }

    /// The cache takes no more of it.
    fn cache_write_failed(&mut self, now: Instant, mut reading: Reading) -> State {
        match self.config.serve {
            Serve::Stored => self.fail(State::ReadOrigin(reading).held(), Outcome::CacheFailed),
            Serve::Streamed => {
                self.give_up_storing(&mut reading);
                self.go_on(now, reading)
            }
        }
    }

    fn give_up_storing(&mut self, reading: &mut Reading) {
        self.parts.timers.stop(Timer::Cache);
        self.parts.act(Action::AbortCache);
        reading.fetch.is_stored = false;
        reading.unstored = 0;
    }

    pub(super) fn commit(&mut self, now: Instant, event: Event, committing: Committing) -> State {
        match event {
            Event::CacheCommitted => {
                self.parts.timers.stop(Timer::Cache);
                let Committing { request, key, total } = committing;
                match (&self.client.gone, self.config.serve) {
                    (None, Serve::Stored) => self.look_up(now, Lookup { request, key, source: Source::Own }),
                    (Some(_), _) | (None, Serve::Streamed) => self.end(Outcome::Served { hit: false, bytes: total }),
                }
            }
            Event::CacheWriteFailed => self.commit_failed(&committing),
            other @ (Event::CacheStored { .. } | on!(host client lookup read room flight name dial origin)) => {
                self.unexpected(State::Commit(committing), &other)
            }
        }
    }

    fn commit_failed(&mut self, committing: &Committing) -> State {
        match self.config.serve {
            Serve::Stored => self.fail(Held::default(), Outcome::CacheFailed),
            // The client has it all the same.
            Serve::Streamed => self.end(Outcome::Served { hit: false, bytes: committing.total }),
        }
    }

    pub(super) fn cache_timeout(&mut self, now: Instant, state: State) -> State {
        if let State::ReadOrigin(reading) = state {
            return self.cache_write_failed(now, reading);
        }
        if let State::Commit(committing) = &state {
            return self.commit_failed(committing);
        }
        self.fail(state.held(), Outcome::CacheFailed)
    }

    pub(super) fn drain_client(&mut self, event: Event, outcome: Outcome) -> State {
        match event {
            Event::ClientSent { len } if self.took(len) => {
                self.close_client(Close::Fin);
                self.end(outcome)
            }
            Event::ClientSent { .. } => State::DrainClient(outcome),
            other @ (Event::ClientData { .. }
            | Event::ClientEof
            | Event::ClientError { .. }
            | on!(host lookup read room store flight name dial origin)) => {
                self.unexpected(State::DrainClient(outcome), &other)
            }
        }
    }

    /// The client broke off, or was broken off. A fetch that is under way is not wasted (P4).
    pub(super) fn client_left(&mut self, now: Instant, state: State, outcome: Outcome) -> State {
        self.parts.timers.stop(Timer::ClientWrite);
        self.client.owed = 0;
        let is_fetching = match &state {
            State::Resolve(fetch) => fetch.is_stored,
            State::Connect(connecting) => connecting.fetch.is_stored,
            State::SendRequest(sending) => sending.fetch.is_stored,
            State::ReadOrigin(reading) => reading.fetch.is_stored,
            State::Commit(_) => true,
            State::Start
            | State::ReadRequest(_)
            | State::CacheLookup(_)
            | State::CacheRead(_)
            | State::CachePrepareWrite(_)
            | State::WaitFlight(_)
            | State::DrainClient(_)
            | State::Done => false,
        };
        self.client.gone.get_or_insert(outcome);
        if !(is_fetching && self.config.finish_fetch) {
            return self.fail(state.held(), outcome);
        }
        if let State::ReadOrigin(reading) = state { self.go_on(now, reading) } else { state }
    }

    /// The proxy ends, or the time is up. Who has been given everything already may take it.
    pub(super) fn cut_short(&mut self, state: State, outcome: Outcome) -> State {
        if let State::CacheRead(read) = &state
            && read.left == 0
            && self.client.owed > 0
        {
            self.parts.act(Action::CloseCache);
            let hit = read.lookup.source != Source::Own;
            return State::DrainClient(Outcome::Served { hit, bytes: self.client.given });
        }
        if let State::Commit(committing) = &state
            && self.config.serve == Serve::Streamed
        {
            return self.end(Outcome::Served { hit: false, bytes: committing.total });
        }
        self.fail(state.held(), outcome)
    }

    /// Ends without success: releases everything, and closes the client so that it can distinguish an answer from a broken one.
    pub(super) fn fail(&mut self, held: Held, outcome: Outcome) -> State {
        for (is_held, action) in [
            (held.resolving, Action::CancelResolve),
            (held.connecting, Action::CancelConnect),
            (held.reads_cache, Action::CloseCache),
            (held.writes_cache, Action::AbortCache),
            (held.origin, Action::CloseOrigin { how: Close::Abort }),
        ] {
            if is_held {
                self.parts.act(action);
            }
        }
        // Without a length on the wire, a reset is the only way to say that this is not all of it (E6).
        self.close_client(if self.client.given == 0 { Close::Fin } else { Close::Abort });
        self.end(outcome)
    }

    /// Closes the client's connection, unless it is closed.
    pub(super) fn close_client(&mut self, how: Close) {
        if self.client.gone.is_none() && !self.client.is_closed {
            self.client.is_closed = true;
            self.parts.act(Action::CloseClient { how });
        }
    }

    fn end(&mut self, outcome: Outcome) -> State {
        self.parts.timers.stop_all();
        self.parts.act(Action::Finished { outcome: self.client.gone.unwrap_or(outcome) });
        State::Done
    }

    fn give(&mut self, now: Instant, bytes: Bytes) {
        self.client.given += bytes.len() as u64;
        self.client.owed += bytes.len() as u64;
        self.parts.act(Action::WriteClient { bytes });
        self.parts.timers.set_after(Timer::ClientWrite, now, self.config.client_write_timeout);
    }

    /// The client took bytes; says whether it has taken all of them now.
    fn took(&mut self, len: u64) -> bool {
        if self.client.owed == 0 {
            self.parts.count_ignored();
            return false;
        }
        self.client.owed = self.client.owed.saturating_sub(len);
        if self.client.owed == 0 {
            self.parts.timers.stop(Timer::ClientWrite);
        }
        self.client.owed == 0
    }

    /// Throws away what came behind the head; after too much of it, no more is read (W5).
    pub(super) fn discard(&mut self, len: usize) {
        self.client.discarded = self.client.discarded.saturating_add(len);
        let is_open = self.client.gone.is_none() && !self.client.is_closed;
        if is_open && self.client.discarded <= self.config.discard_max {
            self.parts.act(Action::ReadClient { max: self.config.chunk.min(self.config.discard_max) });
        }
    }

    fn log(&mut self, request: &Request, hit: bool) {
        self.parts.act(Action::Log { file: request.file.clone(), server: request.server.clone(), hit });
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn unexpected(&mut self, state: State, event: &Event) -> State {
        tracing::debug!(?event, state = state.name(), "an event that nobody asked for");
        self.parts.ignore(state)
    }
}

/// The addresses in their order, but with the two families in turn (RFC 8305 §4).
fn alternate(addresses: impl Iterator<Item = IpAddr>) -> VecDeque<IpAddr> {
    let addresses: Vec<_> = addresses.collect();
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|ip| ip.is_ipv4() == first_is_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = VecDeque::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}
