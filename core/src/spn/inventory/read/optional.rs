//! Members that a record can be without. One that cannot be read is never silent: a warning says what is assumed in its place.
//!
//! Mostly that is what an absent one means. Where that would open what was to be shut, the safe value is assumed instead: whoever writes
//! such a member means to change the default, and whoever changes it back finds everything as it was.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Reader, Record, found};

/// Whether a realm's record says that it is off, in whatever words; then nothing below it need be asked for.
///
/// What cannot be read counts as yes, as it does for [`read`](super::read).
#[must_use]
pub fn says_disabled(realm: &Value) -> bool {
    Flag::read(realm.get("disabled")).or(true)
}

/// What a member that is to be true or false amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Absent,
    Plain(bool),
    /// Not `true` or `false`, but clear.
    Spelt(bool),
    /// An empty text, as templates leave it.
    Empty,
    Unreadable,
}

impl Flag {
    fn read(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Absent,
            Some(Value::Bool(flag)) => Self::Plain(*flag),
            Some(Value::Number(number)) => match number.as_u64() {
                Some(0) => Self::Spelt(false),
                Some(1) => Self::Spelt(true),
                Some(_) | None => Self::Unreadable,
            },
            // YAML 1.1 had all of these; YAML 1.2 makes texts of them.
            Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "" => Self::Empty,
                "true" | "yes" | "on" | "y" | "1" => Self::Spelt(true),
                "false" | "no" | "off" | "n" | "0" => Self::Spelt(false),
                _ => Self::Unreadable,
            },
            Some(Value::Array(_) | Value::Object(_)) => Self::Unreadable,
        }
    }

    fn or(self, unreadable: bool) -> bool {
        match self {
            Self::Plain(flag) | Self::Spelt(flag) => flag,
            Self::Absent | Self::Empty => false,
            Self::Unreadable => unreadable,
        }
    }
}

impl Reader<'_> {
    /// Says that a member is not what it should be, and what is assumed.
    pub(super) fn assume(&mut self, record: &Record<'_>, member: &str, expected: &str, assumed: &str) {
        let found = found(record.members.get(member));
        self.warning(format!("{}.{member}", record.path), format!("{found}: expected {expected}; {assumed}"));
    }

    /// A text. An empty one is as good as none.
    pub(super) fn optional_text(&mut self, record: &Record<'_>, member: &str, assumed: &str) -> Option<String> {
        match record.members.get(member) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                self.assume(record, member, "a string", assumed);
                None
            }
        }
    }

    /// A whole number that somebody has put in quotes.
    pub(super) fn quoted(&mut self, record: &Record<'_>, member: &str) -> Option<u64> {
        let number = record.members.get(member)?.as_str()?.trim().parse().ok()?;
        self.warning(format!("{}.{member}", record.path), format!("in quotes: read as the number {number}"));
        Some(number)
    }

    /// True, false, or not said.
    pub(super) fn flag(&mut self, record: &Record<'_>, member: &str, unreadable: bool, why: &str) -> Option<bool> {
        let read = Flag::read(record.members.get(member));
        let path = || format!("{}.{member}", record.path);
        match read {
            Flag::Absent => return None,
            Flag::Plain(_) => {}
            Flag::Spelt(flag) => {
                let found = found(record.members.get(member));
                self.warning(path(), format!("{found}: expected true or false; read as {flag}"));
            }
            Flag::Empty => {
                self.warning(path(), "empty: expected true or false; taken as absent");
                return None;
            }
            Flag::Unreadable => self.assume(record, member, "true or false", why),
        }
        Some(read.or(unreadable))
    }

    /// A realm that was perhaps to be off must not run: it is off until its record can be read.
    pub(super) fn is_disabled(&mut self, record: &Record<'_>) -> bool {
        let why = "taken as true: THE REALM IS OFF until this can be read";
        self.flag(record, "disabled", true, why).unwrap_or(false)
    }

    /// Two providers at once may spoil what a singleton guards; one that waits harms nobody.
    pub(super) fn is_singleton(&mut self, record: &Record<'_>) -> bool {
        let why = "taken as true: a second provider is refused until this can be read";
        self.flag(record, "singleton", true, why).unwrap_or(false)
    }

    /// The inventories that are about hold texts that are no time, for realms that are to run. So what cannot be read ends nothing.
    pub(super) fn is_expired(&mut self, record: &Record<'_>) -> bool {
        let assumed = "THE REALM IS TAKEN AS NOT EXPIRED and stays on; `disabled: true` turns it off";
        match record.members.get("expiredAt") {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) if text.trim().is_empty() => false,
            Some(value) => match value.as_str().and_then(moment) {
                Some(at) if at.unix_timestamp() <= self.now.as_secs() as i64 => {
                    let text = value.as_str().unwrap_or_default();
                    self.warning(format!("{}.expiredAt", record.path), format!("{text} is past: the realm is off"));
                    true
                }
                Some(_) => false,
                None => {
                    self.assume(record, "expiredAt", "a time like 2027-01-31T00:00:00Z", assumed);
                    false
                }
            },
        }
    }
}

/// A time as RFC 3339 or YAML writes it: a date alone is its midnight, and without an offset it is UTC.
fn moment(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, clock.trim()),
        None => (text, "00:00:00"),
    };
    let has_offset = clock.ends_with(['Z', 'z']) || clock.contains(['+', '-']);
    let offset = if has_offset { "" } else { "Z" };
    OffsetDateTime::parse(&format!("{date}T{clock}{offset}"), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let day = Some(1_801_353_600);
        for (text, expected) in [
            ("2027-01-31T00:00:00Z", day),
            ("2027-01-31", day),
            (" 2027-01-31 00:00:00 ", day),
            ("2027-01-31t02:00:00+02:00", day),
            ("2027-01-30 22:30:00.5-01:30", day),
            ("2027-01-32", None),
            ("31.1.2027", None),
            ("string", None),
            ("2027", None),
            ("", None),
        ] {
            assert_eq!(moment(text).map(|at| at.unix_timestamp()), expected, "{text:?}");
        }
    }

    #[test]
    fn flags_as_people_write_them() {
        for (value, expected) in [
            (json!(true), true),
            (json!("Yes"), true),
            (json!(" on"), true),
            (json!(1), true),
            (json!("maybe"), true),
            (json!(2), true),
            (json!([]), true),
            (json!(false), false),
            (json!("no"), false),
            (json!("FALSE"), false),
            (json!(0), false),
            (json!(""), false),
            (json!(null), false),
        ] {
            assert_eq!(says_disabled(&json!({"disabled": value.clone()})), expected, "{value}");
        }
        assert!(!says_disabled(&json!({})));
    }
}
