//! A network in a box: a hub and endpoints in one thread, on virtual time, over a network that loses, delays, reorders and duplicates.
//!
//! Everything follows from one seed. A run checks its invariants as it goes, and returns its journal: what the machines told their hosts.

mod network;
mod peer;

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
        endpoint::{Config as EndpointConfig, Endpoint},
        hub::{Config, Hub, Notice, Service},
        record::RecordEvent,
    },
    testing::first_instant,
};

use self::{
    network::Network,
    peer::{Ends, Peer},
};
use crate::random::Random;

const HUB: &str = "192.0.2.1:4433";
/// A run that has not come to its end by then hangs.
const LONGEST: Duration = Duration::from_secs(600);

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
    network: Network,
    random: Random,
    hub: Hub,
    hub_is_over: bool,
    peers: Vec<Peer>,
    journal: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
    buffer: Vec<u8>,
}

/// Runs a seed to its end.
///
/// # Errors
/// Which invariant broke, and when.
pub fn run(seed: u64) -> Result<Vec<String>, String> {
    let mut world = World::new(seed);
    world.play().map_err(|fault| format!("at {:?}: {fault}", world.now - world.start))?;
    Ok(world.journal)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let start = first_instant();
        let epoch = Epoch { instant: start, unix: Duration::from_secs(1_767_225_600) };
        let made = certificates();
        let mut config = Config::new("r", "hub", address(HUB));
        (config.certificate, config.key) = made.hub.clone();
        config.client_ca.clone_from(&made.ca);
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        config.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: names(["p1", "p2"]),
            consumers: names(["c1", "c2"]),
            singleton: random.chance(10),
        }];
        let hub = Hub::new(start, config, random.seed(), epoch).expect("a hub");
        let mut peers = Vec::new();
        for (nth, name) in ["p1", "p2", "c1", "c2"].into_iter().enumerate() {
            if nth % 2 == 1 && random.chance(50) {
                continue;
            }
            let (certificate, key) = made.endpoints.get(name).expect("made above");
            let role = if nth < 2 { Role::Provider } else { Role::Consumer };
            let identity = Identity::from_pem(certificate, key).expect("an identity");
            let roots = Roots::from_pem(&made.ca).expect("roots");
            let config = EndpointConfig::new(role, "hub.example", identity, roots);
            let mut endpoint = Endpoint::new(config, random.seed(), epoch).expect("an endpoint");
            endpoint.handle_addresses(start, &[address(HUB)]);
            let own = SocketAddr::from(([192, 0, 2, 10 + nth as u8], 999));
            peers.push(Peer::new(name, own, role, endpoint));
        }
        let network = Network::new(&mut random);
        Self {
            start,
            now: start,
            network,
            random,
            hub,
            hub_is_over: false,
            peers,
            journal: Vec::new(),
            counts: BTreeMap::new(),
            buffer: Vec::new(),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let mut plan = self.plan();
        let mut is_leaving = false;
        loop {
            self.settle()?;
            if self.hub_is_over && self.network.is_empty() {
                return self.check_end();
            }
            // All is quiet when nothing is planned and every connection has ended.
            let is_quiet = plan.is_empty() && self.peers.iter().all(Peer::is_quiet);
            if is_quiet && !is_leaving {
                is_leaving = true;
                self.hub.stop(self.now);
                continue;
            }
            let due = [self.next_due(), plan.first_key_value().map(|(at, _)| *at)].into_iter().flatten().min();
            let Some(due) = due else { return Err("nothing will ever happen again".to_owned()) };
            self.now = self.now.max(due);
            if self.now > self.start + LONGEST {
                let open: Vec<_> = self.peers.iter().map(Peer::describe).collect();
                return Err(format!("it hangs: {open:?}"));
            }
            self.advance();
            while let Some(deed) = plan.first_entry().filter(|deed| *deed.key() <= self.now) {
                let deed = deed.remove();
                self.perform(deed);
            }
        }
    }

    /// What will be done when. Keys are distinct: the order is the seed's.
    fn plan(&mut self) -> BTreeMap<Instant, Deed> {
        let mut plan = BTreeMap::new();
        let consumers: Vec<usize> = (0..self.peers.len()).filter(|&nth| self.peers[nth].is_consumer()).collect();
        for _ in 0..self.random.below(12) + 1 {
            let consumer = consumers[self.random.below(consumers.len() as u64) as usize];
            let deed = Deed::Connect { consumer, id: self.random.below(1 << 40) };
            plan.insert(self.moment(8_000), deed);
        }
        if self.random.chance(25) {
            plan.insert(self.moment(8_000), Deed::Cut { ms: self.random.below(30_000) });
        }
        if self.random.chance(20) {
            let nth = self.random.below(self.peers.len() as u64) as usize;
            plan.insert(self.moment(8_000), Deed::Stop { nth });
        }
        if self.random.chance(20) {
            plan.insert(self.moment(8_000), Deed::Weight { weight: self.random.below(3) as u16 * 50 });
        }
        if self.random.chance(15) {
            plan.insert(self.moment(8_000), Deed::Drain);
        }
        plan
    }

    fn moment(&mut self, within_ms: u64) -> Instant {
        self.start + Duration::from_micros(self.random.below(within_ms * 1000))
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Connect { consumer, id } => self.peers[consumer].connect(self.now, id),
            Deed::Cut { ms } => self.network.cut_until(self.now + Duration::from_millis(ms)),
            Deed::Stop { nth } => self.peers[nth].stop(self.now),
            Deed::Weight { weight } => {
                if let Some(provider) = self.peers.iter_mut().find(|peer| !peer.is_consumer()) {
                    provider.endpoint.set_weight(self.now, weight);
                }
            }
            Deed::Drain => self.hub.shutdown(self.now),
        }
    }

    /// Lets everybody work until nobody has anything to do at this moment.
    fn settle(&mut self) -> Result<(), String> {
        let now = self.now;
        loop {
            let mut progress = false;
            while let Some(transmit) = self.hub.poll_transmit(now, &mut self.buffer) {
                self.network.send(now, address(HUB), &transmit, &self.buffer);
                progress = true;
            }
            while let Some(notice) = self.hub.poll_notice() {
                self.hub_notice(notice);
                progress = true;
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

    fn next_due(&self) -> Option<Instant> {
        let endpoints = self.peers.iter().filter_map(Peer::next_due);
        let hub = if self.hub_is_over { None } else { self.hub.poll_timeout() };
        [self.network.next(), hub].into_iter().flatten().chain(endpoints).min()
    }

    fn advance(&mut self) {
        let now = self.now;
        while let Some((to, received)) = self.network.deliver(now) {
            if to == address(HUB) {
                if !self.hub_is_over {
                    self.hub.handle_datagram(now, received);
                }
            } else if let Some(peer) = self.peers.iter_mut().find(|peer| peer.address == to) {
                peer.endpoint.handle_datagram(now, received);
            }
        }
        if self.hub.poll_timeout().is_some_and(|due| due <= now) && !self.hub_is_over {
            self.hub.handle_timeout(now);
        }
        for peer in &mut self.peers {
            peer.handle_timeout(now);
        }
    }

    fn hub_notice(&mut self, notice: Notice) {
        let at = (self.now - self.start).as_micros();
        match notice {
            Notice::Record(record) => {
                let what = match &record.event {
                    RecordEvent::StartSession(_) => "session started",
                    RecordEvent::EndSession { .. } => "session ended",
                    RecordEvent::StartConnection(_) => "connection started",
                    RecordEvent::EndConnection { .. } => "connection ended",
                };
                *self.counts.entry(what).or_default() += 1;
                self.journal.push(format!("{at} hub {:?}", record.event));
            }
            Notice::Refused(refusal) => self.journal.push(format!("{at} hub {refusal}")),
            Notice::RefusalsSuppressed { count } => self.journal.push(format!("{at} hub suppressed {count}")),
            Notice::Stopped => self.hub_is_over = true,
        }
    }

    fn check_end(&mut self) -> Result<(), String> {
        for (start, end) in [("session started", "session ended"), ("connection started", "connection ended")] {
            let count = |what| self.counts.get(what).copied().unwrap_or(0);
            if count(start) != count(end) {
                return Err(format!("{} times {start}, {} times {end}", count(start), count(end)));
            }
        }
        let status = self.hub.status();
        if (status.providers, status.consumers, status.connections) != (0, 0, 0) {
            return Err(format!("the hub has ended and still has {status:?}"));
        }
        // A clean end is the partner's, and whole.
        let mut ends: BTreeMap<u64, Vec<&Ends>> = BTreeMap::new();
        for peer in &self.peers {
            for (id, end) in peer.ends() {
                ends.entry(id).or_default().push(end);
            }
        }
        for (id, ends) in ends {
            for end in &ends {
                let partner_finished = ends.iter().any(|other| other.role != end.role && other.has_finished);
                if end.saw_clean_end && !partner_finished {
                    return Err(format!("connection {id}: {:?} saw a clean end that nobody made", end.role));
                }
            }
        }
        Ok(())
    }
}

/// Something that the outside does.
#[derive(Debug)]
enum Deed {
    /// A consumer opens a connection.
    Connect { consumer: usize, id: u64 },
    /// The network is gone for a while.
    Cut { ms: u64 },
    /// An endpoint ends at once.
    Stop { nth: usize },
    /// A provider changes its weight.
    Weight { weight: u16 },
    /// SIGTERM for the hub.
    Drain,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
