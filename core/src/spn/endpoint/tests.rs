//! The binding over a network in memory: against our hub, and against a server end that a test plays by hand.

#[cfg(feature = "host")]
mod bridged;
mod ending;
mod lifeline;
mod played;
mod random;
mod reserve;
mod resuming;
mod standstill;
mod with_hub;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::BytesMut;

use super::*;
use crate::{
    quic::{self, Clock, EndpointConfig, Handle, ServerConfig, StreamId, TransportConfig},
    spn::{
        ConnKey, Protocol, Role,
        hub::{self, Hub, Service},
    },
    testing::{
        first_instant,
        pki::{self, Ca, identity},
    },
};

/// One socket of the network.
trait Node {
    fn handle_datagram(&mut self, now: Instant, received: Received);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit>;
}

macro_rules! node {
    ($($kind:ty),*) => {$(
        impl Node for $kind {
            fn handle_datagram(&mut self, now: Instant, received: Received) {
                self.handle_datagram(now, received);
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }
            fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
                self.poll_transmit(now, buffer)
            }
        }
    )*};
}

node!(Endpoint, Hub, quic::Endpoint);

/// How a connection ended for its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Reset(StreamCode),
}

/// A connection, as its host sees it.
#[derive(Debug, Default)]
struct Flow {
    got: Vec<u8>,
    /// To be written, and then perhaps FIN.
    to_send: Vec<Bytes>,
    finish: bool,
    finished: bool,
    stopped: Option<StreamCode>,
    end: Option<End>,
    /// Leave what comes unread.
    reads_nothing: bool,
}

/// A host of an endpoint, which reads and writes as the test asks for.
struct Peer {
    endpoint: Endpoint,
    notices: Vec<Notice>,
    flows: BTreeMap<ConnId, Flow>,
    /// Send back what comes.
    echo: bool,
    /// Read nothing of what comes from now on.
    reads_nothing: bool,
}

impl Peer {
    fn flow(&mut self, id: ConnId) -> &mut Flow {
        self.flows.entry(id).or_default()
    }

    /// The only connection.
    fn only(&self) -> ConnId {
        assert_eq!(self.flows.len(), 1);
        *self.flows.first_key_value().unwrap().0
    }

    /// Acts on notices; says whether there were any.
    fn act(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(notice) = self.endpoint.poll_notice() {
            any = true;
            match notice {
                Notice::Incoming(id) => {
                    self.flow(id).reads_nothing = self.reads_nothing;
                    self.read(now, id);
                }
                Notice::Readable(id) => self.read(now, id),
                Notice::Writable(id) => self.write(now, id),
                Notice::Stopped(id, code) => self.flow(id).stopped = Some(code),
                Notice::Reset(id, code) => assert_eq!(self.flow(id).end.replace(End::Reset(code)), None),
                Notice::Ended(id) => assert_eq!(self.flow(id).end.replace(End::Clean), None),
                Notice::SessionUp { .. }
                | Notice::SessionWaiting { .. }
                | Notice::SessionEnded { .. }
                | Notice::SessionReserved { .. }
                | Notice::Limit { .. }
                | Notice::Closed => {}
            }
            self.notices.push(notice);
        }
        any
    }

    fn read(&mut self, now: Instant, id: ConnId) {
        if self.flow(id).reads_nothing {
            return;
        }
        loop {
            let mut chunks = Vec::new();
            let outcome = self.endpoint.read(now, id, &mut chunks, 4);
            let echo = self.echo;
            let flow = self.flow(id);
            for chunk in chunks {
                assert!(!chunk.is_empty(), "who writes chunks until none is left would write for ever");
                flow.got.extend_from_slice(&chunk);
                if echo {
                    flow.to_send.push(chunk);
                }
            }
            match outcome {
                ReadOutcome::More => continue,
                ReadOutcome::Finished => {
                    flow.finished = true;
                    flow.finish |= echo;
                }
                ReadOutcome::Blocked | ReadOutcome::Reset(_) | ReadOutcome::Gone => {}
            }
            return self.write(now, id);
        }
    }

    fn write(&mut self, now: Instant, id: ConnId) {
        let mut chunks = std::mem::take(&mut self.flow(id).to_send);
        match self.endpoint.write(now, id, &mut chunks) {
            WriteOutcome::Written { .. } => {
                if self.flow(id).finish {
                    self.endpoint.finish(now, id);
                }
            }
            WriteOutcome::Blocked { chunks: whole, .. } => self.flow(id).to_send = chunks.split_off(whole),
            WriteOutcome::Stopped(_) | WriteOutcome::Gone => {}
        }
    }
}

/// The network, in virtual time; datagrams arrive at once.
struct World {
    now: Instant,
    ca: Ca,
    nodes: BTreeMap<SocketAddr, Side>,
    /// Nothing gets through to these, or from them.
    dead: BTreeSet<SocketAddr>,
    /// These stand still: what comes waits in their sockets.
    still: BTreeMap<SocketAddr, Vec<Received>>,
    /// Further addresses, and whose they are. Whoever is called by one sees the caller behind a port of its own.
    aliases: Vec<(SocketAddr, SocketAddr)>,
    /// Loses one datagram in twenty, and swaps one pair in ten.
    lossy: Option<Dice>,
    /// Its endpoints can resume.
    resume: bool,
    /// Of all hubs: the next one at an address shows that it is not the last.
    server: (String, String),
    hubs: u8,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.roll(from.len())]) }
    }
}

enum Side {
    Hub(Box<Hub>),
    Peer(Box<Peer>),
    Played(Box<quic::Endpoint>),
}

impl Side {
    fn node(&mut self) -> &mut dyn Node {
        match self {
            Self::Hub(hub) => &mut **hub,
            Self::Peer(peer) => &mut peer.endpoint,
            Self::Played(server) => &mut **server,
        }
    }
}

const SERVICE: &str = "urn:service";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    fn new() -> Self {
        let ca = Ca::new("ca");
        let server = ca.server();
        let (nodes, dead, aliases) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let still = BTreeMap::new();
        Self { now: first_instant(), ca, nodes, dead, still, aliases, lossy: None, resume: false, server, hubs: 0 }
    }

    fn epoch(&self) -> Epoch {
        Epoch { instant: self.now, unix: pki::UNIX }
    }

    /// A hub; one that was there before has been killed.
    fn add_hub(&mut self, at: &str) -> SocketAddr {
        self.add_hub_with(at, |_| {})
    }

    fn add_hub_with(&mut self, at: &str, change: impl FnOnce(&mut hub::Config)) -> SocketAddr {
        let at = address(at);
        let mut config = hub::Config::new("realm", "hub", at);
        (config.certificate, config.key) = self.server.clone();
        config.client_ca = self.ca.pem();
        let names = |kind: &str| (0..4).map(|n| format!("{kind}{n}")).collect();
        config.services.push(Service {
            urn: SERVICE.to_owned(),
            providers: names("provider"),
            consumers: names("consumer"),
            singleton: false,
            availability: None,
        });
        change(&mut config);
        self.hubs += 1;
        let hub = Hub::new(self.now, config, [8 + self.hubs; 32], self.epoch()).unwrap();
        self.nodes.insert(at, Side::Hub(Box::new(hub)));
        at
    }

    /// A server end that the test plays.
    fn add_played(&mut self, at: &str, alpn: &[&[u8]], transport: &TransportConfig) -> SocketAddr {
        let clock = Clock::new(self.epoch());
        let id = identity(&self.ca.server());
        let config = ServerConfig::new(&id, &self.ca.roots(), alpn, transport, &clock).unwrap();
        let server = quic::Endpoint::new(EndpointConfig::new([8; 32], clock), Some(config));
        self.nodes.insert(address(at), Side::Played(Box::new(server)));
        address(at)
    }

    fn config(&self, role: Role, name: &str) -> Config {
        let config = Config::new(role, "localhost", identity(&self.ca.client(name)), self.ca.roots());
        Config { resume: self.resume, ..config }
    }

    fn add_peer(&mut self, at: &str, config: Config, hubs: &[SocketAddr]) -> SocketAddr {
        let mut seed = [0; 32];
        seed[..at.len().min(32)].copy_from_slice(&at.as_bytes()[..at.len().min(32)]);
        let mut endpoint = Endpoint::new(config, seed, self.epoch()).unwrap();
        endpoint.handle_addresses(self.now, hubs);
        let peer = Peer { endpoint, notices: Vec::new(), flows: BTreeMap::new(), echo: false, reads_nothing: false };
        self.nodes.insert(address(at), Side::Peer(Box::new(peer)));
        address(at)
    }

    fn consumer(&mut self, hubs: &[SocketAddr]) -> SocketAddr {
        self.add_peer("192.0.2.10:1", self.config(Role::Consumer, "consumer0"), hubs)
    }

    fn provider(&mut self, n: usize, hubs: &[SocketAddr]) -> SocketAddr {
        let config = self.config(Role::Provider, &format!("provider{n}"));
        self.add_peer(&format!("192.0.2.2{n}:1"), config, hubs)
    }

    fn peer(&mut self, at: SocketAddr) -> &mut Peer {
        match self.nodes.get_mut(&at) {
            Some(Side::Peer(peer)) => peer,
            _ => panic!("{at} is no peer"),
        }
    }

    fn hub(&mut self, at: SocketAddr) -> &mut Hub {
        match self.nodes.get_mut(&at) {
            Some(Side::Hub(hub)) => hub,
            _ => panic!("{at} is no hub"),
        }
    }

    fn played(&mut self, at: SocketAddr) -> &mut quic::Endpoint {
        match self.nodes.get_mut(&at) {
            Some(Side::Played(server)) => server,
            _ => panic!("{at} is not played"),
        }
    }

    /// Lets all of them talk: long enough for late acknowledgements, too short for anything else.
    fn run(&mut self) {
        self.wait(Duration::from_millis(100));
    }

    fn drive(&mut self) {
        loop {
            let mut moved = false;
            let everybody: Vec<_> = self.nodes.keys().copied().filter(|at| !self.still.contains_key(at)).collect();
            for from in everybody {
                moved |= self.carry(from);
                if let Some(Side::Peer(peer)) = self.nodes.get_mut(&from) {
                    moved |= peer.act(self.now);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn carry(&mut self, from: SocketAddr) -> bool {
        let (mut moved, mut buffer) = (false, Vec::new());
        while let Some(transmit) = self.nodes.get_mut(&from).unwrap().node().poll_transmit(self.now, &mut buffer) {
            moved = true;
            let to = transmit.destination;
            if self.dead.contains(&from) || self.dead.contains(&to) {
                continue;
            }
            let mut datagrams: Vec<_> = buffer.chunks(transmit.segment_size.unwrap_or(buffer.len())).collect();
            if let Some(dice) = &mut self.lossy {
                datagrams.retain(|_| dice.roll(20) > 0);
                for at in 1..datagrams.len() {
                    if dice.roll(10) == 0 {
                        datagrams.swap(at - 1, at);
                    }
                }
            }
            let (to, remote) = self.through(from, to);
            if self.dead.contains(&remote) {
                continue;
            }
            for data in datagrams {
                if let Some(node) = self.nodes.get_mut(&to) {
                    let received = Received { remote, local_ip: None, ecn: transmit.ecn, data: BytesMut::from(data) };
                    match self.still.get_mut(&to) {
                        Some(waiting) => waiting.push(received),
                        None => node.node().handle_datagram(self.now, received),
                    }
                }
            }
        }
        moved
    }

    /// Whom a datagram reaches, and from where it seems to come.
    fn through(&self, from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
        const PORTS: u16 = 10_000;
        let port = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
        if let Some(nth) = self.aliases.iter().position(|(alias, _)| *alias == to) {
            return (self.aliases[nth].1, port(from, from.port() + PORTS * (nth as u16 + 1)));
        }
        match (to.port() / PORTS).checked_sub(1).and_then(|nth| self.aliases.get(usize::from(nth))) {
            Some((alias, _)) => (port(to, to.port() % PORTS), *alias),
            None => (to, from),
        }
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.drive();
        loop {
            let awake = self.nodes.iter_mut().filter(|(at, _)| !self.still.contains_key(at));
            let due = awake.filter_map(|(_, side)| side.node().poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            for (_, side) in self.nodes.iter_mut().filter(|(at, _)| !self.still.contains_key(at)) {
                side.node().handle_timeout(self.now);
            }
            self.drive();
        }
        self.now = end;
    }

    /// Lets a node stand still.
    fn stop(&mut self, at: SocketAddr) {
        self.still.insert(at, Vec::new());
    }

    /// Lets it go on. Its loop reads a few datagrams, acts, and reads the others.
    fn go_on(&mut self, at: SocketAddr, batch: usize) {
        let waiting = self.still.remove(&at).expect("a node that stands still");
        for datagrams in waiting.chunks(batch) {
            let node = self.nodes.get_mut(&at).expect("a node").node();
            for it in datagrams {
                let &Received { remote, local_ip, ecn, ref data } = it;
                node.handle_datagram(self.now, Received { remote, local_ip, ecn, data: data.clone() });
            }
            if node.poll_timeout().is_some_and(|due| due <= self.now) {
                node.handle_timeout(self.now);
            }
            self.carry(at);
            if let Some(Side::Peer(peer)) = self.nodes.get_mut(&at) {
                peer.act(self.now);
            }
        }
    }

    /// Opens a connection, and has its host write that.
    fn call(&mut self, at: SocketAddr, bytes: &[u8], finish: bool) -> ConnId {
        let now = self.now;
        let peer = self.peer(at);
        let id = peer.endpoint.connect(now).unwrap();
        *peer.flow(id) = Flow { to_send: vec![Bytes::copy_from_slice(bytes)], finish, ..Flow::default() };
        peer.read(now, id);
        id
    }

    /// Has a host write more.
    fn say(&mut self, at: SocketAddr, id: ConnId, bytes: &[u8], finish: bool) {
        let now = self.now;
        let peer = self.peer(at);
        let flow = peer.flow(id);
        flow.to_send.push(Bytes::copy_from_slice(bytes));
        flow.finish = finish;
        peer.write(now, id);
    }
}
