//! The QUIC connection of a session, and what is known of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::{
    quic::{Handle, StreamId, TransportConfig},
    spn::{
        ConnKey, Protocol,
        endpoint::{
            ConnId,
            policy::{seek::Roster, standstill::Hold},
        },
        flow::budget::Windows,
        wire::{control::Control, preamble::Collector},
    },
};

/// A stream of the hub that is no connection yet.
#[derive(Debug)]
pub(in crate::spn::endpoint::binding) struct Opening {
    pub(in crate::spn::endpoint::binding) collector: Collector,
}

impl Default for Opening {
    fn default() -> Self {
        Self { collector: Collector::of_hub() }
    }
}

/// A QUIC connection of a session.
pub(in crate::spn::endpoint) struct Wire {
    pub(in crate::spn::endpoint) handle: Handle,
    pub(in crate::spn::endpoint) protocol: Protocol,
    /// Since when the handshake is done and SESSION_OPEN waits for its turn.
    pub(super) turn: Option<Instant>,
    /// The hubs that SESSION_OPEN has listed.
    pub(super) listed: Vec<[u8; 16]>,
    pub(in crate::spn::endpoint) control: Option<Control>,
    /// Control frames were left unread, since the hub has left ours unread.
    pub(super) control_paused: bool,
    /// Established: streams are served.
    pub(in crate::spn::endpoint) up: bool,
    /// New connections may use it.
    pub(super) usable: bool,
    pub(super) standby: bool,
    /// SESSION_CLOSE is on its way: nothing new is served.
    pub(in crate::spn::endpoint) left: bool,
    /// QUIC has no stream credit left.
    pub(super) exhausted: bool,
    /// The hub says that this identity has no right to be here: its connections end.
    pub(super) disowned: bool,
    /// Connections that PAUSE_REQ has spoken of before their stream has come.
    pub(in crate::spn::endpoint::binding) stray_pauses: BTreeSet<ConnKey>,
    /// Connections that the hub allows at once.
    pub(super) max_connections: u64,
    pub(super) session_id: String,
    pub(super) service: String,
    /// The windows of its payload.
    pub(in crate::spn::endpoint::binding) windows: Windows,
    /// A provider's: SET_WEIGHT_ACK, and how many streams the hub had opened by then, as long as some of them have not said what they are.
    pub(super) weighed: Option<(u16, u64)>,
    /// Streams that the hub has opened, as far as they have come.
    pub(in crate::spn::endpoint) opened: u64,
    /// Streams that the hub may have open.
    pub(in crate::spn::endpoint::binding) granted: u32,
    /// Connections by their streams.
    pub(in crate::spn::endpoint) streams: BTreeMap<StreamId, ConnId>,
    /// Streams of the hub whose preamble is not complete, or that have overtaken SESSION_ACK.
    pub(in crate::spn::endpoint::binding) openings: BTreeMap<StreamId, Opening>,
    /// Who may get a consumer's connections, as the hub says.
    pub(in crate::spn::endpoint) roster: Option<Roster>,
    /// Datagrams that had come when it was last looked for silence, if it is,
    pub(super) listened: Option<u64>,
    /// when there were more than the time before,
    pub(super) heard_at: Option<Instant>,
    /// and when there was a reason to listen.
    pub(super) used_at: Option<Instant>,
    /// New streams wait: the endpoint stood still.
    pub(in crate::spn::endpoint) hold: Option<Hold>,
    /// Connections that may go on here as soon as there is stream credit.
    pub(in crate::spn::endpoint::binding) legs: BTreeSet<ConnId>,
}

impl Wire {
    pub(super) fn new(handle: Handle, transport: &TransportConfig, window_max: u32) -> Self {
        Self {
            handle,
            protocol: Protocol::Sc02,
            turn: None,
            listed: Vec::new(),
            control: None,
            control_paused: false,
            up: false,
            usable: false,
            standby: false,
            left: false,
            exhausted: false,
            disowned: false,
            stray_pauses: BTreeSet::new(),
            max_connections: 0,
            session_id: String::new(),
            service: String::new(),
            windows: Windows::new(transport, window_max),
            weighed: None,
            opened: 0,
            granted: transport.max_streams,
            streams: BTreeMap::new(),
            openings: BTreeMap::new(),
            roster: None,
            listened: None,
            heard_at: None,
            used_at: None,
            hold: None,
            legs: BTreeSet::new(),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let allowed = match self.protocol {
            Protocol::Sc01 => true,
            Protocol::Sc02 => (self.streams.len() as u64) < self.max_connections,
        };
        self.usable && !self.standby && !self.exhausted && allowed
    }
}
