//! The window of a session: how much QUIC may have in flight, or unread, on one of its connections.
//!
//! *Base plus parked* (docs/protocols/spn.md, Control stream, CTL-15): a base that follows the path, plus what streams hold whose reader has
//! stalled. So what a stalled reader leaves unread never eats the credit of its neighbours, nor of the control stream.
//!
//! What such streams hold is not counted by the QUIC library. What has arrived is, and what has been read: the difference, since
//! nothing was stalled, is the most that they can hold.

use std::time::{Duration, Instant};

/// Below this round-trip time the base is enough: growing would only cost memory.
const LOCAL: Duration = Duration::from_millis(5);
/// A window that passes within so many round trips is too small. Bytes behind a lost packet wait for it one round trip longer, and one more
/// if it is lost again; credit comes in steps: so a path is full with three to four times what it holds.
const ROUND_TRIPS: u32 = 4;
/// A window that has not passed in so long is the base again (CTL-18).
pub const REST: Duration = Duration::from_secs(10);

/// What there is of a stall: where the counters stood, and what may have been unread then.
#[derive(Debug, Clone, Copy)]
struct Stall {
    arrived: u64,
    taken: u64,
    unread: u64,
}

/// One direction's window of one session, in bytes.
#[derive(Debug, Clone)]
pub struct Window {
    base: u64,
    max: u64,
    stream: u64,
    current: u64,
    /// Streams whose reader has stalled.
    stalled: u64,
    stall: Option<Stall>,
    parked: u64,
    /// All that has passed.
    taken: u64,
    used: u64,
    since: Option<Instant>,
}

impl Window {
    /// A window of `base` bytes that grows up to `max`, with streams of `stream` bytes each.
    #[must_use]
    pub fn new(base: u64, max: u64, stream: u64) -> Self {
        let max = max.max(base);
        Self { base, max, stream, current: base, stalled: 0, stall: None, parked: 0, taken: 0, used: 0, since: None }
    }

    /// What to set in QUIC.
    #[must_use]
    pub fn total(&self) -> u64 {
        match self.parked {
            0 => self.current,
            // The QUIC library announces fresh credit only in steps of an eighth of the whole window. What is not parked must be
            // larger than such a step by the base, or a session with much parked data would wait for ever for the next one.
            parked => (self.current + parked) / 7 * 8,
        }
    }

    /// Bytes that are parked at most.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked
    }

    /// Bytes beyond the base, and what is parked.
    #[must_use]
    pub fn grown(&self) -> u64 {
        self.current - self.base
    }

    /// What has not been parked: that much may be on its way.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Whether a stream has stalled.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled > 0
    }

    /// A stream has stalled; so much has [arrived](crate::quic::Endpoint::arrived) on the session.
    pub fn stall(&mut self, arrived: u64) {
        self.stalled += 1;
        let (taken, unread) = (self.taken, self.current);
        self.stall.get_or_insert(Stall { arrived, taken, unread });
    }

    /// A stalled stream has been read empty, or is over. The new total, when it changed.
    pub fn unstall(&mut self) -> Option<u64> {
        self.stalled = self.stalled.saturating_sub(1);
        if self.stalled > 0 {
            return None;
        }
        self.stall = None;
        (std::mem::take(&mut self.parked) > 0).then(|| self.total())
    }

    /// Looks again how much stalled streams may hold, when so much has arrived, and there is `room` for more. The new total, when it
    /// changed.
    pub fn park(&mut self, arrived: u64, room: u64) -> Option<u64> {
        let stall = self.stall?;
        let fresh = arrived.saturating_sub(stall.arrived);
        let held = (stall.unread + fresh).saturating_sub(self.taken - stall.taken);
        // As much again: what the streams still have to come must not stop the others until the next look.
        let parked = (held * 2).min(self.stalled * self.stream).min(self.parked.saturating_add(room));
        (std::mem::replace(&mut self.parked, parked) != parked).then(|| self.total())
    }

    /// Bytes have passed, and there is `room` for growth. The new total, when it changed: twice as much when a whole window passed within
    /// four round trips, the base again when a window took more than 10 s.
    pub fn pass(&mut self, now: Instant, bytes: u64, room: u64, rtt: impl FnOnce() -> Duration) -> Option<u64> {
        self.taken += bytes;
        self.used += bytes;
        if self.used < self.current {
            self.since.get_or_insert(now);
            return None;
        }
        let took = self.since.map(|since| now.saturating_duration_since(since));
        (self.used, self.since) = (0, Some(now));
        let (took, rtt) = (took?, rtt());
        let next = if took > REST {
            self.base
        } else if rtt >= LOCAL && took <= ROUND_TRIPS * rtt {
            (self.current * 2).min(self.max).min(self.current.saturating_add(room))
        } else {
            self.current
        };
        (std::mem::replace(&mut self.current, next) != next).then(|| self.total())
    }

    /// A grown window that is not used is the base again. The new total, when it changed.
    pub fn rest(&mut self, now: Instant) -> Option<u64> {
        if self.grown() == 0 || self.since.is_some_and(|since| now < since + REST) {
            return None;
        }
        (self.current, self.used, self.since) = (self.base, 0, None);
        Some(self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    const RTT: Duration = Duration::from_millis(50);
    const ROOM: u64 = u64::MAX;

    #[test]
    fn grows_while_it_is_used_fully() {
        let mut window = Window::new(1000, 4000, 100);
        let mut now = first_instant();
        let mut totals = Vec::new();
        for _ in 0..200 {
            now += Duration::from_millis(5);
            totals.extend(window.pass(now, 200, ROOM, || RTT));
        }
        assert_eq!(totals, [2000, 4000], "doubled, up to the maximum");
        assert_eq!((window.rest(now), window.grown()), (None, 3000));
        assert_eq!((window.rest(now + REST), window.grown()), (Some(1000), 0), "nobody uses it");
    }

    /// A flow that is bound by its window, on a path of so many bytes a second, some of which come a round trip late.
    #[test]
    fn holds_four_times_what_the_path_does() {
        for product in [1_000_000, 2_500_000, 12_500_000u64] {
            let mut window = Window::new(512 * 1024, 16 << 20, 16 << 20);
            let mut now = first_instant();
            for _ in 0..100 {
                let round = window.current().min(3 * product) / 3;
                now += RTT;
                for _ in 0..10 {
                    window.pass(now, round / 10 + 1, ROOM, || RTT);
                }
            }
            assert!(window.current() >= (3 * product).min(16 << 20), "{product}: {}", window.current());
            assert!(window.current() <= 10 * product, "{product}: {}", window.current());
        }
    }

    #[test]
    fn stays_when_the_path_is_short_or_the_use_is_slow() {
        let mut window = Window::new(1000, 4000, 100);
        let mut now = first_instant();
        for _ in 0..100 {
            now += Duration::from_millis(1);
            assert_eq!(window.pass(now, 900, ROOM, || Duration::from_micros(100)), None);
        }
        for _ in 0..100 {
            now += Duration::from_millis(400);
            assert_eq!(window.pass(now, 900, ROOM, || RTT), None);
        }
    }

    #[test]
    fn grows_no_further_than_there_is_room() {
        let mut window = Window::new(1000, 4000, 100);
        let mut now = first_instant();
        for _ in 0..100 {
            now += Duration::from_millis(1);
            let room = 1500 - window.grown();
            window.pass(now, 900, room, || RTT);
        }
        assert_eq!(window.grown(), 1500);
    }

    #[test]
    fn what_stalled_streams_may_hold_comes_on_top() {
        let mut window = Window::new(700, 700, 7000);
        window.stall(10_000);
        // At the first look as much as the window let come; then what has come since. As much again is for what comes next.
        assert_eq!((window.park(10_000, ROOM), window.parked()), (Some(2400), 1400));
        assert_eq!((window.park(10_000, ROOM), window.parked()), (None, 1400));
        assert_eq!((window.park(12_100, ROOM), window.parked()), (Some(7200), 5600));
        // A neighbour is read.
        window.pass(first_instant(), 1400, ROOM, || RTT);
        assert_eq!((window.park(12_100, ROOM), window.parked()), (Some(4000), 2800));
        // No more than a stream's window for each, nor than there is room for.
        window.park(100_000, ROOM);
        assert_eq!(window.parked(), 7000);
        window.stall(100_000);
        window.park(100_000, 1000);
        assert_eq!(window.parked(), 8000);
        assert_eq!((window.unstall(), window.unstall(), window.parked()), (None, Some(700), 0));
    }

    #[test]
    fn what_is_not_parked_exceeds_a_step_of_the_library_by_the_base() {
        let mut window = Window::new(512 * 1024, 8 << 20, 1_250_000);
        for n in 0..1000 {
            window.stall(0);
            window.park(n * 1_250_000, ROOM);
            let total = window.total();
            assert!(total - window.parked() >= total / 8 + 512 * 1024 - 8);
        }
    }
}
