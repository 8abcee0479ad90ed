//! What happens to a session, and what it asks for.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Role;

/// What a SyncConfig says to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// What the sender speaks.
    pub version: u16,
    /// Nil from a client, never nil from a server.
    pub session_id: Uuid,
    /// Seconds between pings.
    pub ping: i32,
    /// Seconds of silence after which the session is over.
    pub timeout: i32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The byte stream is there.
    WireUp {
        /// Who opened it.
        role: Role,
    },
    /// A SyncConfig came.
    Sync(Offer),
    /// A SyncConfig came that is too short to be one.
    SyncShort,
    /// An Open, a Close or a Block came.
    Message,
    /// A Ping came.
    Ping,
    /// A Control of another code came.
    UnknownControl {
        /// Which.
        code: i8,
    },
    /// A Control Close came.
    ControlClose,
    /// Bytes came that are no message.
    BadBytes,
    /// Bytes left.
    Sent,
    /// All that was queued has left; asked for by [`Action::Flush`].
    Flushed,
    /// Nothing more is read for now, because too much is held.
    ReadHeld,
    /// Reading goes on.
    ReadResumed,
    /// The peer ended its direction.
    WireEnded,
    /// The byte stream broke.
    WireFailed,
    /// A hard limit was reached (LOD-3).
    Overload,
    /// The application ends the session.
    End {
        /// In good order, or at once.
        graceful: bool,
    },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send a SyncConfig that says this.
    SendSync(Offer),
    /// Tell the application that calls can be made.
    Opened(Offer),
    /// Give the message to its pipe.
    HandOn,
    /// Send a Ping.
    SendPing,
    /// End all pipes with ABT-2, and make no new ones. Comes once in each session that had a byte stream, before [`Action::Closed`].
    EndPipes,
    /// Forget the messages that are queued and have not begun to leave.
    DropQueue,
    /// Send a Control Close, behind all that is queued.
    SendClose,
    /// Report [`Event::Flushed`] once all that is queued has left.
    Flush,
    /// Close the byte stream.
    CloseWire {
        /// In good order: what was sent arrives. Otherwise at once.
        graceful: bool,
    },
    /// Tell the application that it is over; there is no other action after this one.
    Closed {
        /// The reason.
        why: Why,
    },
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The application ended it in good order.
    #[error("ended by this side")]
    Ended,
    /// The application ended it at once.
    #[error("ended at once by this side")]
    Forced,
    /// The peer ended it in good order.
    #[error("ended by the peer")]
    PeerClosed,
    /// The peer ended the byte stream.
    #[error("the peer left without a Control Close")]
    PeerLeft,
    /// The byte stream broke.
    #[error("the connection broke")]
    Lost,
    /// The peer was silent for too long.
    #[error("the peer was silent for too long")]
    Silent,
    /// The peer sent bytes that are no message.
    #[error("the peer sent bytes that are no message")]
    Undecodable,
    /// The peer broke a rule.
    #[error("the peer broke the protocol: {0}")]
    Violation(Violation),
    /// A hard limit was reached.
    #[error("a hard limit on what is queued was reached")]
    Overload,
}

/// Which rule a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// SYN-6.
    #[error("its first message was no SyncConfig")]
    NoSync,
    /// SYN-6.
    #[error("a second SyncConfig")]
    SecondSync,
    /// SYN-2.
    #[error("a SyncConfig that is too short")]
    ShortSync,
    /// SYN-6: a server's session id is nil.
    #[error("a server's session id that is nil")]
    NilSession,
    /// SYN-6: a client's session id is not nil.
    #[error("a client's session id that is not nil")]
    OldSession,
    /// SYN-8.
    #[error("version {0:#06x}, whose major number is unknown")]
    Version(u16),
    /// SES-2.
    #[error("Control {0}, which is unknown")]
    UnknownControl(i8),
    /// SYN-9.
    #[error("a Ping in a session of version 0001")]
    Ping,
    /// SYN-10.
    #[error("no SyncConfig came in time")]
    HandshakeTimeout,
}
