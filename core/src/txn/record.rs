//! What a proxy writes down: the outcome of each lookup, and the end of each transaction (docs/protocols/txn.md, Log).

use std::{fmt, time::Instant};

use bytes::Bytes;
use serde::Serialize;
use time::macros::format_description;

use super::transaction::Outcome;
use crate::epoch::Epoch;

/// The first line of a log in the form of the original, and the empty line after it.
pub const COMPAT_HEADER: &str = "timestamp filename servername caching_status\n\n";

/// The outcome of one lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// When.
    pub at: Instant,
    /// The file.
    pub file: Bytes,
    /// Its server.
    pub server: Bytes,
    /// Whether the cache had it.
    pub hit: bool,
}

impl Lookup {
    /// The entry in the form of the original: `YYYYMMDD.HHhMMmSSs file server 1`, a space, and an empty line. Times are UTC. A byte that is no
    /// printable ASCII, or a backslash, is written `\xNN`, so that a name cannot forge an entry.
    #[must_use]
    pub fn compat(&self, epoch: Epoch) -> String {
        let form = format_description!("[year][month][day].[hour]h[minute]m[second]s");
        let stamp = epoch.date_at(self.at).format(form).unwrap_or_default();
        format!("{stamp} {} {} {} \n\n", Escaped(&self.file), Escaped(&self.server), u8::from(self.hit))
    }
}

/// One transaction, when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it ended.
    pub at: Instant,
    /// The file, if a head was read.
    pub file: Bytes,
    /// Its server, if a head was read.
    pub server: Bytes,
    /// Whether the cache had it at the first look.
    pub hit: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes that the client was given.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    file: String,
    server: String,
    hit: bool,
    outcome: &'a str,
    bytes: u64,
    ms: u64,
}

impl Record {
    /// One JSON object, without a line break: `at` (RFC 3339, milliseconds, UTC), `file`, `server`, `hit`, `outcome`, `bytes`, `ms`. Bytes of
    /// names that are no printable ASCII are written `\xNN`.
    #[must_use]
    pub fn json(&self, epoch: Epoch) -> String {
        let line = Line {
            at: epoch.rfc3339_at(self.at),
            file: Escaped(&self.file).to_string(),
            server: Escaped(&self.server).to_string(),
            hit: self.hit,
            outcome: self.outcome.name(),
            bytes: self.bytes,
            ms: self.ms,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// Bytes as text on one line.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b' '..=b'~' if byte != b'\\' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn entries() {
        let at = first_instant();
        let epoch = Epoch { instant: at, unix: Duration::from_millis(1_764_034_565_123) };
        let (file, server) = (Bytes::from_static(b"a\n\xff"), Bytes::from_static(b"s.test"));
        let lookup = Lookup { at, file: file.clone(), server: server.clone(), hit: true };
        assert_eq!(lookup.compat(epoch), "20251125.01h36m05s a\\x0A\\xFF s.test 1 \n\n");
        let outcome = Outcome::Served { hit: true, bytes: 19 };
        let record = Record { at, file, server, hit: true, outcome, bytes: 19, ms: 3 };
        assert_eq!(
            record.json(epoch),
            r#"{"at":"2025-11-25T01:36:05.123Z","file":"a\\x0A\\xFF","server":"s.test","hit":true,"outcome":"served","bytes":19,"ms":3}"#
        );
    }
}
