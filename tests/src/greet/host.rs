//! The binding on the sockets of any runtime.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::Arc,
    task::{Poll, ready},
};

use towline_core::host::{ListenError, Names, Runtime, StreamLoop, listen};

use super::{
    binding::{Ended, Greeter},
    machine::Config,
};

/// Limit of one read, in bytes.
const READ: usize = 4096;

/// Greets the clients that connect to `address`. Returns the local address and the task, which calls `ended` for each client that is gone.
///
/// # Errors
/// The address cannot be bound.
pub fn serve<R: Runtime>(
    config: Config,
    address: SocketAddr,
    mut ended: impl FnMut(&mut Greeter, Ended) + Send + 'static,
) -> Result<(Vec<SocketAddr>, impl Future<Output = ()> + Send), ListenError> {
    let (listeners, local) = listen::<R>(&[address])?;
    let names = Names::Hosts(Arc::default());
    let mut streams = StreamLoop::<Greeter, R>::new(Greeter::new(config), listeners, names, READ);
    let task = poll_fn(move |cx| {
        while let Some(client) = ready!(streams.poll_notice(cx)) {
            ended(streams.binding_mut(), client);
        }
        Poll::Ready(())
    });
    Ok((local, task))
}
