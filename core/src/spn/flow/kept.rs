//! Payload that is kept for a while, in memory that is at most twice as large.
//!
//! A [`Bytes`] keeps the whole buffer alive of which it is a part: a single byte may cost what a read may bring, and beside it a handle that is
//! many times its size. So small pieces are copied, and gathered into blocks; pieces that are at least half of their buffer stay as they are.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Half of the buffer of a read from TCP: pieces of such buffers are kept as they are from that size on.
pub(crate) const OF_READS: usize = 32 * 1024;
/// More than half of the largest datagram: each has memory of its own (see the drivers' `udp.rs`).
#[cfg(feature = "host")]
pub(crate) const OF_DATAGRAMS: usize = 1024;
/// Gathered pieces become a block when they are so large.
const BLOCK: usize = 32 * 1024;

/// Bytes in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    chunks: VecDeque<Bytes>,
    /// Small pieces behind them, not yet a block. It grows by doubling.
    tail: BytesMut,
}

impl Kept {
    /// Keeps a piece: as it is, if it has at least `whole` bytes, and else a copy.
    pub(crate) fn push(&mut self, piece: Bytes, whole: usize) {
        if piece.len() < whole {
            return self.copy(&piece);
        }
        self.end_tail();
        if !piece.is_empty() {
            self.chunks.push_back(piece);
        }
    }

    /// Keeps a copy.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        // A block that grew beyond its size would double once more.
        if self.tail.len() + bytes.len() > BLOCK {
            self.end_tail();
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= BLOCK {
            self.end_tail();
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything, which stays.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = Bytes> {
        self.end_tail();
        self.chunks.iter().cloned()
    }

    /// Lets the first bytes go; says how many there were, `most` at most.
    pub(crate) fn advance(&mut self, most: usize) -> usize {
        let mut left = most;
        while let Some(chunk) = self.chunks.front_mut() {
            let length = chunk.len().min(left);
            chunk.advance(length);
            left -= length;
            if !chunk.is_empty() {
                return most - left;
            }
            self.chunks.pop_front();
        }
        let length = self.tail.len().min(left);
        if length == self.tail.len() {
            self.tail = BytesMut::new();
        } else {
            self.tail.advance(length);
        }
        most - left + length
    }
}

/// What the streams of `host` take.
#[cfg(any(test, feature = "host"))]
impl Kept {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Takes the first chunk out, at most `max` bytes of it.
    pub(crate) fn take(&mut self, max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.end_tail();
        }
        let front = self.chunks.front_mut()?;
        if front.len() > max { Some(front.split_to(max)) } else { self.chunks.pop_front() }
    }

    /// Takes the first bytes out, as many as there are room for and no more than there are; says how many.
    pub(crate) fn read(&mut self, mut buffer: &mut [u8]) -> usize {
        let mut taken = 0;
        while let Some(front) = self.front() {
            let length = front.len().min(buffer.len());
            if length == 0 {
                break;
            }
            let (now, later) = buffer.split_at_mut(length);
            if let Some(bytes) = front.get(..length) {
                now.copy_from_slice(bytes);
            }
            buffer = later;
            taken += self.advance(length);
        }
        taken
    }

    fn front(&self) -> Option<&[u8]> {
        let tail = || (!self.tail.is_empty()).then_some(&self.tail[..]);
        self.chunks.front().map(|chunk| &chunk[..]).or_else(tail)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one read of a TCP socket brings, out of a buffer of 64 KiB that many reads share.
    const READ: usize = 2 * OF_READS;

    /// Bytes that are allocated and not freed while `work` runs; what it returns stays.
    fn allocated<T>(work: impl FnOnce() -> T) -> (i64, T) {
        let mut kept = None;
        let info = allocation_counter::measure(|| kept = Some(work()));
        (info.bytes_current, kept.unwrap())
    }

    #[test]
    fn single_bytes_cost_what_they_are() {
        let (cost, mut kept) = allocated(|| {
            let mut kept = Kept::default();
            for n in 0..6000u32 {
                // Each pins a buffer of its own.
                let mut read = BytesMut::zeroed(READ);
                read[0] = n as u8;
                kept.push(read.split_to(1).freeze(), OF_READS);
            }
            kept
        });
        assert!(cost <= 2 * 6000, "{cost}");
        let all: Vec<u8> = kept.all().flat_map(|chunk| chunk.to_vec()).collect();
        assert_eq!(all, (0..6000u32).map(|n| n as u8).collect::<Vec<_>>());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A read of so many bytes, in a buffer of its own.
        Keep(usize),
        LetGo(usize),
        Read(usize),
        Pop,
        All,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = || prop_oneof![4 => 0usize..10, 2 => 0..2000usize, 1 => 0..=READ];
        let step = prop_oneof![
            6 => size().prop_map(Step::Keep),
            1 => size().prop_map(Step::LetGo),
            1 => size().prop_map(Step::Read),
            1 => Just(Step::Pop),
            1 => Just(Step::All),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn memory_is_at_most_twice_what_is_kept_and_no_byte_is_lost(steps in steps()) {
            let mut wanted: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            let (mut cost, mut kept) = (0, Kept::default());
            for step in steps {
                let mut got = Vec::new();
                let mut gone = 0;
                let (more, ()) = allocated(|| match step {
                    Step::Keep(length) => {
                        let mut read = BytesMut::zeroed(READ);
                        for byte in &mut read[..length] {
                            *byte = next;
                            next = next.wrapping_add(7);
                        }
                        kept.push(read.split_to(length).freeze(), OF_READS);
                    }
                    Step::LetGo(length) => gone = kept.advance(length),
                    Step::All => drop(kept.all()),
                    Step::Read(_) | Step::Pop => {}
                });
                cost += more;
                match step {
                    Step::Keep(length) => {
                        let first = next.wrapping_sub((length as u8).wrapping_mul(7));
                        wanted.extend((0..length).map(|n| first.wrapping_add((n as u8).wrapping_mul(7))));
                    }
                    Step::LetGo(length) => {
                        prop_assert_eq!(gone, length.min(wanted.len()));
                        wanted.drain(..gone);
                    }
                    Step::Read(length) => {
                        got.resize(length, 0);
                        let (more, read) = allocated(|| kept.read(&mut got));
                        cost += more;
                        prop_assert_eq!(read, length.min(wanted.len()));
                        got.truncate(read);
                    }
                    Step::Pop => {
                        let (more, chunk) = allocated(|| kept.take(usize::MAX));
                        // It is the taker's now.
                        cost += more;
                        got = chunk.as_deref().unwrap_or_default().to_vec();
                        let (more, ()) = allocated(|| drop(chunk));
                        cost += more;
                    }
                    Step::All => {}
                }
                for byte in got {
                    prop_assert_eq!(wanted.pop_front(), Some(byte));
                }
                prop_assert_eq!(kept.is_empty(), wanted.is_empty());
                // A block of which a part has gone stays until all of it has, and the list of blocks has a least size.
                let spare = READ + 4096;
                prop_assert!(cost <= (2 * wanted.len() + spare) as i64, "{} for {}", cost, wanted.len());
            }
        }
    }
}
