//! The connections that look for a session, oldest first.

use std::collections::BTreeMap;

use crate::spn::endpoint::config::ConnId;

/// A connection's place in the [`Queue`].
pub(in crate::spn::endpoint) type Ticket = u64;

/// The connections that look for a session: they are served in the order in which they came.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Queue {
    waiting: BTreeMap<Ticket, ConnId>,
    next: Ticket,
}

impl Queue {
    /// A connection begins to look. It keeps the ticket, and gives it back.
    pub(in crate::spn::endpoint) fn join(&mut self, id: ConnId) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert(ticket, id);
        ticket
    }

    /// A connection looks no more: it has found a session, or has ended.
    pub(in crate::spn::endpoint) fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Whose turn it is.
    pub(in crate::spn::endpoint) fn first(&self) -> Option<ConnId> {
        self.waiting.first_key_value().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_served_in_the_order_in_which_they_came() {
        let id = |index| ConnId { index, generation: 0 };
        let mut queue = Queue::default();
        let first = queue.join(id(7));
        let second = queue.join(id(3));
        assert_eq!(queue.first(), Some(id(7)));
        queue.leave(first);
        // One that looks again is the last.
        queue.join(id(7));
        assert_eq!(queue.first(), Some(id(3)));
        queue.leave(second);
        queue.leave(second);
        assert_eq!(queue.first(), Some(id(7)));
    }
}
