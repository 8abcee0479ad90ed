//! The fields of frames: varints (RFC 9000 §16), strings, ids, lists.

use super::{Flags, FrameError, MAX_LIST, MAX_STRING};
use crate::spn::ConnKey;

/// Takes the fields of a payload, one after the other.
pub(super) struct Reader<'a> {
    pub(super) kind: u64,
    pub(super) rest: &'a [u8],
}

impl Reader<'_> {
    pub(super) fn short(&self, field: &'static str) -> FrameError {
        FrameError::Short { kind: self.kind, field }
    }

    pub(super) fn range(&self, field: &'static str, value: u64, expected: &'static str) -> FrameError {
        FrameError::Range { kind: self.kind, field, value, expected }
    }

    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, FrameError> {
        take_varint(&mut self.rest).ok_or(self.short(field))
    }

    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        let (&byte, rest) = self.rest.split_first().ok_or(self.short(field))?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn flags(&mut self) -> Result<Flags, FrameError> {
        self.byte("flags").map(Flags)
    }

    pub(super) fn id(&mut self, field: &'static str) -> Result<[u8; 16], FrameError> {
        let (id, rest) = self.rest.split_first_chunk().ok_or(self.short(field))?;
        self.rest = rest;
        Ok(*id)
    }

    pub(super) fn instances(&mut self) -> Result<Vec<[u8; 16]>, FrameError> {
        let count = self.varint("count")?;
        if count > MAX_LIST {
            return Err(self.range("count", count, "at most 256"));
        }
        (0..count).map(|_| self.id("instance")).collect()
    }

    pub(super) fn conn(&mut self) -> Result<ConnKey, FrameError> {
        self.id("conn").map(ConnKey)
    }

    pub(super) fn weight(&mut self) -> Result<u16, FrameError> {
        let value = self.varint("weight")?;
        u16::try_from(value).map_err(|_| self.range("weight", value, "0 to 65535"))
    }

    pub(super) fn state(&mut self, most: u8, expected: &'static str) -> Result<u8, FrameError> {
        match self.byte("state")? {
            state if state <= most => Ok(state),
            state => Err(self.range("state", state.into(), expected)),
        }
    }

    /// How many entries a list has.
    pub(super) fn count(&mut self) -> Result<u64, FrameError> {
        match self.varint("count")? {
            count @ 1..=MAX_LIST => Ok(count),
            count => Err(self.range("count", count, "1 to 256")),
        }
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, FrameError> {
        let length = self.varint(field)?;
        if length > MAX_STRING as u64 {
            return Err(self.range(field, length, "at most 1024 bytes"));
        }
        let (text, rest) = self.rest.split_at_checked(length as usize).ok_or(self.short(field))?;
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| FrameError::Utf8 { kind: self.kind, field })?;
        Ok(text.to_owned())
    }
}

/// Takes a QUIC varint (RFC 9000 §16), shortest form or not; `None` when it is cut.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (value, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    Some(value.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

/// Appends a QUIC varint in its shortest form; `value` is below 2^62.
pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value < 1 << 62, "a QUIC varint has 62 bits");
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a string, cut at a character boundary when it is over [`MAX_STRING`].
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_STRING)];
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
