//! Faults that the original sample has, and ours must not (docs/protocols/txn.md, What must not happen); one test for each.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use towline_core::{
    machine::Machine,
    txn::{
        accept::{self, Accept},
        allow::Allow,
        proxy::Config,
        transaction::{Event, Outcome, Serve},
    },
};
use towline_tests::{
    programs::Program,
    servers::{connect, serve},
    txn::world::{Client, Dial, End, Fate, Outside, Step, Then, World},
};

const MS: Duration = Duration::from_millis(1);

/// One origin, which does this for every head; one name, with these addresses.
struct Origin {
    steps: Vec<Step>,
    addresses: Vec<IpAddr>,
}

impl Origin {
    fn sends(pieces: &[&'static [u8]]) -> Self {
        let sends = pieces.iter().flat_map(|piece| [Step::Send(Bytes::from_static(piece)), Step::Sleep(MS)]);
        Self { steps: sends.chain([Step::Fin]).collect(), addresses: vec![[192, 0, 2, 9].into()] }
    }
}

impl Outside for Origin {
    fn name(&self, name: &[u8]) -> Option<(Duration, Vec<IpAddr>)> {
        Some((MS, if name == b"origin.test" { self.addresses.clone() } else { Vec::new() }))
    }

    fn dial(&self, _: SocketAddr) -> Dial {
        Dial::Accepts(MS)
    }

    fn reply(&self, _: &[u8]) -> Vec<Step> {
        self.steps.clone()
    }
}

fn client(pieces: &[&[u8]]) -> Client {
    let pieces = pieces.iter().map(|piece| (MS, Bytes::copy_from_slice(piece))).collect();
    Client { comes: Duration::ZERO, from: [192, 0, 2, 1].into(), pieces, then: Then::Waits, takes: Some(MS) }
}

fn config(serve: Serve) -> Config {
    let mut config = Config::default();
    config.transaction.allow = Allow::everything();
    config.transaction.serve = serve;
    config
}

/// One client after the other, each in both ways to serve; then each has come to its end.
fn run(origin: impl Fn() -> Origin, clients: &[Client], check: impl Fn(&World<Origin>)) {
    for serve in [Serve::Streamed, Serve::Stored] {
        let after = |(nth, client): (u32, &Client)| Client { comes: Duration::from_secs(1000) * nth, ..client.clone() };
        let mut world = World::new(config(serve), origin(), (0..).zip(clients).map(after).collect());
        world.run(Duration::from_secs(1_000_000));
        check(&world);
    }
}

fn is(fate: &Fate, end: End, received: &[u8]) {
    assert_eq!((fate.end.map(|(end, _)| end), &fate.received[..]), (Some(end), received), "{fate:?}");
}

fn outcome(fate: &Fate) -> Outcome {
    fate.record.as_ref().expect("a record").outcome
}

const HEAD: &[u8] = b"origin.test hello.txt \r\n\r\n";

#[test]
fn d1_how_the_head_is_cut_does_not_matter() {
    let mut cuts: Vec<Vec<&[u8]>> = vec![HEAD.chunks(1).collect()];
    for first in 1..HEAD.len() {
        let (one, rest) = HEAD.split_at(first);
        cuts.push(vec![one, rest]);
        cuts.extend((1..rest.len()).map(|second| vec![one, &rest[..second], &rest[second..]]));
    }
    let clients: Vec<Client> = cuts.iter().map(|cut| client(cut)).collect();
    run(
        || Origin::sends(&[b"hello"]),
        &clients,
        |world| {
            assert_eq!(world.heads, [HEAD], "asked once, and for the whole head");
            for fate in &world.fates {
                is(fate, End::Fin, b"hello");
            }
        },
    );
}

#[test]
fn d2_the_terminator_is_no_part_of_a_name() {
    let (with, without) = (client(&[HEAD]), client(&[b"origin.test hello.txt\r\n\r\n"]));
    let only_server = client(&[b"origin.test \r\n\r\n"]);
    run(
        || Origin::sends(&[b"hello"]),
        &[without, with, only_server],
        |world| {
            is(&world.fates[1], End::Fin, b"hello");
            assert_eq!(world.heads.len(), 1, "both are the same object");
            assert!(matches!(outcome(&world.fates[2]), Outcome::Malformed { .. }));
            assert!(
                world.lookups.iter().all(|entry| entry.starts_with("hello.txt origin.test ")),
                "{:?}",
                world.lookups
            );
        },
    );
}

#[test]
fn d3_what_is_too_long_is_refused_and_never_cut() {
    let file = |length: usize| format!("origin.test {} \r\n\r\n", "f".repeat(length)).into_bytes();
    let clients = [client(&[&file(1025)]), client(&[&[b'x'; 2051]]), client(&[&file(1024)])];
    run(
        || Origin::sends(&[b"hello"]),
        &clients,
        |world| {
            for fate in &world.fates[..2] {
                assert!(matches!(outcome(fate), Outcome::Malformed { .. }));
                assert!(fate.record.as_ref().is_some_and(|record| record.ms < 100), "at once");
            }
            is(&world.fates[2], End::Fin, b"hello");
            assert_eq!(world.heads, [file(1024)]);
        },
    );
}

#[test]
fn d4_late_bytes_of_a_client_are_nobody_elses() {
    // In every state that a fetch goes through.
    let late: Vec<Client> = (0..8)
        .map(|wait| Client { pieces: vec![(MS, HEAD.into()), (MS * wait, b"late"[..].into())], ..client(&[]) })
        .collect();
    for client in late {
        run(
            || Origin::sends(&[b"hel", b"lo"]),
            &[client],
            |world| {
                is(&world.fates[0], End::Fin, b"hello");
                assert_eq!(world.heads, [HEAD]);
            },
        );
    }
}

#[test]
fn d5_a_half_close_is_not_a_leave() {
    let half = Client { then: Then::HalfCloses, ..client(&[HEAD]) };
    run(
        || Origin::sends(&[b"hello"]),
        &[half.clone(), half],
        |world| {
            is(&world.fates[0], End::Fin, b"hello");
            is(&world.fates[1], End::Fin, b"hello");
        },
    );
}

#[test]
fn d6_the_whole_reply_is_stored_and_served() {
    static PIECE: [u8; 40_000] = [7; 40_000];
    run(
        || Origin::sends(&[b"a", &PIECE, b"bc", &PIECE]),
        &[client(&[HEAD]), client(&[HEAD])],
        |world| {
            let whole = [b"a", &PIECE[..], b"bc", &PIECE].concat();
            is(&world.fates[0], End::Fin, &whole);
            is(&world.fates[1], End::Fin, &whole);
            assert_eq!(world.heads.len(), 1);
        },
    );
}

#[test]
fn d7_a_reset_is_no_end() {
    let broken =
        || Origin { steps: vec![Step::Send(b"part"[..].into()), Step::Sleep(MS), Step::Reset], ..Origin::sends(&[]) };
    run(broken, &[client(&[HEAD]), client(&[HEAD])], |world| {
        assert_eq!(world.heads.len(), 2, "never stored");
        for fate in &world.fates {
            let (end, _) = fate.end.expect("an end");
            // A piece is not shown as the whole: either nothing is, or it ends with a reset.
            assert!(if fate.received.is_empty() { end == End::Fin } else { end == End::Reset }, "{fate:?}");
        }
    });
}

#[test]
fn d8_a_nul_ends_nothing() {
    let clients: Vec<Client> = [&b"origin.test he\0llo \r\n\r\n"[..], b"\0\r\n\r\n", b"origin.test f\x7f\r\n\r\n"]
        .map(|head| client(&[head]))
        .into();
    run(
        || Origin::sends(&[b"hello"]),
        &clients,
        |world| {
            for fate in &world.fates {
                assert!(matches!(outcome(fate), Outcome::Malformed { .. }));
                assert!(fate.record.as_ref().is_some_and(|record| record.ms < 100), "at once");
            }
            assert!(world.heads.is_empty() && world.lookups.is_empty());
        },
    );
}

#[test]
fn d9_nothing_waits_without_a_deadline() {
    // A client that says nothing, one that does not end its head, one that takes nothing, an origin that says nothing.
    let deaf = Client { takes: None, ..client(&[HEAD]) };
    let clients = [client(&[]), client(&[b"origin.test"]), deaf];
    run(
        || Origin::sends(&[b"hello"]),
        &clients,
        |world| {
            let times = world.fates.iter().map(|fate| fate.record.as_ref().expect("a record").ms / 1000);
            assert_eq!(times.collect::<Vec<_>>(), [10, 10, 30]);
        },
    );
    let silent = || Origin { steps: vec![Step::Sleep(MS)], ..Origin::sends(&[]) };
    run(silent, &[client(&[HEAD])], |world| {
        assert_eq!(outcome(&world.fates[0]), Outcome::OriginFailed);
        assert_eq!(world.fates[0].record.as_ref().map(|record| record.ms / 1000), Some(30));
    });
}

#[test]
fn d11_the_clients_end_is_not_the_origins() {
    // It comes while the origin is in the middle of its reply.
    let half =
        Client { pieces: vec![(MS, HEAD.into()), (MS * 6, Bytes::new())], then: Then::HalfCloses, ..client(&[]) };
    let slow = || {
        let piece = |bytes: &'static [u8]| [Step::Send(bytes.into()), Step::Sleep(MS * 10)];
        Origin {
            steps: [piece(b"hel"), piece(b"lo")].concat().into_iter().chain([Step::Fin]).collect(),
            ..Origin::sends(&[])
        }
    };
    run(slow, &[half], |world| is(&world.fates[0], End::Fin, b"hello"));
}

#[test]
fn d12_the_origin_gets_the_two_names_and_nothing_else() {
    let surplus = client(&[b"  origin.test   hello.txt  more words \r\n\r\norigin.test other.txt\r\n\r\n", b"more"]);
    run(
        || Origin::sends(&[b"hello"]),
        &[surplus],
        |world| assert_eq!(world.heads, [b"origin.test hello.txt \r\n\r\n"]),
    );
}

#[test]
fn d14_no_event_ends_the_accepting() {
    let now = towline_core::testing::first_instant();
    let mut accept = Accept::new(accept::Config::default());
    accept.handle_event(now, accept::Event::Start);
    while accept.poll_action().is_some() {}
    for event in [accept::Event::Start, accept::Event::Ended { conn: 77 }] {
        accept.handle_event(now, event);
        accept.handle_timeout(now);
        assert_eq!(accept.poll_action(), None, "it means nothing");
    }
    accept.handle_event(now, accept::Event::Incoming { conn: 1 });
    let actions: Vec<_> = std::iter::from_fn(|| accept.poll_action()).collect();
    assert!(actions.contains(&accept::Action::Spawn { conn: 1 }), "{actions:?}");
    assert!(!actions.contains(&accept::Action::StopListening), "{actions:?}");
}

#[test]
fn d15_nothing_is_fetched_twice_in_one_transaction() {
    // An object that cannot be found again when it has just been stored.
    let config = config(Serve::Stored).transaction.into();
    let mut machine = towline_core::txn::transaction::Transaction::new(config);
    let now = towline_core::testing::first_instant();
    let seq = None;
    let stored = [
        Event::Accepted,
        Event::ClientData { bytes: HEAD.into() },
        Event::CacheMiss { seq },
        Event::CacheWriteReady { seq },
        Event::Resolved { addrs: vec![[192, 0, 2, 9].into()], seq },
        Event::Connected { seq },
        Event::OriginSent { len: HEAD.len() as u64 },
        Event::OriginData { bytes: b"hello"[..].into() },
        Event::CacheStored { len: 5 },
        Event::OriginEof,
        Event::CacheCommitted,
    ];
    for event in stored {
        machine.handle_event(now, event);
        while machine.poll_action().is_some() {}
    }
    machine.handle_event(now, Event::CacheMiss { seq });
    let actions: Vec<String> =
        std::iter::from_fn(|| machine.poll_action()).map(|action| format!("{action:?}")).collect();
    assert_eq!(actions.len(), 3, "the log, the close, and the end: {actions:?}");
    assert!(actions[2].contains("CacheFailed"), "{actions:?}");
}

#[test]
fn d16_ipv6_is_an_address_like_any_other() {
    let both = || Origin {
        addresses: vec!["2001:db8::9".parse().expect("an address"), [192, 0, 2, 9].into()],
        ..Origin::sends(&[b"hello"])
    };
    let literal = client(&[b"[2001:db8::9] hello.txt\r\n\r\n"]);
    run(both, &[client(&[HEAD]), literal], |world| {
        is(&world.fates[0], End::Fin, b"hello");
        is(&world.fates[1], End::Fin, b"hello");
        let tried = world.journal.iter().filter(|line| line.contains(" Connect {")).count();
        assert!(tried == 2 && world.journal.iter().any(|line| line.contains("[2001:db8::9]:80")));
    });
}

/// `towline proxy`, its address, and an origin that has one file.
fn program(arguments: &[&str]) -> (Program, SocketAddr) {
    let origin = serve(|mut tcp| {
        let mut head = [0; 4096];
        let _ = tcp.read(&mut head)?;
        tcp.write_all(b"hello")?;
        tcp.shutdown(Shutdown::Write)
    });
    let port = origin.port().to_string();
    let given = ["proxy", "--listen", "127.0.0.1:0", "--origin-port", &port, "--allow-all", "--log", "-"];
    let proxy = Program::start("towline", &[&given, arguments].concat());
    let line = proxy.err_line("listening on ");
    let address = line.split("listening on ").nth(1).and_then(|text| text.parse().ok()).expect("an address");
    (proxy, address)
}

fn fetch(address: SocketAddr, head: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = connect(address);
    tcp.write_all(head)?;
    let mut body = Vec::new();
    tcp.read_to_end(&mut body).map(|_| body)
}

#[test]
fn d10_the_origins_port_is_the_one_that_was_given() {
    let (_proxy, address) = program(&[]);
    assert_eq!(fetch(address, b"127.0.0.1 f\r\n\r\n").unwrap(), b"hello");
}

#[test]
fn d13_a_good_start_reports_no_failure() {
    let (mut proxy, address) = program(&[]);
    let started = proxy.err();
    assert_eq!(started.len(), 1, "{started:?}");
    assert!(started[0].contains(&format!("listening on {address}")) && !started[0].contains("ERROR"), "{started:?}");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert!(!proxy.err().iter().any(|line| line.contains("ERROR") || line.contains("WARN")), "{:?}", proxy.err());
}

#[test]
fn d17_clients_end_nothing_but_their_own() {
    // A name server that does not answer: clients that leave while it is asked ended the original.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = silent.local_addr().unwrap().to_string();
    let (mut proxy, address) = program(&["--resolver", &resolver, "--resolve-timeout", "1"]);
    for nth in 0..50 {
        let mut tcp = connect(address);
        tcp.write_all(b"slow.te").unwrap();
        tcp.write_all(b"st f\r\n\r\n").unwrap();
        if nth % 2 == 0 {
            towline_tests::servers::abort(tcp);
        }
    }
    assert_eq!(fetch(address, b"127.0.0.1 f\r\n\r\n").unwrap(), b"hello", "others are served meanwhile");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
}
