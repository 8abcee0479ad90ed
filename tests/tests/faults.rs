//! Faults of the deployed programs, which ours must not have. Most are proved where they belong:
//!
//! | fault | proved by |
//! |---|---|
//! | B1 a realm without CA ends the process | `inventory::tests::a_realm_without_a_ca_harms_no_other`, `e2e::a_reload_changes_rights_and_leaves_the_rest_alone` |
//! | B2, B3 strangers and impostors come in | `interop::strangers_are_refused_on_sc01_too`, `e2e::refusals_name_their_reason` |
//! | B4 a consumer without provider is forgotten | `interop::a_consumer_of_theirs_waits_for_a_provider_and_keeps_its_session`, `relaying::a_connection_waits_a_minute_for_a_provider` |
//! | B5 the first connection after a provider's return is lost | `interop::a_provider_of_theirs_that_comes_back_serves_the_very_next_connection` |
//! | B6 a dead provider is a clean end, late | `e2e::a_killed_provider_is_noticed_and_the_next_takes_over`, `e2e::a_provider_that_dies_without_a_word_is_a_reset_and_is_replaced` |
//! | B7 an abort looks like success | `e2e::a_reset_is_a_reset_at_the_other_end` |
//! | B8 a connection goes on with another back-end | here |
//! | B9 `volume_size` refuses everything | `inventory::tests::availability` |
//! | B10 more than 100 connections hang | `e2e::five_hundred_at_once`, `interop::more_connections_of_theirs_than_credit_wait_in_order` |
//! | B11 aborted downloads leak streams | here |
//! | B12 words fill the log | here |
//! | B13 agents come back late after a stop | here |
//! | B14 a server that speaks first is not heard | `e2e::a_server_that_speaks_first` |
//! | B15 the search of a consumer that has left goes on | `relaying::connections_that_wait_for_a_provider_hold_up_no_neighbour` |
//! | B16 one hub's reload holds up another | here |
//! | B17, B24 withdrawn rights stay | `e2e::a_reload_changes_rights_and_leaves_the_rest_alone`, `admission::a_reload_ends_what_has_lost_its_right` |
//! | B18 session ids repeat, records vanish with the log level | here |
//! | B19 control can be lost | `sim::seeds_keep_the_invariants`: SET_WEIGHT and SESSION_SHUTDOWN on a network that loses packets |
//! | B20 nothing is limited | `admission::sessions_of_one_identity_are_bounded`, `relaying::connections_above_the_limit_are_reset`, `quic::tests::retry_above_the_limit_still_connects` |
//! | B21 a retiring provider gets new streams | `relaying::a_retiring_provider_of_sc01_gets_no_new_connections` |
//! | B22 redial without jitter | `endpoint::machines::session::tests::retries_double_to_30_s_with_jitter` |
//! | B23 many streams are slower than one | `relaying::many_streams_cost_what_one_does`; figures are in `docs/performance.md` |
//! | B25 STOP_SENDING one way | `relaying::a_stop_reaches_the_writer_and_leaves_the_other_direction` |

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use towline_tests::{
    legacy,
    programs::{On, Program, Realm, Ways, path_of},
    servers::{abort, connect, echo, serve},
};
use towline_tokio::cli::pki::Pair;

fn path(server: SocketAddr) -> (Realm, Program, Program, SocketAddr) {
    let realm = Realm::start(|inventory| inventory);
    let provider = realm.provider("p", server);
    let (consumer, address) = realm.consumer("c");
    (realm, provider, consumer, address)
}

fn echo_works(address: SocketAddr) -> io::Result<()> {
    let mut tcp = connect(address);
    tcp.write_all(b"ping")?;
    tcp.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    tcp.read_to_end(&mut got)?;
    if got == b"ping" { Ok(()) } else { Err(io::Error::other(format!("{got:?}"))) }
}

#[test]
fn b08_no_connection_goes_on_with_another_back_end() {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider(
        "p",
        serve(|tcp| {
            CONNECTIONS.fetch_add(1, Ordering::SeqCst);
            echo(tcp)
        }),
    );
    let (_kept, address) = realm.consumer("c");
    let (_broken, other) = realm.consumer_with("c", &["--pause-max", "0"]);
    let mut both = [connect(address), connect(other)];
    for tcp in &mut both {
        tcp.write_all(b"half of").unwrap();
        tcp.read_exact(&mut [0; 7]).unwrap();
    }
    realm.restart_hub();
    let [mut kept, mut broken] = both;
    let error = broken.read(&mut [0; 8]).expect_err("a reset, not an end and not more bytes");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    kept.write_all(b"the rest").unwrap();
    let mut got = [0; 8];
    kept.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"the rest");
    assert_eq!(CONNECTIONS.load(Ordering::SeqCst), 2, "and no further back-end");
}

/// One of two providers is killed, and connections go on being begun.
fn a_dead_provider_beside_a_live_one(on: On) {
    let realm = Realm::start_on(on, "127.0.0.1", |inventory| inventory);
    // Says who it is, then sends back what comes.
    let named = |name: u8| {
        serve(move |mut tcp: TcpStream| {
            tcp.write_all(&[name])?;
            echo(tcp)
        })
    };
    let [mut dies, _lives] = [b'd', b'l'].map(|name| realm.provider_on(on, "p", named(name), Ways::default()));
    let (_consumer, address) = realm.consumer_on(on, "c", Ways::default());
    // A connection that stays: as many go to each.
    let ask = move |speaks: bool| -> io::Result<(u8, TcpStream)> {
        let mut tcp = connect(address);
        let mut answer = vec![0; if speaks { 5 } else { 1 }];
        if speaks {
            tcp.write_all(b"ping")?;
        }
        tcp.read_exact(&mut answer)?;
        if !speaks || answer[1..] == *b"ping" {
            Ok((answer[0], tcp))
        } else {
            Err(io::Error::other(format!("{answer:?}")))
        }
    };
    let before: Vec<_> = (0..10).map(|nth| ask(nth % 2 == 0).unwrap()).collect();
    assert_eq!(before.iter().filter(|(name, _)| *name == b'd').count(), 5, "both of them serve");
    dies.signal("KILL");
    dies.wait();
    let asked: Vec<_> = (0..60)
        .map(|nth| {
            let asked = thread::spawn(move || {
                let began = Instant::now();
                (ask(nth % 2 == 0), began.elapsed())
            });
            thread::sleep(Duration::from_millis(60));
            asked
        })
        .collect();
    let asked: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    for (nth, (answer, took)) in asked.iter().enumerate() {
        let served = answer.as_ref().ok().map(|(name, _)| *name);
        assert_eq!(served, Some(b'l'), "{on:?}, the {nth}th, after {took:?}");
        assert!(*took < Duration::from_secs(5), "{on:?}, the {nth}th: {took:?}");
    }
}

#[test]
fn connections_begun_beside_a_dead_provider_are_served_by_the_live_one() {
    for on in [On::Tokio, On::Smol] {
        a_dead_provider_beside_a_live_one(on);
    }
}

#[test]
fn b11_aborted_downloads_leave_nothing_behind() {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    let (_realm, _provider, _consumer, address) = path(serve(|mut tcp: TcpStream| {
        OPEN.fetch_add(1, Ordering::SeqCst);
        let block = [7; 65_536];
        while tcp.write_all(&block).is_ok() {}
        OPEN.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }));
    for _ in 0..40 {
        let clients: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
        for mut client in clients {
            client.read_exact(&mut vec![0; 100_000]).unwrap();
            abort(client);
        }
    }
    // 320 connections, three times the stream credit: every server has seen a reset.
    let deadline = Instant::now() + Duration::from_secs(20);
    while OPEN.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "{} still write", OPEN.load(Ordering::SeqCst));
        thread::sleep(Duration::from_millis(20));
    }
    connect(address).read_exact(&mut [0; 1000]).unwrap();
}

#[test]
fn b12_words_fill_no_log() {
    let mut realm = Realm::start(|inventory| inventory);
    let text = |name| fs::read_to_string(realm.file(name)).unwrap();
    let pair = Pair { certificate: text("c.pem"), key: text("c.key") };
    let ca = text("ca.pem");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(legacy::flood(&pair, &ca, SocketAddr::from(([127, 0, 0, 1], realm.port)), 20_000));
    // Its close may have been lost in its own flood.
    realm.hub.signal("INT");
    realm.hub.wait();
    assert!(realm.hub.err().len() < 5, "{} lines", realm.hub.err().len());
    assert_eq!(realm.hub.out().len(), 2, "one session");
}

#[test]
fn b13_agents_are_back_soon_after_a_restart() {
    let (mut realm, _provider, _consumer, address) = path(serve(echo));
    echo_works(address).unwrap();
    realm.hub.signal("TERM");
    realm.hub.wait();
    realm.hub = Program::start("spnhub", &["-c", &realm.file("inventory.yaml")]);
    let began = Instant::now();
    realm.hub.out_line("serviceConsumer");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    echo_works(address).unwrap();
}

#[test]
fn b16_a_hub_that_drains_holds_up_no_other() {
    // Two realms in one process. The second is taken out while a connection of it is open, so it drains.
    let second = Realm::start(|inventory| inventory);
    let other = fs::read_to_string(second.file("inventory.yaml")).unwrap();
    let other = other.replace("realms:\n", "").replace("name: r\n", "name: r2\n");
    let (mut second, other) = (second, other);
    second.hub.signal("INT");
    second.hub.wait();
    let mut first_only = String::new();
    let first = Realm::start(|inventory| {
        first_only.clone_from(&inventory);
        inventory + &other
    });
    let _p2 = second.provider("p", serve(echo));
    let (_c2, address2) = second.consumer("c");
    let mut held = connect(address2);
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let both = fs::read_to_string(first.file("inventory.yaml")).unwrap();
    let disabled = "name: r2\n  disabled: true\n";
    fs::write(first.file("inventory.yaml"), both.replace("name: r2\n", disabled)).unwrap();
    first.hub.signal("USR1");
    first.hub.err_line("the realm is disabled; the hub drains");
    // Meanwhile the first is served, and follows another reload.
    let began = Instant::now();
    fs::write(first.file("inventory.yaml"), first_only.replace("- c\n", "- c\n      - d\n")).unwrap();
    first.hub.signal("USR1");
    first.hub.err_line("service urn:chip-in:service:r:hub:s changed");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    held.write_all(b"y").unwrap();
    held.read_exact(&mut [0]).unwrap();
}

#[test]
fn b18_session_ids_are_unique() {
    let realm = Realm::start(|inventory| inventory);
    let mut ids = BTreeSet::new();
    for nth in 1..=5 {
        let mut provider = realm.provider("p", serve(echo));
        provider.signal("INT");
        provider.wait();
        while realm.hub.out().len() < 2 * nth {
            thread::sleep(Duration::from_millis(20));
        }
    }
    for line in realm.hub.out().iter().filter(|line| line.contains("startSpnSession")) {
        let id = line.split("\"spnSessionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert!(ids.insert(id.to_owned()) && id.len() == 16, "{id} in {ids:?}");
    }
    assert_eq!(ids.len(), 5);
}

#[test]
fn records_do_not_depend_on_the_log_level() {
    let mut command = Command::new(path_of("spnhub"));
    let mut demo = Program::spawn(command.arg("demo").env("RUST_LOG", "off"));
    let address: SocketAddr = demo.err_line("listening on ").replace("listening on ", "").parse().unwrap();
    let mut tcp = connect(address);
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    tcp.read_to_end(&mut Vec::new()).unwrap();
    demo.signal("TERM");
    assert_eq!(demo.wait().code(), Some(0));
    assert_eq!(demo.out().len(), 6, "{:#?}", demo.out());
}
