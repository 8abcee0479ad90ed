//! The requests to resume one connection, and which of them belong together (docs/protocols/spn.md, Pause and resume, RES-26 to RES-28, and Owners, OWN-3).
//!
//! A hub that has restarted knows nothing of a connection, so each end names its partner, and only two that name each other are joined.
//! An end of an earlier release names nobody: for it, the first that asks counts.

use std::{collections::BTreeSet, time::Instant};

use crate::{
    quic::Handle,
    spn::{
        Side, Tag,
        wire::{
            code,
            frame::{Frame, ResumeAck, ResumeReq},
        },
    },
};

/// An end of a connection, by what it says and what its session proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::hub) struct End {
    pub(in crate::spn::hub) service: usize,
    pub(in crate::spn::hub) side: Side,
    /// Who it is,
    pub(super) tag: Tag,
    /// and whom it names.
    pub(in crate::spn::hub) partner: Option<Tag>,
}

/// A request to resume.
#[derive(Debug)]
pub(in crate::spn::hub) struct Request {
    pub(in crate::spn::hub) session: Handle,
    pub(in crate::spn::hub) end: End,
    pub(in crate::spn::hub) values: ResumeReq,
    pub(in crate::spn::hub) until: Instant,
    /// Sessions of providers that were asked whether they have it.
    pub(super) sought: BTreeSet<Handle>,
}

/// The requests to resume one connection.
#[derive(Debug, Default)]
pub(in crate::spn::hub) struct Parked {
    /// Oldest first; one of each session.
    pub(in crate::spn::hub) requests: Vec<Request>,
    /// Consumer and provider of the connection, where the hub has seen it.
    pub(super) owners: Option<(Tag, Tag)>,
}

impl Request {
    /// RESUME_ACK with its values, for the partner.
    pub(super) fn for_partner(&self) -> Frame {
        let ResumeReq { conn, generation, received, flags, code, .. } = self.values;
        let status = match code {
            _ if !self.values.is_aborted() => code::OK,
            code::OK => code::PEER_ABORTED,
            code => code,
        };
        Frame::ResumeAck(ResumeAck { conn, status, generation, received, flags })
    }
}

impl Parked {
    /// The request of a session.
    pub(in crate::spn::hub) fn of(&self, session: Handle) -> Option<&Request> {
        self.requests.iter().find(|request| request.session == session)
    }

    fn owner(&self, side: Side) -> Option<Tag> {
        self.owners.map(|(consumer, provider)| match side {
            Side::Consumer => consumer,
            Side::Provider => provider,
        })
    }

    /// Who the partner of an end has to be; `None` as long as anybody may be.
    fn partner_of(&self, end: End) -> Option<Tag> {
        let first = || self.partners(end).next().map(|request| request.end.tag);
        end.partner.or(self.owner(end.side.other())).or_else(first)
    }

    fn partners(&self, end: End) -> impl DoubleEndedIterator<Item = &Request> {
        self.requests
            .iter()
            .filter(move |request| request.end.service == end.service && request.end.side == end.side.other())
    }

    /// Whether an end would have it so.
    fn accepts(&self, end: End, partner: End) -> bool {
        self.partner_of(end).is_none_or(|tag| tag == partner.tag)
    }

    /// The newest request of the other end, for one that belongs to the connection.
    pub(super) fn partner_for(&self, end: End) -> Option<&Request> {
        self.partners(end).rev().find(|request| self.accepts(end, request.end) && self.accepts(request.end, end))
    }

    /// The newest two that belong together, the consumer's first.
    pub(in crate::spn::hub) fn pair(&self) -> Option<(&Request, &Request)> {
        let consumers = self.requests.iter().rev().filter(|request| request.end.side == Side::Consumer);
        consumers.filter_map(|consumer| Some((consumer, self.partner_for(consumer.end)?))).next()
    }

    /// Whether the connection is another's: whoever could be the partner of this end names somebody else.
    pub(super) fn is_foreign(&self, end: End) -> bool {
        if self.owner(end.side).is_some_and(|owner| owner != end.tag) {
            return true;
        }
        let mut partners = self.partners(end).filter(|request| self.accepts(end, request.end)).peekable();
        partners.peek().is_some() && !partners.any(|request| self.accepts(request.end, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spn::ConnKey, testing::first_instant};

    const VALUES: ResumeReq =
        ResumeReq { conn: ConnKey([7; 16]), generation: 0, received: 0, sent: 0, flags: 0, code: 0 };

    fn parked(ends: &[End]) -> Parked {
        let request = |(n, &end)| Request {
            session: Handle::of_test(n as u32),
            end,
            values: VALUES,
            until: first_instant(),
            sought: BTreeSet::new(),
        };
        Parked { requests: ends.iter().enumerate().map(request).collect(), owners: None }
    }

    fn end(side: Side, who: u8, partner: Option<u8>) -> End {
        End { service: 0, side, tag: Tag([who; 16]), partner: partner.map(|tag| Tag([tag; 16])) }
    }

    fn consumer(who: u8, partner: Option<u8>) -> End {
        end(Side::Consumer, who, partner)
    }

    fn provider(who: u8, partner: Option<u8>) -> End {
        end(Side::Provider, who, partner)
    }

    /// Who is joined, and who is sent away.
    fn judged(ends: &[End]) -> (Option<(u8, u8)>, Vec<u8>) {
        let parked = parked(ends);
        let pair = parked.pair().map(|(consumer, provider)| (consumer.end.tag.0[0], provider.end.tag.0[0]));
        let foreign = ends.iter().filter(|end| parked.is_foreign(**end)).map(|end| end.tag.0[0]).collect();
        (pair, foreign)
    }

    #[test]
    fn only_two_that_name_each_other_are_joined() {
        let (owner, thief) = (consumer(1, Some(11)), consumer(2, Some(11)));
        let (server, fake) = (provider(11, Some(1)), provider(12, Some(1)));
        assert_eq!(judged(&[thief]), (None, vec![]), "nobody knows yet");
        assert_eq!(judged(&[thief, server]), (None, vec![2]));
        for ends in [[thief, owner, server], [owner, server, thief], [server, thief, owner]] {
            assert_eq!(judged(&ends), (Some((1, 11)), vec![2]));
        }
        // A thief that names nobody is none the better.
        assert_eq!(judged(&[consumer(2, None), server]), (None, vec![2]));
        assert_eq!(judged(&[fake, owner]), (None, vec![12]), "the one it names may come yet");
        assert_eq!(judged(&[fake, owner, server]).0, Some((1, 11)));
        // It cannot have the owner sent away, either.
        assert_eq!(judged(&[provider(12, Some(2)), owner]), (None, vec![]));
        assert_eq!(judged(&[provider(12, Some(2)), owner, server]), (Some((1, 11)), vec![]));
    }

    #[test]
    fn for_who_names_nobody_the_first_counts() {
        assert_eq!(judged(&[consumer(1, None), provider(11, None)]), (Some((1, 11)), vec![]));
        assert_eq!(judged(&[consumer(1, None), consumer(2, None), provider(11, None)]), (Some((1, 11)), vec![2]));
        assert_eq!(judged(&[provider(11, None), provider(12, None), consumer(1, None)]), (Some((1, 11)), vec![12]));
        // One that does name its partner is not impressed.
        assert_eq!(judged(&[consumer(2, None), provider(11, Some(1)), consumer(1, None)]), (Some((1, 11)), vec![2]));
    }

    #[test]
    fn services_are_worlds_apart() {
        let elsewhere = End { service: 1, ..consumer(1, Some(11)) };
        assert_eq!(judged(&[elsewhere, provider(11, Some(1))]), (None, vec![]));
        assert_eq!(judged(&[elsewhere, provider(11, Some(1)), consumer(1, Some(11))]).0, Some((1, 11)));
    }

    #[test]
    fn a_hub_that_has_seen_the_connection_needs_no_names() {
        let mut parked = parked(&[provider(11, None)]);
        parked.owners = Some((Tag([1; 16]), Tag([11; 16])));
        assert!(parked.is_foreign(consumer(2, None)) && parked.is_foreign(provider(12, None)));
        assert!(!parked.is_foreign(consumer(1, None)) && !parked.is_foreign(provider(11, None)));
        assert!(parked.partner_for(consumer(1, None)).is_some() && parked.partner_for(consumer(2, None)).is_none());
    }
}
