//! What tools need of the machine.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Config, Event, Fault, Flight, Outcome, Serve, State, Transaction, WriteRefusal};
use crate::{
    machine::{Describe, Inspect as _},
    txn::allow::Allow,
};

impl Describe for Transaction {
    const ABOUT: &'static str = "one request to a caching proxy: look up, fetch, store, serve";
    type Config = Config;

    fn start(config: Config, _seed: u64) -> Self {
        Self::new(Arc::new(config))
    }

    fn small() -> Config {
        Config {
            allow: Allow {
                all: false,
                names: ["s".parse()].into_iter().flatten().collect(),
                nets: ["127.0.0.0/8".parse(), "::1".parse()].into_iter().flatten().collect(),
            },
            head_max: 10,
            chunk: 1,
            discard_max: 1,
            max_object: 2,
            origin_idle_timeout: Duration::from_secs(5),
            client_write_timeout: Duration::from_secs(5),
            // So short that it comes first in every state, for a client that has been slow before.
            transaction_timeout: Duration::from_secs(12),
            ..Config::default()
        }
    }

    fn fingerprint(&self) -> String {
        let detail = match self.parts.state() {
            State::Start | State::Commit(_) | State::DrainClient(_) | State::Done => String::new(),
            State::ReadRequest(head) => format!("{head:?}"),
            State::CacheLookup(lookup) => format!("{:?} {:?}", lookup.source, lookup.request.server),
            State::CacheRead(read) => {
                format!("{:?} {} {:?}", read.lookup.source, read.left, read.lookup.request.server)
            }
            State::CachePrepareWrite(fetch) | State::WaitFlight(fetch) => format!("{:?}", fetch.request.server),
            State::Resolve(fetch) => format!("{}", fetch.is_stored),
            State::Connect(connecting) => format!("{} {}", connecting.fetch.is_stored, connecting.left.len()),
            State::SendRequest(sending) => format!("{} {}", sending.fetch.is_stored, sending.unsent),
            State::ReadOrigin(reading) => format!(
                "{} {} {}",
                reading.fetch.is_stored,
                reading.received.min(self.config.max_object + 1),
                reading.unstored
            ),
        };
        let client = &self.client;
        format!(
            "{} {detail} discarded {} given {} owed {} closed {} gone {} {:?}",
            self.state(),
            client.discarded.min(self.config.discard_max + 1),
            client.given.min(1),
            client.owed,
            client.is_closed,
            client.gone.is_some(),
            self.parts.timers.armed().collect::<Vec<_>>()
        )
    }

    fn alphabet() -> Vec<Event> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let seq = None;
        vec![
            Event::Accepted,
            Event::ClientData { bytes: bytes("s f\r\n\r\n") },
            Event::ClientData { bytes: bytes("::1 f\r\n\r\n") },
            Event::ClientData { bytes: bytes("::2 f\r\n\r\n") },
            Event::ClientData { bytes: bytes("x f\r\n\r\n") },
            Event::ClientData { bytes: bytes("\r\n\r\n") },
            Event::ClientData { bytes: bytes("s f") },
            Event::ClientEof,
            Event::ClientError { kind: Fault::Reset },
            Event::ClientSent { len: 1 },
            Event::CacheHit { len: 2, seq },
            Event::CacheHit { len: 0, seq },
            Event::CacheMiss { seq },
            Event::CacheData { bytes: bytes("a") },
            Event::CacheReadFailed,
            Event::CacheWriteReady { seq },
            Event::CacheWriteRefused { why: WriteRefusal::Locked, seq },
            Event::CacheWriteRefused { why: WriteRefusal::Busy, seq },
            Event::CacheWriteRefused { why: WriteRefusal::Failed, seq },
            Event::CacheStored { len: 1 },
            Event::CacheWriteFailed,
            Event::CacheCommitted,
            Event::FlightDone(Flight::Ok),
            Event::FlightDone(Flight::Failed(Outcome::NoSuchFile)),
            Event::FlightDone(Flight::Abandoned),
            Event::Resolved { addrs: ["127.0.0.1".parse(), "::1".parse()].into_iter().flatten().collect(), seq },
            Event::Resolved { addrs: vec![[10, 0, 0, 1].into()], seq },
            Event::Resolved { addrs: Vec::new(), seq },
            Event::ResolveFailed { why: Fault::NoSuchName, seq },
            Event::Connected { seq },
            Event::ConnectFailed { why: Fault::Refused, seq },
            Event::OriginSent { len: 4 },
            Event::OriginData { bytes: bytes("a") },
            Event::OriginEof,
            Event::OriginError { kind: Fault::Reset },
            Event::GiveWay,
            Event::Shutdown,
        ]
    }

    fn check(&self) -> Result<(), String> {
        let armed = |name: &str| self.parts.timers.armed().any(|timer| timer == name);
        let expected: &[&str] = match self.parts.state() {
            State::Start | State::Done => {
                return if self.parts.timers.next().is_none() { Ok(()) } else { Err("a timer runs on".to_owned()) };
            }
            State::ReadRequest(_) => &["head"],
            State::CacheLookup(_) | State::CachePrepareWrite(_) | State::Commit(_) => &["cache"],
            State::CacheRead(_) if self.client.owed > 0 => &["client_write"],
            State::CacheRead(_) => &["cache"],
            State::WaitFlight(_) if self.config.serve == Serve::Streamed => &["flight"],
            State::WaitFlight(_) => &["transaction"],
            State::Resolve(_) => &["resolve"],
            State::Connect(_) => &["connect"],
            State::SendRequest(_) => &["origin_idle"],
            State::ReadOrigin(reading) => match (reading.unstored, self.client.owed) {
                (0, 0) => &["origin_idle"],
                (0, _) => &["client_write"],
                (_, 0) => &["cache"],
                (_, _) => &["cache", "client_write"],
            },
            State::DrainClient(_) => &["client_write"],
        };
        if let Some(missing) = expected.iter().find(|name| !armed(name)) {
            return Err(format!("{} waits without {missing}", self.state()));
        }
        if let State::ReadOrigin(reading) = self.parts.state() {
            if armed("origin_idle") && (reading.unstored > 0 || self.client.owed > 0) {
                return Err("the origin is asked for more before the last piece was taken".to_owned());
            }
            if !reading.fetch.is_stored && self.client.gone.is_some() {
                return Err("it fetches for nobody".to_owned());
            }
        }
        if self.config.serve == Serve::Stored && self.client.given > 0 && !self.parts.state().is_past_fetch() {
            return Err("bytes that are not stored have been sent".to_owned());
        }
        Ok(())
    }
}

impl Transaction {
    /// The configuration with which the explorer walks the `stored` machine; [`Describe::small`] is that of the `streamed` one.
    #[must_use]
    pub fn small_stored() -> Config {
        Config { serve: Serve::Stored, ..Self::small() }
    }
}
