//! What happens to a transaction, what it wants done, and how it ends.

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    machine::text,
    net::{Close, Fault},
    txn::request::Malformed,
};

/// What happened. A read is a credit: one `read_*` action, one `*_data`, `*_eof` or `*_error`. A write is answered when all of it was taken.
///
/// Answers to opening, resolving and connecting carry the action's sequence number: what answers an older question is dropped, for a
/// host cannot always cancel in time. Without a number it answers the current one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum Event {
    /// A client has connected.
    Accepted,
    /// Bytes from the client.
    ClientData {
        /// At least one.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// The client has ended its direction.
    ClientEof,
    /// The client's connection broke.
    ClientError {
        /// How.
        #[serde(default)]
        kind: Fault,
    },
    /// The client's socket took bytes.
    ClientSent {
        /// How many.
        len: u64,
    },
    /// The cache has it.
    CacheHit {
        /// Bytes of the object.
        len: u64,
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The cache does not have it, or cannot say.
    CacheMiss {
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// Bytes of the object.
    CacheData {
        /// At least one.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// The object cannot be read.
    CacheReadFailed,
    /// The object may be written.
    CacheWriteReady {
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// It may not.
    CacheWriteRefused {
        /// Why.
        why: WriteRefusal,
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The cache took bytes.
    CacheStored {
        /// How many.
        len: u64,
    },
    /// It cannot take or keep them.
    CacheWriteFailed,
    /// The object is there for everybody.
    CacheCommitted,
    /// The fetch that it waited for is over.
    FlightDone(Flight),
    /// The name has addresses.
    Resolved {
        /// In the resolver's order.
        addrs: Vec<IpAddr>,
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The name has no address, or no resolver answers.
    ResolveFailed {
        /// Why.
        #[serde(default)]
        why: Fault,
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The origin accepted.
    Connected {
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// It did not.
    ConnectFailed {
        /// Why.
        #[serde(default)]
        why: Fault,
        /// Which question it answers.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The origin's socket took bytes.
    OriginSent {
        /// How many.
        len: u64,
    },
    /// Bytes from the origin.
    OriginData {
        /// At least one.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// The origin has ended: that was all of it.
    OriginEof,
    /// The origin's connection broke: that was not all of it.
    OriginError {
        /// How.
        #[serde(default)]
        kind: Fault,
    },
    /// Its head, or its server's name, is slow, and others need its place.
    GiveWay,
    /// The proxy ends.
    Shutdown,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    /// An event of which nothing must be said may be its name alone: `"cache_miss"` is `{"cache_miss": {}}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const MAY_BE_BARE: [&str; 7] = [
            "client_error",
            "cache_miss",
            "cache_write_ready",
            "resolve_failed",
            "connected",
            "connect_failed",
            "origin_error",
        ];
        let mut event = serde_json::Value::deserialize(deserializer)?;
        if let Some(name) = event.as_str().filter(|name| MAY_BE_BARE.contains(name)) {
            event = serde_json::json!({ name: {} });
        }
        Self::deserialize(event).map_err(D::Error::custom)
    }
}

/// Why an object may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteRefusal {
    /// Another transaction is writing it. With single flight, [`Event::FlightDone`] follows.
    Locked,
    /// Another transaction is writing it, and too many wait for that.
    Busy,
    /// The cache cannot.
    #[serde(other)]
    Failed,
}

/// How the fetch ended that others waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flight {
    /// The object is in the cache.
    Ok,
    /// There is none: everybody fails alike.
    Failed(Outcome),
    /// Nothing is known of the object: the next one fetches.
    Abandoned,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Read once from the client.
    ReadClient {
        /// At most so many bytes.
        max: usize,
    },
    /// Write to the client.
    WriteClient {
        /// These.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// Close the client's connection.
    CloseClient {
        /// How.
        how: Close,
    },
    /// Look for the object.
    OpenCacheRead {
        /// Under this key.
        #[serde(with = "text")]
        key: Bytes,
        /// To be given back with the answer.
        seq: u64,
    },
    /// Read once from the object.
    ReadCache {
        /// At most so many bytes.
        max: usize,
    },
    /// The object is no longer read.
    CloseCache,
    /// Begin to write the object.
    OpenCacheWrite {
        /// Under this key.
        #[serde(with = "text")]
        key: Bytes,
        /// To be given back with the answer.
        seq: u64,
    },
    /// Add to the object.
    WriteCache {
        /// These.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// The object is complete.
    CommitCache,
    /// Forget what was written.
    AbortCache,
    /// It does not wait for another's fetch any more.
    LeaveFlight,
    /// Ask for the addresses of a name.
    Resolve {
        /// The server's name.
        #[serde(with = "text")]
        name: Bytes,
        /// To be given back with the answer.
        seq: u64,
    },
    /// They are not wanted any more.
    CancelResolve,
    /// Connect to the origin.
    Connect {
        /// Its address.
        addr: IpAddr,
        /// Its port.
        port: u16,
        /// To be given back with the answer.
        seq: u64,
    },
    /// That is not wanted any more.
    CancelConnect,
    /// Write to the origin.
    WriteOrigin {
        /// These.
        #[serde(with = "text")]
        bytes: Bytes,
    },
    /// Read once from the origin.
    ReadOrigin {
        /// At most so many bytes.
        max: usize,
    },
    /// Close the origin's connection.
    CloseOrigin {
        /// How.
        how: Close,
    },
    /// Note how a lookup ended.
    Log {
        /// The file.
        #[serde(with = "text")]
        file: Bytes,
        /// Its server.
        #[serde(with = "text")]
        server: Bytes,
        /// Whether the cache had it.
        hit: bool,
    },
    /// It is over; there is no other action after this one.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a transaction ended (docs/protocols/txn.md, Endings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client has the whole object.
    Served {
        /// Whether the object came from the cache, fetched by another transaction.
        hit: bool,
        /// Its size.
        bytes: u64,
    },
    /// E1: the head is none.
    Malformed {
        /// Why.
        why: Malformed,
    },
    /// T5, T6: the client did not wait for it.
    ClientLeft,
    /// O3: the origin has nothing under that name.
    NoSuchFile,
    /// E2: the server's name has no address, or not in time.
    ResolveFailed,
    /// E3: no address of it accepts, or not in time.
    ConnectFailed,
    /// E6: the origin broke off, fell silent, or sent more than can be stored.
    OriginFailed,
    /// P7: the origin may not be asked.
    RefusedOrigin,
    /// E5: the cache failed.
    CacheFailed,
    /// E4, P3: another transaction is fetching it, and this one may not wait. P9: its head or its server's name was slow, and others needed
    /// its place.
    Busy,
    /// T1, T7, T9: it took too long.
    TimedOut {
        /// What did.
        which: Limit,
    },
    /// The proxy ended.
    ShutDown,
}

/// Which of the client's times was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// T1: the head.
    Head,
    /// T7: taking a chunk.
    ClientWrite,
    /// T9: all of it.
    Transaction,
}

impl Outcome {
    /// Its name, as in scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Served { .. } => "served",
            Self::Malformed { .. } => "malformed",
            Self::ClientLeft => "client_left",
            Self::NoSuchFile => "no_such_file",
            Self::ResolveFailed => "resolve_failed",
            Self::ConnectFailed => "connect_failed",
            Self::OriginFailed => "origin_failed",
            Self::RefusedOrigin => "refused_origin",
            Self::CacheFailed => "cache_failed",
            Self::Busy => "busy",
            Self::TimedOut { .. } => "timed_out",
            Self::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
