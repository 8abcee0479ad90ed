//! The states of an endpoint connection, and what has happened on its two directions.

use crate::machine;
use crate::spn::wire::code::StreamCode;

/// The states of an endpoint connection.
#[derive(Debug, Clone, Copy, Default)]
pub enum State {
    /// It has no stream yet.
    LookingUpSession {
        /// The host looks for a session; else it is not wanted yet, or a pause runs.
        asked: bool,
    },
    /// Consumer: the stream is being opened. Provider: the local side is being dialled.
    Connecting,
    /// Payload flows.
    Connected,
    /// The hub wants it off its stream: nothing is sent any more, what is on its way is still read.
    Pausing,
    /// Without a stream, and no session knows that it wants one.
    Paused,
    /// Without a stream; at least one session has been asked for another.
    Resuming,
    /// Both directions are to end.
    Disconnecting,
    /// Over.
    #[default]
    Disconnected,
}

impl machine::State for State {
    fn name(&self) -> &'static str {
        match self {
            Self::LookingUpSession { .. } => "LookingUpSession",
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Pausing => "Pausing",
            Self::Paused => "Paused",
            Self::Resuming => "Resuming",
            Self::Disconnecting => "Disconnecting",
            Self::Disconnected => "Disconnected",
        }
    }
}

/// Our sending direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// The local side has finished; FIN is on its way.
    Finished,
    /// FIN has arrived.
    Delivered,
    /// The other end wants no more, or we have reset it.
    Stopped,
}

/// The two directions, and what has happened on them: it outlives the streams, and its owner asks for it after the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) sending: Sending,
    /// The receiving direction is open.
    pub(super) receiving: bool,
    /// The local side wants no more, with this code.
    pub(super) read_closed: Option<StreamCode>,
    /// Payload was sent, on any try.
    pub(super) sent: bool,
    /// All of it is held and can be sent again.
    pub(super) held: bool,
    /// Payload or its end has come.
    pub(super) received: bool,
    /// Both ends can resume, for all we know.
    pub(super) resumable: bool,
    /// The partner has been heard of.
    pub(super) confirmed: bool,
    /// Our FIN is acknowledged by the hub, which says nothing of a partner that can resume.
    pub(super) acked: bool,
}

impl Flow {
    pub(super) const fn new() -> Self {
        Self {
            sending: Sending::Open,
            receiving: false,
            read_closed: None,
            sent: false,
            held: false,
            received: false,
            resumable: false,
            confirmed: false,
            acked: false,
        }
    }

    /// Both directions are over.
    pub(super) const fn is_over(&self) -> bool {
        !self.receiving && matches!(self.sending, Sending::Delivered | Sending::Stopped)
    }

    /// The local side has finished; FIN is for whoever has a stream.
    pub(super) fn remember_finish(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Finished;
        }
    }
}
