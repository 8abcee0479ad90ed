//! The states of a transaction (docs/protocols/txn-states.md), and the data that is valid in each.

use std::{collections::VecDeque, net::IpAddr};

use bytes::Bytes;

use super::Outcome;
use crate::{
    machine,
    txn::request::{HeadReader, Request},
};

/// Each variant holds what is valid in that state, and nothing else.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// No client has connected yet.
    Start,
    /// The head is coming.
    ReadRequest(HeadReader),
    /// The cache is asked for the object.
    CacheLookup(Lookup),
    /// The object goes from the cache to the client.
    CacheRead(CacheRead),
    /// The cache is asked for room.
    CachePrepareWrite(Fetch),
    /// Another transaction fetches it.
    WaitFlight(Fetch),
    /// The origin's name is being resolved.
    Resolve(Fetch),
    /// The origin is being connected to.
    Connect(Connecting),
    /// The head goes to the origin.
    SendRequest(Sending),
    /// The object comes from the origin.
    ReadOrigin(Reading),
    /// The cache is about to show it to everybody.
    Commit(Committing),
    /// The client has been given everything, and has not taken it yet.
    DrainClient(Outcome),
    /// It is over.
    #[default]
    Done,
}

#[derive(Debug, Clone)]
pub struct Lookup {
    pub(super) request: Request,
    pub(super) key: Bytes,
    pub(super) source: Source,
}

/// Where an object that the cache has comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It may be there, or not: a miss is fetched.
    Unknown,
    /// Another transaction has just fetched it.
    Another,
    /// This one has. Nothing is fetched twice (D15).
    Own,
}

#[derive(Debug, Clone)]
pub struct CacheRead {
    pub(super) lookup: Lookup,
    /// Bytes that the client has not been given yet.
    pub(super) left: u64,
}

/// What a fetch is about, in all its states.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub(super) request: Request,
    pub(super) key: Bytes,
    /// Whether the cache takes it: always, but for `streamed` when the cache cannot.
    pub(super) is_stored: bool,
}

#[derive(Debug, Clone)]
pub struct Connecting {
    pub(super) fetch: Fetch,
    /// Addresses that have not been tried.
    pub(super) left: VecDeque<IpAddr>,
}

#[derive(Debug, Clone)]
pub struct Sending {
    pub(super) fetch: Fetch,
    /// Bytes of the head that the origin's socket has not taken.
    pub(super) unsent: u64,
}

#[derive(Debug, Clone)]
pub struct Reading {
    pub(super) fetch: Fetch,
    /// Bytes that have come.
    pub(super) received: u64,
    /// Bytes that the cache has not taken yet.
    pub(super) unstored: u64,
}

#[derive(Debug, Clone)]
pub struct Committing {
    pub(super) request: Request,
    pub(super) key: Bytes,
    pub(super) total: u64,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::ReadRequest(_) => "read_request",
            Self::CacheLookup(_) => "cache_lookup",
            Self::CacheRead(_) => "cache_read",
            Self::CachePrepareWrite(_) => "cache_prepare_write",
            Self::WaitFlight(_) => "wait_flight",
            Self::Resolve(_) => "resolve",
            Self::Connect(_) => "connect",
            Self::SendRequest(_) => "send_request",
            Self::ReadOrigin(_) => "read_origin",
            Self::Commit(_) => "commit",
            Self::DrainClient(_) => "drain_client",
            Self::Done => "done",
        }
    }
}

/// What a failing transaction has to let go of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) resolving: bool,
    pub(super) connecting: bool,
    pub(super) reads_cache: bool,
    pub(super) writes_cache: bool,
    pub(super) origin: bool,
}

impl State {
    pub(super) fn is_past_head(&self) -> bool {
        !matches!(self, Self::Start | Self::ReadRequest(_))
    }

    /// What has to be let go of when it ends here.
    pub(super) fn held(&self) -> Held {
        let none = Held::default();
        match self {
            Self::Start
            | Self::ReadRequest(_)
            | Self::CacheLookup(_)
            | Self::WaitFlight(_)
            | Self::Commit(_)
            | Self::DrainClient(_)
            | Self::Done => none,
            Self::CacheRead(_) => Held { reads_cache: true, ..none },
            // Also when the answer is still to come.
            Self::CachePrepareWrite(_) => Held { writes_cache: true, ..none },
            Self::Resolve(fetch) => Held { resolving: true, writes_cache: fetch.is_stored, ..none },
            Self::Connect(c) => Held { connecting: true, writes_cache: c.fetch.is_stored, ..none },
            Self::SendRequest(s) => Held { origin: true, writes_cache: s.fetch.is_stored, ..none },
            Self::ReadOrigin(r) => Held { origin: true, writes_cache: r.fetch.is_stored, ..none },
        }
    }

    pub(super) fn is_past_fetch(&self) -> bool {
        matches!(self, Self::CacheRead(_) | Self::DrainClient(_) | Self::Done)
    }
}
