//! Close and stream codes (docs/protocols/spn.md, Codes).
//!
//! Session codes end a QUIC connection or refuse a session; stream codes travel in RESET_STREAM, STOP_SENDING and CLOSE_REQ.
//! The two are separate number spaces that share the 0x2x values.

use crate::spn::Protocol;

/// Orderly end.
pub const OK: u64 = 0;
/// `sc01`: the certificate has no usable Common Name.
pub const NO_IDENTITY: u64 = 1;
/// `sc01`: neither provider nor consumer.
pub const ROLE_UNSUPPORTED: u64 = 2;
/// The service has no provider, and none can be started.
pub const NO_PROVIDER: u64 = 100;

/// `sc01`, on streams: the provider could not dial.
pub const DIAL_FAILED: u64 = 1;

/// Malformed control frame or preamble.
pub const MALFORMED: u64 = 0x10;
/// No session request, or no answer to it, in time.
pub const OPEN_TIMEOUT: u64 = 0x11;
/// A data stream before SESSION_ACK.
pub const DATA_BEFORE_ACK: u64 = 0x12;
/// The control stream ended without SESSION_CLOSE.
pub const CONTROL_LOST: u64 = 0x13;
/// SESSION_OPEN names another role than the ALPN value.
pub const ROLE_MISMATCH: u64 = 0x14;
/// The identity is not entitled to the service, or not in this role.
pub const NOT_ENTITLED: u64 = 0x15;
/// There is no such service.
pub const SERVICE_UNKNOWN: u64 = 0x16;
/// A singleton service has its provider already.
pub const SINGLETON_OCCUPIED: u64 = 0x17;
/// The realm is disabled, or the hub is leaving.
pub const HUB_REMOVED: u64 = 0x18;
/// Too many sessions.
pub const TOO_MANY_SESSIONS: u64 = 0x19;
/// The peer's application aborted, or the provider could not dial.
pub const PEER_ABORTED: u64 = 0x20;
/// The partner's session is lost, and the connection cannot be resumed.
pub const PARTNER_LOST: u64 = 0x21;
/// It was paused for too long.
pub const PAUSE_TIMEOUT: u64 = 0x22;
/// The connection id is in use, or the two ends of a resumed connection disagree about what was sent.
pub const CONN_IN_USE: u64 = 0x23;
/// There is nobody to resume with.
pub const RESUME_PARTNER_MISSING: u64 = 0x24;
/// Too many connections.
pub const CONNECTION_LIMIT: u64 = 0x25;
/// Internal error.
pub const INTERNAL: u64 = 0x26;
/// Paused: to be resumed here or elsewhere.
pub const PAUSED: u64 = 0x27;
/// Not started: no byte reached a provider; the connection may be opened again.
pub const NOT_STARTED: u64 = 0x28;

/// What a code means, in words: the reason text that goes with it on the wire and in diagnostics.
#[must_use]
pub const fn text(code: u64) -> &'static str {
    match code {
        OK => "closed",
        NO_IDENTITY => "the certificate has no Common Name",
        ROLE_UNSUPPORTED => "unsupported role",
        NO_PROVIDER => "No provider available for the requested service",
        MALFORMED => "malformed control frame or preamble",
        OPEN_TIMEOUT => "no session request in time",
        DATA_BEFORE_ACK => "data stream before SESSION_ACK",
        CONTROL_LOST => "control stream lost",
        ROLE_MISMATCH => "the role in SESSION_OPEN is not the role of the ALPN value",
        NOT_ENTITLED => "identity not entitled to this service in this role",
        SERVICE_UNKNOWN => "unknown service",
        SINGLETON_OCCUPIED => "the service is a singleton and has its provider already",
        HUB_REMOVED => "realm disabled, or hub leaving",
        TOO_MANY_SESSIONS => "too many sessions",
        PEER_ABORTED => "the peer's application aborted, or could not be reached",
        PARTNER_LOST => "the partner's session is lost",
        PAUSE_TIMEOUT => "paused for too long",
        CONN_IN_USE => "connection id in use",
        RESUME_PARTNER_MISSING => "nobody to resume with",
        CONNECTION_LIMIT => "too many connections",
        INTERNAL => "internal error",
        PAUSED => "paused",
        NOT_STARTED => "no byte reached a provider",
        _ => "unknown code",
    }
}

/// A stream code of one end, as the other end is to see it: copied between equal protocols, 0x20 from `sc01` to `sc02`.
/// What 0x27 and 0x28 mean on `sc02` they do not mean on `sc01` (COD-28).
#[must_use]
pub const fn passed_on(code: u64, from: Protocol, to: Protocol) -> u64 {
    match (from, to) {
        (Protocol::Sc01, Protocol::Sc02) => PEER_ABORTED,
        (Protocol::Sc01, Protocol::Sc01) if matches!(code, PAUSED | NOT_STARTED) => PEER_ABORTED,
        _ => code,
    }
}
