//! The bytes of a message, as far as they have come.

use std::{mem, ops::Range};

use crate::pipe::wire::codec::{DecodeError, Fault};

/// Why an item was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The message has at least so many bytes, which have not all come.
    Needs(usize),
    /// The item cannot be.
    Fault(DecodeError),
}

/// The bytes of a message from its start, and how far they were read.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// How far they were read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// How many there are to read.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// When they have not all come.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let end = self.at.saturating_add(N);
        let taken = self.bytes.get(self.at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(taken)
    }

    /// Passes over so many bytes, and says where they are.
    ///
    /// # Errors
    /// When they have not all come.
    pub(super) fn skip(&mut self, length: usize) -> Result<Range<usize>, Stop> {
        let end = self.at.saturating_add(length);
        if end > self.bytes.len() {
            return Err(Stop::Needs(end));
        }
        Ok(mem::replace(&mut self.at, end)..end)
    }

    /// The bytes that are there.
    pub(super) fn get(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

/// The item that begins at `offset` cannot be.
#[must_use]
pub fn fault(offset: usize, fault: Fault) -> Stop {
    Stop::Fault(DecodeError { offset, fault })
}
