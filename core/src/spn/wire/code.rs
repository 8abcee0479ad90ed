//! Session codes and stream codes (docs/protocols/spn.md, Codes).
//!
//! They are separate number spaces that share some values. A code that a later version adds is kept and passed on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spn::Protocol;

/// Why a session ends or is refused: in CONNECTION_CLOSE of QUIC, SESSION_REJECT and SESSION_CLOSE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionCode(pub u64);

/// Why a connection or its stream ends: in RESET_STREAM and STOP_SENDING of QUIC, CLOSE_REQ, RESUME_REQ and RESUME_ACK.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamCode(pub u64);

impl SessionCode {
    /// Orderly end.
    pub const OK: Self = Self(0);
    /// `sc01`: the certificate has no usable Common Name.
    pub const NO_IDENTITY: Self = Self(1);
    /// `sc01`: neither provider nor consumer.
    pub const ROLE_UNSUPPORTED: Self = Self(2);
    /// The service has no provider, and none can be started.
    pub const NO_PROVIDER: Self = Self(100);
    /// Malformed control frame or preamble.
    pub const MALFORMED: Self = Self(0x10);
    /// No session request, or no answer to it, in time.
    pub const OPEN_TIMEOUT: Self = Self(0x11);
    /// A data stream before SESSION_ACK.
    pub const DATA_BEFORE_ACK: Self = Self(0x12);
    /// The control stream ended without SESSION_CLOSE.
    pub const CONTROL_LOST: Self = Self(0x13);
    /// SESSION_OPEN names another role than the ALPN value.
    pub const ROLE_MISMATCH: Self = Self(0x14);
    /// The identity is not entitled to the service, or not in this role.
    pub const NOT_ENTITLED: Self = Self(0x15);
    /// There is no such service.
    pub const SERVICE_UNKNOWN: Self = Self(0x16);
    /// A singleton service has its provider already.
    pub const SINGLETON_OCCUPIED: Self = Self(0x17);
    /// The realm is disabled, or the hub is leaving.
    pub const HUB_REMOVED: Self = Self(0x18);
    /// Too many sessions.
    pub const TOO_MANY_SESSIONS: Self = Self(0x19);
    /// Internal error.
    pub const INTERNAL: Self = Self(0x26);
    /// Paused: to be resumed here or elsewhere.
    pub const PAUSED: Self = Self(0x27);

    /// What it means: the reason text that goes with it on the wire and in diagnostics.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OK => "closed",
            Self::NO_IDENTITY => "the certificate has no Common Name",
            Self::ROLE_UNSUPPORTED => "unsupported role",
            Self::NO_PROVIDER => "No provider available for the requested service",
            Self::MALFORMED => "malformed control frame or preamble",
            Self::OPEN_TIMEOUT => "no session request in time",
            Self::DATA_BEFORE_ACK => "data stream before SESSION_ACK",
            Self::CONTROL_LOST => "control stream lost",
            Self::ROLE_MISMATCH => "the role in SESSION_OPEN is not the role of the ALPN value",
            Self::NOT_ENTITLED => "identity not entitled to this service in this role",
            Self::SERVICE_UNKNOWN => "unknown service",
            Self::SINGLETON_OCCUPIED => "the service is a singleton and has its provider already",
            Self::HUB_REMOVED => "realm disabled, or hub leaving",
            Self::TOO_MANY_SESSIONS => "too many sessions",
            Self::INTERNAL => "internal error",
            Self::PAUSED => "paused",
            Self(_) => "unknown code",
        }
    }
}

impl StreamCode {
    /// Orderly end.
    pub const OK: Self = Self(0);
    /// `sc01`: the provider could not dial.
    pub const DIAL_FAILED: Self = Self(1);
    /// Malformed control frame or preamble.
    pub const MALFORMED: Self = Self(0x10);
    /// The identity is not entitled to the service, or not in this role.
    pub const NOT_ENTITLED: Self = Self(0x15);
    /// Too many sessions.
    pub const TOO_MANY_SESSIONS: Self = Self(0x19);
    /// The peer's application aborted, or the provider could not dial.
    pub const PEER_ABORTED: Self = Self(0x20);
    /// The partner's session is lost, and the connection cannot be resumed.
    pub const PARTNER_LOST: Self = Self(0x21);
    /// It was paused for too long.
    pub const PAUSE_TIMEOUT: Self = Self(0x22);
    /// The connection id is in use, or the two ends of a resumed connection disagree about what was sent.
    pub const CONN_IN_USE: Self = Self(0x23);
    /// There is nobody to resume with.
    pub const RESUME_PARTNER_MISSING: Self = Self(0x24);
    /// Too many connections.
    pub const CONNECTION_LIMIT: Self = Self(0x25);
    /// Internal error.
    pub const INTERNAL: Self = Self(0x26);
    /// Paused: to be resumed here or elsewhere.
    pub const PAUSED: Self = Self(0x27);
    /// Not started: no byte reached a provider; the connection may be opened again.
    pub const NOT_STARTED: Self = Self(0x28);

    /// What it means: the reason text that goes with it on the wire and in diagnostics.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OK => "closed",
            Self::DIAL_FAILED => "the provider could not dial",
            Self::MALFORMED => "malformed control frame or preamble",
            Self::NOT_ENTITLED => "identity not entitled to this service in this role",
            Self::TOO_MANY_SESSIONS => "too many sessions",
            Self::PEER_ABORTED => "the peer's application aborted, or could not be reached",
            Self::PARTNER_LOST => "the partner's session is lost",
            Self::PAUSE_TIMEOUT => "paused for too long",
            Self::CONN_IN_USE => "connection id in use",
            Self::RESUME_PARTNER_MISSING => "nobody to resume with",
            Self::CONNECTION_LIMIT => "too many connections",
            Self::INTERNAL => "internal error",
            Self::PAUSED => "paused",
            Self::NOT_STARTED => "no byte reached a provider",
            Self(_) => "unknown code",
        }
    }

    /// The code of one end, as the other end sees it: copied between equal protocols, 0x20 from `sc01` to `sc02`.
    /// 0x27 and 0x28 have their meaning on `sc02` only (COD-28).
    #[must_use]
    pub const fn passed_on(self, from: Protocol, to: Protocol) -> Self {
        match (from, to) {
            (Protocol::Sc01, Protocol::Sc02) => Self::PEER_ABORTED,
            (Protocol::Sc01, Protocol::Sc01) if matches!(self, Self::PAUSED | Self::NOT_STARTED) => Self::PEER_ABORTED,
            _ => self,
        }
    }
}

impl fmt::Display for SessionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code 0x{:x})", self.text(), self.0)
    }
}

impl fmt::Display for StreamCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code 0x{:x})", self.text(), self.0)
    }
}
