//! One TLS connection: bytes of the wire on one side, plaintext on the other.

use std::{
    fmt,
    io::{self, BufRead as _, Write as _},
    net::IpAddr,
};

use bytes::{Bytes, BytesMut};
use rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName};

use super::{ClientConfig, PeerIdentity, ServerConfig};

/// Why a connection failed, in the words of the TLS library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The name of the server is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address: no certificate can be valid for it")]
    ServerName(String),
    /// The settings do not work together.
    #[error("TLS settings: {0}")]
    Settings(String),
    /// The peer's bytes were refused, or the peer refused ours. An alert for the peer is among the bytes to send (RFC 8446 §6.2).
    #[error("TLS: {0}")]
    Refused(String),
}

/// A TLS connection without I/O.
///
/// What [`receive`](Self::receive) decrypts waits in memory until it is [taken](Self::take_plain): whoever hands in no more than it can take has
/// at most one record beyond it. What is [sent](Self::send) waits until [`take_wire`](Self::take_wire), also while the handshake lasts.
pub struct Stream {
    tls: Connection,
    plain: BytesMut,
    is_peer_closed: bool,
}

impl Stream {
    /// The client's side of a connection to `name`.
    ///
    /// # Errors
    /// A name that no certificate can be valid for.
    pub fn client(config: &ClientConfig, name: &ServerName<'static>) -> Result<Self, StreamError> {
        let tls = ClientConnection::new(config.tls.clone(), name.clone());
        tls.map(|tls| Self::new(tls.into())).map_err(|error| StreamError::Settings(error.to_string()))
    }

    /// The server's side of a connection.
    ///
    /// # Errors
    /// Settings that do not work together.
    pub fn server(config: &ServerConfig) -> Result<Self, StreamError> {
        let tls = ServerConnection::new(config.tls.clone());
        tls.map(|tls| Self::new(tls.into())).map_err(|error| StreamError::Settings(error.to_string()))
    }

    fn new(mut tls: Connection) -> Self {
        // The bound is the caller's: nobody writes more before what was written has been taken.
        tls.set_buffer_limit(None);
        Self { tls, plain: BytesMut::new(), is_peer_closed: false }
    }

    /// Takes bytes from the wire.
    ///
    /// # Errors
    /// Bytes that TLS refuses. What was decrypted before them can still be taken, and [`take_wire`](Self::take_wire) has the alert.
    pub fn receive(&mut self, mut wire: &[u8]) -> Result<(), StreamError> {
        let refused = |error: &dyn fmt::Display| StreamError::Refused(error.to_string());
        while !wire.is_empty() && !self.is_peer_closed {
            // Only a full buffer of plaintext makes this fail, and it is emptied each time.
            self.tls.read_tls(&mut wire).map_err(|error| refused(&error))?;
            let state = self.tls.process_new_packets();
            self.collect();
            self.is_peer_closed = state.map_err(|error| refused(&error))?.peer_has_closed();
        }
        Ok(())
    }

    /// Takes what is decrypted out of the library: once, and into one buffer.
    fn collect(&mut self) {
        let mut reader = self.tls.reader();
        // An end, or nothing there yet, is no error here.
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            let length = chunk.len();
            self.plain.extend_from_slice(chunk);
            reader.consume(length);
        }
    }

    /// Takes plaintext for the peer.
    pub fn send(&mut self, plain: &[u8]) {
        // Memory has no limit here, so all of it is taken.
        let _: io::Result<()> = self.tls.writer().write_all(plain);
    }

    /// Tells the peer that nothing more comes (RFC 8446 §6.1).
    pub fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// At most `max` bytes of plaintext from the peer; empty when there are none.
    #[must_use]
    pub fn take_plain(&mut self, max: usize) -> Bytes {
        let length = max.min(self.plain.len());
        self.plain.split_to(length).freeze()
    }

    /// Whether there is plaintext to take.
    #[must_use]
    pub fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// All bytes for the wire; empty when there are none.
    #[must_use]
    pub fn take_wire(&mut self) -> Bytes {
        let mut wire = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut wire).is_ok_and(|written| written > 0) {}
        wire.into()
    }

    /// Whether there are bytes for the wire.
    #[must_use]
    pub fn has_wire(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether the handshake lasts.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the peer has said that nothing more comes.
    #[must_use]
    pub fn is_peer_closed(&self) -> bool {
        self.is_peer_closed
    }

    /// Who the peer is, if it has shown a certificate.
    #[must_use]
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.tls.peer_certificates()?.first().map(PeerIdentity::from_certificate)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("plain", &self.plain.len()).finish_non_exhaustive()
    }
}

/// What a certificate has to be valid for.
///
/// # Errors
/// Text that is neither a DNS name nor an IP address.
pub(super) fn server_name(name: &[u8]) -> Result<ServerName<'static>, StreamError> {
    let text = String::from_utf8_lossy(name).trim_end_matches('.').to_owned();
    ServerName::try_from(text.clone()).map_err(|_| StreamError::ServerName(text))
}

/// The same, where only an address is known.
pub(super) fn server_address(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}
