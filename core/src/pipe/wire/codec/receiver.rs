//! Messages out of bytes that come in pieces of any size.

use std::{fmt, mem};

use bytes::{Buf, Bytes, BytesMut};

use super::{Codec, DecodeError, Measure};
use crate::pipe::wire::message::Message;

/// How many bytes are joined at once, if there are as many.
const JOINED: usize = 256;

/// Takes bytes as they come, and gives messages.
///
/// It holds what is not a whole message yet: at most the codec's limit, and what was last pushed. A message that came in one piece is a slice of
/// that piece; one that came in several is joined once. What it holds was there: nothing is reserved because a peer declared it.
pub struct Receiver<C> {
    codec: C,
    /// The start of a message whose end has not come.
    begun: BytesMut,
    /// How many bytes that message has at least.
    needs: usize,
    /// What was pushed last, and is not taken.
    rest: Bytes,
    /// Bytes of the messages that were given.
    taken: u64,
}

impl<C: Codec> Receiver<C> {
    /// Nothing has come yet.
    pub fn new(codec: C) -> Self {
        Self { codec, begun: BytesMut::new(), needs: 0, rest: Bytes::new(), taken: 0 }
    }

    /// Takes what has come. Messages that came before are to be asked for first: what is left of them is copied.
    pub fn push(&mut self, bytes: Bytes) {
        self.rest = if self.rest.is_empty() { bytes } else { [&*self.rest, &*bytes].concat().into() };
    }

    /// The next message; none while it is not complete.
    ///
    /// # Errors
    /// When the bytes are no message. The wire is over: what comes after an error means nothing.
    pub fn next_message(&mut self) -> Result<Option<Message>, DecodeError> {
        if self.begun.is_empty() && !self.rest.is_empty() {
            match self.codec.measure(&self.rest)? {
                Measure::Whole(length) => {
                    let bytes = self.rest.split_to(length.min(self.rest.len()));
                    return self.decode(bytes).map(Some);
                }
                Measure::Needs(length) => self.needs = length,
            }
        }
        while !self.rest.is_empty() {
            // Also of what has just come: else a few bytes would keep a whole read buffer. Many small items are not joined one by one.
            let wanted = self.needs.saturating_sub(self.begun.len()).max(JOINED);
            let joined = self.rest.len().min(wanted);
            self.begun.extend_from_slice(&self.rest[..joined]);
            if self.begun.len() >= self.needs {
                match self.codec.measure(&self.begun)? {
                    Measure::Whole(length) => {
                        let surplus = self.begun.len().saturating_sub(length);
                        self.rest.advance(joined.saturating_sub(surplus));
                        let mut bytes = mem::take(&mut self.begun);
                        bytes.truncate(length);
                        return self.decode(bytes.freeze()).map(Some);
                    }
                    Measure::Needs(length) => self.needs = length,
                }
            }
            self.rest.advance(joined);
        }
        // Not even an empty slice of what has come.
        self.rest = Bytes::new();
        Ok(None)
    }

    fn decode(&mut self, bytes: Bytes) -> Result<Message, DecodeError> {
        let length = bytes.len() as u64;
        let message = self.codec.decode(bytes)?;
        self.taken += length;
        Ok(message)
    }

    /// The codec, which writes the other direction as well.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// How many bytes the messages had that it gave: where the next one begins.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes it holds: of a message that is not complete, or not asked for yet.
    pub fn held(&self) -> usize {
        self.begun.len() + self.rest.len()
    }
}

impl<C> fmt::Debug for Receiver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { codec: _, begun, needs, rest, taken } = self;
        f.debug_struct("Receiver")
            .field("begun", &begun.len())
            .field("needs", needs)
            .field("rest", &rest.len())
            .field("taken", taken)
            .finish()
    }
}
