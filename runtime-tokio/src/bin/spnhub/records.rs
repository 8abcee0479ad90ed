//! Writes a hub's records, one JSON object per line, and logs its other notices.

use std::{io, path::Path, time::Instant};

use serde_json::json;
use towline_core::spn::{hub::Notice, record::Record};
use towline_tokio::{
    cli::lines::{self, Form, Lines, Trouble},
    hub::epoch,
};

/// The writer of records.
pub(crate) struct Records(Lines<Json>);

/// Reports one hub's notices.
#[derive(Clone)]
pub(crate) struct Reporter(lines::LineSender<Json>);

impl Records {
    /// Starts writing records: appended to a file, or to stdout.
    pub(crate) fn start(file: Option<&Path>) -> io::Result<Self> {
        Lines::start(file, Json).map(Self)
    }

    pub(crate) fn reporter(&self) -> Reporter {
        Reporter(self.0.sender())
    }

    /// Continues in a new file, if the old one was moved away.
    pub(crate) fn reopen(&self) {
        self.0.reopen();
    }
}

impl Reporter {
    /// Writes or logs a notice. Returns whether the hub has ended.
    pub(crate) fn report(&self, notice: Notice) -> bool {
        match notice {
            Notice::Record(record) => self.0.send(record),
            Notice::Refused(refusal) => tracing::warn!("{refusal}"),
            Notice::RefusalsSuppressed { count } => {
                tracing::warn!(count, "more refusals in this second, not logged one by one")
            }
            Notice::Stopped => return true,
            // The owner of the hub handles the other notices.
            _ => {}
        }
        false
    }
}

/// The form of docs/protocols/spn.md, Records, REC-1. The clocks are read for each record: the wall clock may be set at any time.
pub(crate) struct Json;

impl Form for Json {
    type Item = Record;
    const ROOM: usize = 100_000;

    fn text(&mut self, record: &Record) -> String {
        record.to_json(&epoch()) + "\n"
    }

    fn gap(&mut self, lost: u64) -> String {
        let timestamp = epoch().rfc3339_at(Instant::now());
        format!("{}\n", json!({"timestamp": timestamp, "eventType": "lostRecords", "lostRecordCount": lost}))
    }

    fn trouble(&mut self, trouble: Trouble<'_>) {
        match trouble {
            Trouble::Write(error) => {
                tracing::error!(%error, "cannot write records; records are lost until writing succeeds again")
            }
            Trouble::Reopen(error) => {
                tracing::error!(%error, "cannot reopen the file of records; still writing to the old file")
            }
            Trouble::Lost(count) => tracing::error!(count, "records were lost; a record `lostRecords` marks the gap"),
        }
    }

    fn unwritten() {
        tracing::error!("the last records were not written: their reader has stalled or gone");
    }
}
