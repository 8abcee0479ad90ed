//! What an endpoint reports of its connections, and why they end.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn_proto::ConnectionError;

use super::{PeerIdentity, StreamId};

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client began a handshake; the first event of a connection that we did not dial.
    Incoming {
        /// Its address.
        remote: SocketAddr,
    },
    /// The handshake is done.
    Connected {
        /// The protocol that was agreed on.
        alpn: Vec<u8>,
        /// Who the peer is.
        peer: PeerIdentity,
    },
    /// The peer opened a stream, and it may be readable.
    StreamOpened(StreamId),
    /// [`Endpoint::open`](super::Endpoint::open) may work again.
    StreamsAvailable,
    /// There may be something to read.
    Readable(StreamId),
    /// There may be room to write.
    Writable(StreamId),
    /// The peer wants no more, with this code.
    Stopped(StreamId, u64),
    /// The peer has everything up to our end of the stream.
    Acked(StreamId),
    /// A word came (QUIC DATAGRAM).
    Datagram(Bytes),
    /// It is over; the last event. Without `Connected` before it the handshake failed.
    Closed(CloseReason),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer's application closed it.
    #[error("closed by the peer with code 0x{code:x} ({reason})")]
    Peer {
        /// Its code.
        code: u64,
        /// Its reason text.
        reason: String,
    },
    /// We closed it.
    #[error("closed here")]
    Local,
    /// QUIC or TLS failed, here or there.
    #[error("{text} (QUIC error 0x{code:x})")]
    Transport {
        /// The error code of RFC 9000 §20.1; 0x100 and up are TLS alerts.
        code: u64,
        /// What went wrong.
        text: String,
    },
    /// The peer has lost its state (stateless reset): it restarted.
    #[error("reset by the peer, which has lost its state")]
    Reset,
    /// The peer was silent for the whole idle timeout.
    #[error("the peer has been silent for too long")]
    TimedOut,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Took as many chunks as it was allowed; there may be more.
    More,
    /// All that has arrived was taken; [`Event::Readable`] reports more.
    Blocked,
    /// Took all there is, and the peer's end of data.
    Finished,
    /// The peer aborted.
    Reset(u64),
    /// There is no such stream any more.
    Gone,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All is taken.
    Written {
        /// How much that was.
        bytes: usize,
    },
    /// There is no more room; [`Event::Writable`] reports some.
    Blocked {
        /// Bytes taken.
        bytes: usize,
        /// Chunks taken whole; the one behind them has been advanced by what was taken of it.
        chunks: usize,
    },
    /// The peer wants no more, with this code.
    Stopped(u64),
    /// There is no such stream any more.
    Gone,
}

/// Why a connection cannot be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address has no port or no host.
    #[error("{0} cannot be dialled")]
    Address(SocketAddr),
    /// The name is neither a DNS name nor an IP address.
    #[error("`{0}` is no valid server name")]
    Name(String),
    /// There are too many connections.
    #[error("no room for another connection")]
    Full,
}

/// A peer's text for people: whatever it holds, it writes no line of its own into a log.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

pub(super) fn close_reason(error: ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::Peer {
            code: close.error_code.into_inner(),
            reason: one_line(&String::from_utf8_lossy(&close.reason)),
        },
        ConnectionError::ConnectionClosed(close) => CloseReason::Transport {
            code: close.error_code.into(),
            text: match String::from_utf8_lossy(&close.reason) {
                reason if reason.is_empty() => format!("the peer gave up: {}", close.error_code),
                reason => format!("the peer gave up: {}", one_line(&reason)),
            },
        },
        ConnectionError::TransportError(error) => {
            CloseReason::Transport { code: error.code.into(), text: error.reason }
        }
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::VersionMismatch => {
            CloseReason::Transport { code: 0x11, text: "no common QUIC version".to_owned() }
        }
        ConnectionError::CidsExhausted => {
            CloseReason::Transport { code: 0x02, text: "no connection id is left".to_owned() }
        }
    }
}
