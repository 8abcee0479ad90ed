//! Bytes in scripts: a JSON string when they are UTF-8 text, else `{"hex": "…"}`; both are read.
//!
//! Use with `#[serde(with = "machine::text")] bytes: Bytes`.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(std::borrow::Cow<'a, str>),
    Hex { hex: String },
}

/// Writes text where it can.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Form::Text(text.into()),
        Err(_) => Form::Hex { hex: to_hex(bytes) },
    }
    .serialize(serializer)
}

/// Reads either form.
///
/// # Errors
/// The deserializer's; an odd number of hex digits, or other characters among them.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    match Form::deserialize(deserializer)? {
        Form::Text(text) => Ok(text.into_owned().into_bytes().into()),
        Form::Hex { hex } => from_hex(&hex)
            .ok_or_else(|| D::Error::custom(format!("expected pairs of hex digits, found {hex:?}")))
            .map(Bytes::from),
    }
}

/// Two digits a byte, small letters.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// None if their number is odd, or another character is among them.
pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        #[serde(with = "super")]
        bytes: Bytes,
    }

    #[test]
    fn both_forms_are_read_and_the_shorter_is_written() {
        for (json, bytes, written) in [
            (r#"{"bytes":"a\r\n"}"#, &b"a\r\n"[..], r#"{"bytes":"a\r\n"}"#),
            (r#"{"bytes":{"hex":"6142"}}"#, b"aB", r#"{"bytes":"aB"}"#),
            (r#"{"bytes":{"hex":"Ff00"}}"#, b"\xff\0", r#"{"bytes":{"hex":"ff00"}}"#),
        ] {
            let line: Line = serde_json::from_str(json).unwrap();
            assert_eq!(line.bytes, bytes);
            assert_eq!(serde_json::to_string(&line).unwrap(), written);
        }
        for json in [r#"{"bytes":{"hex":"abc"}}"#, r#"{"bytes":{"hex":"zz"}}"#] {
            assert!(serde_json::from_str::<Line>(json).unwrap_err().to_string().contains("pairs of hex digits"));
        }
    }
}
