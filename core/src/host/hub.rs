//! A hub and its loop: it has a thread of its own, with one socket.

use std::{
    future::{Future, poll_fn},
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::pin,
    task::Poll,
    time::Instant,
};

use futures_channel::{
    mpsc::{self, UnboundedReceiver, UnboundedSender},
    oneshot,
};

use super::{
    reactor::{Reactor, TURNS},
    runtime::Runtime,
    udp::Udp,
};
use crate::spn::hub::{Config, ConfigError, Hub, Notice, Status};

/// Why a hub does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its record cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its address cannot be bound.
    #[error("cannot bind UDP {address}: {error} (is another hub running there?)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No thread or runtime for it.
    #[error("cannot start its thread: {0}")]
    Thread(io::Error),
}

enum Command {
    Shutdown,
    Stop,
    Remove,
    Disable,
    Reload(Box<Config>, oneshot::Sender<Result<Vec<String>, ConfigError>>),
    Status(oneshot::Sender<Status>),
    Pause(String, oneshot::Sender<bool>),
    ClusterDone(u64, bool),
    Unpause(String, oneshot::Sender<bool>),
}

/// A running hub. Dropping it lets the hub run on.
#[derive(Debug, Clone)]
pub struct HubHandle<R> {
    commands: UnboundedSender<Command>,
    local: SocketAddr,
    runtime: PhantomData<fn() -> R>,
}

/// Randomness for a seed, from the operating system by way of the TLS library.
///
/// # Panics
/// If the operating system has none; nothing could be encrypted then.
#[must_use]
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut seed).expect("the operating system has randomness");
    seed
}

impl<R: Runtime> HubHandle<R> {
    /// Starts a hub in a thread of its own and returns when its address is bound; [`Notice::Listening`] says when it accepts sessions.
    /// `notices` is called in that thread and must not block; its last call is [`Notice::Stopped`], when the address is free again.
    ///
    /// # Errors
    /// A record that cannot be used, or an address that cannot be bound.
    pub fn start(config: Config, notices: impl FnMut(Notice) + Send + 'static) -> Result<Self, StartError> {
        let address = config.bind;
        let hub = Hub::new(R::now(), config, seed(), R::epoch())?;
        let (commands, inbox) = mpsc::unbounded();
        let (bound, listens) = std::sync::mpsc::channel();
        R::spawn_thread(format!("hub {address}"), move || async move {
            match bind(hub, address) {
                Ok((reactor, local)) => {
                    let _ = bound.send(Ok(local));
                    run::<R>(reactor, inbox, notices).await;
                }
                Err(error) => drop(bound.send(Err(error))),
            }
        })
        .map_err(StartError::Thread)?;
        let local = listens.recv().map_err(|error| StartError::Thread(io::Error::other(error)))??;
        Ok(Self { commands, local, runtime: PhantomData })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// See [`Hub::shutdown`].
    pub fn shutdown(&self) {
        self.send(Command::Shutdown);
    }

    /// See [`Hub::stop`].
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// See [`Hub::disable`].
    pub fn disable(&self) {
        self.send(Command::Disable);
    }

    /// See [`Hub::remove`].
    pub fn remove(&self) {
        self.send(Command::Remove);
    }

    /// See [`Hub::reload`]; `None` when the hub has ended.
    pub async fn reload(&self, config: Config) -> Option<Result<Vec<String>, ConfigError>> {
        let (answer, result) = oneshot::channel();
        self.send(Command::Reload(Box::new(config), answer));
        result.await.ok()
    }

    /// See [`Hub::cluster_done`].
    pub fn cluster_done(&self, task: u64, ok: bool) {
        self.send(Command::ClusterDone(task, ok));
    }

    /// See [`Hub::status`]; `None` when the hub has ended.
    pub async fn status(&self) -> Option<Status> {
        let (answer, result) = oneshot::channel();
        self.send(Command::Status(answer));
        result.await.ok()
    }

    /// See [`Hub::pause`]; `None` when the hub has ended.
    pub async fn pause(&self, service: &str) -> Option<bool> {
        let (answer, result) = oneshot::channel();
        self.send(Command::Pause(service.to_owned(), answer));
        result.await.ok()
    }

    /// See [`Hub::unpause`]; `None` when the hub has ended.
    pub async fn unpause(&self, service: &str) -> Option<bool> {
        let (answer, result) = oneshot::channel();
        self.send(Command::Unpause(service.to_owned(), answer));
        result.await.ok()
    }

    fn send(&self, command: Command) {
        // A hub that has ended takes none; its `Stopped` has been said.
        let _ = self.commands.unbounded_send(command);
    }
}

fn bind<R: Runtime>(hub: Hub, address: SocketAddr) -> Result<(Reactor<Hub, R>, SocketAddr), StartError> {
    let udp = Udp::bind(address).map_err(|error| StartError::Bind { address, error })?;
    let local = udp.local_addr().map_err(StartError::Thread)?;
    Ok((Reactor::new(hub, udp), local))
}

async fn run<R: Runtime>(
    mut reactor: Reactor<Hub, R>,
    mut inbox: UnboundedReceiver<Command>,
    mut notices: impl FnMut(Notice),
) {
    let ended = poll_fn(|cx| {
        for _ in 0..TURNS {
            let now = R::now();
            let mut progress = false;
            while let Poll::Ready(Ok(command)) = pin!(inbox.recv()).poll(cx) {
                obey(&mut reactor.binding, now, command);
                progress = true;
            }
            progress |= match reactor.poll_input(cx, now) {
                Ok(progress) => progress,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if let Err(error) = reactor.poll_output(cx, now) {
                return Poll::Ready(Err(error));
            }
            while let Some(notice) = reactor.binding.poll_notice() {
                if matches!(notice, Notice::Stopped) {
                    return Poll::Ready(Ok(()));
                }
                notices(notice);
            }
            if !progress && !reactor.poll_deadline(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if let Err(error) = ended {
        tracing::error!(%error, "the hub's socket failed; this hub has ended");
    }
    // The owner may start another hub at this address when it is notified.
    drop(reactor);
    notices(Notice::Stopped);
}

fn obey(hub: &mut Hub, now: Instant, command: Command) {
    match command {
        Command::Shutdown => hub.shutdown(now),
        Command::Stop => hub.stop(now),
        Command::Remove => hub.remove(now),
        Command::Disable => hub.disable(now),
        Command::ClusterDone(task, ok) => hub.cluster_done(now, task, ok),
        // The asker may have gone.
        Command::Reload(config, answer) => drop(answer.send(hub.reload(now, *config))),
        Command::Status(answer) => drop(answer.send(hub.status())),
        Command::Pause(service, answer) => drop(answer.send(hub.pause(now, &service))),
        Command::Unpause(service, answer) => drop(answer.send(hub.unpause(now, &service))),
    }
}
