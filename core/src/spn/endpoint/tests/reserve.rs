//! Hubs with several addresses (ADR-3 to ADR-8).

use super::*;
use crate::spn::wire::{
    code::SessionCode,
    control::Control,
    frame::{Frame, SessionAck},
};

const V4: &str = "192.0.2.1:4433";
const V6: &str = "[2001:db8::1]:4433";

/// A hub with two addresses.
fn two_addresses(mut world: World) -> (World, SocketAddr, SocketAddr) {
    let hub = world.add_hub(V4);
    world.aliases.push((address(V6), hub));
    (world, hub, address(V6))
}

fn states(world: &mut World, at: SocketAddr) -> Vec<(SocketAddr, &'static str)> {
    world.peer(at).endpoint.sessions().collect()
}

fn count(world: &mut World, at: SocketAddr, which: impl Fn(&Notice) -> bool) -> usize {
    world.peer(at).notices.iter().filter(|notice| which(notice)).count()
}

fn ups(world: &mut World, at: SocketAddr) -> usize {
    count(world, at, |notice| matches!(notice, Notice::SessionUp { .. }))
}

/// Sessions that the hub has ever begun.
fn begun(world: &mut World, hub: SocketAddr) -> usize {
    let hub = world.hub(hub);
    let notices = std::iter::from_fn(|| hub.poll_notice());
    let begins = |notice: &hub::Notice| matches!(notice, hub::Notice::Record(record) if matches!(record.event, crate::spn::record::RecordEvent::StartSession(_)));
    notices.filter(begins).count()
}

#[test]
fn two_addresses_of_one_hub_are_one_session() {
    let (mut world, hub, v6) = two_addresses(World::new());
    let provider = world.provider(0, &[hub, v6]);
    world.peer(provider).echo = true;
    let consumer = world.consumer(&[hub, v6]);
    world.wait(Duration::from_secs(60));
    for at in [provider, consumer] {
        // IPv6 has its head start.
        assert_eq!(states(&mut world, at), [(v6, "Established"), (hub, "Reserve")]);
        assert_eq!(ups(&mut world, at), 1);
        let reserved =
            |notice: &Notice| *notice == Notice::SessionReserved { remote: address(V4), through: address(V6) };
        assert_eq!(count(&mut world, at, reserved), 1);
    }
    // They are looked at now and then, and nobody notices.
    let id = world.call(consumer, b"hello", false);
    world.wait(Duration::from_secs(1000));
    world.say(consumer, id, b" again", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).got, b"hello again");
    assert_eq!(begun(&mut world, hub), 2);
    for at in [provider, consumer] {
        assert_eq!(world.peer(at).notices.iter().filter(|notice| !is_of_connections(notice)).count(), 2);
    }
}

fn is_of_connections(notice: &Notice) -> bool {
    matches!(
        notice,
        Notice::Incoming(_)
            | Notice::Readable(_)
            | Notice::Writable(_)
            | Notice::Stopped(..)
            | Notice::Reset(..)
            | Notice::Ended(_)
    )
}

#[test]
fn the_address_that_answers_has_the_session() {
    const OTHER: &str = "192.0.2.3:4433";
    for (dead, alive) in [(OTHER, V6), (V6, OTHER)] {
        let (mut world, hub, v6) = two_addresses(World::new());
        world.aliases.push((address(OTHER), hub));
        world.dead.insert(address(dead));
        let provider = world.provider(0, &[address(OTHER), v6]);
        world.wait(Duration::from_secs(90));
        for (at, state) in states(&mut world, provider) {
            assert_eq!(state == "Established", at == address(alive), "{at} is {state}");
        }
        assert_eq!(ups(&mut world, provider), 1);
    }
}

#[test]
fn the_reserve_takes_over_at_once_and_the_lost_address_is_the_reserve_then() {
    let (mut world, hub, v6) = two_addresses(World { resume: true, ..World::new() });
    let provider = world.provider(0, &[hub, v6]);
    world.peer(provider).echo = true;
    let consumer = world.consumer(&[hub, v6]);
    world.wait(Duration::from_secs(2));
    let id = world.call(consumer, b"one", false);
    world.run();
    world.dead.insert(v6);
    let now = world.now;
    let lost =
        |world: &mut World| [provider, consumer].iter().any(|at| states(world, *at).contains(&(v6, "Established")));
    while lost(&mut world) {
        world.wait(Duration::from_millis(50));
        assert!(world.now < now + Duration::from_secs(30), "the loss is not noticed");
    }
    world.run();
    for at in [provider, consumer] {
        assert!(states(&mut world, at).contains(&(hub, "Established")), "{:?}", states(&mut world, at));
    }
    world.say(consumer, id, b", two", false);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.peer(consumer).flow(id).got, b"one, two");
    world.dead.clear();
    world.wait(Duration::from_secs(60));
    for at in [provider, consumer] {
        let mut states = states(&mut world, at);
        states.sort_unstable();
        assert_eq!(states, [(hub, "Established"), (v6, "Reserve")]);
    }
    world.say(consumer, id, b", three", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Clean));
}

#[test]
fn a_hub_that_comes_back_gets_one_session_again() {
    let (mut world, hub, v6) = two_addresses(World::new());
    let provider = world.provider(0, &[hub, v6]);
    world.wait(Duration::from_secs(5));
    world.add_hub(V4);
    world.wait(Duration::from_secs(60));
    let mut now: Vec<_> = states(&mut world, provider).into_iter().map(|(_, state)| state).collect();
    now.sort_unstable();
    assert_eq!((now, begun(&mut world, hub)), (vec!["Established", "Reserve"], 1));
}

#[test]
fn an_address_in_reserve_that_leads_to_another_hub_gets_a_session() {
    let (mut world, hub, v6) = two_addresses(World::new());
    let other = world.add_hub("192.0.2.7:4433");
    let provider = world.provider(0, &[hub, v6]);
    world.wait(Duration::from_secs(5));
    assert_eq!(states(&mut world, provider), [(v6, "Established"), (hub, "Reserve")]);
    let mut moved = world.nodes.remove(&other).unwrap();
    std::mem::swap(world.nodes.get_mut(&hub).unwrap(), &mut moved);
    world.nodes.insert(other, moved);
    // IPv6 still leads to the first one.
    world.aliases[0].1 = other;
    world.wait(Duration::from_secs(400));
    assert_eq!(states(&mut world, provider), [(v6, "Established"), (hub, "Established")]);
}

#[test]
fn the_session_moves_when_its_address_is_listed_no_more() {
    let (mut world, hub, v6) = two_addresses(World { resume: true, ..World::new() });
    let provider = world.provider(0, &[hub, v6]);
    world.peer(provider).echo = true;
    let consumer = world.consumer(&[hub, v6]);
    world.wait(Duration::from_secs(2));
    let id = world.call(consumer, b"one", false);
    world.run();
    let now = world.now;
    for at in [provider, consumer] {
        world.peer(at).endpoint.handle_addresses(now, &[hub]);
    }
    world.wait(Duration::from_secs(1));
    world.say(consumer, id, b", two", true);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.peer(consumer).flow(id).got, b"one, two");
    world.wait(Duration::from_secs(60));
    for at in [provider, consumer] {
        assert_eq!(states(&mut world, at), [(hub, "Established")]);
    }
}

#[test]
fn an_endpoint_with_a_reserve_ends_in_good_order() {
    let (mut world, hub, v6) = two_addresses(World::new());
    let provider = world.provider(0, &[hub, v6]);
    let consumer = world.consumer(&[hub, v6]);
    world.wait(Duration::from_secs(2));
    let now = world.now;
    world.peer(provider).endpoint.set_weight(now, 0);
    world.peer(consumer).endpoint.close(now);
    world.wait(Duration::from_secs(5));
    for at in [provider, consumer] {
        assert_eq!(states(&mut world, at), []);
        assert_eq!(world.peer(at).notices.last(), Some(&Notice::Closed));
    }
}

/// A hub of which a test plays one address.
struct Half {
    at: SocketAddr,
    session: Handle,
    control: Control,
}

impl Half {
    /// Takes SESSION_OPEN; says which hubs it lists.
    fn accept(world: &mut World, at: SocketAddr) -> (Self, Vec<[u8; 16]>) {
        let server = world.played(at);
        let events: Vec<_> = std::iter::from_fn(|| server.poll_event()).collect();
        let opened = events.into_iter().find_map(|(session, event)| match event {
            quic::Event::StreamOpened(stream) => Some((session, stream)),
            _ => None,
        });
        let (session, stream) = opened.expect("a control stream");
        let mut control = Control::new(server, session, stream);
        let Ok(Some(Frame::SessionOpen(open))) = control.next_frame(server) else { panic!("no SESSION_OPEN") };
        (Self { at, session, control }, open.hubs)
    }

    fn send(&mut self, world: &mut World, frame: &Frame) {
        let server = world.played(self.at);
        self.control.send(frame);
        self.control.flush(server).unwrap();
        world.run();
    }

    fn acknowledge(&mut self, world: &mut World, hub_instance: [u8; 16], state: u8) {
        let (session_id, service) = ("id".to_owned(), SERVICE.to_owned());
        self.send(
            world,
            &Frame::SessionAck(SessionAck { session_id, service, hub_instance, max_connections: 9, state }),
        );
    }
}

const ALPN: [&[u8]; 1] = [b"sc02-consumer"];

fn two_played() -> (World, [SocketAddr; 2], SocketAddr) {
    let mut world = World::new();
    let hubs = [V4, "192.0.2.2:4433"].map(|at| world.add_played(at, &ALPN, &TransportConfig::default()));
    let consumer = world.consumer(&hubs);
    world.run();
    (world, hubs, consumer)
}

#[test]
fn the_second_address_is_asked_when_the_first_has_answered_and_is_told_of_it() {
    let (mut world, hubs, consumer) = two_played();
    let (mut first, listed) = Half::accept(&mut world, hubs[0]);
    assert_eq!(listed, [] as [[u8; 16]; 0]);
    // The other one has its handshake, and no more.
    let server = world.played(hubs[1]);
    assert!(
        !std::iter::from_fn(|| server.poll_event()).any(|(_, event)| matches!(event, quic::Event::StreamOpened(_)))
    );
    first.acknowledge(&mut world, [7; 16], 0);
    let (mut second, listed) = Half::accept(&mut world, hubs[1]);
    assert_eq!(listed, [[7; 16]]);
    second.acknowledge(&mut world, [7; 16], SessionAck::SPARE);
    assert_eq!(states(&mut world, consumer), [(hubs[0], "Established"), (hubs[1], "Reserve")]);
}

#[test]
fn a_hub_that_does_not_answer_keeps_no_other_one_waiting_for_ever() {
    let (mut world, hubs, consumer) = two_played();
    world.wait(Duration::from_secs(10));
    let (mut second, listed) = Half::accept(&mut world, hubs[1]);
    assert_eq!(listed, [] as [[u8; 16]; 0]);
    second.acknowledge(&mut world, [8; 16], 0);
    assert_eq!(states(&mut world, consumer), [(hubs[0], "Waiting"), (hubs[1], "Established")]);
}

#[test]
fn of_two_sessions_with_one_hub_the_newer_stays() {
    let (mut world, hubs, consumer) = two_played();
    let (mut first, _) = Half::accept(&mut world, hubs[0]);
    first.acknowledge(&mut world, [7; 16], 0);
    let (mut second, _) = Half::accept(&mut world, hubs[1]);
    // A hub that knows nothing of the list has replaced the older one.
    second.acknowledge(&mut world, [7; 16], 0);
    let server = world.played(hubs[0]);
    let Ok(Some(Frame::SessionClose { code: SessionCode::PAUSED, .. })) = first.control.next_frame(server) else {
        panic!("no SESSION_CLOSE")
    };
    world.wait(Duration::from_secs(4));
    assert_eq!(states(&mut world, consumer), [(hubs[0], "Reserve"), (hubs[1], "Established")]);
    assert!(world.played(hubs[0]).rtt(first.session).is_none(), "QUIC is closed");
}

#[test]
fn a_hub_that_lies_is_not_asked_without_end() {
    let (mut world, hubs, consumer) = two_played();
    let (mut first, _) = Half::accept(&mut world, hubs[0]);
    first.acknowledge(&mut world, [7; 16], SessionAck::SPARE);
    assert!(states(&mut world, consumer).contains(&(hubs[0], "Waiting")));
}
