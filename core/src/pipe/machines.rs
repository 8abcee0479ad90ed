//! What Pipe RPC decides: sessions, the two ends of a pipe, and what becomes of blocks that come.
//!
//! No machine holds payload: an event says what came or what is wanted, and the binding has the message itself at hand while it drains.

pub mod callee;
pub mod caller;
pub mod end;
pub mod receiver;
pub mod session;

#[cfg(test)]
mod play {
    //! Plays events to a machine, and shows what it does.

    use std::{
        fmt::Debug,
        time::{Duration, Instant},
    };

    use crate::{machine::Describe, testing::first_instant};

    pub(super) struct Play<M> {
        pub(super) machine: M,
        pub(super) now: Instant,
    }

    impl<M: Describe<Action: Debug + PartialEq>> Play<M> {
        /// A machine after these events.
        pub(super) fn new(config: M::Config, way: &[M::Event]) -> Self {
            let mut play = Self { machine: M::start(config, 0), now: first_instant() };
            for event in way {
                play.on(event.clone());
            }
            play
        }

        /// What it asks for on an event.
        pub(super) fn on(&mut self, event: M::Event) -> Vec<M::Action> {
            self.machine.handle_event(self.now, event);
            self.drain()
        }

        /// What it asks for after a time.
        pub(super) fn wait(&mut self, time: Duration) -> Vec<M::Action> {
            self.now += time;
            self.machine.handle_timeout(self.now);
            self.drain()
        }

        /// One row: on this event it goes to that state, and asks for exactly these actions.
        #[track_caller]
        pub(super) fn expect(&mut self, event: M::Event, state: &str, actions: &[M::Action]) {
            let done = self.on(event);
            assert_eq!((self.machine.state(), &*done), (state, actions));
        }

        fn drain(&mut self) -> Vec<M::Action> {
            let actions = std::iter::from_fn(|| self.machine.poll_action()).collect();
            assert_eq!(self.machine.check(), Ok(()));
            actions
        }
    }
}
