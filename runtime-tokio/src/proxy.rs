//! The caching proxy for transactions: one task with one loop, for all its connections (docs/protocols/txn.md).

use std::{future::Future, net::SocketAddr};

pub use towline_core::host::{ListenError, proxy::Control};
use towline_core::{
    host::{self, Runtime, proxy},
    txn::proxy::{Config, Notice, Proxy},
};

use crate::runtime::Tokio;

/// The source of the addresses of names: DNS or a file of hosts.
pub type Names = host::Names<<Tokio as Runtime>::Dns>;

/// Starts a proxy. Returns its control, its local addresses, and its task. `notices` is called in the task and must not block.
///
/// # Errors
/// An address that cannot be bound.
pub fn serve(
    config: Config,
    listen: &[SocketAddr],
    names: Names,
    notices: impl FnMut(&Proxy, Notice) + Send + 'static,
) -> Result<(Control, Vec<SocketAddr>, impl Future<Output = ()> + Send), ListenError> {
    proxy::serve::<Tokio>(config, listen, names, notices)
}
