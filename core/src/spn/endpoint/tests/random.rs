//! Random lives of many connections: whatever hosts, hubs and providers do, each connection ends once and tells no lies.

use super::*;

const HUBS: [&str; 2] = ["192.0.2.1:4433", "192.0.2.2:4433"];
/// Another address of the first one.
const ALSO: &str = "[2001:db8::1]:4433";

/// What the consumer's host has said and done on a connection.
#[derive(Debug, Default)]
struct Story {
    sent: Vec<u8>,
    finished: bool,
    /// It has broken it off, or reads no more.
    spoiled: bool,
}

struct Life {
    world: World,
    dice: Dice,
    hubs: Vec<SocketAddr>,
    /// Theirs, and of every other life one more.
    addresses: Vec<SocketAddr>,
    providers: Vec<SocketAddr>,
    consumer: SocketAddr,
    stories: BTreeMap<ConnId, Story>,
    /// Providers and hubs break connections off.
    accidents: bool,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut world = World { resume: seed % 4 < 2, ..World::new() };
        let hubs: Vec<_> = HUBS.iter().map(|at| world.add_hub(at)).collect();
        world.aliases.push((address(ALSO), hubs[0]));
        let accidents = seed % 2 == 1;
        let addresses = [Some(HUBS[0]), accidents.then_some(ALSO), Some(HUBS[1])];
        let addresses: Vec<_> = addresses.into_iter().flatten().map(address).collect();
        let providers: Vec<_> = (0..2).map(|n| world.provider(n, &addresses)).collect();
        for &provider in &providers {
            world.peer(provider).echo = true;
        }
        world.run();
        let consumer = world.consumer(&addresses);
        world.run();
        world.lossy = seed.is_multiple_of(3).then_some(Dice(!seed));
        let (dice, stories) = (Dice(seed), BTreeMap::new());
        Self { world, dice, hubs, addresses, providers, consumer, stories, accidents }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 10, 1_000, 30_000, 200_000][self.dice.roll(6)];
        let first = self.dice.roll(256);
        (0..length).map(|n| (first + n * 7 + n / 256) as u8).collect()
    }

    fn step(&mut self) {
        let (now, consumer) = (self.world.now, self.consumer);
        let open: Vec<_> =
            self.stories.keys().copied().filter(|id| self.world.peer(consumer).flow(*id).end.is_none()).collect();
        let mine = self.dice.pick(&open);
        match self.dice.roll(40) {
            0..10 => {
                let (bytes, finish) = (self.bytes(), self.dice.roll(3) == 0);
                let id = self.world.call(consumer, &bytes, finish);
                self.stories.insert(id, Story { sent: bytes, finished: finish, spoiled: false });
            }
            10..20 => {
                let (bytes, finish) = (self.bytes(), self.dice.roll(2) == 0);
                if let Some(id) = mine
                    && let Some(story) = self.stories.get_mut(&id).filter(|story| !story.finished)
                {
                    story.sent.extend_from_slice(&bytes);
                    story.finished = finish;
                    self.world.say(consumer, id, &bytes, finish);
                }
            }
            20..22 => {
                if let Some(id) = mine {
                    self.stories.get_mut(&id).unwrap().spoiled = true;
                    self.world.peer(consumer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
                }
            }
            22..24 => {
                if let Some(id) = mine {
                    self.stories.get_mut(&id).unwrap().spoiled = true;
                    self.world.peer(consumer).endpoint.stop_reading(now, id, StreamCode::PEER_ABORTED);
                }
            }
            24..26 if self.accidents => {
                let (provider, abort) = (self.dice.pick(&self.providers).unwrap(), self.dice.roll(2) == 0);
                let served: Vec<_> = self.world.peer(provider).flows.keys().copied().collect();
                if let Some(id) = self.dice.pick(&served) {
                    let peer = self.world.peer(provider);
                    if abort {
                        peer.endpoint.reset(now, id, StreamCode::PEER_ABORTED);
                    } else {
                        // Whoever wants no more has no more to say, either.
                        peer.endpoint.stop_reading(now, id, StreamCode::PEER_ABORTED);
                        peer.flow(id).finish = true;
                        peer.write(now, id);
                    }
                }
            }
            26..28 => {
                let flow = mine.map(|id| (id, self.dice.roll(2) == 0));
                if let Some((id, deaf)) = flow {
                    self.world.peer(consumer).flow(id).reads_nothing = deaf;
                    self.world.peer(consumer).read(now, id);
                }
            }
            28 => {
                let (provider, weight) = (self.dice.pick(&self.providers).unwrap(), self.dice.roll(2) * 50);
                self.world.peer(provider).endpoint.set_weight(now, weight as u16);
            }
            // Connections of an address that goes have 30 s to drain.
            29 if self.accidents => {
                let count = 1 + self.dice.roll(3);
                let listed = self.addresses[..count].to_vec();
                self.world.peer(consumer).endpoint.handle_addresses(now, &listed);
            }
            30 if self.accidents => {
                let hub = self.dice.pick(&self.hubs).unwrap();
                self.world.hub(hub).shutdown(now);
            }
            31 if self.accidents => {
                // Crashed, and started again.
                self.world.add_hub(HUBS[self.dice.roll(2)]);
            }
            32 if self.accidents => {
                // A path breaks, or is mended.
                let path = address(ALSO);
                if !self.world.dead.remove(&path) {
                    self.world.dead.insert(path);
                }
            }
            32..36 => self.world.drive(),
            _ => {
                let ms = [1, 20, 100, 700, 3_000, 12_000][self.dice.roll(6)];
                self.world.wait(Duration::from_millis(ms));
            }
        }
    }

    fn check(&mut self) {
        let consumer = self.consumer;
        for (id, story) in &self.stories {
            let flow = self.world.peer(consumer).flow(*id);
            assert!(story.sent.starts_with(&flow.got), "{id:?}: what came back is not what was said");
            // A provider that has had enough ends early, and in good order.
            if flow.finished && !self.accidents {
                assert!(story.finished, "{id:?}: an end that nobody has made");
                assert!(flow.got == story.sent, "{id:?}: a clean end after {} of {}", flow.got.len(), story.sent.len());
            }
            if flow.end == Some(End::Clean) && !story.spoiled {
                assert!(flow.finished, "{id:?}: over, but its end was not shown");
            }
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    fn end(mut self) {
        let (now, consumer) = (self.world.now, self.consumer);
        for provider in self.providers.clone() {
            self.world.peer(provider).endpoint.set_weight(now, 50);
        }
        for id in self.stories.keys().copied().collect::<Vec<_>>() {
            self.world.peer(consumer).flow(id).reads_nothing = false;
            self.world.peer(consumer).read(now, id);
            if !std::mem::replace(&mut self.stories.get_mut(&id).unwrap().finished, true) {
                self.world.say(consumer, id, b"", true);
            }
        }
        // A hub's silence is noticed within 20 s, and the partner is waited for for 120 s.
        self.world.wait(Duration::from_secs(150));
        self.check();
        for (id, story) in &self.stories {
            let flow = self.world.peer(consumer).flow(*id);
            assert!(flow.end.is_some(), "{id:?} has not ended");
            if !self.accidents && !story.spoiled {
                assert_eq!(flow.end, Some(End::Clean), "{id:?}: nobody was to blame");
            }
        }
        let now = self.world.now;
        let all: Vec<_> = self.providers.iter().copied().chain([consumer]).collect();
        for &at in &all {
            self.world.peer(at).endpoint.close(now);
        }
        self.world.wait(Duration::from_secs(40));
        for &at in &all {
            assert_eq!(self.world.peer(at).notices.last(), Some(&Notice::Closed), "{at}");
            assert_eq!(self.world.peer(at).endpoint.connections(), 0, "{at}");
            assert!(self.world.peer(at).flows.values().all(|flow| flow.end.is_some()), "{at}");
        }
        for hub in self.hubs {
            assert_eq!(self.world.hub(hub).status(), hub::Status::default());
        }
    }
}

#[test]
fn every_life_ends_well() {
    let seeds = match std::option_env!("TOWLINE_SEED") {
        Some(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        None => 0..300,
    };
    for seed in seeds {
        println!("TOWLINE_SEED={seed}");
        let mut life = Life::new(seed);
        for _ in 0..80 {
            life.step();
            life.check();
        }
        life.end();
    }
}
