//! The pattern: every protocol of Towline is a [`Machine`].
//!
//! Events go in, actions come out; time is an argument. See [`Machine`] for the contract.

mod actions;
mod deadlines;
mod timers;

use std::time::Instant;

use serde::{Serialize, de::DeserializeOwned};

pub use actions::Actions;
pub use deadlines::{Armed, Deadlines};
pub use timers::{Timer, Timers};

/// A protocol, as a pure state machine.
///
/// # Contract
///
/// 1. After each `handle_*` call, call [`poll_action`](Self::poll_action) until it returns `None`: then the machine is *drained*.
/// 2. Then ask [`poll_timeout`](Self::poll_timeout). Its answer changes only in `handle_*` calls.
/// 3. Call [`handle_timeout`](Self::handle_timeout) at that instant or later. An early call does nothing.
///
/// `now` may repeat; if it goes backwards, timers fire late, and nothing else happens.
pub trait Machine {
    /// What happened.
    type Event;
    /// What to do about it.
    type Action;

    /// The main handler: looks at the state and calls that state's handler.
    fn handle_event(&mut self, now: Instant, event: Self::Event);

    /// Fires the timers that are due at `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing to do, until there is none.
    #[must_use]
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;
}

/// What tools need of a machine: a name, a script form, and a view of its state.
///
/// Events and actions are `serde` enums in snake case, externally tagged: a name without payload is a string, any other an object with one key.
pub trait Describe: Machine<Event: Serialize + DeserializeOwned + Clone, Action: Serialize> + Clone {
    /// Its name in scripts and diagrams, e.g. `spn.hub_session`.
    const NAME: &'static str;
    /// One line: what it is.
    const ABOUT: &'static str;
    /// Its limits and times; `Default` is what ships.
    type Config: DeserializeOwned + Default;

    /// A machine in its first state. `seed` feeds its randomness, if it has any.
    fn start(config: Self::Config, seed: u64) -> Self;

    /// The state's name, as in the protocol's table, e.g. `AwaitOpen`.
    fn state(&self) -> &'static str;

    /// The timer that [`Machine::poll_timeout`] speaks of, in snake case.
    fn due(&self) -> Option<&'static str>;

    /// Everything that decides what the machine will do next, without absolute times: equal fingerprints behave alike.
    /// Counters that only bounds look at are abstracted (0, 1, many).
    fn fingerprint(&self) -> String;

    /// One event per case that the machine distinguishes: the alphabet of the explorer.
    fn alphabet() -> Vec<Self::Event>;

    /// What must hold in every reachable state.
    ///
    /// # Errors
    /// Says which invariant is broken.
    fn check(&self) -> Result<(), String>;
}
