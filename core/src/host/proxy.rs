//! The caching proxy for transactions: one task with one loop, for all its connections (docs/protocols/txn.md).

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, Bytes};
use hickory_resolver::net::runtime::RuntimeProvider;

use super::{
    accept::AcceptPause,
    reactor::TURNS,
    resolve::{ResolveError, Resolver},
    runtime::{Alarm, Runtime, TcpListener, TcpStream},
    tcp::{self, close, connect},
    wakes::{ConnWaker, Wakes},
};
use crate::txn::{
    accept::AcceptFault,
    hosts::Hosts,
    proxy::{Command, Config, ConnId, Notice, Proxy},
    transaction::{Close, Event, Fault},
};

/// Bytes of a client that is refused that are thrown away, so that it sees FIN: more than any head has.
const REFUSED_UNREAD: usize = 4096;
/// Events of one connection before others have their turn.
const ROUNDS: usize = 16;

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

/// Why a proxy does not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP {address}: {error} (is something else running there?)")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

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

/// A proxy that listens: its control, where it listens, and its task. `notices` is called in the task and must not block.
///
/// # Errors
/// An address that cannot be listened on.
pub fn serve<R: Runtime>(
    mut config: Config,
    listen: &[SocketAddr],
    names: Names<R::Dns>,
    notices: impl FnMut(&Proxy, Notice) + Send + 'static,
) -> Result<(Control, Vec<SocketAddr>, impl Future<Output = ()> + Send), ListenError> {
    let mut listeners = Vec::new();
    for &address in listen {
        listeners.push(tcp::listen(address, true, None).map_err(|error| ListenError { address, error })?);
    }
    let (listeners, local): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
    config.transaction.own.clone_from(&local);
    let wakes = Arc::new(Wakes::default());
    let wishes = Arc::new(Wishes { drain: AtomicBool::new(false), stop: AtomicBool::new(false), wakes: wakes.clone() });
    let read_buffer = R::Tcp::buffer(config.transaction.chunk);
    let driver = Driver::<R, _> {
        proxy: Proxy::new(config),
        listeners,
        names,
        notices,
        wishes: wishes.clone(),
        peers: Vec::new(),
        wakes,
        woken: Vec::new(),
        serving: None,
        read_buffer,
        pause: AcceptPause::default(),
        is_over: false,
    };
    Ok((Control(wishes), local, driver.run()))
}

struct Driver<R: Runtime, N> {
    proxy: Proxy,
    listeners: Vec<R::Listener>,
    names: Names<R::Dns>,
    notices: N,
    wishes: Arc<Wishes>,
    /// By the index of their connection.
    peers: Vec<Option<Peer<R::Tcp>>>,
    wakes: Arc<Wakes<ConnId>>,
    /// Scratch: those that are being served.
    woken: Vec<ConnId>,
    /// Who is being served right now, and need not be woken for it.
    serving: Option<ConnId>,
    read_buffer: <R::Tcp as TcpStream>::Buffer,
    /// What is said of failures to accept; the proxy itself says when it tries again.
    pause: AcceptPause,
    is_over: bool,
}

impl<R: Runtime, N: FnMut(&Proxy, Notice)> Driver<R, N> {
    async fn run(mut self) {
        let mut alarm = R::Alarm::new();
        self.proxy.start(R::now());
        poll_fn(|cx| self.poll(cx, &mut alarm)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, alarm: &mut R::Alarm) -> Poll<()> {
        self.wakes.register(cx.waker());
        for _ in 0..TURNS {
            let now = R::now();
            let mut progress = self.obey_wishes(now);
            progress |= self.accept(cx, now);
            progress |= self.serve(now);
            if self.proxy.poll_timeout().is_some_and(|due| due <= now) {
                self.proxy.handle_timeout(now);
                progress = true;
            }
            self.obey();
            if self.is_over {
                return Poll::Ready(());
            }
            if !progress && !self.proxy.poll_timeout().is_some_and(|due| alarm.poll(cx, due)) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey_wishes(&mut self, now: Instant) -> bool {
        let (drain, stop) =
            (self.wishes.drain.swap(false, Ordering::AcqRel), self.wishes.stop.swap(false, Ordering::AcqRel));
        if drain {
            self.proxy.drain(now);
        }
        if stop {
            self.proxy.stop(now);
        }
        drain || stop
    }

    /// Accepts from each listener in turn, for as long as the proxy wants more.
    fn accept(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        for _ in 0..TURNS {
            let mut is_idle = true;
            for index in 0..self.listeners.len() {
                if !self.proxy.wants_accept() {
                    return progress;
                }
                let Some(listener) = self.listeners.get_mut(index) else { return progress };
                match listener.poll_accept(cx) {
                    Poll::Ready(Ok((client, address))) => {
                        if self.pause.accepted() {
                            tracing::info!("connections are accepted again");
                        }
                        match self.proxy.handle_incoming(now, address) {
                            Some(conn) => self.add_peer(conn, client),
                            // With FIN (P9), should its head be there already.
                            None => close(client, REFUSED_UNREAD),
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        if self.pause.failed(now, &error) {
                            tracing::warn!(%error, "cannot accept a connection");
                        }
                        self.proxy.handle_accept_failed(now, AcceptFault::from(&error));
                    }
                    Poll::Pending => continue,
                }
                is_idle = false;
                self.obey();
            }
            if is_idle {
                return progress;
            }
            progress = true;
        }
        progress
    }

    fn add_peer(&mut self, conn: ConnId, client: R::Tcp) {
        if self.peers.len() <= conn.index() {
            self.peers.resize_with(conn.index() + 1, || None);
        }
        if let Some(slot) = self.peers.get_mut(conn.index()) {
            *slot = Some(Peer::new(ConnWaker::new(&self.wakes, conn), conn, client));
        }
    }

    fn peer(&mut self, conn: ConnId) -> Option<&mut Peer<R::Tcp>> {
        self.peers.get_mut(conn.index())?.as_mut().filter(|peer| peer.conn == conn)
    }

    /// Serves the connections that are ready.
    fn serve(&mut self, now: Instant) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.wakes.take(&mut woken);
        let progress = !woken.is_empty();
        for conn in woken.drain(..) {
            self.serving = Some(conn);
            self.turn(now, conn);
        }
        self.serving = None;
        self.woken = woken;
        progress
    }

    fn turn(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peer(conn) else { return };
        let waker = peer.waker.begin();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            // It may have gone in the round before.
            let slot = self.peers.get_mut(conn.index()).and_then(Option::as_mut);
            let Some(peer) = slot.filter(|peer| peer.conn == conn) else { return };
            let Some(event) = peer.poll_event(&mut cx, &mut self.read_buffer) else { return };
            self.proxy.handle_event(now, conn, event);
            self.obey();
        }
        waker.wake();
    }

    /// Does what the proxy wants done.
    fn obey(&mut self) {
        while let Some(command) = self.proxy.poll_command() {
            self.perform(command);
        }
        while let Some(notice) = self.proxy.poll_notice() {
            match notice {
                Notice::StopListening => self.listeners.clear(),
                Notice::Stopped { .. } => self.is_over = true,
                Notice::Lookup(_) | Notice::Finished(_) => {}
            }
            (self.notices)(&self.proxy, notice);
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::ReadClient { conn, max } => self.with(conn, |peer| peer.client_credit = Some(max)),
            Command::WriteClient { conn, bytes } => self.with(conn, |peer| peer.to_client = Some(Output::new(bytes))),
            Command::CloseClient { conn, how, unread } => self.with(conn, |peer| {
                (peer.client_credit, peer.to_client) = (None, None);
                end(&mut peer.client, how, unread);
            }),
            Command::Resolve { conn, name, seq } => {
                let names = self.names.clone();
                self.with(conn, |peer| peer.asked = Some(Box::pin(names.resolve(name, seq))));
            }
            Command::Connect { conn, address, seq } => {
                self.with(conn, |peer| peer.dialled = Some((seq, Box::pin(connect(address)))));
            }
            Command::CancelResolve { conn } => self.with(conn, |peer| peer.asked = None),
            Command::CancelConnect { conn } => self.with(conn, |peer| peer.dialled = None),
            Command::WriteOrigin { conn, bytes } => self.with(conn, |peer| peer.to_origin = Some(Output::new(bytes))),
            Command::ReadOrigin { conn, max } => self.with(conn, |peer| peer.origin_credit = Some(max)),
            Command::CloseOrigin { conn, how } => self.with(conn, |peer| {
                (peer.origin_credit, peer.to_origin) = (None, None);
                end(&mut peer.origin, how, 0);
            }),
            Command::Forget { conn } => {
                if self.peer(conn).is_some()
                    && let Some(slot) = self.peers.get_mut(conn.index())
                {
                    *slot = None;
                }
            }
        }
    }

    /// Changes what a connection waits for.
    fn with(&mut self, conn: ConnId, change: impl FnOnce(&mut Peer<R::Tcp>)) {
        let is_served = self.serving == Some(conn);
        if let Some(peer) = self.peer(conn) {
            change(peer);
            if !is_served {
                peer.waker.wake();
            }
        }
    }
}

/// Closes a socket, in good order or with a reset.
fn end<S: TcpStream>(socket: &mut Option<S>, how: Close, unread: usize) {
    match (socket.take(), how) {
        (Some(socket), Close::Fin) => close(socket, unread),
        (Some(_), Close::Abort) | (None, _) => {}
    }
}

impl<P: RuntimeProvider + Default> Names<P> {
    /// Asks for a name; the event answers the question `seq`.
    async fn resolve(self, name: Bytes, seq: u64) -> Event {
        let seq = Some(seq);
        let found = match &self {
            Self::Hosts(hosts) => Ok(hosts.addresses(&name).to_vec()),
            Self::Dns(resolver) => match std::str::from_utf8(&name) {
                // Nobody's search list decides which server is asked.
                Ok(name) if !name.ends_with('.') => resolver.addresses(&format!("{name}.")).await,
                Ok(name) => resolver.addresses(name).await,
                Err(_) => Err(ResolveError::NoSuchName),
            },
        };
        match found {
            Ok(addrs) if !addrs.is_empty() => Event::Resolved { addrs, seq },
            Ok(_) | Err(ResolveError::NoSuchName) => Event::ResolveFailed { why: Fault::NoSuchName, seq },
            Err(error) => {
                tracing::debug!(name = %name.escape_ascii(), %error, "cannot resolve");
                Event::ResolveFailed { why: Fault::Other, seq }
            }
        }
    }
}

type Asked = Pin<Box<dyn Future<Output = Event> + Send>>;
type Dialled<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// The sockets of one connection, and what is to be done with them.
struct Peer<S> {
    conn: ConnId,
    waker: ConnWaker<ConnId>,
    client: Option<S>,
    client_credit: Option<usize>,
    to_client: Option<Output>,
    asked: Option<Asked>,
    dialled: Option<(u64, Dialled<S>)>,
    origin: Option<S>,
    origin_credit: Option<usize>,
    to_origin: Option<Output>,
}

/// Bytes on their way into a socket.
struct Output {
    left: Bytes,
    len: u64,
}

impl Output {
    fn new(left: Bytes) -> Self {
        Self { len: left.len() as u64, left }
    }

    /// Says how many bytes it was, when the socket has taken them all.
    fn poll(&mut self, cx: &mut Context<'_>, socket: &mut impl TcpStream) -> Poll<io::Result<u64>> {
        while !self.left.is_empty() {
            match socket.poll_write(cx, &self.left) {
                Poll::Ready(Ok(written)) => self.left.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(self.len))
    }
}

impl<S: TcpStream> Peer<S> {
    fn new(waker: ConnWaker<ConnId>, conn: ConnId, client: S) -> Self {
        Self {
            conn,
            waker,
            client: Some(client),
            client_credit: None,
            to_client: None,
            asked: None,
            dialled: None,
            origin: None,
            origin_credit: None,
            to_origin: None,
        }
    }

    /// The next thing that has happened to it.
    fn poll_event(&mut self, cx: &mut Context<'_>, buffer: &mut S::Buffer) -> Option<Event> {
        if let Some(client) = &mut self.client {
            if let Some(written) = poll_output(cx, client, &mut self.to_client) {
                return Some(match written {
                    Ok(len) => Event::ClientSent { len },
                    Err(kind) => Event::ClientError { kind },
                });
            }
            if let Some(read) = poll_input(cx, client, &mut self.client_credit, buffer) {
                return Some(match read {
                    Ok(bytes) if bytes.is_empty() => Event::ClientEof,
                    Ok(bytes) => Event::ClientData { bytes },
                    Err(kind) => Event::ClientError { kind },
                });
            }
        }
        if let Some(asked) = &mut self.asked
            && let Poll::Ready(event) = asked.as_mut().poll(cx)
        {
            self.asked = None;
            return Some(event);
        }
        if let Some((seq, dialled)) = &mut self.dialled
            && let Poll::Ready(result) = dialled.as_mut().poll(cx)
        {
            let seq = Some(*seq);
            self.dialled = None;
            return Some(match result {
                Ok(origin) => {
                    self.origin = Some(origin);
                    Event::Connected { seq }
                }
                Err(error) => Event::ConnectFailed { why: Fault::from(&error), seq },
            });
        }
        let origin = self.origin.as_mut()?;
        if let Some(written) = poll_output(cx, origin, &mut self.to_origin) {
            return Some(match written {
                Ok(len) => Event::OriginSent { len },
                Err(kind) => Event::OriginError { kind },
            });
        }
        let read = poll_input(cx, origin, &mut self.origin_credit, buffer)?;
        Some(match read {
            Ok(bytes) if bytes.is_empty() => Event::OriginEof,
            Ok(bytes) => Event::OriginData { bytes },
            Err(kind) => Event::OriginError { kind },
        })
    }
}

/// Writes what there is; says when all of it was taken.
fn poll_output(
    cx: &mut Context<'_>,
    socket: &mut impl TcpStream,
    output: &mut Option<Output>,
) -> Option<Result<u64, Fault>> {
    match output.as_mut()?.poll(cx, socket) {
        Poll::Ready(result) => {
            *output = None;
            Some(result.map_err(|error| Fault::from(&error)))
        }
        Poll::Pending => None,
    }
}

/// Reads once, if there is a credit for it.
fn poll_input<S: TcpStream>(
    cx: &mut Context<'_>,
    socket: &mut S,
    credit: &mut Option<usize>,
    buffer: &mut S::Buffer,
) -> Option<Result<Bytes, Fault>> {
    match socket.poll_read(cx, buffer, (*credit)?) {
        Poll::Ready(result) => {
            *credit = None;
            Some(result.map_err(|error| Fault::from(&error)))
        }
        Poll::Pending => None,
    }
}
