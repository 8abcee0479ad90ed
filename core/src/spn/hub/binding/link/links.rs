//! All sessions of the hub: the map of them, the queue of those that have control frames to send, and the memory that their windows share.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;

use super::{
    Link, NOTIFY_PROVIDER_STOPPED,
    control::{Backlog, Next},
};
use crate::{
    quic::{Handle, StreamId},
    spn::{
        ConnKey, Protocol, Role,
        flow::budget::Budget,
        hub::{
            context::{Context, Due},
            machines::session::{Action, Event},
        },
        wire::{
            code::StreamCode,
            control::ControlError,
            frame::Flags,
            frame::{AckEntry, Frame, ResumeAck},
        },
    },
};

/// The sessions of a hub.
pub(crate) struct Links {
    links: BTreeMap<Handle, Link>,
    /// Sessions with control frames to send.
    unflushed: Vec<Handle>,
    /// Memory for the windows of all sessions.
    budget: Budget,
}

/// What a flush has shown.
pub(crate) struct Flushed {
    /// Whether it reads again what others cause.
    pub(crate) is_free: bool,
    pub(crate) service: usize,
    pub(crate) result: Result<(), ControlError>,
}

impl Links {
    /// None yet; their windows may have `memory` bytes for stalled streams.
    pub(crate) fn new(memory: u64) -> Self {
        Self { links: BTreeMap::new(), unflushed: Vec::new(), budget: Budget::new(memory) }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// A new limit for the memory of windows.
    pub(crate) fn set_memory(&mut self, memory: u64) {
        self.budget.set_most(memory);
    }

    pub(crate) fn get(&self, session: Handle) -> Option<&Link> {
        self.links.get(&session)
    }

    pub(crate) fn get_mut(&mut self, session: Handle) -> Option<&mut Link> {
        self.links.get_mut(&session)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &Link)> {
        self.links.iter().map(|(session, link)| (*session, link))
    }

    /// The sessions of which `is_meant` is true.
    pub(crate) fn filter(&self, is_meant: impl Fn(&Link) -> bool) -> Vec<Handle> {
        self.iter().filter(|(_, link)| is_meant(link)).map(|(session, _)| session).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub(crate) fn add(&mut self, session: Handle, link: Link) {
        self.links.insert(session, link);
    }

    /// A session has ended.
    pub(crate) fn remove(&mut self, session: Handle) {
        if let Some(link) = self.links.remove(&session) {
            link.windows().end(&mut self.budget);
        }
    }

    /// The protocol that a session speaks.
    pub(crate) fn protocol(&self, session: Handle) -> Option<Protocol> {
        self.get(session).map(|link| link.party.protocol)
    }

    // ---- the machine ----

    pub(crate) fn handle_event(&mut self, cx: &Context<'_>, session: Handle, event: Event) {
        if let Some(link) = self.get_mut(session) {
            link.handle_event(cx.now, event);
        }
    }

    /// A session's deadline that was due `at` has come. Returns whether its machine is to be drained.
    pub(crate) fn expire(&mut self, cx: &Context<'_>, at: Instant, session: Handle) -> bool {
        self.get_mut(session).is_some_and(|link| link.expire(cx.now, at))
    }

    pub(crate) fn next_action(&mut self, cx: &mut Context<'_>, session: Handle) -> Option<Action> {
        self.get_mut(session)?.next_action(cx.deadlines, Due::Session(session))
    }

    // ---- the control stream ----

    /// The next control frame of a session, unless its rate is used up or its peer does not read our answers.
    pub(crate) fn next_frame(&mut self, cx: &mut Context<'_>, session: Handle) -> Next {
        let limits = &cx.config.limits;
        let Some(link) = self.get_mut(session).filter(|link| !link.machine().is_over()) else { return Next::Nothing };
        link.control_mut().next_frame(cx.now, cx.quic, limits.control_rate, limits.control_backlog)
    }

    /// Queues a control frame; nothing on `sc01`.
    pub(crate) fn send(&mut self, session: Handle, frame: &Frame) {
        if self.links.get_mut(&session).is_some_and(|link| link.control_mut().send(frame)) {
            self.unflushed.push(session);
        }
    }

    /// Queues a frame that the partner has caused.
    pub(crate) fn send_latest(&mut self, cx: &Context<'_>, session: Handle, conn: ConnKey, frame: Frame) {
        let limit = cx.config.limits.control_backlog;
        if self.links.get_mut(&session).is_some_and(|link| link.control_mut().send_latest(limit, conn, frame)) {
            self.unflushed.push(session);
        }
    }

    /// Queues a report for a connection of a session.
    pub(crate) fn send_report(&mut self, session: Handle, entry: AckEntry) {
        if self.links.get_mut(&session).is_some_and(|link| link.control_mut().send_report(entry)) {
            self.unflushed.push(session);
        }
    }

    /// A session that has control frames to send.
    pub(crate) fn next_unflushed(&mut self) -> Option<Handle> {
        self.unflushed.pop()
    }

    /// Sends the control frames of a session that have gathered.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>, session: Handle) -> Option<Flushed> {
        let limit = cx.config.limits.control_backlog;
        let link = self.get_mut(session)?;
        let was_choked = link.control().is_choked(limit);
        let result = link.flush(cx.quic);
        let is_free = was_choked && !link.control().is_choked(limit);
        Some(Flushed { is_free, service: link.party.service, result })
    }

    /// What follows from what still waits after a flush.
    pub(crate) fn after_flush(&mut self, cx: &Context<'_>, session: Handle) -> Option<Backlog> {
        Some(self.get_mut(session)?.control_mut().after_flush(cx.config.limits.control_backlog))
    }

    /// The consumers of a service are sent that its provider was stopped.
    pub(crate) fn report_stopped(&mut self, cx: &mut Context<'_>, service: usize) {
        let is_its = |link: &Link| {
            let party = &link.party;
            party.service == service && party.role == Role::Consumer && link.machine().is_established()
        };
        for session in self.filter(is_its) {
            match self.protocol(session) {
                Some(Protocol::Sc02) => self.send(session, &Frame::ProviderStopped),
                Some(Protocol::Sc01) => cx.quic.send_datagram(session, Bytes::from_static(NOTIFY_PROVIDER_STOPPED)),
                None => {}
            }
        }
    }

    // ---- data streams ----

    /// Raises a consumer's stream credit while it is being used up, or will be: who asks for the next stream of a connection comes back with it.
    pub(crate) fn grant_streams(&mut self, cx: &mut Context<'_>, session: Handle) {
        let Some(link) = self.get_mut(session).filter(|link| link.party.role == Role::Consumer) else { return };
        // The control stream and streams that are about to be refused count, too.
        let max = cx.config.limits.connections_per_session.saturating_add(1);
        if let Some(credit) = link.grant_streams(max) {
            cx.quic.set_max_streams(session, credit);
        }
    }

    pub(crate) fn refuse_stream(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId, code: StreamCode) {
        if let Some(link) = self.get_mut(session) {
            link.streams_mut().remove(stream);
        }
        self.abort_stream(cx, session, stream, code);
        self.stop_stream(cx, session, stream, code);
    }

    fn is_legacy_consumer(&self, session: Handle) -> bool {
        self.get(session).is_some_and(|link| link.party.is_legacy_consumer())
    }

    /// Ends our direction of a stream before its time.
    pub(crate) fn abort_stream(&self, cx: &mut Context<'_>, session: Handle, stream: StreamId, code: StreamCode) {
        if self.is_legacy_consumer(session) {
            cx.quic.finish_or_reset(session, stream, code.0);
        } else {
            cx.quic.reset(session, stream, code.0);
        }
    }

    /// Asks the peer to send no more on a stream.
    pub(crate) fn stop_stream(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId, code: StreamCode) {
        if !self.is_legacy_consumer(session) {
            return cx.quic.stop(session, stream, code.0);
        }
        if let Some(link) = self.get_mut(session) {
            link.streams_mut().discard(stream);
        }
        self.read_discarded(cx, session, stream);
    }

    /// Reads a stream whose bytes are discarded, and says whether it is such a stream.
    pub(crate) fn read_discarded(&mut self, cx: &mut Context<'_>, session: Handle, stream: StreamId) -> bool {
        let link = self.get_mut(session);
        link.is_some_and(|link| link.streams_mut().read_discarded(cx.quic, session, stream, cx.scratch))
    }

    // ---- requests to resume ----

    /// A session has a request to resume a connection.
    pub(crate) fn park(&mut self, cx: &mut Context<'_>, session: Handle, conn: ConnKey) {
        let Some(link) = self.get_mut(session) else { return };
        if link.requests_mut().add(conn) {
            cx.remind(cx.now + cx.config.resume_wait(), Due::Parked(session));
        }
        self.grant_streams(cx, session);
    }

    /// Sessions have no request for a connection any more.
    pub(crate) fn unpark(&mut self, sessions: impl Iterator<Item = Handle>, conn: ConnKey) {
        for session in sessions {
            if let Some(link) = self.get_mut(session) {
                link.requests_mut().remove(conn);
            }
        }
    }

    /// RESUME_ACK without values.
    pub(crate) fn refuse_resume(&mut self, session: Handle, conn: ConnKey, status: StreamCode, flags: Flags) {
        let ack = ResumeAck { conn, status, generation: 0, received: 0, flags };
        self.send(session, &Frame::ResumeAck(ack));
    }

    // ---- windows ----

    /// Payload has passed from one session to another: windows grow where it needs that.
    pub(crate) fn pass_windows(&mut self, cx: &mut Context<'_>, from: Handle, to: Handle, moved: u64) {
        if moved == 0 {
            return;
        }
        if let Some(link) = self.links.get_mut(&from)
            && let Some(at) = link.windows_mut().received(cx.now, moved, &mut self.budget, cx.quic, from)
        {
            cx.remind(at, Due::Rest(from));
        }
        if let Some(link) = self.links.get_mut(&to)
            && let Some(at) = link.windows_mut().sent(cx.now, moved, &mut self.budget, cx.quic, to)
        {
            cx.remind(at, Due::Rest(to));
        }
    }

    /// Windows that have grown and are not used are small again.
    pub(crate) fn rest(&mut self, cx: &mut Context<'_>, session: Handle) {
        if let Some(link) = self.links.get_mut(&session)
            && let Some(at) = link.windows_mut().rest(cx.now, &mut self.budget, cx.quic, session)
        {
            cx.remind(at, Due::Rest(session));
        }
    }

    /// A stream of a session has stalled: what it leaves unread comes on top of the session's window. Says whether there is such a session.
    pub(crate) fn stall(&mut self, cx: &mut Context<'_>, session: Handle) -> bool {
        let Some(link) = self.links.get_mut(&session) else { return false };
        if let Some(at) = link.windows_mut().stall(cx.now, &mut self.budget, cx.quic, session) {
            cx.remind(at, Due::Stalled(session));
        }
        true
    }

    /// Measures again what a session's stalled streams hold.
    pub(crate) fn measure_stalled(&mut self, cx: &mut Context<'_>, session: Handle) {
        if let Some(link) = self.links.get_mut(&session)
            && let Some(at) = link.windows_mut().look(cx.now, &mut self.budget, cx.quic, session)
        {
            cx.remind(at, Due::Stalled(session));
        }
    }

    /// A stalled stream of a session has been read empty, or is over.
    pub(crate) fn unstall(&mut self, cx: &mut Context<'_>, session: Handle) {
        if let Some(link) = self.links.get_mut(&session) {
            link.windows_mut().unstall(&mut self.budget, cx.quic, session);
        }
    }
}

/// Sessions for tests of what is above them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::spn::wire::control::Control;

    /// Adds an established session of `sc02` with a control stream; its service is the first.
    pub(crate) fn add(links: &mut Links, cx: &mut Context<'_>, n: u32, role: Role, identity: &str) -> Handle {
        let session = Handle::of_test(n);
        let mut link = Link::new(std::net::SocketAddr::from(([192, 0, 2, 1], 1)), cx.config);
        link.party.role = role;
        link.party.identity = identity.into();
        link.party.service = 0;
        link.handle_event(cx.now, Event::ExtendedHandshake);
        link.handle_event(cx.now, Event::OpenAdmitted { weight: 100 });
        link.control_mut().open(Control::new(cx.quic, session, StreamId::of_test(0)));
        links.add(session, link);
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spn::hub::context::testing::Surroundings;

    const KEY: ConnKey = ConnKey([7; 16]);

    #[test]
    fn a_session_with_frames_to_send_is_flushed_once() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let session = testing::add(&mut links, &mut around.cx(), 1, Role::Consumer, "c");
        links.send(session, &Frame::CloseAck { conn: KEY });
        links.send_latest(&around.cx(), session, KEY, Frame::PauseReq { conn: KEY });
        links.send(Handle::of_test(2), &Frame::CloseAck { conn: KEY });
        assert_eq!((links.next_unflushed(), links.next_unflushed()), (Some(session), None));
        assert!(!links.get(session).unwrap().is_open());
        let flushed = links.flush(&mut around.cx(), session).unwrap();
        assert_eq!((flushed.is_free, flushed.service, flushed.result), (false, 0, Ok(())));
        assert!(links.get(session).unwrap().is_open(), "SESSION_ACK is on its way");
        links.send_report(session, AckEntry { conn: KEY, received: 0, flags: Flags::NONE });
        assert_eq!(links.next_unflushed(), Some(session));
    }

    #[test]
    fn requests_are_looked_at_when_the_oldest_has_waited_long_enough() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let session = testing::add(&mut links, &mut around.cx(), 1, Role::Provider, "p");
        links.park(&mut around.cx(), session, KEY);
        links.park(&mut around.cx(), session, ConnKey([8; 16]));
        let due = around.now + around.config.resume_wait();
        assert_eq!(around.deadlines.expire(due), Some((due, Due::Parked(session))));
        assert_eq!(around.deadlines.next(), None, "one time for both");
        links.unpark([session, Handle::of_test(2)].into_iter(), KEY);
        assert_eq!(links.get(session).unwrap().requests().len(), 1);
    }

    #[test]
    fn a_stream_of_a_deployed_consumer_is_never_stopped_but_read_to_its_end() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(0));
        let session = testing::add(&mut links, &mut around.cx(), 1, Role::Consumer, "c");
        links
            .get_mut(session)
            .unwrap()
            .streams_mut()
            .insert(StreamId::of_test(1), super::super::data::DataStream::Silent);
        links.refuse_stream(&mut around.cx(), session, StreamId::of_test(1), StreamCode::MALFORMED);
        assert!(links.get(session).unwrap().streams().get(StreamId::of_test(1)).is_none());
        assert!(!links.read_discarded(&mut around.cx(), session, StreamId::of_test(1)), "it was stopped");
        links.get_mut(session).unwrap().party.protocol = Protocol::Sc01;
        links.get_mut(session).unwrap().streams_mut().discard(StreamId::of_test(2));
        assert!(links.read_discarded(&mut around.cx(), session, StreamId::of_test(2)));
    }

    #[test]
    fn a_stalled_sessions_memory_is_free_when_it_ends() {
        let (mut around, mut links) = (Surroundings::new(), Links::new(1 << 30));
        let session = testing::add(&mut links, &mut around.cx(), 1, Role::Consumer, "c");
        assert!(links.stall(&mut around.cx(), session) && !links.stall(&mut around.cx(), Handle::of_test(2)));
        assert!(matches!(
            around.deadlines.expire(around.now + std::time::Duration::from_secs(60)),
            Some((_, Due::Stalled(_)))
        ));
        links.remove(session);
        assert_eq!((links.budget().parked(), links.is_empty()), (0, true));
    }
}
