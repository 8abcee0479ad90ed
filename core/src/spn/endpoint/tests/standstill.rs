//! Processes that are stopped for a while, and go on (PRV-14, PRV-16, PRV-17).

use super::*;

/// A hub, two providers that answer with what they get, and a consumer.
fn set_up() -> (World, SocketAddr, [SocketAddr; 2], SocketAddr) {
    let mut world = World::new();
    world.resume = true;
    let hub = world.add_hub("192.0.2.1:4433");
    let providers = [world.provider(0, &[hub]), world.provider(1, &[hub])];
    let consumer = world.consumer(&[hub]);
    for provider in providers {
        world.peer(provider).echo = true;
    }
    world.wait(Duration::from_secs(3));
    (world, hub, providers, consumer)
}

fn incoming(world: &mut World, at: SocketAddr) -> usize {
    world.peer(at).notices.iter().filter(|notice| matches!(notice, Notice::Incoming(_))).count()
}

#[test]
fn a_provider_that_stood_still_serves_nothing_that_has_moved() {
    for (batch, finish) in [(1, true), (1, false), (2, true), (5, false), (1000, true), (1000, false)] {
        let (mut world, _, [stopped, other], consumer) = set_up();
        world.stop(stopped);
        let calls: Vec<_> = (0..20).map(|_| world.call(consumer, b"hello", finish)).collect();
        world.wait(Duration::from_secs(8));
        assert_eq!(incoming(&mut world, other), calls.len(), "they have moved");
        world.go_on(stopped, batch);
        world.wait(Duration::from_secs(5));
        assert_eq!(incoming(&mut world, stopped), 0, "batches of {batch}, with FIN: {finish}");
        for id in calls {
            assert_eq!(world.peer(consumer).flow(id).got, b"hello");
        }
    }
}

#[test]
fn a_provider_that_stood_still_serves_again() {
    let (mut world, _, [stopped, other], consumer) = set_up();
    world.stop(stopped);
    world.wait(Duration::from_secs(6));
    world.go_on(stopped, 1);
    world.call(consumer, b"hello", false);
    world.wait(Duration::from_millis(100));
    assert_eq!(incoming(&mut world, stopped), 0, "the hub has not been heard long enough");
    world.wait(Duration::from_secs(2));
    for _ in 0..3 {
        world.call(consumer, b"hello", false);
    }
    world.wait(Duration::from_millis(50));
    assert_eq!((incoming(&mut world, stopped), incoming(&mut world, other)), (2, 2));
}

#[test]
fn a_provider_that_stood_still_waits_until_the_hub_is_heard() {
    let (mut world, hub, [stopped, _], consumer) = set_up();
    world.stop(stopped);
    world.call(consumer, b"hello", true);
    world.call(consumer, b"hello", true);
    world.wait(Duration::from_secs(4));
    // The way breaks before that it has all moved can be said again.
    world.dead.insert(hub);
    let waiting = world.still.get_mut(&stopped).unwrap();
    waiting.truncate(4);
    world.go_on(stopped, 1);
    world.wait(Duration::from_secs(10));
    assert_eq!(incoming(&mut world, stopped), 0);
    world.dead.clear();
    world.wait(Duration::from_secs(10));
    assert_eq!(incoming(&mut world, stopped), 0);
}

#[test]
fn a_hub_that_stood_still_moves_nothing() {
    let (mut world, hub, [first, second], consumer) = set_up();
    world.call(consumer, b"hello", false);
    world.call(consumer, b"hello", false);
    // Both have had them, and nobody hears it.
    world.carry(consumer);
    world.carry(hub);
    world.stop(hub);
    world.wait(Duration::from_secs(6));
    world.go_on(hub, 1);
    world.wait(Duration::from_secs(3));
    assert_eq!((incoming(&mut world, first), incoming(&mut world, second)), (1, 1));
}
