//! What every part asks its surroundings with: QUIC, time, the machines, the host.

use std::{collections::VecDeque, time::Instant};

use crate::{
    machine::Deadlines,
    quic::{self, Handle, StreamId},
    spn::{
        ConnKey,
        endpoint::{
            carrier::LinkId,
            config::{ConnId, Notice},
            machines::{connection, session},
        },
        flow::budget::Budget,
        wire::code::StreamCode,
    },
};

/// What one machine's actions mean to another; done one by one, so that no machine is called from within itself.
#[derive(Debug)]
pub(in crate::spn::endpoint) enum Work {
    /// SESSION_ACK is in, or a hold is over: look at the streams that came before it.
    Early(LinkId),
    Link(LinkId, session::Event),
    Conn(ConnId, connection::Event),
}

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::spn::endpoint) enum Due {
    /// A session whose beginning was put off.
    Begin(LinkId),
    Link(LinkId),
    Conn(ConnId),
    Preamble(LinkId, StreamId),
    /// The host may have left something unread.
    Stall(ConnId),
    /// What a session's stalled connections hold is to be looked at again.
    Stalled(LinkId, Handle),
    /// Grown windows of a session may be of no use any more.
    Rest(LinkId, Handle),
    /// Progress is to be reported.
    Report(ConnId),
    /// It is to be reset when its partner has what was written.
    Parting(ConnId),
    /// PAUSE_REQ for a connection that was not known.
    StrayPause(LinkId, ConnKey),
    Tombstone(ConnKey),
    Spent(ConnKey),
    /// A provider's session may have fallen silent under its connections.
    Silence(LinkId),
    /// New streams of a provider that stood still wait.
    Hold(LinkId, Handle),
}

/// The ways out of a part. They are lent to it for a call, and have no rules of their own.
pub(in crate::spn::endpoint) struct Ports {
    pub(in crate::spn::endpoint) quic: quic::Endpoint,
    pub(in crate::spn::endpoint) deadlines: Deadlines<Due>,
    /// Memory for the windows of all sessions.
    pub(in crate::spn::endpoint) budget: Budget,
    work: VecDeque<Work>,
    notices: VecDeque<Notice>,
    has_room: bool,
    has_frames: bool,
}

impl Ports {
    pub(in crate::spn::endpoint) fn new(quic: quic::Endpoint, budget: Budget) -> Self {
        Self {
            quic,
            deadlines: Deadlines::default(),
            budget,
            work: VecDeque::new(),
            notices: VecDeque::new(),
            has_room: false,
            has_frames: false,
        }
    }

    /// Those of a part that is tested alone.
    #[cfg(test)]
    pub(in crate::spn::endpoint) fn of_test() -> Self {
        let clock =
            quic::Clock::new(quic::Epoch { instant: crate::testing::first_instant(), unix: std::time::Duration::ZERO });
        Self::new(quic::Endpoint::new(quic::EndpointConfig::new([0; 32], clock), None), Budget::new(0))
    }

    /// Something to be done later.
    pub(in crate::spn::endpoint) fn post(&mut self, work: Work) {
        self.work.push_back(work);
    }

    /// An event for a session's machine.
    pub(in crate::spn::endpoint) fn post_link(&mut self, id: LinkId, event: session::Event) {
        self.post(Work::Link(id, event));
    }

    /// An event for a connection's machine.
    pub(in crate::spn::endpoint) fn post_conn(&mut self, id: ConnId, event: connection::Event) {
        self.post(Work::Conn(id, event));
    }

    pub(in crate::spn::endpoint) fn take_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Something for the host.
    pub(in crate::spn::endpoint) fn notify(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    pub(in crate::spn::endpoint) fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The reset that the host is about to be shown of this connection, if that is the newest notice.
    pub(in crate::spn::endpoint) fn last_reset(&self, id: ConnId) -> Option<StreamCode> {
        match self.notices.back() {
            Some(&Notice::Reset(last, code)) if last == id => Some(code),
            Some(_) | None => None,
        }
    }

    pub(in crate::spn::endpoint) fn remind(&mut self, at: Instant, due: Due) {
        self.deadlines.push(at, due);
    }

    /// A session or stream credit may have turned up for connections that wait for one, or another one waits.
    pub(in crate::spn::endpoint) fn note_room(&mut self) {
        self.has_room = true;
    }

    pub(in crate::spn::endpoint) fn take_room(&mut self) -> bool {
        std::mem::take(&mut self.has_room)
    }

    /// A control stream may have something to send.
    pub(in crate::spn::endpoint) fn note_frames(&mut self) {
        self.has_frames = true;
    }

    pub(in crate::spn::endpoint) fn take_frames(&mut self) -> bool {
        std::mem::take(&mut self.has_frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_notices_keep_their_order() {
        let mut ports = Ports::of_test();
        ports.post_link(1, session::Event::Lost);
        ports.post(Work::Early(2));
        assert!(matches!(ports.take_work(), Some(Work::Link(1, session::Event::Lost))));
        assert!(matches!(ports.take_work(), Some(Work::Early(2))));
        assert!(ports.take_work().is_none());
        let id = ConnId { index: 0, generation: 1 };
        ports.notify(Notice::Incoming(id));
        assert_eq!(ports.last_reset(id), None);
        ports.notify(Notice::Reset(id, StreamCode(7)));
        assert_eq!((ports.last_reset(id), ports.last_reset(ConnId { index: 1, ..id })), (Some(StreamCode(7)), None));
        assert_eq!(
            [(); 3].map(|()| ports.take_notice()),
            [Some(Notice::Incoming(id)), Some(Notice::Reset(id, StreamCode(7))), None]
        );
    }

    #[test]
    fn what_is_noted_is_taken_once() {
        let mut ports = Ports::of_test();
        assert!(!ports.take_room() && !ports.take_frames());
        ports.note_room();
        ports.note_room();
        assert!(ports.take_room() && !ports.take_room() && !ports.take_frames());
        ports.note_frames();
        assert!(ports.take_frames() && !ports.take_frames());
    }
}
