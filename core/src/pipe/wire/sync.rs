//! What the first message of each side says (docs/protocols/pipe.md, Handshake).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decimal;

/// The data of the first Control message of each side: 50 bytes, the same in each codec (SYN-1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// What the sender speaks: [`SyncConfig::DEPLOYED`] or [`SyncConfig::TOWLINE`].
    pub version: u16,
    /// Who it is.
    pub node_id: Uuid,
    /// The session's name: nil in a client's, never nil in a server's (SYN-4).
    pub session_id: Uuid,
    /// The sender's clock, in milliseconds since 1970.
    #[serde(with = "decimal")]
    pub utc_ms: i64,
    /// Seconds between pings: what the client wishes, or what the server has decided.
    pub ping: i32,
    /// Seconds of silence after which the session is over; likewise.
    pub timeout: i32,
}

/// The data is too short to be a [`SyncConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SyncConfig has {} bytes of data; found {found}", SyncConfig::LEN)]
pub struct SyncConfigError {
    /// How many bytes there are.
    pub found: usize,
}

impl SyncConfig {
    /// Bytes of its data.
    pub const LEN: usize = 50;
    /// The version of deployed nodes.
    pub const DEPLOYED: u16 = 0x0001;
    /// The version of our own peers, among themselves.
    pub const TOWLINE: u16 = 0x0002;

    /// Reads the data of a Control message; what is behind the first 50 bytes means nothing (SYN-2).
    ///
    /// # Errors
    /// When there are fewer.
    pub fn from_bytes(data: &[u8]) -> Result<Self, SyncConfigError> {
        let short = SyncConfigError { found: data.len() };
        let (version, rest) = data.split_first_chunk().ok_or(short)?;
        let (node_id, rest) = rest.split_first_chunk().ok_or(short)?;
        let (session_id, rest) = rest.split_first_chunk().ok_or(short)?;
        let (utc_ms, rest) = rest.split_first_chunk().ok_or(short)?;
        let (ping, rest) = rest.split_first_chunk().ok_or(short)?;
        let (timeout, _) = rest.split_first_chunk().ok_or(short)?;
        Ok(Self {
            version: u16::from_be_bytes(*version),
            node_id: Uuid::from_bytes(*node_id),
            session_id: Uuid::from_bytes(*session_id),
            utc_ms: i64::from_be_bytes(*utc_ms),
            ping: i32::from_be_bytes(*ping),
            timeout: i32::from_be_bytes(*timeout),
        })
    }

    /// The data of a Control message.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields: [&[u8]; 6] = [
            &self.version.to_be_bytes(),
            self.node_id.as_bytes(),
            self.session_id.as_bytes(),
            &self.utc_ms.to_be_bytes(),
            &self.ping.to_be_bytes(),
            &self.timeout.to_be_bytes(),
        ];
        bytes.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SyncConfig {
        SyncConfig {
            version: SyncConfig::DEPLOYED,
            node_id: Uuid::from_u128(0xaaaa_aaaa_bbbb_cccc_dddd_eeee_eeee_eeee),
            session_id: Uuid::from_u128(5),
            utc_ms: -1,
            ping: 3,
            timeout: i32::MIN,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = config().to_bytes().to_vec();
        assert_eq!(SyncConfig::from_bytes(&bytes), Ok(config()));
        bytes.extend_from_slice(b"more means nothing");
        assert_eq!(SyncConfig::from_bytes(&bytes), Ok(config()));
    }

    #[test]
    fn fewer_bytes_are_none() {
        let bytes = config().to_bytes();
        for found in 0..SyncConfig::LEN {
            assert_eq!(SyncConfig::from_bytes(&bytes[..found]), Err(SyncConfigError { found }));
        }
    }

    #[test]
    fn the_clock_is_text_in_json() {
        let json = serde_json::to_string(&config()).unwrap();
        assert_eq!(
            json,
            "{\"version\":1,\"node_id\":\"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\",\
             \"session_id\":\"00000000-0000-0000-0000-000000000005\",\"utc_ms\":\"-1\",\"ping\":3,\"timeout\":-2147483648}"
        );
        assert_eq!(serde_json::from_str::<SyncConfig>(&json).unwrap(), config());
    }
}
