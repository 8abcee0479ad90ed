//! The binding in memory, against endpoints that a test plays by hand: frame by frame, stream by stream.

mod admission;
mod managed;
mod relaying;
mod resuming;
mod seeking;
mod silence;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::*;
use crate::{
    quic::{self, ClientConfig, CloseReason, Handle, ReadOutcome, StreamId, TransportConfig},
    spn::{
        ConnKey, Side,
        record::RecordEvent,
        wire::{
            code::StreamCode,
            control::Control,
            frame::Flags,
            frame::{Frame, SessionOpen},
            preamble::Preamble,
        },
    },
    testing::{
        first_instant,
        pki::{self, Ca, identity},
        wire,
    },
};

const HUB: &str = "192.0.2.1:4433";

/// A hub, and the endpoints that speak with it.
struct Bench {
    now: Instant,
    clock: Clock,
    ca: Ca,
    hub: Hub,
    hands: Vec<Hand>,
    records: Vec<RecordEvent>,
    refusals: Vec<String>,
    suppressed: u64,
    /// What cluster managers were asked for.
    tasks: Vec<(&'static str, ClusterTask)>,
    stopped: bool,
    /// Of every SESSION_OPEN.
    flags: Flags,
    /// Datagrams that went into the hub and out of it.
    datagrams: usize,
}

/// An endpoint played by hand: one session.
struct Hand {
    address: SocketAddr,
    quic: Endpoint,
    session: Handle,
    control: Option<Control>,
    events: VecDeque<quic::Event>,
}

impl wire::Hand for Hand {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn quic(&mut self) -> &mut Endpoint {
        &mut self.quic
    }

    fn take_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.quic.poll_event()).map(|(_, event)| event));
    }
}

/// What the hub's config is changed to before a test.
type Change = fn(&mut Config);

impl Bench {
    fn new(change: Change) -> Self {
        let now = first_instant();
        let epoch = Epoch { instant: now, unix: pki::UNIX };
        let ca = Ca::new("ca");
        let mut config = Config::new("r", "hub", HUB.parse().unwrap());
        (config.certificate, config.key) = ca.server();
        config.client_ca = ca.pem();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        config.services = vec![Service {
            urn: "urn:s".to_owned(),
            providers: names(&["p", "p2"]),
            consumers: names(&["c", "c2"]),
            singleton: false,
            availability: None,
        }];
        change(&mut config);
        Self {
            now,
            clock: Clock::new(epoch),
            ca,
            hub: Hub::new(now, config, [1; 32], epoch).unwrap(),
            hands: Vec::new(),
            records: Vec::new(),
            refusals: Vec::new(),
            suppressed: 0,
            tasks: Vec::new(),
            stopped: false,
            flags: Flags::NONE,
            datagrams: 0,
        }
    }

    /// The parts of the hub.
    fn exchange(&mut self) -> Parts<'_> {
        self.hub.intake.exchange_mut().parts()
    }

    /// A session whose handshake is done, with that ALPN value.
    fn dial(&mut self, alpn: &[u8], name: &str) -> usize {
        let n = self.hands.len() as u8;
        let mut quic = Endpoint::new(EndpointConfig::new([n + 2; 32], self.clock.clone()), None);
        let id = identity(&self.ca.client(name));
        let transport = TransportConfig {
            max_streams: 4,
            receive_window: 8 << 20,
            stream_window: 1_250_000,
            ..TransportConfig::default()
        };
        let config = ClientConfig::new(&id, &self.ca.roots(), &[alpn], &transport, &self.clock, [n; 32]).unwrap();
        let session = quic.connect(self.now, &config, HUB.parse().unwrap(), "localhost").unwrap();
        let address = SocketAddr::from(([192, 0, 2, n + 10], 999));
        self.hands.push(Hand { address, quic, session, control: None, events: VecDeque::new() });
        self.settle();
        self.hands.len() - 1
    }

    /// Lets all datagrams through.
    fn settle(&mut self) {
        let Self { records, refusals, suppressed, tasks, stopped, .. } = self;
        let notice = |notice| match notice {
            Notice::Listening => {}
            Notice::ClusterStart(task) => tasks.push(("start", task)),
            Notice::ClusterStop(task) => tasks.push(("stop", task)),
            Notice::Record(record) => records.push(record.event),
            Notice::Refused(refusal) => refusals.push(refusal.to_string()),
            Notice::RefusalsSuppressed { count } => *suppressed += count,
            Notice::Stopped => *stopped = true,
        };
        self.datagrams += wire::settle(self.now, HUB.parse().unwrap(), &mut self.hub, &mut self.hands, notice);
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while wire::fire(&mut self.now, end, &mut self.hub, &mut self.hands) {
            self.settle();
        }
        self.now = end;
    }

    /// Opens the control stream and sends a frame.
    fn open(&mut self, hand: usize, role: Role, service: &str, weight: u16, instance: u8) {
        let open = SessionOpen {
            version: 1,
            role,
            service: service.to_owned(),
            instance: [instance; 16],
            weight,
            flags: self.flags,
            hubs: Vec::new(),
        };
        self.send(hand, &Frame::SessionOpen(open));
    }

    fn send(&mut self, hand: usize, frame: &Frame) {
        let it = &mut self.hands[hand];
        if it.control.is_none() {
            let stream = it.quic.open(it.session).unwrap();
            assert_eq!(stream.index(), 0, "the control stream is the first");
            it.control = Some(Control::new(&mut it.quic, it.session, stream));
        }
        let control = it.control.as_mut().unwrap();
        control.send(frame);
        control.flush(&mut it.quic).unwrap();
        self.settle();
    }

    /// The frames that have come.
    fn frames(&mut self, hand: usize) -> Vec<Frame> {
        let it = &mut self.hands[hand];
        let Some(control) = &mut it.control else { return Vec::new() };
        let frames = std::iter::from_fn(|| control.next_frame(&mut it.quic).ok().flatten()).collect();
        self.settle();
        frames
    }

    /// An established session of `sc02`.
    fn session(&mut self, role: Role, name: &str) -> usize {
        let hand = self.dial(role.alpn(Protocol::Sc02), name);
        self.open(hand, role, "", 100, hand as u8);
        assert!(matches!(self.frames(hand)[..], [Frame::SessionAck(_)]), "{:?}", self.refusals);
        hand
    }

    /// Ends an endpoint silently.
    fn kill(&mut self, hand: usize) {
        let config = EndpointConfig::new([0; 32], self.clock.clone());
        self.hands[hand].quic = Endpoint::new(config, None);
    }

    /// The code with which the hub closed the session, if it did.
    fn close_code(&self, hand: usize) -> Option<u64> {
        self.hands[hand].events.iter().find_map(|event| match event {
            quic::Event::Closed(CloseReason::Peer { code, .. }) => Some(*code),
            _ => None,
        })
    }

    /// A data stream with its CONNECT and payload.
    fn connect(&mut self, hand: usize, key: u8, payload: &[u8]) -> StreamId {
        let preamble = Preamble::Connect { conn: ConnKey([key; 16]), flags: Flags(1) };
        self.stream(hand, &[&preamble.to_bytes(), payload].concat())
    }

    fn stream(&mut self, hand: usize, bytes: &[u8]) -> StreamId {
        let it = &mut self.hands[hand];
        let stream = it.quic.open(it.session).expect("stream credit");
        self.write(hand, stream, bytes);
        stream
    }

    fn write(&mut self, hand: usize, stream: StreamId, bytes: &[u8]) {
        let it = &mut self.hands[hand];
        it.quic.write(it.session, stream, &mut [Bytes::copy_from_slice(bytes)]);
        self.settle();
    }

    fn finish(&mut self, hand: usize, stream: StreamId) {
        let it = &mut self.hands[hand];
        it.quic.finish(it.session, stream);
        self.settle();
    }

    fn read(&mut self, hand: usize, stream: StreamId) -> (Vec<u8>, ReadOutcome) {
        let (it, mut chunks) = (&mut self.hands[hand], Vec::new());
        let outcome = it.quic.read(it.session, stream, &mut chunks, usize::MAX);
        self.settle();
        (chunks.concat(), outcome)
    }

    /// Streams that the hub has opened.
    fn opened(&self, hand: usize) -> Vec<StreamId> {
        let opened = |event: &quic::Event| match event {
            quic::Event::StreamOpened(stream) => Some(*stream),
            _ => None,
        };
        self.hands[hand].events.iter().filter_map(opened).collect()
    }

    fn was_stopped(&self, hand: usize, stream: StreamId, code: StreamCode) -> bool {
        self.hands[hand].events.contains(&quic::Event::Stopped(stream, code.0))
    }

    fn reset_code(&mut self, hand: usize, stream: StreamId) -> Option<u64> {
        match self.read(hand, stream).1 {
            ReadOutcome::Reset(code) => Some(code),
            _ => None,
        }
    }
}
