//! Moves payload between the two data streams of a connection: `Bytes` chunks from one QUIC stream into another, uncopied.
//!
//! A direction stops reading as soon as its target blocks, so back-pressure is QUIC's own flow control, end to end.
//! What is held here is at most one batch of chunks a direction.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::quic::{Endpoint, Handle, ReadOutcome, StreamId, WriteOutcome};
use crate::spn::wire::code::StreamCode;

/// Chunks moved at once.
const BATCH: usize = 32;
/// Batches a direction may move in one turn; then the others have theirs.
const ROUNDS: usize = 64;

/// One end's data stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) session: Handle,
    pub(crate) stream: StreamId,
}

/// What a turn found at the end of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing to move, or no room; an event of QUIC says when to try again.
    Wait {
        /// It is the target that has no room.
        stalled: bool,
    },
    /// More may be moved: come again after the others.
    Again,
    /// Everything has been moved, and the source finished.
    Fin,
    /// The source aborted with this code.
    Reset(StreamCode),
    /// The target wants no more, with this code.
    Stop(StreamCode),
    /// A session went away; its own event says so.
    Gone,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Read from the source, not yet taken by the target.
    held: VecDeque<Bytes>,
    /// The source has finished or aborted.
    ended: bool,
    /// Bytes that the target has taken.
    written: u64,
    /// How many of them are a preamble.
    prefix: u64,
}

impl Direction {
    /// Payload that came with the preamble.
    pub(crate) fn hold(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.held.push_back(chunk);
        }
    }

    /// The source has finished, as was found while its first byte was looked for.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// A preamble of ours, in front of everything.
    pub(crate) fn prefix(&mut self, preamble: Bytes) {
        self.prefix = preamble.len() as u64;
        self.held.push_front(preamble);
    }

    /// A preamble of the source's, in front of everything.
    pub(crate) fn expect(&mut self, length: usize) {
        self.prefix = length as u64;
    }

    /// The target has the preamble, if there is one.
    pub(crate) fn has_passed_preamble(&self) -> bool {
        self.written >= self.prefix
    }

    /// Something has come from the source.
    pub(crate) fn has_read(&self) -> bool {
        self.written > 0 || !self.held.is_empty()
    }

    /// Payload bytes that the target has taken.
    pub(crate) fn relayed(&self) -> u64 {
        self.written.saturating_sub(self.prefix)
    }

    /// Moves what can be moved, a bounded amount a turn. `scratch` is empty before and after.
    ///
    /// `merge`: the target's path holds much. For each packet the QUIC library walks through all chunks that are not acknowledged, and those of a
    /// relay are of the size of a packet: with thousands of them one copy is cheaper than the walk.
    pub(crate) fn pump(
        &mut self,
        quic: &mut Endpoint,
        from: Leg,
        to: Leg,
        scratch: &mut Vec<Bytes>,
        merge: bool,
    ) -> Found {
        for _ in 0..ROUNDS {
            if !self.held.is_empty() {
                match quic.write(to.session, to.stream, self.held.make_contiguous()) {
                    WriteOutcome::Written { bytes } => {
                        self.written += bytes as u64;
                        self.held.clear();
                    }
                    WriteOutcome::Blocked { bytes, chunks } => {
                        self.written += bytes as u64;
                        self.held.drain(..chunks);
                        return self.blocked(quic, from);
                    }
                    WriteOutcome::Stopped(code) => return Found::Stop(StreamCode(code)),
                    WriteOutcome::Gone => return Found::Gone,
                }
            }
            if self.ended {
                return Found::Fin;
            }
            let outcome = quic.read(from.session, from.stream, scratch, BATCH);
            if merge && scratch.len() > 1 {
                let mut merged = BytesMut::with_capacity(scratch.iter().map(Bytes::len).sum());
                scratch.drain(..).for_each(|chunk| merged.extend_from_slice(&chunk));
                self.held.push_back(merged.freeze());
            } else {
                self.held.extend(scratch.drain(..));
            }
            match outcome {
                ReadOutcome::More => {}
                ReadOutcome::Blocked if self.held.is_empty() => return Found::Wait { stalled: false },
                ReadOutcome::Blocked => {}
                ReadOutcome::Finished => self.ended = true,
                ReadOutcome::Reset(code) => return Found::Reset(StreamCode(code)),
                ReadOutcome::Gone => return Found::Gone,
            }
        }
        Found::Again
    }

    /// A blocked direction does not read, so it has to look for the source's reset.
    fn blocked(&self, quic: &mut Endpoint, from: Leg) -> Found {
        match quic.received_reset(from.session, from.stream) {
            Some(code) if !self.ended => Found::Reset(StreamCode(code)),
            _ => Found::Wait { stalled: true },
        }
    }
}
