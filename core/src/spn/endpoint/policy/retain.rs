//! How much a connection keeps: what its path holds, from one end to the other and back.

use std::time::{Duration, Instant};

use crate::spn::{endpoint::config::Limits, flow::window::Window};

/// Bytes that a connection may keep, by the round trip of its own acknowledgements. That is longer than the one of its session: it goes
/// through the hub, and ends where the partner's local side takes the bytes.
#[derive(Debug, Clone)]
pub(in crate::spn::endpoint) struct Retain {
    window: Window,
    /// Up to where had been sent at that time: the next acknowledgement from there on measures a round trip.
    mark: Option<(u64, Instant)>,
    /// The shortest: one that a slow reader does not make longer.
    rtt: Option<Duration>,
}

impl Retain {
    pub(in crate::spn::endpoint) fn new(limits: &Limits) -> Self {
        let base = limits.retain_base.min(limits.retain_max);
        Self { window: Window::new(base, limits.retain_max, 0), mark: None, rtt: None }
    }

    pub(in crate::spn::endpoint) fn most(&self) -> u64 {
        self.window.current()
    }

    /// All up to `offset` has been sent.
    pub(in crate::spn::endpoint) fn sent(&mut self, now: Instant, offset: u64) {
        self.mark.get_or_insert((offset, now));
    }

    /// The partner has everything up to `offset`, `freed` bytes more than before.
    pub(in crate::spn::endpoint) fn acknowledged(&mut self, now: Instant, offset: u64, freed: u64) {
        if let Some((_, at)) = self.mark.take_if(|(mark, _)| *mark <= offset) {
            let rtt = now.saturating_duration_since(at);
            self.rtt = Some(self.rtt.map_or(rtt, |shortest| shortest.min(rtt)));
        }
        // The shortest is shorter than what busy hosts make of it: twice as many round trips as a window has.
        if let Some(rtt) = self.rtt {
            self.window.pass(now, freed, u64::MAX, || 2 * rtt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::first_instant;

    /// Sends as much as may be kept over a path, to a reader that takes so much a millisecond; what is kept in the end.
    fn kept(rtt_ms: u64, per_ms: u64) -> u64 {
        let mut retain = Retain::new(&Limits::default());
        let (mut sent, mut taken, mut acknowledged) = (0u64, 0u64, 0u64);
        let mut arrivals = std::collections::VecDeque::new();
        let mut acks = std::collections::VecDeque::new();
        let mut now = first_instant();
        let mut arrived = 0;
        for ms in 0..20_000u64 {
            now += Duration::from_millis(1);
            while sent < acknowledged + retain.most() {
                sent += (64 * 1024).min(acknowledged + retain.most() - sent);
                retain.sent(now, sent);
                arrivals.push_back((ms + rtt_ms / 2, sent));
            }
            while arrivals.front().is_some_and(|(at, _)| *at <= ms) {
                arrived = arrivals.pop_front().unwrap().1;
            }
            taken = arrived.min(taken + per_ms);
            acks.push_back((ms + rtt_ms / 2, taken));
            while acks.front().is_some_and(|(at, _)| *at <= ms) {
                let offset = acks.pop_front().unwrap().1;
                retain.acknowledged(now, offset, offset - acknowledged);
                acknowledged = offset;
            }
        }
        retain.most()
    }

    #[test]
    fn follows_the_path() {
        assert_eq!(kept(0, 100_000), 1 << 20, "a short one needs no more than the base");
        assert!(kept(20, 125_000) >= 2 * 20 * 125_000, "20 ms at 1 Gb/s");
        assert_eq!(kept(100, 125_000), 16 << 20, "100 ms at 1 Gb/s");
    }

    #[test]
    fn a_slow_reader_makes_it_no_larger() {
        assert_eq!(kept(20, 1_250), 1 << 20, "10 Mb/s");
        assert_eq!(kept(0, 1_250), 1 << 20);
    }
}
