//! A hub between a provider and a consumer that keep to the form of the protocol and to nothing else: frames, streams and their ends in any
//! order, above all those of pause and resume (docs/protocols/spn.md, Pause and resume, RES-1). Whatever they did, nothing of it is left when they are gone.

use std::{
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use arbitrary::Unstructured;
use bytes::Bytes;

use super::below;
use crate::{
    quic::{self, ClientConfig, Clock, EndpointConfig, Epoch, Handle, StreamId, TransportConfig},
    spn::{
        ConnKey, Protocol, Role, Tag,
        hub::{self, Availability, Hub, Notice, Service, Status},
        wire::{
            code::StreamCode,
            control::Control,
            frame::Flags,
            frame::{AckEntry, Frame, ResumeReq, SessionOpen},
            preamble::Preamble,
        },
    },
    testing::{
        first_instant,
        pki::{Ca, UNIX, identity},
        wire,
    },
};

const HUB: &str = "192.0.2.1:4433";
const ROLES: [Role; 2] = [Role::Provider, Role::Consumer];

/// Certificates, made once.
struct Made {
    ca: Ca,
    hub: hub::Config,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let ca = Ca::new("ca");
        let mut hub = hub::Config::new("r", "hub", HUB.parse().expect("an address"));
        (hub.certificate, hub.key) = ca.server();
        hub.client_ca = ca.pem();
        hub.limits.connections_per_session = 4;
        let availability = Availability { on_payload: true, idle_timeout_s: 30, ..Availability::default() };
        hub.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: vec!["p".to_owned()],
            consumers: vec!["c".to_owned()],
            singleton: false,
            availability: Some(availability),
        }];
        Made { ca, hub }
    })
}

/// An endpoint that does what it likes.
struct Hand {
    role: Role,
    address: SocketAddr,
    quic: quic::Endpoint,
    session: Handle,
    control: Option<Control>,
    streams: Vec<StreamId>,
}

struct World {
    now: Instant,
    clock: Clock,
    hub: Hub,
    hands: Vec<Hand>,
    tasks: Vec<u64>,
    dials: u8,
}

pub(super) fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let now = first_instant();
    let epoch = Epoch { instant: now, unix: UNIX };
    let mut world = World {
        now,
        clock: Clock::new(epoch),
        hub: Hub::new(now, made().hub.clone(), [1; 32], epoch).expect("a hub"),
        hands: Vec::new(),
        tasks: Vec::new(),
        dials: 0,
    };
    for role in ROLES {
        world.dial(role);
    }
    while !data.is_empty() {
        world.step(&mut data);
        world.settle();
        world.hub.check().expect("books that agree");
    }
    world.hands.clear();
    // Nobody answers any more: idle timers, and all that waits for anybody, run out.
    for _ in 0..30 {
        world.wait(Duration::from_secs(10));
    }
    let Status { providers, consumers, connections, paused, .. } = world.hub.status();
    assert_eq!((providers, consumers, connections, paused), (0, 0, 0, 0), "left behind");
}

impl World {
    fn dial(&mut self, role: Role) {
        self.dials = self.dials.wrapping_add(1);
        let n = self.dials;
        let mut quic = quic::Endpoint::new(EndpointConfig::new([n; 32], self.clock.clone()), None);
        let name = if role == Role::Provider { "p" } else { "c" };
        let (identity, roots) = (identity(&made().ca.client(name)), made().ca.roots());
        let transport = TransportConfig { max_streams: 4, ..TransportConfig::default() };
        let alpn: [&[u8]; 1] = [role.alpn(Protocol::Sc02)];
        let config = ClientConfig::new(&identity, &roots, &alpn, &transport, &self.clock, [n; 32]).expect("settings");
        let session = quic.connect(self.now, &config, HUB.parse().expect("an address"), "localhost").expect("a dial");
        let address = SocketAddr::from(([192, 0, 2, 9], 1000 + u16::from(n)));
        self.hands.retain(|hand| hand.role != role);
        self.hands.push(Hand { role, address, quic, session, control: None, streams: Vec::new() });
        self.settle();
        let Some(hand) = self.hands.last_mut() else { return };
        let Some(stream) = hand.quic.open(hand.session) else { return };
        let mut control = Control::new(&mut hand.quic, hand.session, stream);
        let (service, instance) = (String::new(), [n; 16]);
        control.send(&Frame::SessionOpen(SessionOpen {
            version: 1,
            role,
            service,
            instance,
            weight: 100,
            flags: Flags(11),
            hubs: Vec::new(),
        }));
        let _ = control.flush(&mut hand.quic);
        hand.control = Some(control);
        self.settle();
    }

    fn step(&mut self, data: &mut Unstructured<'_>) {
        let role = ROLES[below(data, 2)];
        match below(data, 16) {
            0..6 => {
                let frame = frame(data);
                let Some(hand) = self.hand(role) else { return };
                let Some(control) = &mut hand.control else { return };
                control.send(&frame);
                let _ = control.flush(&mut hand.quic);
            }
            6..9 => {
                let (preamble, length) = (preamble(data), below(data, 3000));
                let Some(hand) = self.hand(role) else { return };
                if let Some(stream) = hand.quic.open(hand.session) {
                    hand.streams.push(stream);
                    hand.write(stream, [preamble.to_bytes(), vec![b'x'; length].into()].concat());
                }
            }
            9..12 => {
                let (nth, what, length) = (below(data, 8), below(data, 5), below(data, 3000));
                let answer = preamble(data);
                let Some(hand) = self.hand(role) else { return };
                let Some(&stream) = hand.streams.get(nth) else { return };
                match what {
                    0 => hand.write(stream, vec![b'y'; length]),
                    1 => hand.quic.finish(hand.session, stream),
                    2 => hand.quic.reset(hand.session, stream, CODES[length % CODES.len()].0),
                    3 => hand.quic.stop(hand.session, stream, CODES[length % CODES.len()].0),
                    _ => hand.write(stream, answer.to_bytes().to_vec()),
                }
            }
            12 => {
                let time = [10, 100, 2_500, 20_000, 70_000][below(data, 5)];
                self.wait(Duration::from_millis(time));
            }
            13 => self.dial(role),
            14 => {
                let ok = data.arbitrary().unwrap_or(true);
                for task in std::mem::take(&mut self.tasks) {
                    self.hub.cluster_done(self.now, task, ok);
                }
            }
            _ => match below(data, 5) {
                0 => drop(self.hub.pause(self.now, "urn:s")),
                1 => drop(self.hub.unpause(self.now, "urn:s")),
                2 => {
                    // Not started on demand any more: from the load on, or by nobody.
                    let mut config = made().hub.clone();
                    let from_load_on = data.arbitrary().unwrap_or(false).then(Availability::default);
                    config.services[0].availability = from_load_on;
                    drop(self.hub.reload(self.now, config));
                }
                3 => drop(self.hub.reload(self.now, made().hub.clone())),
                _ => self.hub.shutdown(self.now),
            },
        }
    }

    fn hand(&mut self, role: Role) -> Option<&mut Hand> {
        self.hands.iter_mut().find(|hand| hand.role == role)
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while wire::fire(&mut self.now, end, &mut self.hub, &mut self.hands) {
            self.settle();
        }
        self.now = end;
    }

    /// Lets all datagrams through.
    fn settle(&mut self) {
        let tasks = &mut self.tasks;
        let notice = |notice| match notice {
            Notice::ClusterStart(task) | Notice::ClusterStop(task) => tasks.push(task.id),
            Notice::Listening
            | Notice::Record(_)
            | Notice::Refused(_)
            | Notice::RefusalsSuppressed { .. }
            | Notice::Stopped => {}
        };
        wire::settle(self.now, HUB.parse().expect("an address"), &mut self.hub, &mut self.hands, notice);
    }
}

impl wire::Hand for Hand {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn quic(&mut self) -> &mut quic::Endpoint {
        &mut self.quic
    }

    fn take_events(&mut self) {
        while let Some((session, event)) = self.quic.poll_event() {
            match event {
                quic::Event::StreamOpened(stream) => self.streams.push(stream),
                // What comes is of no interest, but must be taken.
                quic::Event::Readable(stream) => {
                    let _ = self.quic.read(session, stream, &mut Vec::new(), usize::MAX);
                }
                quic::Event::Incoming { .. }
                | quic::Event::Connected { .. }
                | quic::Event::StreamsAvailable
                | quic::Event::Writable(_)
                | quic::Event::Stopped(..)
                | quic::Event::Acked(_)
                | quic::Event::Datagram(_)
                | quic::Event::Closed(_) => {}
            }
        }
    }
}

impl Hand {
    fn write(&mut self, stream: StreamId, bytes: Vec<u8>) {
        let _ = self.quic.write(self.session, stream, &mut [Bytes::from(bytes)]);
    }
}

const CODES: [StreamCode; 4] = [StreamCode::PAUSED, StreamCode::PEER_ABORTED, StreamCode::NOT_STARTED, StreamCode::OK];

/// One of few, so that they meet.
fn key(data: &mut Unstructured<'_>) -> ConnKey {
    ConnKey([below(data, 3) as u8; 16])
}

fn frame(data: &mut Unstructured<'_>) -> Frame {
    let conn = key(data);
    let (number, flags) = (below(data, 5000) as u64, Flags(below(data, 8) as u8));
    match below(data, 10) {
        0..4 => {
            let (generation, sent) = (below(data, 5) as u64, below(data, 5000) as u64);
            let partner = [None, Some(Tag::of("c")), Some(Tag::of("p")), Some(Tag::default())][number as usize % 4];
            ResumeReq { conn, generation, received: number, sent, flags, code: StreamCode(0) }.frame(partner)
        }
        4 => Frame::PauseAck { conn },
        5 => Frame::DataAck(vec![AckEntry { conn, received: number, flags }]),
        6 => Frame::CloseReq { conn, code: CODES[below(data, CODES.len())] },
        7 => Frame::CloseAck { conn },
        8 => Frame::SetWeight { weight: number as u16 % 3 },
        _ => Frame::ProviderStart,
    }
}

fn preamble(data: &mut Unstructured<'_>) -> Preamble {
    let (conn, flags) = (key(data), Flags(below(data, 4) as u8));
    if below(data, 2) == 0 {
        return Preamble::Connect { conn, flags };
    }
    let (generation, offset, received) = (below(data, 5) as u32, below(data, 5000) as u64, below(data, 5000) as u64);
    Preamble::Resume { conn, flags, generation, offset, received }
}
