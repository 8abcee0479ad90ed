//! Two adaptors, joined by transports that cut the bytes as they like.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    epoch::Epoch,
    net::{Close, Event},
    testing::{
        first_instant,
        pki::{Ca, UNIX},
    },
    tls::{Clock, Identity},
};

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// An inner binding that does what a test wants, and remembers what it learns.
#[derive(Debug, Default)]
struct Inner {
    is_full: bool,
    table: Table<ConnId, ()>,
    events: Vec<Event>,
    commands: VecDeque<Command>,
    incoming: Vec<ConnId>,
}

impl StreamBinding for Inner {
    type Notice = std::convert::Infallible;

    fn wants_accept(&self) -> bool {
        !self.is_full
    }
    fn handle_incoming(&mut self, _now: Instant, _peer: SocketAddr) -> ConnId {
        assert!(!self.is_full);
        let conn = self.table.insert(());
        self.incoming.push(conn);
        conn
    }
    fn handle_accept_failed(&mut self, _now: Instant, _fault: AcceptFault) {}
    fn handle_event(&mut self, _now: Instant, conn: ConnId, event: Event) {
        assert!(self.table.contains(conn), "{event:?} for a connection that was closed");
        self.events.push(event);
    }
    fn handle_timeout(&mut self, _now: Instant) {}
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
    fn poll_notice(&mut self) -> Option<Self::Notice> {
        None
    }
}

/// One end of a transport.
#[derive(Debug, Default)]
struct Pipe {
    conn: Option<ConnId>,
    /// Bytes for this end.
    wire: BytesMut,
    has_ended: bool,
    read: Option<usize>,
    /// How this end was closed.
    closed: Option<Close>,
}

struct World {
    now: Instant,
    ends: [Tls<Inner>; 2],
    pipes: [Pipe; 2],
    /// The sizes of the pieces that arrive, in turn.
    pieces: Vec<usize>,
    nth: usize,
    notices: [Vec<Notice<std::convert::Infallible>>; 2],
}

fn identity((certificate, key): (String, String)) -> Identity {
    Identity::from_pem(&certificate, &key).unwrap()
}

fn clock() -> Clock {
    Clock::new(Epoch { instant: first_instant(), unix: UNIX })
}

/// A client that shows a certificate of `ca` if it has one, and a server that demands one of `ca`.
fn configs(ca: &Ca, client: Option<&Ca>) -> [Config; 2] {
    let shown = client.map(|ca| identity(ca.client("agent")));
    let client = ClientConfig::new(shown.as_ref(), &ca.roots(), &[], &clock()).unwrap();
    let server = ServerConfig::new(&identity(ca.server()), Some(&ca.roots()), &[], &clock()).unwrap();
    [Config { client: Some(client), ..Config::default() }, Config { server: Some(server), ..Config::default() }]
}

impl World {
    fn new([client, server]: [Config; 2], pieces: Vec<usize>) -> Self {
        let now = first_instant();
        Self {
            now,
            ends: [Tls::new(now, Inner::default(), client), Tls::new(now, Inner::default(), server)],
            pipes: [Pipe::default(), Pipe::default()],
            pieces,
            nth: 0,
            notices: [Vec::new(), Vec::new()],
        }
    }

    /// The client opens a connection to `localhost`; returns its number.
    fn dial(&mut self) -> ConnId {
        let client = self.ends[CLIENT].inner_mut(self.now);
        let conn = client.table.insert(());
        client.commands.push_back(Command::Resolve { conn, name: "localhost".into() });
        self.run();
        let connect = Command::Connect { conn, address: ([127, 0, 0, 1], 7).into() };
        self.order(CLIENT, connect);
        conn
    }

    /// An inner binding wants something.
    fn order(&mut self, end: usize, command: Command) {
        let inner = self.ends[end].inner_mut(self.now);
        if let Command::Close { conn, .. } = command {
            inner.table.remove(conn).unwrap();
        }
        inner.commands.push_back(command);
        self.run();
    }

    fn piece(&mut self) -> usize {
        self.nth += 1;
        self.pieces[self.nth % self.pieces.len()].max(1)
    }

    /// Carries everything until nothing moves.
    fn run(&mut self) {
        loop {
            let mut has_moved = false;
            for end in [CLIENT, SERVER] {
                while let Some(command) = self.ends[end].poll_command() {
                    has_moved = true;
                    self.perform(end, command);
                }
                while let Some(notice) = self.ends[end].poll_notice() {
                    self.notices[end].push(notice);
                }
                has_moved |= self.deliver(end);
            }
            if !has_moved {
                return;
            }
        }
    }

    fn perform(&mut self, end: usize, command: Command) {
        match command {
            Command::Resolve { conn, .. } => {
                let addresses = vec![[127, 0, 0, 1].into()];
                self.ends[end].handle_event(self.now, conn, Event::Resolved { addresses });
            }
            Command::Connect { conn, .. } => {
                self.pipes[end].conn = Some(conn);
                if self.ends[1 - end].wants_accept() {
                    let other = self.ends[1 - end].handle_incoming(self.now, ([127, 0, 0, 1], 1000).into());
                    self.pipes[1 - end].conn = Some(other);
                }
                self.ends[end].handle_event(self.now, conn, Event::Connected);
            }
            Command::Read { conn, max } => {
                assert_eq!((self.pipes[end].conn, self.pipes[end].read), (Some(conn), None), "one read at a time");
                self.pipes[end].read = Some(max);
            }
            Command::Write { conn, bytes } => {
                assert_eq!(self.pipes[end].conn, Some(conn));
                self.pipes[1 - end].wire.extend_from_slice(&bytes);
                let len = bytes.len() as u64;
                self.ends[end].handle_event(self.now, conn, Event::Sent { len });
            }
            Command::Close { conn, how, .. } => {
                assert_eq!((self.pipes[end].conn.take(), self.pipes[end].closed), (Some(conn), None));
                self.pipes[end].closed = Some(how);
                self.pipes[1 - end].has_ended = true;
            }
            Command::StopListening | Command::Stop => {}
        }
    }

    fn deliver(&mut self, end: usize) -> bool {
        let (Some(conn), Some(max)) = (self.pipes[end].conn, self.pipes[end].read) else { return false };
        let piece = self.piece();
        let pipe = &mut self.pipes[end];
        let event = if !pipe.wire.is_empty() {
            let length = max.min(piece).min(pipe.wire.len());
            Event::Data { bytes: pipe.wire.split_to(length).freeze() }
        } else if pipe.has_ended {
            match self.pipes[1 - end].closed {
                Some(Close::Abort) => Event::Error { fault: Fault::Reset },
                Some(Close::Fin) | None => Event::End,
            }
        } else {
            return false;
        };
        self.pipes[end].read = None;
        self.ends[end].handle_event(self.now, conn, event);
        true
    }

    fn take_events(&mut self, end: usize) -> Vec<Event> {
        std::mem::take(&mut self.ends[end].inner_mut(self.now).events)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in [CLIENT, SERVER] {
            self.ends[end].handle_timeout(self.now);
        }
        self.run();
    }

    fn failures(&self, end: usize) -> Vec<(Fault, &str)> {
        let failure = |notice: &'_ Notice<_>| matches!(notice, Notice::Failed(_));
        let failed = self.notices[end].iter().filter(|notice| failure(notice));
        failed
            .filter_map(|notice| {
                if let Notice::Failed(failure) = notice { Some((failure.fault, &*failure.detail)) } else { None }
            })
            .collect()
    }
}

/// Sends `bytes` from one end to the other in writes of `write` and reads of `read` bytes.
fn carry(
    world: &mut World,
    (from, conn): (usize, ConnId),
    (to, other): (usize, ConnId),
    bytes: &Bytes,
    write: usize,
    read: usize,
) {
    let (mut left, mut got) = (bytes.clone(), BytesMut::new());
    let mut is_writing = false;
    world.take_events(from);
    world.take_events(to);
    world.order(to, Command::Read { conn: other, max: read });
    while got.len() < bytes.len() {
        if !is_writing && !left.is_empty() {
            is_writing = true;
            let part = left.split_to(write.min(left.len()));
            world.order(from, Command::Write { conn, bytes: part });
        }
        for event in world.take_events(from) {
            assert!(matches!(event, Event::Sent { .. }), "{event:?}");
            is_writing = false;
        }
        for event in world.take_events(to) {
            let Event::Data { bytes: part } = event else { panic!("{event:?}") };
            assert!(!part.is_empty() && part.len() <= read);
            got.extend_from_slice(&part);
            if got.len() < bytes.len() {
                world.order(to, Command::Read { conn: other, max: read });
            }
        }
    }
    assert!(got == bytes, "other bytes");
}

/// A world with an open connection, and its numbers.
fn open(ca: &Ca, pieces: Vec<usize>) -> (World, ConnId, ConnId) {
    let mut world = World::new(configs(ca, Some(ca)), pieces);
    let conn = world.dial();
    let events = world.take_events(CLIENT);
    assert!(matches!(&events[..], [Event::Resolved { .. }, Event::Connected]), "{events:?}");
    let other = world.ends[SERVER].inner().incoming[0];
    (world, conn, other)
}

#[test]
fn both_ends_learn_who_the_other_is_and_bytes_arrive() {
    let ca = Ca::new("authority");
    let (mut world, conn, other) = open(&ca, vec![5, 1, 1000]);
    let peer = |notices: &[Notice<_>]| match notices {
        [Notice::Secured { peer: Some(peer), .. }] => peer.common_name.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((peer(&world.notices[CLIENT]), peer(&world.notices[SERVER])), ("hub".to_owned(), "agent".to_owned()));
    let bytes: Bytes = (0..100_000u32).map(|nth| (nth % 251) as u8).collect();
    carry(&mut world, (CLIENT, conn), (SERVER, other), &bytes, 33_333, 1000);
    carry(&mut world, (SERVER, other), (CLIENT, conn), &bytes, 100_000, 100_000);
    // An end in good order.
    world.order(CLIENT, Command::Read { conn, max: 10 });
    world.order(SERVER, Command::Close { conn: other, how: Close::Fin, unread: 9 });
    assert_eq!(world.take_events(CLIENT), [Event::End]);
    assert_eq!((world.pipes[SERVER].closed, world.pipes[CLIENT].closed), (Some(Close::Fin), None));
    world.order(CLIENT, Command::Close { conn, how: Close::Fin, unread: 0 });
    assert_eq!(world.pipes[CLIENT].closed, Some(Close::Fin));
    assert!(world.failures(CLIENT).is_empty() && world.failures(SERVER).is_empty());
    assert!(world.ends.iter().all(|end| end.conns.is_empty() && end.wires.is_empty() && end.handshakes.is_empty()));
}

#[test]
fn a_transport_that_is_cut_is_an_error_and_what_came_before_is_delivered() {
    let ca = Ca::new("authority");
    let (mut world, conn, other) = open(&ca, vec![100_000]);
    world.order(SERVER, Command::Write { conn: other, bytes: "last words".into() });
    world.pipes[CLIENT].has_ended = true; // no close_notify
    world.order(CLIENT, Command::Read { conn, max: 100 });
    assert_eq!(world.take_events(CLIENT), [Event::Data { bytes: "last words".into() }]);
    world.order(CLIENT, Command::Read { conn, max: 100 });
    assert_eq!(world.take_events(CLIENT), [Event::Error { fault: Fault::Reset }]);
    assert_eq!(world.failures(CLIENT), [(Fault::Reset, "the connection ended without close_notify")]);
}

#[test]
fn a_changed_byte_is_an_error_after_what_came_before() {
    let ca = Ca::new("authority");
    let (mut world, conn, other) = open(&ca, vec![100_000]);
    world.order(SERVER, Command::Write { conn: other, bytes: "good".into() });
    world.order(SERVER, Command::Write { conn: other, bytes: "bad".into() });
    *world.pipes[CLIENT].wire.last_mut().unwrap() ^= 1;
    world.order(CLIENT, Command::Read { conn, max: 2 });
    world.order(CLIENT, Command::Read { conn, max: 2 });
    world.order(CLIENT, Command::Read { conn, max: 2 });
    let data = |bytes: &'static str| Event::Data { bytes: bytes.into() };
    assert_eq!(world.take_events(CLIENT), [data("go"), data("od"), Event::Error { fault: Fault::Tls }]);
    // The peer learns why.
    world.order(SERVER, Command::Read { conn: other, max: 2 });
    assert_eq!(world.take_events(SERVER)[2..], [Event::Error { fault: Fault::Tls }]);
    assert!(world.failures(SERVER)[0].1.contains("BadRecordMac"), "{:?}", world.failures(SERVER));
}

#[test]
fn peers_that_cannot_be_trusted_are_refused_on_both_sides() {
    let (ca, other) = (Ca::new("authority"), Ca::new("another"));
    // The server demands a certificate: none, and one of another authority. TLS 1.3 tells the client only afterwards (RFC 8446 §4.4.2.4).
    for shown in [None, Some(&other)] {
        let mut world = World::new(configs(&ca, shown), vec![100]);
        let conn = world.dial();
        assert!(world.ends[SERVER].inner().incoming.is_empty());
        assert_eq!(world.failures(SERVER)[0].0, Fault::Tls);
        assert_eq!(world.pipes[SERVER].closed, Some(Close::Fin), "after the alert");
        if matches!(world.take_events(CLIENT).last(), Some(Event::Connected)) {
            world.order(CLIENT, Command::Read { conn, max: 1 });
            assert_eq!(world.take_events(CLIENT), [Event::Error { fault: Fault::Tls }]);
        }
        assert_eq!(world.failures(CLIENT).len(), 1);
    }
    // The client demands a server of its own authority.
    let [client, _] = configs(&other, Some(&ca));
    let [_, server] = configs(&ca, Some(&ca));
    let mut world = World::new([client, server], vec![100]);
    let conn = world.dial();
    assert_eq!(world.take_events(CLIENT)[1..], [Event::ConnectFailed { fault: Fault::Tls }]);
    assert!(world.failures(CLIENT)[0].1.contains("UnknownIssuer"), "{:?}", world.failures(CLIENT));
    world.order(CLIENT, Command::Close { conn, how: Close::Abort, unread: 0 });
    assert_eq!(world.failures(SERVER)[0].0, Fault::Tls);
    assert!(world.ends.iter().all(|end| end.conns.is_empty()));
}

#[test]
fn the_servers_certificate_must_be_valid_for_the_name_or_the_address() {
    let ca = Ca::new("authority");
    let mut world = World::new(configs(&ca, Some(&ca)), vec![100]);
    let client = world.ends[CLIENT].inner_mut(world.now);
    let conn = client.table.insert(());
    world.order(CLIENT, Command::Connect { conn, address: ([127, 0, 0, 1], 7).into() });
    assert_eq!(world.take_events(CLIENT), [Event::ConnectFailed { fault: Fault::Tls }]);
    assert!(world.failures(CLIENT)[0].1.contains("not valid for name"), "{:?}", world.failures(CLIENT));
}

#[test]
fn a_handshake_has_its_time_and_newcomers_do_not_wait_for_it() {
    let ca = Ca::new("authority");
    let [_, mut server] = configs(&ca, Some(&ca));
    server.max_handshakes = 2;
    let now = first_instant();
    let mut tls = Tls::new(now, Inner::default(), server);
    let remote = ([127, 0, 0, 1], 1000).into();
    let conns: Vec<_> = (0..3).map(|_| tls.handle_incoming(now, remote)).collect();
    let closed = |tls: &mut Tls<Inner>| -> Vec<ConnId> {
        std::iter::from_fn(|| tls.poll_command())
            .filter_map(|command| if let Command::Close { conn, .. } = command { Some(conn) } else { None })
            .collect()
    };
    assert_eq!(closed(&mut tls), conns[..1], "the oldest gives way");
    tls.handle_timeout(now + Duration::from_secs(9));
    assert!(closed(&mut tls).is_empty());
    tls.handle_timeout(tls.poll_timeout().unwrap());
    assert_eq!(closed(&mut tls), conns[1..]);
    let faults: Vec<_> = std::iter::from_fn(|| tls.poll_notice())
        .map(|notice| if let Notice::Failed(failure) = notice { failure.fault } else { panic!("{notice:?}") })
        .collect();
    assert_eq!(faults, [Fault::TimedOut; 3]);
    assert!(tls.conns.is_empty() && tls.handshakes.is_empty());
}

#[test]
fn the_inner_binding_takes_a_connection_when_it_wants() {
    let ca = Ca::new("authority");
    let mut world = World::new(configs(&ca, Some(&ca)), vec![100]);
    // It wants one when the handshake begins, and none when that is over.
    let client = world.ends[CLIENT].inner_mut(world.now);
    let conn = client.table.insert(());
    client.commands.push_back(Command::Resolve { conn, name: "localhost".into() });
    client.commands.push_back(Command::Connect { conn, address: ([127, 0, 0, 1], 7).into() });
    while let Some(command) = world.ends[CLIENT].poll_command() {
        world.perform(CLIENT, command);
    }
    world.ends[SERVER].inner_mut(world.now).is_full = true;
    world.run();
    assert!(world.ends[SERVER].inner().incoming.is_empty() && !world.ends[SERVER].wants_accept());
    assert_eq!(world.ends[SERVER].offered.len(), 1);
    world.ends[SERVER].inner_mut(world.now).is_full = false;
    world.run();
    assert_eq!(world.ends[SERVER].inner().incoming.len(), 1);
}

#[test]
fn the_end_of_all_waits_for_the_last_bytes() {
    let ca = Ca::new("authority");
    let (mut world, conn, other) = open(&ca, vec![100]);
    let server = world.ends[SERVER].inner_mut(world.now);
    server.table.remove(other).unwrap();
    server.commands.push_back(Command::Write { conn: other, bytes: "bye".into() });
    server.commands.push_back(Command::Close { conn: other, how: Close::Fin, unread: 0 });
    server.commands.push_back(Command::Stop);
    let first = world.ends[SERVER].poll_command();
    let Some(Command::Write { conn: wire, bytes }) = first else { panic!("{first:?}") };
    assert_eq!(world.ends[SERVER].poll_command(), None, "the transport has not taken it");
    world.pipes[CLIENT].wire.extend_from_slice(&bytes);
    let len = bytes.len() as u64;
    world.ends[SERVER].handle_event(world.now, wire, Event::Sent { len });
    let rest: Vec<_> = std::iter::from_fn(|| world.ends[SERVER].poll_command()).collect();
    assert!(matches!(&rest[..], [Command::Close { how: Close::Fin, .. }, Command::Stop]), "{rest:?}");
    world.order(CLIENT, Command::Read { conn, max: 10 });
    world.order(CLIENT, Command::Read { conn, max: 10 });
    assert_eq!(world.take_events(CLIENT), [Event::Data { bytes: "bye".into() }, Event::End]);
}

#[test]
fn last_bytes_that_nobody_takes_are_given_up() {
    let ca = Ca::new("authority");
    let (mut world, _, other) = open(&ca, vec![100]);
    let server = world.ends[SERVER].inner_mut(world.now);
    server.table.remove(other).unwrap();
    server.commands.push_back(Command::Close { conn: other, how: Close::Fin, unread: 0 });
    assert!(matches!(world.ends[SERVER].poll_command(), Some(Command::Write { .. })));
    let due = world.ends[SERVER].poll_timeout().unwrap();
    assert_eq!(due, world.now + Duration::from_secs(2));
    world.ends[SERVER].handle_timeout(due);
    let close = world.ends[SERVER].poll_command();
    assert!(matches!(close, Some(Command::Close { how: Close::Abort, .. })), "{close:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bytes_arrive_however_they_are_cut(
        pieces in prop::collection::vec(1usize..3000, 1..8),
        length in 1usize..60_000,
        write in 1usize..70_000,
        read in 1usize..70_000,
    ) {
        let ca = Ca::new("authority");
        let (mut world, conn, other) = open(&ca, pieces);
        let bytes: Bytes = (0..length).map(|nth| (nth * 7 % 253) as u8).collect();
        let (write, read) = (write.max(length / 50 + 1), read.max(length / 50 + 1));
        carry(&mut world, (CLIENT, conn), (SERVER, other), &bytes, write, read);
        carry(&mut world, (SERVER, other), (CLIENT, conn), &bytes, read, write);
        world.order(CLIENT, Command::Close { conn, how: Close::Fin, unread: 0 });
        world.order(SERVER, Command::Read { conn: other, max: 1 });
        prop_assert_eq!(world.take_events(SERVER).pop(), Some(Event::End));
    }

    #[test]
    fn no_bytes_bring_an_end_down(bytes in prop::collection::vec(any::<u8>(), 1..2000), is_after in any::<bool>()) {
        let ca = Ca::new("authority");
        let mut world = World::new(configs(&ca, Some(&ca)), vec![70]);
        if is_after {
            world.dial();
        } else {
            let conn = world.ends[SERVER].handle_incoming(world.now, ([127, 0, 0, 1], 1000).into());
            world.pipes[SERVER].conn = Some(conn);
        }
        world.pipes[SERVER].wire.extend_from_slice(&bytes);
        if is_after {
            let other = world.ends[SERVER].inner().incoming[0];
            world.order(SERVER, Command::Read { conn: other, max: 1 });
        }
        world.run();
        world.wait(Duration::from_secs(60));
        let closed = world.ends[SERVER].conns.is_empty();
        prop_assert!(closed || is_after, "a handshake of garbage is over");
    }
}
