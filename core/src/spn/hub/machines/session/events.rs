//! What happens to a session on the hub, and what follows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    machine::{self, Timer},
    spn::{hub::machines::connection::Loss, record::TerminateReason, wire::code::SessionCode},
};

/// What happened to the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Handshake done, `sc02`.
    ExtendedHandshake,
    /// Handshake done, `sc01`, and the identity is admitted.
    LegacyAdmitted,
    /// Handshake done, `sc01`, and the identity is refused.
    LegacyRefused {
        /// Why.
        code: SessionCode,
    },
    /// Handshake done, `sc01`, and its singleton service has a provider.
    LegacyOccupied,
    /// SESSION_OPEN, and the session is admitted.
    OpenAdmitted {
        /// Its weight.
        weight: u16,
    },
    /// SESSION_OPEN, and the session is refused.
    OpenRefused {
        /// Why.
        code: SessionCode,
    },
    /// SESSION_OPEN, and its singleton service has a provider.
    OpenOccupied {
        /// Its weight.
        weight: u16,
    },
    /// SESSION_OPEN of a consumer, and its service has no provider, nor can one be started.
    OpenEarly {
        /// Its weight.
        weight: u16,
    },
    /// The service of the consumer has a provider.
    ProviderCame,
    /// The singleton's first provider answered.
    IncumbentAlive,
    /// The singleton's first provider has left.
    IncumbentGone,
    /// A forbidden control frame or data stream, or the control stream ended.
    ControlViolation {
        /// 0x10, 0x12 or 0x13.
        code: SessionCode,
    },
    /// SET_WEIGHT.
    SetWeight {
        /// The new weight.
        weight: u16,
    },
    /// `sc01`: a provider's control datagram `notify_shutdown`.
    NotifyShutdown,
    /// DRAINED.
    Drained,
    /// After a reload it is no longer entitled.
    EntitlementLost,
    /// A newer session of the same process, or of the same singleton, takes its place.
    Replaced,
    /// A provider without connections: it is stopped.
    Idle,
    /// The hub is leaving.
    HubDraining {
        /// How long it gives its sessions.
        #[serde(rename = "deadline_ms", with = "machine::ms")]
        deadline: Duration,
        /// Connections are to be resumed elsewhere.
        resumable: bool,
    },
    /// The hub ends now.
    HubStopping,
    /// SESSION_CLOSE.
    SessionClose {
        /// Its code.
        code: SessionCode,
    },
    /// QUIC: closed by the endpoint.
    ClosedByPeer {
        /// Its code.
        code: SessionCode,
    },
    /// QUIC: lost, timed out or failed.
    Lost,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The session begins: register it, and write its start record.
    Begin {
        /// Its weight.
        weight: u16,
    },
    /// The session ends: its connections are lost, and the end record is due.
    End {
        /// What the record says.
        reason: TerminateReason,
        /// What it means for the other ends of its connections.
        loss: Loss,
    },
    /// Ask the singleton's first provider for a sign of life.
    ProbeIncumbent,
    /// The singleton's first provider is dead: replace it.
    EvictIncumbent,
    /// Send SESSION_ACK.
    SendAck,
    /// Send SESSION_REJECT.
    SendReject {
        /// Why.
        code: SessionCode,
        /// When to try again.
        #[serde(rename = "retry_after_ms", with = "machine::ms")]
        retry_after: Duration,
    },
    /// Send SESSION_CLOSE.
    SendClose {
        /// Why.
        code: SessionCode,
    },
    /// Send SESSION_SHUTDOWN.
    SendShutdown {
        /// How long the hub waits.
        #[serde(rename = "deadline_ms", with = "machine::ms")]
        deadline: Duration,
        /// Connections are to be resumed elsewhere.
        resumable: bool,
    },
    /// Send the control datagram `notify_shutdown`.
    SendNotifyShutdown,
    /// Take the new weight.
    SetWeight {
        /// The new weight.
        weight: u16,
    },
    /// Send SET_WEIGHT_ACK.
    SendWeightAck {
        /// The weight in force.
        weight: u16,
    },
    /// Close QUIC.
    Close {
        /// With this code.
        code: SessionCode,
    },
}

/// The timers of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionTimer {
    /// SESSION_OPEN is due.
    Open,
    /// The singleton's first provider should have answered.
    Hold,
    /// A provider should have come.
    Provider,
    /// The endpoint should have closed.
    Close,
}

impl Timer for SessionTimer {
    const ALL: &'static [Self] = &[Self::Open, Self::Hold, Self::Provider, Self::Close];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Hold => "hold",
            Self::Provider => "provider",
            Self::Close => "close",
        }
    }
}
