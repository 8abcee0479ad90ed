//! The connections of a socket, and which of them are to be looked at.

use std::collections::VecDeque;

use quinn_proto::{Connection, ConnectionHandle};

use crate::machine::Armed;

/// Sends of one connection before the next one has its turn.
const SENDS_A_TURN: usize = 16;

/// A connection of an [`Endpoint`](super::Endpoint). Never used twice, so an old one is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

impl Handle {
    /// A number that no other connection of its endpoint has.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The connection of such a number.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }

    /// QUIC's own name for it.
    pub(super) fn to_quinn(self) -> ConnectionHandle {
        ConnectionHandle(self.index as usize)
    }
}

#[cfg(test)]
impl Handle {
    /// One of no connection.
    pub(crate) fn of_test(index: u32) -> Self {
        Self { index, generation: 0 }
    }
}

/// A connection.
pub(super) struct Conn {
    pub(super) quic: Connection,
    generation: u32,
    pub(super) armed: Armed,
    /// Hex of our first connection id.
    pub(super) id: String,
    pub(super) phase: Phase,
    /// It is in the queue of those that may have events.
    in_touched: bool,
    /// It is in the queue of those that may have something to send.
    in_sendable: bool,
    /// It is to use another of the peer's connection ids as soon as one has come.
    pub(super) wants_id: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    /// [`Event::Closed`](super::Event::Closed) was reported.
    Closed,
}

/// All connections, by QUIC's numbers.
#[derive(Default)]
pub(super) struct Conns {
    slots: Vec<Option<Conn>>,
    generations: Vec<u32>,
    len: usize,
    touched: VecDeque<Handle>,
    sendable: VecDeque<Handle>,
    /// Sends of the first of them in its turn.
    sends: usize,
}

impl Conns {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a connection, which may have events and something to send. `id` is the hex of its first connection id.
    pub(super) fn insert(&mut self, at: ConnectionHandle, quic: Connection, id: String) -> Handle {
        if self.slots.len() <= at.0 {
            self.slots.resize_with(at.0 + 1, || None);
            self.generations.resize(at.0 + 1, 0);
        }
        let mut generation = 0;
        if let Some(last) = self.generations.get_mut(at.0) {
            *last = last.wrapping_add(1);
            generation = *last;
        }
        let conn = Conn {
            quic,
            generation,
            armed: Armed::default(),
            id,
            phase: Phase::Handshake,
            in_touched: false,
            in_sendable: false,
            wants_id: false,
        };
        if let Some(slot) = self.slots.get_mut(at.0) {
            *slot = Some(conn);
        }
        self.len += 1;
        let handle = Handle { index: at.0 as u32, generation };
        self.touch(handle);
        handle
    }

    pub(super) fn remove(&mut self, handle: Handle) {
        if self.get(handle).is_some()
            && let Some(slot) = self.slots.get_mut(handle.index as usize)
        {
            *slot = None;
            self.len -= 1;
        }
    }

    pub(super) fn handle_of(&self, at: ConnectionHandle) -> Option<Handle> {
        let conn = self.slots.get(at.0)?.as_ref()?;
        Some(Handle { index: at.0 as u32, generation: conn.generation })
    }

    pub(super) fn get(&mut self, handle: Handle) -> Option<&mut Conn> {
        let conn = self.slots.get_mut(handle.index as usize)?.as_mut()?;
        (conn.generation == handle.generation).then_some(conn)
    }

    /// A connection that the caller may still use.
    pub(super) fn live(&mut self, handle: Handle) -> Option<&mut Conn> {
        self.get(handle).filter(|conn| conn.phase != Phase::Closed)
    }

    /// Notes that a connection may have events and something to send.
    pub(super) fn touch(&mut self, handle: Handle) {
        let Some(conn) = self.get(handle) else { return };
        if !std::mem::replace(&mut conn.in_touched, true) {
            self.touched.push_back(handle);
        }
        self.wants_to_send(handle);
    }

    /// Notes that a connection may have something to send.
    pub(super) fn wants_to_send(&mut self, handle: Handle) {
        let Some(conn) = self.get(handle) else { return };
        if !std::mem::replace(&mut conn.in_sendable, true) {
            self.sendable.push_back(handle);
        }
    }

    /// The next connection that may have events.
    pub(super) fn next_touched(&mut self) -> Option<Handle> {
        let handle = self.touched.pop_front()?;
        if let Some(conn) = self.get(handle) {
            conn.in_touched = false;
        }
        Some(handle)
    }

    /// The connection whose turn to send it is.
    pub(super) fn sender(&self) -> Option<Handle> {
        self.sendable.front().copied()
    }

    /// The connection whose turn it is has sent something.
    pub(super) fn has_sent(&mut self) {
        self.sends += 1;
        if self.sends >= SENDS_A_TURN {
            self.sends = 0;
            self.sendable.rotate_left(1);
        }
    }

    /// The connection whose turn it is has nothing to send.
    pub(super) fn has_sent_all(&mut self) {
        self.sends = 0;
        if let Some(handle) = self.sendable.pop_front()
            && let Some(conn) = self.get(handle)
        {
            conn.in_sendable = false;
        }
    }
}
