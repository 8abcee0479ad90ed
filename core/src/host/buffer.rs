//! Memory to read into, without a copy and without an allocation for each read.

use bytes::{Bytes, BytesMut};

/// Hands out space for one read after another, and what was read as [`Bytes`]. Small reads share a block.
#[derive(Debug)]
pub struct ReadBuffer {
    block: BytesMut,
    size: usize,
}

impl ReadBuffer {
    /// A buffer whose blocks have `size` bytes: the most that one read may bring.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { block: BytesMut::new(), size }
    }

    /// Space for a read of at most `max` bytes; never none, unless `max` is 0. It is at least a quarter of a block, where `max` allows.
    pub fn space(&mut self, max: usize) -> &mut [u8] {
        if self.block.len() < self.size.div_ceil(4).min(max) {
            self.block = BytesMut::zeroed(self.size);
        }
        let space = self.block.len().min(max);
        &mut self.block[..space]
    }

    /// What was read into the space: its first `len` bytes.
    #[must_use]
    pub fn take(&mut self, len: usize) -> Bytes {
        self.block.split_to(len.min(self.block.len())).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_reads_share_a_block_and_large_ones_get_room() {
        let mut buffer = ReadBuffer::new(16);
        assert_eq!(buffer.space(100).len(), 16);
        buffer.space(3).copy_from_slice(b"abc");
        let first = buffer.take(3);
        assert_eq!(buffer.space(100).len(), 13);
        buffer.space(10).copy_from_slice(b"0123456789");
        let second = buffer.take(10);
        assert_eq!(buffer.space(2).len(), 2);
        assert_eq!(buffer.space(100).len(), 16, "the last 3 are too few");
        assert_eq!((&first[..], &second[..]), (&b"abc"[..], &b"0123456789"[..]));
    }
}
