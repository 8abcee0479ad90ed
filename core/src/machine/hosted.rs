//! A machine among many of one owner.

use std::{
    ops::{Deref, DerefMut},
    time::Instant,
};

use super::{Armed, Deadlines, Machine};

/// A machine, and its entry in its owner's [`Deadlines`].
///
/// The owner hands in events as to the machine itself, then drains it by [`next_action`](Self::next_action).
#[derive(Debug, Clone)]
pub struct Hosted<M> {
    machine: M,
    armed: Armed,
}

impl<M: Machine> Hosted<M> {
    /// A machine that has no deadline yet.
    #[must_use]
    pub fn new(machine: M) -> Self {
        Self { machine, armed: Armed::default() }
    }

    /// The machine's next action. When there is none, its deadline is noted in `deadlines` under `key`.
    #[must_use]
    pub fn next_action<K: Ord>(&mut self, deadlines: &mut Deadlines<K>, key: K) -> Option<M::Action> {
        let action = self.machine.poll_action();
        if action.is_none() {
            deadlines.arm(&mut self.armed, self.machine.poll_timeout(), key);
        }
        action
    }

    /// An entry of this machine, due `at`, has expired. If it is the present one, the machine's timer fires, and the machine is to be drained.
    #[must_use]
    pub fn expire(&mut self, now: Instant, at: Instant) -> bool {
        let current = self.armed.take(at);
        if current {
            self.machine.handle_timeout(now);
        }
        current
    }
}

impl<M> Deref for Hosted<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M> DerefMut for Hosted<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.machine
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::{
        Describe as _,
        example::{Action, Config, Event, Redial},
    };

    #[test]
    fn a_drained_machine_has_an_entry_and_only_the_present_one_fires() {
        let start = crate::testing::first_instant();
        let (mut deadlines, mut redial) = (Deadlines::default(), Hosted::new(Redial::start(Config::default(), 0)));
        redial.handle_event(start, Event::Open);
        assert_eq!(redial.next_action(&mut deadlines, 'r'), Some(Action::Dial { attempt: 1 }));
        assert_eq!(deadlines.next(), None, "not drained yet");
        assert_eq!(redial.next_action(&mut deadlines, 'r'), None);
        let due = start + Duration::from_secs(5);
        assert_eq!(deadlines.next(), Some(due));
        assert!(!redial.expire(due, start), "an old entry");
        assert_eq!(deadlines.expire(due), Some((due, 'r')));
        assert!(redial.expire(due, due));
        assert_eq!(redial.next_action(&mut deadlines, 'r'), Some(Action::HangUp));
    }
}
