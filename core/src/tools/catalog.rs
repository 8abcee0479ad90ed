//! Every machine by its name, for tools.

use std::{ops::ControlFlow, time::Instant};

use super::{
    explore::{self, Bounds, Exploration, Violation},
    script,
};
use crate::machine::Describe;
#[cfg(feature = "pipe")]
use crate::pipe;
#[cfg(feature = "spn")]
use crate::spn;
#[cfg(feature = "tls")]
use crate::tls;
#[cfg(feature = "txn")]
use crate::txn;

/// A machine, without its type.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name, e.g. `spn.hub_session`.
    pub name: &'static str,
    /// One line: what it is.
    pub about: &'static str,
    run: fn(script::Settings<'_>, &mut Lines<'_>, &mut Out<'_>) -> Result<(), script::Error>,
    explore: fn(Instant, Bounds) -> Result<Exploration, Violation>,
    #[cfg(feature = "fuzzing")]
    fuzz: fn(&[u8]),
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
            #[cfg(feature = "fuzzing")]
            fuzz: super::walk::walk::<M>,
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

#[cfg(feature = "fuzzing")]
impl Entry {
    /// A life of a new machine, from any bytes.
    pub(crate) fn fuzz(&self, steps: &[u8]) {
        (self.fuzz)(steps);
    }
}

/// All machines of Towline that are compiled in.
#[must_use]
pub fn catalog() -> Vec<Entry> {
    vec![
        #[cfg(feature = "spn")]
        Entry::of::<spn::hub::machines::instance::Instance>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::hub::machines::session::HubSession>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::hub::machines::connection::HubConnection>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::hub::machines::pairing::Pairing>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::hub::machines::managed::ManagedProvider>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::endpoint::machines::session::Session>(),
        #[cfg(feature = "spn")]
        Entry::of::<spn::endpoint::machines::connection::Connection>(),
        #[cfg(feature = "tls")]
        Entry::of::<tls::connection::Connection>(),
        #[cfg(feature = "txn")]
        Entry::of::<txn::accept::Accept>(),
        #[cfg(feature = "txn")]
        Entry::of::<txn::transaction::Transaction>(),
        #[cfg(feature = "pipe")]
        Entry::of::<pipe::session::Session>(),
        #[cfg(feature = "pipe")]
        Entry::of::<pipe::caller::Caller>(),
        #[cfg(feature = "pipe")]
        Entry::of::<pipe::callee::Callee>(),
        #[cfg(feature = "pipe")]
        Entry::of::<pipe::receiver::Receiver>(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::machine::example::Redial;

    #[test]
    fn an_entry_does_what_its_machine_does() {
        let start = crate::testing::first_instant();
        let entry = Entry::of::<Redial>();
        assert_eq!((entry.name, entry.about), ("example.redial", "keeps one connection up"));
        let found = entry.explore(start, Bounds::default()).unwrap();
        assert_eq!(found, explore::explore::<Redial>(start, Bounds::default()).unwrap());
        let mut output = Vec::new();
        let settings = script::Settings { start, config: None, seed: 0, states: false };
        let lines = [br#"{"at_ms": 4, "event": "open"}"#.to_vec()];
        let mut out = |line: &str| {
            output.push(line.to_owned());
            ControlFlow::Continue(())
        };
        entry.run(settings, &mut lines.into_iter(), &mut out).unwrap();
        assert_eq!(output, [r#"{"at_ms":4,"action":{"dial":{"attempt":1}}}"#]);
    }

    #[test]
    fn names_are_unique_and_stand_in_one_line_with_what_they_are() {
        let machines = catalog();
        assert_eq!(machines.iter().map(|entry| entry.name).collect::<BTreeSet<_>>().len(), machines.len());
        for Entry { name, about, .. } in machines {
            assert!(!about.is_empty() && !format!("{name}{about}").contains(['\t', '\n']), "{name}: {about:?}");
        }
    }
}
