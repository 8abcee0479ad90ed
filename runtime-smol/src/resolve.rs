//! Names to addresses, by DNS.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_resolver::{
    ResolverBuilder,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::NetError,
};

use crate::dns::Runtime;

/// Asks name servers for the addresses of names, and keeps answers for as long as they say.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<hickory_resolver::Resolver<Runtime>>);

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The system's settings, usually `/etc/resolv.conf`, cannot be used.
    #[error("cannot read the system's DNS settings: {0} (name a server yourself)")]
    Settings(NetError),
    /// There is no such name, or it has no addresses.
    #[error("the name does not exist")]
    NoSuchName,
    /// No server has answered, or not with what was asked.
    #[error(transparent)]
    Failed(NetError),
}

impl Resolver {
    /// Asks the servers that the system asks.
    ///
    /// # Errors
    /// When the system's settings cannot be read.
    pub fn system() -> Result<Self, ResolveError> {
        let builder = hickory_resolver::Resolver::builder(Runtime).map_err(ResolveError::Settings)?;
        Self::build(builder)
    }

    /// Asks the server at `address` and no other.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn at(address: SocketAddr) -> Result<Self, ResolveError> {
        let config = ResolverConfig::from_name_servers(vec![name_server(address)]);
        Self::build(hickory_resolver::Resolver::builder_with_config(config, Runtime))
    }

    fn build(mut builder: ResolverBuilder<Runtime>) -> Result<Self, ResolveError> {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().map(|resolver| Self(Arc::new(resolver))).map_err(ResolveError::Settings)
    }

    /// The addresses of a name, of both families, in the order of the answers.
    ///
    /// # Errors
    /// When there are none, or nobody says.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.0.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(ResolveError::NoSuchName),
            Err(error) => Err(ResolveError::Failed(error)),
        }
    }
}

/// A server that is asked over UDP, and over TCP for what UDP cannot carry (RFC 7766 §5).
fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    // A "no" of the one server there is to ask is to be believed.
    NameServerConfig::new(address.ip(), true, connections)
}
