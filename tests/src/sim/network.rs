//! Datagrams on their way.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use towline_core::quic::{Received, Transmit};

use crate::random::Random;

struct Datagram {
    to: SocketAddr,
    from: SocketAddr,
    ecn: Option<towline_core::quic::Ecn>,
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
    /// Pairs between which nothing passes for a while.
    parted: Vec<(SocketAddr, SocketAddr, Instant)>,
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
            random: Random::new(random.number()),
            cut_until: None,
            parted: Vec::new(),
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

    pub(super) fn part(&mut self, one: SocketAddr, other: SocketAddr, until: Instant) {
        self.parted.push((one, other, until));
    }

    fn is_cut(&self, now: Instant, from: SocketAddr, to: SocketAddr) -> bool {
        let parts = |(one, other, until): &(SocketAddr, SocketAddr, Instant)| {
            now < *until && [(*one, *other), (*other, *one)].contains(&(from, to))
        };
        self.cut_until.is_some_and(|until| now < until) || self.parted.iter().any(parts)
    }

    pub(super) fn send(&mut self, now: Instant, from: SocketAddr, transmit: &Transmit, contents: &[u8]) {
        let is_cut = self.is_cut(now, from, transmit.destination);
        let size = transmit.segment_size.unwrap_or(contents.len()).max(1);
        for segment in contents.chunks(size) {
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
