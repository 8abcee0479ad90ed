//! How far the two directions of a connection have come, and what each side has reported.

use super::{Action, HubConnection};
use crate::spn::{Side, record::DisconnectReason, wire::code::StreamCode};

/// A value for each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    pub(super) consumer: bool,
    pub(super) provider: bool,
}

impl Sides {
    pub(super) fn only(side: Side) -> Self {
        Self { consumer: side == Side::Consumer, provider: side == Side::Provider }
    }

    #[must_use]
    pub(super) fn with(self, side: Side) -> Self {
        match side {
            Side::Consumer => Self { consumer: true, ..self },
            Side::Provider => Self { provider: true, ..self },
        }
    }

    pub(super) fn has(self, side: Side) -> bool {
        match side {
            Side::Consumer => self.consumer,
            Side::Provider => self.provider,
        }
    }

    pub(super) fn both(self) -> bool {
        self.consumer && self.provider
    }
}

/// How a direction was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cut {
    /// Its reader left.
    Stopped,
    /// Its source aborted.
    Reset,
}

/// How the two directions stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Whose direction is over.
    pub(super) over: Sides,
    /// The worse of the two ends, for the record.
    pub(super) cut: Option<Cut>,
    /// Who has reported the other's direction over.
    pub(super) reported: Sides,
    /// The provider knows the connection.
    pub(super) answered: bool,
}

impl Flow {
    /// The flow of a connection that its provider knows already.
    pub(super) fn known() -> Self {
        Self { answered: true, ..Self::default() }
    }

    pub(super) fn reason(self) -> DisconnectReason {
        if self.cut.is_some() { DisconnectReason::ClosedByPeer } else { DisconnectReason::Closed }
    }
}

/// One direction ends as its source or its reader wants it, and the other is left alone (HBC-6, HBC-7). A direction that is over stays over.
impl HubConnection {
    pub(super) fn pass_fin(&mut self, flow: Flow, side: Side) -> Flow {
        if flow.over.has(side) {
            return flow;
        }
        self.parts.act(Action::Finish { to: side.other() });
        Flow { over: flow.over.with(side), ..flow }
    }

    pub(super) fn pass_reset(&mut self, flow: Flow, side: Side, code: StreamCode) -> Flow {
        if flow.over.has(side) {
            return flow;
        }
        self.parts.act(Action::Abort { to: side.other(), code });
        Flow { over: flow.over.with(side), cut: Some(Cut::Reset), ..flow }
    }

    pub(super) fn pass_stop(&mut self, flow: Flow, side: Side, code: StreamCode) -> Flow {
        if flow.over.has(side.other()) {
            return flow;
        }
        self.parts.act(Action::StopSending { to: side.other(), code });
        // QUIC wants an answer to STOP_SENDING (RFC 9000 §3.5).
        self.parts.act(Action::Abort { to: side, code });
        Flow { over: flow.over.with(side.other()), cut: flow.cut.max(Some(Cut::Stopped)), ..flow }
    }

    /// Whether no end has to be informed of anything any more.
    pub(super) fn is_reported(&self, flow: Flow) -> bool {
        // A reset ends a connection for the end that sees it.
        !self.resumable || flow.cut == Some(Cut::Reset) || flow.reported.both()
    }
}
