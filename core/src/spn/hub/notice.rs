//! What a hub reports to its host, and asks it to do.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::policy::availability::Availability;
use crate::spn::{Protocol, Role, record::Record, wire::code::SessionCode};

/// A report to the host, or something that it is to do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// Sessions are accepted from now on.
    Listening,
    /// A session or connection began or ended: one line of the log.
    Record(Record),
    /// An endpoint was turned away.
    Refused(Refusal),
    /// Refusals that were not reported, since they came faster than [`Limits::refusals_per_second`](super::Limits).
    RefusalsSuppressed {
        /// How many.
        count: u64,
    },
    /// A provider is to be started; [`Hub::cluster_done`](super::Hub::cluster_done) answers. One that runs already has been started.
    ClusterStart(ClusterTask),
    /// A provider is to be stopped; [`Hub::cluster_done`](super::Hub::cluster_done) answers. One that does not run has been stopped.
    ClusterStop(ClusterTask),
    /// The hub has ended: close its socket.
    Stopped,
}

/// What a cluster manager is to do. The host says by [`Hub::cluster_done`](super::Hub::cluster_done) when it is done, or has failed; there is no
/// limit on that here.
#[derive(Debug, Clone)]
pub struct ClusterTask {
    /// Names the task.
    pub id: u64,
    /// Whose provider.
    pub service: Arc<str>,
    /// What to start or stop, and where.
    pub availability: Arc<Availability>,
}

/// Who was turned away, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Instant,
    /// From where.
    pub remote: SocketAddr,
    /// Subject of the certificate (RFC 4514); `None` when the handshake failed before there was one.
    pub subject: Option<String>,
    /// What it asked to be; `None` when the handshake failed.
    pub role: Option<(Role, Protocol)>,
    /// What was wrong.
    pub reason: Reason,
}

/// Why an endpoint was turned away, or lost its session by its own fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The TLS or QUIC handshake failed; the text is the library's.
    Handshake(String),
    /// A code of docs/protocols/spn.md, Codes, with details.
    Code {
        /// The code that was sent.
        code: SessionCode,
        /// More than the code says, or empty.
        detail: String,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused {}", self.remote)?;
        if let Some((role, protocol)) = self.role {
            write!(f, " ({})", String::from_utf8_lossy(role.alpn(protocol)))?;
        }
        if let Some(subject) = &self.subject {
            write!(f, " {subject:?}")?;
        }
        match &self.reason {
            Reason::Handshake(text) => write!(f, ": handshake failed: {text}"),
            Reason::Code { code, detail } => {
                write!(f, ": {code}")?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
        }
    }
}
