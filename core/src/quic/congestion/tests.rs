//! Controllers on a simulated path: one narrow hop with a queue, a delay each way, and losses by chance. Virtual time, fixed seed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use quinn_proto::congestion::Controller;

use super::{Congestion, bbr::Bbr};
use crate::testing::first_instant;

const PACKET: u64 = 1452;
const TICK: Duration = Duration::from_micros(100);

/// The path.
#[derive(Clone, Copy)]
struct Path {
    /// Bytes a second.
    rate: f64,
    round_trip: Duration,
    /// Bytes in front of the narrow hop, at most.
    queue: f64,
    /// Packets of a million that are lost by chance.
    loss: u64,
    /// The receiver acknowledges so often.
    acks: Duration,
}

impl Path {
    fn new(mbit: u64, round_trip_ms: u64) -> Self {
        let (rate, round_trip) = (mbit as f64 * 125_000.0, Duration::from_millis(round_trip_ms));
        Self { rate, round_trip, queue: rate * round_trip.as_secs_f64(), loss: 0, acks: Duration::from_millis(1) }
    }

    /// A round trip, with what the receiver's turns and the sending of two packets add to it.
    fn longest(self) -> Duration {
        self.round_trip + self.acks + Duration::from_secs_f64(2.0 * PACKET as f64 / self.rate)
    }

    /// With a queue of so many bandwidth-delay products.
    fn queue(self, products: f64) -> Self {
        Self { queue: self.rate * self.round_trip.as_secs_f64() * products, ..self }
    }
}

struct Packet {
    sent: Instant,
    /// When the receiver's acknowledgement is here; never, if it is lost.
    acked: Option<Instant>,
}

struct Flow {
    bbr: Bbr,
    flight: VecDeque<Packet>,
    in_flight: u64,
    tokens: f64,
    rtt: Duration,
    delivered: u64,
    lost: u64,
}

/// A path and those who send over it.
struct World {
    start: Instant,
    now: Instant,
    path: Path,
    /// When the hop has sent all that it has.
    free_at: Instant,
    flows: Vec<Flow>,
    random: u64,
    /// The longest wait in the queue since this was last taken.
    longest_wait: Duration,
}

impl World {
    fn new(path: Path, flows: usize) -> Self {
        let now = first_instant();
        let mut world = Self {
            start: now,
            now,
            path,
            free_at: now,
            flows: Vec::new(),
            random: 88_172_645_463_325_252,
            longest_wait: Duration::ZERO,
        };
        (0..flows).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        self.flows.push(Flow {
            bbr: Bbr::new(self.now, PACKET as u16),
            flight: VecDeque::new(),
            in_flight: 0,
            tokens: 0.0,
            rtt: self.path.round_trip,
            delivered: 0,
            lost: 0,
        });
    }

    fn lose(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % 1_000_000 < self.path.loss
    }

    /// Lets time pass; what each flow has delivered, in bytes a second.
    fn run(&mut self, time: Duration) -> Vec<f64> {
        let (end, before) = (self.now + time, self.flows.iter().map(|flow| flow.delivered).collect::<Vec<_>>());
        self.longest_wait = Duration::ZERO;
        while self.now < end {
            self.now += TICK;
            for n in 0..self.flows.len() {
                self.acknowledge(n);
                self.send(n);
            }
        }
        let rates = self.flows.iter().zip(before);
        rates.map(|(flow, before)| (flow.delivered - before) as f64 / time.as_secs_f64()).collect()
    }

    fn acknowledge(&mut self, n: usize) {
        let (now, flow) = (self.now, &mut self.flows[n]);
        let came = |packet: &Packet| packet.acked.is_some_and(|at| at <= now);
        let Some(newest) = flow.flight.iter().rev().find(|packet| came(packet)).map(|packet| packet.sent) else {
            return;
        };
        let is_late = |packet: &Packet, rtt: Duration| packet.sent < newest && now - packet.sent >= rtt * 5 / 4;
        let (rtt, mut acked, mut lost) = (flow.rtt, 0, 0);
        let mut left = VecDeque::with_capacity(flow.flight.len());
        for packet in flow.flight.drain(..) {
            if came(&packet) {
                acked += PACKET;
                flow.bbr.acknowledged(now, packet.sent, PACKET, rtt);
            } else if is_late(&packet, rtt) {
                lost += PACKET;
            } else {
                left.push_back(packet);
            }
        }
        flow.flight = left;
        flow.in_flight -= acked + lost;
        flow.delivered += acked;
        flow.lost += lost;
        flow.rtt = (flow.rtt * 7 + (now - newest)) / 8;
        flow.bbr.on_end_acks(now, flow.in_flight, false, None);
        if lost > 0 {
            flow.bbr.on_congestion_event(now, newest, false, lost);
        }
    }

    fn send(&mut self, n: usize) {
        let now = self.now;
        let window = self.flows[n].bbr.window();
        // As the QUIC library paces.
        let rate = 1.25 * window as f64 / self.flows[n].rtt.as_secs_f64();
        let most = (rate * 0.002).clamp(10.0 * PACKET as f64, 256.0 * PACKET as f64);
        self.flows[n].tokens = (self.flows[n].tokens + rate * TICK.as_secs_f64()).min(most);
        while self.flows[n].in_flight + PACKET <= window && self.flows[n].tokens >= PACKET as f64 {
            let lost = self.lose();
            let waits = self.free_at.saturating_duration_since(now);
            let dropped = waits.as_secs_f64() * self.path.rate > self.path.queue;
            let acked = (!dropped).then(|| {
                self.longest_wait = self.longest_wait.max(waits);
                self.free_at = now + waits + Duration::from_secs_f64(PACKET as f64 / self.path.rate);
                let back = self.free_at + self.path.round_trip;
                // At the receiver's next turn.
                let step = self.path.acks.as_nanos() as u64;
                let since = (back - self.start).as_nanos() as u64;
                self.start + Duration::from_nanos(since.div_ceil(step) * step)
            });
            let flow = &mut self.flows[n];
            flow.flight.push_back(Packet { sent: now, acked: acked.filter(|_| !lost) });
            flow.in_flight += PACKET;
            flow.tokens -= PACKET as f64;
            flow.bbr.on_sent(now, PACKET, 0);
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_path_is_filled_whatever_is_lost_by_chance() {
    for (loss, share) in [(0, 0.95), (1_000, 0.95), (10_000, 0.93), (20_000, 0.9)] {
        let path = Path { loss, ..Path::new(50, 20) };
        let mut world = World::new(path, 1);
        world.run(seconds(2));
        let rate = world.run(seconds(15))[0] / path.rate;
        assert!(rate >= share, "{loss} of a million lost: {rate:.2} of the path");
    }
}

#[test]
fn no_queue_stands_for_more_than_a_round_trip() {
    for (mbit, round_trip) in [(10, 20), (50, 20), (30, 50)] {
        for products in [1.0, 4.0] {
            let path = Path::new(mbit, round_trip).queue(products);
            let mut world = World::new(path, 1);
            world.run(seconds(3));
            let (lost, delivered) = (world.flows[0].lost, world.flows[0].delivered);
            let rate = world.run(seconds(15))[0] / path.rate;
            let lost = (world.flows[0].lost - lost) as f64 / (world.flows[0].delivered - delivered) as f64;
            let wait = world.longest_wait;
            assert!(rate > 0.93, "{mbit} Mb/s, {round_trip} ms, queue of {products}: {rate:.2} of the path");
            assert!(wait <= path.longest(), "{mbit} Mb/s, {round_trip} ms, queue of {products}: {wait:?}");
            assert!(lost < 0.01, "{mbit} Mb/s, {round_trip} ms, queue of {products}: {lost:.4} lost");
        }
    }
}

#[test]
fn a_short_queue_is_not_flooded() {
    let path = Path::new(100, 20).queue(0.1);
    let mut world = World::new(path, 1);
    world.run(seconds(3));
    let (lost, delivered) = (world.flows[0].lost, world.flows[0].delivered);
    let rate = world.run(seconds(15))[0] / path.rate;
    let lost = (world.flows[0].lost - lost) as f64 / (world.flows[0].delivered - delivered) as f64;
    assert!(rate > 0.9 && lost < 0.08, "{rate:.2} of the path, {lost:.3} lost");
}

#[test]
fn a_path_that_changes_is_followed() {
    let mut world = World::new(Path::new(50, 20).queue(4.0), 1);
    world.run(seconds(5));
    world.path = Path::new(200, 20).queue(4.0);
    world.run(seconds(1));
    let rate = world.run(seconds(2))[0] / world.path.rate;
    assert!(rate > 0.9, "four times as fast: {rate:.2} of it is used");
    world.path = Path::new(50, 20).queue(4.0);
    world.run(seconds(2));
    let rate = world.run(seconds(2))[0] / world.path.rate;
    let wait = world.longest_wait;
    assert!(rate > 0.9 && wait <= world.path.longest(), "a quarter again: {rate:.2}, {wait:?}");
    world.path.round_trip = Duration::from_millis(60);
    world.run(seconds(15));
    let rate = world.run(seconds(5))[0] / world.path.rate;
    assert!(rate > 0.85, "a longer way: {rate:.2} of it is used");
}

#[test]
fn acknowledgements_that_come_in_bursts_do_not_slow_it_down() {
    // The second is a host that is busy for twice the round trip, again and again.
    for acks in [10, 40] {
        let path = Path { acks: Duration::from_millis(acks), ..Path::new(100, 20).queue(4.0) };
        let mut world = World::new(path, 1);
        world.run(seconds(3));
        let rate = world.run(seconds(10))[0] / path.rate;
        assert!(rate > 0.9, "{acks} ms: {rate:.2} of the path");
    }
}

#[test]
fn neighbours_share() {
    let path = Path::new(20, 20);
    let mut world = World::new(path, 1);
    world.run(seconds(5));
    world.join();
    world.run(seconds(30));
    let rates = world.run(seconds(20));
    let [a, b] = rates[..] else { panic!() };
    assert!((a + b) / path.rate > 0.9, "{a} {b}");
    assert!(a.max(b) / a.min(b) < 2.0, "the one that came later has its share: {a} {b}");
}

#[test]
fn a_path_that_was_cut_is_found_again() {
    let path = Path::new(100, 20);
    let mut world = World::new(path, 1);
    world.run(seconds(3));
    let now = world.now;
    let flow = &mut world.flows[0];
    flow.flight.clear();
    flow.in_flight = 0;
    flow.bbr.on_congestion_event(now, now, true, 1);
    assert!(flow.bbr.window() <= 4 * PACKET);
    world.run(seconds(2));
    let rate = world.run(seconds(3))[0] / path.rate;
    assert!(rate > 0.9, "{rate:.2} of the path");
}

#[test]
fn names() {
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        assert_eq!(congestion.to_string().parse(), Ok(congestion));
    }
    assert!("reno".parse::<Congestion>().unwrap_err().to_string().contains("expected cubic or bbr"));
}
