//! An endpoint for a runtime's users: consumers and providers, as streams or as agents in front of TCP.

mod driver;
mod lookup;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_channel::{
    mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender},
    oneshot,
};

use self::{driver::Driver, lookup::Lookup};
use super::{hub::seed, reactor::Reactor, resolve::Resolver, runtime::Runtime, tcp::listen, udp::Udp};
/// What an endpoint reports about its sessions.
pub use crate::spn::endpoint::Notice as SessionNotice;
use crate::{
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::{Config, ConfigError, ConnectError, Endpoint},
    },
};

/// Connections that wait in [`Provider::accept`]'s queue; more are reset.
const BACKLOG: usize = 1024;

/// Why an endpoint does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No UDP socket.
    #[error("cannot open a UDP socket: {0}")]
    Udp(io::Error),
    /// The TCP address cannot be bound.
    #[error("cannot listen on TCP {address}: {error} (is something else running there?)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// How the hubs are found: all addresses that the name in [`Config`] has, each at this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hubs {
    /// UDP port of the hubs.
    pub port: u16,
    /// The name server that is asked; else those that the system asks.
    pub resolver: Option<SocketAddr>,
}

impl From<u16> for Hubs {
    fn from(port: u16) -> Self {
        Self { port, resolver: None }
    }
}

/// How long a TCP peer of an agent may be silent before TCP asks whether it is still there, unless it is said.
pub const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where an agent listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// The TCP address; port 0 takes a free one.
    pub address: SocketAddr,
    /// How long a client may be silent before TCP asks whether it is still there; one that does not answer for as long again is given up.
    /// `None`: it is never asked, and a machine that has vanished is not noticed.
    pub keepalive: Option<Duration>,
}

impl From<SocketAddr> for Bind {
    /// With a keep-alive of a minute.
    fn from(address: SocketAddr) -> Self {
        Self { address, keepalive: Some(KEEPALIVE) }
    }
}

/// What an agent dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The service, `host:port`.
    pub address: String,
    /// The same as in [`Bind`], for the service's machine.
    pub keepalive: Option<Duration>,
}

impl From<String> for Forward {
    /// With a keep-alive of a minute.
    fn from(address: String) -> Self {
        Self { address, keepalive: Some(KEEPALIVE) }
    }
}

/// Who wants a connection.
type Asker<S> = oneshot::Sender<Result<S, ConnectError>>;

/// Where connections come from and go to.
enum Local<R: Runtime> {
    /// A consumer's TCP listener.
    Listener(R::Listener),
    /// A provider's TCP service.
    Forward(Forward),
    /// A consumer of the library. Each of its callers waits for an answer: there are no more questions than callers.
    Connect(UnboundedReceiver<Asker<R::Stream>>),
    /// A provider of the library.
    Accept(Sender<R::Stream>),
    /// A consumer's that takes nothing new.
    Over,
}

impl<R: Runtime> Local<R> {
    /// Releases the listener's address, so that a successor can have it at once, and clients are refused rather than reset.
    fn close(&mut self) {
        if let Self::Listener(_) = self {
            *self = Self::Over;
        }
    }
}

enum Command {
    Addresses(Vec<SocketAddr>),
    SetWeight(u16),
    SetIdentity(Box<(Identity, Roots)>, oneshot::Sender<Result<(), ConfigError>>),
    Close,
    Stop,
}

/// Governs a running endpoint. When the last one is dropped the endpoint runs on.
#[derive(Debug, Clone)]
pub struct Control(UnboundedSender<Command>);

impl Control {
    /// Changes a provider's share of new connections; 0 retires it.
    pub fn set_weight(&self, weight: u16) {
        self.send(Command::SetWeight(weight));
    }

    /// See [`Endpoint::set_identity`].
    ///
    /// # Errors
    /// What cannot be used; then everything stays as it is.
    pub async fn set_identity(&self, identity: Identity, roots: Roots) -> Result<(), ConfigError> {
        let (answer, result) = oneshot::channel();
        self.send(Command::SetIdentity(Box::new((identity, roots)), answer));
        // An endpoint that has ended needs none.
        result.await.unwrap_or(Ok(()))
    }

    /// Ends in good order: no new connections, and the sessions end with their last one, at most 30 s later.
    pub fn close(&self) {
        self.send(Command::Close);
    }

    /// Ends now.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        // An endpoint that has ended takes none.
        let _ = self.0.unbounded_send(command);
    }
}

/// The consumer of a service.
#[derive(Debug)]
pub struct Consumer<R: Runtime> {
    connects: UnboundedSender<Asker<R::Stream>>,
    control: Control,
}

impl<R: Runtime> Consumer<R> {
    /// Starts a consumer in a task of the runtime. `hubs` is the UDP port of the hub, or more than that; its name is in `config`.
    ///
    /// # Errors
    /// Settings that cannot be used, or no socket.
    pub fn start(mut config: Config, hubs: impl Into<Hubs>) -> Result<Self, StartError> {
        config.role = Role::Consumer;
        let (connects, requests) = mpsc::unbounded();
        let (control, task) = prepare::<R>(config, hubs.into(), Local::Connect(requests), |_| {})?;
        R::spawn(task);
        Ok(Self { connects, control })
    }

    /// Opens a connection to a provider of the service. It is there at once; while no session is, what is written waits, for at most 10 s.
    ///
    /// # Errors
    /// The endpoint is closed, or has as many connections as it may have.
    pub async fn connect(&self) -> Result<R::Stream, ConnectError> {
        let (answer, result) = oneshot::channel();
        self.connects.unbounded_send(answer).map_err(|_| ConnectError::Closed)?;
        result.await.map_err(|_| ConnectError::Closed)?
    }

    /// Governs it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl<R: Runtime> Drop for Consumer<R> {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// The provider of a service.
#[derive(Debug)]
pub struct Provider<R: Runtime> {
    incoming: Receiver<R::Stream>,
    control: Control,
}

impl<R: Runtime> Provider<R> {
    /// Starts a provider in a task of the runtime. `hubs` is the UDP port of the hub, or more than that; its name is in `config`.
    ///
    /// # Errors
    /// Settings that cannot be used, or no socket.
    pub fn listen(mut config: Config, hubs: impl Into<Hubs>) -> Result<Self, StartError> {
        config.role = Role::Provider;
        // Its one sender has a place of its own.
        let (accepted, incoming) = mpsc::channel(BACKLOG - 1);
        let (control, task) = prepare::<R>(config, hubs.into(), Local::Accept(accepted), |_| {})?;
        R::spawn(task);
        Ok(Self { incoming, control })
    }

    /// The next connection; `None` when the endpoint has ended.
    pub async fn accept(&mut self) -> Option<R::Stream> {
        self.incoming.recv().await.ok()
    }

    /// Governs it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl<R: Runtime> Drop for Provider<R> {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// An agent in front of TCP consumers: listens on `bind` and gives each TCP connection a connection to the service.
/// Returns its control, where it listens, and its task. `notices` hears of sessions.
///
/// # Errors
/// Settings that cannot be used, no UDP socket, or a TCP address that cannot be bound.
pub fn consumer_agent<R: Runtime>(
    mut config: Config,
    hubs: impl Into<Hubs>,
    bind: impl Into<Bind>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, SocketAddr, impl Future<Output = ()> + Send), StartError> {
    config.role = Role::Consumer;
    let Bind { address, keepalive } = bind.into();
    let (listener, local) = listen(address, false, keepalive).map_err(|error| StartError::Listen { address, error })?;
    let (control, task) = prepare::<R>(config, hubs.into(), Local::Listener(listener), notices)?;
    Ok((control, local, task))
}

/// An agent in front of a TCP service: dials `forward` (`host:port`) for each connection. Returns its control and its task. `notices` hears of sessions.
///
/// # Errors
/// Settings that cannot be used, or no UDP socket.
pub fn provider_agent<R: Runtime>(
    mut config: Config,
    hubs: impl Into<Hubs>,
    forward: impl Into<Forward>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, impl Future<Output = ()> + Send), StartError> {
    config.role = Role::Provider;
    prepare::<R>(config, hubs.into(), Local::Forward(forward.into()), notices)
}

fn prepare<R: Runtime>(
    config: Config,
    hubs: Hubs,
    local: Local<R>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, impl Future<Output = ()> + Send + 'static), StartError> {
    let host = config.server_name.clone();
    let endpoint = Endpoint::new(config, seed(), R::epoch())?;
    let udp = Udp::bind_any().map_err(StartError::Udp)?;
    let has_v6 = udp.local_addr().is_ok_and(|address| address.is_ipv6());
    let (commands, inbox) = mpsc::unbounded();
    // One question is enough, and its one sender has a place of its own.
    let (stale, questions) = mpsc::channel(0);
    // An address needs no name server.
    let fixed = host.parse::<IpAddr>().ok();
    let resolver = match (fixed, hubs.resolver) {
        (Some(_), _) => None,
        (None, Some(server)) => Some(Resolver::at(server).fresh()),
        (None, None) => Some(Resolver::system().fresh()),
    };
    if let Some(address) = fixed {
        // The receiver is here.
        let _ = commands.unbounded_send(Command::Addresses(vec![SocketAddr::new(address, hubs.port)]));
    }
    let lookup = resolver.map(|resolver| Lookup::<R> {
        resolver,
        host,
        port: hubs.port,
        has_v6,
        stale: questions,
        commands: commands.clone(),
    });
    let driver = Driver::new(Reactor::new(endpoint, udp), local, inbox, notices, stale);
    let task = async move {
        // The look-up ends with this task, whatever ends that.
        let (_lives, ended) = oneshot::channel();
        if let Some(lookup) = lookup {
            R::spawn(lookup.run_until(ended));
        }
        driver.run().await;
    };
    Ok((Control(commands), task))
}
