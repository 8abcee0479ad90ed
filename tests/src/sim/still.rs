//! Processes that are stopped (SIGSTOP, a machine that sleeps) and go on.

use std::{collections::BTreeMap, time::Instant};

use towline_core::quic::Received;

/// A hub or an endpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Hub(usize),
    Peer(usize),
}

/// Those that stand still: until when, and what waits in their sockets.
#[derive(Debug, Default)]
pub(super) struct Still(BTreeMap<Who, (Instant, Vec<Received>)>);

impl Still {
    pub(super) fn stop(&mut self, who: Who, until: Instant) {
        self.0.entry(who).or_insert_with(|| (until, Vec::new()));
    }

    /// It is gone, with all that waited for it.
    pub(super) fn forget(&mut self, who: Who) {
        self.0.remove(&who);
    }

    pub(super) fn until(&self, who: Who) -> Option<Instant> {
        self.0.get(&who).map(|(until, _)| *until)
    }

    pub(super) fn holds(&self, who: Who) -> bool {
        self.0.contains_key(&who)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|(until, _)| *until).min()
    }

    /// Keeps a datagram for it; hands it back if it is awake.
    pub(super) fn keep(&mut self, who: Who, received: Received) -> Option<Received> {
        match self.0.get_mut(&who) {
            Some((_, waiting)) => {
                waiting.push(received);
                None
            }
            None => Some(received),
        }
    }

    /// One that goes on at `now`, and what has come for it.
    pub(super) fn wake(&mut self, now: Instant) -> Option<(Who, Vec<Received>)> {
        let (who, _) = self.0.iter().find(|(_, (until, _))| *until <= now)?;
        let who = *who;
        self.0.remove(&who).map(|(_, waiting)| (who, waiting))
    }
}
