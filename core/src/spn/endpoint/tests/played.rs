//! Against a server end that the test plays.

use super::*;
use crate::{
    quic::{CloseReason, Event, StreamId},
    spn::wire::{
        code::SessionCode,
        control::Control,
        frame::Flags,
        frame::{AckEntry, Frame, SessionAck, SessionOpen},
        preamble::Preamble,
    },
};

const HUB: &str = "192.0.2.1:4433";
const ANY: [&[u8]; 4] = [b"sc02-provider", b"sc02-consumer", b"sc01-provider", b"sc01-consumer"];
const LEGACY: [&[u8]; 2] = [b"sc01-provider", b"sc01-consumer"];

/// A hub's side of one session.
pub(super) struct Played {
    pub(super) world: World,
    pub(super) hub: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) session: Handle,
    control: Option<Control>,
    /// What has come over QUIC and was not looked for yet.
    pub(super) events: Vec<Event>,
}

pub(super) fn ack(max_connections: u64) -> Frame {
    Frame::SessionAck(SessionAck {
        session_id: "id".to_owned(),
        service: SERVICE.to_owned(),
        hub_instance: [1; 16],
        max_connections,
        state: 0,
    })
}

impl Played {
    /// Dialled, and no further.
    fn dialled(role: Role, alpn: &[&[u8]]) -> Self {
        Self::dialled_in(World::new(), role, alpn)
    }

    fn dialled_in(mut world: World, role: Role, alpn: &[&[u8]]) -> Self {
        let hub = world.add_played(HUB, alpn, &TransportConfig::default());
        let peer = match role {
            Role::Consumer => world.consumer(&[hub]),
            Role::Provider => world.provider(0, &[hub]),
        };
        world.run();
        let mut session = None;
        let mut events = Vec::new();
        while let Some((handle, event)) = world.played(hub).poll_event() {
            session = Some(handle);
            events.push(event);
        }
        Self { world, hub, peer, session: session.expect("a connection"), control: None, events }
    }

    /// On `sc02`, with SESSION_OPEN received.
    fn asked(role: Role) -> (Self, Frame) {
        let mut played = Self::dialled(role, &ANY);
        let frame = played.accept();
        (played, frame)
    }

    /// Takes the control stream, and SESSION_OPEN from it.
    pub(super) fn accept(&mut self) -> Frame {
        let stream = self.opened();
        assert_eq!(stream.index(), 0);
        let session = self.session;
        self.control = Some(Control::new(self.quic(), session, stream));
        self.frame()
    }

    /// Established, with an endpoint that can resume.
    pub(super) fn resumable(role: Role) -> Self {
        let mut played = Self::dialled_in(World { resume: true, ..World::new() }, role, &ANY);
        let frame = played.accept();
        assert!(matches!(frame, Frame::SessionOpen(SessionOpen { flags: Flags(11), .. })), "{frame:?}");
        played.send(&ack(1000));
        assert!(matches!(played.notices()[..], [Notice::SessionUp { .. }]));
        played
    }

    fn established(role: Role) -> Self {
        let (mut played, _) = Self::asked(role);
        played.send(&ack(1000));
        assert!(matches!(played.notices()[..], [Notice::SessionUp { .. }]));
        played
    }

    pub(super) fn legacy(role: Role) -> Self {
        let mut played = Self::dialled(role, &LEGACY);
        assert!(matches!(played.notices()[..], [Notice::SessionUp { protocol: Protocol::Sc01, .. }]));
        played
    }

    pub(super) fn quic(&mut self) -> &mut quic::Endpoint {
        self.world.played(self.hub)
    }

    pub(super) fn run(&mut self) {
        self.wait(Duration::from_millis(100));
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.world.wait(time);
        while let Some((handle, event)) = self.world.played(self.hub).poll_event() {
            if handle == self.session {
                self.events.push(event);
            }
        }
    }

    /// Takes the first event that is such a one.
    fn take<T>(&mut self, which: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let at = self.events.iter().position(|event| which(event).is_some())?;
        which(&self.events.remove(at))
    }

    /// The next stream that the endpoint has opened.
    pub(super) fn opened(&mut self) -> StreamId {
        self.take(|event| if let Event::StreamOpened(stream) = event { Some(*stream) } else { None }).expect("a stream")
    }

    fn datagrams(&mut self) -> Vec<Bytes> {
        let text = |event: &Event| if let Event::Datagram(text) = event { Some(text.clone()) } else { None };
        std::iter::from_fn(|| self.take(text)).collect()
    }

    fn closed(&mut self) -> Option<CloseReason> {
        self.take(|event| if let Event::Closed(reason) = event { Some(reason.clone()) } else { None })
    }

    #[track_caller]
    fn assert_closed(&mut self, expected: SessionCode) {
        match self.closed() {
            Some(CloseReason::Peer { code, .. }) => assert_eq!(SessionCode(code), expected),
            other => panic!("not closed with {expected}, but {other:?}"),
        }
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        self.control.as_mut().unwrap().send(frame);
        self.flush();
    }

    fn flush(&mut self) {
        let mut control = self.control.take().unwrap();
        control.flush(self.quic()).unwrap();
        self.control = Some(control);
        self.run();
    }

    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let mut control = self.control.take().unwrap();
        let frames = std::iter::from_fn(|| control.next_frame(self.quic()).unwrap()).collect();
        self.control = Some(control);
        frames
    }

    #[track_caller]
    fn frame(&mut self) -> Frame {
        let mut frames = self.frames();
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    pub(super) fn write(&mut self, stream: StreamId, bytes: &[u8]) {
        let session = self.session;
        let outcome = self.quic().write(session, stream, &mut [Bytes::copy_from_slice(bytes)]);
        assert_eq!(outcome, WriteOutcome::Written { bytes: bytes.len() });
        self.run();
    }

    pub(super) fn finish(&mut self, stream: StreamId) {
        let session = self.session;
        self.quic().finish(session, stream);
        self.run();
    }

    /// Resets and stops.
    pub(super) fn cut(&mut self, stream: StreamId, code: StreamCode) {
        let session = self.session;
        self.quic().reset(session, stream, code.0);
        self.quic().stop(session, stream, code.0);
        self.run();
    }

    /// Opens a stream to the endpoint, which begins so.
    pub(super) fn open(&mut self, bytes: &[u8]) -> StreamId {
        let session = self.session;
        let stream = self.quic().open(session).expect("credit");
        self.write(stream, bytes);
        stream
    }

    fn datagram(&mut self, text: &'static [u8]) {
        let session = self.session;
        self.quic().send_datagram(session, Bytes::from_static(text));
        self.run();
    }

    pub(super) fn read(&mut self, stream: StreamId) -> (Vec<u8>, ReadOutcome) {
        let mut chunks = Vec::new();
        let session = self.session;
        let outcome = self.quic().read(session, stream, &mut chunks, 1000);
        (chunks.concat(), outcome)
    }

    /// The notices that the peer's host got since the last time.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        let peer = self.peer;
        std::mem::take(&mut self.world.peer(peer).notices)
    }

    pub(super) fn call(&mut self, bytes: &[u8], finish: bool) -> ConnId {
        let id = self.world.call(self.peer, bytes, finish);
        self.run();
        id
    }

    pub(super) fn flow(&mut self, id: ConnId) -> &mut Flow {
        let peer = self.peer;
        self.world.peer(peer).flow(id)
    }

    #[track_caller]
    pub(super) fn assert_answered(&mut self, id: ConnId, bytes: &[u8]) {
        let flow = self.flow(id);
        assert_eq!((flow.got.as_slice(), flow.end), (bytes, Some(End::Clean)));
    }

    /// The one new caller.
    pub(super) fn caller(&mut self) -> ConnId {
        let incoming = |notice: &Notice| if let Notice::Incoming(id) = notice { Some(*id) } else { None };
        let callers: Vec<_> = self.notices().iter().filter_map(incoming).collect();
        assert_eq!(callers.len(), 1);
        callers[0]
    }

    /// What the endpoint said against a stream of ours.
    pub(super) fn refused(&mut self, stream: StreamId) -> (Option<StreamCode>, ReadOutcome) {
        let stopped = self.take(|event| match event {
            Event::Stopped(id, code) if *id == stream => Some(StreamCode(*code)),
            _ => None,
        });
        (stopped, self.read(stream).1)
    }
}

fn connect(n: u8) -> Bytes {
    Preamble::Connect { conn: ConnKey([n; 16]), flags: Flags::NONE }.to_bytes()
}

#[test]
fn session_open_says_who_and_what() {
    let (mut played, frame) = Played::asked(Role::Provider);
    let Frame::SessionOpen(open) = frame else { panic!("{frame:?}") };
    assert_eq!(
        (open.version, open.role, open.service.as_str(), open.weight, open.flags),
        (1, Role::Provider, "", 100, Flags::NONE)
    );
    assert_ne!(open.instance, [0; 16]);
    assert_eq!(played.notices(), []);
}

#[test]
fn only_sc02_if_required() {
    let mut world = World::new();
    let hub = world.add_played(HUB, &LEGACY, &TransportConfig::default());
    let config = Config { require_sc02: true, ..world.config(Role::Consumer, "consumer0") };
    let peer = world.add_peer("192.0.2.10:1", config, &[hub]);
    world.run();
    let notices = &world.peer(peer).notices;
    let [Notice::SessionWaiting { reason, .. }] = &notices[..] else { panic!("{notices:?}") };
    assert!(reason.contains("0x178"), "{reason}");
}

#[test]
fn a_consumer_begins_with_connect() {
    let mut played = Played::established(Role::Consumer);
    played.call(b"hello", true);
    assert_eq!(played.frame(), Frame::ProviderStart);
    let stream = played.opened();
    let (bytes, outcome) = played.read(stream);
    assert_eq!((bytes[0], bytes[17], &bytes[18..], outcome), (1, 0, &b"hello"[..], ReadOutcome::Finished));
    played.call(b"", false);
    let other = played.opened();
    let (again, outcome) = played.read(other);
    assert_eq!((again.len(), outcome), (18, ReadOutcome::Blocked));
    assert_ne!(again[1..17], bytes[1..17]);
    assert_eq!(played.frames(), [], "the provider is started once");
    played.send(&Frame::ProviderStopped);
    played.call(b"", false);
    assert_eq!(played.frame(), Frame::ProviderStart);
}

#[test]
fn streams_that_overtake_session_ack_are_held() {
    let (mut played, _) = Played::asked(Role::Provider);
    let stream = played.open(&[&connect(1)[..], b"early"].concat());
    assert_eq!(played.notices(), []);
    played.send(&ack(0));
    let id = played.caller();
    assert_eq!(played.flow(id).got, b"early");
    let peer = played.peer;
    played.world.say(peer, id, b"late", true);
    played.run();
    assert_eq!(played.read(stream), (b"late".to_vec(), ReadOutcome::Finished));
    played.finish(stream);
    assert_eq!(played.flow(id).end, Some(End::Clean));
}

#[test]
fn preambles_come_in_pieces() {
    let mut played = Played::established(Role::Provider);
    let stream = played.open(&connect(1)[..5]);
    played.write(stream, &connect(1)[5..17]);
    assert_eq!(played.notices(), []);
    played.write(stream, &connect(1)[17..]);
    let id = played.caller();
    assert_eq!(played.flow(id).got, b"");
    played.write(stream, b"x");
    assert_eq!(played.flow(id).got, b"x");
}

#[test]
fn bad_preambles_are_reset() {
    let resume = Preamble::Resume { conn: ConnKey([1; 16]), flags: Flags::NONE, generation: 1, offset: 0, received: 0 };
    for (bytes, finish, code) in [
        (&b"GET / HTTP/1.1"[..], false, StreamCode::MALFORMED),
        (&connect(1)[..9], true, StreamCode::MALFORMED),
        (&resume.to_bytes(), false, StreamCode::RESUME_PARTNER_MISSING),
    ] {
        let mut played = Played::established(Role::Provider);
        let stream = played.open(bytes);
        if finish {
            played.finish(stream);
        }
        let (stopped, read) = played.refused(stream);
        assert_eq!(read, ReadOutcome::Reset(code.0));
        assert!(finish || stopped == Some(code));
        assert_eq!(played.notices(), []);
    }
    // Nor does one take for ever; its partner may try again.
    for begun in [&connect(1)[..9], &resume.to_bytes()[..9]] {
        let mut played = Played::established(Role::Provider);
        let stream = played.open(begun);
        played.wait(Duration::from_secs(9));
        assert_eq!(played.read(stream).1, ReadOutcome::Blocked);
        played.wait(Duration::from_secs(1));
        assert_eq!(played.refused(stream), (Some(StreamCode::PAUSED), ReadOutcome::Reset(StreamCode::PAUSED.0)));
    }
}

#[test]
fn a_conn_is_known_only_once() {
    let mut played = Played::established(Role::Provider);
    let first = played.open(&connect(1));
    let id = played.caller();
    let second = played.open(&connect(1));
    assert_eq!(played.refused(second), (Some(StreamCode::CONN_IN_USE), ReadOutcome::Reset(StreamCode::CONN_IN_USE.0)));
    played.write(first, b"unharmed");
    assert_eq!(played.flow(id).got, b"unharmed");
    // When it is over, it is free again.
    played.cut(first, StreamCode::PEER_ABORTED);
    assert_eq!(played.flow(id).end, Some(End::Reset(StreamCode::PEER_ABORTED)));
    played.notices();
    played.open(&connect(1));
    played.caller();
}

#[test]
fn a_provider_grants_what_it_can_serve() {
    let mut world = World::new();
    let hub = world.add_played(HUB, &ANY, &TransportConfig::default());
    let mut config = world.config(Role::Provider, "provider0");
    config.limits.connections = 150;
    let peer = world.add_peer("192.0.2.20:1", config, &[hub]);
    world.run();
    let session = world.played(hub).poll_event().unwrap().0;
    let mut played = Played { world, hub, peer, session, control: None, events: Vec::new() };
    played.run();
    let stream = played.opened();
    played.control = Some(Control::new(played.quic(), session, stream));
    played.send(&ack(0));
    for n in 0..150 {
        played.open(&connect(n));
    }
    assert_eq!(played.world.peer(peer).flows.len(), 150);
    assert_eq!(played.quic().open(session), None, "all streams are taken");
}

#[test]
fn a_slow_host_takes_no_speed_from_its_other_connections() {
    let mut played = Played::established(Role::Provider);
    let peer = played.peer;
    played.world.peer(peer).reads_nothing = true;
    let slow = played.open(&connect(1));
    let slow_id = played.caller();
    played.world.peer(peer).reads_nothing = false;
    let fast = played.open(&connect(2));
    let fast_id = played.caller();
    let (session, block, mut taken) = (played.session, Bytes::from(vec![7; 100_000]), 0);
    for tick in 0..400 {
        // One is read at 5 MB/s, never so late that it seems to stand still; the other at once.
        let (now, mut chunks) = (played.world.now, Vec::new());
        if tick % 4 == 0 {
            let _ = played.world.peer(peer).endpoint.read(now, slow_id, &mut chunks, 70);
            taken += chunks.iter().map(Bytes::len).sum::<usize>();
        }
        for stream in [slow, fast] {
            played.quic().write(session, stream, &mut [block.clone()]);
        }
        played.wait(Duration::from_millis(5));
    }
    let got = played.flow(fast_id).got.len();
    assert!(taken > 5_000_000, "{taken} bytes");
    assert!(got > 36_000_000, "{got} bytes beside {taken}");
}

#[test]
fn a_refused_connection_is_said_again_elsewhere() {
    let mut played = Played::established(Role::Consumer);
    let id = played.call(b"say it again", true);
    let first = played.opened();
    let (bytes, _) = played.read(first);
    played.cut(first, StreamCode::NOT_STARTED);
    assert_eq!(played.flow(id).end, None);
    played.wait(Duration::from_millis(120));
    let second = played.opened();
    let (again, outcome) = played.read(second);
    assert_eq!((&again[18..], outcome), (&b"say it again"[..], ReadOutcome::Finished));
    assert_ne!(again[1..17], bytes[1..17], "a new conn");
    played.write(second, b"done");
    played.finish(second);
    played.assert_answered(id, b"done");
}

#[test]
fn what_was_answered_is_not_said_again() {
    let mut played = Played::established(Role::Consumer);
    let id = played.call(b"q", false);
    let stream = played.opened();
    played.write(stream, b"a");
    played.cut(stream, StreamCode::NOT_STARTED);
    assert_eq!(played.flow(id).end, Some(End::Reset(StreamCode::NOT_STARTED)));
    // Nor is what was too much to hold.
    let id = played.call(&vec![0; 100_000], false);
    let stream = played.opened();
    played.cut(stream, StreamCode::NOT_STARTED);
    assert_eq!(played.flow(id).end, Some(End::Reset(StreamCode::NOT_STARTED)));
}

#[test]
fn close_req_ends_both_directions() {
    let mut played = Played::established(Role::Consumer);
    let id = played.call(b"q", false);
    let stream = played.opened();
    let (bytes, _) = played.read(stream);
    let conn = ConnKey(bytes[1..17].try_into().unwrap());
    played.frames();
    played.send(&Frame::CloseReq { conn, code: StreamCode::PEER_ABORTED });
    assert_eq!(played.frame(), Frame::CloseAck { conn });
    assert_eq!(played.flow(id).end, Some(End::Reset(StreamCode::PEER_ABORTED)));
    assert_eq!(
        played.refused(stream),
        (Some(StreamCode::PEER_ABORTED), ReadOutcome::Reset(StreamCode::PEER_ABORTED.0))
    );
    // One that it does not know any more is answered, too.
    played.send(&Frame::CloseReq { conn, code: StreamCode(0) });
    assert_eq!(played.frame(), Frame::CloseAck { conn });
    // And what it ends itself is said in the same way.
    let id = played.call(b"q", false);
    let stream = played.opened();
    let (bytes, _) = played.read(stream);
    let conn = ConnKey(bytes[1..17].try_into().unwrap());
    let (now, peer) = (played.world.now, played.peer);
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    played.run();
    assert_eq!(played.frame(), Frame::CloseReq { conn, code: StreamCode::PEER_ABORTED });
    assert_eq!(
        played.refused(stream),
        (Some(StreamCode::PEER_ABORTED), ReadOutcome::Reset(StreamCode::PEER_ABORTED.0))
    );
    assert_eq!(played.flow(id).end, Some(End::Clean));
}

#[test]
fn the_orderly_close_of_a_hub() {
    let mut played = Played::established(Role::Provider);
    let stream = played.open(&connect(1));
    let id = played.caller();
    played.send(&Frame::CloseReq { conn: ConnKey([1; 16]), code: StreamCode(0) });
    assert_eq!(played.frame(), Frame::CloseAck { conn: ConnKey([1; 16]) });
    assert_eq!(played.flow(id).stopped, Some(StreamCode::OK));
    assert_eq!(played.read(stream).1, ReadOutcome::Finished);
    played.finish(stream);
    assert_eq!(played.flow(id).end, Some(End::Clean));
}

#[test]
fn a_refused_session_is_closed_with_its_code() {
    let (mut played, _) = Played::asked(Role::Consumer);
    let text = "not you \"\n".to_owned();
    played.send(&Frame::SessionReject { code: SessionCode::NOT_ENTITLED, retry_after_ms: 700, text });
    played.assert_closed(SessionCode::NOT_ENTITLED);
    let notices = played.notices();
    let [Notice::SessionWaiting { reason, retry_ms, .. }] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!(reason, r#"the hub refused the session with code 0x15 (not you "\n)"#);
    assert_eq!(*retry_ms, 700);
    let mut played = Played::established(Role::Consumer);
    played.send(&Frame::SessionClose { code: SessionCode::HUB_REMOVED, text: "gone".to_owned() });
    played.assert_closed(SessionCode::HUB_REMOVED);
    assert!(matches!(played.notices()[..], [Notice::SessionWaiting { .. }]));
}

#[test]
fn violations_close_the_session() {
    let conn = ConnKey([1; 16]);
    for (role, frame) in [
        (Role::Consumer, ack(1)),
        (Role::Consumer, Frame::SetWeightAck { weight: 1, streams: 0 }),
        (Role::Provider, Frame::ProviderStopped),
        (Role::Provider, Frame::Connected { conn, flags: Flags::NONE }),
        (Role::Consumer, Frame::SetWeight { weight: 1 }),
        (Role::Provider, Frame::Drained),
        (Role::Consumer, Frame::ProviderStart),
        (Role::Consumer, Frame::PauseAck { conn }),
    ] {
        let mut played = Played::established(role);
        played.send(&frame);
        played.assert_closed(SessionCode::MALFORMED);
        assert!(matches!(played.notices()[..], [Notice::SessionWaiting { .. }]), "{frame:?}");
    }
    // Before SESSION_ACK.
    for frame in [
        Frame::SessionState { state: 0 },
        Frame::CloseReq { conn, code: StreamCode(0) },
        Frame::DataAck(vec![AckEntry { conn, received: 1, flags: Flags::NONE }]),
    ] {
        let (mut played, _) = Played::asked(Role::Consumer);
        played.send(&frame);
        played.assert_closed(SessionCode::MALFORMED);
    }
    // Bytes that are no frame.
    let mut played = Played::established(Role::Consumer);
    let stream = played.control.as_ref().unwrap().stream();
    played.write(stream, &[0x21, 0x80, 0x00, 0x40, 0x01]);
    played.assert_closed(SessionCode::MALFORMED);
    // The end of the control stream, either way.
    let mut played = Played::established(Role::Consumer);
    played.finish(stream);
    played.assert_closed(SessionCode::CONTROL_LOST);
    let mut played = Played::established(Role::Consumer);
    let session = played.session;
    played.quic().stop(session, stream, 0);
    played.run();
    played.assert_closed(SessionCode::CONTROL_LOST);
    // What is for later, or even unknown, is ignored.
    let mut played = Played::established(Role::Consumer);
    played.send(&Frame::PauseReq { conn });
    played.send(&Frame::DataAck(vec![AckEntry { conn, received: 1, flags: Flags::NONE }]));
    played.write(stream, &[0x3e, 0x00]);
    assert_eq!(played.closed(), None);
}

#[test]
fn no_answer_is_told_as_such() {
    let (mut played, _) = Played::asked(Role::Consumer);
    played.wait(Duration::from_secs(10));
    played.assert_closed(SessionCode::OPEN_TIMEOUT);
    let notices = played.notices();
    let [Notice::SessionWaiting { reason, .. }] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!(reason, "the hub does not answer SESSION_OPEN");

    let mut world = World::new();
    let consumer = world.consumer(&[address(HUB)]);
    world.wait(Duration::from_secs(21));
    let notices = &world.peer(consumer).notices;
    let [Notice::SessionWaiting { reason, .. }] = &notices[..] else { panic!("{notices:?}") };
    assert!(reason == "the hub does not answer" || reason == "the peer has been silent for too long", "{reason}");
}

#[test]
fn standby_takes_no_new_connections() {
    let mut played = Played::established(Role::Consumer);
    played.send(&Frame::SessionState { state: 1 });
    let id = played.call(b"x", false);
    assert!(played.take(|event| matches!(event, Event::StreamOpened(_)).then_some(())).is_none());
    played.send(&Frame::SessionState { state: 0 });
    played.opened();
    assert_eq!(played.flow(id).end, None);
}

#[test]
fn no_more_connections_than_the_hub_allows() {
    let (mut played, _) = Played::asked(Role::Consumer);
    played.send(&ack(2));
    let ids = [played.call(b"1", false), played.call(b"2", false), played.call(b"3", false)];
    let first = played.opened();
    played.opened();
    assert!(played.take(|event| matches!(event, Event::StreamOpened(_)).then_some(())).is_none());
    played.cut(first, StreamCode::PEER_ABORTED);
    let third = played.opened();
    assert_eq!(played.read(third).0[18..], *b"3");
    assert_eq!(played.flow(ids[2]).end, None);
}

#[test]
fn a_hub_that_reads_nothing_is_read_no_further() {
    let mut played = Played::established(Role::Consumer);
    // Each is answered by a CLOSE_ACK that is not read here.
    let all = 200_000;
    let control = played.control.as_mut().unwrap();
    for n in 0..all as u32 {
        let mut conn = ConnKey([0; 16]);
        conn.0[..4].copy_from_slice(&n.to_be_bytes());
        control.send(&Frame::CloseReq { conn, code: StreamCode(0) });
    }
    for _ in 0..20 {
        played.flush();
    }
    assert!(played.control.as_ref().unwrap().backlog() > 1_000_000, "it took nearly all");
    // When it is read, everything goes on.
    let mut answers = 0;
    for _ in 0..200 {
        answers += played.frames().len();
        played.flush();
    }
    assert_eq!(answers, all);
}

#[test]
fn legacy_consumer() {
    let mut played = Played::legacy(Role::Consumer);
    let id = played.call(b"raw", true);
    let stream = played.opened();
    assert_eq!(stream.index(), 0, "there is no control stream");
    assert_eq!(played.read(stream), (b"raw".to_vec(), ReadOutcome::Finished));
    assert_eq!(played.datagrams(), ["request_provider_start"]);
    played.write(stream, b"answer");
    played.finish(stream);
    played.assert_answered(id, b"answer");
    played.call(b"raw", true);
    assert_eq!(played.datagrams(), [""; 0]);
    played.datagram(b"notify_provider_stopped");
    played.call(b"raw", true);
    assert_eq!(played.datagrams(), ["request_provider_start"]);
}

#[test]
fn legacy_words_are_obeyed_exactly() {
    let mut played = Played::legacy(Role::Consumer);
    let opened = |played: &mut Played| played.take(|event| matches!(event, Event::StreamOpened(_)).then_some(()));
    for text in [&b"notify_standby "[..], b"NOTIFY_STANDBY", b"whatever", b""] {
        played.datagram(text);
        played.call(b"x", false);
        assert!(opened(&mut played).is_some(), "{text:?}");
    }
    played.datagram(b"notify_standby");
    played.call(b"x", false);
    assert!(opened(&mut played).is_none());
    played.datagram(b"notify_active");
    assert!(opened(&mut played).is_some());
    // On sc02 there are no words.
    let mut played = Played::established(Role::Consumer);
    played.datagram(b"notify_standby");
    played.call(b"x", false);
    assert!(opened(&mut played).is_some());
}

#[test]
fn legacy_empty_end_is_a_failure() {
    let mut played = Played::legacy(Role::Consumer);
    let id = played.call(b"request", true);
    let stream = played.opened();
    played.finish(stream);
    assert_eq!(played.flow(id).end, Some(End::Reset(StreamCode::PARTNER_LOST)));
    assert!(!played.flow(id).finished, "it was not shown as a clean end");
    // With nothing sent it is safe to try once more.
    let id = played.call(b"", true);
    let stream = played.opened();
    played.finish(stream);
    assert_eq!(played.flow(id).end, None);
    let stream = played.opened();
    played.write(stream, b"here");
    played.finish(stream);
    played.assert_answered(id, b"here");
}

#[test]
fn legacy_provider_is_called_by_the_stream_itself() {
    let mut played = Played::legacy(Role::Provider);
    let stream = played.open(b"first");
    let id = played.caller();
    assert_eq!(played.flow(id).got, b"first");
    let peer = played.peer;
    played.world.say(peer, id, b"second", true);
    played.run();
    assert_eq!(played.read(stream), (b"second".to_vec(), ReadOutcome::Finished));
    played.finish(stream);
    assert_eq!(played.flow(id).end, Some(End::Clean));
    // A dial that failed.
    played.world.peer(peer).reads_nothing = true;
    let stream = played.open(b"first");
    let (now, id) = (played.world.now, played.caller());
    played.world.peer(peer).endpoint.reset(now, id, StreamCode::PEER_ABORTED);
    played.run();
    assert_eq!(played.refused(stream), (Some(StreamCode::DIAL_FAILED), ReadOutcome::Reset(StreamCode::DIAL_FAILED.0)));
}

#[test]
fn legacy_shutdown_by_the_hub() {
    let mut played = Played::legacy(Role::Provider);
    let stream = played.open(b"work");
    let id = played.caller();
    played.datagram(b"notify_shutdown");
    assert_eq!(played.datagrams(), ["notify_shutdown"]);
    let peer = played.peer;
    played.world.say(peer, id, b"done", true);
    played.finish(stream);
    assert_eq!(played.flow(id).end, Some(End::Clean));
    played.assert_closed(SessionCode::OK);
    assert!(
        matches!(&played.notices()[..], [.., Notice::SessionEnded { reason, .. }] if reason == "the hub is shutting down")
    );
}

#[test]
fn legacy_retirement_says_so_before_it_closes() {
    for role in [Role::Provider, Role::Consumer] {
        let mut played = Played::legacy(role);
        let (now, peer) = (played.world.now, played.peer);
        played.world.peer(peer).endpoint.close(now);
        played.wait(Duration::from_millis(99));
        assert_eq!(played.datagrams(), ["notify_shutdown"]);
        assert_eq!(played.closed(), None);
        played.wait(Duration::from_millis(1));
        played.assert_closed(SessionCode::OK);
        assert_eq!(played.notices().last(), Some(&Notice::Closed));
    }
}

#[test]
fn a_legacy_refusal_after_the_handshake_backs_off() {
    let mut played = Played::legacy(Role::Consumer);
    let mut delays = Vec::new();
    for _ in 0..5 {
        let (now, session) = (played.world.now, played.session);
        played.quic().close(now, session, 2, "Unsupported client role");
        played.run();
        let waiting = played.notices().into_iter().find_map(|notice| match notice {
            Notice::SessionWaiting { reason, retry_ms, .. } => Some((reason, retry_ms)),
            _ => None,
        });
        let (reason, retry_ms) = waiting.expect("a notice");
        assert_eq!(reason, "closed by the peer with code 0x2 (Unsupported client role)");
        delays.push(retry_ms);
        // The next session is up, and is refused at once.
        played.world.wait(Duration::from_millis(retry_ms));
        while let Some((handle, _)) = played.world.played(played.hub).poll_event() {
            played.session = handle;
        }
    }
    assert!(delays.windows(2).all(|pair| pair[0] < pair[1]), "{delays:?}");
}

#[test]
fn a_stream_of_sc01_is_a_call_from_its_first_own_byte_or_its_end() {
    let mut played = Played::legacy(Role::Provider);
    let session = played.session;
    let streams: Vec<_> = (0..3).map(|_| played.quic().open(session).unwrap()).collect();
    played.write(streams[2], b"x");
    let peer = played.peer;
    assert_eq!(played.world.peer(peer).flows.len(), 1, "the lower ones are open, and no more");
    assert_eq!(played.world.peer(peer).endpoint.connections(), 1);
    played.write(streams[0], b"y");
    played.finish(streams[1]);
    let mut got: Vec<_> =
        played.world.peer(peer).flows.values().map(|flow| (flow.got.clone(), flow.finished)).collect();
    got.sort();
    assert_eq!(got, [(vec![], true), (b"x".to_vec(), false), (b"y".to_vec(), false)]);
}

#[test]
fn what_the_hub_has_opened_before_it_acknowledged_the_weight_is_served() {
    for resumable in [false, true] {
        for ends in [false, true] {
            let mut played =
                if resumable { Played::resumable(Role::Provider) } else { Played::established(Role::Provider) };
            let (now, peer) = (played.world.now, played.peer);
            let endpoint = &mut played.world.peer(peer).endpoint;
            if ends {
                endpoint.close(now)
            } else {
                endpoint.set_weight(now, 0)
            }
            played.run();
            assert_eq!(played.frames(), [Frame::SetWeight { weight: 0 }]);
            // It overtakes two streams, of which the later one comes first, and the other one without its preamble at first.
            played.send(&Frame::SetWeightAck { weight: 0, streams: 2 });
            assert_eq!(played.frames(), []);
            let (session, connect) =
                (played.session, |n| Preamble::Connect { conn: ConnKey([n; 16]), flags: Flags::NONE });
            let first = played.quic().open(session).unwrap();
            let second = played.open(&connect(2).to_bytes());
            let served = played.caller();
            played.finish(second);
            played.world.say(peer, served, b"", true);
            played.run();
            assert_eq!(played.read(second).1, ReadOutcome::Finished);
            assert_eq!(played.frames(), []);
            played.write(first, &[&connect(1).to_bytes()[..], b"late"].concat());
            played.run();
            let late = played.caller();
            assert_eq!(played.flow(late).got, b"late");
            assert_eq!(played.frames(), []);
            played.finish(first);
            played.world.say(peer, late, b"served", true);
            played.run();
            assert_eq!(played.read(first), (b"served".to_vec(), ReadOutcome::Finished));
            let close = Frame::SessionClose { code: SessionCode(0), text: SessionCode::OK.text().to_owned() };
            assert_eq!(played.frames(), [Frame::Drained, close], "resumable: {resumable}, ends: {ends}");
        }
    }
}

#[test]
fn an_idle_provider_leaves_its_hub_in_peace() {
    let mut played = Played::resumable(Role::Provider);
    let datagrams = |played: &mut Played, seconds| {
        let session = played.session;
        let before = played.quic().received_datagrams(session);
        played.wait(Duration::from_secs(seconds));
        played.quic().received_datagrams(session) - before
    };
    // For some time, a consumer may look for it.
    let (fresh, _) = (datagrams(&mut played, 9), datagrams(&mut played, 2));
    let idle = datagrams(&mut played, 60);
    let stream = played.open(&Preamble::Connect { conn: ConnKey([7; 16]), flags: Flags(1) }.to_bytes());
    let used = datagrams(&mut played, 60);
    let (id, peer) = (played.caller(), played.peer);
    played.finish(stream);
    played.world.say(peer, id, b"", true);
    played.run();
    played.send(&Frame::DataAck(vec![AckEntry { conn: ConnKey([7; 16]), received: 0, flags: Flags(2) }]));
    let (after, _) = (datagrams(&mut played, 9), datagrams(&mut played, 2));
    let again = datagrams(&mut played, 60);
    assert!(fresh >= 8 && after >= 8 && used >= 55, "in use: {fresh}, {after} in 9 s, {used} in 60 s");
    assert!(idle <= 30 && again <= 30, "idle: {idle}, {again} in 60 s");
}
