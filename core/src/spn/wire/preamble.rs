//! The first bytes of a data stream of `sc02` (docs/protocols/spn.md, Data streams, DAT-1 to DAT-3).

use bytes::{Buf, Bytes};

use crate::spn::{ConnKey, Tag, wire::frame::Flags};

/// Length of a CONNECT preamble, in bytes.
pub const CONNECT_LEN: usize = 18;
/// Length of a RESUME preamble, in bytes.
pub const RESUME_LEN: usize = 38;

/// Length of what goes before it when a hub says whose connection it is, in bytes.
pub const OWNER_LEN: usize = 17;

const CONNECT: u8 = 1;
const RESUME: u8 = 2;
const OWNER: u8 = 3;

/// What a data stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preamble {
    /// A new connection.
    Connect {
        /// The connection.
        conn: ConnKey,
        /// Bit 0: resumable.
        flags: Flags,
    },
    /// The next leg of a paused connection.
    Resume {
        /// The connection.
        conn: ConnKey,
        /// Bits 0 and 1 of RESUME_REQ.
        flags: Flags,
        /// Number of this leg.
        generation: u32,
        /// Offset of the first payload byte that follows.
        offset: u64,
        /// Payload bytes the sender's application has accepted.
        received: u64,
    },
}

/// The first byte of a data stream is no kind that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("data stream begins with kind {kind}, expected 1 (CONNECT) or 2 (RESUME)")]
pub struct UnknownKind {
    /// What came.
    pub kind: u8,
}

impl Preamble {
    /// The connection it speaks of.
    #[must_use]
    pub fn conn(&self) -> ConnKey {
        match self {
            Self::Connect { conn, .. } | Self::Resume { conn, .. } => *conn,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(RESUME_LEN);
        match self {
            Self::Connect { conn, flags } => {
                out.push(CONNECT);
                out.extend_from_slice(&conn.0);
                out.push(flags.0);
            }
            Self::Resume { conn, flags, generation, offset, received } => {
                out.push(RESUME);
                out.extend_from_slice(&conn.0);
                out.push(flags.0);
                out.extend_from_slice(&generation.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&received.to_be_bytes());
            }
        }
        out.into()
    }

    /// Its bytes for a provider that is to know the owner.
    #[must_use]
    pub fn to_bytes_of(&self, owner: Tag) -> Bytes {
        [&[OWNER][..], &owner.0, &self.to_bytes()].concat().into()
    }

    fn read(mut bytes: &[u8]) -> Result<Option<Self>, UnknownKind> {
        let Some(&kind) = bytes.first() else { return Ok(None) };
        let length = match kind {
            CONNECT => CONNECT_LEN,
            RESUME => RESUME_LEN,
            kind => return Err(UnknownKind { kind }),
        };
        if bytes.len() < length {
            return Ok(None);
        }
        bytes.advance(1);
        let mut conn = ConnKey([0; 16]);
        bytes.copy_to_slice(&mut conn.0);
        let flags = Flags(bytes.get_u8());
        Ok(Some(if kind == CONNECT {
            Self::Connect { conn, flags }
        } else {
            Self::Resume {
                conn,
                flags,
                generation: bytes.get_u32(),
                offset: bytes.get_u64(),
                received: bytes.get_u64(),
            }
        }))
    }
}

/// Collects a preamble that may come in pieces, and nothing behind it.
#[derive(Debug, Clone)]
pub struct Collector {
    bytes: [u8; RESUME_LEN],
    filled: usize,
    owner: Owner,
}

/// Whether a preamble may say whose connection it is, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Forbidden,
    Allowed,
    Said(Tag),
}

impl Default for Collector {
    fn default() -> Self {
        Self { bytes: [0; RESUME_LEN], filled: 0, owner: Owner::Forbidden }
    }
}

impl Collector {
    /// Of a stream that a hub has opened: only a hub may say whose connection it is.
    #[must_use]
    pub fn of_hub() -> Self {
        Self { owner: Owner::Allowed, ..Self::default() }
    }

    /// Whose connection it is, if the preamble has said so.
    #[must_use]
    pub fn owner(&self) -> Option<Tag> {
        match self.owner {
            Owner::Said(tag) => Some(tag),
            Owner::Forbidden | Owner::Allowed => None,
        }
    }

    /// Takes from the front of `chunk` what belongs to the preamble; payload stays in it, uncopied.
    ///
    /// # Errors
    /// The kind is unknown: reset the stream with 0x10.
    pub fn take(&mut self, chunk: &mut Bytes) -> Result<Option<Preamble>, UnknownKind> {
        loop {
            let so_far = self.bytes.get(..self.filled).unwrap_or_default();
            let says_owner = self.owner == Owner::Allowed && so_far.first() == Some(&OWNER);
            if says_owner {
                if let Some((tag, [])) = so_far.get(1..).unwrap_or_default().split_first_chunk() {
                    (self.owner, self.filled) = (Owner::Said(Tag(*tag)), 0);
                    continue;
                }
            } else if let Some(preamble) = Preamble::read(so_far)? {
                return Ok(Some(preamble));
            }
            let wanted = match so_far.first() {
                None => 1,
                Some(_) if says_owner => OWNER_LEN,
                Some(&CONNECT) => CONNECT_LEN,
                Some(_) => RESUME_LEN,
            };
            let length = (wanted - self.filled).min(chunk.len());
            if length == 0 {
                return Ok(None);
            }
            let piece = chunk.split_to(length);
            if let Some(target) = self.bytes.get_mut(self.filled..self.filled + length) {
                target.copy_from_slice(&piece);
            }
            self.filled += length;
        }
    }

    /// Whether nothing has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0 && self.owner().is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn preambles() -> impl Strategy<Value = Preamble> {
        prop_oneof![
            (any::<[u8; 16]>(), any::<u8>().prop_map(Flags))
                .prop_map(|(conn, flags)| Preamble::Connect { conn: ConnKey(conn), flags }),
            (any::<[u8; 16]>(), any::<u8>().prop_map(Flags), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
                |(conn, flags, generation, offset, received)| Preamble::Resume {
                    conn: ConnKey(conn),
                    flags,
                    generation,
                    offset,
                    received
                }
            ),
        ]
    }

    #[test]
    fn layout() {
        let conn = ConnKey(*b"0123456789abcdef");
        assert_eq!(&Preamble::Connect { conn, flags: Flags(1) }.to_bytes()[..], b"\x010123456789abcdef\x01");
        let resume = Preamble::Resume { conn, flags: Flags(3), generation: 0x0102_0304, offset: 5, received: 6 };
        assert_eq!(
            &resume.to_bytes()[..],
            b"\x020123456789abcdef\x03\x01\x02\x03\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06"
        );
    }

    #[test]
    fn only_a_hub_says_whose_it_is() {
        let (connect, tag) = (Preamble::Connect { conn: ConnKey([1; 16]), flags: Flags(1) }, Tag([9; 16]));
        let bytes = connect.to_bytes_of(tag);
        assert_eq!(bytes, [&[3][..], &[9; 16], &connect.to_bytes()].concat());
        assert_eq!(Collector::default().take(&mut bytes.clone()), Err(UnknownKind { kind: 3 }));
        let twice = [&bytes[..OWNER_LEN], &bytes].concat();
        assert_eq!(Collector::of_hub().take(&mut twice.into()), Err(UnknownKind { kind: 3 }));
    }

    #[test]
    fn unknown_kind() {
        assert_eq!(Collector::default().take(&mut Bytes::from_static(b"GET")), Err(UnknownKind { kind: b'G' }));
    }

    proptest! {
        #[test]
        fn any_split_keeps_payload(preamble in preambles(), owner in any::<Option<[u8; 16]>>(), payload in any::<Vec<u8>>(), cuts in proptest::collection::vec(1usize..20, 0..40)) {
            let owner = owner.map(Tag);
            let bytes = owner.map_or_else(|| preamble.to_bytes(), |owner| preamble.to_bytes_of(owner));
            let mut wire = Bytes::from([&bytes[..], &payload].concat());
            let mut collector = Collector::of_hub();
            let mut found = None;
            let mut rest = Vec::new();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let mut chunk = wire.split_to(cut.min(wire.len()));
                if found.is_none() {
                    found = collector.take(&mut chunk).unwrap();
                }
                if found.is_some() {
                    rest.extend_from_slice(&chunk);
                } else {
                    prop_assert!(chunk.is_empty());
                }
            }
            prop_assert_eq!((found, collector.owner()), (Some(preamble), owner));
            prop_assert_eq!(rest, payload);
        }
    }
}
