//! What is known of a path: how fast it delivers, how long its shortest round trip is, and how much of that is noise.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Rounds over which the best rate counts.
const ROUNDS: usize = 10;
/// Snapshots are at least so far apart,
const SNAPSHOT: Duration = Duration::from_micros(250);
/// and there are at most so many.
const SNAPSHOTS: usize = 256;

/// The greatest value of the last [`ROUNDS`] rounds.
#[derive(Debug, Clone, Default)]
pub(super) struct Max([u64; ROUNDS]);

impl Max {
    pub(super) fn get(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    pub(super) fn add(&mut self, value: u64) {
        let [now, ..] = &mut self.0;
        *now = value.max(*now);
    }

    /// A round is over: the oldest is forgotten.
    pub(super) fn advance(&mut self) {
        self.0.rotate_right(1);
        let [now, ..] = &mut self.0;
        *now = 0;
    }
}

/// Where delivery stood when something was sent.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    /// When that was sent which had been acknowledged last.
    first_sent: Instant,
    app_limited: bool,
}

/// What an acknowledgement says about the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// From sending to here.
    pub(super) rtt: Duration,
    /// Bytes a second, if it can be told.
    pub(super) rate: Option<u64>,
    /// The sender had nothing more to send then: the path may be faster.
    pub(super) app_limited: bool,
    /// What had been delivered when that was sent which has now been acknowledged.
    pub(super) delivered_before: u64,
}

/// Measures the rate of delivery over one round trip (draft-ietf-ccwg-bbr, Delivery Rate Samples).
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    in_flight: u64,
    /// What is sent before so much is delivered counts as limited by the application.
    app_limited_until: Option<u64>,
    sent: VecDeque<Snapshot>,
    /// The newest that has been acknowledged since the last sample.
    newest: Option<Instant>,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            in_flight: 0,
            app_limited_until: None,
            sent: VecDeque::new(),
            newest: None,
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Something is sent. `rtt` is the shortest round trip.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64, rtt: Duration) {
        if self.in_flight == 0 {
            (self.first_sent, self.delivered_at) = (now, now);
        }
        self.in_flight += bytes;
        if self.sent.back().is_some_and(|last| now < last.at + (rtt / 64).max(SNAPSHOT)) {
            return;
        }
        if self.sent.len() >= SNAPSHOTS {
            self.sent.pop_front();
        }
        let &mut Self { delivered, delivered_at, first_sent, .. } = self;
        let app_limited = self.app_limited_until.is_some();
        self.sent.push_back(Snapshot { at: now, delivered, delivered_at, first_sent, app_limited });
    }

    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
    }

    /// All of one batch has been acknowledged.
    pub(super) fn sample(&mut self, now: Instant, in_flight: u64, app_limited: bool) -> Option<Sample> {
        self.in_flight = in_flight;
        if app_limited {
            self.app_limited_until = Some(self.delivered + in_flight);
        } else if self.app_limited_until.is_some_and(|until| self.delivered > until) {
            self.app_limited_until = None;
        }
        let sent = self.newest.take()?;
        // The last one that is not later. Those before it are older than anything that is yet to be acknowledged, but for late ones.
        while self.sent.get(1).is_some_and(|next| next.at <= sent) {
            self.sent.pop_front();
        }
        let before = *self.sent.front().filter(|snapshot| snapshot.at <= sent)?;
        let rtt = now.saturating_duration_since(sent);
        let took =
            now.saturating_duration_since(before.delivered_at).max(sent.saturating_duration_since(before.first_sent));
        self.first_sent = self.first_sent.max(sent);
        let bytes = self.delivered - before.delivered;
        let rate = (!took.is_zero())
            .then(|| u64::try_from(u128::from(bytes) * 1_000_000_000 / took.as_nanos()).unwrap_or(u64::MAX));
        Some(Sample { rtt, rate, app_limited: before.app_limited, delivered_before: before.delivered })
    }
}

/// Bytes that come at `rate` within `time`.
pub(super) fn amount(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}
