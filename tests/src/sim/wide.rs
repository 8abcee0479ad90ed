//! One connection over a long path: a consumer, a narrow hop with a delay, losses and late packets, a hub, and a provider beside it.
//!
//! Virtual time and a fixed seed: what comes out is a property of the windows, of what is kept, and of the congestion control.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use towline_core::{
    quic::{Congestion, Identity, ReadOutcome, Received, Roots, Transmit, WriteOutcome},
    spn::{
        Role,
        endpoint::{Config as EndpointConfig, ConnId, Endpoint, Notice},
        hub::{Config, Hub, Service},
    },
    testing::first_instant,
};

use super::{certificates, epoch};
use crate::random::Random;

/// The path between the consumer and the hub.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Bytes a second, each way.
    pub rate: u64,
    /// There and back.
    pub round_trip: Duration,
    /// The queue in front of the narrow hop, in bytes.
    pub queue: u64,
    /// Packets of a thousand that are lost.
    pub loss: u64,
    /// Packets of a thousand that are late, and by how much.
    pub late: (u64, Duration),
    /// How everybody finds out what it carries.
    pub congestion: Congestion,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The share of the path's rate that payload had, once it was known.
    pub share: f64,
    /// The longest wait in the queue then.
    pub wait: Duration,
    /// The most that the sender kept for the case of a lost session.
    pub kept: u64,
}

struct Datagram {
    to: SocketAddr,
    from: SocketAddr,
    data: BytesMut,
}

/// The way between the consumer and everybody else; all other ways are short.
struct Network {
    path: Path,
    consumer: SocketAddr,
    random: Random,
    /// When the hop is free: towards the hub, and back.
    free: [Instant; 2],
    wait: Duration,
    order: BinaryHeap<Reverse<(Instant, usize)>>,
    datagrams: Vec<Option<Datagram>>,
}

impl Network {
    fn send(&mut self, now: Instant, from: SocketAddr, transmit: &Transmit, contents: &[u8]) {
        let to = transmit.destination;
        for segment in contents.chunks(transmit.segment_size.unwrap_or(contents.len()).max(1)) {
            let mut at = now + Duration::from_micros(50);
            if [from, to].contains(&self.consumer) {
                let free = &mut self.free[usize::from(to == self.consumer)];
                let wait = free.saturating_duration_since(now);
                if wait.as_secs_f64() * self.path.rate as f64 > self.path.queue as f64 {
                    continue;
                }
                self.wait = self.wait.max(wait);
                *free = now + wait + Duration::from_secs_f64((segment.len() + 28) as f64 / self.path.rate as f64);
                at = *free + self.path.round_trip / 2;
                if self.random.below(1000) < self.path.loss {
                    continue;
                }
                if self.random.below(1000) < self.path.late.0 {
                    at += self.path.late.1;
                }
            }
            self.order.push(Reverse((at, self.datagrams.len())));
            self.datagrams.push(Some(Datagram { to, from, data: BytesMut::from(segment) }));
        }
    }
}

/// Sends for so long over the path, of which the first `warm` does not count.
///
/// # Panics
/// The connection breaks.
#[must_use]
pub fn run(path: Path, warm: Duration, time: Duration) -> Outcome {
    let made = certificates();
    let start = first_instant();
    let [at_hub, at_provider, at_consumer] = [1, 10, 20].map(|n| SocketAddr::from(([192, 0, 2, n], 4433)));
    let mut config = Config::new("r", "hub", at_hub);
    (config.certificate, config.key) = made.hub.clone();
    config.client_ca.clone_from(&made.ca);
    config.transport.congestion = path.congestion;
    config.services = vec![Service {
        urn: "urn:s".to_owned(),
        providers: vec!["p1".to_owned()],
        consumers: vec!["c1".to_owned()],
        singleton: false,
        availability: None,
    }];
    let mut hub = Hub::new(start, config, [1; 32], epoch()).expect("a hub");
    let endpoint = |role, name: &str, seed| {
        let (certificate, key) = made.endpoints.get(name).expect("made before");
        let identity = Identity::from_pem(certificate, key).expect("an identity");
        let mut config = EndpointConfig::new(role, "hub.example", identity, Roots::from_pem(&made.ca).expect("roots"));
        config.transport.congestion = path.congestion;
        let mut endpoint = Endpoint::new(config, [seed; 32], epoch()).expect("an endpoint");
        endpoint.handle_addresses(start, &[at_hub]);
        endpoint
    };
    let mut provider = endpoint(Role::Provider, "p1", 2);
    let mut consumer = endpoint(Role::Consumer, "c1", 3);
    let mut network = Network {
        path,
        consumer: at_consumer,
        random: Random::new(7),
        free: [start; 2],
        wait: Duration::ZERO,
        order: BinaryHeap::new(),
        datagrams: Vec::new(),
    };
    let block = Bytes::from(vec![7; 64 * 1024]);
    let (mut conn, mut served): (Option<ConnId>, Option<ConnId>) = (None, None);
    let (mut received, mut counted, mut kept) = (0, None, 0);
    let (mut now, mut buffer, mut chunks) = (start, Vec::new(), Vec::new());
    while now < start + warm + time {
        loop {
            let mut worked = false;
            while let Some(transmit) = hub.poll_transmit(now, &mut buffer) {
                network.send(now, at_hub, &transmit, &buffer);
                worked = true;
            }
            while hub.poll_notice().is_some() {}
            for (endpoint, own) in [(&mut provider, at_provider), (&mut consumer, at_consumer)] {
                while let Some(transmit) = endpoint.poll_transmit(now, &mut buffer) {
                    network.send(now, own, &transmit, &buffer);
                    worked = true;
                }
            }
            while let Some(notice) = consumer.poll_notice() {
                match notice {
                    Notice::SessionUp { .. } => conn = Some(consumer.connect(now).expect("a connection")),
                    Notice::Reset(..) | Notice::Ended(_) => panic!("{notice:?}"),
                    _ => {}
                }
                worked = true;
            }
            while let Some(notice) = provider.poll_notice() {
                if let Notice::Incoming(id) = notice {
                    served = Some(id);
                }
                worked = true;
            }
            // It sends what it may.
            while let Some(id) = conn {
                let (done, more) = match consumer.write(now, id, &mut [block.clone()]) {
                    WriteOutcome::Written { bytes } => (bytes, true),
                    WriteOutcome::Blocked { bytes, .. } => (bytes, false),
                    WriteOutcome::Stopped(_) | WriteOutcome::Gone => (0, false),
                };
                worked |= done > 0;
                if !more {
                    break;
                }
            }
            if let Some(progress) = conn.and_then(|id| consumer.progress(id)) {
                kept = kept.max(progress.sent - progress.acknowledged);
            }
            // The other one takes what comes.
            while let Some(id) = served {
                let outcome = provider.read(now, id, &mut chunks, 32);
                let bytes: usize = chunks.drain(..).map(|chunk: Bytes| chunk.len()).sum();
                received += bytes as u64;
                worked |= bytes > 0;
                if outcome != ReadOutcome::More {
                    break;
                }
            }
            if !worked {
                break;
            }
        }
        let dues = [hub.poll_timeout(), provider.poll_timeout(), consumer.poll_timeout()].into_iter().flatten();
        let due = dues.chain(network.order.peek().map(|Reverse((at, _))| *at)).min().expect("something to come");
        now = now.max(due);
        if counted.is_none() && now >= start + warm {
            counted = Some(received);
            network.wait = Duration::ZERO;
        }
        while network.order.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, number))) = network.order.pop() else { break };
            let Some(Datagram { to, from, data }) = network.datagrams[number].take() else { continue };
            let datagram = Received { remote: from, local_ip: None, ecn: None, data };
            if to == at_hub {
                hub.handle_datagram(now, datagram);
            } else if to == at_consumer {
                consumer.handle_datagram(now, datagram);
            } else {
                provider.handle_datagram(now, datagram);
            }
        }
        hub.handle_timeout(now);
        provider.handle_timeout(now);
        consumer.handle_timeout(now);
    }
    hub.check().expect("its books are right");
    let share = (received - counted.unwrap_or(0)) as f64 / time.as_secs_f64() / path.rate as f64;
    Outcome { share, wait: network.wait, kept }
}
