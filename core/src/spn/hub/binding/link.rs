//! The sessions of the hub as they are on the wire: the peer, the control stream, the data streams, the windows.
//!
//! A [`Link`] is one session, [`Links`] are all of them. What a session's [machine](HubSession) decides is carried out by the
//! [exchange](super::exchange).

pub(super) mod control;
pub(super) mod data;
pub(super) mod links;
pub(super) mod request_keys;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{control::ControlLine, data::DataStreams, request_keys::RequestKeys};
use super::pairings::number;
use crate::{
    machine::{Deadlines, Hosted, Machine as _},
    quic::{Endpoint, PeerIdentity, StreamId},
    spn::{
        Protocol, Role, Side, Tag,
        flow::budget::Windows,
        hub::{
            config::Config,
            context::Due,
            machines::{
                pairing::End,
                session::{Action, Event, HubSession},
            },
            notice::{Reason, Refusal},
            policy::registry,
        },
        record::{RecordEvent, SessionRecord, TerminateReason},
        wire::{
            code::SessionCode,
            control::ControlError,
            frame::{Flags, SessionOpen},
        },
    },
};

/// The control datagram with which the original's agents retire, and its hubs leave.
pub(crate) const NOTIFY_SHUTDOWN: &[u8] = b"notify_shutdown";
/// The control datagram that the original's agents send before their first stream.
pub(crate) const REQUEST_PROVIDER_START: &[u8] = b"request_provider_start";
/// The control datagram for what is PROVIDER_STOPPED in `sc02`.
const NOTIFY_PROVIDER_STOPPED: &[u8] = b"notify_provider_stopped";
/// How often a session's request to start a provider counts; more are ignored (MNG-4).
const PROVIDER_START_EVERY: Duration = Duration::from_secs(10);

/// The peer of a session, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    pub(crate) protocol: Protocol,
    pub(crate) role: Role,
    pub(crate) remote: SocketAddr,
    pub(crate) peer: PeerIdentity,
    /// The name that its service knows it by.
    pub(crate) identity: Arc<str>,
    /// What its partners know it by.
    pub(crate) tag: Tag,
    /// Its service in the registry.
    pub(crate) service: usize,
    /// What SESSION_OPEN says of the process.
    pub(crate) instance: [u8; 16],
    /// It retains what its partners have not acknowledged.
    pub(crate) can_resume: bool,
    /// It is to be sent its partners' tags.
    pub(crate) wants_partners: bool,
    /// It knows SEEK.
    pub(crate) seeks: bool,
}

impl Party {
    /// A peer at that address, of which nothing else is known.
    fn new(remote: SocketAddr) -> Self {
        Self {
            protocol: Protocol::Sc02,
            role: Role::Consumer,
            remote,
            peer: PeerIdentity::default(),
            identity: "".into(),
            tag: Tag::default(),
            service: usize::MAX,
            instance: [0; 16],
            can_resume: false,
            wants_partners: false,
            seeks: false,
        }
    }

    /// What its certificate calls it.
    pub(crate) fn names(&self) -> Vec<&str> {
        registry::names(&self.peer)
    }

    /// Which end of a connection it is.
    pub(crate) fn side(&self) -> Side {
        self.role.side()
    }

    /// The end of connections that it is, without a partner.
    pub(crate) fn end(&self) -> End {
        End { service: number(self.service), side: self.side(), tag: self.tag, partner: None }
    }

    /// A deployed consumer takes a broken stream for a failed try: it opens another one for the same client, in mid-connection, and so joins the
    /// client to a second connection of the service (docs/protocols/spn.md, Legacy protocol, LEG-27). It must not see one.
    pub(crate) fn is_legacy_consumer(&self) -> bool {
        (self.protocol, self.role) == (Protocol::Sc01, Role::Consumer)
    }

    /// Takes what SESSION_OPEN says of its abilities.
    pub(crate) fn take_flags(&mut self, open: &SessionOpen) {
        self.can_resume = open.flags.contains(Flags::RESUMABLE);
        self.wants_partners = open.flags.contains(Flags::PARTNERS);
        self.seeks = open.flags.contains(Flags::SEEKS);
    }
}

/// A session on the hub.
pub(crate) struct Link {
    machine: Hosted<HubSession>,
    pub(crate) party: Party,
    control: ControlLine,
    streams: DataStreams,
    /// SESSION_ACK is on its way: data streams may come.
    is_open: bool,
    /// Connections on it, those included whose streams have ended.
    connections: BTreeSet<u64>,
    /// A provider's: connections whose next leg waits for a stream of it.
    legs: BTreeSet<u64>,
    requests: RequestKeys,
    /// Connections made on it.
    total: u64,
    began: Option<(Instant, SessionRecord)>,
    /// When it last asked for a provider's start.
    provider_start: Option<Instant>,
    /// What was wrong with it, beyond the code.
    detail: String,
    /// Its refusal has been reported, or it has asked for its end itself: nothing more is reported.
    is_settled: bool,
    /// The windows of its payload.
    windows: Windows,
}

impl Link {
    /// A session whose handshake has begun.
    pub(crate) fn new(remote: SocketAddr, config: &Config) -> Self {
        Self {
            machine: Hosted::new(HubSession::new(config.session)),
            party: Party::new(remote),
            control: ControlLine::default(),
            streams: DataStreams::new(config.transport.max_streams),
            is_open: false,
            connections: BTreeSet::new(),
            legs: BTreeSet::new(),
            requests: RequestKeys::default(),
            total: 0,
            began: None,
            provider_start: None,
            detail: String::new(),
            is_settled: false,
            windows: Windows::new(&config.transport, config.limits.window_max),
        }
    }

    pub(crate) fn machine(&self) -> &HubSession {
        &self.machine
    }

    pub(crate) fn handle_event(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
    }

    /// A deadline of its machine that was due `at` has come. Returns whether the machine is to be drained.
    pub(crate) fn expire(&mut self, now: Instant, at: Instant) -> bool {
        self.machine.expire(now, at)
    }

    /// The next action of its machine. When there is none, its deadline is noted under `due`.
    pub(crate) fn next_action(&mut self, deadlines: &mut Deadlines<Due>, due: Due) -> Option<Action> {
        self.machine.next_action(deadlines, due)
    }

    pub(crate) fn control(&self) -> &ControlLine {
        &self.control
    }

    pub(crate) fn control_mut(&mut self) -> &mut ControlLine {
        &mut self.control
    }

    pub(crate) fn streams(&self) -> &DataStreams {
        &self.streams
    }

    pub(crate) fn streams_mut(&mut self) -> &mut DataStreams {
        &mut self.streams
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }

    pub(crate) fn windows_mut(&mut self) -> &mut Windows {
        &mut self.windows
    }

    /// Sends the control frames that have gathered. Its data streams may come once SESSION_ACK is on its way.
    ///
    /// # Errors
    /// The control stream is lost.
    pub(crate) fn flush(&mut self, quic: &mut Endpoint) -> Result<(), ControlError> {
        self.is_open |= self.machine.is_established();
        self.control.flush(quic)
    }

    /// Whether its data streams may come.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Raises its stream credit while it is being used up, or will be by the next streams of connections that it has asked to resume. The new
    /// credit, if it changed.
    pub(crate) fn grant_streams(&mut self, max: u32) -> Option<u32> {
        self.streams.grant(self.requests.len(), max)
    }

    /// Connections on it, those included whose streams have ended, oldest first.
    pub(crate) fn connections(&self) -> &BTreeSet<u64> {
        &self.connections
    }

    /// A stream of it carries a connection.
    pub(crate) fn board(&mut self, stream: StreamId, connection: u64) {
        self.streams.insert(stream, data::DataStream::Relayed(connection));
        self.connections.insert(connection);
    }

    /// A stream that the hub has opened on it carries a connection.
    pub(crate) fn board_opened(&mut self, stream: StreamId, connection: u64) {
        self.board(stream, connection);
        self.streams.opened(stream);
        self.total += 1;
    }

    /// A connection of it is over.
    pub(crate) fn leave(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    /// It has ended: the connections that it had.
    pub(crate) fn take_connections(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.connections)
    }

    /// One more connection has been made on it.
    pub(crate) fn count_connection(&mut self) {
        self.total += 1;
    }

    /// Connections whose next leg waits for a stream of it, oldest first.
    pub(crate) fn legs(&self) -> &BTreeSet<u64> {
        &self.legs
    }

    /// The next leg of a connection waits for a stream of it.
    pub(crate) fn add_leg(&mut self, connection: u64) {
        self.legs.insert(connection);
    }

    /// The next leg of a connection waits no longer.
    pub(crate) fn remove_leg(&mut self, connection: u64) {
        self.legs.remove(&connection);
    }

    /// It has ended: the legs that have waited for it.
    pub(crate) fn take_legs(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.legs)
    }

    pub(crate) fn requests(&self) -> &RequestKeys {
        &self.requests
    }

    pub(crate) fn requests_mut(&mut self) -> &mut RequestKeys {
        &mut self.requests
    }

    /// Whether a request to start a provider counts: it is not too soon after the last one.
    pub(crate) fn may_start_provider(&mut self, now: Instant) -> bool {
        let may =
            self.machine.is_established() && self.provider_start.is_none_or(|last| now >= last + PROVIDER_START_EVERY);
        if may {
            self.provider_start = Some(now);
        }
        may
    }

    /// What was wrong with it, for the report of its refusal.
    pub(crate) fn set_detail(&mut self, detail: String) {
        self.detail = detail;
    }

    /// It has asked for its end itself: what follows is no refusal.
    pub(crate) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// The report of its refusal with that code, if there is to be one.
    pub(crate) fn refusal(&mut self, now: Instant, code: SessionCode) -> Option<Refusal> {
        if code == SessionCode::OK || std::mem::replace(&mut self.is_settled, true) {
            return None;
        }
        Some(Refusal {
            at: now,
            remote: self.party.remote,
            subject: Some(self.party.peer.subject.clone()),
            role: Some((self.party.role, self.party.protocol)),
            reason: Reason::Code { code, detail: std::mem::take(&mut self.detail) },
        })
    }

    /// It begins. Data streams of `sc01` may come from now on, those of `sc02` when SESSION_ACK is on its way.
    pub(crate) fn begin(&mut self, now: Instant, record: SessionRecord) {
        self.began = Some((now, record));
        self.is_open |= self.party.protocol == Protocol::Sc01;
    }

    /// The record of its end, if it had begun.
    pub(crate) fn end_record(&mut self, now: Instant, reason: TerminateReason) -> Option<RecordEvent> {
        let (began, session) = self.began.take()?;
        let elapsed_ms = now.saturating_duration_since(began).as_millis() as u64;
        Some(RecordEvent::EndSession { session, connections: self.total, elapsed_ms, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    fn link() -> Link {
        let address = "192.0.2.1:1".parse().unwrap();
        Link::new(address, &Config::new("r", "hub", address))
    }

    #[test]
    fn a_refusal_is_reported_once_and_not_after_the_session_asked_for_its_end() {
        let (now, mut link) = (first_instant(), link());
        link.set_detail("x".to_owned());
        assert_eq!(link.refusal(now, SessionCode::OK), None, "that is no refusal");
        let refusal = link.refusal(now, SessionCode::MALFORMED).unwrap();
        assert_eq!(refusal.reason, Reason::Code { code: SessionCode::MALFORMED, detail: "x".to_owned() });
        assert_eq!(link.refusal(now, SessionCode::MALFORMED), None);
        let mut asked = self::link();
        asked.settle();
        assert_eq!(asked.refusal(now, SessionCode::MALFORMED), None);
    }

    #[test]
    fn a_session_that_never_began_has_no_record_and_starts_no_provider() {
        let (now, mut link) = (first_instant(), link());
        assert_eq!(link.end_record(now, TerminateReason::TerminatedByPeer), None);
        assert!(!link.may_start_provider(now));
        let record =
            SessionRecord { id: "1".into(), end_point: "c".into(), role: Role::Consumer, service: "urn:s".into() };
        link.begin(now, record);
        assert!(!link.is_open(), "SESSION_ACK is not on its way");
        link.board_opened(StreamId::of_test(0), 1);
        link.count_connection();
        match link.end_record(now + Duration::from_secs(2), TerminateReason::TerminatedByPeer) {
            Some(RecordEvent::EndSession { connections: 2, elapsed_ms: 2000, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
