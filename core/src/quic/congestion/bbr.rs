//! A congestion controller after BBR (draft-ietf-ccwg-bbr), for a sender that is steered by its window alone.
//!
//! The QUIC library paces at 5/4 of a window a round trip, whatever the window is, so a rate cannot be set. What can be set is how much is
//! on its way: the rate at which the path delivers, times its shortest round trip, times a gain. The gain is a little over one most of
//! the time, so that a path that has become faster is noticed; every few rounds it is more for one round and exactly one in the next. So a queue
//! of a quarter of a round trip stands in front of the narrowest hop, and one of a whole round trip at the most. Where acknowledgements come in bursts, so
//! much more is on its way as came at once: or a busy host would look like a slow path.
//!
//! A lost packet by itself means nothing. Only when more than [`TOLERATED`] of a round are lost, the window has been too much for a short
//! queue: then it is bounded for a while. Every 10 s the queue is let drain, to see whether the round trip has changed.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory},
};

use super::model::{Delivery, Max, amount};

/// Packets at first (RFC 9002 §7.2).
const INITIAL_PACKETS: u64 = 10;
/// Packets at least.
const LEAST_PACKETS: u64 = 4;
/// Gains in hundredths: while the path is unknown,
const STARTUP: u64 = 289;
/// most of the time,
const CRUISE: u64 = 125;
/// in the round that asks whether there is more,
const PROBE: u64 = 175;
/// in the one after it,
const DRAIN: u64 = 100;
/// while the round trip is measured,
const MEASURE: u64 = 50;
/// and at most.
const MOST: u64 = 200;
/// Time that hosts may take to notice what has come, and to send: a path is kept full over it.
const HOST: Duration = Duration::from_millis(4);
/// Acknowledgements that come at once are those of so much time at most: the hosts were busy, or the path saves them up. While they are
/// waited for, as much more is sent.
const BURST: Duration = Duration::from_millis(100);
/// The path is known when its rate has grown by less than a quarter in each of so many rounds.
const FULL_ROUNDS: u32 = 3;
/// The share of a round, in percent, that may be lost by chance.
const TOLERATED: u64 = 5;
/// The shortest round trip is believed for so long,
const RTT_AGE: Duration = Duration::from_secs(10);
/// and measured for at least so long.
const RTT_TIME: Duration = Duration::from_millis(200);

/// Makes controllers.
#[derive(Debug)]
pub(super) struct BbrConfig;

impl ControllerFactory for BbrConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bbr::new(now, current_mtu))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The path is unknown: twice as much each round, until it delivers no more.
    Startup,
    /// It is known.
    Steady,
    /// The queue drains until then; the shortest round trip so far.
    Measure { until: Instant, rtt: Duration },
}

#[derive(Debug, Clone)]
pub(super) struct Bbr {
    mtu: u64,
    mode: Mode,
    window: u64,
    delivery: Delivery,
    /// Bytes a second.
    rate: Max,
    /// The shortest round trip, and when it was seen.
    rtt: Option<(Duration, Instant)>,
    smoothed_rtt: Duration,
    /// Acknowledged since the last end of acknowledgements.
    acked: u64,
    /// The round ends when something is acknowledged that was sent after so much had been delivered.
    round_end: u64,
    round_began: u64,
    /// Something in this round was not limited by the application.
    round_counts: bool,
    round_lost: u64,
    round_marked: bool,
    /// The rate that has to be beaten for the path to count as unknown, and for how many rounds it has not been.
    full: (u64, u32),
    /// Rounds of this cycle, and how many it has.
    cycle: (u64, u64),
    /// More than this was too much.
    bound: Option<u64>,
    /// How much comes at once that the rate does not explain: since when, and how much so far.
    burst: Option<(Instant, u64)>,
    bursts: Max,
}

impl Bbr {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            mode: Mode::Startup,
            window: INITIAL_PACKETS * mtu,
            delivery: Delivery::new(now),
            rate: Max::default(),
            rtt: None,
            smoothed_rtt: Duration::ZERO,
            acked: 0,
            round_end: 0,
            round_began: 0,
            round_counts: false,
            round_lost: 0,
            round_marked: false,
            full: (0, 0),
            cycle: (0, 8),
            bound: None,
            burst: None,
            bursts: Max::default(),
        }
    }

    /// Something has been acknowledged that was sent then.
    pub(super) fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, smoothed_rtt: Duration) {
        self.acked += bytes;
        self.smoothed_rtt = smoothed_rtt;
        self.delivery.on_ack(now, sent, bytes);
    }

    fn least(&self) -> u64 {
        LEAST_PACKETS * self.mtu
    }

    /// What the path holds without a queue.
    fn product(&self) -> u64 {
        self.rtt.map_or(0, |(rtt, _)| amount(self.rate.get(), rtt))
    }

    fn gain(&self) -> u64 {
        match self.mode {
            Mode::Startup => STARTUP,
            Mode::Measure { .. } => MEASURE,
            Mode::Steady => match self.cycle.0 {
                0 => PROBE,
                1 => DRAIN,
                2.. => CRUISE,
            },
        }
    }

    /// What may be on its way at most, but for what comes in bursts.
    fn most(&self) -> u64 {
        let product = self.product();
        (product * MOST / 100).max(product + amount(self.rate.get(), HOST))
    }

    /// What may be on its way, by what is known.
    fn target(&self) -> u64 {
        let product = self.product();
        let gained = product * self.gain() / 100;
        let host = amount(self.rate.get(), HOST);
        let bursts = self.bursts.get().saturating_sub(host);
        let target = match self.mode {
            Mode::Startup => gained + host + bursts,
            Mode::Measure { .. } => gained,
            Mode::Steady => (gained + host).min(self.most()) + bursts,
        };
        self.bound.map_or(target, |bound| target.min(bound)).max(self.least())
    }

    /// A round trip has passed.
    fn end_round(&mut self) {
        let delivered = self.delivery.delivered() - self.round_began;
        let too_much = self.round_lost * 100 > (delivered + self.round_lost) * TOLERATED || self.round_marked;
        if self.round_counts {
            self.rate.advance();
            self.bursts.advance();
            self.see_whether_full(too_much);
        }
        if too_much && self.mode != Mode::Startup {
            // Never less than the path holds by itself: what is lost nevertheless is lost by chance.
            self.bound = Some((self.window * 9 / 10).max(self.product()));
        } else if let Some(bound) = &mut self.bound {
            *bound += (*bound / 32).max(self.mtu);
            let bound = *bound;
            if bound > self.most() + self.bursts.get() {
                self.bound = None;
            }
        }
        let (round, rounds) = &mut self.cycle;
        *round += 1;
        if round >= rounds {
            // Connections that share a hop ask at different times, or none would learn its share.
            self.cycle = (0, 6 + self.delivery.delivered() / self.mtu % 5);
        }
        tracing::trace!(
            mode = ?self.mode,
            rate = self.rate.get(),
            rtt = ?self.rtt.map(|(rtt, _)| rtt),
            smoothed_rtt = ?self.smoothed_rtt,
            window = self.window,
            bursts = self.bursts.get(),
            bound = self.bound,
            lost = self.round_lost,
            delivered,
            counts = self.round_counts,
            "round"
        );
        self.round_began = self.delivery.delivered();
        self.round_end = self.delivery.delivered();
        (self.round_lost, self.round_marked, self.round_counts) = (0, false, false);
    }

    fn see_whether_full(&mut self, too_much: bool) {
        if self.mode != Mode::Startup {
            return;
        }
        let (full, rounds) = &mut self.full;
        let rate = self.rate.get();
        if rate >= *full * 5 / 4 {
            (*full, *rounds) = (rate, 0);
        } else {
            *rounds += 1;
        }
        if *rounds >= FULL_ROUNDS || too_much && *rounds > 0 {
            self.mode = Mode::Steady;
            self.cycle = (1, 8);
        }
    }

    fn see_rtt(&mut self, now: Instant, sample: Duration) {
        if let Mode::Measure { until, rtt } = &mut self.mode {
            *rtt = sample.min(*rtt);
            if now >= *until {
                self.rtt = Some((*rtt, now));
                self.mode = Mode::Steady;
                self.cycle = (2, 8);
            }
            return;
        }
        match self.rtt {
            Some((rtt, at)) if sample > rtt => {
                if now >= at + RTT_AGE && self.mode == Mode::Steady {
                    let until = now + RTT_TIME.max(2 * self.smoothed_rtt);
                    self.mode = Mode::Measure { until, rtt: sample };
                }
            }
            Some(_) | None => self.rtt = Some((sample, now)),
        }
    }

    /// How much has come at once, beyond what the rate explains.
    fn see_burst(&mut self, now: Instant) {
        let (since, so_far) = self.burst.unwrap_or((now, 0));
        let expected = amount(self.rate.get(), now.saturating_duration_since(since));
        // As much as the rate explains, or less: what comes now begins anew.
        let (since, so_far, expected) = if so_far <= expected { (now, 0, 0) } else { (since, so_far, expected) };
        let so_far = so_far + self.acked;
        self.burst = Some((since, so_far));
        self.bursts.add((so_far - expected).min(amount(self.rate.get(), BURST)));
    }
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        self.delivery.on_sent(now, bytes, self.rtt.map_or(Duration::ZERO, |(rtt, _)| rtt));
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, rtt: &RttEstimator) {
        self.acknowledged(now, sent, bytes, rtt.get());
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        let Some(sample) = self.delivery.sample(now, in_flight, app_limited) else {
            self.acked = 0;
            return;
        };
        if let Some(rate) = sample.rate
            && (!sample.app_limited || rate > self.rate.get())
        {
            self.rate.add(rate);
            self.round_counts |= !sample.app_limited;
        }
        self.see_burst(now);
        self.see_rtt(now, sample.rtt);
        if sample.delivered_before >= self.round_end {
            self.end_round();
        }
        let target = self.target();
        let grown = match self.mode {
            // While nothing holds the sender back, nothing is learnt from what it could have had.
            Mode::Startup if app_limited => self.window,
            Mode::Startup => (self.window + self.acked).min(target.max(INITIAL_PACKETS * self.mtu)).max(self.window),
            Mode::Steady | Mode::Measure { .. } => (self.window + self.acked).min(target),
        };
        self.window = grown.max(self.least());
        self.acked = 0;
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.round_lost += lost_bytes;
        // A mark of a hop that has a queue (ECN).
        self.round_marked |= lost_bytes == 0;
        if is_persistent_congestion {
            // Nothing came through for long: what was known of the path is worth nothing.
            let (mtu, rtt) = (self.mtu, self.smoothed_rtt);
            *self = Self::new(now, u16::try_from(mtu).unwrap_or(u16::MAX));
            (self.window, self.smoothed_rtt) = (self.least(), rtt);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
