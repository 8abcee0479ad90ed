//! The requests to resume one connection, and which of them belong together (docs/protocols/spn.md, Pause and resume,
//! RES-26 to RES-28, and Owners, OWN-3).
//!
//! A hub that has restarted knows nothing of a connection, so each end names its partner, and only two that name each other are joined.
//! An end of an earlier release names no partner: for it, the first of the other side counts (OWN-7).

use std::{collections::BTreeSet, time::Instant};

use super::events::{End, Owners, SessionRef, Values};
use crate::spn::{Side, Tag, wire::code::StreamCode};

/// A request to resume.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) session: SessionRef,
    pub(super) end: End,
    pub(super) values: Values,
    /// It is answered with 0x24 then.
    pub(super) until: Instant,
    /// Its service is paused.
    pub(super) paused: bool,
    /// Providers' sessions that were asked for the connection.
    pub(super) sought: BTreeSet<SessionRef>,
}

/// The requests to resume one connection.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// Oldest first; one of each session.
    list: Vec<Request>,
    /// The ends of the connection, where the hub has seen them.
    owners: Option<Owners>,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.list.iter()
    }

    /// The request of a session.
    pub(super) fn of(&self, session: SessionRef) -> Option<&Request> {
        self.list.iter().find(|request| request.session == session)
    }

    /// When the oldest request has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.list.iter().map(|request| request.until).min()
    }

    /// Adds a request as the newest; it replaces the one of its session.
    pub(super) fn put(&mut self, request: Request, owners: Option<Owners>) {
        self.owners = owners.or(self.owners);
        self.list.retain(|older| older.session != request.session);
        if self.list.is_empty() {
            // The two ends are the rule; there may be thousands of such lists (I9).
            self.list.reserve_exact(2);
        }
        self.list.push(request);
    }

    /// Removes requests, and returns their sessions.
    pub(super) fn take(&mut self, which: impl Fn(&Request) -> bool) -> Vec<SessionRef> {
        self.list.extract_if(.., |request| which(request)).map(|request| request.session).collect()
    }

    /// Notes that a service is paused, or is not any more.
    pub(super) fn set_paused(&mut self, service: u32, paused: bool) {
        let of_it = self.list.iter_mut().filter(|request| request.end.service == service);
        of_it.for_each(|request| request.paused = paused);
    }

    /// A consumer looks for the connection at a provider. Says whether that provider is to be asked (SEK-3).
    pub(super) fn note_sought(&mut self, consumer: SessionRef, provider: SessionRef) -> bool {
        let mut own = self.list.iter_mut().filter(|request| request.session == consumer);
        own.next().is_some_and(|request| request.end.side == Side::Consumer && request.sought.insert(provider))
    }

    /// The consumers that look for the connection at a provider.
    pub(super) fn seekers(&self, provider: SessionRef) -> Vec<SessionRef> {
        let seekers = self.list.iter().filter(|request| request.sought.contains(&provider));
        seekers.map(|request| request.session).collect()
    }

    /// The end that a session is: as far as it has a request, with the partner that this names.
    pub(super) fn known(&self, session: SessionRef, end: End) -> End {
        End { partner: self.of(session).and_then(|request| request.end.partner), ..end }
    }

    fn owner(&self, side: Side) -> Option<Tag> {
        self.owners.map(|owners| owners.of(side))
    }

    /// Who the partner of an end has to be; `None` as long as any end may be.
    fn partner_of(&self, end: End) -> Option<Tag> {
        let first = || self.partners(end).next().map(|request| request.end.tag);
        end.partner.or(self.owner(end.side.other())).or_else(first)
    }

    fn partners(&self, end: End) -> impl DoubleEndedIterator<Item = &Request> {
        self.list.iter().filter(move |request| request.end.service == end.service && request.end.side != end.side)
    }

    /// Whether an end takes another one for its partner.
    fn accepts(&self, end: End, partner: End) -> bool {
        self.partner_of(end).is_none_or(|tag| tag == partner.tag)
    }

    /// The newest request of the other side that belongs together with an end.
    pub(super) fn partner_for(&self, end: End) -> Option<&Request> {
        self.partners(end).rev().find(|request| self.accepts(end, request.end) && self.accepts(request.end, end))
    }

    /// The newest two that belong together, the consumer's first.
    pub(super) fn pair(&self) -> Option<(&Request, &Request)> {
        let consumers = self.list.iter().rev().filter(|request| request.end.side == Side::Consumer);
        consumers.filter_map(|consumer| Some((consumer, self.partner_for(consumer.end)?))).next()
    }

    /// Whether the connection belongs to others: the hub has seen its ends, or each possible partner of this end names another end (OWN-4).
    pub(super) fn is_foreign(&self, end: End) -> bool {
        if self.owner(end.side).is_some_and(|owner| owner != end.tag) {
            return true;
        }
        let mut partners = self.partners(end).filter(|request| self.accepts(end, request.end)).peekable();
        partners.peek().is_some() && !partners.any(|request| self.accepts(request.end, end))
    }

    /// The provider with which a consumer's stream goes on (RES-30).
    ///
    /// # Errors
    /// The code that resets the stream.
    pub(super) fn provider_for(&self, end: End, generation: u64) -> Result<SessionRef, StreamCode> {
        if self.is_foreign(end) {
            return Err(StreamCode::NOT_ENTITLED);
        }
        let has_given_up = |request: &Request| is_same_end(request, end) && request.values.generation >= generation;
        if self.list.iter().any(has_given_up) {
            return Err(StreamCode::PAUSED);
        }
        self.partner_for(end).filter(|request| !request.paused).map(|request| request.session).ok_or(StreamCode::PAUSED)
    }
}

/// Whether a request is of this end, by whichever session.
pub(super) fn is_same_end(request: &Request, end: End) -> bool {
    (request.end.side, request.end.tag) == (end.side, end.tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spn::wire::frame::Flags;
    use crate::testing::first_instant;

    fn parked(ends: &[End]) -> Requests {
        let values = Values { generation: 0, received: 0, flags: Flags::NONE, code: StreamCode(0) };
        let request = |(n, &end)| Request {
            session: SessionRef(n),
            end,
            values,
            until: first_instant(),
            paused: false,
            sought: BTreeSet::new(),
        };
        Requests { list: (0..).zip(ends).map(request).collect(), owners: None }
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

    /// The ends that are joined, and those that are refused.
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
        assert_eq!(judged(&[thief]), (None, vec![]), "not known yet");
        assert_eq!(judged(&[thief, server]), (None, vec![2]));
        for ends in [[thief, owner, server], [owner, server, thief], [server, thief, owner]] {
            assert_eq!(judged(&ends), (Some((1, 11)), vec![2]));
        }
        // A stranger that names no partner is refused as well.
        assert_eq!(judged(&[consumer(2, None), server]), (None, vec![2]));
        assert_eq!(judged(&[fake, owner]), (None, vec![12]), "the provider that it names may still come");
        assert_eq!(judged(&[fake, owner, server]).0, Some((1, 11)));
        // A stranger cannot have the owner refused.
        assert_eq!(judged(&[provider(12, Some(2)), owner]), (None, vec![]));
        assert_eq!(judged(&[provider(12, Some(2)), owner, server]), (Some((1, 11)), vec![]));
    }

    #[test]
    fn for_an_end_that_names_nobody_the_first_counts() {
        assert_eq!(judged(&[consumer(1, None), provider(11, None)]), (Some((1, 11)), vec![]));
        assert_eq!(judged(&[consumer(1, None), consumer(2, None), provider(11, None)]), (Some((1, 11)), vec![2]));
        assert_eq!(judged(&[provider(11, None), provider(12, None), consumer(1, None)]), (Some((1, 11)), vec![12]));
        // An end that names its partner waits for that one.
        assert_eq!(judged(&[consumer(2, None), provider(11, Some(1)), consumer(1, None)]), (Some((1, 11)), vec![2]));
    }

    #[test]
    fn ends_of_two_services_are_never_joined() {
        let elsewhere = End { service: 1, ..consumer(1, Some(11)) };
        assert_eq!(judged(&[elsewhere, provider(11, Some(1))]), (None, vec![]));
        assert_eq!(judged(&[elsewhere, provider(11, Some(1)), consumer(1, Some(11))]).0, Some((1, 11)));
    }

    #[test]
    fn a_hub_that_has_seen_the_connection_needs_no_names() {
        let mut parked = parked(&[provider(11, None)]);
        parked.owners = Some(Owners { consumer: Tag([1; 16]), provider: Tag([11; 16]) });
        assert!(parked.is_foreign(consumer(2, None)) && parked.is_foreign(provider(12, None)));
        assert!(!parked.is_foreign(consumer(1, None)) && !parked.is_foreign(provider(11, None)));
        assert!(parked.partner_for(consumer(1, None)).is_some() && parked.partner_for(consumer(2, None)).is_none());
    }
}
