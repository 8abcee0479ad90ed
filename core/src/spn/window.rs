//! The window of a session: how much QUIC may have in flight, or unread, on one of its connections.
//!
//! *Base plus parked* (docs/protocols/spn.md, Control stream): a base that grows while it is used fully, plus one stream window for every stream whose
//! reader has stalled. So what a stalled reader leaves unread never eats the credit of its neighbours, nor of the control stream.

use std::time::{Duration, Instant};

/// Below this round-trip time the base is enough: growing would only cost memory.
const LOCAL: Duration = Duration::from_millis(5);

/// One direction's window of one session, in bytes.
#[derive(Debug, Clone)]
pub struct Window {
    base: u64,
    max: u64,
    stream: u64,
    current: u64,
    parked: u64,
    used: u64,
    since: Option<Instant>,
}

impl Window {
    /// A window of `base` bytes that grows up to `max`, with streams of `stream` bytes each.
    #[must_use]
    pub fn new(base: u64, max: u64, stream: u64) -> Self {
        Self { base, max: max.max(base), stream, current: base, parked: 0, used: 0, since: None }
    }

    /// What to set in QUIC.
    #[must_use]
    pub fn total(&self) -> u64 {
        match self.parked() {
            0 => self.current,
            // The QUIC library announces fresh credit only in steps of an eighth of the whole window. What is not parked must be
            // larger than such a step by the base, or a session with much parked data would wait for ever for the next one.
            parked => (self.current + parked) / 7 * 8,
        }
    }

    /// The window of each stream.
    #[must_use]
    pub fn stream(&self) -> u64 {
        self.stream
    }

    /// Bytes that are parked at most.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked * self.stream
    }

    /// A stream has stalled: the new total.
    pub fn park(&mut self) -> u64 {
        self.parked += 1;
        self.total()
    }

    /// A stalled stream has been read empty, or is over: the new total.
    pub fn unpark(&mut self) -> u64 {
        self.parked = self.parked.saturating_sub(1);
        self.total()
    }

    /// Bytes have passed. The new total, when it changed: twice as much when a whole window passed within two round trips,
    /// the base again when a window took more than 10 s.
    pub fn pass(&mut self, now: Instant, bytes: u64, rtt: impl FnOnce() -> Duration) -> Option<u64> {
        self.used += bytes;
        if self.used < self.current {
            self.since.get_or_insert(now);
            return None;
        }
        let took = self.since.map(|since| now.saturating_duration_since(since));
        (self.used, self.since) = (0, Some(now));
        let (took, rtt) = (took?, rtt());
        let next = if took > Duration::from_secs(10) {
            self.base
        } else if rtt >= LOCAL && took <= 2 * rtt {
            (self.current * 2).min(self.max)
        } else {
            self.current
        };
        (std::mem::replace(&mut self.current, next) != next).then(|| self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn grows_while_it_is_used_fully() {
        let mut window = Window::new(1000, 4000, 100);
        let mut now = first_instant();
        let mut totals = Vec::new();
        for _ in 0..200 {
            now += Duration::from_millis(5);
            totals.extend(window.pass(now, 200, || RTT));
        }
        assert_eq!(totals, [2000, 4000], "doubled, up to the maximum");
    }

    #[test]
    fn stays_when_the_path_is_short_or_the_use_is_slow() {
        let mut window = Window::new(1000, 4000, 100);
        let mut now = first_instant();
        for _ in 0..100 {
            now += Duration::from_millis(1);
            assert_eq!(window.pass(now, 900, || Duration::from_micros(100)), None);
        }
        for _ in 0..100 {
            now += Duration::from_millis(200);
            assert_eq!(window.pass(now, 900, || RTT), None);
        }
    }

    #[test]
    fn parked_streams_come_on_top() {
        let mut window = Window::new(1000, 4000, 400);
        assert_eq!((window.park(), window.park(), window.parked()), (1600, 2056, 800));
        assert_eq!((window.unpark(), window.unpark(), window.unpark()), (1600, 1000, 1000));
    }

    #[test]
    fn what_is_not_parked_exceeds_a_step_of_the_library_by_the_base() {
        let mut window = Window::new(512 * 1024, 8 << 20, 1_250_000);
        for _ in 0..1000 {
            let total = window.park();
            assert!(total - window.parked() >= total / 8 + 512 * 1024 - 8);
        }
    }
}
