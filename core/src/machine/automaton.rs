//! What all machines have in common: the state by value, the timers, the actions, the count of ignored events.

use std::time::Instant;

use super::{Actions, Machine, Timer, Timers};

/// The states of a machine: an enum whose variants hold exactly the data that is valid in that state.
///
/// The default is the last state. It stands in for the present one while a handler owns that.
pub trait State: Default {
    /// Its name, as in the protocol's table, e.g. `AwaitOpen`.
    fn name(&self) -> &'static str;
}

/// What a protocol writes: its states, and one handler for each. All else is in [`Parts`].
///
/// A handler receives the state by value and returns the next one, so a handler that forgets its next state does not compile.
/// Whatever implements this is a [`Machine`].
pub trait Automaton {
    /// The machine's name in scripts, diagrams and traces, e.g. `spn.hub_session`.
    const NAME: &'static str;
    /// Its states.
    type State: State;
    /// Its timers.
    type Timer: Timer;
    /// What happened.
    type Event;
    /// What to do about it.
    type Action;

    /// State, timers and actions.
    fn parts(&self) -> &Parts<Self::State, Self::Timer, Self::Action>;

    /// The same, to be changed.
    fn parts_mut(&mut self) -> &mut Parts<Self::State, Self::Timer, Self::Action>;

    /// The main handler: calls the state's own handler, which returns the next state. It decides nothing itself, except for what is the
    /// same in every state.
    fn on_event(&mut self, now: Instant, state: Self::State, event: Self::Event) -> Self::State;

    /// A timer has fired; it is disarmed already.
    fn on_timeout(&mut self, now: Instant, state: Self::State, timer: Self::Timer) -> Self::State;
}

/// What every machine owns.
#[derive(Debug, Clone)]
pub struct Parts<S, T, A> {
    state: S,
    /// The machine's deadlines.
    pub timers: Timers<T>,
    actions: Actions<A>,
    ignored: u64,
}

impl<S: State, T: Timer, A> Parts<S, T, A> {
    /// Those of a machine in its first state.
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { state, timers: Timers::default(), actions: Actions::default(), ignored: 0 }
    }

    /// The present state; inside a handler, which owns it, the default one.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Asks for something. See [`Actions`] for how much one event may ask for.
    pub fn act(&mut self, action: A) {
        self.actions.push(action);
    }

    /// An event that this state does not take: it is counted, and the state stays.
    pub fn ignore(&mut self, state: S) -> S {
        self.count_ignored();
        state
    }

    /// Counts an event that is ignored in part.
    pub fn count_ignored(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }

    /// How many events were ignored.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// State and armed timers as text: what [`Describe::fingerprint`](super::Describe::fingerprint) says of a machine that has no other data.
    #[must_use]
    pub fn fingerprint(&self) -> String
    where
        S: std::fmt::Debug,
    {
        format!("{:?} {:?}", self.state, self.timers.armed().collect::<Vec<_>>())
    }
}

/// A view of a machine for logs and tools.
pub trait Inspect: Machine {
    /// The machine's name, e.g. `spn.hub_session`.
    const NAME: &'static str;

    /// The state's name, as in the protocol's table, e.g. `AwaitOpen`.
    fn state(&self) -> &'static str;

    /// The timer that [`Machine::poll_timeout`] speaks of, in snake case.
    fn due(&self) -> Option<&'static str>;

    /// Whether the machine asked for more between two drains than there is room for; see [`Actions`].
    fn is_overrun(&self) -> bool;
}

impl<M: Automaton> Inspect for M {
    const NAME: &'static str = M::NAME;

    fn state(&self) -> &'static str {
        self.parts().state.name()
    }

    fn due(&self) -> Option<&'static str> {
        self.parts().timers.next().map(|(_, timer)| timer.name())
    }

    fn is_overrun(&self) -> bool {
        self.parts().actions.is_overrun()
    }
}

impl<M: Automaton> Machine for M {
    type Event = M::Event;
    type Action = M::Action;

    fn handle_event(&mut self, now: Instant, event: M::Event) {
        step(self, |machine, state| machine.on_event(now, state, event));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(timer) = self.parts_mut().timers.expire(now) {
            step(self, |machine, state| machine.on_timeout(now, state, timer));
        }
    }

    fn poll_action(&mut self) -> Option<M::Action> {
        self.parts_mut().actions.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.parts().timers.next().map(|(at, _)| at)
    }
}

/// One transition.
fn step<M: Automaton>(machine: &mut M, handle: impl FnOnce(&mut M, M::State) -> M::State) {
    let state = std::mem::take(&mut machine.parts_mut().state);
    // Only a trace reads the names, and each event comes by here.
    let from = tracing::enabled!(tracing::Level::TRACE).then(|| state.name());
    let state = handle(machine, state);
    if let Some(from) = from
        && from != state.name()
    {
        tracing::trace!(machine = M::NAME, from, to = state.name());
    }
    machine.parts_mut().state = state;
}
