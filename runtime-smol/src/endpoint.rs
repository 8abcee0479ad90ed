//! Endpoints on smol: one task with one socket and one loop, for all sessions and connections of an endpoint.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::{Stream as _, future};
use smol::channel::{self, Receiver, Sender, WeakSender};
use socket2::SockRef;
use towline_core::{
    host::{AcceptPause, Bridge, ConnWaker, LocalEnd, ReadBuffer, Turn, Wakes, pair},
    quic::{Identity, Roots},
    spn::{
        Role,
        endpoint::{Config, ConfigError, ConnId, ConnectError, Endpoint, Notice},
        wire::code,
    },
};

use crate::{
    bridge::{READ, Tcp, dial, set_up},
    hub::{epoch, seed},
    reactor::{Reactor, TURNS},
    resolve::{ResolveError, Resolver, is_usable},
    stream::Stream,
    tcp::Alarm,
    udp::Udp,
};

/// How often the name of the hub is resolved,
const RESOLVE: Duration = Duration::from_secs(60);
/// and, since a session could not be made, at most.
const RESOLVE_ON_DEMAND: Duration = Duration::from_secs(1);
/// The same, while it has no answer.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);
/// How long that may take: the servers may have been replaced meanwhile.
const ANSWER: Duration = Duration::from_secs(10);
/// How often local ends are looked after that may break off unheard, or have only so much time.
const WATCH: Duration = Duration::from_millis(250);
/// How long an endpoint that has ended in order waits for local ends that have not got everything yet.
const LEFT_OVER: Duration = Duration::from_secs(3);
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

/// Where connections come from and go to.
enum Local {
    /// A consumer's TCP listener.
    Listener(Async<TcpListener>),
    /// A provider's TCP service.
    Forward(Forward),
    /// A consumer of the library.
    Connect(Pin<Box<Receiver<Asker>>>),
    /// A provider of the library.
    Accept(Sender<Stream>),
    /// A consumer's that takes nothing new.
    Over,
}

impl Local {
    /// Lets the listener's address go, so that whoever takes over can have it at once, and clients find nobody rather than a reset.
    fn close(&mut self) {
        if let Self::Listener(_) = self {
            *self = Self::Over;
        }
    }
}

/// Who wants a connection.
type Asker = Sender<Result<Stream, ConnectError>>;

enum Command {
    Addresses(Vec<SocketAddr>),
    SetWeight(u16),
    SetIdentity(Box<(Identity, Roots)>, Sender<Result<(), ConfigError>>),
    Close,
    Stop,
}

/// What an endpoint tells about its sessions.
pub use towline_core::spn::endpoint::Notice as SessionNotice;

/// Governs a running endpoint. When the last one is dropped the endpoint runs on.
#[derive(Debug, Clone)]
pub struct Control(Sender<Command>);

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
        let (answer, result) = channel::bounded(1);
        self.send(Command::SetIdentity(Box::new((identity, roots)), answer));
        // An endpoint that has ended needs none.
        result.recv().await.unwrap_or(Ok(()))
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
        let _ = self.0.try_send(command);
    }
}

/// The consumer of a service.
///
/// ```no_run
/// use futures_lite::{AsyncReadExt, AsyncWriteExt};
/// use towline_core::{quic::{Identity, Roots}, spn::{Role, endpoint::Config}};
/// use towline_smol::endpoint::Consumer;
///
/// # async fn example(identity: Identity, roots: Roots) -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new(Role::Consumer, "hub.example.net", identity, roots);
/// let consumer = Consumer::start(config, 4433)?;
/// let mut stream = consumer.connect().await?;
/// stream.write_all(b"hello").await?;
/// stream.close().await?;
/// let mut answer = Vec::new();
/// stream.read_to_end(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    connects: Sender<Asker>,
    control: Control,
}

impl Consumer {
    /// Starts a consumer in a task of smol's global executor. `hubs` is the UDP port of the hub, or more than that; its name is in `config`.
    ///
    /// # Errors
    /// Settings that cannot be used, or no socket.
    pub fn start(mut config: Config, hubs: impl Into<Hubs>) -> Result<Self, StartError> {
        config.role = Role::Consumer;
        let (connects, requests) = channel::bounded(BACKLOG);
        let (control, task) = prepare(config, hubs.into(), Local::Connect(Box::pin(requests)), |_| {})?;
        smol::spawn(task).detach();
        Ok(Self { connects, control })
    }

    /// Opens a connection to a provider of the service. It is there at once; while no session is, what is written waits, for at most 10 s.
    ///
    /// # Errors
    /// The endpoint is closed, or has as many connections as it may have.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let (answer, result) = channel::bounded(1);
        self.connects.send(answer).await.map_err(|_| ConnectError::Closed)?;
        result.recv().await.map_err(|_| ConnectError::Closed)?
    }

    /// Governs it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// The provider of a service.
#[derive(Debug)]
pub struct Provider {
    incoming: Receiver<Stream>,
    control: Control,
}

impl Provider {
    /// Starts a provider in a task of smol's global executor. `hubs` is the UDP port of the hub, or more than that; its name is in `config`.
    ///
    /// # Errors
    /// Settings that cannot be used, or no socket.
    pub fn listen(mut config: Config, hubs: impl Into<Hubs>) -> Result<Self, StartError> {
        config.role = Role::Provider;
        let (accepted, incoming) = channel::bounded(BACKLOG);
        let (control, task) = prepare(config, hubs.into(), Local::Accept(accepted), |_| {})?;
        smol::spawn(task).detach();
        Ok(Self { incoming, control })
    }

    /// The next connection; `None` when the endpoint has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await.ok()
    }

    /// Governs it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// An agent in front of TCP consumers: listens on `bind` and gives each TCP connection a connection to the service.
/// Returns its control, where it listens, and its task. `notices` hears of sessions.
///
/// # Errors
/// Settings that cannot be used, no UDP socket, or a TCP address that cannot be bound.
pub fn consumer_agent(
    mut config: Config,
    hubs: impl Into<Hubs>,
    bind: impl Into<Bind>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, SocketAddr, impl Future<Output = ()> + Send), StartError> {
    config.role = Role::Consumer;
    let Bind { address, keepalive } = bind.into();
    let failed = |error| StartError::Listen { address, error };
    let listener = Async::<TcpListener>::bind(address).map_err(failed)?;
    set_up(&SockRef::from(listener.get_ref()), keepalive).map_err(failed)?;
    let local = listener.get_ref().local_addr().map_err(failed)?;
    let (control, task) = prepare(config, hubs.into(), Local::Listener(listener), notices)?;
    Ok((control, local, task))
}

/// An agent in front of a TCP service: dials `forward` (`host:port`) for each connection. Returns its control and its task. `notices` hears of sessions.
///
/// # Errors
/// Settings that cannot be used, or no UDP socket.
pub fn provider_agent(
    mut config: Config,
    hubs: impl Into<Hubs>,
    forward: impl Into<Forward>,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, impl Future<Output = ()> + Send), StartError> {
    config.role = Role::Provider;
    prepare(config, hubs.into(), Local::Forward(forward.into()), notices)
}

fn prepare(
    config: Config,
    hubs: Hubs,
    local: Local,
    notices: impl FnMut(SessionNotice) + Send + 'static,
) -> Result<(Control, impl Future<Output = ()> + Send), StartError> {
    let host = config.server_name.clone();
    let endpoint = Endpoint::new(config, seed(), epoch())?;
    let udp = Udp::bind_any().map_err(StartError::Udp)?;
    let has_v6 = udp.local_addr().is_ok_and(|address| address.is_ipv6());
    let (commands, inbox) = channel::unbounded();
    let (stale, looks) = channel::bounded(1);
    // An address needs no name server.
    let fixed = host.parse::<IpAddr>().ok();
    let resolver = match (fixed, hubs.resolver) {
        (Some(_), _) => None,
        (None, Some(server)) => Some(Resolver::at(server).fresh()),
        (None, None) => Some(Resolver::system().fresh()),
    };
    if let Some(address) = fixed {
        // The receiver is here.
        let _ = commands.try_send(Command::Addresses(vec![SocketAddr::new(address, hubs.port)]));
    }
    let lookup = resolver.map(|resolver| Lookup {
        resolver,
        host,
        port: hubs.port,
        has_v6,
        stale: looks,
        commands: commands.downgrade(),
    });
    let driver = Driver {
        reactor: Reactor::new(endpoint, udp),
        local,
        inbox: Box::pin(inbox),
        notices,
        stale,
        bridges: BTreeMap::new(),
        wakes: Arc::new(Wakes::default()),
        woken: Vec::new(),
        read_buffer: ReadBuffer::new(READ),
        scratch: Vec::new(),
        watched: Vec::new(),
        pause: AcceptPause::default(),
        alarm: Alarm::new(),
        watch: Timer::after(WATCH),
        closed: None,
        is_closing: false,
        is_stopped: false,
    };
    let task = async move {
        // It ends with this task.
        let _lookup = lookup.map(|lookup| smol::spawn(lookup.run()));
        driver.run().await;
    };
    Ok((Control(commands), task))
}

/// Looks the hub's name up again and again, for as long as the endpoint runs.
struct Lookup {
    resolver: Resolver,
    host: String,
    port: u16,
    has_v6: bool,
    /// A session could not be made: its address may be no longer listed (docs/protocols/spn.md, Several hubs).
    stale: Receiver<()>,
    commands: WeakSender<Command>,
}

impl Lookup {
    async fn run(self) {
        let mut is_known = false;
        loop {
            let late = async {
                Timer::after(ANSWER).await;
                Err(ResolveError::NoAnswer)
            };
            match future::or(self.resolver.addresses(&self.host), late).await {
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
                        let Some(commands) = self.commands.upgrade() else { return };
                        if commands.try_send(Command::Addresses(addresses)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(host = self.host, %error, "cannot resolve the hub's name; trying again");
                }
            }
            let began = Instant::now();
            let later = async {
                Timer::after(if is_known { RESOLVE } else { RESOLVE_AGAIN }).await;
            };
            let asked = async {
                // The endpoint is there for as long as this runs.
                let _ = self.stale.recv().await;
            };
            future::or(asked, later).await;
            Timer::after(RESOLVE_ON_DEMAND.saturating_sub(began.elapsed())).await;
        }
    }
}

fn poll_accept(listener: &Async<TcpListener>, cx: &mut Context<'_>) -> Poll<io::Result<Async<TcpStream>>> {
    loop {
        match listener.get_ref().accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(listener.poll_readable(cx))?,
            accepted => return Poll::Ready(accepted.and_then(|(tcp, _)| Async::new(tcp))),
        }
    }
}

struct Driver<N> {
    reactor: Reactor<Endpoint>,
    local: Local,
    inbox: Pin<Box<Receiver<Command>>>,
    notices: N,
    /// Wakes whoever looks the hub's name up.
    stale: Sender<()>,
    bridges: BTreeMap<ConnId, Bridge<Tcp>>,
    wakes: Arc<Wakes<ConnId>>,
    /// Scratch: those that are being served.
    woken: Vec<ConnId>,
    read_buffer: ReadBuffer,
    scratch: Vec<Bytes>,
    /// Connections whose local ends are looked after now and then.
    watched: Vec<ConnId>,
    /// The listener's.
    pause: AcceptPause,
    alarm: Alarm,
    watch: Timer,
    /// The endpoint has ended, and what is left over has until then.
    closed: Option<Instant>,
    /// It was told to end.
    is_closing: bool,
    /// Nobody waits for what is left over.
    is_stopped: bool,
}

impl<N: FnMut(SessionNotice)> Driver<N> {
    async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the endpoint's socket failed; the endpoint has ended");
        }
        let now = Instant::now();
        for bridge in self.bridges.values_mut() {
            // TCP peers are reset when their sockets are closed, which follows.
            bridge.break_off(now, code::PARTNER_LOST);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wakes.register(cx.waker());
        for _ in 0..TURNS {
            let now = Instant::now();
            let mut progress = self.poll_commands(cx, now);
            progress |= self.poll_local(cx, now);
            progress |= self.reactor.poll_input(cx, now)?;
            self.reactor.poll_output(cx, now)?;
            while let Some(notice) = self.reactor.binding.poll_notice() {
                progress = true;
                self.notice(now, notice);
            }
            progress |= self.serve(now);
            progress |= self.watch(cx, now);
            if self.closed.is_some_and(|until| self.is_stopped || until <= now || !self.has_left_over()) {
                return Poll::Ready(Ok(()));
            }
            if !progress && !self.reactor.poll_deadline(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        while let Poll::Ready(Some(command)) = self.inbox.as_mut().poll_next(cx) {
            let endpoint = &mut self.reactor.binding;
            match command {
                Command::Addresses(addresses) => endpoint.handle_addresses(now, &addresses),
                Command::SetWeight(weight) => endpoint.set_weight(now, weight),
                Command::SetIdentity(new, answer) => {
                    // The asker may have gone.
                    let _ = answer.try_send(endpoint.set_identity(new.0, new.1));
                }
                Command::Close => {
                    self.local.close();
                    // The second time forces it.
                    self.is_stopped |= std::mem::replace(&mut self.is_closing, true);
                    endpoint.close(now);
                }
                Command::Stop => {
                    self.local.close();
                    self.is_stopped = true;
                    endpoint.stop(now);
                }
            }
            progress = true;
        }
        progress
    }

    /// Takes new local connections, a bounded number.
    fn poll_local(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        for _ in 0..TURNS {
            if let Some(due) = self.pause.poll_timeout()
                && self.pause.is_on(now)
                && !self.alarm.poll(cx, due)
            {
                return progress;
            }
            match &mut self.local {
                Local::Listener(listener) => match poll_accept(listener, cx) {
                    Poll::Ready(Ok(tcp)) => {
                        if self.pause.accepted() {
                            tracing::info!("TCP connections are accepted again");
                        }
                        let connected = self.reactor.binding.connect(now);
                        match connected {
                            Ok(id) => self.bridge(id, LocalEnd::Tcp(Tcp::new(tcp))),
                            // To close it is to reset it.
                            Err(error) => tracing::warn!(%error, "TCP connection refused"),
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        if self.pause.failed(now, &error) {
                            tracing::warn!(%error, "cannot accept a TCP connection; trying again until it can be");
                        }
                    }
                    Poll::Pending => return progress,
                },
                Local::Connect(requests) => match requests.as_mut().poll_next(cx) {
                    Poll::Ready(Some(answer)) => {
                        let connected = self.reactor.binding.connect(now).map(|id| {
                            let (user, half) = pair();
                            self.bridge(id, LocalEnd::Stream(half));
                            Stream(user)
                        });
                        // An asker that has gone drops its stream, and that ends the connection.
                        let _ = answer.try_send(connected);
                    }
                    Poll::Ready(None) | Poll::Pending => return progress,
                },
                Local::Forward(_) | Local::Accept(_) | Local::Over => return progress,
            }
            progress = true;
        }
        progress
    }

    fn bridge(&mut self, id: ConnId, local: LocalEnd<Tcp>) {
        let waker = ConnWaker::new(&self.wakes, id);
        waker.wake();
        self.bridges.insert(id, Bridge::new(local, waker));
    }

    /// Whether a local end has not got everything yet of a connection that is over.
    fn has_left_over(&self) -> bool {
        self.bridges.values().any(Bridge::is_left_over)
    }

    fn notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Incoming(id) => self.incoming(now, id),
            Notice::Readable(id) | Notice::Writable(id) => {
                if let Some(bridge) = self.bridges.get(&id) {
                    bridge.waker.wake();
                }
            }
            Notice::Ended(id) => {
                if let Some(bridge) = self.bridges.get_mut(&id) {
                    bridge.ended();
                    bridge.waker.wake();
                }
            }
            Notice::Stopped(id, code) => {
                if let Some(bridge) = self.bridges.get_mut(&id) {
                    bridge.stopped(code);
                    bridge.waker.wake();
                }
            }
            Notice::Reset(id, code) => {
                if self.bridges.get_mut(&id).is_some_and(|bridge| !bridge.break_off(now, code)) {
                    self.bridges.remove(&id);
                }
            }
            Notice::Closed => self.closed = Some(now + LEFT_OVER),
            notice @ (Notice::SessionWaiting { .. } | Notice::SessionEnded { .. }) => {
                // One is enough.
                let _ = self.stale.try_send(());
                (self.notices)(notice);
            }
            notice @ (Notice::SessionUp { .. } | Notice::SessionReserved { .. } | Notice::Limit { .. }) => {
                (self.notices)(notice);
            }
        }
    }

    fn incoming(&mut self, now: Instant, id: ConnId) {
        match &mut self.local {
            Local::Forward(forward) => {
                let local = dial(&forward.address, forward.keepalive);
                self.bridge(id, local);
            }
            Local::Accept(accepted) => {
                let (user, half) = pair();
                match accepted.try_send(Stream(user)) {
                    Ok(()) => self.bridge(id, LocalEnd::Stream(half)),
                    Err(_) => self.reactor.binding.reset(now, id, code::NOT_STARTED),
                }
            }
            // A consumer is not called.
            Local::Listener(_) | Local::Connect(_) | Local::Over => {
                self.reactor.binding.reset(now, id, code::MALFORMED)
            }
        }
    }

    /// Looks after local ends now and then; says whether it has looked.
    fn watch(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if (self.watched.is_empty() && self.closed.is_none()) || Pin::new(&mut self.watch).poll_next(cx).is_pending() {
            return false;
        }
        self.watch.set_after(WATCH);
        let bridges = &mut self.bridges;
        self.watched.retain(|id| bridges.get_mut(id).is_some_and(|bridge| bridge.watch(now)));
        true
    }

    /// Serves the connections that are ready.
    fn serve(&mut self, now: Instant) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.wakes.take(&mut woken);
        let progress = !woken.is_empty();
        for id in woken.drain(..) {
            let Some(bridge) = self.bridges.get_mut(&id) else { continue };
            let endpoint = &mut self.reactor.binding;
            match bridge.turn(now, endpoint, id, &mut self.read_buffer, &mut self.scratch) {
                Turn::Wait if bridge.wants_watch() => self.watched.push(id),
                Turn::Wait => {}
                Turn::Again => bridge.waker.wake(),
                Turn::Over => drop(self.bridges.remove(&id)),
            }
        }
        self.woken = woken;
        progress
    }
}
