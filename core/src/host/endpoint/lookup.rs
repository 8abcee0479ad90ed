//! The name of the hub, looked up again and again.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use futures_channel::{
    mpsc::{Receiver, UnboundedSender},
    oneshot,
};

use super::{
    super::{
        resolve::{ResolveError, Resolver, is_usable},
        runtime::Runtime,
        time::{sleep, within},
    },
    Command,
};

/// How often the name of the hub is resolved,
const RESOLVE: Duration = Duration::from_secs(60);
/// and, since a session could not be made, at most.
const RESOLVE_ON_DEMAND: Duration = Duration::from_secs(1);
/// The same, while it has no answer.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);
/// How long that may take: the servers may have been replaced meanwhile.
const ANSWER: Duration = Duration::from_secs(10);

/// Looks the hub's name up again and again, for as long as the endpoint runs.
pub(super) struct Lookup<R: Runtime> {
    pub(super) resolver: Resolver<R::Dns>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) has_v6: bool,
    /// A session could not be made: its address may be no longer listed (docs/protocols/spn.md, Several hubs, ADR-13).
    pub(super) stale: Receiver<()>,
    pub(super) commands: UnboundedSender<Command>,
}

impl<R: Runtime> Lookup<R> {
    /// Runs until the other end of `ended` has gone.
    pub(super) async fn run_until(self, mut ended: oneshot::Receiver<()>) {
        let mut run = pin!(self.run());
        poll_fn(|cx| if Pin::new(&mut ended).poll(cx).is_ready() { Poll::Ready(()) } else { run.as_mut().poll(cx) })
            .await;
    }

    async fn run(mut self) {
        let mut is_known = false;
        loop {
            let asked = within::<R, _>(ANSWER, self.resolver.addresses(&self.host)).await;
            match asked.unwrap_or(Err(ResolveError::NoAnswer)) {
                Ok(found) => {
                    let found = found.into_iter().map(|address| SocketAddr::new(address, self.port));
                    let (addresses, useless): (Vec<_>, Vec<_>) =
                        found.partition(|address| (self.has_v6 || address.is_ipv4()) && is_usable(*address));
                    // An empty answer changes nothing.
                    if addresses.is_empty() {
                        let host = &self.host;
                        tracing::warn!(host, ?useless, "this machine has no way to the hub's addresses; trying again");
                    } else {
                        is_known = true;
                        if self.commands.unbounded_send(Command::Addresses(addresses)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(host = self.host, %error, "cannot resolve the hub's name; trying again");
                }
            }
            let began = R::now();
            within::<R, _>(if is_known { RESOLVE } else { RESOLVE_AGAIN }, self.stale.recv()).await;
            sleep::<R>(RESOLVE_ON_DEMAND.saturating_sub(R::now().saturating_duration_since(began))).await;
        }
    }
}
