//! Endpoints on tokio: one task with one socket and one loop, for all sessions and connections of an endpoint.

use std::{future::Future, net::SocketAddr};

pub use towline_core::host::endpoint::{Bind, Control, Forward, Hubs, KEEPALIVE, SessionNotice, StartError};
use towline_core::{host::endpoint, spn::endpoint::Config};

use crate::runtime::Tokio;

/// The consumer of a service; see [`endpoint::Consumer`].
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use towline_core::{quic::{Identity, Roots}, spn::{Role, endpoint::Config}};
/// use towline_tokio::endpoint::Consumer;
///
/// # async fn example(identity: Identity, roots: Roots) -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new(Role::Consumer, "hub.example.net", identity, roots);
/// let consumer = Consumer::start(config, 4433)?;
/// let mut stream = consumer.connect().await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
/// let mut answer = Vec::new();
/// stream.read_to_end(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
pub type Consumer = endpoint::Consumer<Tokio>;

/// The provider of a service; see [`endpoint::Provider`].
pub type Provider = endpoint::Provider<Tokio>;

/// An agent in front of TCP consumers: listens on `bind` and gives each TCP connection a connection to the service.
/// Returns its control, its local address, and its task. `notices` is called with events of sessions.
///
/// # Errors
/// Invalid settings, no UDP socket, or a TCP address that cannot be bound.
pub async fn consumer_agent(
    config: Config,
    hubs: impl Into<Hubs>,
    bind: impl Into<Bind>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, SocketAddr, impl Future<Output = ()> + Send), StartError> {
    endpoint::consumer_agent::<Tokio>(config, hubs, bind, notices)
}

/// An agent in front of a TCP service: dials `forward` (`host:port`) for each connection. Returns its control and its task. `notices` is called with events of sessions.
///
/// # Errors
/// Invalid settings, or no UDP socket.
pub fn provider_agent(
    config: Config,
    hubs: impl Into<Hubs>,
    forward: impl Into<Forward>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, impl Future<Output = ()> + Send), StartError> {
    endpoint::provider_agent::<Tokio>(config, hubs, forward, notices)
}
