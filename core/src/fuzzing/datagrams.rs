//! A hub, and whatever reaches its socket: datagrams of a real endpoint, whole, changed or lost, and others of no sense at all.

use std::{
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use arbitrary::Unstructured;

use super::below;
use crate::{
    quic::Epoch,
    spn::{
        Role, endpoint,
        hub::{self, Hub, Service},
    },
    testing::{
        first_instant,
        pki::{Ca, UNIX, identity},
        wire::{received, split},
    },
};

const HUB: &str = "192.0.2.1:4433";
const ENDPOINT: &str = "192.0.2.7:999";

/// Certificates, made once: they are what a run would cost.
fn configs() -> &'static (hub::Config, endpoint::Config) {
    static MADE: OnceLock<(hub::Config, endpoint::Config)> = OnceLock::new();
    MADE.get_or_init(|| {
        let ca = Ca::new("ca");
        let mut hub = hub::Config::new("r", "hub", address(HUB));
        (hub.certificate, hub.key) = ca.server();
        hub.client_ca = ca.pem();
        let names = |name: &str| vec![name.to_owned()];
        hub.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: names("p"),
            consumers: names("c"),
            singleton: false,
            availability: None,
        }];
        (hub, endpoint::Config::new(Role::Consumer, "localhost", identity(&ca.client("c")), ca.roots()))
    })
}

struct Ends {
    now: Instant,
    hub: Hub,
    endpoint: endpoint::Endpoint,
    to_hub: Vec<Vec<u8>>,
    to_endpoint: Vec<Vec<u8>>,
}

pub(super) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let now = first_instant();
    let epoch = Epoch { instant: now, unix: UNIX };
    let (hub, endpoint) = configs().clone();
    let mut ends = Ends {
        now,
        hub: Hub::new(now, hub, [1; 32], epoch).expect("a hub"),
        endpoint: endpoint::Endpoint::new(endpoint, [2; 32], epoch).expect("an endpoint"),
        to_hub: Vec::new(),
        to_endpoint: Vec::new(),
    };
    ends.endpoint.handle_addresses(now, &[address(HUB)]);
    ends.collect();
    while !data.is_empty() {
        ends.step(&mut data);
        ends.collect();
        ends.hub.check().expect("books that agree");
    }
    let status = ends.hub.status();
    assert!(status.providers == 0 && status.consumers <= 1, "others got in: {status:?}");
}

impl Ends {
    fn step(&mut self, data: &mut Unstructured<'_>) {
        match below(data, 8) {
            // Everything there is goes through.
            0..3 => {
                for datagram in std::mem::take(&mut self.to_hub) {
                    self.hub.handle_datagram(self.now, received(address(ENDPOINT), &datagram));
                }
                for datagram in std::mem::take(&mut self.to_endpoint) {
                    self.endpoint.handle_datagram(self.now, received(address(HUB), &datagram));
                }
            }
            // One is lost, or changed.
            3 => drop(self.to_hub.pop()),
            4 => {
                if let Some(mut datagram) = self.to_hub.pop() {
                    let at = below(data, datagram.len());
                    if let Some(byte) = datagram.get_mut(at) {
                        *byte ^= data.arbitrary().unwrap_or(1);
                    }
                    datagram.truncate(below(data, datagram.len() + 1).max(1));
                    self.hub.handle_datagram(self.now, received(address(ENDPOINT), &datagram));
                }
            }
            // Something else, from somebody else.
            5 => {
                let length = below(data, 1400).min(data.len());
                let datagram = data.bytes(length).unwrap_or_default();
                let from = ["192.0.2.9:1", "[2001:db8::1]:65535", ENDPOINT][below(data, 3)];
                self.hub.handle_datagram(self.now, received(address(from), datagram));
            }
            6 => {
                self.now += Duration::from_millis(below(data, 40_000) as u64);
                self.hub.handle_timeout(self.now);
                self.endpoint.handle_timeout(self.now);
            }
            _ => match below(data, 4) {
                0 => drop(self.endpoint.connect(self.now)),
                1 => self.hub.shutdown(self.now),
                2 => {
                    let mut config = configs().0.clone();
                    config.transport.stream_window >>= below(data, 4);
                    drop(self.hub.reload(self.now, config));
                }
                _ => self.endpoint.stop(self.now),
            },
        }
    }

    /// Takes what both want to send and to say.
    fn collect(&mut self) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.hub.poll_transmit(self.now, &mut buffer) {
            // What goes elsewhere answers those who are nobody.
            if transmit.destination == address(ENDPOINT) {
                self.to_endpoint.extend(split(&buffer, &transmit).map(<[u8]>::to_vec));
            }
        }
        while let Some(transmit) = self.endpoint.poll_transmit(self.now, &mut buffer) {
            self.to_hub.extend(split(&buffer, &transmit).map(<[u8]>::to_vec));
        }
        while self.hub.poll_notice().is_some() {}
        while self.endpoint.poll_notice().is_some() {}
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
