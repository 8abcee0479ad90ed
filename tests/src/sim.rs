//! A network in a box: hubs and endpoints in one thread, on virtual time, over a network that loses, delays, reorders and duplicates.
//!
//! Everything follows from one seed. Of an odd one, endpoints can resume, and hubs are killed, restarted and drained under them, the network parts,
//! and addresses change: whatever nobody has broken off must come through whole. A run checks its invariants as it goes, and returns its journal: what the machines told their hosts.

mod lives;
mod network;
mod peer;
mod seat;
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
    quic::{Epoch, Identity, Roots},
    spn::{
        Role,
        endpoint::{Config as EndpointConfig, Endpoint, Progress},
        hub::{Config, Notice, Service},
    },
    testing::first_instant,
};

use self::{lives::Kind, network::Network, peer::Peer, seat::Seat};
use crate::random::Random;

/// A run that has not come to its end by then hangs.
const LONGEST: Duration = Duration::from_secs(900);

/// Certificates, made once: their making and checking is what a run costs.
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
    /// How far each end of each connection was at the last look; `true` is the consumer's.
    progress: BTreeMap<(u64, bool), Progress>,
    journal: Vec<String>,
    buffer: Vec<u8>,
}

/// Runs a seed to its end, and returns the journal.
///
/// # Errors
/// The journal so far, and which invariant broke, and when.
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
        Self { start, now: start, kind, network, random, seats, peers, progress, journal, buffer }
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
            while let Some(deed) = plan.first_entry().filter(|deed| *deed.key() <= self.now) {
                let deed = deed.remove();
                self.perform(deed);
            }
        }
    }

    /// Lets everybody work until nobody has anything to do at this moment.
    fn settle(&mut self) -> Result<(), String> {
        let now = self.now;
        loop {
            let mut progress = false;
            for nth in 0..self.seats.len() {
                progress |= self.work_seat(nth);
            }
            for peer in &mut self.peers {
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

    /// Sends what a hub has to send, and notes what it says.
    fn work_seat(&mut self, nth: usize) -> bool {
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
            }
        }
        progress
    }

    fn next_due(&self) -> Option<Instant> {
        let endpoints = self.peers.iter().filter_map(Peer::next_due);
        let hubs = self.seats.iter().filter_map(Seat::next_due);
        self.network.next().into_iter().chain(hubs).chain(endpoints).min()
    }

    fn advance(&mut self) {
        let now = self.now;
        while let Some((to, received)) = self.network.deliver(now) {
            if let Some(seat) = self.seats.iter_mut().find(|seat| seat.address == to) {
                if let Some(hub) = &mut seat.hub {
                    hub.handle_datagram(now, received);
                }
            } else if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == to) {
                peer.endpoint.handle_datagram(now, received);
            }
        }
        for seat in &mut self.seats {
            seat.handle_timeout(now, &mut self.random);
        }
        for peer in &mut self.peers {
            peer.handle_timeout(now);
        }
    }
}
