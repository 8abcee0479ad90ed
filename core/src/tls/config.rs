//! Settings of the two sides of TLS over byte streams.

use std::{fmt, sync::Arc};

use rustls::{
    RootCertStore,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{
    Clock,
    identity::{Identity, IdentityError, Roots, provider},
};

/// TLS 1.3, and 1.2 for peers that are older.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A server's settings.
#[derive(Clone)]
pub struct ServerConfig {
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) clock: Clock,
}

impl ServerConfig {
    /// A server that shows `identity`. With `clients`, it demands a client certificate that one of them has signed; without, it asks for none.
    /// `alpn` lists the protocols in the order of preference; empty when the protocol uses no ALPN (RFC 7301).
    ///
    /// # Errors
    /// Roots or an identity that TLS cannot use.
    pub fn new(
        identity: &Identity,
        clients: Option<&Roots>,
        alpn: &[&[u8]],
        clock: &Clock,
    ) -> Result<Self, IdentityError> {
        let builder = rustls::ServerConfig::builder_with_details(provider(), clock.tls())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let builder = match clients {
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(clients.0.clone(), provider())
                    .build()
                    .map_err(|error| IdentityError::Root(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut tls = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self { tls: Arc::new(tls), clock: clock.clone() })
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").finish_non_exhaustive()
    }
}

/// A client's settings.
#[derive(Clone)]
pub struct ClientConfig {
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) clock: Clock,
}

impl ClientConfig {
    /// A client that demands a server certificate signed by one of `servers` for the name that was dialled, and shows `identity` to a server
    /// that asks for a certificate.
    ///
    /// # Errors
    /// An identity that TLS cannot use.
    pub fn new(
        identity: Option<&Identity>,
        servers: &Roots,
        alpn: &[&[u8]],
        clock: &Clock,
    ) -> Result<Self, IdentityError> {
        let roots: Arc<RootCertStore> = servers.0.clone();
        let builder = rustls::ClientConfig::builder_with_details(provider(), clock.tls())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| IdentityError::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let mut tls = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone()))),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self { tls: Arc::new(tls), clock: clock.clone() })
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").finish_non_exhaustive()
    }
}
