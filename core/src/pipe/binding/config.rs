//! The binding's settings.

use uuid::Uuid;

use crate::{
    epoch::Epoch,
    pipe::{
        machines::{callee, receiver, session},
        policy::load::Limits,
    },
};

/// Who this side is, and what it allows.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who opened the byte stream.
    pub role: session::Role,
    /// Who this side is.
    pub node_id: Uuid,
    /// One moment on both clocks, for the clock in SyncConfig.
    pub epoch: Epoch,
    /// The session machine's settings; a server's `session_id` is to be new.
    pub session: session::Config,
    /// The callee machine's settings.
    pub callee: callee::Config,
    /// The receiver machine's settings.
    pub receiver: receiver::Config,
    /// How much may have come and wait for the application, in all pipes together (LOD-1).
    pub read: Limits,
    /// How much may wait to be sent (LOD-2).
    pub write: Limits,
    /// How many ids of closed pipes are remembered (PIP-7).
    pub closed_ids: usize,
    /// The most bytes of one write, unless a single message is longer.
    pub write_max: usize,
    /// Bytes that may wait undecoded while nothing is to be read. A host that gives more without being asked for it may overflow queues (RCV-5).
    pub unread_max: usize,
}

impl Config {
    /// A side with the default limits. `session_id` counts for a server, which gives it to the session.
    #[must_use]
    pub fn new(role: session::Role, node_id: Uuid, session_id: Uuid, epoch: Epoch) -> Self {
        Self {
            role,
            node_id,
            epoch,
            session: session::Config { session_id, ..session::Config::default() },
            callee: callee::Config::default(),
            receiver: receiver::Config::default(),
            read: Limits::READ,
            write: Limits::WRITE,
            closed_ids: 256,
            write_max: 64 << 10,
            unread_max: 256 << 10,
        }
    }
}
