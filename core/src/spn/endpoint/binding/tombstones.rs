//! What is left of connections that have ended, for a partner that may have missed the last report (docs/protocols/spn.md, Pause and resume, RES-12
//! and RES-34).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::spn::{
    ConnKey, Tag,
    endpoint::carrier::LinkId,
    wire::{
        code::StreamCode,
        frame::{Flags, Frame, ResumeReq},
    },
};

/// How long a connection that has ended in order is remembered: its last report may have been lost, which a silent hub shows only when the
/// session has been idle for too long (20 s) (RES-12).
const ENDED: Duration = Duration::from_secs(30);

/// What is left of a connection: values, no bytes.
#[derive(Debug)]
struct Tombstone {
    request: ResumeReq,
    partner: Option<Tag>,
    /// The session that carried it lives: it has brought the last report, or will.
    link: Option<LinkId>,
    until: Instant,
}

impl Tombstone {
    fn frame(&self) -> Frame {
        self.request.clone().frame(self.partner)
    }

    fn is_aborted(&self) -> bool {
        self.request.is_aborted()
    }
}

/// The tombstones of an endpoint.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Tombstones {
    most: usize,
    left: BTreeMap<ConnKey, Tombstone>,
}

impl Tombstones {
    /// At most so many; of further connections nothing is left.
    pub(in crate::spn::endpoint) fn new(most: usize) -> Self {
        Self { most, left: BTreeMap::new() }
    }

    /// A connection has ended, as far as this end knows: with a code that is not 0, it was broken off. `request` says how far it has come, `link`
    /// which session carries it. Says until when it is remembered.
    pub(in crate::spn::endpoint) fn add_ended(
        &mut self,
        now: Instant,
        mut request: ResumeReq,
        code: StreamCode,
        partner: Option<Tag>,
        link: Option<LinkId>,
    ) -> Option<Instant> {
        request.code = code;
        request.flags |= Flags::ABORTED.only_if(code != StreamCode::OK);
        self.add(Tombstone { request, partner, link, until: now + ENDED })
    }

    /// A connection was broken off without a stream. The frame is for each session that there is or that comes; the time says until when.
    pub(in crate::spn::endpoint) fn add_aborted(
        &mut self,
        until: Instant,
        mut request: ResumeReq,
        code: StreamCode,
        partner: Option<Tag>,
    ) -> (Frame, Option<Instant>) {
        request.flags |= Flags::ABORTED;
        request.code = code;
        let tombstone = Tombstone { request, partner, link: None, until };
        (tombstone.frame(), self.add(tombstone))
    }

    fn add(&mut self, tombstone: Tombstone) -> Option<Instant> {
        let (key, until) = (tombstone.request.conn, tombstone.until);
        let fits = !self.left.contains_key(&key) && self.left.len() < self.most;
        if fits {
            self.left.insert(key, tombstone);
        }
        fits.then_some(until)
    }

    pub(in crate::spn::endpoint) fn has(&self, key: &ConnKey) -> bool {
        self.left.contains_key(key)
    }

    /// Who the partner of a connection was.
    pub(in crate::spn::endpoint) fn partner(&self, key: &ConnKey) -> Option<Tag> {
        self.left.get(key).and_then(|tombstone| tombstone.partner)
    }

    /// The last report may not have reached the partner. The frame is for each session that there is; those that come get it too.
    pub(in crate::spn::endpoint) fn repeat(&mut self, key: &ConnKey) -> Option<Frame> {
        let tombstone = self.left.get_mut(key)?;
        tombstone.link = None;
        Some(tombstone.frame())
    }

    /// CLOSE_ACK on a session: whether its hub had no partner to inform of an abort.
    pub(in crate::spn::endpoint) fn is_undelivered(&self, key: &ConnKey, link: LinkId) -> bool {
        self.left.get(key).is_some_and(|tombstone| tombstone.link == Some(link) && tombstone.is_aborted())
    }

    /// RESUME_ACK: the partner knows of an abort now. Says whether there is a tombstone at all.
    pub(in crate::spn::endpoint) fn acknowledge(&mut self, key: &ConnKey) -> bool {
        let aborted = self.left.get(key).map(Tombstone::is_aborted);
        if aborted == Some(true) {
            self.left.remove(key);
        }
        aborted.is_some()
    }

    /// What a session that has just come is to be sent.
    pub(in crate::spn::endpoint) fn frames(&self) -> Vec<Frame> {
        self.left.values().filter(|tombstone| tombstone.link.is_none()).map(Tombstone::frame).collect()
    }

    /// A session is lost, and with it, maybe, the last reports over it. What the others are to be sent.
    pub(in crate::spn::endpoint) fn lose_link(&mut self, link: LinkId) -> Vec<Frame> {
        let lost = self.left.values_mut().filter(|tombstone| tombstone.link == Some(link));
        lost.map(|tombstone| {
            tombstone.link = None;
            tombstone.frame()
        })
        .collect()
    }

    /// A tombstone may have had its time.
    pub(in crate::spn::endpoint) fn expire(&mut self, now: Instant, key: &ConnKey) {
        if self.left.get(key).is_some_and(|tombstone| tombstone.until <= now) {
            self.left.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    const KEY: ConnKey = ConnKey([7; 16]);

    fn request(conn: ConnKey) -> ResumeReq {
        ResumeReq { conn, generation: 1, received: 2, sent: 3, flags: Flags::FINISHED, code: StreamCode::OK }
    }

    #[test]
    fn an_ended_connection_is_spoken_of_when_its_session_is_lost() {
        let now = first_instant();
        let mut tombstones = Tombstones::new(10);
        let until = tombstones.add_ended(now, request(KEY), StreamCode::OK, None, Some(1)).unwrap();
        assert_eq!(until, now + Duration::from_secs(30));
        assert_eq!((tombstones.frames(), tombstones.lose_link(2)), (vec![], vec![]), "its session lives");
        let frame = request(KEY).frame(None);
        assert_eq!(tombstones.lose_link(1), std::slice::from_ref(&frame));
        assert_eq!(tombstones.frames(), [frame], "for those that come");
        assert!(tombstones.acknowledge(&KEY) && tombstones.has(&KEY), "it was not broken off");
        tombstones.expire(now, &KEY);
        assert!(tombstones.has(&KEY), "too early");
        tombstones.expire(until, &KEY);
        assert!(!tombstones.has(&KEY) && !tombstones.acknowledge(&KEY));
    }

    #[test]
    fn an_abort_is_left_until_the_partner_knows_of_it() {
        let now = first_instant();
        let mut tombstones = Tombstones::new(10);
        let partner = Tag::of("partner");
        let (frame, _) = tombstones.add_aborted(now, request(KEY), StreamCode::PEER_ABORTED, Some(partner));
        let flags = Flags::FINISHED | Flags::ABORTED;
        let aborted = ResumeReq { flags, code: StreamCode::PEER_ABORTED, ..request(KEY) };
        assert_eq!(frame, aborted.frame(Some(partner)));
        assert_eq!((tombstones.frames(), tombstones.partner(&KEY)), (vec![frame], Some(partner)));
        assert!(tombstones.acknowledge(&KEY) && !tombstones.has(&KEY));
    }

    #[test]
    fn a_hub_that_has_no_partner_to_inform_is_believed_on_the_session_that_carried_it() {
        let mut tombstones = Tombstones::new(10);
        tombstones.add_ended(first_instant(), request(KEY), StreamCode::PEER_ABORTED, None, Some(1));
        assert!(tombstones.is_undelivered(&KEY, 1) && !tombstones.is_undelivered(&KEY, 2));
        assert!(tombstones.repeat(&KEY).is_some());
        assert!(!tombstones.is_undelivered(&KEY, 1), "it is left for whatever session there is");
    }

    #[test]
    fn there_are_no_more_than_the_limit() {
        let mut tombstones = Tombstones::new(1);
        assert!(tombstones.add_ended(first_instant(), request(KEY), StreamCode::OK, None, None).is_some());
        let other = ConnKey([8; 16]);
        assert!(tombstones.add_ended(first_instant(), request(other), StreamCode::OK, None, None).is_none());
        assert!(!tombstones.has(&other) && tombstones.repeat(&other).is_none());
    }
}
