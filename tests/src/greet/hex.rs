//! An adaptor between stream and stream: on the wire, each byte is two hexadecimal digits. TLS has the same place, and the same shape.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;
use towline_core::net::{AcceptFault, Command, ConnId, Event, Fault, StreamBinding};

/// A binding around another binding: it keeps the numbers of the connections and changes their bytes.
#[derive(Debug)]
pub struct Hex<B> {
    inner: B,
    streams: BTreeMap<ConnId, Stream>,
    /// The adaptor's own commands.
    commands: VecDeque<Command>,
}

#[derive(Debug, Default)]
struct Stream {
    /// The credit of the inner binding, in its bytes.
    credit: usize,
    /// A digit whose byte is not complete.
    half: Option<u8>,
    /// The length of the inner binding's write.
    writing: u64,
}

impl Stream {
    /// The credit on the wire: digits that are no more than the inner binding's bytes.
    fn digits(&self) -> usize {
        self.credit.saturating_mul(2) - usize::from(self.half.is_some())
    }

    fn decode(&mut self, digits: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(digits.len() / 2 + 1);
        for &digit in digits {
            let value = char::from(digit).to_digit(16)? as u8;
            match self.half.take() {
                Some(high) => plain.push(high << 4 | value),
                None => self.half = Some(value),
            }
        }
        Some(plain)
    }
}

impl<B: StreamBinding> Hex<B> {
    /// Wraps a binding.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self { inner, streams: BTreeMap::new(), commands: VecDeque::new() }
    }
}

fn encode(plain: &[u8]) -> Bytes {
    plain.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

impl<B: StreamBinding> StreamBinding for Hex<B> {
    type Notice = B::Notice;

    fn wants_accept(&self) -> bool {
        self.inner.wants_accept()
    }

    fn handle_incoming(&mut self, now: Instant, peer: SocketAddr) -> ConnId {
        self.inner.handle_incoming(now, peer)
    }

    fn handle_accept_failed(&mut self, now: Instant, fault: AcceptFault) {
        self.inner.handle_accept_failed(now, fault);
    }

    fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        let Some(stream) = self.streams.get_mut(&conn) else { return self.inner.handle_event(now, conn, event) };
        let event = match event {
            Event::Data { bytes } => match stream.decode(&bytes) {
                Some(plain) if plain.is_empty() => {
                    return self.commands.push_back(Command::Read { conn, max: stream.digits() });
                }
                Some(plain) => Event::Data { bytes: plain.into() },
                None => Event::Error { fault: Fault::Other },
            },
            Event::Sent { .. } => Event::Sent { len: stream.writing },
            Event::End if stream.half.is_some() => Event::Error { fault: Fault::Other },
            Event::Resolved { .. }
            | Event::ResolveFailed { .. }
            | Event::Connected
            | Event::ConnectFailed { .. }
            | Event::End
            | Event::Error { .. } => event,
        };
        self.inner.handle_event(now, conn, event);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn poll_command(&mut self) -> Option<Command> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        Some(match self.inner.poll_command()? {
            Command::Read { conn, max } => {
                let stream = self.streams.entry(conn).or_default();
                stream.credit = max;
                Command::Read { conn, max: stream.digits() }
            }
            Command::Write { conn, bytes } => {
                self.streams.entry(conn).or_default().writing = bytes.len() as u64;
                Command::Write { conn, bytes: encode(&bytes) }
            }
            Command::Close { conn, how, unread } => {
                self.streams.remove(&conn);
                Command::Close { conn, how, unread }
            }
            command @ (Command::Resolve { .. } | Command::Connect { .. } | Command::StopListening | Command::Stop) => {
                command
            }
        })
    }

    fn poll_notice(&mut self) -> Option<B::Notice> {
        self.inner.poll_notice()
    }
}
