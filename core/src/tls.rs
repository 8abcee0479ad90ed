//! TLS (RFC 8446, and RFC 5246 where a peer is old) without I/O: bytes of a wire on one side, plaintext on the other.
//!
//! - [`Stream`] is one TLS connection over `rustls`: bytes in, bytes out.
//! - [`Tls`] is an adaptor of [`net`](crate::net): a byte-stream binding around a byte-stream binding, so each protocol over byte streams runs
//!   over TLS as it is. Its decisions are in a machine, [`connection`].
//! - [`Identity`], [`Roots`], [`PeerIdentity`] and [`Clock`] are what QUIC shares with it: certificates and keys, and the time that they are
//!   judged by.
//!
//! Nothing is resumed: each connection is judged by its certificates, as of now. The rules are in `docs/protocols/tls-states.md`.
//!
//! # Any binding over TLS
//!
//! ```
//! use std::time::Instant;
//! use towline_core::{
//!     net::StreamBinding,
//!     tls::{Clock, Config, Identity, IdentityError, Roots, ServerConfig, Tls},
//! };
//!
//! /// Demands a certificate of `authority` from each client. The result goes where `binding` would go: into a host's loop.
//! fn serve<B: StreamBinding>(
//!     now: Instant, binding: B, certificate: &str, key: &str, authority: &str, clock: &Clock,
//! ) -> Result<Tls<B>, IdentityError> {
//!     let identity = Identity::from_pem(certificate, key)?;
//!     let clients = Roots::from_pem(authority)?;
//!     let server = ServerConfig::new(&identity, Some(&clients), &[], clock)?;
//!     Ok(Tls::new(now, binding, Config { server: Some(server), ..Config::default() }))
//! }
//! ```

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
#[cfg(feature = "spn")]
pub(crate) use identity::provider;
pub use identity::{Identity, IdentityError, Roots};
pub use peer::PeerIdentity;
pub use stream::{Stream, StreamError};
