//! Words that every part of SPN uses.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::machine;

/// What an endpoint is to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves connections.
    Provider,
    /// Opens connections.
    Consumer,
}

/// Which of the two protocols a session speaks; the ALPN value says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The deployed protocol: no control stream, but control datagrams (RFC 9221).
    Sc01,
    /// Ours: a control stream and a preamble on each data stream.
    Sc02,
}

/// One of the two ends of a connection, as its hub sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The end that opened it.
    Consumer,
    /// The end that serves it.
    Provider,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Consumer => Self::Provider,
            Self::Provider => Self::Consumer,
        }
    }
}

/// A connection id: 128 random bits chosen by the consumer, and the key to the connection, so `Debug` shows only its beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey(pub [u8; 16]);

impl fmt::Debug for ConnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "{a:02x}{b:02x}…")
    }
}

/// An end of a connection, as its partner knows it: made of the end's identity, the same on every hub and after every restart.
/// A hub tells each end its partner's, and the end names it when it asks to resume; so a hub that remembers nothing joins only those two again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag(pub [u8; 16]);

impl Tag {
    /// The first half of the SHA-256 of the identity.
    #[must_use]
    pub fn of(identity: &str) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, identity.as_bytes());
        let mut tag = [0; 16];
        tag.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Self(tag)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        machine::text::serialize(&Bytes::copy_from_slice(&self.0), serializer)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = machine::text::deserialize(deserializer)?;
        let tag = <[u8; 16]>::try_from(&*bytes);
        tag.map(Self).map_err(|_| D::Error::custom(format!("expected a tag of 16 bytes, found {}", bytes.len())))
    }
}

impl Role {
    /// The ALPN value of this role in `protocol`.
    #[must_use]
    pub const fn alpn(self, protocol: Protocol) -> &'static [u8] {
        match (protocol, self) {
            (Protocol::Sc01, Self::Provider) => b"sc01-provider",
            (Protocol::Sc01, Self::Consumer) => b"sc01-consumer",
            (Protocol::Sc02, Self::Provider) => b"sc02-provider",
            (Protocol::Sc02, Self::Consumer) => b"sc02-consumer",
        }
    }

    /// The end of a connection that it is.
    #[must_use]
    pub const fn side(self) -> Side {
        match self {
            Self::Provider => Side::Provider,
            Self::Consumer => Side::Consumer,
        }
    }

    /// Role and protocol of an ALPN value.
    #[must_use]
    pub fn from_alpn(alpn: &[u8]) -> Option<(Self, Protocol)> {
        [Self::Provider, Self::Consumer]
            .into_iter()
            .flat_map(|role| [Protocol::Sc02, Protocol::Sc01].map(|protocol| (role, protocol)))
            .find(|(role, protocol)| role.alpn(*protocol) == alpn)
    }
}
