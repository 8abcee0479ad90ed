//! A connection of which nothing has been heard when its stream is lost: does a provider have it, or may it begin again?
//! (docs/protocols/spn.md, A connection that was never confirmed, SEK-2 to SEK-7).

use std::collections::BTreeSet;

use crate::spn::wire::frame::Flags;

/// Providers that have left and are remembered; older ones could have had anything.
const LEFT: usize = 256;

/// A provider process.
pub(in crate::spn::endpoint) type Instance = [u8; 16];

/// Who may get the connections of a consumer's session, and who might once.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Roster {
    number: u64,
    present: BTreeSet<Instance>,
    /// They get no connection, and can be asked.
    retiring: BTreeSet<Instance>,
    /// And the number of the first list that they were missing on.
    left: Vec<(Instance, u64)>,
    /// Up to that number there were some that cannot be asked, or are forgotten.
    opaque: u64,
}

impl Roster {
    /// PROVIDERS.
    pub(in crate::spn::endpoint) fn update(
        &mut self,
        number: u64,
        flags: Flags,
        instances: Vec<Instance>,
        retiring: Vec<Instance>,
    ) {
        if number < self.number {
            return;
        }
        self.retiring = retiring.into_iter().collect();
        let present: BTreeSet<_> = instances.into_iter().collect();
        self.left.extend(self.present.difference(&present).map(|instance| (*instance, number)));
        if self.left.len() > LEFT {
            let excess = self.left.len() - LEFT;
            let forgotten = self.left.drain(..excess).map(|(_, until)| until).max();
            self.opaque = self.opaque.max(forgotten.unwrap_or_default());
        }
        // It is over with the first list that says so.
        if self.opaque == u64::MAX {
            self.opaque = number;
        }
        if flags.contains(Flags::OTHERS) {
            self.opaque = u64::MAX;
        }
        (self.number, self.present) = (number, present);
    }

    /// The number of the newest list.
    pub(in crate::spn::endpoint) fn number(&self) -> u64 {
        self.number
    }

    /// Everybody who could have got a connection that was begun when that list was the newest; `None`: nobody can tell.
    fn since(&self, number: u64) -> Option<BTreeSet<Instance>> {
        let left = self.left.iter().filter(|(_, until)| *until > number).map(|(instance, _)| *instance);
        (self.opaque <= number).then(|| left.chain(self.present.iter().copied()).collect())
    }

    /// Whether it can be asked here.
    fn has(&self, instance: &Instance) -> bool {
        self.present.contains(instance) || self.retiring.contains(instance)
    }
}

/// What a consumer knows of who has one of its connections.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Claim {
    /// The partner has been heard of.
    is_heard: bool,
    /// The newest list of providers when it was begun.
    begun_with: u64,
    /// Without a stream: those who may have it, as long as nothing has been heard.
    candidates: Option<BTreeSet<Instance>>,
}

/// What is to become of a connection that has asked for its next stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spn::endpoint) enum Prospect {
    /// It waits for its partner, as nobody can say who could have it, or as it was heard of.
    Unknown,
    /// Everybody who could have it is known, and is asked.
    Sought,
    /// Nobody could have it.
    Absent,
}

impl Claim {
    /// Its stream is opened on a session whose newest list of providers has that number.
    pub(in crate::spn::endpoint) fn begin(&mut self, number: u64) {
        self.begun_with = number;
    }

    /// Whether the partner has been heard of.
    pub(in crate::spn::endpoint) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The partner has been heard of: it has the connection. Says whether this is new.
    pub(in crate::spn::endpoint) fn hear(&mut self) -> bool {
        self.candidates = None;
        !std::mem::replace(&mut self.is_heard, true)
    }

    /// It is about to lose its stream on a session with these providers: notes who could have it.
    pub(in crate::spn::endpoint) fn lose_stream(&mut self, roster: Option<&Roster>) {
        if !self.is_heard && self.candidates.is_none() {
            self.candidates = roster.and_then(|roster| roster.since(self.begun_with));
        }
    }

    /// It begins again, or is over: nobody is asked for it.
    pub(in crate::spn::endpoint) fn forget(&mut self) {
        self.candidates = None;
    }

    /// Whether it is sought.
    pub(in crate::spn::endpoint) fn is_sought(&self) -> bool {
        self.candidates.is_some()
    }

    /// Those who can be asked for it on a session with these providers.
    pub(in crate::spn::endpoint) fn ask(&self, roster: &Roster) -> Vec<Instance> {
        let candidates = self.candidates.iter().flatten();
        candidates.filter(|instance| roster.has(instance)).copied().collect()
    }

    /// What can be sought is waited for like any connection, also while there is no session that could be asked; what nobody could have begins
    /// again.
    pub(in crate::spn::endpoint) fn prospect(&self) -> Prospect {
        match &self.candidates {
            None => Prospect::Unknown,
            Some(candidates) if candidates.is_empty() => Prospect::Absent,
            Some(_) => Prospect::Sought,
        }
    }

    /// ABSENT: this provider does not have it. Says whether it was the last that could.
    pub(in crate::spn::endpoint) fn rule_out(&mut self, instance: &Instance) -> bool {
        self.candidates.as_mut().is_some_and(|candidates| candidates.remove(instance) && candidates.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Instance = [1; 16];
    const B: Instance = [2; 16];
    const C: Instance = [3; 16];

    /// A roster after these lists.
    fn roster(lists: &[(u64, Flags, &[Instance])]) -> Roster {
        let mut roster = Roster::default();
        for (number, flags, instances) in lists {
            roster.update(*number, *flags, instances.to_vec(), vec![]);
        }
        roster
    }

    /// A claim that was begun with a list, and whose stream is lost now.
    fn lost(begun_with: u64, roster: &Roster) -> Claim {
        let mut claim = Claim::default();
        claim.begin(begun_with);
        claim.lose_stream(Some(roster));
        claim
    }

    #[test]
    fn all_that_were_listed_since_it_began_could_have_it() {
        let lists: &[(u64, Flags, &[Instance])] =
            &[(1, Flags::NONE, &[A]), (2, Flags::NONE, &[A, B]), (3, Flags::NONE, &[B]), (4, Flags::NONE, &[B, C])];
        for (begun_with, candidates) in [(1, &[A, B, C][..]), (2, &[A, B, C]), (3, &[B, C]), (4, &[B, C])] {
            let mut claim = lost(begun_with, &roster(lists));
            assert_eq!(claim.prospect(), Prospect::Sought);
            let (last, others) = candidates.split_last().unwrap();
            assert!(others.iter().all(|other| !claim.rule_out(other)), "{begun_with}");
            assert!(claim.rule_out(last) && !claim.rule_out(last), "{begun_with}");
        }
    }

    #[test]
    fn a_list_that_comes_late_changes_nothing() {
        let roster = roster(&[(2, Flags::NONE, &[A]), (1, Flags::NONE, &[B])]);
        assert_eq!((roster.number(), lost(2, &roster).ask(&roster)), (2, vec![A]));
    }

    #[test]
    fn only_those_of_a_session_are_asked_there() {
        let (here, there) = (roster(&[(1, Flags::NONE, &[A, B])]), roster(&[(9, Flags::NONE, &[B, C])]));
        let claim = lost(1, &here);
        assert_eq!((claim.ask(&here), claim.ask(&there)), (vec![A, B], vec![B]));
        let mut retiring = Roster::default();
        retiring.update(1, Flags::NONE, vec![], vec![A]);
        assert_eq!(claim.ask(&retiring), [A], "who retires gets nothing, and can be asked");
        assert_eq!(lost(1, &retiring).prospect(), Prospect::Absent, "who retires could not get it");
    }

    #[test]
    fn with_others_nothing_can_be_known() {
        let during = roster(&[(1, Flags::OTHERS, &[A])]);
        assert_eq!(lost(1, &during).prospect(), Prospect::Unknown);
        let after = roster(&[(1, Flags::OTHERS, &[A]), (2, Flags::NONE, &[A])]);
        assert_eq!(lost(1, &after).prospect(), Prospect::Unknown, "it began while there were others");
        assert_eq!(lost(2, &after).prospect(), Prospect::Sought);
        let mut claim = Claim::default();
        claim.lose_stream(None);
        assert_eq!(claim.prospect(), Prospect::Unknown, "no list at all");
    }

    #[test]
    fn providers_that_left_long_ago_could_have_had_anything() {
        let mut roster = Roster::default();
        for number in 1..=LEFT as u64 + 2 {
            let mut instance = A;
            instance[..8].copy_from_slice(&number.to_be_bytes());
            roster.update(number, Flags::NONE, vec![instance], vec![]);
        }
        // The first has left with list 2.
        assert_eq!(lost(1, &roster).prospect(), Prospect::Unknown);
        assert_eq!(lost(2, &roster).prospect(), Prospect::Sought);
    }

    #[test]
    fn what_was_heard_of_is_not_sought() {
        let roster = roster(&[(1, Flags::NONE, &[A])]);
        let mut claim = lost(1, &roster);
        assert!(claim.hear() && !claim.hear());
        claim.lose_stream(Some(&roster));
        assert!(claim.is_heard() && !claim.is_sought() && !claim.rule_out(&A));
    }

    #[test]
    fn who_could_have_it_is_noted_when_the_first_stream_is_lost() {
        let mut claim = lost(1, &roster(&[(1, Flags::NONE, &[A])]));
        claim.lose_stream(Some(&roster(&[(1, Flags::NONE, &[A, B])])));
        assert!(claim.rule_out(&A), "it came with no other stream to B");
        assert_eq!(claim.prospect(), Prospect::Absent);
    }
}
