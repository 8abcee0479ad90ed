//! Every machine by its name, for tools.

use std::{ops::ControlFlow, time::Instant};

use super::{
    Describe,
    explore::{self, Bounds, Exploration, Violation},
    script,
};

/// A machine, without its type.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name, e.g. `spn.hub_session`.
    pub name: &'static str,
    /// One line: what it is.
    pub about: &'static str,
    run: fn(script::Settings<'_>, &mut Lines<'_>, &mut Out<'_>) -> Result<(), script::Error>,
    explore: fn(Instant, Bounds) -> Result<Exploration, Violation>,
}

type Lines<'a> = dyn Iterator<Item = Vec<u8>> + 'a;
type Out<'a> = dyn FnMut(&str) -> ControlFlow<()> + 'a;

impl Entry {
    /// The entry of `M`.
    #[must_use]
    pub const fn of<M: Describe>() -> Self {
        Self {
            name: M::NAME,
            about: M::ABOUT,
            run: |settings, lines, out| script::run::<M>(settings, lines, out),
            explore: explore::explore::<M>,
        }
    }

    /// Runs a new machine from a script; see [`script::run`].
    ///
    /// # Errors
    /// On the first line that cannot be read.
    pub fn run(
        &self,
        settings: script::Settings<'_>,
        lines: &mut Lines<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), script::Error> {
        (self.run)(settings, lines, out)
    }

    /// Walks the machine through everything it can do; see [`explore::explore`].
    ///
    /// # Errors
    /// When the machine does what it must not do.
    pub fn explore(&self, start: Instant, bounds: Bounds) -> Result<Exploration, Violation> {
        (self.explore)(start, bounds)
    }
}

/// All machines of Towline.
#[must_use]
pub fn catalog() -> Vec<Entry> {
    vec![]
}
