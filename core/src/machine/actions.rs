//! A bounded queue of actions.

/// What a machine wants done, oldest first; at most `N` between two drains.
///
/// It lives inside the machine and never allocates. `N` is the most actions that one event can cause.
/// A host that breaks the contract and does not drain loses the newest actions, and [`is_overrun`](Self::is_overrun) says so for good.
#[derive(Debug, Clone)]
pub struct Actions<A, const N: usize> {
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
