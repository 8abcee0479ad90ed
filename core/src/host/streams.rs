//! One loop for all connections of a byte-stream binding.
//!
//! The loop reads into one buffer for all, and looks only at connections that have something to do: those whose sockets are ready, and those
//! that a command gave work.

mod conn;
mod linger;

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    accept::AcceptPause,
    byte_stream::ByteStream,
    names::Names,
    reactor::TURNS,
    runtime::{Alarm, Runtime, TcpListener, TcpStream},
    tcp,
    wakes::{ConnWaker, Wakes},
};
use crate::net::{AcceptFault, Command, ConnId, StreamBinding};
use conn::{Conn, Transport};

/// Events of one connection before others have their turn.
const ROUNDS: usize = 16;

/// Why a binding cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP {address}: {error} (is something else running there?)")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

/// Listens on TCP addresses; returns the listeners, and where they listen: port 0 chooses a free port.
///
/// # Errors
/// An address that cannot be listened on.
pub fn listen<R: Runtime>(addresses: &[SocketAddr]) -> Result<(Vec<R::Listener>, Vec<SocketAddr>), ListenError> {
    let open = |&address| tcp::listen(address, true, None).map_err(|error| ListenError { address, error });
    let listeners: Vec<_> = addresses.iter().map(open).collect::<Result<_, _>>()?;
    Ok(listeners.into_iter().unzip())
}

/// A byte-stream binding on the sockets of a runtime.
///
/// A plain `poll` function: the owner of the loop calls [`poll_notice`](Self::poll_notice) from a task, and does with each notice what the
/// protocol needs. The loop knows none.
pub struct StreamLoop<B, R: Runtime> {
    binding: B,
    listeners: Vec<R::Listener>,
    names: Names<R::Dns>,
    /// By the index of their number.
    conns: Vec<Option<Conn<R::Tcp>>>,
    wakes: Arc<Wakes<ConnId>>,
    /// Scratch: those whose sockets are ready.
    woken: Vec<ConnId>,
    /// Those that are to be looked at.
    queue: VecDeque<ConnId>,
    /// The connection that is being looked at; it needs no place in the queue.
    serving: Option<ConnId>,
    read_buffer: <R::Tcp as TcpStream>::Buffer,
    alarm: R::Alarm,
    /// What is logged of failures to accept; the binding itself says when it tries again.
    pause: AcceptPause,
    /// Turns since the task last waited.
    turns: usize,
    is_over: bool,
}

impl<B: StreamBinding, R: Runtime> StreamLoop<B, R> {
    /// Puts a binding on listeners (see [`listen`]) and on whatever it connects to. `read` is the most bytes that one read brings.
    pub fn new(binding: B, listeners: Vec<R::Listener>, names: Names<R::Dns>, read: usize) -> Self {
        Self {
            binding,
            listeners,
            names,
            conns: Vec::new(),
            wakes: Arc::default(),
            woken: Vec::new(),
            queue: VecDeque::new(),
            serving: None,
            read_buffer: R::Tcp::buffer(read),
            alarm: R::Alarm::new(),
            pause: AcceptPause::default(),
            turns: 0,
            is_over: false,
        }
    }

    /// The binding.
    pub fn binding(&self) -> &B {
        &self.binding
    }

    /// The binding, to be given an order. The next [`poll_notice`](Self::poll_notice) performs what follows from it.
    pub fn binding_mut(&mut self) -> &mut B {
        &mut self.binding
    }

    /// Puts a byte stream under a connection that the binding has numbered: one that came in
    /// ([`handle_incoming`](StreamBinding::handle_incoming), while it [wants](StreamBinding::wants_accept) one more), or one that it opens without
    /// a `Connect`; to that one the owner hands [`Connected`](crate::net::Event::Connected) afterwards.
    pub fn attach(&mut self, conn: ConnId, stream: impl ByteStream) {
        self.begin(conn, |conn| conn.open(Transport::Stream(Box::new(stream))));
    }

    /// What wakes the task of the loop, from any thread: for a handle whose orders the task is to fetch.
    pub fn wakes(&self) -> Arc<Wakes<ConnId>> {
        self.wakes.clone()
    }

    /// Carries bytes until there is a notice; `None` when the binding has ended. While it waits, the task is woken when there is something to do.
    pub fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Option<B::Notice>> {
        self.wakes.register(cx.waker());
        loop {
            self.perform_all();
            if let Some(notice) = self.binding.poll_notice() {
                return Poll::Ready(Some(notice));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            if self.turns == TURNS {
                self.turns = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.turns += 1;
            if !self.turn(cx, R::now()) && !self.binding.poll_timeout().is_some_and(|due| self.alarm.poll(cx, due)) {
                self.turns = 0;
                return Poll::Pending;
            }
        }
    }

    /// Does once what there is to do; says whether there was anything.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = self.accept(cx, now);
        progress |= self.serve(now);
        if self.binding.poll_timeout().is_some_and(|due| due <= now) {
            self.binding.handle_timeout(now);
            progress = true;
        }
        progress
    }

    /// Accepts from each listener in turn, for as long as the binding wants more.
    fn accept(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        for _ in 0..TURNS {
            let mut is_idle = true;
            for index in 0..self.listeners.len() {
                if !self.binding.wants_accept() {
                    return progress;
                }
                let Some(listener) = self.listeners.get_mut(index) else { return progress };
                match listener.poll_accept(cx) {
                    Poll::Ready(Ok((socket, peer))) => {
                        if self.pause.accepted() {
                            tracing::info!("connections are accepted again");
                        }
                        let conn = self.binding.handle_incoming(now, peer);
                        self.begin(conn, |conn| conn.open(Transport::Tcp(socket)));
                    }
                    Poll::Ready(Err(error)) => {
                        if self.pause.failed(now, &error) {
                            tracing::warn!(%error, "cannot accept a connection");
                        }
                        self.binding.handle_accept_failed(now, AcceptFault::from(&error));
                    }
                    Poll::Pending => continue,
                }
                is_idle = false;
                self.perform_all();
            }
            if is_idle {
                return progress;
            }
            progress = true;
        }
        progress
    }

    /// Serves the connections that are to be looked at: each for some events, and all together for so many each.
    fn serve(&mut self, now: Instant) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.wakes.take(&mut woken);
        for conn in woken.drain(..) {
            self.change(conn, |_| {});
        }
        self.woken = woken;
        let progress = !self.queue.is_empty();
        let mut rounds = ROUNDS * self.queue.len();
        while rounds > 0
            && let Some(conn) = self.queue.pop_front()
        {
            self.serving = Some(conn);
            rounds = rounds.saturating_sub(self.serve_one(now, conn));
            self.serving = None;
        }
        progress
    }

    /// Hands in what has happened to a connection; says how often it was looked at.
    fn serve_one(&mut self, now: Instant, id: ConnId) -> usize {
        let Some(conn) = conn_in(&mut self.conns, id) else { return 1 };
        conn.is_queued = false;
        let waker = conn.waker.begin();
        let mut cx = Context::from_waker(&waker);
        for round in 1..=ROUNDS {
            // It may have been closed in the round before.
            let Some(conn) = conn_in(&mut self.conns, id) else { return round };
            let Poll::Ready(event) = conn.poll_event(&mut cx, &mut self.read_buffer) else { return round };
            self.binding.handle_event(now, id, event);
            self.perform_all();
        }
        self.enqueue(id);
        ROUNDS
    }

    /// Does what the binding wants done.
    fn perform_all(&mut self) {
        while let Some(command) = self.binding.poll_command() {
            self.perform(command);
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Resolve { conn, name } => {
                let names = self.names.clone();
                self.begin(conn, |conn| conn.resolve(names.resolve(name)));
            }
            Command::Connect { conn, address } => self.begin(conn, |conn| conn.connect(address)),
            Command::Read { conn, max } => self.change(conn, |conn| conn.read(max)),
            Command::Write { conn, bytes } => self.change(conn, |conn| conn.write(bytes)),
            Command::Close { conn, how, unread } => {
                let slot = self.conns.get_mut(conn.index());
                if let Some(conn) = slot.and_then(|slot| slot.take_if(|open| open.id == conn))
                    && let Some(stream) = conn.close(how, unread)
                {
                    R::spawn(linger::end::<R>(stream, unread));
                }
            }
            Command::StopListening => self.listeners.clear(),
            Command::Stop => self.is_over = true,
        }
    }

    /// Begins a phase of a connection, which may be new.
    fn begin(&mut self, id: ConnId, phase: impl FnOnce(&mut Conn<R::Tcp>)) {
        if self.conns.len() <= id.index() {
            self.conns.resize_with(id.index() + 1, || None);
        }
        if let Some(slot) = self.conns.get_mut(id.index())
            && slot.as_ref().is_none_or(|conn| conn.id != id)
        {
            *slot = Some(Conn::new(ConnWaker::new(&self.wakes, id), id));
        }
        self.change(id, phase);
    }

    /// Changes what a connection has to do, and has it looked at.
    fn change(&mut self, id: ConnId, change: impl FnOnce(&mut Conn<R::Tcp>)) {
        if let Some(conn) = conn_in(&mut self.conns, id) {
            change(conn);
            if self.serving != Some(id) {
                self.enqueue(id);
            }
        }
    }

    fn enqueue(&mut self, id: ConnId) {
        if let Some(conn) = conn_in(&mut self.conns, id)
            && !std::mem::replace(&mut conn.is_queued, true)
        {
            self.queue.push_back(id);
        }
    }
}

fn conn_in<S>(conns: &mut [Option<Conn<S>>], id: ConnId) -> Option<&mut Conn<S>> {
    conns.get_mut(id.index())?.as_mut().filter(|conn| conn.id == id)
}
