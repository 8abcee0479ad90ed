//! The loop of an endpoint, and the local ends of its connections.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_channel::mpsc::{Sender, UnboundedReceiver};

use super::{
    super::{
        accept::AcceptPause,
        bridge::{Bridge, LocalEnd, Turn},
        halves::pair,
        reactor::{Reactor, TURNS},
        runtime::{Alarm, Runtime, TcpListener, TcpStream},
        tcp::{READ, Tcp, dial},
        wakes::{ConnWaker, Wakes},
    },
    Command, Local, SessionNotice,
};
use crate::spn::{
    endpoint::{ConnId, Endpoint, Notice},
    wire::code::StreamCode,
};

/// How often local ends are looked after that may break off unheard, or have only so much time.
const WATCH: Duration = Duration::from_millis(250);
/// How long an endpoint that has ended in order waits for local ends that have not got everything yet.
const LEFT_OVER: Duration = Duration::from_secs(3);

/// One task with one socket and one loop, for all sessions and connections of an endpoint.
pub(super) struct Driver<R: Runtime, N> {
    reactor: Reactor<Endpoint, R>,
    local: Local<R>,
    inbox: UnboundedReceiver<Command>,
    notices: N,
    /// Wakes the task that looks up the hub's name.
    stale: Sender<()>,
    bridges: BTreeMap<ConnId, Bridge<Tcp<R::Tcp>>>,
    wakes: Arc<Wakes<ConnId>>,
    /// Scratch: those that are being served.
    woken: Vec<ConnId>,
    read_buffer: <R::Tcp as TcpStream>::Buffer,
    scratch: Vec<Bytes>,
    /// Connections whose local ends are looked after now and then.
    watched: Vec<ConnId>,
    /// The listener's.
    pause: AcceptPause,
    alarm: R::Alarm,
    watch: R::Alarm,
    /// When local ends are looked after next.
    watch_due: Instant,
    /// The endpoint has ended, and what is left over has until then.
    closed: Option<Instant>,
    /// The owner has asked for its end.
    is_closing: bool,
    /// What is left is not waited for.
    is_stopped: bool,
}

impl<R: Runtime, N: FnMut(SessionNotice)> Driver<R, N> {
    pub(super) fn new(
        reactor: Reactor<Endpoint, R>,
        local: Local<R>,
        inbox: UnboundedReceiver<Command>,
        notices: N,
        stale: Sender<()>,
    ) -> Self {
        Self {
            reactor,
            local,
            inbox,
            notices,
            stale,
            bridges: BTreeMap::new(),
            wakes: Arc::new(Wakes::default()),
            woken: Vec::new(),
            read_buffer: R::Tcp::buffer(READ),
            scratch: Vec::new(),
            watched: Vec::new(),
            pause: AcceptPause::default(),
            alarm: R::Alarm::new(),
            watch: R::Alarm::new(),
            watch_due: R::now(),
            closed: None,
            is_closing: false,
            is_stopped: false,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the endpoint's socket failed; the endpoint has ended");
        }
        let now = R::now();
        for bridge in self.bridges.values_mut() {
            // TCP peers are reset when their sockets are closed, which follows.
            bridge.break_off(now, StreamCode::PARTNER_LOST);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wakes.register(cx.waker());
        for _ in 0..TURNS {
            let now = R::now();
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
        while let Poll::Ready(Ok(command)) = pin!(self.inbox.recv()).poll(cx) {
            let endpoint = &mut self.reactor.binding;
            match command {
                Command::Addresses(addresses) => endpoint.handle_addresses(now, &addresses),
                Command::SetWeight(weight) => endpoint.set_weight(now, weight),
                Command::SetIdentity(new, answer) => {
                    // The asker may have gone.
                    let _ = answer.send(endpoint.set_identity(new.0, new.1));
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
                Local::Listener(listener) => match listener.poll_accept(cx) {
                    Poll::Ready(Ok((tcp, _))) => {
                        if self.pause.accepted() {
                            tracing::info!("TCP connections are accepted again");
                        }
                        let connected = self.reactor.binding.connect(now);
                        match connected {
                            Ok(id) => self.bridge(id, LocalEnd::Tcp(Tcp(tcp))),
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
                Local::Connect(requests) => match pin!(requests.recv()).poll(cx) {
                    Poll::Ready(Ok(answer)) => {
                        let connected = self.reactor.binding.connect(now).map(|id| {
                            let (user, half) = pair();
                            self.bridge(id, LocalEnd::Stream(half));
                            user.into()
                        });
                        // An asker that has gone drops its stream, and that ends the connection.
                        let _ = answer.send(connected);
                    }
                    Poll::Ready(Err(_)) | Poll::Pending => return progress,
                },
                Local::Forward(_) | Local::Accept(_) | Local::Over => return progress,
            }
            progress = true;
        }
        progress
    }

    fn bridge(&mut self, id: ConnId, local: LocalEnd<Tcp<R::Tcp>>) {
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
                let local = dial::<R>(&forward.address, forward.keepalive);
                self.bridge(id, local);
            }
            Local::Accept(accepted) => {
                let (user, half) = pair();
                match accepted.try_send(user.into()) {
                    Ok(()) => self.bridge(id, LocalEnd::Stream(half)),
                    Err(_) => self.reactor.binding.reset(now, id, StreamCode::NOT_STARTED),
                }
            }
            // A consumer is not called.
            Local::Listener(_) | Local::Connect(_) | Local::Over => {
                self.reactor.binding.reset(now, id, StreamCode::MALFORMED)
            }
        }
    }

    /// Looks after local ends now and then; says whether it has looked.
    fn watch(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if (self.watched.is_empty() && self.closed.is_none()) || !self.watch.poll(cx, self.watch_due) {
            return false;
        }
        self.watch_due = now + WATCH;
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
