//! Messages and values as JSON, for people, scripts and tests (docs/protocols/pipe.md, JSON).
//!
//! A message is an object with a `type`; a value is an object with its type `t`. All bytes are hex digits, 64-bit integers are decimal text and
//! floats are their bits, so nothing is lost on the way through a JSON library.
//!
//! ```
//! use towline_core::pipe::{json, message::Message};
//!
//! let line = r#"{"type":"open","pipe_id":1,"priority":0,"function_id":10,"params":[{"t":"str","v":"towline"}]}"#;
//! let message: Message = json::from_line(line)?;
//! assert_eq!(json::to_line(&message), line);
//! # Ok::<(), json::Error>(())
//! ```

mod message;
mod value;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::message::Message;
use crate::machine;

/// How deep brackets are nested in a line, at most: some more than values of any depth that a codec takes by default need.
const MAX_BRACKETS: usize = 256;

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // Which line it is, the caller knows; where in it, not every error does.
        let why = text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why);
        Self(if error.column() == 0 { why.to_owned() } else { format!("{why}, at column {}", error.column()) })
    }
}

/// Writes a message; the line has no end of its own.
#[must_use]
pub fn to_line(message: &Message) -> String {
    // It has no map with keys other than strings, and writes into memory.
    serde_json::to_string(message).unwrap_or_default()
}

/// Reads a message.
///
/// # Errors
/// When the line is not exactly one message.
pub fn from_line(line: &str) -> Result<Message, Error> {
    if let Some(column) = too_deep(line) {
        return Err(Error(format!("brackets are nested deeper than {MAX_BRACKETS}, at column {column}")));
    }
    let mut json = serde_json::Deserializer::from_str(line);
    // The limit of serde_json is less than values of 64 levels need; ours has been seen to.
    json.disable_recursion_limit();
    let message = Message::deserialize(&mut json)?;
    json.end()?;
    Ok(message)
}

/// The column of the first bracket that is nested too deep, if there is one.
fn too_deep(line: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    line.bytes()
        .position(|byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > MAX_BRACKETS
        })
        .map(|place| place + 1)
}

/// Bytes as hex digits.
struct Hex(Bytes);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&machine::text::to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bytes = machine::text::from_hex(&digits);
        bytes.map(|bytes| Self(bytes.into())).ok_or_else(|| D::Error::custom("expected pairs of hex digits"))
    }
}

#[cfg(test)]
mod tests;
