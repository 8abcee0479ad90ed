//! The machine on byte streams: one machine for each client, still no I/O.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use towline_core::{
    machine::{Deadlines, Describe, Hosted, Machine},
    net::{self, AcceptFault, Close, Command, ConnId, StreamBinding, Table},
};

use super::machine::{Action, Config, Event, Greet, Outcome};

/// Limit of concurrent clients; others wait in the queue of the listener.
const CLIENTS_MAX: usize = 1000;
/// Limit of bytes after the name that are discarded, so that the client sees a clean end.
const UNREAD_MAX: usize = 4096;
/// The pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Greets all clients.
#[derive(Debug, Default)]
pub struct Greeter {
    config: Config,
    clients: Table<ConnId, Hosted<Greet>>,
    deadlines: Deadlines<Due>,
    commands: VecDeque<Command>,
    notices: VecDeque<Ended>,
    is_pausing: bool,
    is_ending: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Accept,
    Client(ConnId),
}

/// The notice to the owner: a client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its connection.
    pub conn: ConnId,
    /// The outcome.
    pub outcome: Outcome,
}

impl Greeter {
    /// A greeter without clients.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Accepts no more clients, and stops after the last one.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.commands.push_back(Command::StopListening);
            self.stop_after_the_last();
        }
    }

    /// Current number of clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    fn handle(&mut self, now: Instant, conn: ConnId, event: Event) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.handle_event(now, event);
            self.drain(conn);
        }
    }

    fn drain(&mut self, conn: ConnId) {
        // The machine does not close a client that has reset its connection.
        let mut how = Close::Abort;
        while let Some(action) = self.next_action(conn) {
            match action {
                Action::ReadClient { max } => self.commands.push_back(Command::Read { conn, max }),
                Action::WriteClient { bytes } => self.commands.push_back(Command::Write { conn, bytes }),
                Action::CloseClient => how = Close::Fin,
                Action::Finished { outcome } => {
                    self.commands.push_back(Command::Close { conn, how, unread: UNREAD_MAX });
                    self.notices.push_back(Ended { conn, outcome });
                    self.clients.remove(conn);
                    self.stop_after_the_last();
                }
            }
        }
    }

    /// The next action of a client's machine. After the last one, the deadline is noted.
    fn next_action(&mut self, conn: ConnId) -> Option<Action> {
        self.clients.get_mut(conn)?.next_action(&mut self.deadlines, Due::Client(conn))
    }

    fn stop_after_the_last(&mut self) {
        let clients = &self.clients;
        self.deadlines.sweep(clients.len(), |due| match due {
            Due::Accept => true,
            Due::Client(conn) => clients.contains(*conn),
        });
        if self.is_ending && self.clients.is_empty() {
            self.commands.push_back(Command::Stop);
        }
    }
}

impl StreamBinding for Greeter {
    type Notice = Ended;

    fn wants_accept(&self) -> bool {
        !self.is_pausing && !self.is_ending && self.clients.len() < CLIENTS_MAX
    }

    fn handle_incoming(&mut self, now: Instant, _peer: SocketAddr) -> ConnId {
        let machine = Greet::start(self.config.clone(), 0);
        let conn = self.clients.insert(Hosted::new(machine));
        self.handle(now, conn, Event::Accepted);
        conn
    }

    fn handle_accept_failed(&mut self, now: Instant, fault: AcceptFault) {
        match fault {
            AcceptFault::Aborted | AcceptFault::Interrupted => {}
            AcceptFault::Files | AcceptFault::Memory | AcceptFault::Other => {
                self.is_pausing = true;
                self.deadlines.push(now + PAUSE, Due::Accept);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, conn: ConnId, event: net::Event) {
        let event = match event {
            net::Event::Data { bytes } => Event::ClientData { bytes },
            net::Event::End => Event::ClientEof,
            net::Event::Sent { len } => Event::ClientSent { len: usize::try_from(len).unwrap_or(usize::MAX) },
            net::Event::Error { .. } => Event::ClientError,
            // The greeter resolves no names and opens no connections.
            net::Event::Resolved { .. }
            | net::Event::ResolveFailed { .. }
            | net::Event::Connected
            | net::Event::ConnectFailed { .. } => return,
        };
        self.handle(now, conn, event);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, due)) = self.deadlines.expire(now) {
            match due {
                Due::Accept => self.is_pausing = false,
                Due::Client(conn) => {
                    if self.clients.get_mut(conn).is_some_and(|client| client.expire(now, at)) {
                        self.drain(conn);
                    }
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn poll_notice(&mut self) -> Option<Ended> {
        self.notices.pop_front()
    }
}
