//! What happens to the requests to resume one connection, and what follows.

use serde::{Deserialize, Serialize};

use crate::{
    machine,
    spn::{Side, Tag, wire::code::StreamCode, wire::frame::Flags},
};

/// A session of the hub, by a number that the owner of the machine gives it, and gives to no other session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionRef(pub u64);

/// An end of a connection: what its session's certificate proves, and which partner it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Its service, by number.
    pub service: u32,
    /// Its side of the connection.
    pub side: Side,
    /// Its own tag.
    pub tag: Tag,
    /// The tag that it names as its partner's. An end of an earlier release names none (OWN-7).
    #[serde(default)]
    pub partner: Option<Tag>,
}

/// What a request to resume reports of its end, for the partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Generation of the last stream on which the end was Connected.
    pub generation: u64,
    /// Payload bytes that its application has accepted.
    #[serde(default)]
    pub received: u64,
    /// The flags of RESUME_REQ; bit 2: aborted.
    #[serde(default)]
    pub flags: Flags,
    /// The code of the abort, if it is aborted.
    #[serde(default)]
    pub code: StreamCode,
}

impl Values {
    /// Whether the end has aborted the connection.
    #[must_use]
    pub const fn is_aborted(&self) -> bool {
        self.flags.contains(Flags::ABORTED)
    }

    /// The status that the partner's RESUME_ACK has.
    pub(super) const fn status(&self) -> StreamCode {
        match self.code {
            _ if !self.is_aborted() => StreamCode::OK,
            StreamCode::OK => StreamCode::PEER_ABORTED,
            code => code,
        }
    }
}

/// The tags of the two ends of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owners {
    /// The consumer's.
    pub consumer: Tag,
    /// The provider's.
    pub provider: Tag,
}

impl Owners {
    pub(super) const fn of(&self, side: Side) -> Tag {
        match side {
            Side::Consumer => self.consumer,
            Side::Provider => self.provider,
        }
    }
}

/// What the hub, its sessions and the present leg permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Nothing is in the way.
    Free,
    /// The session has as many requests as it may have: one may only be replaced (RES-28).
    Full,
    /// The present leg belongs to another identity, or to another service (OWN-4).
    Foreign,
    /// The hub accepts no work any more.
    Leaving,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Before any other event: the connection has a leg.
    LegFound {
        /// Its generation.
        generation: u64,
    },
    /// RESUME_REQ.
    ResumeReq {
        /// The session that it came on.
        session: SessionRef,
        /// The end that asks.
        end: End,
        /// What it reports.
        values: Values,
        /// Whether it may ask.
        admission: Admission,
        /// The ends of the present leg, if both of its sessions are here.
        #[serde(default)]
        owners: Option<Owners>,
        /// The service is paused.
        #[serde(default)]
        paused: bool,
    },
    /// A consumer's stream begins with RESUME.
    ResumeStream {
        /// The session that it came on.
        session: SessionRef,
        /// The consumer.
        end: End,
        /// The generation of the stream.
        generation: u64,
        /// Whether it may go on here.
        admission: Admission,
        /// The present leg, if there is one, may give way to a newer one.
        #[serde(default)]
        yields: bool,
    },
    /// A consumer's stream begins with CONNECT, which is for new connections.
    ConnectStream {
        /// The session that it came on.
        session: SessionRef,
        /// The consumer.
        end: End,
        /// Whether it may ask.
        admission: Admission,
    },
    /// CLOSE_REQ of a session that has no leg of the connection.
    CloseReq {
        /// The session that it came on.
        session: SessionRef,
        /// The end that asks.
        end: End,
        /// Its code.
        code: StreamCode,
    },
    /// The present leg has ended.
    LegEnded {
        /// Its generation.
        generation: u64,
    },
    /// The leg that was to be opened could not be: its session has too many connections.
    LegRefused {
        /// Its generation.
        generation: u64,
    },
    /// The provider's preamble has come on the present leg.
    ProviderAnswered,
    /// The present leg has answered the requests of this side.
    LegAnswered {
        /// Whose.
        side: Side,
    },
    /// SEEK: a consumer wants a provider to be asked for the connection.
    Seek {
        /// The consumer's session.
        session: SessionRef,
        /// The provider's session.
        provider: SessionRef,
    },
    /// ABSENT: a provider does not have the connection.
    Absent {
        /// The provider's session.
        provider: SessionRef,
    },
    /// A session has ended.
    SessionEnded {
        /// Which.
        session: SessionRef,
    },
    /// A service is paused.
    ServicePaused {
        /// Which.
        service: u32,
    },
    /// The pause of a service has ended.
    ServiceUnpaused {
        /// Which.
        service: u32,
    },
    /// The hub leaves: nothing is resumed here any more.
    HubLeaving,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A session has a request here from now on.
    Park {
        /// Which.
        session: SessionRef,
    },
    /// Sessions have no request here any more.
    Unpark {
        /// Which.
        sessions: Vec<SessionRef>,
    },
    /// Send RESUME_ACK with the partner's values.
    Answer {
        /// To this session.
        session: SessionRef,
        /// 0, or the partner's code of an abort.
        status: StreamCode,
        /// The partner's generation.
        generation: u64,
        /// The partner's received offset.
        received: u64,
        /// The partner's flags.
        flags: Flags,
    },
    /// Send RESUME_ACK without values.
    Refuse {
        /// To these sessions.
        sessions: Vec<SessionRef>,
        /// With this code.
        code: StreamCode,
    },
    /// Report to the present leg that this side has lost its stream.
    LoseLeg {
        /// Which.
        side: Side,
    },
    /// End the present leg in favour of the one that follows.
    SupersedeLeg,
    /// Join the consumer's stream to a new stream of this provider: the next leg.
    OpenLeg {
        /// The provider's session.
        provider: SessionRef,
    },
    /// Reset and stop the consumer's stream.
    RefuseStream {
        /// With this code.
        code: StreamCode,
    },
    /// Send CLOSE_REQ.
    SendCloseReq {
        /// To this session.
        session: SessionRef,
        /// With this code.
        code: StreamCode,
    },
    /// Send CLOSE_ACK.
    SendCloseAck {
        /// To this session.
        session: SessionRef,
    },
    /// Send SEEK.
    SendSeek {
        /// To this provider's session.
        provider: SessionRef,
    },
    /// Send ABSENT.
    SendAbsent {
        /// To these consumers' sessions.
        consumers: Vec<SessionRef>,
        /// In the name of this provider.
        provider: SessionRef,
    },
    /// No request is left: forget the machine.
    End,
}

/// The timers of the requests to resume a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The oldest request has waited too long.
    ResumeWait,
}

impl machine::Timer for Timer {
    const ALL: &'static [Self] = &[Self::ResumeWait];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::ResumeWait => "resume_wait",
        }
    }
}
