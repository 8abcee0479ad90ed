//! Control frames of `sc02` (docs/protocols/spn.md, Frames): type, length, payload; integers are QUIC varints.
//!
//! ```
//! use towline_core::spn::wire::frame::{Decoder, Frame};
//!
//! let mut bytes = Vec::new();
//! Frame::SetWeight { weight: 50 }.encode(&mut bytes);
//!
//! let mut decoder = Decoder::default();
//! decoder.push(&bytes);
//! assert_eq!(decoder.next_frame(), Ok(Some(Frame::SetWeight { weight: 50 })));
//! assert_eq!(decoder.next_frame(), Ok(None));
//! ```

mod codec;
mod fields;

use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

pub use codec::Decoder;

use super::code::{SessionCode, StreamCode};
use crate::spn::{ConnKey, Role, Tag};

/// The longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 16_384;
/// The longest string, in bytes.
pub const MAX_STRING: usize = 1_024;
/// The most entries in a list; none has fewer than one.
pub const MAX_LIST: u64 = 256;
/// The version of SESSION_OPEN that we speak.
pub const VERSION: u64 = 1;

/// The flags of a frame or preamble. A bit may mean something else in another frame; bits that a later version adds are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// None is set.
    pub const NONE: Self = Self(0);
    /// SESSION_OPEN, CONNECT, CONNECTED, SESSION_SHUTDOWN: can resume.
    pub const RESUMABLE: Self = Self(1);
    /// SESSION_OPEN: wants reports of its partners (PARTNER, OWNER).
    pub const PARTNERS: Self = Self(2);
    /// SESSION_OPEN: a list of hubs follows.
    pub const HUBS: Self = Self(4);
    /// SESSION_OPEN: knows SEEK and what goes with it.
    pub const SEEKS: Self = Self(8);
    /// PROVIDERS: there are others, which cannot be asked.
    pub const OTHERS: Self = Self(1);
    /// RESUME_REQ and RESUME: the sender's own direction is finished at its *sent* offset.
    pub const FINISHED: Self = Self(1);
    /// RESUME_REQ, RESUME and DATA_ACK: the partner's direction is over here.
    pub const OVER: Self = Self(2);
    /// RESUME_REQ and RESUME_ACK: aborted.
    pub const ABORTED: Self = Self(4);

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags if `is_set`, otherwise none.
    #[must_use]
    pub const fn only_if(self, is_set: bool) -> Self {
        if is_set { self } else { Self::NONE }
    }

    /// The flags without `flags`.
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, flags: Self) {
        *self = *self | flags;
    }
}

/// What a RESUME_REQ says of its sender's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeReq {
    /// The connection.
    pub conn: ConnKey,
    /// Generation of the last stream the sender was Connected on.
    pub generation: u64,
    /// Payload bytes the sender's application has accepted.
    pub received: u64,
    /// Payload bytes the sender has ever written.
    pub sent: u64,
    /// Bit 0: own direction finished at `sent`; bit 1: the partner's direction is over here; bit 2: aborted.
    pub flags: Flags,
    /// Why it was aborted; 0 unless bit 2 is set.
    pub code: StreamCode,
}

impl ResumeReq {
    /// Whether the sender's end has broken off.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.flags.contains(Flags::ABORTED)
    }

    /// The frame that says it, with the partner's tag if that is known.
    #[must_use]
    pub fn frame(self, partner: Option<Tag>) -> Frame {
        match partner {
            Some(partner) => Frame::ResumeReqWith { values: self, partner },
            None => Frame::ResumeReq(self),
        }
    }
}

/// The hub's answer to a RESUME_REQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeAck {
    /// The connection.
    pub conn: ConnKey,
    /// 0, or the code that refuses it.
    pub status: StreamCode,
    /// The partner's generation; 0 when there is no partner, like all that follow.
    pub generation: u64,
    /// The partner's received offset.
    pub received: u64,
    /// The partner's flags.
    pub flags: Flags,
}

/// One connection's progress in a DATA_ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckEntry {
    /// The connection.
    pub conn: ConnKey,
    /// Payload bytes accepted.
    pub received: u64,
    /// Bit 1: the direction is over.
    pub flags: Flags,
}

/// The endpoint's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpen {
    /// [`VERSION`]; the rest is read only when it is.
    pub version: u64,
    /// Must be the role of the ALPN value.
    pub role: Role,
    /// The service wanted; empty means the only one the identity is entitled to.
    pub service: String,
    /// Random, stable for the life of the process.
    pub instance: [u8; 16],
    /// Share of new connections, 0 to 65535; a consumer's is ignored.
    pub weight: u16,
    /// Bit 0: can resume; bit 1: is to be told who its partners are; bit 2 is set while there are `hubs`, and clear otherwise; bit 3: knows SEEK.
    pub flags: Flags,
    /// Instance ids of the hubs with which this process has a session; at most [`MAX_LIST`].
    pub hubs: Vec<[u8; 16]>,
}

/// The hub's acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAck {
    /// The session's name in the hub's records.
    pub session_id: String,
    /// The service that was chosen.
    pub service: String,
    /// The hub process.
    pub hub_instance: [u8; 16],
    /// Connections a consumer may have open at once; 0 for a provider.
    pub max_connections: u64,
    /// 0 active, 1 stand-by; [`SessionAck::SPARE`] says that this is no session.
    pub state: u8,
}

impl SessionAck {
    /// The `state` of an answer to a SESSION_OPEN that lists this very hub: the process has its session by another address.
    pub const SPARE: u8 = 2;
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are those of the table in docs/protocols/spn.md, Frames")]
pub enum Frame {
    /// Endpoint to hub: asks for a session.
    SessionOpen(SessionOpen),
    /// Endpoint to hub: a SESSION_OPEN of a version that we do not speak; nothing else of it was read.
    SessionOpenVersion { version: u64 },
    /// Endpoint to hub: a SESSION_OPEN whose role is neither provider nor consumer.
    SessionOpenRole { role: u8 },
    /// Hub to endpoint: the session is established.
    SessionAck(SessionAck),
    /// Hub to endpoint: refused; the endpoint closes with that code.
    SessionReject { code: SessionCode, retry_after_ms: u64, text: String },
    /// Hub to endpoint: the hub is leaving. Flags bit 0: connections can be resumed.
    SessionShutdown { flags: Flags, deadline_ms: u64 },
    /// Both: the session ends; the receiver closes with that code.
    SessionClose { code: SessionCode, text: String },
    /// Both: ends both directions of a connection.
    CloseReq { conn: ConnKey, code: StreamCode },
    /// Both: the answer, where one is due.
    CloseAck { conn: ConnKey },
    /// Hub to endpoint: pause.
    PauseReq { conn: ConnKey },
    /// Endpoint to hub: paused.
    PauseAck { conn: ConnKey },
    /// Endpoint to hub: asks to go on.
    ResumeReq(ResumeReq),
    /// Endpoint to hub: RESUME_REQ of an end that knows its partner. A hub of an earlier release reads it without the tag.
    ResumeReqWith { values: ResumeReq, partner: Tag },
    /// Hub to endpoint: the answer.
    ResumeAck(ResumeAck),
    /// Both, forwarded by the hub: progress of receivers.
    DataAck(Vec<AckEntry>),
    /// Hub to consumer: a provider has been chosen. Flags bit 0: resumable.
    Connected { conn: ConnKey, flags: Flags },
    /// Hub to consumer: who the provider is.
    Partner { conn: ConnKey, partner: Tag },
    /// Provider to hub.
    SetWeight { weight: u16 },
    /// Hub to provider: the weight now in force, and how many streams the hub had opened by then.
    SetWeightAck { weight: u16, streams: u64 },
    /// Provider to hub: all connections of this weight-0 provider have ended.
    Drained,
    /// Hub to endpoint: 0 active, 1 stand-by.
    SessionState { state: u8 },
    /// Consumer to hub: start the provider.
    ProviderStart,
    /// Hub to consumer: the provider was stopped.
    ProviderStopped,
    /// Hub to consumer: from now on these provider processes may get its connections. Flags bit 0: so may others. Those that retire get
    /// none, and can be asked by SEEK.
    Providers { number: u64, flags: Flags, instances: Vec<[u8; 16]>, retiring: Vec<[u8; 16]> },
    /// Consumer to hub: PROVIDERS with that number has come.
    ProvidersAck { number: u64 },
    /// Consumer to hub, and on to that provider: does it have this connection?
    Seek { conn: ConnKey, instance: [u8; 16] },
    /// Provider to hub, and on to the consumer: it does not, and will not take it any more.
    Absent { conn: ConnKey, instance: [u8; 16] },
}

/// Why bytes are no frame. All of them close the session with code 0x10.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is over [`MAX_PAYLOAD`].
    #[error("frame 0x{kind:x}: length {length} is over {MAX_PAYLOAD}")]
    TooLong {
        /// Frame type.
        kind: u64,
        /// What came.
        length: u64,
    },
    /// An odd type that we do not know (even ones are ignored).
    #[error("frame type 0x{kind:x} is unknown and must be understood")]
    UnknownType {
        /// Frame type.
        kind: u64,
    },
    /// The payload ends before the field does.
    #[error("frame 0x{kind:x}: payload ends inside `{field}`")]
    Short {
        /// Frame type.
        kind: u64,
        /// The field that is cut.
        field: &'static str,
    },
    /// A value that its field cannot have.
    #[error("frame 0x{kind:x}: `{field}` is {value}, expected {expected}")]
    Range {
        /// Frame type.
        kind: u64,
        /// The field.
        field: &'static str,
        /// What came.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A string is not UTF-8.
    #[error("frame 0x{kind:x}: `{field}` is not UTF-8")]
    Utf8 {
        /// Frame type.
        kind: u64,
        /// The field.
        field: &'static str,
    },
}

impl Frame {
    /// Its name in docs/protocols/spn.md, Frames.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionOpen(_) | Self::SessionOpenVersion { .. } | Self::SessionOpenRole { .. } => "SESSION_OPEN",
            Self::SessionAck(_) => "SESSION_ACK",
            Self::SessionReject { .. } => "SESSION_REJECT",
            Self::SessionShutdown { .. } => "SESSION_SHUTDOWN",
            Self::SessionClose { .. } => "SESSION_CLOSE",
            Self::CloseReq { .. } => "CLOSE_REQ",
            Self::CloseAck { .. } => "CLOSE_ACK",
            Self::PauseReq { .. } => "PAUSE_REQ",
            Self::PauseAck { .. } => "PAUSE_ACK",
            Self::ResumeReq(_) | Self::ResumeReqWith { .. } => "RESUME_REQ",
            Self::ResumeAck(_) => "RESUME_ACK",
            Self::DataAck(_) => "DATA_ACK",
            Self::Connected { .. } => "CONNECTED",
            Self::Partner { .. } => "PARTNER",
            Self::SetWeight { .. } => "SET_WEIGHT",
            Self::SetWeightAck { .. } => "SET_WEIGHT_ACK",
            Self::Drained => "DRAINED",
            Self::SessionState { .. } => "SESSION_STATE",
            Self::ProviderStart => "PROVIDER_START",
            Self::ProviderStopped => "PROVIDER_STOPPED",
            Self::Providers { .. } => "PROVIDERS",
            Self::ProvidersAck { .. } => "PROVIDERS_ACK",
            Self::Seek { .. } => "SEEK",
            Self::Absent { .. } => "ABSENT",
        }
    }
}

#[cfg(test)]
mod tests;
