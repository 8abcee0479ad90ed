//! What an endpoint session hears, what it wants done, and its timers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    machine::{self, Timer},
    spn::{Protocol, Role, wire::code::SessionCode},
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Event {
    /// The host wants the session: at first, and when the one is lost for which the address was in reserve.
    Connect { role: Role },
    /// QUIC handshake done; the ALPN value names the protocol.
    Connected { protocol: Protocol },
    /// SESSION_ACK; `standby`: not for new connections.
    SessionAck { standby: bool },
    /// SESSION_REJECT: why, and how long not to try again.
    SessionReject {
        code: SessionCode,
        #[serde(rename = "retry_after_ms", with = "machine::ms")]
        retry_after: Duration,
    },
    /// SESSION_SHUTDOWN or the control datagram `notify_shutdown`: how long connections may drain (0: as configured).
    SessionShutdown {
        #[serde(rename = "deadline_ms", with = "machine::ms")]
        deadline: Duration,
    },
    /// SESSION_CLOSE.
    SessionClose { code: SessionCode },
    /// SESSION_STATE, or the control datagrams `notify_standby` and `notify_active`.
    SessionState { standby: bool },
    /// PROVIDER_STOPPED or the control datagram `notify_provider_stopped`: the next connection announces itself again.
    ProviderStopped,
    /// SET_WEIGHT_ACK: the weight now in force.
    SetWeightAck { weight: u16 },
    /// The hub broke the protocol, as the codec saw; the code is what it is closed with.
    Violation { code: SessionCode },
    /// QUIC was closed by the hub, lost, or never established.
    Lost,
    /// DNS lists the address no more.
    AddressLost,
    /// The host asks for another weight; 0 retires a provider.
    SetWeight { weight: u16 },
    /// The host shuts down: connections may drain, and what waits for a session gets one until then. The second time at once.
    LocalShutdown,
    /// A connection is about to use the session.
    ConnectionOpened,
    /// A connection of the session is over.
    ConnectionEnded,
    /// Connections of the endpoint wait for any session, or no longer.
    Needed { needed: bool },
    /// The hub has a newer session with this endpoint by another address.
    Elsewhere,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Action {
    /// Start a QUIC connection to the address.
    Dial,
    /// Send SESSION_OPEN with this weight.
    SendSessionOpen { weight: u16 },
    /// Connections may use it; not new ones while `standby`.
    Established { standby: bool },
    /// It went to stand-by, or back.
    State { standby: bool },
    /// Open no new connections on it.
    Hide,
    /// Grant the hub no more streams.
    RefuseStreams,
    /// Send `request_provider_start`: PROVIDER_START or the control datagram.
    SendProviderStart,
    /// Take the connections that can be resumed off the session: they go on on another one.
    MoveAway,
    /// Send SET_WEIGHT.
    SendSetWeight { weight: u16 },
    /// Send DRAINED.
    SendDrained,
    /// Send the control datagram `notify_shutdown`.
    SendNotifyShutdown,
    /// Send SESSION_CLOSE.
    SendSessionClose { code: SessionCode },
    /// The connections on it have lost their session.
    SessionLost,
    /// Close QUIC with this code; what that QUIC connection says from now on is of no interest.
    Close { code: SessionCode },
    /// The session is there no more: let the addresses be tried that are in reserve for its hub.
    CallReserve,
    /// The next try comes after that time.
    Waiting {
        #[serde(rename = "retry_ms", with = "machine::ms")]
        retry: Duration,
    },
    /// The address is in reserve.
    Reserved,
    /// Final: it ended in order.
    Closed,
    /// Final: it was given up.
    Failed,
}

/// The timers of an endpoint session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionTimer {
    /// The QUIC handshake should be done.
    Handshake,
    /// SESSION_ACK should have come.
    Ack,
    /// The next try is due.
    Retry,
    /// An `sc01` session has lived for long enough to be a success.
    Settled,
    /// Connections have had time to drain, or the endpoint to end.
    Closing,
    /// The hub should have closed QUIC after SESSION_CLOSE; on `sc01`, the control datagram has had its time.
    Linger,
    /// An address in reserve is to be looked at again.
    Reserve,
}

impl Timer for SessionTimer {
    const ALL: &'static [Self] =
        &[Self::Handshake, Self::Ack, Self::Retry, Self::Settled, Self::Closing, Self::Linger, Self::Reserve];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::Settled => "settled",
            Self::Closing => "closing",
            Self::Linger => "linger",
            Self::Reserve => "reserve",
        }
    }
}
