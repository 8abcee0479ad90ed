//! What becomes of connections, many and new ones, when their hub is killed under them.

use super::*;

const HUB: &str = "192.0.2.1:4433";

/// Endpoints that can resume: an echoing provider and consumers, with so much stream credit at first.
fn world(hubs: &[&str], consumers: usize, streams: u32) -> (World, SocketAddr, Vec<SocketAddr>) {
    let mut world = World::new();
    world.resume = true;
    let hubs: Vec<_> =
        hubs.iter().map(|at| world.add_hub_with(at, |config| config.transport.max_streams = streams)).collect();
    let mut config = world.config(Role::Provider, "provider0");
    config.transport.max_streams = streams;
    let provider = world.add_peer("192.0.2.20:1", config, &hubs);
    world.peer(provider).echo = true;
    world.run();
    let consumer = |n: usize| {
        let config = world.config(Role::Consumer, &format!("consumer{n}"));
        (format!("192.0.2.1{n}:1"), config)
    };
    let made: Vec<_> = (0..consumers).map(consumer).collect();
    let consumers = made.into_iter().map(|(at, config)| world.add_peer(&at, config, &hubs)).collect();
    world.wait(Duration::from_secs(1));
    (world, provider, consumers)
}

impl World {
    fn got(&mut self, at: SocketAddr, id: ConnId) -> Vec<u8> {
        self.peer(at).flow(id).got.clone()
    }
}

/// All of them go on within two seconds of the hub's return, and one that is begun meanwhile works, too.
fn all_resume(connections: usize, consumers: usize, streams: u32) {
    let (mut world, _, consumers) = world(&[HUB], consumers, streams);
    let calls: Vec<_> = (0..connections)
        .map(|n| {
            let at = consumers[n % consumers.len()];
            (at, world.call(at, b"a", false))
        })
        .collect();
    world.wait(Duration::from_secs(1));
    for (at, id) in &calls {
        assert_eq!(world.got(*at, *id), b"a");
    }
    world.nodes.remove(&address(HUB));
    for (at, id) in &calls {
        world.say(*at, *id, b"b", false);
    }
    world.wait(Duration::from_millis(300));
    world.add_hub_with(HUB, |config| config.transport.max_streams = streams);
    world.wait(Duration::from_millis(1_000));
    let new = world.call(consumers[0], b"new", false);
    world.wait(Duration::from_millis(1_000));
    let late = calls.iter().filter(|(at, id)| world.got(*at, *id) != b"ab").count();
    assert_eq!(late, 0, "of {connections} connections, {} sessions, {streams} streams at first", consumers.len());
    assert_eq!(world.got(consumers[0], new), b"new");
}

#[test]
fn all_connections_of_a_session_resume_whatever_the_credit_was() {
    for connections in [99, 100, 101, 150, 1500] {
        all_resume(connections, 1, 100);
    }
    all_resume(40, 1, 2);
}

#[test]
fn all_connections_of_several_sessions_resume() {
    all_resume(1500, 3, 100);
    all_resume(60, 4, 3);
}

#[test]
fn five_thousand_connections_resume() {
    all_resume(5000, 1, 100);
}

impl World {
    /// Lets so many of them speak, one after the other, and no more.
    fn drive_some(&mut self, mut turns: usize) {
        loop {
            let everybody: Vec<_> = self.nodes.keys().copied().collect();
            let mut moved = false;
            for from in everybody {
                if turns == 0 {
                    return;
                }
                let mut spoke = self.carry(from);
                if let Some(Side::Peer(peer)) = self.nodes.get_mut(&from) {
                    spoke |= peer.act(self.now);
                }
                turns -= usize::from(spoke);
                moved |= spoke;
            }
            if !moved {
                return;
            }
        }
    }

    /// What the connections of a provider have brought it.
    fn served(&mut self, provider: SocketAddr) -> Vec<Vec<u8>> {
        let flows = self.peer(provider).flows.values();
        flows.filter(|flow| !flow.got.is_empty()).map(|flow| flow.got.clone()).collect()
    }
}

#[test]
fn connections_begun_while_the_hub_is_away_are_begun_again() {
    for away in [300, 4_000, 12_000] {
        let (mut world, provider, consumers) = world(&[HUB], 1, 100);
        let at = consumers[0];
        let mut calls = vec![world.call(at, b"a", false), world.call(at, b"a", true)];
        world.nodes.remove(&address(HUB));
        for _ in 0..20 {
            calls.push(world.call(at, b"a", false));
            calls.push(world.call(at, b"a", true));
            world.wait(Duration::from_millis(away / 20));
        }
        // More than what is held for a hub that refuses it.
        let much: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let long = world.call(at, &much, true);
        world.add_hub(HUB);
        world.wait(Duration::from_secs(10));
        assert!(world.got(at, long) == much, "away for {away} ms: {} bytes", world.got(at, long).len());
        let lost = calls.iter().filter(|id| world.got(at, **id) != b"a").count();
        assert_eq!(lost, 0, "of {} that were begun while the hub was away for {away} ms", calls.len());
        let served = world.served(provider);
        assert_eq!(served.len(), calls.len() + 1, "none was served twice");
    }
}

#[test]
fn the_hub_may_die_at_any_point_of_an_opening() {
    let (mut had, mut unheard) = (0, 0);
    for turns in 0..24 {
        for comes_late in [false, true] {
            let (mut world, first, consumers) = world(&[HUB], 1, 100);
            let config = world.config(Role::Provider, "provider1");
            let second = world.add_peer("192.0.2.21:1", config, &[address(HUB)]);
            world.peer(second).echo = true;
            world.wait(Duration::from_secs(1));
            let id = world.call(consumers[0], b"a", false);
            world.drive_some(turns);
            world.nodes.remove(&address(HUB));
            let got_it = !world.served(first).is_empty();
            had += usize::from(got_it);
            unheard += usize::from(got_it && world.got(consumers[0], id).is_empty());
            // Whoever may have it comes back after the other.
            if comes_late {
                world.dead.insert(first);
            }
            world.wait(Duration::from_millis(300));
            world.add_hub(HUB);
            world.wait(Duration::from_secs(5));
            if comes_late {
                assert!(!got_it || world.served(second).is_empty(), "after {turns} turns: served twice");
                world.dead.remove(&first);
                world.wait(Duration::from_secs(8));
            }
            assert_eq!(world.got(consumers[0], id), b"a", "after {turns} turns, late: {comes_late}");
            let served = [world.served(first), world.served(second)].concat();
            assert_eq!(served, [b"a"], "after {turns} turns, late: {comes_late}");
        }
    }
    assert!(had > 0 && unheard > 0, "some have had it, and of some of these nothing was heard: {had}, {unheard}");
}

#[test]
fn an_idle_provider_notices_a_hub_that_comes_back() {
    for away in [1_000, 7_000, 12_000] {
        let (mut world, provider, _) = world(&[HUB], 0, 100);
        world.wait(Duration::from_secs(30));
        world.nodes.remove(&address(HUB));
        world.wait(Duration::from_millis(away));
        world.add_hub(HUB);
        // The keep-alive is due 5 s after the last datagram; a hub that does not answer it is asked all the time.
        let within = 6_000_u64.saturating_sub(away) + 1_500;
        world.wait(Duration::from_millis(within));
        let sessions: Vec<_> = world.peer(provider).endpoint.sessions().map(|(_, state)| state).collect();
        assert_eq!(sessions, ["Established"], "away for {away} ms");
    }
}

/// A provider that is given up is on no list any more: nobody waits for its answer when the hub, too, has gone.
#[test]
fn connections_begun_while_the_hub_is_away_do_not_wait_for_a_provider_that_was_dead_before() {
    let mut world = World::new();
    world.resume = true;
    let hub = world.add_hub("192.0.2.1:4433");
    let (dead, alive) = (world.provider(0, &[hub]), world.provider(1, &[hub]));
    world.peer(alive).echo = true;
    let consumer = world.consumer(&[hub]);
    world.wait(Duration::from_secs(3));
    world.nodes.remove(&dead);
    // So the hub notices that it is silent.
    for _ in 0..4 {
        world.call(consumer, b"hello", true);
    }
    world.wait(Duration::from_secs(4));
    world.nodes.remove(&hub);
    let late = world.call(consumer, b"late", true);
    world.wait(Duration::from_millis(100));
    world.add_hub("192.0.2.1:4433");
    world.wait(Duration::from_secs(8));
    let flow = world.peer(consumer).flow(late);
    assert_eq!((flow.got.as_slice(), flow.end), (&b"late"[..], Some(End::Clean)));
}

/// So is one that retires: it gets nothing new, and its process may be gone when the hub comes back.
#[test]
fn connections_begun_while_the_hub_is_away_do_not_wait_for_a_provider_that_had_retired() {
    let mut world = World::new();
    world.resume = true;
    let hub = world.add_hub("192.0.2.1:4433");
    let (old, new) = (world.provider(0, &[hub]), world.provider(1, &[hub]));
    world.peer(new).echo = true;
    let consumer = world.consumer(&[hub]);
    world.wait(Duration::from_secs(3));
    // It has one connection left, with which it stays.
    world.call(consumer, b"hello", false);
    world.call(consumer, b"hello", false);
    world.wait(Duration::from_secs(1));
    let now = world.now;
    world.peer(old).endpoint.set_weight(now, 0);
    world.wait(Duration::from_secs(1));
    world.nodes.remove(&hub);
    let late = world.call(consumer, b"late", true);
    world.wait(Duration::from_millis(100));
    world.nodes.remove(&old);
    world.add_hub("192.0.2.1:4433");
    world.wait(Duration::from_secs(8));
    let flow = world.peer(consumer).flow(late);
    assert_eq!((flow.got.as_slice(), flow.end), (&b"late"[..], Some(End::Clean)));
}

#[test]
fn a_provider_that_is_heard_again_gets_connections_again() {
    let mut world = World::new();
    world.resume = true;
    let hub = world.add_hub("192.0.2.1:4433");
    let (silent, other) = (world.provider(0, &[hub]), world.provider(1, &[hub]));
    let consumer = world.consumer(&[hub]);
    world.wait(Duration::from_secs(3));
    world.dead.insert(silent);
    for _ in 0..4 {
        world.call(consumer, b"hello", false);
    }
    world.wait(Duration::from_secs(4));
    let calls = |world: &mut World, at| {
        world.peer(at).notices.iter().filter(|notice| matches!(notice, Notice::Incoming(_))).count()
    };
    assert_eq!((calls(&mut world, silent), calls(&mut world, other)), (0, 4));
    world.dead.clear();
    world.wait(Duration::from_secs(3));
    for _ in 0..4 {
        world.call(consumer, b"again", false);
    }
    world.wait(Duration::from_secs(1));
    assert_eq!((calls(&mut world, silent), calls(&mut world, other)), (4, 4), "it has the fewest");
    // And where all are given up or gone, connections wait for whoever is heard first.
    world.dead.extend([silent, other]);
    let waits = world.call(consumer, b"waits", false);
    world.wait(Duration::from_secs(5));
    world.dead.clear();
    world.wait(Duration::from_secs(5));
    assert_eq!(world.peer(consumer).flow(waits).end, None);
    assert_eq!(calls(&mut world, silent) + calls(&mut world, other), 9);
}
