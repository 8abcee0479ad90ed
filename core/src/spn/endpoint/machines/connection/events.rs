//! What an endpoint connection hears, what it wants done, and its timers.

use serde::{Deserialize, Serialize};

use crate::{machine::Timer, spn::Protocol, spn::wire::code::StreamCode};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Event {
    /// Consumer: the local side wants a connection.
    Connect,
    /// Provider: the hub has opened a stream and, on `sc02`, its CONNECT is in.
    Incoming { protocol: Protocol },
    /// There is a session with stream credit.
    SessionFound { protocol: Protocol },
    /// The stream and its preamble are on their way (provider: the local side is there).
    Opened,
    /// The first payload was sent; all of it is held.
    BytesSent,
    /// Payload that was sent is no longer all held.
    BytesReleased,
    /// The first payload came.
    BytesReceived,
    /// The local side has finished sending.
    LocalFinish,
    /// The local side reads no more.
    LocalStop { code: StreamCode },
    /// The local side wants both directions to end.
    LocalAbort { code: StreamCode },
    /// FIN: the other side's bytes are all read.
    StreamFinished,
    /// RESET_STREAM.
    StreamReset { code: StreamCode },
    /// STOP_SENDING.
    StreamStopped { code: StreamCode },
    /// Our FIN is acknowledged.
    StreamAcked,
    /// Both halves of the stream are gone.
    StreamClosed,
    /// CLOSE_REQ.
    CloseReq { code: StreamCode },
    /// CLOSE_ACK.
    CloseAck,
    /// The session that carries it is lost.
    SessionLost,
    /// CONNECT says, or will say, that this end can resume.
    Resumable,
    /// CONNECTED: whether the provider can resume, too.
    Confirmed { resumable: bool },
    /// PAUSE_REQ.
    PauseReq,
    /// RESUME_REQ is on its way to a session.
    ResumeAsked,
    /// No session is left that was asked.
    ResumeUnasked,
    /// RESUME_ACK: to be asked again.
    ResumeRefused,
    /// Everybody who could have it is known, and will be asked.
    Sought,
    /// None of them has it.
    Absent,
    /// RESUME_ACK: the partner has broken it off.
    ResumeAborted { code: StreamCode },
    /// The next stream is there, with its RESUME.
    Resumed,
    /// The partner's RESUME has come on it.
    PartnerResumed,
    /// The partner says that our direction is over.
    SentOver,
    /// The partner's offsets cannot be.
    Mismatch,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields are explained with the variants")]
pub enum Action {
    /// Find a session with stream credit; connections that wait for one are served in order.
    LookUp,
    /// Provider: announce a call to the host.
    Announce,
    /// Open a stream and begin it with CONNECT under a new `conn` (on `sc01`: with nothing).
    OpenStream,
    /// Send the held payload again.
    SendHeld,
    /// Finish the stream.
    FinishStream,
    /// RESET_STREAM.
    ResetStream { code: StreamCode },
    /// STOP_SENDING.
    StopStream { code: StreamCode },
    /// Send CLOSE_REQ.
    SendCloseReq { code: StreamCode },
    /// Send CLOSE_ACK.
    SendCloseAck,
    /// Send PAUSE_ACK.
    SendPauseAck,
    /// Leave the stream for good: the next one begins with a new `conn`.
    ForgetStream,
    /// Leave the stream: the connection goes on on the next one.
    LeaveStream,
    /// Send RESUME_REQ to every session.
    AskResume,
    /// Send again, behind RESUME, what is not acknowledged.
    SendKept,
    /// Without a stream, leave the abort for the partner on every session.
    LeaveAbort { code: StreamCode },
    /// Say `stream_closed` as soon as both halves of the stream are gone.
    AwaitStreamEnd,
    /// Show the local side a reset: both directions are over.
    LocalReset { code: StreamCode },
    /// Show the local side that its bytes are wanted no more.
    LocalStopped { code: StreamCode },
    /// Final: forget it.
    Disconnected,
}

/// The timers of an endpoint connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionTimer {
    /// A session with room should have been found.
    Lookup,
    /// The pause before the next try, or the next request to resume, is over.
    Again,
    /// The time for tries is over.
    Total,
    /// The provider's local side should be there.
    Dial,
    /// The hub should have taken it off its stream.
    Pausing,
    /// It has been without a stream for too long.
    Pause,
    /// A resumed stream has lasted for long enough to be a success.
    Settled,
    /// The streams should have ended after CLOSE_REQ.
    Closing,
}

impl Timer for ConnectionTimer {
    const ALL: &'static [Self] =
        &[Self::Lookup, Self::Again, Self::Total, Self::Dial, Self::Pausing, Self::Pause, Self::Settled, Self::Closing];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Again => "again",
            Self::Total => "total",
            Self::Dial => "dial",
            Self::Pausing => "pausing",
            Self::Pause => "pause",
            Self::Settled => "settled",
            Self::Closing => "closing",
        }
    }
}
