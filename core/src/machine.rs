//! The pattern: every protocol of Towline is a [`Machine`].
//!
//! Events go in, actions come out; time is an argument. A machine does no I/O, reads no clock and draws no random number, so a test,
//! a script, an explorer or a real network can drive it alike. See [`Machine`] for the contract.
//!
//! # What is here
//!
//! - [`Machine`], what a host drives, and [`Automaton`], what a protocol writes: its states and their handlers.
//! - [`Parts`], what each machine is built of: its state, [`Timers`], a table of deadlines indexed by an enum, and [`Actions`], a bounded queue.
//! - [`Hosted`] and [`Deadlines`], for whoever owns many machines.
//! - [`Jitter`], for times that should differ from one to the next.
//! - [`Describe`], for [tools](crate::tools).
//!
//! # A complete machine
//!
//! All machines read in this order: what it is for, `Config`, `State`, `Event`, `Action`, `Timer`, the machine, its handlers, its
//! description. An event that a state cannot take is named and ignored there, never swallowed by a `_ =>`.
//!
//! ```
#![doc = include_str!("machine/example.rs")]
//!
//! // Any host drives it in the same three steps: hand in, drain, ask for the deadline.
//! use towline_core::machine::Machine;
//! let start = towline_core::testing::first_instant(); // a real host's clock: `Instant::now()`
//! let mut redial = Redial::start(Config::default(), 0);
//!
//! redial.handle_event(start, Event::Open);
//! assert_eq!(redial.poll_action(), Some(Action::Dial { attempt: 1 }));
//! assert_eq!(redial.poll_action(), None);
//! assert_eq!(redial.poll_timeout(), Some(start + Duration::from_secs(5)));
//!
//! // Nobody answers within 5 s: it hangs up, pauses for 1 s, and dials again.
//! redial.handle_timeout(start + Duration::from_secs(5));
//! assert_eq!(redial.poll_action(), Some(Action::HangUp));
//! assert_eq!(redial.poll_action(), None);
//! assert_eq!(redial.poll_timeout(), Some(start + Duration::from_secs(6)));
//!
//! redial.handle_timeout(start + Duration::from_secs(6));
//! assert_eq!(redial.poll_action(), Some(Action::Dial { attempt: 2 }));
//! ```

mod actions;
mod automaton;
mod deadlines;
#[doc(hidden)]
pub mod example;
mod hosted;
mod jitter;
pub mod ms;
pub mod text;
mod timers;

use std::time::Instant;

use serde::{Serialize, de::DeserializeOwned};

pub use actions::Actions;
pub use automaton::{Automaton, Inspect, Parts, State};
pub use deadlines::{Armed, Deadlines};
pub use hosted::Hosted;
pub use jitter::Jitter;
pub use timers::{Timer, Timers, later};

/// A protocol, as a pure state machine.
///
/// # Contract
///
/// 1. After each `handle_*` call, call [`poll_action`](Self::poll_action) until it returns `None`: then the machine is *drained*.
/// 2. Then ask [`poll_timeout`](Self::poll_timeout). Its answer changes only in `handle_*` calls.
/// 3. Call [`handle_timeout`](Self::handle_timeout) at that instant or later. An early call does nothing.
///    If several timers are due, one fires a call: drain, ask again, and call again at once.
///
/// `now` may repeat; if it goes backwards, timers fire late, and nothing else happens.
pub trait Machine {
    /// What happened.
    type Event;
    /// What to do about it.
    type Action;

    /// The main handler: looks at the state and calls that state's handler.
    fn handle_event(&mut self, now: Instant, event: Self::Event);

    /// Fires the timer that is due at `now`: one a call, the earliest first.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing to do, until there is none.
    #[must_use]
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;
}

/// What tools need of a machine: how it starts, what can happen to it, and what must hold.
///
/// Events and actions are `serde` enums in snake case, externally tagged: a name without payload is a string, any other an object with one key.
pub trait Describe: Inspect<Event: Serialize + DeserializeOwned + Clone, Action: Serialize> + Clone {
    /// One line: what it is.
    const ABOUT: &'static str;
    /// Its limits and times; `Default` is what ships.
    type Config: DeserializeOwned + Default;

    /// A machine in its first state. `seed` feeds its randomness, if it has any.
    fn start(config: Self::Config, seed: u64) -> Self;

    /// The configuration with which the explorer walks: bounds so small that all are reached.
    #[must_use]
    fn small() -> Self::Config {
        Self::Config::default()
    }

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
