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
