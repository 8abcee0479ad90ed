//! What waits to be sent: the highest priority first, and among equals what came first (docs/protocols/pipe.md, Pipe ids).
//!
//! Messages wait as bytes, those of one priority in one buffer. So the messages of a pipe keep their order, many leave in one write, and mostly
//! without being moved.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use bytes::{Bytes, BytesMut};

/// A buffer that has grown beyond that is given back when it is empty.
const KEPT: usize = 16 << 10;

/// Messages of one priority.
#[derive(Debug, Default)]
struct Level {
    bytes: BytesMut,
    /// Their lengths.
    messages: VecDeque<u32>,
}

/// The send queue of one session.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Priority 0, which most messages have.
    normal: Level,
    /// The others; none of them is empty.
    others: BTreeMap<Reverse<i8>, Level>,
}

impl SendQueue {
    /// Adds a message, which `write` appends to the buffer that it gets; says how long the message is.
    ///
    /// # Errors
    /// That of `write`, which must have appended nothing then.
    pub fn push<E>(&mut self, priority: i8, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<usize, E> {
        let level = if priority == 0 { &mut self.normal } else { self.others.entry(Reverse(priority)).or_default() };
        let before = level.bytes.len();
        let written = write(&mut level.bytes);
        let len = level.bytes.len() - before;
        match written {
            Ok(()) => level.messages.push_back(u32::try_from(len).unwrap_or(u32::MAX)),
            Err(_) if level.messages.is_empty() && priority != 0 => {
                self.others.remove(&Reverse(priority));
            }
            Err(_) => {}
        }
        written.map(|()| len)
    }

    /// Takes whole messages, of at most `max` bytes together or just one, and says how many. None if nothing waits.
    ///
    /// Those of one priority leave as a piece of their buffer; a piece with several priorities is joined.
    pub fn take(&mut self, max: usize) -> Option<(Bytes, usize)> {
        let (first, mut count) = self.take_first(max)?;
        let mut room = max.saturating_sub(first.len());
        let mut joined: Option<BytesMut> = None;
        while room > 0 && self.first_len().is_some_and(|len| len <= room) {
            let Some((more, messages)) = self.take_first(room) else { break };
            room = room.saturating_sub(more.len());
            count += messages;
            joined.get_or_insert_with(|| BytesMut::from(&*first)).extend_from_slice(&more);
        }
        Some((joined.map_or_else(|| first.freeze(), BytesMut::freeze), count))
    }

    /// Takes messages of the highest priority.
    fn take_first(&mut self, max: usize) -> Option<(BytesMut, usize)> {
        let urgent = self.others.first_entry().filter(|entry| entry.key().0 > 0 || self.normal.messages.is_empty());
        let Some(mut entry) = urgent else { return self.normal.take(max) };
        let taken = entry.get_mut().take(max);
        if entry.get().messages.is_empty() {
            entry.remove();
        }
        taken
    }

    fn first_len(&self) -> Option<usize> {
        let other = self.others.first_key_value().filter(|(key, _)| key.0 > 0 || self.normal.messages.is_empty());
        let level = other.map_or(&self.normal, |(_, level)| level);
        level.messages.front().map(|len| *len as usize)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.normal.messages.is_empty() && self.others.is_empty()
    }

    /// Forgets all that waits.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Level {
    fn take(&mut self, max: usize) -> Option<(BytesMut, usize)> {
        let mut taken = 0;
        let count = if self.bytes.len() <= max {
            taken = self.bytes.len();
            let count = self.messages.len();
            self.messages.clear();
            count
        } else {
            let mut count = 0;
            while let Some(len) = self.messages.front().map(|len| *len as usize)
                && (count == 0 || taken + len <= max)
            {
                taken += len;
                count += 1;
                self.messages.pop_front();
            }
            count
        };
        if count == 0 {
            return None;
        }
        let bytes = self.bytes.split_to(taken);
        if self.messages.is_empty() {
            if self.bytes.capacity() > KEPT {
                self.bytes = BytesMut::new();
            }
            if self.messages.capacity() > KEPT {
                self.messages = VecDeque::new();
            }
        }
        Some((bytes, count))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn push(queue: &mut SendQueue, priority: i8, message: &[u8]) {
        let written: Result<usize, Infallible> = queue.push(priority, |out| {
            out.extend_from_slice(message);
            Ok(())
        });
        assert_eq!(written, Ok(message.len()));
    }

    fn take(queue: &mut SendQueue, max: usize) -> Option<(String, usize)> {
        queue.take(max).map(|(bytes, count)| (String::from_utf8(bytes.to_vec()).unwrap(), count))
    }

    #[test]
    fn the_highest_priority_goes_first_and_equals_keep_their_order() {
        let mut queue = SendQueue::default();
        for (priority, message) in [(0, "a1"), (-128, "z1"), (127, "A1"), (0, "a2"), (127, "A2"), (-1, "y1")] {
            push(&mut queue, priority, message.as_bytes());
        }
        assert_eq!(take(&mut queue, 4), Some(("A1A2".to_owned(), 2)));
        push(&mut queue, 5, b"B1");
        assert_eq!(take(&mut queue, 100), Some(("B1a1a2y1z1".to_owned(), 5)), "in one write");
        assert_eq!(take(&mut queue, 100), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_write_has_whole_messages_and_one_at_least() {
        let mut queue = SendQueue::default();
        for message in ["aaaa", "bb", "cc", "d"] {
            push(&mut queue, 0, message.as_bytes());
        }
        assert_eq!(take(&mut queue, 3), Some(("aaaa".to_owned(), 1)), "longer than a write");
        assert_eq!(take(&mut queue, 3), Some(("bb".to_owned(), 1)));
        assert_eq!(take(&mut queue, 3), Some(("ccd".to_owned(), 2)));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let mut queue = SendQueue::default();
        assert_eq!(queue.push(3, |_| Err("too long")), Err("too long"));
        assert_eq!(queue.push(0, |_| Err("too long")), Err("too long"));
        assert!(queue.is_empty());
        assert_eq!(take(&mut queue, 9), None);
        push(&mut queue, 3, b"x");
        queue.clear();
        assert!(queue.is_empty());
    }

    proptest! {
        /// It is a list that is sorted by priority, stably, at each write.
        #[test]
        fn it_is_sorted(steps in proptest::collection::vec((-2..3i8, 0..4usize, any::<bool>()), 0..100)) {
            let (mut queue, mut model) = (SendQueue::default(), Vec::<(i8, String)>::new());
            for (nth, (priority, len, is_push)) in steps.into_iter().enumerate() {
                if is_push {
                    let message = format!("{nth:x}.").repeat(len + 1);
                    push(&mut queue, priority, message.as_bytes());
                    model.push((priority, message));
                    model.sort_by_key(|(priority, _)| Reverse(*priority));
                    continue;
                }
                let max = len * 10;
                let mut expected = (String::new(), 0);
                while let Some((_, message)) = model.first()
                    && (expected.1 == 0 || expected.0.len() + message.len() <= max)
                {
                    expected = (expected.0 + message, expected.1 + 1);
                    model.remove(0);
                }
                prop_assert_eq!(take(&mut queue, max).unwrap_or_default(), expected);
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}
