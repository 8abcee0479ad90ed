//! The events of a run, and the invariants of its end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use towline_core::spn::{
    Role,
    endpoint::{Limits, Progress},
    wire::code::StreamCode,
};

use super::{World, peer::Ends, still::Who};

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hub, endpoints that cannot resume, and all that may happen to them.
    Plain,
    /// Hubs that come and go under connections that outlive them.
    Resuming,
}

impl Kind {
    pub(super) fn of(seed: u64) -> Self {
        if seed % 2 == 1 { Self::Resuming } else { Self::Plain }
    }
}

/// An action from outside.
#[derive(Debug)]
pub(super) enum Deed {
    /// A consumer opens a connection.
    Connect { consumer: usize, id: u64 },
    /// The network is gone for a while.
    Cut { ms: u64 },
    /// Nothing passes between an endpoint and a hub for a while.
    Part { peer: usize, hub: usize, ms: u64 },
    /// An endpoint ends at once.
    Stop { nth: usize },
    /// An endpoint's address changes.
    Move { nth: usize },
    /// DNS lists these hubs from now on, and an endpoint learns of it.
    List { peer: usize, hubs: Vec<usize> },
    /// A provider changes its weight.
    Weight { weight: u16 },
    /// SIGTERM for a hub, and a new one behind it.
    Drain { hub: usize, down_ms: Option<u64> },
    /// SIGKILL for a hub, and a new one behind it.
    Kill { hub: usize, down_ms: u64 },
    /// SIGSTOP, and SIGCONT later.
    Freeze { who: Who, ms: u64 },
}

impl Deed {
    /// The process that must be running for it.
    pub(super) fn whose(&self) -> Option<Who> {
        match self {
            Self::Connect { consumer: nth, .. } | Self::Stop { nth } | Self::List { peer: nth, .. } => {
                Some(Who::Peer(*nth))
            }
            // The first provider's.
            Self::Weight { .. } => Some(Who::Peer(0)),
            Self::Drain { hub, .. } => Some(Who::Hub(*hub)),
            Self::Cut { .. } | Self::Part { .. } | Self::Move { .. } | Self::Kill { .. } | Self::Freeze { .. } => None,
        }
    }
}

impl World {
    /// What will be done when. Keys are distinct: the order is the seed's.
    pub(super) fn plan(&mut self) -> BTreeMap<Instant, Deed> {
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
            plan.insert(self.moment(8_000), Deed::Weight { weight: self.random.below(3) as u16 * 50 });
        }
        match self.kind {
            Kind::Plain => {
                if self.random.chance(20) {
                    let nth = self.random.below(self.peers.len() as u64) as usize;
                    plan.insert(self.moment(8_000), Deed::Stop { nth });
                }
                if self.random.chance(15) {
                    plan.insert(self.moment(8_000), Deed::Drain { hub: 0, down_ms: None });
                }
            }
            Kind::Resuming => {
                for _ in 0..self.random.below(5) {
                    let hub = self.random.below(self.seats.len() as u64) as usize;
                    let peer = self.random.below(self.peers.len() as u64) as usize;
                    let deed = match self.random.below(5) {
                        0 => Deed::Part { peer, hub, ms: self.random.below(30_000) },
                        1 => Deed::Move { nth: peer },
                        2 => Deed::Drain { hub, down_ms: Some(self.random.below(3_000)) },
                        _ => Deed::Kill { hub, down_ms: self.random.below(5_000) },
                    };
                    plan.insert(self.moment(15_000), deed);
                }
                if self.random.chance(30) {
                    // Each endpoint learns of it within a second.
                    let (kept, at) = (self.random.below(self.seats.len() as u64) as usize, self.moment(10_000));
                    let hubs: Vec<usize> =
                        (0..self.seats.len()).filter(|hub| *hub == kept || self.random.chance(50)).collect();
                    for peer in 0..self.peers.len() {
                        let at = at + Duration::from_micros(self.random.below(1_000_000));
                        plan.insert(at, Deed::List { peer, hubs: hubs.clone() });
                    }
                }
                while self.random.chance(50) {
                    let who = if self.random.chance(30) {
                        Who::Hub(self.random.below(self.seats.len() as u64) as usize)
                    } else {
                        Who::Peer(self.random.below(self.peers.len() as u64) as usize)
                    };
                    plan.insert(self.moment(10_000), Deed::Freeze { who, ms: self.random.below(25_000) });
                }
            }
        }
        plan
    }

    fn moment(&mut self, within_ms: u64) -> Instant {
        self.start + Duration::from_micros(self.random.below(within_ms * 1000))
    }

    pub(super) fn perform(&mut self, deed: Deed) {
        let now = self.now;
        self.journal.push(format!("{} {deed:?}", (now - self.start).as_micros()));
        match deed {
            Deed::Connect { consumer, id } => self.peers[consumer].connect(now, id),
            Deed::Cut { ms } => {
                self.has_parted = true;
                self.network.cut_until(now + Duration::from_millis(ms));
            }
            Deed::Part { peer, hub, ms } => {
                self.has_parted = true;
                let (one, other) = (self.peers[peer].address, self.seats[hub].address);
                self.network.part(one, other, now + Duration::from_millis(ms));
            }
            Deed::Stop { nth } => self.peers[nth].stop(now),
            Deed::Move { nth } => {
                let address = &mut self.peers[nth].address;
                address.set_port(address.port() + 1);
            }
            Deed::List { peer, hubs } => {
                let addresses: Vec<_> = hubs.iter().map(|hub| self.seats[*hub].address).collect();
                self.peers[peer].endpoint.handle_addresses(now, &addresses);
            }
            Deed::Weight { weight } => {
                if let Some(provider) = self.peers.iter_mut().find(|peer| !peer.is_consumer()) {
                    provider.endpoint.set_weight(now, weight);
                }
            }
            Deed::Drain { hub, down_ms } => self.seats[hub].drain(now, down_ms.map(Duration::from_millis)),
            Deed::Kill { hub, down_ms } => {
                self.still.forget(Who::Hub(hub));
                self.seats[hub].kill(now, Duration::from_millis(down_ms));
            }
            Deed::Freeze { who, ms } => self.still.stop(who, now + Duration::from_millis(ms)),
        }
    }

    /// What must be true at every moment of a connection that can be resumed (docs/protocols/spn.md, Invariants: I3 to I5).
    pub(super) fn check_progress(&mut self) -> Result<(), String> {
        let retain_max = Limits::default().retain_max;
        let mut present: BTreeMap<u64, BTreeMap<bool, Progress>> = BTreeMap::new();
        for peer in &self.peers {
            for (id, now) in peer.progress() {
                let both = present.entry(id).or_default();
                if both.insert(peer.is_consumer(), now).is_some() {
                    return Err(format!("connection {id} is at two endpoints of one role"));
                }
                let before = self.progress.insert((id, peer.is_consumer()), now).unwrap_or(now);
                // Of what begins again (0x28) nothing has been heard before.
                let goes_on = before.acknowledged > 0 || before.received > 0;
                let grows = now.acknowledged >= before.acknowledged
                    && now.received >= before.received
                    && (!goes_on || now.sent >= before.sent && now.generation >= before.generation);
                if !grows {
                    return Err(format!("connection {id} goes back: {before:?}, {now:?}"));
                }
                if now.acknowledged > now.sent || now.sent - now.acknowledged > retain_max {
                    return Err(format!("connection {id} keeps too much: {now:?}"));
                }
            }
        }
        for (id, both) in present {
            let (Some(consumer), Some(provider)) = (both.get(&true), both.get(&false)) else { continue };
            for (one, other) in [(consumer, provider), (provider, consumer)] {
                if one.acknowledged > other.received || other.received > one.sent {
                    return Err(format!("connection {id}: acknowledged, received, sent: {one:?}, {other:?}"));
                }
            }
            if provider.generation > consumer.generation {
                return Err(format!("connection {id}: the provider is on a leg that nobody opened: {both:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_end(&mut self) -> Result<(), String> {
        if let Some(fault) = self.seats.iter().flat_map(|seat| &seat.faults).next() {
            return Err(fault.clone());
        }
        let mut ends: BTreeMap<u64, Vec<&Ends>> = BTreeMap::new();
        for peer in &self.peers {
            for (id, end) in peer.ends() {
                ends.entry(id).or_default().push(end);
            }
        }
        for (id, ends) in ends {
            // A silent provider may have received it, too (docs/protocols/spn.md, Choosing a provider); a stopped one has not.
            if self.kind == Kind::Resuming
                && !self.has_parted
                && ends.iter().filter(|end| end.role == Role::Provider).count() > 1
            {
                return Err(format!("connection {id} has reached two services: {ends:?}"));
            }
            self.check_connection(&ends).map_err(|fault| format!("connection {id}: {fault}: {ends:?}"))?;
        }
        Ok(())
    }

    /// A clean end is the partner's, and whole (that it is whole is checked as it comes). And what can be resumed comes to such an end.
    fn check_connection(&self, ends: &[&Ends]) -> Result<(), String> {
        for end in ends {
            let partner_finished = ends.iter().any(|other| other.role != end.role && other.has_finished);
            if end.saw_clean_end && !partner_finished {
                return Err(format!("{:?} saw a clean end that nobody made", end.role));
            }
        }
        if self.kind == Kind::Plain || ends.iter().any(|end| end.has_broken_off) {
            return Ok(());
        }
        for end in ends {
            match end.reset {
                None if end.saw_clean_end && end.has_finished => {}
                None => return Err(format!("{:?} has not seen the end", end.role)),
                Some(StreamCode::NOT_STARTED) if end.role == Role::Consumer => {}
                // It said nothing for 2 s, and its connection went to another one.
                Some(StreamCode::NOT_STARTED) if end.role == Role::Provider => {}
                // The provider that could have received it has left for good, and cannot be asked.
                Some(StreamCode::PAUSE_TIMEOUT) if ends.iter().all(|end| end.role == Role::Consumer) => {}
                // Some hubs here allow a session few connections, and those that end still count for a moment.
                Some(StreamCode::CONNECTION_LIMIT) if end.role == Role::Consumer => {}
                Some(code) => return Err(format!("{:?} was reset with {code}", end.role)),
            }
        }
        Ok(())
    }
}
