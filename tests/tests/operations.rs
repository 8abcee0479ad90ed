//! What operators do: stop things in order, replace them while they are used, pause a service, change certificates.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use towline_tests::{
    programs::{Program, Realm, path_of},
    servers::{connect, echo, serve},
};

/// An HTTP/1.1 server of one short page that says who it is, and closes.
fn web(name: &'static str) -> SocketAddr {
    serve(move |mut tcp: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        thread::sleep(Duration::from_millis(5));
        write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len())
    })
}

/// One request on a connection of its own.
fn get(address: SocketAddr) -> io::Result<String> {
    let mut tcp = connect(address);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer)?;
    match answer.rsplit_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") && !body.is_empty() => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("{answer:?}"))),
    }
}

fn set_weight(realm: &Realm, agent: &Program, file: &str, weight: u16) {
    let file = realm.file(file);
    let kept: String = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("SPN_WEIGHT"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&file, format!("{kept}SPN_WEIGHT={weight}\n")).unwrap();
    agent.signal("HUP");
    agent.err_line("SIGHUP: certificates and weight reloaded");
}

/// A record of the inventory, as it stands in the list that `spnhub pki` writes.
fn service(name: &str, consumer: &str) -> String {
    format!("    - {{name: {name}, urn: \"urn:{name}\", provider: [p], consumers: [{consumer}]}}\n")
}

#[test]
fn a_reload_of_thousands_of_services_touches_what_has_changed_and_nothing_else() {
    let lists = |text: &str, services: &mut dyn Iterator<Item = String>| {
        let at = text.find("    services:\n").expect("a list") + "    services:\n".len();
        format!("{}{}{}", &text[..at], services.collect::<String>(), &text[at..])
    };
    let mut original = String::new();
    let realm = Realm::start(|inventory| {
        original.clone_from(&inventory);
        lists(&inventory, &mut (0..5000).map(|n| service(&format!("n{n}"), "c")))
    });
    // Their names are shared by 5000 services, so they say which one they mean.
    let urn = ["--spn-service-urn", "urn:chip-in:service:r:hub:s"];
    let _provider = realm.provider_with("p", serve(echo), &urn);
    let (_consumer, address) = realm.consumer_with("c", &urn);
    let mut tcp = connect(address);
    let mut says = |text: &str| {
        tcp.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(answer, text.as_bytes());
    };
    says("before");
    // The first thousand goes, the second changes, the last comes.
    let changed = (1000..6000).map(|n| service(&format!("n{n}"), if n < 2000 { "d" } else { "c" }));
    fs::write(realm.file("inventory.yaml"), lists(&original, &mut changed.into_iter())).unwrap();
    realm.hub.signal("USR1");
    realm.hub.err_line("service urn:n999 removed");
    let lines = realm.hub.err();
    let count = |what: &str| lines.iter().map(|line| line.matches(what).count()).sum::<usize>();
    assert_eq!((count(" removed"), count(" changed"), count(" added")), (1000, 1000, 1000));
    assert!(lines.iter().all(|line| line.len() < 3000), "lines that can be read");
    says("after");
    let records = |event: &str| realm.hub.out().iter().filter(|line| line.contains(event)).count();
    assert_eq!((records("\"startSpnSession\""), records("\"endSpnSession\"")), (2, 0), "{:?}", realm.hub.out());
}

#[test]
fn a_provider_is_replaced_under_load_and_no_request_fails() {
    let realm = Realm::start(|inventory| inventory);
    realm.add(&["--service", "s", "--provider", "p2"]);
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let mut old = realm.provider("p", web("old"));
    let (_consumer, address) = realm.consumer("c");
    let (enough, good, by_new) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !enough.load(Ordering::Relaxed) {
                        match get(address) {
                            Ok(body) => {
                                good.fetch_add(1, Ordering::Relaxed);
                                by_new.fetch_add(usize::from(body == "new"), Ordering::Relaxed);
                            }
                            Err(error) => failed.push(error.to_string()),
                        }
                    }
                    failed
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        let _new = realm.provider("p2", web("new"));
        thread::sleep(Duration::from_millis(500));
        set_weight(&realm, &old, "p.env", 0);
        assert_eq!(old.wait().code(), Some(0), "it ends by itself");
        let before = by_new.load(Ordering::Relaxed);
        assert!(before > 0, "both have served");
        thread::sleep(Duration::from_millis(500));
        assert!(by_new.load(Ordering::Relaxed) > before, "the new one serves on");
        enough.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), good.load(Ordering::Relaxed) + failed.len());
    assert!(realm.hub.out().iter().all(|line| !line.contains("error")), "{:#?}", realm.hub.out());
}

#[test]
fn a_singleton_hands_over_while_the_old_one_still_serves() {
    let realm = Realm::start(|inventory| inventory.replace("singleton: false", "singleton: true"));
    realm.add(&["--service", "s", "--provider", "p2"]);
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let mut old = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut held = connect(address);
    held.write_all(b"a").unwrap();
    held.read_exact(&mut [0]).unwrap();
    set_weight(&realm, &old, "p.env", 0);
    // The new provider is accepted although the old one is still there.
    let _new = realm.provider("p2", web("new"));
    assert_eq!(get(address).unwrap(), "new");
    held.write_all(b"b").unwrap();
    held.read_exact(&mut [0]).unwrap();
    drop(held);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_planned_stop_leaves_no_error() {
    let mut realm = Realm::start(|inventory| inventory);
    let mut provider = realm.provider("p", web("it"));
    let (mut consumer, address) = realm.consumer("c");
    assert_eq!(get(address).unwrap(), "it");
    for agent in [&mut consumer, &mut provider] {
        agent.signal("TERM");
        assert_eq!(agent.wait().code(), Some(0));
    }
    realm.hub.signal("TERM");
    assert_eq!(realm.hub.wait().code(), Some(0));
    let records = realm.hub.out();
    assert_eq!(records.len(), 6, "{records:#?}");
    assert!(records.iter().all(|line| !line.contains("error")), "{records:#?}");
}

#[test]
fn certificates_change_without_a_restart() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.add(&["--service", "s", "--provider", "p2"]);
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let agent = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut held = connect(address);
    // What cannot be used changes nothing.
    let good = fs::read(realm.file("p.pem")).unwrap();
    fs::write(realm.file("p.pem"), "nothing").unwrap();
    agent.signal("HUP");
    agent.err_line("the current settings stay in use");
    fs::write(realm.file("p.pem"), good).unwrap();
    for (from, to) in [("p2.pem", "p.pem"), ("p2.key", "p.key")] {
        fs::copy(realm.file(from), realm.file(to)).unwrap();
    }
    agent.signal("HUP");
    agent.err_line("SIGHUP: certificates and weight reloaded");
    held.write_all(b"a").unwrap();
    held.read_exact(&mut [0]).unwrap();
    // Sessions that are there stay as they are; the next one has the new name.
    realm.restart_hub();
    assert!(realm.hub.out_line("serviceProvider").contains("CN=p2"));
}

fn ctl(realm: &Realm, arguments: &[&str]) -> Output {
    let control = realm.file("control");
    Command::new(path_of("spnhub")).args(["ctl", "--control", &control]).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_operator_asks_pauses_and_drains() {
    let mut realm = Realm::start(|inventory| inventory);
    realm.hub.signal("INT");
    realm.hub.wait();
    let (inventory, control) = (realm.file("inventory.yaml"), realm.file("control"));
    let start = || Program::start("spnhub", &["-c", &inventory, "--control", &control]);
    realm.hub = start();
    realm.hub.err_line("listening on");
    assert_eq!(fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o600);
    let mut second = start();
    second.err_line("belongs to another hub, which is running");
    assert_eq!(second.wait().code(), Some(2));
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let mut tcp = connect(address);
    tcp.write_all(b"a").unwrap();
    tcp.read_exact(&mut [0]).unwrap();
    let urn = "urn:chip-in:service:r:hub:s";
    let status = said(&ctl(&realm, &["status"]));
    assert!(
        status.starts_with(&format!("r/hub on 127.0.0.1:{}: 1 providers, 1 consumers, 1 connections", realm.port)),
        "{status}"
    );
    assert!(status.contains(&format!("  {urn}: 1 providers, 1 connections\n")), "{status}");
    // Paused: bytes wait, new connections wait, and nothing is lost.
    assert_eq!(said(&ctl(&realm, &["pause", urn])), format!("{urn}: paused\n"));
    let end = realm.hub.out_line("endSpnConnection");
    assert!(end.contains(r#""disconnectReason":"closed""#), "{end}");
    tcp.write_all(b"b").unwrap();
    let mut early = connect(address);
    early.write_all(b"c").unwrap();
    for tcp in [&mut tcp, &mut early] {
        tcp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let json = said(&ctl(&realm, &["--json", "status"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["hubs"][0]["paused"], 1);
    assert_eq!(json["hubs"][0]["services"][0]["is_paused"], true);
    assert_eq!(said(&ctl(&realm, &["unpause", urn])), format!("{urn}: unpaused\n"));
    for tcp in [&mut tcp, &mut early] {
        tcp.read_exact(&mut [0]).unwrap();
    }
    let unknown = ctl(&realm, &["pause", "urn:none"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown service urn:none"));
    assert!(said(&ctl(&realm, &["reload"])).starts_with("loading the inventory again"));
    realm.hub.err_line("unchanged");
    said(&ctl(&realm, &["drain"]));
    assert_eq!(realm.hub.wait().code(), Some(0));
    assert!(!fs::exists(&control).unwrap(), "its file is gone");
    let nobody = ctl(&realm, &["status"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("was it started with --control"), "{nobody:?}");
    // The socket of a killed hub is replaced.
    realm.hub = start();
    realm.hub.err_line("listening on");
    realm.hub.signal("KILL");
    realm.hub.wait();
    realm.hub = start();
    realm.hub.err_line("listening on");
    said(&ctl(&realm, &["status"]));
}
