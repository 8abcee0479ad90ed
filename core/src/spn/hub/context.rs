//! What the parts of a hub are handed with each call: the time, its configuration, QUIC, the deadlines, and the way to the host.
//! A part keeps none of it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    config::Config,
    notice::{Notice, Refusal},
    outbox::Outbox,
};
use crate::{
    machine::Deadlines,
    quic::{Clock, Endpoint, Handle, StreamId},
    spn::{Side, record::RecordEvent},
};

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Hub,
    Session(Handle),
    /// A singleton's newcomer: whether the incumbent has answered.
    Probe(Handle),
    /// A session's control stream may be read again.
    Control(Handle),
    Preamble(Handle, StreamId),
    Connection(u64),
    /// Requests to resume may have waited too long.
    Parked(Handle),
    /// A direction has been stalled for a while.
    Stall(u64, Side),
    /// What a session's stalled streams hold is to be measured again.
    Stalled(Handle),
    /// Grown windows of a session may be of no use any more.
    Rest(Handle),
    /// A provider has received something, and should have acknowledged it.
    Silence(Handle),
    Managed(usize),
    /// A service's schedule.
    Scheduled(usize),
    /// Suppressed refusals are to be reported.
    Refusals,
    /// A drain is nearly over.
    LegacyEnds,
}

/// What a part may use during one call.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) clock: &'a Clock,
    /// Names this run of the hub in SESSION_ACK.
    pub(crate) id: [u8; 16],
    pub(crate) quic: &'a mut Endpoint,
    pub(crate) deadlines: &'a mut Deadlines<Due>,
    pub(crate) outbox: &'a mut Outbox,
    /// For chunks that are read; empty between two uses.
    pub(crate) scratch: &'a mut Vec<Bytes>,
}

impl Context<'_> {
    /// The wall-clock time, since 1970.
    pub(crate) fn unix(&self) -> Duration {
        self.clock.epoch().unix_at(self.now)
    }

    /// A deadline that is not a machine's: it fires once.
    pub(crate) fn remind(&mut self, at: Instant, due: Due) {
        self.deadlines.push(at, due);
    }

    /// The id of a session in records and in SESSION_ACK.
    pub(crate) fn session_id(&mut self, session: Handle) -> String {
        self.quic.id(session).unwrap_or_default().to_owned()
    }

    pub(crate) fn notify(&mut self, notice: Notice) {
        self.outbox.push(notice);
    }

    pub(crate) fn record(&mut self, event: RecordEvent) {
        self.outbox.record(self.now, event);
    }

    /// An endpoint is turned away: reports it, unless there have been too many in this second.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        if let Some(at) = self.outbox.refuse(refusal, self.config.limits.refusals_per_second) {
            self.remind(at, Due::Refusals);
        }
    }

    /// Refusals that are only counted.
    pub(crate) fn suppress_refusals(&mut self, count: u64) {
        if let Some(at) = self.outbox.suppress(self.now, count) {
            self.remind(at, Due::Refusals);
        }
    }
}

/// What tests of parts hand them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::{
        Epoch,
        quic::EndpointConfig,
        testing::{first_instant, pki},
    };

    /// Owns what a [`Context`] borrows. Its QUIC endpoint has no sessions.
    pub(crate) struct Surroundings {
        pub(crate) now: Instant,
        pub(crate) config: Config,
        clock: Clock,
        quic: Endpoint,
        pub(crate) deadlines: Deadlines<Due>,
        pub(crate) outbox: Outbox,
        scratch: Vec<Bytes>,
    }

    impl Surroundings {
        pub(crate) fn new() -> Self {
            let now = first_instant();
            let clock = Clock::new(Epoch { instant: now, unix: pki::UNIX });
            Self {
                now,
                config: Config::new("r", "hub", std::net::SocketAddr::from(([192, 0, 2, 1], 4433))),
                quic: Endpoint::new(EndpointConfig::new([1; 32], clock.clone()), None),
                clock,
                deadlines: Deadlines::default(),
                outbox: Outbox::new("r", "hub"),
                scratch: Vec::new(),
            }
        }

        pub(crate) fn cx(&mut self) -> Context<'_> {
            Context {
                now: self.now,
                config: &self.config,
                clock: &self.clock,
                id: [9; 16],
                quic: &mut self.quic,
                deadlines: &mut self.deadlines,
                outbox: &mut self.outbox,
                scratch: &mut self.scratch,
            }
        }
    }
}
