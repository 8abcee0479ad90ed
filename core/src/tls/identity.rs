//! Certificates and keys, from PEM text.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate chain and its private key, known to belong together.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    secret: Arc<PrivateKeyDer<'static>>,
}

/// The certificate authorities that peers are judged by.
#[derive(Debug, Clone)]
pub struct Roots(pub(crate) Arc<RootCertStore>);

/// What is wrong with an identity or with roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text holds no `BEGIN CERTIFICATE`.
    #[error("no certificate in the PEM text")]
    NoCertificate,
    /// The text holds no private key.
    #[error("no private key in the PEM text (expected PKCS#8, SEC1 or PKCS#1)")]
    NoKey,
    /// The text of a certificate is no PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// A certificate cannot be read.
    #[error("unreadable certificate: {0}")]
    Certificate(String),
    /// The key cannot be used.
    #[error("unusable private key: {0}")]
    Key(String),
    /// Key and certificate are no pair.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A certificate authority cannot be used.
    #[error("unusable CA certificate: {0}")]
    Root(String),
    /// TLS does not accept the configuration.
    #[error("TLS configuration: {0}")]
    Tls(String),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    // X25519MLKEM768 comes first, then X25519, P-256 and P-384: the feature `prefer-post-quantum`.
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Pem(error.to_string()))?;
    if chain.is_empty() { Err(IdentityError::NoCertificate) } else { Ok(chain) }
}

fn secret_key(pem: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            IdentityError::NoKey
        } else {
            IdentityError::Key(format!("not PEM: {error}"))
        }
    })
}

impl Identity {
    /// Whether a text holds a chain, whatever key belongs to it.
    ///
    /// # Errors
    /// Text that holds none, or is unreadable.
    pub fn check_chain(pem: &str) -> Result<(), IdentityError> {
        for certificate in certificates(pem)? {
            let parsed = ParsedCertificate::try_from(&certificate);
            parsed.map_err(|error| IdentityError::Certificate(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether a text holds a private key that can be used, whatever certificate it belongs to.
    ///
    /// # Errors
    /// Text that holds none, or is unreadable.
    pub fn check_key(pem: &str) -> Result<(), IdentityError> {
        let key = provider().key_provider.load_private_key(secret_key(pem)?);
        key.map(drop).map_err(|error| IdentityError::Key(error.to_string()))
    }

    /// Reads a chain (leaf first) and its key.
    ///
    /// # Errors
    /// Text that holds none, is unreadable, or holds two that do not belong together.
    pub fn from_pem(certificates_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let chain = certificates(certificates_pem)?;
        let secret = secret_key(key_pem)?;
        let key = CertifiedKey::from_der(chain, secret.clone_key(), &provider()).map_err(|error| {
            if let rustls::Error::InvalidCertificate(reason) = &error {
                IdentityError::Certificate(format!("{reason:?}"))
            } else if matches!(error, rustls::Error::InconsistentKeys(_)) {
                IdentityError::Mismatch
            } else {
                IdentityError::Key(error.to_string())
            }
        })?;
        Ok(Self { key: Arc::new(key), secret: Arc::new(secret) })
    }

    /// Whether the certificate is not valid yet; `unix` is the time since 1970.
    #[must_use]
    pub fn is_early(&self, unix: Duration) -> bool {
        let leaf = self.key.cert.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
        leaf.is_some_and(|(_, leaf)| leaf.validity().not_before.timestamp() > unix.as_secs() as i64)
    }

    /// The private key, for secrets that are derived from it.
    #[cfg_attr(not(feature = "spn"), expect(dead_code, reason = "only QUIC derives some"))]
    pub(crate) fn secret(&self) -> &[u8] {
        self.secret.secret_der()
    }
}

impl Roots {
    /// Reads one or more certificate authorities.
    ///
    /// # Errors
    /// Text that holds none, or one that cannot be used.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(pem)? {
            roots.add(root).map_err(|error| IdentityError::Root(error.to_string()))?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn the_post_quantum_exchange_comes_first_and_x25519_next() {
        let groups: Vec<NamedGroup> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups[..2], [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    }
}
