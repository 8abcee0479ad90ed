//! Notices that wait for the host.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    notice::{Notice, Refusal},
    policy::refusals::Refusals,
};
use crate::spn::record::{Record, RecordEvent};

/// The notices of one hub.
#[derive(Debug)]
pub(crate) struct Outbox {
    realm: Arc<str>,
    hub: Arc<str>,
    waiting: VecDeque<Notice>,
    refusals: Refusals,
}

impl Outbox {
    /// The outbox of a hub, for whose records `realm` and `hub` are the names.
    pub(crate) fn new(realm: &str, hub: &str) -> Self {
        Self { realm: realm.into(), hub: hub.into(), waiting: VecDeque::new(), refusals: Refusals::default() }
    }

    pub(crate) fn push(&mut self, notice: Notice) {
        self.waiting.push_back(notice);
    }

    pub(crate) fn pop(&mut self) -> Option<Notice> {
        self.waiting.pop_front()
    }

    pub(crate) fn record(&mut self, at: Instant, event: RecordEvent) {
        let record = Record { at, realm: self.realm.clone(), hub: self.hub.clone(), event };
        self.push(Notice::Record(record));
    }

    /// Reports a refusal, or counts it if `most` have been reported in this second. When to call
    /// [`report_suppressed`](Self::report_suppressed), if that is not arranged yet.
    #[must_use]
    pub(crate) fn refuse(&mut self, refusal: Refusal, most: u32) -> Option<Instant> {
        let now = refusal.at;
        if self.refusals.begins_second(now) {
            self.report_suppressed();
        }
        if self.refusals.may_report(most) {
            self.push(Notice::Refused(refusal));
            return None;
        }
        self.suppress(now, 1)
    }

    /// Counts refusals that are not reported one by one. When to call [`report_suppressed`](Self::report_suppressed), if that is not arranged yet.
    #[must_use]
    pub(crate) fn suppress(&mut self, now: Instant, count: u64) -> Option<Instant> {
        self.refusals.suppress(now, count)
    }

    pub(crate) fn report_suppressed(&mut self) {
        let count = self.refusals.take_suppressed();
        if count > 0 {
            self.push(Notice::RefusalsSuppressed { count });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{spn::hub::notice::Reason, testing::first_instant};

    #[test]
    fn suppressed_refusals_are_reported_before_the_first_of_the_next_second() {
        let now = first_instant();
        let refusal = |at| {
            let remote = "192.0.2.7:7".parse().unwrap();
            Refusal { at, remote, subject: None, role: None, reason: Reason::Handshake("x".to_owned()) }
        };
        let mut outbox = Outbox::new("r", "hub");
        assert_eq!(outbox.refuse(refusal(now), 1), None);
        assert_eq!(outbox.refuse(refusal(now), 1), Some(now + Duration::from_secs(1)));
        assert_eq!(outbox.refuse(refusal(now), 1), None, "it is arranged already");
        assert_eq!(outbox.refuse(refusal(now + Duration::from_secs(1)), 1), None);
        assert!(matches!(outbox.pop(), Some(Notice::Refused(_))));
        assert!(matches!(outbox.pop(), Some(Notice::RefusalsSuppressed { count: 2 })));
        assert!(matches!(outbox.pop(), Some(Notice::Refused(_))));
        outbox.report_suppressed();
        assert!(outbox.pop().is_none(), "nothing is reported twice");
    }
}
