//! Records, one JSON object a line, and what else a hub has to tell.

use std::{io, path::Path};

use towline_core::spn::{hub::Notice, record::Record};
use towline_tokio::{
    hub::epoch,
    lines::{self, Lines},
};

/// Takes records and writes them.
pub(crate) struct Records(Lines<Record>);

/// A hub's way to tell.
#[derive(Clone)]
pub(crate) struct Teller(lines::Teller<Record>);

impl Records {
    /// To a file, appended; or to stdout.
    pub(crate) fn start(file: Option<&Path>) -> io::Result<Self> {
        // The clocks are read for each: the wall clock may be set at any time.
        Lines::start(file, |record: &Record| record.to_json(&epoch()) + "\n").map(Self)
    }

    pub(crate) fn teller(&self) -> Option<Teller> {
        self.0.teller().map(Teller)
    }
}

impl Teller {
    /// Tells what a hub has to tell; says whether it has ended.
    pub(crate) fn tell(&self, notice: Notice) -> bool {
        match notice {
            Notice::Record(record) => self.0.tell(record),
            Notice::Refused(refusal) => tracing::warn!("{refusal}"),
            Notice::RefusalsSuppressed { count } => tracing::warn!(count, "more refusals in this second"),
            // Not to be told but to be done, by whoever has the hub.
            Notice::Listening | Notice::ClusterStart(_) | Notice::ClusterStop(_) => {}
            Notice::Stopped => return true,
        }
        false
    }
}
