//! Datagrams on their way.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use towline_core::quic::{Received, Transmit};

/// A small generator (splitmix64): the same numbers for the same seed, on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        seed
    }
}

struct Datagram {
    to: SocketAddr,
    from: SocketAddr,
    ecn: Option<towline_core::quic::EcnCodepoint>,
    data: BytesMut,
}

/// A network with habits.
pub(super) struct Network {
    random: Random,
    loss: u64,
    duplication: u64,
    delay: Duration,
    jitter_us: u64,
    mtu: usize,
    cut_until: Option<Instant>,
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    datagrams: BTreeMap<u64, Datagram>,
    sent: u64,
}

impl Network {
    pub(super) fn new(random: &mut Random) -> Self {
        let is_rough = random.chance(60);
        let up_to = |bound: u64, random: &mut Random| if is_rough { random.below(bound) } else { 0 };
        Self {
            loss: up_to(8, random),
            duplication: up_to(5, random),
            delay: Duration::from_micros(100 + up_to(60_000, random)),
            // More than the time between two packets: they overtake each other.
            jitter_us: up_to(10_000, random),
            mtu: 1200 + random.below(300) as usize,
            random: Random::new(random.next()),
            cut_until: None,
            order: BinaryHeap::new(),
            datagrams: BTreeMap::new(),
            sent: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn cut_until(&mut self, until: Instant) {
        self.cut_until = Some(until);
    }

    pub(super) fn send(&mut self, now: Instant, from: SocketAddr, transmit: &Transmit, contents: &[u8]) {
        let size = transmit.segment_size.unwrap_or(contents.len()).max(1);
        for segment in contents.chunks(size) {
            let is_cut = self.cut_until.is_some_and(|until| now < until);
            let copies = 1 + u64::from(self.random.chance(self.duplication));
            if is_cut || segment.len() > self.mtu || self.random.chance(self.loss) {
                continue;
            }
            for _ in 0..copies {
                let at = now + self.delay + Duration::from_micros(self.random.below(self.jitter_us));
                self.order.push(Reverse((at, self.sent)));
                let (to, data) = (transmit.destination, BytesMut::from(segment));
                self.datagrams.insert(self.sent, Datagram { to, from, ecn: transmit.ecn, data });
                self.sent += 1;
            }
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, _))| *at)
    }

    /// A datagram that arrives at `now`, and where.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<(SocketAddr, Received)> {
        let Reverse((at, number)) = self.order.peek()?;
        if *at > now {
            return None;
        }
        let datagram = self.datagrams.remove(number)?;
        self.order.pop();
        let Datagram { to, from, ecn, data } = datagram;
        Some((to, Received { remote: from, local_ip: None, ecn, data }))
    }
}
