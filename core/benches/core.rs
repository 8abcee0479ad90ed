//! What the core costs without sockets: `cargo bench -p towline-core`.
//!
//! - `session event`: one event of the hub's session machine.
//! - `admission`: consumer sessions one after another: handshake with client certificate, SESSION_OPEN, SESSION_ACK; time and memory inside the hub.
//! - `message`: a call, its result, or a block of 4 KiB, through each codec: written, measured and read.
//! - `hit`, `miss`: one transaction through a caching proxy, without its sockets: 32 KiB, out of the cache or from the origin.
//! - `relay`: a hub between a consumer and a provider in memory, 64 MiB one way; only the time inside the hub counts.

#![allow(clippy::wildcard_enum_match_arm, reason = "a benchmark may panic on all the rest")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use towline_core::{
    machine::Machine,
    net::{Command, Event, StreamBinding},
    pipe::{
        self,
        codec::{Codec as _, Composed, Primitives, Receiver},
        message::{Block, Close, Loss, Message, Open, Part, PipeId},
    },
    quic::{Epoch, Identity, ReadOutcome, Received, Roots, Transmit, WriteOutcome},
    spn::{
        Role,
        endpoint::{self, ConnId, Endpoint},
        hub::{
            Config, Hub, Service,
            machines::session::{self, HubSession},
        },
    },
    testing::first_instant,
    txn::{
        allow::Allow,
        proxy::{self, Proxy},
    },
};

const HUB: &str = "192.0.2.1:4433";
const BULK: usize = 64 << 20;

fn main() {
    session_event();
    messages::<pipe::msgpack::Items>();
    messages::<pipe::simple::Items>();
    admission();
    transactions();
    relay();
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

fn session_event() {
    const EVENTS: u32 = 10_000_000;
    let now = first_instant();
    let mut machine = HubSession::new(session::Config::default());
    machine.handle_event(now, session::Event::ExtendedHandshake);
    machine.handle_event(now, session::Event::OpenAdmitted { weight: 100 });
    while machine.poll_action().is_some() {}
    let mut took = Duration::ZERO;
    let allocations = measure(|| {
        let began = clock();
        for nth in 0..EVENTS {
            machine.handle_event(now, session::Event::SetWeight { weight: nth as u16 | 1 });
            while std::hint::black_box(machine.poll_action()).is_some() {}
        }
        took = clock() - began;
    });
    println!(
        "session event: {:.1} ns, {} allocations in {EVENTS} events",
        took.as_nanos() as f64 / f64::from(EVENTS),
        allocations.count_total
    );
}

fn messages<P: Primitives>() {
    const MESSAGES: u32 = 1_000_000;
    let pipe = PipeId::new(1).expect("not 0");
    let text = |text: &str| pipe::value::Value::from(text);
    let block = Part::Data { loss: Loss::NEVER, payload: vec![7; 4096].into() };
    let all: [(&str, Message); 3] = [
        ("call", Open { pipe, priority: 0, function: 10, params: vec![text("towline"), 7_i32.into()] }.into()),
        ("result", Close { pipe, result: Ok(text("hello, towline")) }.into()),
        ("block", Block { pipe, part: block }.into()),
    ];
    for (name, message) in all {
        let (codec, mut receiver) = (Composed::<P>::default(), Receiver::new(Composed::<P>::default()));
        let mut out = BytesMut::with_capacity(8192);
        let mut took = Duration::ZERO;
        let allocations = measure(|| {
            let began = clock();
            for _ in 0..MESSAGES {
                codec.encode(&message, &mut out).expect("no limit");
                receiver.push(out.split().freeze());
                std::hint::black_box(receiver.next_message().expect("a message"));
            }
            took = clock() - began;
        });
        println!(
            "message {} {name}: {:.1} ns, {:.2} allocations",
            P::NAME,
            took.as_nanos() as f64 / f64::from(MESSAGES),
            allocations.count_total as f64 / f64::from(MESSAGES)
        );
    }
}

fn transactions() {
    const TRANSACTIONS: u32 = 200_000;
    let now = first_instant();
    let mut config = proxy::Config::default();
    config.transaction.allow = Allow::everything();
    let body = Bytes::from(vec![b'x'; 32 * 1024]);
    for (name, is_hit) in [("miss", false), ("hit", true)] {
        let mut proxy = Proxy::new(config.clone());
        proxy.start(now);
        let mut took = Duration::ZERO;
        let allocations = measure(|| {
            let began = clock();
            for nth in 0..TRANSACTIONS {
                let head = format!("192.0.2.9 {} \r\n\r\n", if is_hit { 0 } else { nth });
                let client = proxy.handle_incoming(now, ([192, 0, 2, 1], 999).into());
                let mut origin = vec![Event::End, Event::Data { bytes: body.clone() }];
                // A host that does at once what it is told.
                let mut happened = vec![(client, Event::Data { bytes: head.into() })];
                while let Some((conn, event)) = happened.pop() {
                    proxy.handle_event(now, conn, event);
                    while let Some(command) = proxy.poll_command() {
                        match command {
                            Command::Connect { conn, .. } => happened.push((conn, Event::Connected)),
                            Command::Write { conn, bytes } => {
                                happened.push((conn, Event::Sent { len: bytes.len() as u64 }));
                            }
                            Command::Read { conn, .. } if conn != client => {
                                happened.extend(origin.pop().map(|event| (conn, event)));
                            }
                            _ => {}
                        }
                    }
                }
                while std::hint::black_box(proxy.poll_notice()).is_some() {}
            }
            took = clock() - began;
        });
        let counters = proxy.counters();
        let hits = if is_hit { TRANSACTIONS - 1 } else { 0 };
        assert_eq!((counters.hits, counters.live), (u64::from(hits), 0), "served, and as it was meant");
        println!(
            "{name}: {:.0} ns, {:.1} allocations",
            took.as_nanos() as f64 / f64::from(TRANSACTIONS),
            allocations.count_total as f64 / f64::from(TRANSACTIONS)
        );
    }
}

/// What the hub has cost.
#[derive(Default)]
struct Cost {
    time: Duration,
    allocations: u64,
    /// Allocated and not freed.
    bytes: i64,
    datagrams: u64,
}

struct Bench {
    now: Instant,
    hub: Hub,
    peers: Vec<(SocketAddr, Endpoint)>,
    consumer: (String, String),
    ca: String,
    epoch: Epoch,
    cost: Cost,
    buffer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let now = first_instant();
        let epoch = Epoch { instant: now, unix: Duration::from_secs(1_767_225_600) };
        let params = |name: &str, names: Vec<String>| {
            let mut params = CertificateParams::new(names).expect("names");
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut root = params("ca", Vec::new());
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a CA");
        let leaf = |name: &str, names: Vec<String>| {
            let key = KeyPair::generate().expect("a key");
            (params(name, names).signed_by(&key, &ca).expect("a leaf").pem(), key.serialize_pem())
        };
        let mut config = Config::new("r", "hub", HUB.parse().expect("an address"));
        (config.certificate, config.key) = leaf("hub", vec!["hub.example".to_owned()]);
        config.client_ca = ca.pem();
        config.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: vec!["p".to_owned()],
            consumers: vec!["c".to_owned()],
            singleton: false,
            availability: None,
        }];
        let hub = Hub::new(now, config, [1; 32], epoch).expect("a hub");
        let mut bench = Self {
            now,
            hub,
            peers: Vec::new(),
            consumer: leaf("c", Vec::new()),
            ca: ca.pem(),
            epoch,
            cost: Cost::default(),
            buffer: Vec::new(),
        };
        bench.join(Role::Provider, &leaf("p", Vec::new()));
        bench.join(Role::Consumer, &bench.consumer.clone());
        bench
    }

    /// Adds an endpoint, and carries until it has its session.
    fn join(&mut self, role: Role, (certificate, key): &(String, String)) {
        let identity = Identity::from_pem(certificate, key).expect("an identity");
        let roots = Roots::from_pem(&self.ca).expect("roots");
        let config = endpoint::Config::new(role, "hub.example", identity, roots);
        let nth = self.peers.len() as u16 + 1;
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&nth.to_le_bytes());
        let mut endpoint = Endpoint::new(config, seed, self.epoch).expect("an endpoint");
        endpoint.handle_addresses(self.now, &[HUB.parse().expect("an address")]);
        self.peers.push((SocketAddr::from(([198, 18, (nth >> 8) as u8, nth as u8], 999)), endpoint));
        let last = self.peers.len() - 1;
        while !self.notices(last).iter().any(|notice| matches!(notice, endpoint::Notice::SessionUp { .. })) {
            self.turn();
        }
    }

    /// Carries everything that there is to carry at this moment, and lets 200 µs pass.
    fn turn(&mut self) {
        let now = self.now;
        let mut inbox = Vec::new();
        for (address, peer) in &mut self.peers {
            if peer.poll_timeout().is_some_and(|due| due <= now) {
                peer.handle_timeout(now);
            }
            while let Some(transmit) = peer.poll_transmit(now, &mut self.buffer) {
                inbox.extend(split(&self.buffer, &transmit).into_iter().map(|data| (*address, data)));
            }
        }
        let mut outbox = Vec::with_capacity(1024);
        let (hub, buffer, cost) = (&mut self.hub, &mut self.buffer, &mut self.cost);
        cost.datagrams += inbox.len() as u64;
        let mut spent = Duration::ZERO;
        let allocations = measure(|| {
            let began = clock();
            for (remote, data) in inbox {
                hub.handle_datagram(now, Received { remote, local_ip: None, ecn: None, data });
            }
            if hub.poll_timeout().is_some_and(|due| due <= now) {
                hub.handle_timeout(now);
            }
            spent = clock() - began;
        });
        cost.time += spent;
        cost.allocations += allocations.count_total;
        cost.bytes += allocations.bytes_current;
        loop {
            let mut transmit = None;
            let allocations = measure(|| {
                let began = clock();
                transmit = hub.poll_transmit(now, buffer);
                spent = clock() - began;
            });
            cost.time += spent;
            cost.allocations += allocations.count_total;
            cost.bytes += allocations.bytes_current;
            let Some(transmit) = transmit else { break };
            for data in split(buffer, &transmit) {
                cost.datagrams += 1;
                outbox.push((transmit.destination, data));
            }
        }
        while hub.poll_notice().is_some() {}
        for (to, data) in outbox {
            if let Some((_, peer)) = self.peers.iter_mut().find(|(address, _)| *address == to) {
                let remote = HUB.parse().expect("an address");
                peer.handle_datagram(now, Received { remote, local_ip: None, ecn: None, data });
            }
        }
        self.now += Duration::from_micros(200);
    }

    fn notices(&mut self, peer: usize) -> Vec<endpoint::Notice> {
        std::iter::from_fn(|| self.peers[peer].1.poll_notice()).collect()
    }
}

fn split(buffer: &[u8], transmit: &Transmit) -> Vec<BytesMut> {
    // One buffer for all segments, as a socket with GRO gives it.
    let mut whole = BytesMut::from(buffer);
    let size = transmit.segment_size.unwrap_or(buffer.len().max(1));
    let mut segments = Vec::new();
    while !whole.is_empty() {
        segments.push(whole.split_to(size.min(whole.len())));
    }
    segments
}

fn admission() {
    const SESSIONS: u32 = 500;
    let mut bench = Bench::new();
    bench.cost = Cost::default();
    for _ in 0..SESSIONS {
        bench.join(Role::Consumer, &bench.consumer.clone());
    }
    println!(
        "admission: {:.0} sessions a second of the hub's time, {:.1} kB each",
        f64::from(SESSIONS) / bench.cost.time.as_secs_f64(),
        bench.cost.bytes as f64 / f64::from(SESSIONS) / 1000.0
    );
}

fn relay() {
    let mut bench = Bench::new();
    // Path MTU discovery takes its time.
    for _ in 0..20_000 {
        bench.turn();
    }
    let now = bench.now;
    let up = bench.peers[1].1.connect(now).expect("a connection");
    bench.peers[1].1.write(now, up, &mut [Bytes::from_static(b"x")]);
    let mut down: Option<ConnId> = None;
    while down.is_none() {
        bench.turn();
        down = bench.notices(0).into_iter().find_map(|notice| match notice {
            endpoint::Notice::Incoming(conn) => Some(conn),
            _ => None,
        });
    }
    let down = down.expect("found");
    bench.cost = Cost::default();
    let block = Bytes::from(vec![7; 64 * 1024]);
    let (mut sent, mut got, mut pending, mut chunks) = (0, 0, block.clone(), Vec::new());
    while got < BULK {
        while sent < BULK {
            let length = pending.len();
            let mut piece = [pending];
            match bench.peers[1].1.write(bench.now, up, &mut piece) {
                WriteOutcome::Written { .. } => {
                    sent += length;
                    pending = block.clone();
                }
                WriteOutcome::Blocked { bytes, .. } => {
                    sent += bytes;
                    [pending] = piece;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        bench.turn();
        bench.notices(1);
        bench.notices(0);
        while bench.peers[0].1.read(bench.now, down, &mut chunks, 32) == ReadOutcome::More {}
        got += chunks.drain(..).map(|chunk| chunk.len()).sum::<usize>();
    }
    let Cost { time, allocations, datagrams, .. } = bench.cost;
    println!(
        "relay: {:.0} MB/s, {:.0} ns and {:.2} allocations a datagram ({datagrams} datagrams in and out)",
        BULK as f64 / 1e6 / time.as_secs_f64(),
        time.as_nanos() as f64 / datagrams as f64,
        allocations as f64 / datagrams as f64
    );
}
