//! The machine on a byte stream: bytes in, bytes out, still no I/O.

use std::time::Instant;

use bytes::{Buf, Bytes};
use towline_core::machine::{Describe, Machine};

use super::machine::{Action, Config, Event, Greet, Outcome};

/// One connection.
///
/// While [`wants_input`](Self::wants_input), hand in what comes, at most so many bytes; write what [`poll_output`](Self::poll_output) gives, and say how much of
/// it was taken; call [`handle_timeout`](Self::handle_timeout) when it is due. With an [`outcome`](Self::outcome), close.
#[derive(Debug)]
pub struct Connection {
    machine: Greet,
    credit: Option<usize>,
    output: Bytes,
    outcome: Option<Outcome>,
}

impl Connection {
    /// A client has connected.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let machine = Greet::start(config, 0);
        let mut connection = Self { machine, credit: None, output: Bytes::new(), outcome: None };
        connection.handle(now, Event::Accepted);
        connection
    }

    /// How much may be read now.
    #[must_use]
    pub fn wants_input(&self) -> Option<usize> {
        self.credit
    }

    /// Bytes from the client: not more than it [wants](Self::wants_input).
    pub fn handle_input(&mut self, now: Instant, bytes: Bytes) {
        self.credit = None;
        self.handle(now, Event::ClientData { bytes });
    }

    /// The client has ended its direction.
    pub fn handle_eof(&mut self, now: Instant) {
        self.credit = None;
        self.handle(now, Event::ClientEof);
    }

    /// The connection broke.
    pub fn handle_error(&mut self, now: Instant) {
        self.handle(now, Event::ClientError);
    }

    /// What is to be written; the same again, until it is said to be taken.
    #[must_use]
    pub fn poll_output(&self) -> Option<&[u8]> {
        Some(&self.output[..]).filter(|output| !output.is_empty())
    }

    /// The socket took so many bytes of the output.
    pub fn handle_written(&mut self, now: Instant, len: usize) {
        self.output.advance(len.min(self.output.len()));
        self.handle(now, Event::ClientSent { len });
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.drain();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// How it ended, if it has: close the socket.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    fn handle(&mut self, now: Instant, event: Event) {
        self.machine.handle_event(now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::ReadClient { max } => self.credit = Some(max),
                Action::WriteClient { bytes } => self.output = bytes,
                // Whoever hosts it closes when there is an outcome.
                Action::CloseClient => {}
                Action::Finished { outcome } => (self.credit, self.outcome) = (None, Some(outcome)),
            }
        }
    }
}
