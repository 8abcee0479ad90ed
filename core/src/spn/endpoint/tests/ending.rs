//! Endpoints that end in good order while their hubs come and go (EPS-10 to EPS-12).

use super::*;

const HUBS: [&str; 2] = ["192.0.2.1:4433", "192.0.2.2:4433"];

/// Endpoints that can resume: a provider that echoes, and a consumer.
fn world(hubs: &[&str]) -> (World, SocketAddr, SocketAddr) {
    let mut world = World::new();
    world.resume = true;
    let hubs: Vec<_> = hubs.iter().map(|at| world.add_hub(at)).collect();
    let provider = world.provider(0, &hubs);
    world.peer(provider).echo = true;
    world.run();
    let consumer = world.consumer(&hubs);
    world.wait(Duration::from_secs(1));
    (world, provider, consumer)
}

impl World {
    fn close(&mut self, at: SocketAddr) {
        let now = self.now;
        self.peer(at).endpoint.close(now);
    }

    fn has_closed(&mut self, at: SocketAddr) -> bool {
        self.peer(at).notices.contains(&Notice::Closed)
    }

    /// The connection is there, and ends in order, and with it the endpoint.
    fn ends_well(&mut self, consumer: SocketAddr, id: ConnId, ending: SocketAddr) {
        assert!(!self.has_closed(ending));
        self.say(consumer, id, b"c", true);
        self.wait(Duration::from_secs(2));
        let flow = self.peer(consumer).flow(id);
        assert_eq!((flow.got.as_slice(), flow.end), (&b"abc"[..], Some(End::Clean)));
        self.wait(Duration::from_secs(4));
        assert!(self.has_closed(ending), "it has no connection any more");
        assert_eq!(self.peer(ending).endpoint.sessions().count(), 0);
    }
}

#[test]
fn an_endpoint_that_ends_resumes_over_the_hub_that_comes_back() {
    for provider_ends in [true, false] {
        for drains in [true, false] {
            let (mut world, provider, consumer) = world(&HUBS[..1]);
            let hub = address(HUBS[0]);
            let id = world.call(consumer, b"a", false);
            world.run();
            let ending = if provider_ends { provider } else { consumer };
            world.close(ending);
            world.run();
            let now = world.now;
            if drains {
                world.hub(hub).shutdown(now);
                world.wait(Duration::from_secs(1));
            }
            world.nodes.remove(&hub);
            world.wait(Duration::from_secs(1));
            world.say(consumer, id, b"b", false);
            world.add_hub(HUBS[0]);
            world.wait(Duration::from_secs(5));
            assert_eq!(world.peer(consumer).flow(id).got, b"ab", "provider: {provider_ends}, drained: {drains}");
            // It is there for that and for nothing else.
            let now = world.now;
            if provider_ends {
                let late = world.call(consumer, b"late", false);
                world.wait(Duration::from_secs(1));
                assert_eq!(world.peer(provider).flows.len(), 1, "it takes nothing new");
                world.peer(consumer).endpoint.reset(now, late, StreamCode::PEER_ABORTED);
            } else {
                assert_eq!(world.peer(consumer).endpoint.connect(now), Err(ConnectError::Closed));
            }
            world.ends_well(consumer, id, ending);
        }
    }
}

#[test]
fn an_endpoint_that_ends_goes_on_over_another_hub() {
    for provider_ends in [true, false] {
        let (mut world, provider, consumer) = world(&HUBS);
        let ids = [(); 2].map(|()| world.call(consumer, b"a", false));
        world.run();
        let ending = if provider_ends { provider } else { consumer };
        world.close(ending);
        // One of them is on each hub; the second one's has ended by then, or not.
        world.nodes.remove(&address(HUBS[0]));
        for id in ids {
            world.say(consumer, id, b"b", false);
        }
        world.wait(Duration::from_secs(26));
        for id in ids {
            assert_eq!(world.peer(consumer).flow(id).got, b"ab", "provider: {provider_ends}");
        }
        world.say(consumer, ids[1], b"", true);
        world.run();
        world.ends_well(consumer, ids[0], ending);
    }
}

#[test]
fn an_endpoint_that_ends_waits_no_longer_than_it_may() {
    for provider_ends in [true, false] {
        let (mut world, provider, consumer) = world(&HUBS[..1]);
        world.call(consumer, b"a", false);
        let ending = if provider_ends { provider } else { consumer };
        world.wait(Duration::from_secs(1));
        let (now, hub) = (world.now, address(HUBS[0]));
        world.hub(hub).shutdown(now);
        world.close(ending);
        world.wait(Duration::from_secs(1));
        world.nodes.remove(&hub);
        world.wait(Duration::from_secs(28));
        assert!(!world.has_closed(ending));
        world.wait(Duration::from_secs(2));
        assert!(world.has_closed(ending));
        let own = world.peer(ending).only();
        assert_eq!(world.peer(ending).flow(own).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
        assert_eq!(world.peer(ending).endpoint.connections(), 0);
    }
}
