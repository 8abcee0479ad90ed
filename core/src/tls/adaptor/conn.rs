//! One connection of the adaptor: its TLS, and which questions of either side have no answer yet.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;

use super::Config;
use crate::{
    machine::Hosted,
    net::{self, Command, ConnId, Fault},
    tls::{
        PeerIdentity, Stream, StreamError,
        connection::{Connection, Event},
        stream::{server_address, server_name},
    },
};

/// The most bytes of the wire that one read brings: some records.
const WIRE_READ: usize = 64 * 1024;

/// A transport, TLS, and the inner binding's connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) machine: Hosted<Connection>,
    /// The inner binding's number, while it has the connection.
    pub(super) inner: Option<ConnId>,
    /// The peer's address.
    pub(super) remote: Option<SocketAddr>,
    /// The name that was resolved for a connection that is dialled.
    pub(super) name: Option<Bytes>,
    /// Bytes that the transport may discard before an end in good order.
    pub(super) unread: usize,
    is_server: bool,
    /// From the open transport on.
    stream: Option<Stream>,
    /// Why TLS refuses the peer, as long as the machine has not learnt it.
    refusal: Option<StreamError>,
    /// What the inner binding is to learn in answer to its next question.
    fault: Option<Fault>,
    /// The inner binding's `Read` without an answer; 0 for none.
    credit: usize,
    /// The length of the inner binding's `Write` without an answer.
    writing: Option<u64>,
    /// The transport has a `Read` of ours.
    is_reading: bool,
    /// The transport has a `Write` of ours.
    is_writing: bool,
    /// The machine waits until the transport has taken all bytes.
    is_flushing: bool,
    /// The transport is broken.
    is_broken: bool,
}

impl Conn {
    /// Of a transport that was accepted.
    pub(super) fn incoming(config: &Config, remote: SocketAddr) -> Self {
        Self { remote: Some(remote), is_server: true, ..Self::new(config) }
    }

    /// Of a transport that the inner binding wants.
    pub(super) fn outgoing(config: &Config, inner: ConnId) -> Self {
        Self { inner: Some(inner), ..Self::new(config) }
    }

    fn new(config: &Config) -> Self {
        Self {
            machine: Hosted::new(Connection::new(config.connection.clone())),
            inner: None,
            remote: None,
            name: None,
            unread: 0,
            is_server: false,
            stream: None,
            refusal: None,
            fault: None,
            credit: 0,
            writing: None,
            is_reading: false,
            is_writing: false,
            is_flushing: false,
            is_broken: false,
        }
    }

    /// Begins the handshake. Settings that cannot work are a refusal.
    pub(super) fn start_handshake(&mut self, config: &Config, now: Instant) {
        let none = |side: &str| StreamError::Settings(format!("none for a {side}"));
        let stream = if self.is_server {
            config.server.as_ref().ok_or_else(|| none("server")).and_then(|server| {
                server.clock.advance(now);
                Stream::server(server)
            })
        } else {
            config.client.as_ref().ok_or_else(|| none("client")).and_then(|client| {
                client.clock.advance(now);
                Stream::client(client, &self.server_name()?)
            })
        };
        match stream {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.refusal = Some(error),
        }
    }

    /// What the server's certificate must be valid for: the name that was resolved, or the address.
    fn server_name(&self) -> Result<rustls::pki_types::ServerName<'static>, StreamError> {
        match (&self.name, self.remote) {
            (Some(name), _) => server_name(name),
            (None, Some(remote)) => Ok(server_address(remote.ip())),
            (None, None) => Err(StreamError::ServerName(String::new())),
        }
    }

    /// Who the peer is, if it has shown a certificate.
    pub(super) fn peer(&self) -> Option<PeerIdentity> {
        self.stream.as_ref()?.peer()
    }

    // What the transport reports.

    pub(super) fn data(&mut self, wire: &[u8]) {
        self.is_reading = false;
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.receive(wire)
        {
            self.refusal = Some(error);
        }
    }

    /// Says whether the end is one without `close_notify`.
    pub(super) fn end(&mut self) -> bool {
        self.is_reading = false;
        !self.stream.as_ref().is_some_and(Stream::is_peer_closed)
    }

    pub(super) fn sent(&mut self) {
        self.is_writing = false;
    }

    pub(super) fn broken(&mut self) {
        (self.is_reading, self.is_writing, self.is_broken) = (false, false, true);
    }

    // What the inner binding wants.

    pub(super) fn read(&mut self, max: usize) {
        self.credit = max;
    }

    pub(super) fn write(&mut self, plain: &[u8]) {
        self.writing = Some(plain.len() as u64);
        if let Some(stream) = &mut self.stream {
            stream.send(plain);
        }
    }

    /// The inner binding has closed its connection: it gets no answer any more.
    pub(super) fn leave(&mut self, unread: usize) {
        self.unread = unread;
        (self.inner, self.credit, self.writing, self.fault) = (None, 0, None, None);
    }

    // What the machine wants.

    pub(super) fn send_close_notify(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.send_close_notify();
        }
    }

    pub(super) fn flush(&mut self) {
        self.is_flushing = true;
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// The peer's end answers the inner binding's `Read`.
    pub(super) fn take_credit(&mut self) {
        self.credit = 0;
    }

    // What follows.

    /// What the machine is to learn next, and the reason of a refusal.
    pub(super) fn finding(&mut self) -> Option<(Event, String)> {
        let (is_handshaking, is_open) = (self.machine.is_handshaking(), self.machine.is_open());
        let stream = self.stream.as_ref();
        let has_plain = stream.is_some_and(Stream::has_plain);
        if is_handshaking && stream.is_some_and(|stream| !stream.is_handshaking()) {
            return Some((Event::Secured, String::new()));
        }
        // What was decrypted before the refusal, or before the end, comes first.
        if (is_handshaking || is_open && !has_plain)
            && let Some(error) = self.refusal.take()
        {
            return Some((Event::Refused, error.to_string()));
        }
        let is_peer_closed = stream.is_some_and(Stream::is_peer_closed);
        if is_peer_closed && (is_handshaking || is_open && self.credit > 0 && !has_plain) {
            return Some((Event::PeerClosed, String::new()));
        }
        let has_wire = !self.is_broken && stream.is_some_and(Stream::has_wire);
        if self.is_flushing && !self.is_writing && !has_wire {
            self.is_flushing = false;
            return Some((Event::Flushed, String::new()));
        }
        None
    }

    /// The next answer for the inner binding.
    pub(super) fn answer(&mut self) -> Option<net::Event> {
        // It gets no answer once it has closed its connection.
        self.inner?;
        if (self.credit > 0 || self.writing.is_some())
            && let Some(fault) = self.fault
        {
            (self.credit, self.writing) = (0, None);
            return Some(net::Event::Error { fault });
        }
        let stream = self.stream.as_mut()?;
        if !self.is_writing
            && !self.is_broken
            && !stream.has_wire()
            && let Some(len) = self.writing.take()
        {
            return Some(net::Event::Sent { len });
        }
        if self.credit > 0 && stream.has_plain() && self.machine.is_open() {
            let bytes = stream.take_plain(std::mem::take(&mut self.credit));
            return Some(net::Event::Data { bytes });
        }
        None
    }

    /// The next command for the transport.
    pub(super) fn command(&mut self, conn: ConnId) -> Option<Command> {
        let stream = self.stream.as_mut().filter(|_| !self.is_broken)?;
        if !self.is_writing && stream.has_wire() {
            self.is_writing = true;
            return Some(Command::Write { conn, bytes: stream.take_wire() });
        }
        let wants_plain = self.machine.is_open() && self.credit > 0 && !stream.has_plain() && !stream.is_peer_closed();
        if !self.is_reading && self.refusal.is_none() && (self.machine.is_handshaking() || wants_plain) {
            self.is_reading = true;
            return Some(Command::Read { conn, max: WIRE_READ });
        }
        None
    }
}
