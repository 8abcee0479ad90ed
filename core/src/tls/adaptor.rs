//! TLS under any byte-stream binding.

mod conn;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use super::{
    ClientConfig, PeerIdentity, ServerConfig,
    connection::{self, Action, Event},
};
use crate::{
    machine::{Deadlines, Machine as _},
    net::{self, AcceptFault, Command, ConnId, Fault, StreamBinding, Table},
};
use conn::Conn;

/// Settings of an adaptor.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this end shows and demands as a server. Without it no connection is accepted.
    pub server: Option<ServerConfig>,
    /// What this end shows and demands as a client. Without it no connection can be opened.
    pub client: Option<ClientConfig>,
    /// Handshakes of incoming connections at once, and those that are over and wait for the inner binding. Beyond that the oldest handshake gives
    /// way to a newcomer.
    pub max_handshakes: usize,
    /// Time limits.
    pub connection: connection::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { server: None, client: None, max_handshakes: 256, connection: connection::Config::default() }
    }
}

/// What the owner must know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<N> {
    /// A notice of the inner binding.
    Inner(N),
    /// The inner binding has a connection whose peer is known.
    Secured {
        /// The inner binding's number.
        conn: ConnId,
        /// The peer's address, of a connection that came in.
        remote: Option<SocketAddr>,
        /// The peer's certificate, if it has shown one.
        peer: Option<PeerIdentity>,
    },
    /// A connection is broken.
    Failed(Failure),
}

/// A connection that broke, or never was secure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The inner binding's number, if the inner binding had the connection.
    pub conn: Option<ConnId>,
    /// The peer's address, if it is known.
    pub remote: Option<SocketAddr>,
    /// The kind of failure, as the inner binding sees it.
    pub fault: Fault,
    /// The reason in the words of the TLS library; empty when the transport failed.
    pub detail: String,
}

/// An adaptor: a byte-stream binding over TLS.
///
/// The numbers of connections are its own, since a transport outlives the inner binding's connection until `close_notify` has left.
/// The server's name is the one that the inner binding has resolved, or the address that it has dialled.
pub struct Tls<B: StreamBinding> {
    inner: B,
    config: Config,
    conns: Table<ConnId, Conn>,
    /// The transport of each connection of the inner binding.
    wires: BTreeMap<ConnId, ConnId>,
    /// Incoming connections whose handshake lasts, oldest first.
    handshakes: VecDeque<ConnId>,
    /// Incoming connections that the inner binding has not taken yet.
    offered: VecDeque<ConnId>,
    /// Connections with something to do.
    ready: VecDeque<ConnId>,
    commands: VecDeque<Command>,
    notices: VecDeque<Notice<B::Notice>>,
    deadlines: Deadlines<ConnId>,
    /// The inner binding has nothing more to do: `Stop` follows when the last bytes have left.
    is_stopping: bool,
    /// As of the last call.
    now: Instant,
}

impl<B: StreamBinding> Tls<B> {
    /// Puts TLS under a binding.
    #[must_use]
    pub fn new(now: Instant, inner: B, config: Config) -> Self {
        Self {
            inner,
            config,
            conns: Table::default(),
            wires: BTreeMap::new(),
            handshakes: VecDeque::new(),
            offered: VecDeque::new(),
            ready: VecDeque::new(),
            commands: VecDeque::new(),
            notices: VecDeque::new(),
            deadlines: Deadlines::default(),
            is_stopping: false,
            now,
        }
    }

    /// The inner binding.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The inner binding, to be given an order. The next [`poll_command`](StreamBinding::poll_command) performs what follows from it.
    pub fn inner_mut(&mut self, now: Instant) -> &mut B {
        self.now = now;
        &mut self.inner
    }

    /// New settings, for connections from now on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Does what there is to do, one thing at a time: after each event the inner binding is drained (the contract of [`StreamBinding`]).
    fn settle(&mut self) {
        loop {
            if let Some(command) = self.inner.poll_command() {
                self.obey(command);
            } else if let Some(id) = self.ready.pop_front() {
                self.serve(id);
            } else if let Some(id) = self.offered.pop_front_if(|_| self.inner.wants_accept()) {
                self.admit(id);
            } else {
                break;
            }
        }
        if self.is_stopping && !self.conns.iter().any(|(_, conn)| conn.machine.is_closing()) {
            self.is_stopping = false;
            self.commands.push_back(Command::Stop);
        }
    }

    /// Carries on with one connection.
    fn serve(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some((event, detail)) = conn.finding() {
            return self.event(id, event, &detail);
        }
        if let Some(event) = conn.answer() {
            self.ready.push_back(id);
            return self.report(id, event);
        }
        while let Some(command) = conn.command(id) {
            self.commands.push_back(command);
        }
    }

    /// Hands a connection whose peer is known to the inner binding.
    fn admit(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(remote) = conn.remote else { return };
        let inner = self.inner.handle_incoming(self.now, remote);
        conn.inner = Some(inner);
        self.wires.insert(inner, id);
        self.note_secured(id);
        self.event(id, Event::Admitted, "");
    }

    /// Does what the inner binding wants.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Resolve { conn, name } => {
                let id = self.dial(conn, |dialled| dialled.name = Some(name.clone()));
                self.commands.push_back(Command::Resolve { conn: id, name });
            }
            Command::Connect { conn, address } => {
                let id = self.dial(conn, |dialled| dialled.remote = Some(address));
                self.commands.push_back(Command::Connect { conn: id, address });
            }
            Command::Read { conn, max } => self.change(conn, |conn| conn.read(max)),
            Command::Write { conn, bytes } => self.change(conn, |conn| conn.write(&bytes)),
            Command::Close { conn, how, unread } => {
                if let Some(id) = self.wires.remove(&conn) {
                    if let Some(conn) = self.conns.get_mut(id) {
                        conn.leave(unread);
                    }
                    self.event(id, Event::Close { how }, "");
                }
            }
            Command::StopListening => {
                self.commands.push_back(Command::StopListening);
                for id in std::mem::take(&mut self.handshakes).into_iter().chain(std::mem::take(&mut self.offered)) {
                    self.event(id, Event::GiveWay, "");
                }
            }
            Command::Stop => self.is_stopping = true,
        }
    }

    /// The transport of a connection that the inner binding opens: a new one, unless its name was resolved before.
    fn dial(&mut self, inner: ConnId, change: impl FnOnce(&mut Conn)) -> ConnId {
        let id = self.wires.get(&inner).copied().unwrap_or_else(|| {
            let id = self.conns.insert(Conn::outgoing(&self.config, inner));
            self.wires.insert(inner, id);
            self.event(id, Event::Dial, "");
            id
        });
        if let Some(conn) = self.conns.get_mut(id) {
            change(conn);
        }
        id
    }

    /// Changes what the inner binding wants of a connection.
    fn change(&mut self, inner: ConnId, change: impl FnOnce(&mut Conn)) {
        if let Some(&id) = self.wires.get(&inner)
            && let Some(conn) = self.conns.get_mut(id)
        {
            change(conn);
            self.ready.push_back(id);
        }
    }

    /// Hands an event to the machine of a connection, and does what it asks for. `detail` is the reason of a failure.
    fn event(&mut self, id: ConnId, event: Event, detail: &str) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.machine.handle_event(self.now, event);
            self.perform(id, detail);
        }
    }

    fn perform(&mut self, id: ConnId, detail: &str) {
        while let Some(conn) = self.conns.get_mut(id)
            && let Some(action) = conn.machine.next_action(&mut self.deadlines, id)
        {
            match action {
                Action::StartHandshake => conn.start_handshake(&self.config, self.now),
                Action::Offer => {
                    self.handshakes.retain(|handshake| *handshake != id);
                    self.offered.push_back(id);
                }
                Action::ReportConnected => {
                    self.note_secured(id);
                    self.report(id, net::Event::Connected);
                }
                Action::ReportConnectFailed { fault } => self.report(id, net::Event::ConnectFailed { fault }),
                Action::ReportEnd => {
                    conn.take_credit();
                    self.report(id, net::Event::End);
                }
                Action::ReportError { fault } => {
                    conn.fail(fault);
                    self.note_failed(id, fault, detail);
                }
                Action::ReportHandshakeFailed { fault } => self.note_failed(id, fault, detail),
                Action::SendCloseNotify => conn.send_close_notify(),
                Action::Flush => {
                    self.handshakes.retain(|handshake| *handshake != id);
                    conn.flush();
                }
                Action::CloseWire { how } => {
                    self.commands.push_back(Command::Close { conn: id, how, unread: conn.unread });
                    self.remove(id);
                }
            }
        }
        self.ready.push_back(id);
    }

    /// Hands an event of a connection to the inner binding.
    fn report(&mut self, id: ConnId, event: net::Event) {
        if let Some(inner) = self.conns.get(id).and_then(|conn| conn.inner) {
            self.inner.handle_event(self.now, inner, event);
        }
    }

    fn note_secured(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id)
            && let Some(inner) = conn.inner
        {
            self.notices.push_back(Notice::Secured { conn: inner, remote: conn.remote, peer: conn.peer() });
        }
    }

    fn note_failed(&mut self, id: ConnId, fault: Fault, detail: &str) {
        if let Some(conn) = self.conns.get(id) {
            let (conn, remote, detail) = (conn.inner, conn.remote, detail.to_owned());
            self.notices.push_back(Notice::Failed(Failure { conn, remote, fault, detail }));
        }
    }

    fn remove(&mut self, id: ConnId) {
        if let Some(inner) = self.conns.remove(id).and_then(|conn| conn.inner) {
            self.wires.remove(&inner);
        }
        self.handshakes.retain(|handshake| *handshake != id);
        self.offered.retain(|offered| *offered != id);
        let conns = &self.conns;
        self.deadlines.sweep(conns.len(), |id| conns.contains(*id));
    }

    /// The oldest handshake makes room for a newcomer.
    fn make_room(&mut self) {
        while self.handshakes.len() + self.offered.len() >= self.config.max_handshakes.max(1)
            && let Some(oldest) = self.handshakes.pop_front()
        {
            self.event(oldest, Event::GiveWay, "");
        }
    }
}

impl<B: StreamBinding> StreamBinding for Tls<B> {
    type Notice = Notice<B::Notice>;

    fn wants_accept(&self) -> bool {
        self.config.server.is_some() && !self.is_stopping && self.inner.wants_accept()
    }

    fn handle_incoming(&mut self, now: Instant, peer: SocketAddr) -> ConnId {
        self.now = now;
        self.make_room();
        let id = self.conns.insert(Conn::incoming(&self.config, peer));
        self.handshakes.push_back(id);
        self.event(id, Event::Accepted, "");
        self.settle();
        id
    }

    fn handle_accept_failed(&mut self, now: Instant, fault: AcceptFault) {
        self.now = now;
        self.inner.handle_accept_failed(now, fault);
        self.settle();
    }

    fn handle_event(&mut self, now: Instant, id: ConnId, event: net::Event) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        self.ready.push_back(id);
        match event {
            net::Event::Data { bytes } => conn.data(&bytes),
            net::Event::Sent { .. } => conn.sent(),
            net::Event::End => {
                if conn.end() {
                    self.event(id, Event::WireEnd, "the connection ended without close_notify");
                }
            }
            net::Event::Error { fault } => {
                conn.broken();
                self.event(id, Event::WireError { fault }, "");
            }
            net::Event::Connected => self.event(id, Event::Connected, ""),
            net::Event::Resolved { .. } | net::Event::ResolveFailed { .. } | net::Event::ConnectFailed { .. } => {
                self.report(id, event);
            }
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some((at, id)) = self.deadlines.expire(now) {
            if self.conns.get_mut(id).is_some_and(|conn| conn.machine.expire(now, at)) {
                self.perform(id, "");
            }
        }
        self.inner.handle_timeout(now);
        self.settle();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next().into_iter().chain(self.inner.poll_timeout()).min()
    }

    fn poll_command(&mut self) -> Option<Command> {
        if self.commands.is_empty() {
            self.settle();
        }
        self.commands.pop_front()
    }

    fn poll_notice(&mut self) -> Option<Self::Notice> {
        self.notices.pop_front().or_else(|| self.inner.poll_notice().map(Notice::Inner))
    }
}

#[cfg(test)]
mod tests;
