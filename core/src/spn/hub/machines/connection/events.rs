//! What happens to a connection on the hub, and what follows.

use serde::{Deserialize, Serialize};

use crate::{
    machine,
    spn::{Side, record::DisconnectReason, wire::code::StreamCode},
};

/// What the loss of a session means for the partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// It may come back: a connection that can resume waits for it.
    Away,
    /// It has left for good, or lost its right.
    Left,
    /// It has left in good order, after DRAINED or because the hub leaves: its connections have ended or been paused, and it
    /// never saw those that it has not reported.
    Drained,
    /// A provider's, before a byte of payload has gone either way: the consumer may try another one.
    Unstarted,
}

/// What happened to the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The consumer's stream, with its preamble if it has one.
    ConnectStream,
    /// A provider session was chosen, and its stream is open.
    ProviderChosen {
        /// Both ends can resume.
        resumable: bool,
    },
    /// The consumer's stream goes on with a connection that both ends have asked to resume, and the provider's is open.
    ResumeStream,
    /// The same, but the provider's session has no stream credit: its stream follows when it has.
    ResumeWaits,
    /// There is no provider that could take it.
    NoneAvailable,
    /// The provider has acknowledged nothing since it got the connection, and another one answers.
    ProviderSilent,
    /// A session went away.
    SessionLost {
        /// Whose.
        side: Side,
        /// How.
        loss: Loss,
    },
    /// The first byte has come back from the provider: it knows the connection.
    Answered,
    /// Everything from this side has been passed on, and it finished.
    Fin {
        /// The source.
        side: Side,
    },
    /// This side aborted its direction.
    Reset {
        /// The source.
        side: Side,
        /// The code to pass on.
        code: StreamCode,
    },
    /// This side wants no more of the other's direction.
    Stop {
        /// The reader that left.
        side: Side,
        /// The code to pass on.
        code: StreamCode,
    },
    /// DATA_ACK that says that the other's direction is over for this side has been forwarded.
    Reported {
        /// Who reports.
        side: Side,
    },
    /// CLOSE_REQ.
    CloseReq {
        /// Who asks.
        side: Side,
        /// Its code.
        code: StreamCode,
        /// The other side has a control stream, and can be asked.
        askable: bool,
    },
    /// CLOSE_ACK.
    CloseAck {
        /// Who answers.
        side: Side,
    },
    /// The connection is to be paused: the hub is leaving, or an operator asks for it.
    PauseWanted,
    /// PAUSE_ACK.
    PauseAck {
        /// Who answers.
        side: Side,
    },
    /// RESUME_REQ of the present generation: this side has lost its stream.
    ResumeReq {
        /// Who asks.
        side: Side,
    },
    /// A stream of a higher generation takes its place.
    Superseded,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A provider has it: forward the preamble, send the consumer of a new connection CONNECTED, write the start record, and move bytes.
    Begin,
    /// Finish the stream to this side.
    Finish {
        /// The reader.
        to: Side,
    },
    /// Abort the direction to this side (RESET_STREAM).
    Abort {
        /// The reader.
        to: Side,
        /// With this code.
        code: StreamCode,
    },
    /// Ask this side to end its direction (STOP_SENDING).
    StopSending {
        /// The source.
        to: Side,
        /// With this code.
        code: StreamCode,
    },
    /// Send CLOSE_REQ.
    SendCloseReq {
        /// Who is asked.
        to: Side,
        /// With this code.
        code: StreamCode,
    },
    /// Send CLOSE_ACK.
    SendCloseAck {
        /// Who had asked.
        to: Side,
    },
    /// Send PAUSE_REQ.
    SendPauseReq {
        /// Who is asked.
        to: Side,
    },
    /// Answer this side's RESUME_REQ with the code, and forget it.
    RefuseResume {
        /// Who had asked.
        to: Side,
        /// How it ends for this side. With any code but 0x28 the partner has aborted.
        code: StreamCode,
    },
    /// Both streams have ended: write the end record. Reports are still forwarded.
    Finished {
        /// What the record says.
        reason: DisconnectReason,
    },
    /// It is over; forget it. With a reason the end record is due.
    End {
        /// What the record says.
        reason: Option<DisconnectReason>,
    },
}

/// The timers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A provider, or a stream of it, should have been found.
    Choosing,
    /// CLOSE_ACK should have come.
    Closing,
    /// PAUSE_ACK should have come.
    Pausing,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::Choosing, Self::Closing, Self::Pausing];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Choosing => "choosing",
            Self::Closing => "closing",
            Self::Pausing => "pausing",
        }
    }
}
