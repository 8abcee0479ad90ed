//! Against our hub.

use super::*;

const HUB: &str = "192.0.2.1:4433";

/// A hub, an echoing provider, a consumer; sessions are up.
fn set_up() -> (World, SocketAddr, SocketAddr, SocketAddr) {
    let mut world = World::new();
    let hub = world.add_hub(HUB);
    let provider = world.provider(0, &[hub]);
    world.peer(provider).echo = true;
    world.run();
    let consumer = world.consumer(&[hub]);
    world.run();
    (world, hub, provider, consumer)
}

#[test]
fn sessions_come_up() {
    let (mut world, hub, provider, consumer) = set_up();
    for at in [provider, consumer] {
        let notices = &world.peer(at).notices;
        let [Notice::SessionUp { remote, protocol: Protocol::Sc02, session_id, service }] = &notices[..] else {
            panic!("{notices:?}")
        };
        assert_eq!((*remote, service.as_str()), (hub, SERVICE));
        assert!(!session_id.is_empty());
    }
    let status = world.hub(hub).status();
    assert_eq!((status.providers, status.consumers), (1, 1));
}

#[test]
fn bytes_go_there_and_back() {
    let (mut world, hub, provider, consumer) = set_up();
    let payload: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let id = world.call(consumer, &payload, true);
    world.run();
    let flow = world.peer(consumer).flow(id);
    assert!(flow.got == payload, "{} bytes came back", flow.got.len());
    assert_eq!((flow.finished, flow.end), (true, Some(End::Clean)));
    let served = world.peer(provider).only();
    assert_eq!(world.peer(provider).flow(served).end, Some(End::Clean));
    assert_eq!(world.hub(hub).status().connections, 0);
    assert_eq!((world.peer(consumer).endpoint.connections(), world.peer(provider).endpoint.connections()), (0, 0));
}

#[test]
fn the_server_may_speak_first() {
    let (mut world, _, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let id = world.call(consumer, b"", false);
    world.run();
    let served = world.peer(provider).only();
    world.say(provider, served, b"220 hello", false);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).got, b"220 hello");
}

#[test]
fn each_direction_ends_by_itself() {
    let (mut world, _, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let id = world.call(consumer, b"question", true);
    world.run();
    let served = world.peer(provider).only();
    assert!(world.peer(provider).flow(served).finished);
    assert_eq!(world.peer(consumer).flow(id).end, None);
    world.say(provider, served, b"answer", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).got, b"answer");
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Clean));
    assert_eq!(world.peer(provider).flow(served).end, Some(End::Clean));

    // The other way round: the server ends first.
    let id = world.call(consumer, b"", false);
    world.run();
    let served = *world.peer(provider).flows.last_key_value().unwrap().0;
    world.say(provider, served, b"bye", true);
    world.run();
    assert!(world.peer(consumer).flow(id).finished);
    world.say(consumer, id, b"still here", true);
    world.run();
    assert_eq!(world.peer(provider).flow(served).got, b"still here");
    assert_eq!(world.peer(provider).flow(served).end, Some(End::Clean));
}

#[test]
fn an_abort_is_an_abort_at_the_other_end() {
    let (mut world, hub, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let now = world.now;
    for by_consumer in [true, false] {
        let id = world.call(consumer, b"something", false);
        world.run();
        let served = *world.peer(provider).flows.last_key_value().unwrap().0;
        world.say(provider, served, b"half an ans", false);
        world.run();
        let (from, own, to, other) =
            if by_consumer { (consumer, id, provider, served) } else { (provider, served, consumer, id) };
        world.peer(from).endpoint.reset(now, own, StreamCode::PEER_ABORTED);
        world.run();
        assert_eq!(world.peer(to).flow(other).end, Some(End::Reset(StreamCode::PEER_ABORTED)));
        assert_eq!(world.peer(from).flow(own).end, Some(End::Clean), "it knows itself");
        assert_eq!(world.hub(hub).status().connections, 0);
        assert_eq!(world.peer(to).endpoint.connections(), 0);
    }
}

#[test]
fn a_failed_dial_is_a_reset() {
    let (mut world, _, provider, consumer) = set_up();
    world.peer(provider).reads_nothing = true;
    let id = world.call(consumer, b"anyone?", false);
    world.run();
    let (now, served) = (world.now, world.peer(provider).only());
    world.peer(provider).endpoint.reset(now, served, StreamCode::PEER_ABORTED);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Reset(StreamCode::PEER_ABORTED)));
}

#[test]
fn a_reader_that_goes_leaves_the_other_direction_alone() {
    let (mut world, _, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let id = world.call(consumer, b"request", false);
    world.run();
    let (now, served) = (world.now, world.peer(provider).only());
    world.peer(consumer).endpoint.stop_reading(now, id, StreamCode::PEER_ABORTED);
    world.run();
    assert_eq!(world.peer(provider).flow(served).stopped, Some(StreamCode::PEER_ABORTED));
    world.say(consumer, id, b" goes on", true);
    world.run();
    assert_eq!(world.peer(provider).flow(served).got, b"request goes on");
    assert_eq!(world.peer(provider).flow(served).end, Some(End::Clean));
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Clean));
}

#[test]
fn connections_are_more_than_credit() {
    let (mut world, hub, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let ids: Vec<_> = (0..450u32).map(|n| world.call(consumer, &n.to_be_bytes(), false)).collect();
    world.run();
    assert_eq!(world.hub(hub).status().connections, 450);
    let served: Vec<_> = world.peer(provider).flows.keys().copied().collect();
    assert_eq!(served.len(), 450);
    for id in served {
        let got = world.peer(provider).flow(id).got.clone();
        world.say(provider, id, &got, true);
    }
    world.run();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(world.peer(consumer).flow(id).got, (n as u32).to_be_bytes());
        world.say(consumer, id, b"", true);
    }
    world.run();
    assert!(world.peer(consumer).flows.values().all(|flow| flow.end == Some(End::Clean)));
}

#[test]
fn a_killed_provider_is_noticed_and_replaced() {
    let (mut world, hub, first, consumer) = set_up();
    let id = world.call(consumer, b"a", false);
    world.run();
    world.dead.insert(first);
    let second = world.provider(1, &[hub]);
    world.peer(second).echo = true;
    world.wait(Duration::from_secs(26));
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    let id = world.call(consumer, b"b", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).got, b"b");
}

#[test]
fn a_hubs_shutdown_is_obeyed_and_the_address_tried_again() {
    let (mut world, hub, provider, consumer) = set_up();
    world.peer(provider).echo = false;
    let id = world.call(consumer, b"slow", false);
    world.run();
    let now = world.now;
    world.hub(hub).shutdown(now);
    world.wait(Duration::from_secs(1));
    // What runs is finished; nothing new is begun there.
    let late = world.call(consumer, b"late", false);
    world.run();
    let served = world.peer(provider).only();
    world.say(provider, served, b"done", true);
    world.say(consumer, id, b"", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).got, b"done");
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Clean));
    for at in [consumer, provider] {
        let ended = world.peer(at).notices.iter().find_map(|notice| match notice {
            Notice::SessionEnded { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(ended.as_deref(), Some("the hub is shutting down"));
    }
    // A new hub at the same address takes over.
    world.add_hub(HUB);
    world.wait(Duration::from_secs(8));
    let served = *world.peer(provider).flows.last_key_value().unwrap().0;
    assert_eq!(world.peer(provider).flow(served).got, b"late");
    world.say(provider, served, b"better", true);
    world.run();
    assert_eq!(world.peer(consumer).flow(late).got, b"better");
}

#[test]
fn a_lost_hub_resets_what_has_begun() {
    let (mut world, hub, _, consumer) = set_up();
    let id = world.call(consumer, b"x", false);
    let idle = world.call(consumer, b"", false);
    world.run();
    world.dead.insert(hub);
    world.wait(Duration::from_secs(26));
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    assert_eq!(world.peer(consumer).flow(idle).end, None, "no byte has moved: it looks for another session");
    world.wait(Duration::from_secs(10));
    assert_eq!(world.peer(consumer).flow(idle).end, Some(End::Reset(StreamCode::NOT_STARTED)));
    let Some(Notice::SessionWaiting { reason, .. }) =
        world.peer(consumer).notices.iter().find(|notice| matches!(notice, Notice::SessionWaiting { .. }))
    else {
        panic!("not waiting")
    };
    assert_eq!(reason, "the peer has been silent for too long");
}

#[test]
fn a_restarted_hub_is_believed() {
    let (mut world, hub, _, consumer) = set_up();
    let (certificate, key) = world.ca.server();
    let mut config = hub::Config::new("realm", "hub", hub);
    (config.certificate, config.key) = (certificate, key);
    config.client_ca = world.ca.pem();
    let hub_of = |world: &World, config: &hub::Config| {
        Side::Hub(Box::new(Hub::new(world.now, config.clone(), [1; 32], world.epoch()).unwrap()))
    };
    // The same key twice, so the second one's stateless resets are those of the first.
    let first = hub_of(&world, &config);
    world.nodes.insert(hub, first);
    let stranger = world.add_peer("192.0.2.30:1", world.config(Role::Consumer, "nobody"), &[hub]);
    world.run();
    let notices = &world.peer(stranger).notices;
    let Some(Notice::SessionWaiting { reason, .. }) = notices.first() else { panic!("{notices:?}") };
    assert!(reason.contains("refused the session"), "{reason}");
    // The sessions of before are lost within a keep-alive, not an idle timeout: another key, so no reset is believed, except by time.
    world.wait(Duration::from_secs(25));
    assert!(world.peer(consumer).notices.iter().any(|notice| matches!(notice, Notice::SessionWaiting { .. })));
}

#[test]
fn weight_0_retires_a_provider() {
    let (mut world, hub, first, consumer) = set_up();
    let second = world.provider(1, &[hub]);
    world.run();
    world.peer(first).echo = false;
    world.peer(second).echo = false;
    let ids: Vec<_> = (0..10).map(|_| world.call(consumer, b"x", false)).collect();
    world.run();
    let before = world.peer(first).flows.len();
    assert!(before > 0 && world.peer(second).flows.len() == 10 - before);
    let now = world.now;
    world.peer(first).endpoint.set_weight(now, 0);
    world.run();
    for _ in 0..10 {
        world.call(consumer, b"y", false);
    }
    world.run();
    assert_eq!(world.peer(first).flows.len(), before, "nothing new");
    assert!(!world.peer(first).notices.contains(&Notice::Closed));
    for id in ids {
        world.peer(consumer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    }
    world.run();
    assert_eq!(world.peer(first).notices.last(), Some(&Notice::Closed));
    assert_eq!(world.hub(hub).status().providers, 1);
    // And back again.
    world.peer(first).endpoint.set_weight(now, 100);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.hub(hub).status().providers, 2);
}

#[test]
fn close_ends_when_the_connections_have() {
    let (mut world, hub, provider, consumer) = set_up();
    let id = world.call(consumer, b"x", false);
    world.run();
    let now = world.now;
    world.peer(consumer).endpoint.close(now);
    world.peer(provider).endpoint.close(now);
    world.run();
    assert_eq!(world.peer(consumer).endpoint.connect(now), Err(ConnectError::Closed));
    assert!(!world.peer(consumer).notices.contains(&Notice::Closed));
    world.say(consumer, id, b"y", true);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.peer(consumer).flow(id).got, b"xy");
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Clean));
    for at in [consumer, provider] {
        assert_eq!(world.peer(at).notices.last(), Some(&Notice::Closed));
    }
    assert_eq!(world.hub(hub).status(), hub::Status::default());
}

#[test]
fn close_does_not_wait_for_ever() {
    let (mut world, _, _, consumer) = set_up();
    let id = world.call(consumer, b"x", false);
    world.run();
    let now = world.now;
    world.peer(consumer).endpoint.close(now);
    world.wait(Duration::from_secs(34));
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    assert_eq!(world.peer(consumer).notices.last(), Some(&Notice::Closed));
}

#[test]
fn stop_is_at_once() {
    let (mut world, hub, provider, consumer) = set_up();
    let id = world.call(consumer, b"x", false);
    world.run();
    let now = world.now;
    world.peer(consumer).endpoint.stop(now);
    world.run();
    assert_eq!(world.peer(consumer).flow(id).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    assert_eq!(world.peer(consumer).notices.last(), Some(&Notice::Closed));
    let served = world.peer(provider).only();
    assert_eq!(world.peer(provider).flow(served).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    assert_eq!(world.hub(hub).status().consumers, 0);
}

#[test]
fn every_address_gets_a_session_and_they_share_the_load() {
    let mut world = World::new();
    let hubs = [world.add_hub("192.0.2.1:4433"), world.add_hub("192.0.2.2:4433")];
    let provider = world.provider(0, &hubs);
    let consumer = world.consumer(&hubs);
    world.wait(Duration::from_secs(3)); // the consumer may have come before the provider
    world.peer(provider).echo = true;
    let ids: Vec<_> = (0..10).map(|_| world.call(consumer, b"x", false)).collect();
    world.run();
    for hub in hubs {
        assert_eq!(world.hub(hub).status().connections, 5);
    }
    // One address goes: its connections drain, new ones use the other.
    let now = world.now;
    world.peer(consumer).endpoint.handle_addresses(now, &[]);
    world.peer(consumer).endpoint.handle_addresses(now, &hubs[1..]);
    for _ in 0..5 {
        world.call(consumer, b"x", false);
    }
    world.run();
    assert_eq!(world.hub(hubs[1]).status().connections, 10);
    for id in ids {
        world.say(consumer, id, b"", true);
    }
    world.run();
    assert_eq!(world.peer(consumer).endpoint.sessions().collect::<Vec<_>>(), [(hubs[1], "Established")]);
    assert!(world.peer(consumer).flows.values().all(|flow| matches!(flow.end, None | Some(End::Clean))));
    assert_eq!(world.hub(hubs[0]).status().consumers, 0);
    // And it comes back.
    let now = world.now;
    world.peer(consumer).endpoint.handle_addresses(now, &hubs);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.hub(hubs[0]).status().consumers, 1);
}

#[test]
fn without_a_provider_the_session_waits() {
    let mut world = World::new();
    let hub = world.add_hub(HUB);
    let consumer = world.consumer(&[hub]);
    // The hub waits for a provider, too, before it says so.
    world.wait(Duration::from_secs(1));
    let notices = &world.peer(consumer).notices;
    let [Notice::SessionWaiting { reason, retry_ms: 1000, .. }] = &notices[..] else { panic!("{notices:?}") };
    assert!(reason.contains("No provider available"), "{reason}");
    let id = world.call(consumer, b"x", true);
    let provider = world.provider(0, &[hub]);
    world.peer(provider).echo = true;
    world.wait(Duration::from_secs(2));
    assert_eq!(world.peer(consumer).flow(id).got, b"x");
}

#[test]
fn a_wrong_certificate_is_named() {
    let mut world = World::new();
    let hub = world.add_hub(HUB);
    let mut config = world.config(Role::Consumer, "consumer0");
    config.server_name = "example.org".to_owned();
    let wrong_name = world.add_peer("192.0.2.30:1", config, &[hub]);
    let mut config = world.config(Role::Consumer, "consumer0");
    config.identity = identity(&Ca::new("other").client("consumer0"));
    let wrong_ca = world.add_peer("192.0.2.31:1", config, &[hub]);
    world.run();
    // The phrases that docs/operating.md names.
    for (at, words) in [(wrong_name, "certificate not valid for name \"example.org\""), (wrong_ca, "UnknownIssuer")] {
        let notices = &world.peer(at).notices;
        let Some(Notice::SessionWaiting { reason, .. }) = notices.first() else { panic!("{notices:?}") };
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_deaf_reader_stops_its_writer_and_nobody_else() {
    let (mut world, _, provider, consumer) = set_up();
    // What three windows of a stream hold, and 10 MB.
    let windows = 3 * TransportConfig::default().stream_window as usize;
    let big = vec![7; windows + 10_000_000];
    world.peer(provider).reads_nothing = true;
    let stalled: Vec<_> = (0..3).map(|_| world.call(consumer, &big, false)).collect();
    world.run();
    world.wait(Duration::from_secs(1));
    let left = |world: &mut World, id| world.peer(consumer).flow(id).to_send.iter().map(Bytes::len).sum::<usize>();
    for &id in &stalled {
        assert!(left(&mut world, id) > 10_000_000, "it was taken, though nobody reads");
    }
    // The others of the same session have all they need.
    world.peer(provider).reads_nothing = false;
    let payload = vec![3; 3_000_000];
    let id = world.call(consumer, &payload, true);
    world.wait(Duration::from_secs(10));
    let got = world.peer(consumer).flow(id).got.len();
    assert!(world.peer(consumer).flow(id).got == payload, "{got} bytes came back");
    // And when the one that reads nothing reads again, all of it comes.
    let now = world.now;
    let served: Vec<_> =
        world.peer(provider).flows.iter().filter(|(_, flow)| flow.reads_nothing).map(|(id, _)| *id).collect();
    assert_eq!(served.len(), 3);
    for id in served {
        world.peer(provider).flow(id).reads_nothing = false;
        world.peer(provider).read(now, id);
    }
    world.run();
    for id in stalled {
        assert_eq!(left(&mut world, id), 0);
        assert_eq!(world.peer(consumer).flow(id).got.len(), big.len());
    }
}

#[test]
fn the_same_run_twice_is_the_same() {
    let run = || {
        let (mut world, hub, provider, consumer) = set_up();
        for n in 0..5u8 {
            world.call(consumer, &[n; 1000], n % 2 == 0);
        }
        world.run();
        let now = world.now;
        world.hub(hub).shutdown(now);
        world.wait(Duration::from_secs(40));
        let strip = |notices: Vec<Notice>| format!("{notices:?}");
        let consumer = strip(std::mem::take(&mut world.peer(consumer).notices));
        (consumer, strip(std::mem::take(&mut world.peer(provider).notices)))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_clock_that_is_set_later_is_followed() {
    let mut world = World::new();
    let hub = world.add_hub(HUB);
    world.provider(0, &[hub]);
    // No battery: it is 1970, and the certificates are of 1975 at the earliest.
    let unix = Duration::from_secs(60);
    let config = world.config(Role::Consumer, "consumer0");
    let mut endpoint = Endpoint::new(config, [3; 32], Epoch { instant: world.now, unix }).unwrap();
    endpoint.handle_addresses(world.now, &[hub]);
    let consumer = address("192.0.2.10:1");
    let peer = Peer { endpoint, notices: Vec::new(), flows: BTreeMap::new(), echo: false, reads_nothing: false };
    world.nodes.insert(consumer, Side::Peer(Box::new(peer)));
    world.wait(Duration::from_secs(60));
    let reasons: BTreeSet<_> = world.peer(consumer).notices.drain(..).map(|notice| format!("{notice:?}")).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| reason.contains("certificate")), "{reasons:?}");
    let (now, epoch) = (world.now, Epoch { unix: pki::UNIX, ..world.epoch() });
    world.peer(consumer).endpoint.set_epoch(now, epoch);
    world.wait(Duration::from_secs(40));
    assert!(matches!(world.peer(consumer).notices[..], [Notice::SessionUp { .. }]));
}
