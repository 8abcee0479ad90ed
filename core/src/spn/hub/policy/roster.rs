//! The provider sessions of one service, and which of them gets the next connection (docs/protocols/spn.md, Choosing a provider, PRV-6 to PRV-13).
//!
//! The roster has a number, which grows with each change; PROVIDERS carries both to the consumers. A provider is *listed* while it is to get
//! connections: not while it is given up, and not while its weight is 0.

use super::balance;
use crate::quic::Handle;

/// The number of a provider that is not listed.
const UNLISTED: u64 = u64::MAX;

/// A provider session of a service.
#[derive(Debug, Clone, Copy)]
struct Provider {
    session: Handle,
    weight: u16,
    /// Its open connections.
    open: u32,
    /// The number of the first roster that lists it, since it came or answered again; or [`UNLISTED`].
    number: u64,
    /// QUIC gives it no stream at the moment.
    out_of_credit: bool,
    /// It has received something, and has acknowledged nothing for a few round trips.
    is_silent: bool,
}

impl Provider {
    /// It would be given a connection.
    fn answers(&self) -> bool {
        !self.is_silent && !self.out_of_credit && self.weight > 0
    }

    fn is_listed(&self) -> bool {
        self.number != UNLISTED
    }
}

/// Which provider gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This session.
    Provider(Handle),
    /// There is one, of which the consumer does not know yet.
    Unknown,
    /// There is none with room.
    None,
}

/// The provider sessions of one service.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Oldest first.
    providers: Vec<Provider>,
    /// How often that has changed.
    number: u64,
}

impl Roster {
    pub(crate) fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.providers.len()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Oldest first.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = Handle> {
        self.providers.iter().map(|provider| provider.session)
    }

    /// Each session, and whether it is listed.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (Handle, bool)> {
        self.providers.iter().map(|provider| (provider.session, provider.is_listed()))
    }

    /// Each session, and how many connections it has.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Handle, u32)> {
        self.providers.iter().map(|provider| (provider.session, provider.open))
    }

    /// A provider that is in the way of another one of a singleton: one of weight 0 is not (PRV-1).
    pub(crate) fn incumbent(&self) -> Option<Handle> {
        self.providers.iter().find(|provider| provider.weight > 0).map(|provider| provider.session)
    }

    /// A session has begun.
    pub(crate) fn enter(&mut self, session: Handle, weight: u16) {
        self.number += 1;
        let number = if weight > 0 { self.number } else { UNLISTED };
        self.providers.push(Provider { session, weight, open: 0, number, out_of_credit: false, is_silent: false });
    }

    /// A session has ended. Says whether it was a provider's.
    pub(crate) fn leave(&mut self, session: Handle) -> bool {
        let before = self.providers.len();
        self.providers.retain(|provider| provider.session != session);
        let has_left = self.providers.len() < before;
        self.number += u64::from(has_left);
        has_left
    }

    /// A session has a new weight. Says whether the list has changed: one that is given up stays off it until it answers again.
    pub(crate) fn set_weight(&mut self, session: Handle, weight: u16) -> bool {
        let Some(provider) = self.get_mut(session) else { return false };
        provider.weight = weight;
        let is_listed = weight > 0 && (!provider.is_silent || provider.is_listed());
        self.list(session, is_listed)
    }

    /// A session acknowledges nothing, or does so again. Returns what was noted before.
    pub(crate) fn set_silent(&mut self, session: Handle, is_silent: bool) -> Option<bool> {
        self.get_mut(session).map(|provider| std::mem::replace(&mut provider.is_silent, is_silent))
    }

    /// A session has been silent for too long. Says whether the list has changed.
    pub(crate) fn give_up(&mut self, session: Handle) -> bool {
        self.list(session, false)
    }

    /// A session answers again. Says whether the list has changed.
    pub(crate) fn take_back(&mut self, session: Handle) -> bool {
        let has_weight = self.get_mut(session).is_some_and(|provider| provider.weight > 0);
        self.list(session, has_weight)
    }

    /// Whether a provider other than this one would be given a connection.
    pub(crate) fn another_answers(&self, session: Handle) -> bool {
        self.providers.iter().any(|provider| provider.session != session && provider.answers())
    }

    /// QUIC gives a session no stream at the moment.
    pub(crate) fn set_out_of_credit(&mut self, session: Handle) {
        if let Some(provider) = self.get_mut(session) {
            provider.out_of_credit = true;
        }
    }

    /// QUIC gives a session streams again. Says whether it is a provider's.
    pub(crate) fn has_credit(&mut self, session: Handle) -> bool {
        let provider = self.get_mut(session);
        provider.map(|provider| provider.out_of_credit = false).is_some()
    }

    /// A connection is put on a session.
    pub(crate) fn opened(&mut self, session: Handle) {
        if let Some(provider) = self.get_mut(session) {
            provider.open += 1;
        }
    }

    /// A connection has left a session.
    pub(crate) fn closed(&mut self, session: Handle) {
        if let Some(provider) = self.get_mut(session) {
            provider.open -= 1;
        }
    }

    /// The session that gets the next connection, of those that were listed up to the number `known` and that read what the hub sends. A silent
    /// one gets it only if no other answers.
    pub(crate) fn choose(&self, known: u64, reads: impl Fn(Handle) -> bool) -> Choice {
        let is_free = |it: &Provider| !it.out_of_credit && it.number <= known && reads(it.session);
        let answers = |it: &Provider| is_free(it) && it.answers();
        let one_answers = self.providers.iter().any(answers);
        let free = self.providers.iter().filter(|it| if one_answers { answers(it) } else { is_free(it) });
        let candidates = free.clone().map(|it| balance::Candidate { weight: it.weight, open: it.open });
        if let Some(provider) = balance::choose(candidates).and_then(|nth| free.clone().nth(nth)) {
            return Choice::Provider(provider.session);
        }
        let is_unknown = |it: &Provider| it.number > known && it.is_listed() && !it.out_of_credit;
        if self.providers.iter().any(is_unknown) { Choice::Unknown } else { Choice::None }
    }

    /// Puts a provider on the list, or takes it off: no connection that begins afterwards waits for its answer. Says whether that is a change.
    fn list(&mut self, session: Handle, is_listed: bool) -> bool {
        let number = self.number + 1;
        let Some(provider) = self.get_mut(session).filter(|it| it.is_listed() != is_listed) else { return false };
        provider.number = if is_listed { number } else { UNLISTED };
        self.number = number;
        true
    }

    fn get_mut(&mut self, session: Handle) -> Option<&mut Provider> {
        self.providers.iter_mut().find(|provider| provider.session == session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX - 1;

    fn session(n: u32) -> Handle {
        Handle::of_test(n)
    }

    fn roster(weights: &[u16]) -> Roster {
        let mut roster = Roster::default();
        (1..).zip(weights).for_each(|(n, weight)| roster.enter(session(n), *weight));
        roster
    }

    #[test]
    fn a_retiring_provider_is_in_nobodys_way_and_gets_nothing() {
        let mut roster = roster(&[0, 100]);
        assert_eq!(roster.incumbent(), Some(session(2)));
        assert_eq!(roster.listed().collect::<Vec<_>>(), [(session(1), false), (session(2), true)]);
        assert!(roster.set_weight(session(2), 0) && !roster.set_weight(session(2), 0));
        assert_eq!((roster.incumbent(), roster.choose(ALL, |_| true)), (None, Choice::None));
        assert!(roster.leave(session(2)) && !roster.leave(session(2)));
        assert_eq!((roster.len(), roster.number()), (1, 4));
    }

    #[test]
    fn the_one_with_fewest_connections_gets_the_next() {
        let mut roster = roster(&[100, 100]);
        roster.opened(session(1));
        assert_eq!(roster.choose(ALL, |_| true), Choice::Provider(session(2)));
        assert_eq!(roster.choose(ALL, |it| it != session(2)), Choice::Provider(session(1)), "it reads nothing");
        roster.set_out_of_credit(session(2));
        assert_eq!(roster.choose(ALL, |_| true), Choice::Provider(session(1)));
        assert!(roster.has_credit(session(2)) && !roster.has_credit(session(3)));
        roster.closed(session(1));
        assert_eq!(roster.choose(ALL, |_| true), Choice::Provider(session(1)), "the oldest of equals");
    }

    #[test]
    fn a_consumer_waits_for_a_provider_that_it_does_not_know_yet() {
        let mut roster = roster(&[100]);
        assert_eq!(roster.choose(0, |_| true), Choice::Unknown);
        assert_eq!(roster.choose(1, |_| true), Choice::Provider(session(1)));
        roster.set_out_of_credit(session(1));
        assert_eq!(roster.choose(0, |_| true), Choice::None, "its answer would not help");
    }

    #[test]
    fn a_silent_provider_is_the_last_choice_and_off_the_list_while_it_is_given_up() {
        let mut roster = roster(&[100, 1]);
        assert_eq!(roster.set_silent(session(1), true), Some(false));
        assert_eq!(roster.choose(ALL, |_| true), Choice::Provider(session(2)));
        assert!(roster.another_answers(session(1)) && !roster.another_answers(session(2)));
        assert_eq!(roster.choose(ALL, |it| it != session(2)), Choice::Provider(session(1)));
        assert!(roster.give_up(session(1)));
        assert!(!roster.set_weight(session(1), 50), "it has not answered yet");
        assert_eq!(roster.choose(ALL, |it| it != session(2)), Choice::None);
        assert_eq!(roster.set_silent(session(1), false), Some(true));
        assert!(roster.take_back(session(1)));
        assert_eq!(roster.choose(2, |it| it != session(2)), Choice::Unknown, "listed under a new number");
    }
}
