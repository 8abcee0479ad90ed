//! Names to addresses, for connections that a binding opens.

use std::{fmt, net::IpAddr, sync::Arc};

use bytes::Bytes;
use hickory_resolver::net::runtime::RuntimeProvider;

use super::resolve::{ResolveError, Resolver};
use crate::net::{Fault, Hosts};

/// Where the addresses of names come from.
#[derive(Clone)]
pub enum Names<P: RuntimeProvider> {
    /// From a list, and from nowhere else.
    Hosts(Arc<Hosts>),
    /// From DNS.
    Dns(Resolver<P>),
}

impl<P: RuntimeProvider> fmt::Debug for Names<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => f.debug_tuple("Hosts").field(hosts).finish(),
            Self::Dns(resolver) => f.debug_tuple("Dns").field(resolver).finish(),
        }
    }
}

impl<P: RuntimeProvider + Default> Names<P> {
    /// The addresses of a name; at least one.
    pub(super) async fn resolve(self, name: Bytes) -> Result<Vec<IpAddr>, Fault> {
        let found = match &self {
            Self::Hosts(hosts) => Ok(hosts.addresses(&name).to_vec()),
            Self::Dns(resolver) => match std::str::from_utf8(&name) {
                // No search list decides which server is asked.
                Ok(name) if !name.ends_with('.') => resolver.addresses(&format!("{name}.")).await,
                Ok(name) => resolver.addresses(name).await,
                Err(_) => Err(ResolveError::NoSuchName),
            },
        };
        match found {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) | Err(ResolveError::NoSuchName) => Err(Fault::NoSuchName),
            Err(error) => {
                tracing::debug!(name = %name.escape_ascii(), %error, "cannot resolve");
                Err(Fault::Other)
            }
        }
    }
}
