//! The host of one transaction, played and watched: it answers what it is asked, and checks docs/protocols/txn-states.md, Invariants.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{Action, Close, Config, Event, Fault, Flight, Outcome, Serve, Transaction, WriteRefusal};
use crate::{
    machine::{Describe, Inspect, Machine},
    testing::first_instant,
    txn::allow::Allow,
};

/// The head of the request that is played.
pub(crate) const HEAD: &str = "s f\r\n\r\n";

/// What its origin gets of it.
pub(crate) const FORWARDED: &str = "s f \r\n\r\n";

/// Bounds so small that lives come upon them.
pub(crate) fn config(serve: Serve) -> Config {
    Config {
        origin_port: 8080,
        allow: Allow {
            all: false,
            names: "s".parse().into_iter().collect(),
            nets: ["127.0.0.0/8".parse(), "::1".parse()].into_iter().flatten().collect(),
        },
        serve,
        chunk: 4,
        discard_max: 4,
        max_object: 6,
        ..Config::default()
    }
}

/// What the machine has asked for and has not been answered, and what it has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    reads_client: u32,
    to_client: usize,
    client_is_closed: bool,
    looks_up: Option<u64>,
    cache: Vec<usize>,
    asks_write: Option<u64>,
    is_writing: bool,
    to_cache: usize,
    commits: bool,
    resolves: Option<u64>,
    connects: Option<u64>,
    to_origin: usize,
    reads_origin: bool,
    origin_is_open: bool,
    /// Whether a refused write is one that waits for another's fetch.
    single_flight: bool,
    /// The cache has refused, and another one's fetch is waited for.
    waits: bool,
    pub(crate) fetches: u32,
    origin_gave: Vec<u8>,
    origin_ended: bool,
    pub(crate) given: Vec<u8>,
    hits: u32,
    pub(crate) log: Vec<bool>,
    pub(crate) outcome: Option<Outcome>,
    closed: Option<Close>,
}

impl Host {
    /// Notes what the machine wants done, and checks that it may.
    pub(crate) fn obey(&mut self, action: Action) -> Result<(), String> {
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {action:?}")) };
        must(self.outcome.is_none(), "an action after the last")?;
        match &action {
            Action::ReadClient { max } => {
                must(*max > 0 && !self.client_is_closed, "a read from nobody")?;
                self.reads_client += 1;
            }
            Action::WriteClient { bytes } => {
                must(!bytes.is_empty(), "nothing is written")?;
                must(self.to_client == 0 && !self.client_is_closed, "two writes to the client, or one to nobody")?;
                self.to_client = bytes.len();
                self.given.extend_from_slice(bytes);
            }
            Action::CloseClient { how } => {
                must(!self.client_is_closed, "closed twice")?;
                must(*how == Close::Abort || self.to_client == 0, "the end before the last bytes")?;
                (self.client_is_closed, self.closed, self.to_client) = (true, Some(*how), 0);
            }
            Action::OpenCacheRead { seq, .. } => {
                must(self.looks_up.is_none(), "two lookups")?;
                self.looks_up = Some(*seq);
            }
            Action::ReadCache { max } => {
                must(self.cache.is_empty() && *max > 0 && *max <= 4, "two reads from the cache, or too much")?;
                self.cache = vec![*max];
            }
            Action::CloseCache => self.cache.clear(),
            Action::OpenCacheWrite { seq, .. } => {
                must(self.asks_write.is_none() && !self.is_writing, "two writes of an object")?;
                self.asks_write = Some(*seq);
            }
            Action::WriteCache { bytes } => {
                must(self.is_writing && self.to_cache == 0 && !bytes.is_empty(), "two writes to the cache")?;
                self.to_cache = bytes.len();
            }
            Action::CommitCache => {
                must(self.is_writing && self.to_cache == 0, "a commit of what is not all there")?;
                must(self.origin_ended && !self.origin_gave.is_empty(), "a commit before the origin's end")?;
                (self.is_writing, self.commits) = (false, true);
            }
            Action::AbortCache => {
                must(self.is_writing || self.asks_write.is_some(), "an abort of nothing")?;
                (self.is_writing, self.asks_write, self.to_cache) = (false, None, 0);
            }
            Action::Resolve { seq, .. } => {
                must(self.resolves.is_none(), "two names")?;
                self.resolves = Some(*seq);
            }
            Action::CancelResolve => self.resolves = None,
            Action::Connect { seq, .. } => {
                must(self.connects.is_none() && !self.origin_is_open, "two origins")?;
                self.connects = Some(*seq);
            }
            Action::CancelConnect => self.connects = None,
            Action::WriteOrigin { bytes } => {
                must(self.origin_is_open && self.to_origin == 0, "a write to no origin")?;
                must(&bytes[..] == FORWARDED.as_bytes(), "not the head")?;
                self.to_origin = bytes.len();
                self.fetches += 1;
                must(self.fetches == 1, "a second fetch")?;
            }
            Action::ReadOrigin { max } => {
                must(self.origin_is_open && !self.reads_origin && *max == 4, "two reads from the origin")?;
                self.reads_origin = true;
            }
            Action::CloseOrigin { .. } => {
                must(self.origin_is_open, "no origin to close")?;
                (self.origin_is_open, self.reads_origin) = (false, false);
            }
            Action::LeaveFlight => {
                must(std::mem::take(&mut self.waits), "a flight that it does not wait for")?;
            }
            Action::Log { hit, .. } => self.log.push(*hit),
            Action::Finished { outcome } => {
                must(!self.is_writing && !self.origin_is_open, "something is left behind")?;
                self.outcome = Some(*outcome);
            }
        }
        Ok(())
    }

    /// What may happen now, as a host that does its work would say it. `body` is the object; `cut` cuts pieces.
    pub(crate) fn answers(&self, body: &[u8], cut: usize) -> Vec<Event> {
        let mut answers = Vec::new();
        let piece = |from: usize, max: usize| {
            let rest = body.get(from..).unwrap_or_default();
            Bytes::copy_from_slice(&rest[..rest.len().min(max).min(1 + cut)])
        };
        if !self.client_is_closed {
            answers.push(Event::ClientError { kind: Fault::Reset });
            if self.to_client > 0 {
                answers.push(Event::ClientSent { len: self.to_client as u64 });
            }
        }
        if let seq @ Some(_) = self.looks_up {
            answers.extend([Event::CacheHit { len: body.len() as u64, seq }, Event::CacheMiss { seq }]);
        }
        if let Some(&max) = self.cache.first() {
            answers.extend([Event::CacheData { bytes: piece(self.given.len(), max) }, Event::CacheReadFailed]);
        }
        if let seq @ Some(_) = self.asks_write {
            answers.push(Event::CacheWriteReady { seq });
            for why in [WriteRefusal::Locked, WriteRefusal::Busy, WriteRefusal::Failed] {
                answers.push(Event::CacheWriteRefused { why, seq });
            }
        }
        if self.to_cache > 0 {
            answers.extend([Event::CacheStored { len: self.to_cache as u64 }, Event::CacheWriteFailed]);
        }
        if self.commits {
            answers.extend([Event::CacheCommitted, Event::CacheWriteFailed]);
        }
        if self.waits {
            let failed = Flight::Failed(Outcome::OriginFailed);
            answers.extend([Flight::Ok, Flight::Abandoned, failed].map(Event::FlightDone));
        }
        if let seq @ Some(_) = self.resolves {
            let addrs = vec![Ipv4Addr::LOCALHOST.into(), [10, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into()];
            answers.push(Event::Resolved { addrs, seq });
            answers.push(Event::Resolved { addrs: Vec::new(), seq });
            answers.push(Event::ResolveFailed { why: Fault::NoSuchName, seq });
            answers.push(Event::GiveWay);
        }
        if let seq @ Some(_) = self.connects {
            answers.extend([Event::Connected { seq }, Event::ConnectFailed { why: Fault::Refused, seq }]);
        }
        if self.to_origin > 0 {
            answers.push(Event::OriginSent { len: self.to_origin as u64 });
        }
        if self.reads_origin {
            let bytes = piece(self.origin_gave.len(), 4);
            answers.push(if bytes.is_empty() { Event::OriginEof } else { Event::OriginData { bytes } });
        }
        if self.origin_is_open {
            answers.push(Event::OriginError { kind: Fault::Reset });
        }
        answers
    }

    /// What the host itself has just said.
    pub(crate) fn said(&mut self, event: &Event) {
        let open = |question: &mut Option<u64>, seq: &Option<u64>| {
            let is_answer = question.is_some() && (seq.is_none() || seq == question);
            if is_answer {
                *question = None;
            }
            is_answer
        };
        match event {
            Event::ClientError { .. } => (self.client_is_closed, self.to_client) = (true, 0),
            Event::ClientSent { len } => self.to_client = self.to_client.saturating_sub(*len as usize),
            Event::ClientData { .. } | Event::ClientEof => self.reads_client = self.reads_client.saturating_sub(1),
            Event::CacheHit { seq, .. } => self.hits += u32::from(open(&mut self.looks_up, seq)),
            Event::CacheMiss { seq } => _ = open(&mut self.looks_up, seq),
            Event::CacheData { .. } | Event::CacheReadFailed => self.cache.clear(),
            Event::CacheWriteReady { seq } => self.is_writing |= open(&mut self.asks_write, seq),
            Event::CacheWriteRefused { why, seq } => {
                let is_locked = open(&mut self.asks_write, seq) && *why == WriteRefusal::Locked;
                self.waits |= is_locked && self.single_flight;
            }
            Event::CacheStored { len } => self.to_cache = self.to_cache.saturating_sub(*len as usize),
            Event::CacheWriteFailed => (self.to_cache, self.commits) = (0, false),
            Event::CacheCommitted => self.commits = false,
            Event::FlightDone(_) => self.waits = false,
            Event::Resolved { seq, .. } | Event::ResolveFailed { seq, .. } => _ = open(&mut self.resolves, seq),
            Event::Connected { seq } => self.origin_is_open |= open(&mut self.connects, seq),
            Event::ConnectFailed { seq, .. } => _ = open(&mut self.connects, seq),
            Event::OriginSent { len } => self.to_origin = self.to_origin.saturating_sub(*len as usize),
            Event::OriginData { bytes } => {
                if std::mem::take(&mut self.reads_origin) {
                    self.origin_gave.extend_from_slice(bytes);
                }
            }
            Event::OriginEof => self.origin_ended |= std::mem::take(&mut self.reads_origin),
            Event::OriginError { .. } | Event::Accepted | Event::GiveWay | Event::Shutdown => {}
        }
    }

    /// What must hold when it is over.
    pub(crate) fn judge(&self, body: &[u8]) -> Result<(), String> {
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {self:?}")) };
        let outcome = self.outcome.ok_or("no end")?;
        must(body.starts_with(&self.given), "not a beginning of the object")?;
        let has_all = matches!(outcome, Outcome::Served { bytes, .. } if bytes == self.given.len() as u64);
        must(has_all == matches!(outcome, Outcome::Served { .. }), "a wrong count")?;
        if has_all {
            must(self.given == body && !body.is_empty(), "served, but not all of it")?;
            must(self.closed == Some(Close::Fin), "served, but reset")?;
        } else {
            must(self.closed != Some(Close::Fin) || self.given.is_empty(), "cut short, but told as an end")?;
        }
        Ok(())
    }
}

/// A machine and its host.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) machine: Transaction,
    pub(crate) host: Host,
    pub(crate) now: Instant,
}

impl Life {
    pub(crate) fn new(config: Config) -> Self {
        let host = Host { single_flight: config.single_flight, ..Host::default() };
        Self { machine: Transaction::new(Arc::new(config)), host, now: first_instant() }
    }

    pub(crate) fn on(&mut self, event: Event) -> Result<(), String> {
        self.host.said(&event);
        self.machine.handle_event(self.now, event);
        self.drain()
    }

    pub(crate) fn fire(&mut self) -> Result<bool, String> {
        let Some(due) = self.machine.poll_timeout() else { return Ok(false) };
        self.now = self.now.max(due);
        self.machine.handle_timeout(self.now);
        self.drain().map(|()| true)
    }

    fn drain(&mut self) -> Result<(), String> {
        for nth in 0.. {
            let Some(action) = self.machine.poll_action() else { break };
            if nth >= 8 {
                return Err("more than 8 actions".to_owned());
            }
            self.host.obey(action)?;
        }
        self.machine.check()
    }

    /// Nothing but deadlines from here on: it comes to its end.
    pub(crate) fn run_out(&mut self, config: &Config) -> Result<(), String> {
        let end = self.now + config.transaction_timeout + config.client_write_timeout;
        while self.fire()? {
            if self.now > end {
                return Err("no end in sight".to_owned());
            }
        }
        if self.machine.state() != "done" && self.machine.state() != "start" {
            return Err(format!("{} waits for ever", self.machine.state()));
        }
        Ok(())
    }
}
