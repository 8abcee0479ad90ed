//! Datagrams in and out, and the ids of streams: the words of this module's users, whatever library is beneath.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

/// The ECN field of an IP header (RFC 3168 §5), unless it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// ECT(1).
    Ect1 = 0b01,
    /// ECT(0).
    Ect0 = 0b10,
    /// Congestion was experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The lower two bits of a byte of the IP header; `None` for 0.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }

    /// The two bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }

    pub(super) fn to_quinn(self) -> quinn_proto::EcnCodepoint {
        match self {
            Self::Ect1 => quinn_proto::EcnCodepoint::Ect1,
            Self::Ect0 => quinn_proto::EcnCodepoint::Ect0,
            Self::Ce => quinn_proto::EcnCodepoint::Ce,
        }
    }
}

/// A datagram that came in.
#[derive(Debug)]
pub struct Received {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address it was sent to, if the host knows.
    pub local_ip: Option<IpAddr>,
    /// Congestion mark of its IP header.
    pub ecn: Option<Ecn>,
    /// Its payload. Split off a larger buffer it is not copied.
    pub data: BytesMut,
}

/// One or more datagrams to send; their bytes are in the buffer that was given for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// Congestion mark for the IP header.
    pub ecn: Option<Ecn>,
    /// The buffer holds datagrams of this many bytes each, the last of which may be shorter; `None`: it holds one.
    pub segment_size: Option<usize>,
    /// The address to send from, if the host can choose.
    pub src_ip: Option<IpAddr>,
}

impl From<quinn_proto::Transmit> for Transmit {
    fn from(transmit: quinn_proto::Transmit) -> Self {
        Self {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        }
    }
}

/// A bidirectional stream of a connection (RFC 9000 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) quinn_proto::StreamId);

impl StreamId {
    /// A stream of a client, for tests of what is kept for each stream.
    #[cfg(test)]
    pub(crate) fn of_test(index: u64) -> Self {
        Self(quinn_proto::StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, index))
    }

    /// How many streams of the same initiator were opened before it.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0.index()
    }
}

/// The id as on the wire: the index, with the initiator and the kind in the two lowest bits.
impl From<StreamId> for u64 {
    fn from(id: StreamId) -> Self {
        id.0.into()
    }
}
