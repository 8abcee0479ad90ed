//! Two endpoints, joined by hand.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::testing::{
    first_instant,
    pki::{self, Ca, identity},
};

const SERVER: &str = "192.0.2.1:443";
const CLIENT: &str = "192.0.2.2:999";

struct Pair {
    now: Instant,
    clock: Clock,
    ca: Ca,
    server: Endpoint,
    client: Endpoint,
    server_events: VecDeque<(Handle, Event)>,
    client_events: VecDeque<(Handle, Event)>,
    /// Largest number of segments in a send.
    segments: usize,
}

fn server_config(ca: &Ca, clock: &Clock) -> ServerConfig {
    let hub = identity(&ca.server());
    ServerConfig::new(&hub, &ca.roots(), &[b"two", b"one"], &TransportConfig::default(), clock).unwrap()
}

impl Pair {
    fn new(change: impl FnOnce(&mut EndpointConfig)) -> Self {
        let now = first_instant();
        let clock = Clock::new(Epoch { instant: now, unix: pki::UNIX });
        let ca = Ca::new("ca");
        let mut config = EndpointConfig::new([1; 32], clock.clone());
        change(&mut config);
        let server = Endpoint::new(config, Some(server_config(&ca, &clock)));
        let client = Endpoint::new(EndpointConfig::new([2; 32], clock.clone()), None);
        Self {
            now,
            clock,
            ca,
            server,
            client,
            server_events: VecDeque::new(),
            client_events: VecDeque::new(),
            segments: 0,
        }
    }

    fn dial(&mut self, alpn: &[&[u8]]) -> Handle {
        let id = identity(&self.ca.client("someone"));
        self.dial_as(&id, alpn)
    }

    fn dial_as(&mut self, id: &Identity, alpn: &[&[u8]]) -> Handle {
        let transport = TransportConfig::default();
        let seed = [3 + self.client.connections() as u8; 32];
        let config = ClientConfig::new(id, &self.ca.roots(), alpn, &transport, &self.clock, seed).unwrap();
        self.client.connect(self.now, &config, SERVER.parse().unwrap(), "localhost").unwrap()
    }

    /// Lets both talk until they fall silent.
    fn drive(&mut self) {
        loop {
            let sent = Self::carry(self.now, &mut self.client, &mut self.server, CLIENT, &mut self.segments)
                + Self::carry(self.now, &mut self.server, &mut self.client, SERVER, &mut self.segments);
            while let Some(event) = self.server.poll_event() {
                if !matches!(event.1, Event::Incoming { .. }) {
                    self.server_events.push_back(event);
                }
            }
            while let Some(event) = self.client.poll_event() {
                self.client_events.push_back(event);
            }
            if sent == 0 {
                return;
            }
        }
    }

    fn carry(now: Instant, from: &mut Endpoint, to: &mut Endpoint, source: &str, segments: &mut usize) -> usize {
        let (mut sent, mut buffer) = (0, Vec::new());
        while let Some(transmit) = from.poll_transmit(now, &mut buffer) {
            let size = transmit.segment_size.unwrap_or(buffer.len());
            *segments = (*segments).max(buffer.len().div_ceil(size));
            for data in buffer.chunks(size) {
                let remote = source.parse().unwrap();
                to.handle_datagram(
                    now,
                    Received { remote, local_ip: None, ecn: transmit.ecn, data: BytesMut::from(data) },
                );
                sent += 1;
            }
        }
        sent
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = [self.server.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            self.drive();
        }
        self.now = end;
    }

    fn connected(&mut self) -> (Handle, Handle) {
        let client = self.dial(&[b"one"]);
        self.drive();
        let server = self.server_events.front().expect("an event at the server").0;
        self.server_events.clear();
        self.client_events.clear();
        (client, server)
    }
}

#[test]
fn handshake_tells_protocol_and_peer() {
    let mut pair = Pair::new(|_| {});
    pair.dial(&[b"one", b"two"]);
    pair.drive();
    let Some((handle, Event::Connected { alpn, peer })) = pair.server_events.pop_front() else {
        panic!("not connected")
    };
    assert_eq!(alpn, b"two", "the server's order of preference");
    assert_eq!(peer.common_name.as_deref(), Some("someone"));
    assert_eq!(peer.subject, "CN=someone,O=Towline");
    assert_eq!(pair.server.id(handle).unwrap().len(), 16);
}

#[test]
fn a_connection_is_called_by_the_first_source_connection_id_of_its_server() {
    let mut pair = Pair::new(|_| {});
    pair.dial(&[b"one"]);
    Pair::carry(pair.now, &mut pair.client, &mut pair.server, CLIENT, &mut pair.segments);
    let Some((handle, Event::Incoming { .. })) = pair.server.poll_event() else { panic!("nothing came") };
    let mut first = Vec::new();
    assert!(pair.server.poll_transmit(pair.now, &mut first).is_some());
    // A long header (RFC 9000 §17.2): flags, version, then each connection id behind its length.
    let destination = usize::from(first[5]);
    let source = &first[6 + destination..];
    let source: String = source[1..][..usize::from(source[0])].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(pair.server.id(handle), Some(source.as_str()));
}

#[test]
fn refusals_name_their_cause() {
    let mut pair = Pair::new(|_| {});
    let stranger = Ca::new("another ca");
    pair.dial_as(&identity(&stranger.client("someone")), &[b"one"]);
    pair.drive();
    let closed = pair.server_events.iter().find_map(|(_, event)| match event {
        Event::Closed(CloseReason::Transport { code, text }) => Some((*code, text.clone())),
        _ => None,
    });
    let (code, text) = closed.expect("refused");
    assert_eq!(code, 0x130, "TLS alert unknown_ca");
    assert!(text.contains("UnknownIssuer"), "{text}");
    assert!(
        pair.client_events
            .iter()
            .any(|(_, event)| matches!(event, Event::Closed(CloseReason::Transport { code: 0x130, .. })))
    );
}

#[test]
fn certificates_are_judged_by_the_callers_clock() {
    let now = first_instant();
    // Certificates of rcgen's defaults end in 4096.
    let clock = Clock::new(Epoch { instant: now, unix: Duration::from_secs(70_000_000_000) });
    let ca = Ca::new("ca");
    let mut server = Endpoint::new(EndpointConfig::new([1; 32], clock.clone()), Some(server_config(&ca, &clock)));
    let mut client = Endpoint::new(EndpointConfig::new([2; 32], clock.clone()), None);
    let id = identity(&ca.client("someone"));
    let config = ClientConfig::new(&id, &ca.roots(), &[b"one"], &TransportConfig::default(), &clock, [3; 32]).unwrap();
    client.connect(now, &config, SERVER.parse().unwrap(), "localhost").unwrap();
    let mut segments = 0;
    for _ in 0..4 {
        Pair::carry(now, &mut client, &mut server, CLIENT, &mut segments);
        Pair::carry(now, &mut server, &mut client, SERVER, &mut segments);
    }
    let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
    assert!(
        matches!(&events[..], [(_, Event::Closed(CloseReason::Transport { text, .. }))] if text.contains("expired")),
        "{events:?}"
    );
}

#[test]
fn no_common_protocol() {
    let mut pair = Pair::new(|_| {});
    pair.dial(&[b"three"]);
    pair.drive();
    assert!(
        matches!(pair.client_events.pop_front(), Some((_, Event::Closed(CloseReason::Transport { code: 0x178, .. })))),
        "alert no_application_protocol"
    );
}

#[test]
fn bulk_goes_through_in_large_sends_and_is_bounded_by_the_reader() {
    let mut pair = Pair::new(|_| {});
    let (client, server) = pair.connected();
    let id = pair.client.open(client).unwrap();
    let data = Bytes::from((0..4_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let mut rest = data.clone();
    let (mut got, mut chunks, mut turns, mut finished) = (Vec::new(), Vec::new(), 0, false);
    while !finished {
        turns += 1;
        assert!(turns < 10_000, "no progress");
        while !rest.is_empty() {
            let piece = rest.clone().split_to(rest.len().min(60_000));
            let length = piece.len();
            match pair.client.write(client, id, &mut [piece]) {
                WriteOutcome::Written { bytes } => assert_eq!(bytes, length),
                WriteOutcome::Blocked { bytes, .. } => {
                    rest = rest.split_off(bytes);
                    break;
                }
                other => panic!("{other:?}"),
            }
            rest = rest.split_off(length);
            if rest.is_empty() {
                pair.client.finish(client, id);
            }
        }
        pair.drive();
        loop {
            let outcome = pair.server.read(server, id, &mut chunks, 8);
            got.extend(chunks.drain(..).flatten());
            match outcome {
                ReadOutcome::More => {}
                ReadOutcome::Blocked => break,
                ReadOutcome::Finished => {
                    finished = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        pair.wait(Duration::from_millis(10));
    }
    assert_eq!(Bytes::from(got), data);
    assert!(pair.segments > 8, "{} segments in a send", pair.segments);
    assert_eq!(pair.server.read(server, id, &mut chunks, 1), ReadOutcome::Gone);
    pair.drive();
    assert!(pair.client_events.iter().any(|(_, event)| *event == Event::Acked(id)));
}

#[test]
fn codes_pass_in_both_ways() {
    let mut pair = Pair::new(|_| {});
    let (client, server) = pair.connected();
    let id = pair.client.open(client).unwrap();
    pair.client.write(client, id, &mut [Bytes::from_static(b"x")]);
    pair.drive();
    pair.server.stop(server, id, 0x28);
    pair.server.reset(server, id, 0x20);
    pair.drive();
    assert!(pair.client_events.contains(&(client, Event::Stopped(id, 0x28))));
    assert_eq!(pair.client.write(client, id, &mut [Bytes::from_static(b"y")]), WriteOutcome::Stopped(0x28));
    assert_eq!(pair.client.read(client, id, &mut Vec::new(), 1), ReadOutcome::Reset(0x20));
}

#[test]
fn words_and_close() {
    let mut pair = Pair::new(|_| {});
    let (client, server) = pair.connected();
    pair.client.send_datagram(client, Bytes::from_static(b"notify_shutdown"));
    pair.drive();
    assert!(pair.server_events.contains(&(server, Event::Datagram(Bytes::from_static(b"notify_shutdown")))));
    let now = pair.now;
    pair.server.close(now, server, 0x15, "not \"entitled\"\n2026 a line of its own");
    pair.drive();
    let reason = r#"not "entitled"\n2026 a line of its own"#.to_owned();
    let reason = CloseReason::Peer { code: 0x15, reason };
    assert_eq!(pair.client_events.pop_back(), Some((client, Event::Closed(reason))));
    assert_eq!(pair.server_events.pop_back(), Some((server, Event::Closed(CloseReason::Local))));
    pair.wait(Duration::from_secs(5));
    assert_eq!((pair.server.connections(), pair.client.connections()), (0, 0), "both are forgotten");
    assert_eq!(pair.server.open(server), None, "an old handle is harmless");
}

#[test]
fn a_restarted_server_is_believed() {
    let key = |config: &mut EndpointConfig| config.reset_key = [9; 32];
    let mut pair = Pair::new(key);
    let (client, _) = pair.connected();
    pair.client.change_id(client);
    pair.drive();
    let mut config = EndpointConfig::new([7; 32], pair.clock.clone());
    key(&mut config);
    pair.server = Endpoint::new(config, Some(server_config(&pair.ca, &pair.clock)));
    pair.client.ping(client);
    pair.drive();
    assert_eq!(pair.client_events.pop_back(), Some((client, Event::Closed(CloseReason::Reset))));
}

#[test]
fn a_restarted_server_says_nothing_to_who_has_not_asked_for_it() {
    let key = |config: &mut EndpointConfig| config.reset_key = [9; 32];
    let mut pair = Pair::new(key);
    let (client, _) = pair.connected();
    let mut config = EndpointConfig::new([7; 32], pair.clock.clone());
    key(&mut config);
    pair.server = Endpoint::new(config, Some(server_config(&pair.ca, &pair.clock)));
    pair.client.ping(client);
    pair.wait(Duration::from_secs(10));
    assert!(pair.client_events.is_empty(), "{:?}", pair.client_events);
    pair.wait(Duration::from_secs(20));
    assert_eq!(pair.client_events.pop_back(), Some((client, Event::Closed(CloseReason::TimedOut))));
}

#[test]
fn a_silent_peer_times_out_and_an_idle_one_does_not() {
    let mut pair = Pair::new(|_| {});
    let (client, _) = pair.connected();
    pair.wait(Duration::from_secs(60));
    assert!(pair.client_events.is_empty(), "keep-alive holds it");
    pair.server.set_accepting(false);
    let end = pair.now + Duration::from_secs(30);
    let mut buffer = Vec::new();
    while let Some(due) = pair.client.poll_timeout().filter(|due| *due < end) {
        pair.client.handle_timeout(due);
        while pair.client.poll_transmit(due, &mut buffer).is_some() {}
        pair.client_events.extend(std::iter::from_fn(|| pair.client.poll_event()));
    }
    assert_eq!(pair.client_events.pop_back(), Some((client, Event::Closed(CloseReason::TimedOut))));
}

#[test]
fn retry_above_the_limit_still_connects() {
    let mut pair = Pair::new(|config| config.retry_above = 0);
    pair.connected();
    assert_eq!(pair.server.connections(), 1);
}

#[test]
fn refused_when_full_or_not_accepting() {
    let mut pair = Pair::new(|config| config.max_connections = 0);
    pair.dial(&[b"one"]);
    pair.drive();
    assert!(matches!(
        pair.client_events.pop_back(),
        Some((_, Event::Closed(CloseReason::Transport { code: 0x02, .. })))
    ));
}

#[test]
fn garbage_is_ignored() {
    let mut pair = Pair::new(|_| {});
    let (_, server) = pair.connected();
    let mut noise = 1u32;
    for length in 0..1500 {
        let data: BytesMut = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        let remote = "198.51.100.7:1".parse().unwrap();
        pair.server.handle_datagram(pair.now, Received { remote, local_ip: None, ecn: None, data });
    }
    pair.drive();
    assert_eq!(pair.server.connections(), 1);
    assert!(pair.server.open(server).is_some());
}

#[test]
fn identities_say_what_is_wrong() {
    let ca = Ca::new("ca");
    let (certificate, key) = ca.server();
    let (_, other_key) = ca.server();
    let error = |certificate: &str, key: &str| Identity::from_pem(certificate, key).unwrap_err();
    assert_eq!(error("", &key), IdentityError::NoCertificate);
    assert_eq!(error(&certificate, ""), IdentityError::NoKey);
    assert_eq!(error(&certificate, &other_key), IdentityError::Mismatch);
    assert_eq!(Roots::from_pem("hello").unwrap_err(), IdentityError::NoCertificate);
}

impl Pair {
    /// The datagrams with which a new client begins.
    fn initials(&mut self) -> Vec<BytesMut> {
        self.dial(&[b"one"]);
        let (mut datagrams, mut buffer) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.client.poll_transmit(self.now, &mut buffer) {
            datagrams.extend(buffer.chunks(transmit.segment_size.unwrap_or(buffer.len())).map(BytesMut::from));
        }
        datagrams
    }

    /// Somebody begins a handshake, and says whether the server has a state for it now; it never goes on with it.
    fn begin_from(&mut self, remote: SocketAddr) -> bool {
        let before = self.server.connections();
        for data in self.initials() {
            self.server.handle_datagram(self.now, Received { remote, local_ip: None, ecn: None, data });
        }
        let mut buffer = Vec::new();
        while self.server.poll_transmit(self.now, &mut buffer).is_some() {}
        self.server_events.extend(std::iter::from_fn(|| self.server.poll_event()));
        self.server.connections() > before
    }

    fn faults(&mut self) -> Vec<String> {
        let fault = |(_, event)| if let Event::Closed(reason) = event { Some(reason.to_string()) } else { None };
        self.server_events.drain(..).filter_map(fault).collect()
    }
}

fn stranger(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

#[test]
fn a_handshake_has_ten_seconds_whatever_comes() {
    let mut pair = Pair::new(|_| {});
    assert!(pair.begin_from(stranger(1)));
    let end = pair.now + Duration::from_millis(9_900);
    let mut buffer = Vec::new();
    // The client goes on saying the same, which keeps QUIC's idle timeout away.
    while let Some(due) =
        [pair.client.poll_timeout(), pair.server.poll_timeout()].into_iter().flatten().min().filter(|due| *due < end)
    {
        pair.now = pair.now.max(due);
        pair.client.handle_timeout(due);
        pair.server.handle_timeout(due);
        while pair.client.poll_transmit(due, &mut buffer).is_some() {
            let received =
                Received { remote: stranger(1), local_ip: None, ecn: None, data: BytesMut::from(&buffer[..]) };
            pair.server.handle_datagram(due, received);
        }
        while pair.server.poll_transmit(due, &mut buffer).is_some() {}
        pair.server_events.extend(std::iter::from_fn(|| pair.server.poll_event()));
    }
    assert_eq!(pair.server.connections(), 1, "not before");
    let due = pair.now.max(end) + Duration::from_millis(100);
    pair.server.handle_timeout(due);
    pair.server_events.extend(std::iter::from_fn(|| pair.server.poll_event()));
    assert_eq!(pair.faults(), ["the handshake has taken too long (QUIC error 0x2)"]);
    assert_eq!(pair.server.connections(), 0, "nothing is left of it");
    // A handshake that was done in time is no matter for it.
    let mut pair = Pair::new(|_| {});
    pair.connected();
    pair.wait(Duration::from_secs(30));
    assert_eq!((pair.server.connections(), pair.faults()), (1, vec![]));
}

#[test]
fn unanswered_initials_bring_about_retry_and_honest_newcomers_do_not_notice() {
    let mut pair = Pair::new(|config| config.retry_handshakes = 8);
    let (client, server) = pair.connected();
    let taken = (0..20).filter(|port| pair.begin_from(stranger(1000 + port))).count();
    assert_eq!(taken, 2, "a quarter of what there is");
    let elsewhere = (0..20u8).filter(|n| pair.begin_from(SocketAddr::from(([203, 0, 113, *n], 1)))).count();
    assert_eq!((taken + elsewhere, pair.server.take_turned_away()), (8, None), "they were asked to retry");
    pair.client_events.clear();
    let honest = pair.dial(&[b"one"]);
    pair.drive();
    assert!(
        pair.client_events.iter().any(|(handle, event)| *handle == honest && matches!(event, Event::Connected { .. }))
    );
    let id = pair.client.open(client).unwrap();
    pair.client.write(client, id, &mut [Bytes::from_static(b"x")]);
    pair.drive();
    assert!(pair.server_events.contains(&(server, Event::StreamOpened(id))), "a session goes on");
}

#[test]
fn a_full_table_of_handshakes_is_no_wall() {
    let mut pair = Pair::new(|config| {
        (config.max_handshakes, config.retry_handshakes, config.max_handshakes_per_source) = (3, 100, 2);
    });
    assert!(pair.begin_from(stranger(1)) && pair.begin_from(stranger(2)));
    assert!(!pair.begin_from(stranger(3)), "one address has its part");
    let away = TurnedAway { remote: stranger(3), reason: "too many handshakes at once", count: 2 };
    // Its first flight is two datagrams.
    assert_eq!((pair.server.take_turned_away(), pair.server.take_turned_away()), (Some(away), None));
    assert!(pair.begin_from(SocketAddr::from(([203, 0, 113, 1], 1))));
    pair.now += Duration::from_secs(1);
    let honest = pair.dial(&[b"one"]);
    pair.drive();
    assert!(
        pair.client_events.iter().any(|(handle, event)| *handle == honest && matches!(event, Event::Connected { .. }))
    );
    assert_eq!(pair.faults(), ["gave way to newer handshakes (QUIC error 0x2)"]);
    assert_eq!(pair.server.connections(), 3, "it has been freed at once");
}
