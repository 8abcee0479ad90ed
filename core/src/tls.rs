//! TLS (RFC 8446, and RFC 5246 where a peer is old) without I/O: bytes of a wire on one side, plaintext on the other.
//!
//! - [`Stream`] is one TLS connection over `rustls`: bytes in, bytes out.
//! - [`Tls`] is an adaptor of [`net`](crate::net): a byte-stream binding around a byte-stream binding, so each protocol over byte streams runs
//!   over TLS as it is. Its decisions are in a machine, [`connection`].
//! - [`Identity`], [`Roots`], [`PeerIdentity`] and [`Clock`] are what QUIC shares with it: certificates and keys, and the time that they are
//!   judged by.
//!
//! Both sides show certificates where both are configured with them. Nothing is resumed: each connection is judged by its certificates, as of
//! now.

mod adaptor;
mod clock;
mod config;
pub mod connection;
mod identity;
mod peer;
mod stream;

pub use adaptor::{Config, Failure, Notice, Tls};
pub use clock::Clock;
pub use config::{ClientConfig, ServerConfig};
pub use identity::{Identity, IdentityError, Roots};
pub(crate) use identity::provider;
pub use peer::PeerIdentity;
pub use stream::{Stream, StreamError};
