//! The caching proxy for transactions (docs/protocols/txn.md) on the loop of byte-stream bindings: one task for all its connections.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Instant,
};

use super::{
    names::Names,
    runtime::Runtime,
    streams::{ListenError, StreamLoop, listen},
    wakes::Wakes,
};
use crate::{
    net::ConnId,
    txn::proxy::{Config, Notice, Proxy},
};

/// Governs a running proxy.
#[derive(Debug, Clone)]
pub struct Control(Arc<Wishes>);

#[derive(Debug)]
struct Wishes {
    drain: AtomicBool,
    stop: AtomicBool,
    wakes: Arc<Wakes<ConnId>>,
}

impl Control {
    /// Accepts nothing more, and ends with the last transaction, or when the drain time is over.
    pub fn drain(&self) {
        self.0.drain.store(true, Ordering::Release);
        self.0.wakes.wake_driver();
    }

    /// Ends now.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.wakes.wake_driver();
    }
}

impl Wishes {
    /// Passes on what is wanted; says whether there was anything.
    fn obey(&self, now: impl Fn() -> Instant, proxy: &mut Proxy) -> bool {
        let (drain, stop) = (self.drain.swap(false, Ordering::AcqRel), self.stop.swap(false, Ordering::AcqRel));
        if drain {
            proxy.drain(now());
        }
        if stop {
            proxy.stop(now());
        }
        drain || stop
    }
}

/// A proxy that listens: its control, where it listens, and its task. `notices` is called in the task and must not block.
///
/// # Errors
/// An address that cannot be listened on.
pub fn serve<R: Runtime>(
    mut config: Config,
    addresses: &[SocketAddr],
    names: Names<R::Dns>,
    mut notices: impl FnMut(&Proxy, Notice) + Send + 'static,
) -> Result<(Control, Vec<SocketAddr>, impl Future<Output = ()> + Send), ListenError> {
    let (listeners, local) = listen::<R>(addresses)?;
    config.transaction.own.clone_from(&local);
    let read = config.transaction.chunk;
    let mut streams = StreamLoop::<Proxy, R>::new(Proxy::new(config), listeners, names, read);
    let wakes = streams.wakes();
    let wishes = Arc::new(Wishes { drain: AtomicBool::new(false), stop: AtomicBool::new(false), wakes });
    let control = Control(wishes.clone());
    let task = async move {
        streams.binding_mut().start(R::now());
        poll_fn(|cx| {
            loop {
                wishes.obey(R::now, streams.binding_mut());
                match streams.poll_notice(cx) {
                    Poll::Ready(Some(notice)) => notices(streams.binding(), notice),
                    Poll::Ready(None) => return Poll::Ready(()),
                    // From here on a wish wakes the task; one that came before is fetched here.
                    Poll::Pending if wishes.obey(R::now, streams.binding_mut()) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    };
    Ok((control, local, task))
}
