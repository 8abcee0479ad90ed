//! A consumer's first bytes, held until the first answer so that they can be sent again when the hub refuses the connection (docs/protocols/spn.md,
//! Endpoint connection, EPC-4).

use bytes::Bytes;

use crate::spn::flow::kept::{Kept, OF_READS};

/// What was sent, as long as it may have to be sent again.
#[derive(Debug, Default)]
pub(in crate::spn::endpoint) struct Held {
    kept: Kept,
    bytes: usize,
    is_on: bool,
}

impl Held {
    /// What is sent is held from the first byte on, or never.
    pub(in crate::spn::endpoint) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    pub(in crate::spn::endpoint) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Bytes that would be held after so many more.
    pub(in crate::spn::endpoint) fn after(&self, more: usize) -> usize {
        self.bytes + more
    }

    /// Nothing is held any more. Says whether anything was to be until now.
    pub(in crate::spn::endpoint) fn release(&mut self) -> bool {
        self.kept.clear();
        std::mem::take(&mut self.is_on)
    }

    /// Of the chunks that were `offered`, so many bytes were taken: holds those.
    pub(in crate::spn::endpoint) fn hold(&mut self, offered: Vec<Bytes>, bytes: usize) {
        if !self.is_on {
            return;
        }
        let mut left = bytes;
        for mut chunk in offered {
            chunk.truncate(left);
            left -= chunk.len();
            self.kept.push(chunk, OF_READS);
        }
        self.bytes += bytes;
    }

    /// All of it.
    pub(in crate::spn::endpoint) fn all(&mut self) -> impl Iterator<Item = Bytes> {
        self.kept.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_held_until_it_is_released() {
        let mut held = Held::new(true);
        held.hold(vec![Bytes::from_static(b"hello"), Bytes::from_static(b" world")], 7);
        held.hold(vec![Bytes::from_static(b"orld")], 0);
        assert_eq!((held.all().collect::<Vec<_>>().concat(), held.after(3)), (b"hello w".to_vec(), 10));
        assert!(held.release() && !held.release() && !held.is_on());
        held.hold(vec![Bytes::from_static(b"more")], 4);
        assert_eq!(held.all().count(), 0);
    }
}
