//! A reader that leaves bytes unread: when these come on top of its session's window (docs/protocols/spn.md, Control stream).

use std::time::{Duration, Instant};

/// What is left unread for so long comes on top of the session's window,
pub(crate) const STALL_TIME: Duration = Duration::from_millis(50);
/// unless so many bytes have moved in that time: then the path is full, and more data in front of it would not help.
const FLOWING: u64 = 512 * 1024;

/// How long a reader has left bytes unread.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// Since when it has not had everything, and what it had moved by then.
    since: Option<(Instant, u64)>,
    is_reminded: bool,
}

/// What a look at a reader has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has caught up.
    Over,
    /// It is to be looked at again at that time.
    Again(Instant),
    /// It has stalled.
    Stalled,
}

impl Stall {
    /// Bytes are left unread; the reader has moved so many in all. When to look at it, if no reminder is set; `is_parked`: what it leaves
    /// unread comes on top of the window already.
    pub(crate) fn begin(&mut self, now: Instant, moved: u64, is_parked: bool) -> Option<Instant> {
        self.since.get_or_insert((now, moved));
        (!is_parked && !std::mem::replace(&mut self.is_reminded, true)).then(|| now + STALL_TIME)
    }

    /// Everything has been read.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }

    /// The time to look has come; `has_stream`: the bytes come on a stream of a session.
    pub(crate) fn look(&mut self, now: Instant, moved: u64, has_stream: bool) -> Look {
        self.is_reminded = false;
        let Some((since, before)) = self.since.filter(|_| has_stream) else { return Look::Over };
        let since = if now < since + STALL_TIME {
            since
        } else if moved - before >= FLOWING {
            self.since = Some((now, moved));
            now
        } else {
            return Look::Stalled;
        };
        self.is_reminded = true;
        Look::Again(since + STALL_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    #[test]
    fn a_reader_that_moves_nothing_has_stalled_after_50_ms() {
        let start = first_instant();
        let mut stall = Stall::default();
        assert_eq!(stall.begin(start, 0, false), Some(start + STALL_TIME));
        assert_eq!(stall.begin(start, 0, false), None, "it is told once");
        assert_eq!(stall.look(start + STALL_TIME, FLOWING - 1, true), Look::Stalled);
        stall.end();
        assert_eq!(stall.look(start + STALL_TIME, 0, true), Look::Over);
    }

    #[test]
    fn a_reader_that_moves_enough_is_looked_at_again() {
        let start = first_instant();
        let mut stall = Stall::default();
        let _ = stall.begin(start, 0, false);
        let later = start + STALL_TIME;
        assert_eq!(stall.look(later, FLOWING, true), Look::Again(later + STALL_TIME));
        assert_eq!(stall.look(later, FLOWING, true), Look::Again(later + STALL_TIME), "it began anew");
        assert_eq!(stall.look(later + STALL_TIME, FLOWING, true), Look::Stalled);
        assert_eq!(stall.look(later + STALL_TIME, FLOWING, false), Look::Over, "its stream is gone");
    }
}
