//! The states of an endpoint session, and what is valid in them.

use crate::{machine, spn::Protocol};

/// The states of an endpoint session.
#[derive(Debug, Clone, Copy, Default)]
pub enum State {
    /// The address is known.
    IpFound,
    /// QUIC handshake; then SESSION_OPEN is unanswered.
    SessionConnecting {
        /// The weight that SESSION_OPEN has asked for, if it is on its way.
        asked: Option<u16>,
    },
    /// Until the next try.
    Waiting,
    /// The hub behind the address has a session with this endpoint by another address: nothing is open here.
    Reserve,
    /// Connections may use it.
    Established(Live),
    /// No new connections.
    Closing(Closing),
    /// Over.
    #[default]
    Closed,
    /// Given up.
    Failed,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::IpFound => "IPFound",
            Self::SessionConnecting { .. } => "SessionConnecting",
            Self::Waiting => "Waiting",
            Self::Reserve => "Reserve",
            Self::Established(_) => "Established",
            Self::Closing(_) => "Closing",
            Self::Closed => "Closed",
            Self::Failed => "Failed",
        }
    }
}

impl State {
    /// Whether the session is there, and connections that wait for a session may use it.
    pub(super) fn is_established(&self) -> bool {
        match self {
            Self::Established(_) => true,
            Self::Closing(closing) => closing.live.resumes && !closing.left,
            Self::IpFound
            | Self::SessionConnecting { .. }
            | Self::Waiting
            | Self::Reserve
            | Self::Closed
            | Self::Failed => false,
        }
    }
}

/// A session that carries connections.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    pub(super) protocol: Protocol,
    /// Connections on it.
    pub(super) open: u32,
    pub(super) standby: bool,
    /// The next connection is announced by `request_provider_start`.
    pub(super) start_armed: bool,
    /// The weight that was said last.
    pub(super) said: u16,
    /// The weight that the hub has confirmed last.
    pub(super) in_force: u16,
    /// A SET_WEIGHT is unanswered.
    pub(super) weighing: bool,
    /// This provider asked for weight 0: DRAINED and SESSION_CLOSE follow the last connection.
    pub(super) retiring: bool,
    /// Its connections go on elsewhere: SESSION_CLOSE may overtake their resets, so it says the same.
    pub(super) moving: bool,
    /// The address stays in reserve when the session has ended.
    pub(super) surplus: bool,
    /// It drains for the endpoint's end, and may be used by connections that have lost another session.
    pub(super) resumes: bool,
}

impl Live {
    /// Nothing is left, and nothing will come: the hub has heard of weight 0 if it had to.
    pub(super) fn is_drained(&self) -> bool {
        self.open == 0 && (!self.retiring || (self.in_force == 0 && !self.weighing))
    }
}

/// A session on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Closing {
    pub(super) live: Live,
    /// The last connection is gone, and the end is on its way.
    pub(super) left: bool,
    /// A local shutdown asked for it, so another one forces it.
    pub(super) signalled: bool,
}
