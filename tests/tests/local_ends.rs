//! What TCP peers of agents see, with the real programs on both runtimes: answers before resets, resets in place of ends that are not clean, and no
//! connection that outlives its client.

use std::{
    fs, io,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use towline_core::spn::Role;
use towline_tests::{
    ours,
    programs::{On, PATIENCE, Program, Realm, Ways},
    servers::{abort, connect, echo, serve},
};

const BOTH: [On; 2] = [On::Tokio, On::Smol];
const QUESTION: usize = 100;

/// Hub, provider and consumer on that runtime.
fn path(on: On, server: SocketAddr) -> (Realm, Program, Program, SocketAddr) {
    let realm = Realm::start_on(on, "127.0.0.1", |inventory| inventory);
    let provider = realm.provider_on(on, "p", server, Ways::default());
    let (consumer, address) = realm.consumer_on(on, "c", Ways::default());
    (realm, provider, consumer, address)
}

fn read_all(mut tcp: &TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let result = tcp.read_to_end(&mut got).map(drop);
    (got, result)
}

/// Whether that is what a peer sees of a reset.
fn is_reset<T: std::fmt::Debug>(result: &io::Result<T>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

#[test]
fn an_answer_arrives_before_the_reset_behind_it() {
    for on in BOTH {
        // It refuses an upload that it does not read: to close with unread bytes is to reset.
        let (_realm, _provider, _consumer, address) = path(
            on,
            serve(|mut tcp| {
                tcp.read_exact(&mut [0; 10])?;
                thread::sleep(Duration::from_millis(20));
                tcp.write_all(b"413 too large")
            }),
        );
        for n in 0..20 {
            let mut tcp = connect(address);
            let upload = vec![7; if n < 10 { 2_000 } else { 3_000_000 }];
            // It may be broken off in the middle.
            let _ = tcp.write_all(&upload);
            let (got, result) = read_all(&tcp);
            assert_eq!(got, b"413 too large", "{on:?}, {n}: {result:?}");
            assert!(is_reset(&result), "{on:?}, {n}: {result:?}");
        }
    }
}

#[test]
fn a_service_is_told_when_nobody_wants_its_bytes() {
    for on in BOTH {
        let open = Arc::new(AtomicUsize::new(0));
        let count = open.clone();
        let (_realm, _provider, _consumer, address) = path(
            on,
            serve(move |mut tcp| {
                count.fetch_add(1, Ordering::SeqCst);
                tcp.read_exact(&mut [0; 3])?;
                while tcp.write_all(b"data: 1\n\n").is_ok() {
                    thread::sleep(Duration::from_millis(5));
                }
                count.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }),
        );
        for _ in 0..20 {
            let mut tcp = connect(address);
            tcp.write_all(b"GET").unwrap();
            tcp.read_exact(&mut [0; 9]).unwrap();
            // An end in good order, and nobody there any more.
            tcp.shutdown(Shutdown::Write).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "{on:?}: {} still write", open.load(Ordering::SeqCst));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A service that reports the bytes it reads and their end, and writes nothing.
fn listener() -> (SocketAddr, mpsc::Receiver<io::Result<usize>>) {
    let (told, seen) = mpsc::channel();
    let address = serve(move |mut tcp| {
        let mut buffer = [0; 1000];
        loop {
            let read = tcp.read(&mut buffer);
            let is_last = !matches!(read, Ok(1..));
            let _ = told.send(read);
            if is_last {
                // An end is no reason to close.
                loop {
                    thread::sleep(Duration::from_secs(1));
                    if let Some(error) = tcp.take_error()? {
                        let _ = told.send(Err(error));
                        return Ok(());
                    }
                }
            }
        }
    });
    (address, seen)
}

#[test]
fn a_client_that_breaks_off_behind_its_end_is_noticed() {
    for on in BOTH {
        let (server, seen) = listener();
        let (_realm, _provider, _consumer, address) = path(on, server);
        let mut tcp = connect(address);
        tcp.write_all(b"hello").unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().unwrap(), 5);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().unwrap(), 0);
        abort(tcp);
        let end = seen.recv_timeout(PATIENCE).unwrap();
        assert!(is_reset(&end), "{on:?}: {end:?}");
    }
}

#[test]
fn a_client_that_only_writes_is_told_that_its_service_has_gone() {
    for on in BOTH {
        let server = serve(|mut tcp| tcp.read_exact(&mut [0; 5]));
        let (_realm, _provider, _consumer, address) = path(on, server);
        let mut tcp = connect(address);
        tcp.write_all(b"hello").unwrap();
        let (began, mut swallowed) = (Instant::now(), 0);
        while tcp.write_all(b"line\n").is_ok() {
            swallowed += 1;
            assert!(began.elapsed() < PATIENCE, "{on:?}: {swallowed} lines are swallowed");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn an_agent_that_dies_in_the_middle_resets_its_peers() {
    for on in BOTH {
        for (dies, signals) in [("provider", &["KILL"][..]), ("consumer", &["KILL"]), ("consumer", &["TERM", "TERM"])] {
            // The examples on smol know no signals.
            if on == On::Smol && signals.len() > 1 {
                continue;
            }
            let (server, seen) = listener();
            let (_realm, provider, consumer, address) = path(on, server);
            let mut tcp = connect(address);
            tcp.write_all(b"hello").unwrap();
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap().unwrap(), 5);
            let agent = if dies == "provider" { &provider } else { &consumer };
            for signal in signals {
                agent.signal(signal);
                thread::sleep(Duration::from_millis(200));
            }
            let end = if dies == "provider" { seen.recv_timeout(PATIENCE).unwrap() } else { tcp.read(&mut [0; 10]) };
            assert!(is_reset(&end), "{on:?}, {dies}, {signals:?}: {end:?}");
        }
    }
}

/// The host's own code runs in the loop of an agent, and may have a fault.
#[test]
fn an_agent_that_panics_resets_its_peers() {
    for on in BOTH {
        let realm = ours::Realm::new();
        let hub = ours::OurHub::start(&realm, false);
        let (port, (server, seen)) = (hub.address().port(), listener());
        let (is_fault, said) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = (is_fault.clone(), said.clone());
        let at_a_notice = move || {
            count.1.fetch_add(1, Ordering::SeqCst);
            assert_eq!(count.0.load(Ordering::SeqCst), 0, "the fault that this test wants");
        };
        let config = realm.endpoint(Role::Provider, "p");
        let agent = thread::spawn(move || match on {
            On::Tokio => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let agent =
                    towline_tokio::endpoint::provider_agent(config, port, server.to_string(), move |_| at_a_notice());
                let (_control, task) = agent.unwrap();
                task.await;
            }),
            On::Smol => smol::block_on(async {
                let agent =
                    towline_smol::endpoint::provider_agent(config, port, server.to_string(), move |_| at_a_notice());
                let (_control, task) = agent.unwrap();
                task.await;
            }),
        });
        let (told, address) = mpsc::channel();
        let (config, over) = (realm.endpoint(Role::Consumer, "c"), Arc::new(tokio::sync::Notify::new()));
        let end = over.clone();
        let consumer = thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let bind: SocketAddr = ([127, 0, 0, 1], 0).into();
                let agent = towline_tokio::endpoint::consumer_agent(config, port, bind, |_| {}).await;
                let (_control, address, task) = agent.unwrap();
                told.send(address).unwrap();
                tokio::select! {
                    () = task => {}
                    () = end.notified() => {}
                }
            });
        });
        let mut tcp = connect(address.recv_timeout(PATIENCE).unwrap());
        tcp.write_all(b"hello").unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().unwrap(), 5);
        assert_eq!(said.load(Ordering::SeqCst), 1, "{on:?}: the session is there, and nothing else was said");
        is_fault.store(1, Ordering::SeqCst);
        hub.handle.stop();
        let end = seen.recv_timeout(PATIENCE).unwrap();
        assert!(is_reset(&end), "{on:?}: {end:?}");
        assert!(agent.join().is_err(), "{on:?}: it has panicked");
        over.notify_one();
        consumer.join().unwrap();
    }
}

/// The keep-alive timers of established sockets with that local or remote port, as the kernel shows them.
fn keepalives(is_it: impl Fn(&str, &str) -> bool) -> Vec<bool> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mine = rows.filter(|row| row[3] == "01" && is_it(row[1], row[2]));
    mine.map(|row| row[5].starts_with("02:")).collect()
}

#[test]
fn local_sockets_have_a_keepalive() {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    for (on, more, wanted) in
        [(On::Tokio, &[][..], true), (On::Smol, &[], true), (On::Tokio, &["--tcp-keepalive", "0"], false)]
    {
        let server = serve(echo);
        let realm = Realm::start_on(on, "127.0.0.1", |inventory| inventory);
        let (_provider, (_consumer, address)) = match on {
            On::Tokio => (realm.provider_with("p", server, more), realm.consumer_with("c", more)),
            On::Smol => {
                (realm.provider_on(on, "p", server, Ways::default()), realm.consumer_on(on, "c", Ways::default()))
            }
        };
        let mut tcp = connect(address);
        tcp.write_all(b"a").unwrap();
        tcp.read_exact(&mut [0]).unwrap();
        // While something is unacknowledged, that has the timer.
        let (bind, forward) = (port(address), port(server));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let accepted = keepalives(|local, _| local.ends_with(&bind));
            let dialled = keepalives(|_, remote| remote.ends_with(&forward));
            if (&accepted[..], &dialled[..]) == (&[wanted][..], &[wanted][..]) {
                break;
            }
            assert!(Instant::now() < deadline, "{on:?}, {more:?}: {accepted:?} {dialled:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_proxy_that_dies_in_the_middle_resets_its_client() {
    let origin = serve(|mut tcp| {
        tcp.read_exact(&mut [0; 10])?;
        tcp.write_all(b"a part")?;
        thread::sleep(PATIENCE);
        Ok(())
    });
    let port = origin.port().to_string();
    let arguments = ["proxy", "--listen", "127.0.0.1:0", "--origin-port", &port, "--allow-all"];
    let proxy = Program::start("towline", &arguments);
    let line = proxy.err_line("listening on ");
    let address: SocketAddr = line.split("listening on ").nth(1).and_then(|text| text.parse().ok()).unwrap();
    let mut tcp = connect(address);
    tcp.write_all(b"127.0.0.1 file\r\n\r\n").unwrap();
    tcp.read_exact(&mut [0; 6]).unwrap();
    proxy.signal("KILL");
    let end = tcp.read(&mut [0; 10]);
    assert!(is_reset(&end), "{end:?}");
}

/// A provider that is stopped gets connections that are soon given to another one. When it continues, the frames with
/// which the hub withdraws them stand behind everything else in its socket.
#[test]
fn a_provider_that_was_stopped_serves_nothing_that_has_moved() {
    const CONNECTIONS: usize = 150;
    for on in BOTH {
        let realm = Realm::start(|inventory| inventory);
        realm.add(&["--service", "s", "--provider", "p2"]);
        realm.hub.signal("USR1");
        realm.hub.err_line("changed");
        let served: [Arc<AtomicUsize>; 2] = Default::default();
        let service = |nth: usize| {
            let served = served[nth].clone();
            serve(move |mut tcp: TcpStream| {
                tcp.read_exact(&mut [0; QUESTION])?;
                served.fetch_add(1, Ordering::Relaxed);
                tcp.write_all(b"!")
            })
        };
        let _first = realm.provider_on(on, "p", service(0), Ways::default());
        let second = realm.provider_on(on, "p2", service(1), Ways::default());
        let (_consumer, address) = realm.consumer_on(On::Tokio, "c", Ways::default());
        second.signal("STOP");
        // Each in a datagram of its own: what it gets first stands in another batch than the reset behind it.
        let begin = |_| {
            let mut client = connect(address);
            client.write_all(&[7; QUESTION]).unwrap();
            thread::sleep(Duration::from_millis(1));
            client
        };
        let clients: Vec<TcpStream> = (0..CONNECTIONS).map(begin).collect();
        for mut client in &clients {
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
        }
        second.signal("CONT");
        thread::sleep(Duration::from_secs(2));
        let served = served.map(|count| count.load(Ordering::Relaxed));
        assert_eq!(served, [CONNECTIONS, 0], "{on:?}");
    }
}
