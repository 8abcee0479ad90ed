//! A bounded queue of actions.

/// What a machine wants done, oldest first; at most `N` between two drains.
///
/// It lives inside the machine and never allocates. `N` is the most actions that one event can cause; 8 are enough for all of our machines.
/// A host that breaks the contract and does not drain loses the newest actions, and [`is_overrun`](Self::is_overrun) says so for good.
#[derive(Debug, Clone)]
pub struct Actions<A, const N: usize = 8> {
    ring: [Option<A>; N],
    head: usize,
    len: usize,
    overrun: bool,
}

impl<A, const N: usize> Default for Actions<A, N> {
    fn default() -> Self {
        Self { ring: [const { None }; N], head: 0, len: 0, overrun: false }
    }
}

impl<A, const N: usize> Actions<A, N> {
    /// Adds an action at the end.
    pub fn push(&mut self, action: A) {
        let at = (self.head + self.len) % N;
        match self.ring.get_mut(at) {
            Some(slot) if self.len < N => {
                *slot = Some(action);
                self.len += 1;
            }
            _ => {
                debug_assert!(false, "more than {N} actions between two drains");
                self.overrun = true;
            }
        }
    }

    /// Takes the oldest action.
    pub fn pop(&mut self) -> Option<A> {
        let action = self.ring.get_mut(self.head)?.take()?;
        self.head = (self.head + 1) % N;
        self.len -= 1;
        Some(action)
    }

    /// Whether nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether actions were lost because the host did not drain.
    #[must_use]
    pub fn is_overrun(&self) -> bool {
        self.overrun
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However often it wraps around, it is a queue.
        #[test]
        fn is_a_queue(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut actions = Actions::<u32, 3>::default();
            let mut model = VecDeque::new();
            for (next, push) in (0u32..).zip(steps) {
                if push && model.len() < 3 {
                    actions.push(next);
                    model.push_back(next);
                } else {
                    prop_assert_eq!(actions.pop(), model.pop_front());
                }
                prop_assert_eq!(actions.is_empty(), model.is_empty());
            }
            prop_assert!(!actions.is_overrun());
        }
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "more than 2 actions between two drains"))]
    fn an_overrun_loses_the_newest_and_is_remembered() {
        let mut actions = Actions::<u32, 2>::default();
        for action in [1, 2, 3] {
            actions.push(action);
        }
        assert_eq!((actions.pop(), actions.pop(), actions.pop()), (Some(1), Some(2), None));
        assert!(actions.is_overrun());
    }
}
