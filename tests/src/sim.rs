//! A network in a box: hubs and endpoints in one thread, on virtual time, over a network that loses, delays, reorders and duplicates.
//!
//! Everything follows from one seed. Of an odd one, endpoints can resume, and hubs are killed, restarted and drained under them, the network parts,
//! and addresses change: each connection that no end has reset must come through whole. A run checks its invariants at each step, and returns its journal: the notices of the machines.

mod lives;
mod network;
mod peer;
mod seat;
mod still;
pub mod wide;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ED25519,
};
use towline_core::{
    quic::{Epoch, Identity, Received, Roots},
    spn::{
        Role,
        endpoint::{Config as EndpointConfig, Endpoint, Progress},
        hub::{Config, Notice, Service},
    },
    testing::first_instant,
};

use self::{
    lives::Kind,
    network::Network,
    peer::Peer,
    seat::Seat,
    still::{Still, Who},
};
use crate::random::Random;

/// A run that has not ended by then hangs.
const LONGEST: Duration = Duration::from_secs(900);

/// Certificates, made once: making and verifying them is most of the cost of a run.
struct Certificates {
    ca: String,
    hub: (String, String),
    endpoints: BTreeMap<&'static str, (String, String)>,
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        // Ed25519: its signatures are all of one length, so that a seed gives the same packets each time.
        let key = || KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let params = |name: &str, alt_names: Vec<String>| {
            let mut params = CertificateParams::new(alt_names).expect("names");
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut root = params("ca", Vec::new());
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(root, key()).expect("a CA");
        let leaf = |name: &str, alt_names: Vec<String>| {
            let key = key();
            (params(name, alt_names).signed_by(&key, &ca).expect("a leaf").pem(), key.serialize_pem())
        };
        Certificates {
            ca: ca.pem(),
            hub: leaf("hub", vec!["hub.example".to_owned()]),
            endpoints: ["p1", "p2", "c1", "c2"].into_iter().map(|name| (name, leaf(name, Vec::new()))).collect(),
        }
    })
}

/// One run.
struct World {
    start: Instant,
    now: Instant,
    kind: Kind,
    network: Network,
    random: Random,
    seats: Vec<Seat>,
    peers: Vec<Peer>,
    still: Still,
    /// The network has been cut, as a whole or in part.
    has_parted: bool,
    /// How far each end of each connection was at the last look; `true` is the consumer's.
    progress: BTreeMap<(u64, bool), Progress>,
    journal: Vec<String>,
    buffer: Vec<u8>,
}

/// Runs a seed to its end, and returns the journal.
///
/// # Errors
/// The journal so far, the broken invariant, and the time.
pub fn run(seed: u64) -> Result<Vec<String>, (Vec<String>, String)> {
    let mut world = World::new(seed);
    match world.play() {
        Ok(()) => Ok(world.journal),
        Err(fault) => Err((world.journal, format!("at {:?}: {fault}", world.now - world.start))),
    }
}

fn epoch() -> Epoch {
    Epoch { instant: first_instant(), unix: Duration::from_secs(1_767_225_600) }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kind = Kind::of(seed);
        let start = first_instant();
        let made = certificates();
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let service = Service {
            urn: "urn:s".to_owned(),
            providers: names(["p1", "p2"]),
            consumers: names(["c1", "c2"]),
            singleton: kind == Kind::Plain && random.chance(10),
            availability: None,
        };
        let hubs = if kind == Kind::Plain { 1 } else { 1 + random.below(3) };
        let seats: Vec<Seat> = (0..hubs)
            .map(|nth| {
                let address = SocketAddr::from(([192, 0, 2, 1 + nth as u8], 4433));
                let mut config = Config::new("r", "hub", address);
                (config.certificate, config.key) = made.hub.clone();
                config.client_ca.clone_from(&made.ca);
                config.services = vec![service.clone()];
                if kind == Kind::Resuming {
                    // Less credit than what is open, for a moment or for good.
                    config.transport.max_streams = 2 + random.below(4) as u32;
                    if random.chance(30) {
                        config.limits.connections_per_session = 2 + random.below(4) as u32;
                    }
                }
                Seat::new(start, address, config, random.seed())
            })
            .collect();
        let addresses: Vec<SocketAddr> = seats.iter().map(|seat| seat.address).collect();
        let mut peers = Vec::new();
        for (nth, name) in ["p1", "p2", "c1", "c2"].into_iter().enumerate() {
            if nth % 2 == 1 && random.chance(50) {
                continue;
            }
            let (certificate, key) = made.endpoints.get(name).expect("made above");
            let role = if nth < 2 { Role::Provider } else { Role::Consumer };
            let identity = Identity::from_pem(certificate, key).expect("an identity");
            let roots = Roots::from_pem(&made.ca).expect("roots");
            let mut config = EndpointConfig::new(role, "hub.example", identity, roots);
            config.resume = kind == Kind::Resuming;
            if config.resume {
                config.transport.max_streams = 1 + random.below(4) as u32;
            }
            let mut endpoint = Endpoint::new(config, random.seed(), epoch()).expect("an endpoint");
            endpoint.handle_addresses(start, &addresses);
            let own = SocketAddr::from(([192, 0, 2, 10 + nth as u8], 999));
            peers.push(Peer::new(name, own, role, endpoint));
        }
        let network = Network::new(&mut random);
        let (journal, buffer) = (Vec::new(), Vec::new());
        let progress = BTreeMap::new();
        let still = Still::default();
        Self {
            start,
            now: start,
            kind,
            network,
            random,
            seats,
            peers,
            still,
            has_parted: false,
            progress,
            journal,
            buffer,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let mut plan = self.plan();
        let mut is_leaving = false;
        loop {
            self.settle()?;
            for hub in self.seats.iter().filter_map(|seat| seat.hub.as_ref()) {
                hub.check()?;
            }
            if self.kind == Kind::Resuming {
                self.check_progress()?;
            }
            if self.seats.iter().all(Seat::is_over) && self.network.is_empty() {
                return self.check_end();
            }
            // All is quiet when nothing is planned and every connection has ended.
            let is_quiet = plan.is_empty() && self.peers.iter().all(Peer::is_quiet);
            if is_quiet && !is_leaving {
                is_leaving = true;
                for seat in &mut self.seats {
                    seat.stop(self.now);
                }
                continue;
            }
            let due = [self.next_due(), plan.first_key_value().map(|(at, _)| *at)].into_iter().flatten().min();
            let Some(due) = due else { return Err("nothing will ever happen again".to_owned()) };
            self.now = self.now.max(due);
            if self.now > self.start + LONGEST {
                let open: Vec<_> = self.peers.iter().map(Peer::describe).collect();
                let hubs: Vec<_> = self.seats.iter().map(Seat::status).collect();
                return Err(format!("it hangs: {open:?}, {hubs:?}"));
            }
            self.advance();
            self.wake()?;
            while let Some(deed) = plan.first_entry().filter(|deed| *deed.key() <= self.now) {
                let deed = deed.remove();
                match deed.whose().and_then(|who| self.still.until(who)) {
                    // The end that would do it is gone.
                    Some(until) => _ = plan.insert(until + Duration::from_micros(1 + plan.len() as u64), deed),
                    None => self.perform(deed),
                }
            }
        }
    }

    /// Runs all hubs and endpoints until none has work at this moment.
    fn settle(&mut self) -> Result<(), String> {
        let now = self.now;
        loop {
            let mut progress = false;
            for nth in 0..self.seats.len() {
                progress |= self.work_seat(nth);
            }
            for (nth, peer) in self.peers.iter_mut().enumerate() {
                if self.still.holds(Who::Peer(nth)) {
                    continue;
                }
                while let Some(transmit) = peer.endpoint.poll_transmit(now, &mut self.buffer) {
                    self.network.send(now, peer.address, &transmit, &self.buffer);
                    progress = true;
                }
                progress |= peer.work(now, &mut self.journal)?;
            }
            if !progress {
                return Ok(());
            }
        }
    }

    /// Sends a hub's datagrams, and journals its notices.
    fn work_seat(&mut self, nth: usize) -> bool {
        if self.still.holds(Who::Hub(nth)) {
            return false;
        }
        let (now, mut progress) = (self.now, false);
        let seat = &mut self.seats[nth];
        let Some(hub) = &mut seat.hub else { return false };
        while let Some(transmit) = hub.poll_transmit(now, &mut self.buffer) {
            self.network.send(now, seat.address, &transmit, &self.buffer);
            progress = true;
        }
        let at = (now - self.start).as_micros();
        while let Some(notice) = seat.hub.as_mut().and_then(|hub| hub.poll_notice()) {
            progress = true;
            match notice {
                Notice::Listening => {}
                // No service here is managed.
                Notice::ClusterStart(task) | Notice::ClusterStop(task) => {
                    self.journal.push(format!("{at} hub{nth} asks for {}", task.service));
                }
                Notice::Record(record) => {
                    seat.count(&record.event);
                    self.journal.push(format!("{at} hub{nth} {:?}", record.event));
                }
                Notice::Refused(refusal) => self.journal.push(format!("{at} hub{nth} {refusal}")),
                Notice::RefusalsSuppressed { count } => self.journal.push(format!("{at} hub{nth} suppressed {count}")),
                Notice::Stopped => {
                    self.journal.push(format!("{at} hub{nth} stopped"));
                    seat.stopped(now);
                }
                other => panic!("{other:?}"),
            }
        }
        progress
    }

    fn next_due(&self) -> Option<Instant> {
        let (hub, peer) = (|nth| !self.still.holds(Who::Hub(nth)), |nth| !self.still.holds(Who::Peer(nth)));
        let endpoints = self.peers.iter().enumerate().filter(|(nth, _)| peer(*nth)).filter_map(|(_, it)| it.next_due());
        let hubs = self.seats.iter().enumerate().filter(|(nth, _)| hub(*nth)).filter_map(|(_, it)| it.next_due());
        self.network.next().into_iter().chain(self.still.next()).chain(hubs).chain(endpoints).min()
    }

    fn advance(&mut self) {
        let now = self.now;
        while let Some((to, received)) = self.network.deliver(now) {
            let hub = self.seats.iter().position(|seat| seat.address == to).map(Who::Hub);
            let peer = || self.peers.iter().position(|peer| peer.address == to).map(Who::Peer);
            let Some(who) = hub.or_else(peer) else { continue };
            if let Some(received) = self.still.keep(who, received) {
                self.hand_in(who, received);
            }
        }
        for (nth, seat) in self.seats.iter_mut().enumerate() {
            if !self.still.holds(Who::Hub(nth)) {
                seat.handle_timeout(now, &mut self.random);
            }
        }
        for (nth, peer) in self.peers.iter_mut().enumerate() {
            if !self.still.holds(Who::Peer(nth)) {
                peer.handle_timeout(now);
            }
        }
    }

    fn hand_in(&mut self, who: Who, received: Received) {
        match who {
            Who::Hub(nth) => {
                if let Some(hub) = &mut self.seats[nth].hub {
                    hub.handle_datagram(self.now, received);
                }
            }
            Who::Peer(nth) => self.peers[nth].endpoint.handle_datagram(self.now, received),
        }
    }

    /// Those that go on now read what waits in their sockets a few datagrams at a time, and act in between.
    fn wake(&mut self) -> Result<(), String> {
        while let Some((who, waiting)) = self.still.wake(self.now) {
            let mut waiting = waiting.into_iter();
            loop {
                for received in waiting.by_ref().take(1 + self.random.below(8) as usize) {
                    self.hand_in(who, received);
                }
                match who {
                    Who::Hub(nth) => self.seats[nth].handle_timeout(self.now, &mut self.random),
                    Who::Peer(nth) => self.peers[nth].handle_timeout(self.now),
                }
                self.settle()?;
                if waiting.as_slice().is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}
