//! The memory for what connections keep to send it again (docs/protocols/spn.md, Pause and resume, RES-6 and RES-7).

use std::collections::BTreeSet;

use crate::spn::endpoint::config::{ConnId, Limits};

/// How much all connections keep together, and who could write if others kept less.
#[derive(Debug)]
pub(in crate::spn::endpoint) struct Retention {
    /// What each may keep, whatever the others do,
    least: u64,
    /// and all of them apart from that.
    total: u64,
    kept: u64,
    starved: BTreeSet<ConnId>,
}

impl Retention {
    pub(in crate::spn::endpoint) fn new(limits: &Limits) -> Self {
        Self { least: limits.retain_min, total: limits.retain_total, kept: 0, starved: BTreeSet::new() }
    }

    /// Bytes that a connection may keep beside those that it keeps already; `most` is its own limit. Some of it is everybody's own:
    /// connections whose readers sleep must not stop the others.
    pub(in crate::spn::endpoint) fn room(&self, kept: u64, most: u64) -> u64 {
        let left = self.total.saturating_sub(self.kept);
        most.saturating_sub(kept).min(left.max(self.least.saturating_sub(kept)))
    }

    /// A connection has found no room although its own limit is not reached: it is to hear of it when others keep less.
    pub(in crate::spn::endpoint) fn starve(&mut self, id: ConnId) {
        self.starved.insert(id);
    }

    /// A connection keeps another number of bytes than before. When it is less, the connections that may find room now: it itself, and those
    /// that have starved.
    pub(in crate::spn::endpoint) fn change(&mut self, id: ConnId, before: u64, kept: u64) -> BTreeSet<ConnId> {
        self.kept = self.kept + kept - before;
        if kept >= before {
            return BTreeSet::new();
        }
        let mut roomy = std::mem::take(&mut self.starved);
        roomy.insert(id);
        roomy
    }

    /// Bytes that are kept in all.
    #[cfg(test)]
    pub(in crate::spn::endpoint) fn kept(&self) -> u64 {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_keep_is_shared_and_some_is_everybodys_own() {
        let limits = Limits { retain_min: 10, retain_total: 100, ..Limits::default() };
        let mut retention = Retention::new(&limits);
        let [one, two] = [1, 2].map(|index| ConnId { index, generation: 0 });
        assert_eq!(retention.room(0, 60), 60, "its own limit");
        assert!(retention.change(one, 0, 95).is_empty());
        assert_eq!(retention.room(0, 60), 10, "its own share");
        assert_eq!(retention.room(8, 60), 5, "what is left of all");
        assert!(retention.change(two, 0, 10).is_empty());
        assert_eq!((retention.kept(), retention.room(10, 60)), (105, 0));
        retention.starve(two);
        assert_eq!(retention.change(one, 95, 20), BTreeSet::from([one, two]));
        assert_eq!(retention.change(one, 20, 19), BTreeSet::from([one]), "it has heard of it");
        assert_eq!(retention.room(10, 60), 50);
    }
}
