//! The requests to resume that a session has, and when to look at them (docs/protocols/spn.md, Pause and resume, RES-28).

use std::collections::BTreeSet;

use crate::spn::ConnKey;

/// The connections that a session has asked to resume.
#[derive(Debug, Default)]
pub(crate) struct RequestKeys {
    keys: BTreeSet<ConnKey>,
    /// There is a time at which to look at them.
    is_reminded: bool,
}

impl RequestKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn contains(&self, conn: ConnKey) -> bool {
        self.keys.contains(&conn)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ConnKey> {
        self.keys.iter().copied()
    }

    /// Adds a request. Says whether a time to look at the requests is to be set. One for all of them is enough: they come due in the order in which
    /// they came.
    #[must_use]
    pub(crate) fn add(&mut self, conn: ConnKey) -> bool {
        self.keys.insert(conn);
        !std::mem::replace(&mut self.is_reminded, true)
    }

    pub(crate) fn remove(&mut self, conn: ConnKey) {
        self.keys.remove(&conn);
    }

    /// The session has ended: the requests that it had.
    pub(crate) fn take(&mut self) -> BTreeSet<ConnKey> {
        std::mem::take(&mut self.keys)
    }

    /// Whether there is a time at which to look at them.
    pub(crate) fn is_reminded(&self) -> bool {
        self.is_reminded
    }

    /// That time has come, or another one is set.
    pub(crate) fn set_reminded(&mut self, is_reminded: bool) {
        self.is_reminded = is_reminded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reminder_is_enough_for_all_requests() {
        let (first, second) = (ConnKey([1; 16]), ConnKey([2; 16]));
        let mut requests = RequestKeys::default();
        assert!(requests.add(first) && !requests.add(second) && requests.is_reminded());
        requests.remove(first);
        assert!(!requests.contains(first) && requests.contains(second));
        assert_eq!(requests.take().into_iter().collect::<Vec<_>>(), [second]);
        requests.set_reminded(false);
        assert!(requests.is_empty() && requests.add(first));
    }
}
