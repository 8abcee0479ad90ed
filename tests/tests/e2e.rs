//! The real programs on loopback, end to end.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use quinn::{ConnectionError, VarInt};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, date_time_ymd};
use towline_core::spn::{
    Role,
    wire::{
        frame::Flags,
        frame::{Frame, SessionOpen},
    },
};
use towline_tests::{
    legacy::{self, Session},
    needs,
    programs::{Program, Realm, free_tcp_address},
    servers::{Pattern, abort, connect, digest, echo, send, serve},
};
use towline_tokio::cli::pki::{Authority, Pair};

/// Hub, provider, consumer.
struct Path {
    realm: Realm,
    provider: Program,
    consumer: Program,
    address: SocketAddr,
}

fn path(server: SocketAddr) -> Path {
    let realm = Realm::start(|inventory| inventory);
    let provider = realm.provider("p", server);
    let (consumer, address) = realm.consumer("c");
    Path { realm, provider, consumer, address }
}

fn read_all(mut tcp: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes).map(|_| bytes)
}

/// A whole echo over one connection.
fn echo_works(address: SocketAddr, text: &[u8]) {
    let tcp = connect(address);
    (&tcp).write_all(text).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&tcp).unwrap(), text);
}

#[test]
fn curl_through_the_demo() {
    let Some(curl) = needs::program("curl", "curl") else { return };
    let mut demo = Program::start("spnhub", &["demo"]);
    let address = demo.err_line("listening on ").replace("listening on ", "");
    let page = Command::new(curl).args(["-sS", "-m", "10", &format!("http://{address}/")]).output().unwrap();
    assert!(String::from_utf8_lossy(&page.stdout).contains("came through an SPN hub"), "{page:?}");
    let end = demo.out_line("endSpnConnection");
    assert!(end.contains(r#""disconnectReason":"closed""#), "{end}");
    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0));
    demo.out_line("endSpnSession");
    let count = |event| demo.out().iter().filter(|line| line.contains(event)).count();
    assert_eq!((count("startSpnSession"), count("endSpnSession")), (2, 2), "{:#?}", demo.out());
}

#[test]
fn a_gibibyte_each_way() {
    const SIZE: u64 = 1 << 30;
    let (hashes, hashed) = mpsc::channel();
    let server = serve(move |tcp| {
        let down = tcp.try_clone()?;
        let sender = thread::spawn(move || {
            send(&down, Pattern::new(2, SIZE))?;
            down.shutdown(Shutdown::Write)
        });
        let _ = hashes.send(digest(&tcp)?);
        sender.join().expect("the sender")
    });
    let path = path(server);
    let tcp = connect(path.address);
    let up = tcp.try_clone().unwrap();
    let sender = thread::spawn(move || {
        send(&up, Pattern::new(1, SIZE)).unwrap();
        up.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(digest(&tcp).unwrap(), digest(Pattern::new(2, SIZE)).unwrap(), "down");
    sender.join().unwrap();
    assert_eq!(hashed.recv().unwrap(), digest(Pattern::new(1, SIZE)).unwrap(), "up");
    let record = path.realm.hub.out_line("endSpnConnection");
    assert!(record.contains(&format!(r#""totalSentBytes":{SIZE},"totalReceiveBytes":{SIZE}"#)), "{record}");
    assert!(path.realm.hub.resident() < 100 << 20, "{} bytes", path.realm.hub.resident());
}

#[test]
fn five_hundred_at_once() {
    let path = path(serve(echo));
    let clients: Vec<TcpStream> = (0..500).map(|_| connect(path.address)).collect();
    for (nth, mut client) in clients.iter().enumerate() {
        client.write_all(format!("client {nth}").as_bytes()).unwrap();
    }
    // All are open, and each has its own echo.
    for (nth, mut client) in clients.iter().enumerate() {
        let expected = format!("client {nth}");
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, expected.as_bytes());
    }
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(client).unwrap(), b"");
    }
}

#[test]
fn a_server_that_speaks_first() {
    let path = path(serve(|mut tcp| tcp.write_all(b"220 ready\r\n")));
    assert_eq!(read_all(&connect(path.address)).unwrap(), b"220 ready\r\n");
}

#[test]
fn half_closes_pass_in_both_ways() {
    // It answers only after the client's end of data, and the client after the server's.
    let (ends, ended) = mpsc::channel();
    let path = path(serve(move |mut tcp| {
        let mut first = [0; 5];
        tcp.read_exact(&mut first)?;
        match &first {
            b"UPEND" => {
                let rest = read_all(&tcp)?;
                tcp.write_all(&rest)
            }
            _ => {
                tcp.write_all(b"done")?;
                tcp.shutdown(Shutdown::Write)?;
                ends.send(read_all(&tcp)?).map_err(io::Error::other)
            }
        }
    }));
    echo_like(path.address);
    let tcp = connect(path.address);
    (&tcp).write_all(b"DOWNE").unwrap();
    assert_eq!(read_all(&tcp).unwrap(), b"done");
    (&tcp).write_all(b"late").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ended.recv_timeout(Duration::from_secs(10)).unwrap(), b"late");
}

fn echo_like(address: SocketAddr) {
    let tcp = connect(address);
    (&tcp).write_all(b"UPENDabc").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&tcp).unwrap(), b"abc");
}

fn is_reset(result: io::Result<Vec<u8>>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn a_reset_is_a_reset_at_the_other_end() {
    let (results, result) = mpsc::channel();
    let path = path(serve(move |mut tcp| {
        let mut first = [0; 4];
        tcp.read_exact(&mut first)?;
        tcp.write_all(&[7; 200_000])?;
        if &first == b"DOWN" {
            abort(tcp);
            return Ok(());
        }
        results.send(read_all(&tcp)).map_err(io::Error::other)
    }));
    let down = connect(path.address);
    (&down).write_all(b"DOWN").unwrap();
    assert!(is_reset(read_all(&down)), "the server's RST reaches the client");

    let mut up = connect(path.address);
    up.write_all(b"UPUP").unwrap();
    up.read_exact(&mut vec![0; 200_000]).unwrap();
    abort(up);
    assert!(is_reset(result.recv_timeout(Duration::from_secs(10)).unwrap()), "the client's RST reaches the server");
    drop(path.provider);
    path.realm.hub.out_line("endSpnSession");
    let ends: Vec<String> = path.realm.hub.out().into_iter().filter(|line| line.contains("endSpnConnection")).collect();
    assert_eq!(ends.len(), 2, "{ends:#?}");
    for end in ends {
        assert!(end.contains(r#""disconnectReason":"closedByPeer""#), "no abort is recorded as closed: {end}");
    }
}

#[test]
fn an_abort_is_heard_though_nobody_takes_its_bytes() {
    let (results, result) = mpsc::channel();
    let path = path(serve(move |tcp| {
        // It reads only when the client has gone.
        thread::sleep(Duration::from_secs(4));
        results.send(read_all(&tcp)).map_err(io::Error::other)
    }));
    let tcp = connect(path.address);
    tcp.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while (&tcp).write(&[0; 65_536]).is_ok() {}
    let began = Instant::now();
    abort(tcp);
    let record = path.realm.hub.out_line("endSpnConnection");
    assert!(
        record.contains("closedByPeer") && began.elapsed() < Duration::from_secs(3),
        "{:?} {record}",
        began.elapsed()
    );
    assert!(
        is_reset(result.recv_timeout(Duration::from_secs(10)).unwrap()),
        "and the server does not take it for an end"
    );
}

#[test]
fn a_service_that_cannot_be_reached_is_a_reset() {
    let path = path(free_tcp_address());
    assert!(is_reset(read_all(&connect(path.address))));
    path.provider.err_line("cannot reach the service");
}

#[test]
fn a_killed_provider_is_noticed_and_the_next_takes_over() {
    let realm = Realm::start(|inventory| inventory);
    realm.add(&["--service", "s", "--provider", "p2"]);
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let named = |name: &'static [u8]| {
        serve(move |mut tcp: TcpStream| {
            tcp.write_all(name)?;
            read_all(&tcp).map(drop)
        })
    };
    let (mut first, _second) = (realm.provider("p", named(b"1")), realm.provider("p2", named(b"2")));
    let (_consumer, address) = realm.consumer("c");
    let greeting = || {
        let mut tcp = connect(address);
        let mut name = [0];
        tcp.read_exact(&mut name).map(|()| (tcp, name[0]))
    };
    // They are balanced: of two connections each gets one.
    let (a, b) = (greeting().unwrap(), greeting().unwrap());
    let mut names = [a.1, b.1];
    names.sort_unstable();
    assert_eq!(&names, b"12");
    let (of_first, of_second) = if a.1 == b'1' { (a.0, b.0) } else { (b.0, a.0) };
    // SIGINT closes its session, so the hub knows at once.
    first.signal("INT");
    first.wait();
    let began = Instant::now();
    assert!(is_reset(read_all(&of_first)));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(greeting().unwrap().1, b'2');
    of_second.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&of_second).unwrap(), b"", "the other provider's connection is untouched");
}

/// A megabyte there and back, ten times; how long that took.
fn ten_megabytes(address: SocketAddr) -> Duration {
    let began = Instant::now();
    for nth in 0..10 {
        let tcp = connect(address);
        (&tcp).write_all(b"E").unwrap();
        let up = tcp.try_clone().unwrap();
        let sender = thread::spawn(move || {
            send(&up, Pattern::new(nth, 1 << 20)).unwrap();
            up.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!(digest(&tcp).unwrap(), digest(Pattern::new(nth, 1 << 20)).unwrap());
        sender.join().unwrap();
    }
    began.elapsed()
}

#[test]
fn stalled_readers_cost_no_memory_and_no_neighbour_its_speed() {
    // A server that never reads, or writes without end, or echoes.
    let path = path(serve(|tcp| {
        let mut first = [0];
        (&tcp).read_exact(&mut first)?;
        match first[0] {
            b'S' => thread::sleep(Duration::from_secs(60)),
            b'W' => while (&tcp).write_all(&[0; 65_536]).is_ok() {},
            _ => return echo(tcp),
        }
        Ok(())
    }));
    let free = ten_megabytes(path.address);
    let before = path.realm.hub.resident();
    let stalled: Vec<TcpStream> = (0..16)
        .map(|nth| {
            let tcp = connect(path.address);
            // Half of them are not read by the server, half not by the client.
            (&tcp).write_all(if nth % 2 == 0 { b"S" } else { b"W" }).unwrap();
            tcp.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            // Until nothing more goes in: every buffer on the way is full.
            while nth % 2 == 0 && (&tcp).write(&[0; 65_536]).is_ok() {}
            tcp
        })
        .collect();
    thread::sleep(Duration::from_secs(1));
    let full = path.realm.hub.resident();
    assert!(full.saturating_sub(before) < 64 << 20, "{} bytes for 16 stalled readers", full - before);
    // The neighbours in the same session still have the whole path.
    let beside = ten_megabytes(path.address);
    assert!(beside < 4 * free + Duration::from_secs(2), "{beside:?} beside stalled readers, {free:?} without");
    // So has the control stream: an abort goes through it, and a reset comes back.
    let began = Instant::now();
    let ends = || path.realm.hub.out().iter().filter(|line| line.contains("closedByPeer")).count();
    let mut aborted = connect(path.address);
    aborted.write_all(b"E?").unwrap();
    aborted.read_exact(&mut [0]).unwrap();
    abort(aborted);
    while ends() < 1 {
        assert!(began.elapsed() < Duration::from_secs(2), "the control stream is held up");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_secs(1));
    let later = path.realm.hub.resident();
    assert!(later.saturating_sub(full) < 16 << 20, "it grows: {full}, then {later} bytes");
    drop(stalled);
}

#[test]
fn sigterm_pauses_what_is_there_and_the_next_hub_goes_on_with_it() {
    let mut path = path(serve(echo));
    let tcp = connect(path.address);
    (&tcp).write_all(b"before").unwrap();
    let mut got = [0; 6];
    (&tcp).read_exact(&mut got).unwrap();
    path.realm.hub.signal("TERM");
    path.realm.hub.err_line("SIGTERM");
    let began = Instant::now();
    assert_eq!(path.realm.hub.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "nothing is waited for: {:?}", began.elapsed());
    let records = path.realm.hub.out();
    let count = |part: &str| records.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("endSpnSession"), count("endSpnConnection")), (2, 1), "{records:#?}");
    assert!(records.iter().all(|line| !line.contains("error")), "{records:#?}");
    let ended = path.consumer.err_line("session ended");
    let id =
        ended.split("session_id=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("the session's id");
    assert!(records.iter().any(|line| line.contains(id)), "{ended} names a session of {records:#?}");
    assert!(ended.contains("consumer{hub=\"127.0.0.1\"}: session ended"), "{ended}");
    (&tcp).write_all(b"during").unwrap();
    path.realm.hub = Program::start("spnhub", &["-c", &path.realm.file("inventory.yaml")]);
    (&tcp).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"during");
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&tcp).unwrap(), b"");
    let end = path.realm.hub.out_line("endSpnConnection");
    assert!(end.contains(r#""disconnectReason":"closed""#), "{end}");
}

/// Without resume, a hub that drains waits for its connections.
#[test]
fn sigterm_drains_what_cannot_be_paused() {
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer_with("c", &["--pause-max", "0"]);
    let tcp = connect(address);
    (&tcp).write_all(b"x").unwrap();
    (&tcp).read_exact(&mut [0]).unwrap();
    realm.hub.signal("TERM");
    realm.hub.err_line("SIGTERM");
    thread::sleep(Duration::from_millis(300));
    (&tcp).write_all(b"y").unwrap();
    (&tcp).read_exact(&mut [0]).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&tcp).unwrap(), b"");
    assert_eq!(realm.hub.wait().code(), Some(0));
}

#[test]
fn a_restarted_hub_is_found_again() {
    let mut path = path(serve(echo));
    echo_works(path.address, b"one");
    path.realm.hub.signal("KILL");
    path.realm.hub.wait();
    path.realm.hub = Program::start("spnhub", &["-c", &path.realm.file("inventory.yaml")]);
    // Its stateless resets are believed, so this takes no idle timeout.
    let began = Instant::now();
    let end = path.realm.hub.out_line("serviceConsumer");
    assert!(end.contains("startSpnSession") && began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    echo_works(path.address, b"two");
}

#[test]
fn refusals_name_their_reason() {
    let realm = Realm::start(|inventory| inventory);
    let (other, server) = (Realm::start(|inventory| inventory), serve(echo));
    let _provider = realm.provider("p", server);
    let start = |role: &str, env: &str, more: &[&str]| {
        let mut arguments = vec![role, "--env-file", env, "--bind-address", "127.0.0.1:0"];
        if role == "provider" {
            arguments[3] = "--forward-address";
        }
        arguments.extend(more);
        Program::start("spnagent", &arguments)
    };
    // A consumer's certificate with the provider's role.
    let c = realm.file("c.env");
    let agent = start("provider", &c, &[]);
    agent.err_line("code 0x15");
    let refused = "(sc02-provider) \"CN=c\": identity not entitled to this service in this role (code 0x15)";
    let refused = realm.hub.err_line(refused);
    assert!(refused.contains("hub{realm=\"r\" hub=\"hub\"}: refused "), "{refused}");
    // A service that is not there.
    let agent = start("consumer", &c, &["--spn-service-urn", "urn:nothing"]);
    agent.err_line("code 0x16");
    realm.hub.err_line("\"CN=c\": unknown service (code 0x16)");
    // Another realm's CA on both sides: the endpoint does not believe the hub.
    let agent = start("consumer", &other.file("c.env"), &["--spn-hub-port", &realm.port.to_string()]);
    agent.err_line("UnknownIssuer");
    // Another realm's certificate, although the endpoint believes the hub.
    let ca = realm.file("ca.pem");
    let port = realm.port.to_string();
    let agent = start("consumer", &other.file("c.env"), &["--spn-hub-port", &port, "--spn-agent-trust-cert-ca", &ca]);
    realm.hub.err_line("handshake failed: invalid peer certificate: UnknownIssuer");
    agent.err_line("no session");
    // A name that the inventory does not have any more.
    let inventory = realm.file("inventory.yaml");
    let text = std::fs::read_to_string(&inventory).unwrap();
    std::fs::write(&inventory, text.replace("- c\n", "- someone\n")).unwrap();
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let agent = start("consumer", &c, &[]);
    agent.err_line("code 0x15");
    realm.hub.err_line("(sc02-consumer) \"CN=c\": identity not entitled");
}

/// Certificates that no good authority would make, and none at all, at the real hub: by QUIC's own codes (0x100 and the TLS alert).
#[test]
fn certificates_are_judged_at_the_handshake() {
    let realm = Realm::start(|inventory| inventory);
    let text = |name: &str| std::fs::read_to_string(realm.file(name)).unwrap();
    let (ca, key) = (text("ca.pem"), KeyPair::from_pem(&text("ca.key")).unwrap());
    let issuer = Issuer::from_ca_cert_pem(&ca, key).unwrap();
    let expired = {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "c");
        params.not_after = date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() }
    };
    let foreign = Authority::new("r").unwrap().endpoint("c").unwrap();
    let good = Pair { certificate: text("c.pem"), key: text("c.key") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hub = SocketAddr::from(([127, 0, 0, 1], realm.port));
    for (alpn, pair, code, says) in [
        ("sc02-consumer", Some(&expired), 45, "certificate expired"),
        ("sc01-consumer", None, 116, "peer sent no certificates"),
        ("sc01-provider", Some(&foreign), 48, "UnknownIssuer"),
        ("sc03-consumer", Some(&good), 120, "0x178"),
    ] {
        let reason = runtime.block_on(legacy::attempt(alpn, pair, &ca, hub));
        assert!(reason.contains(&format!("error {code}")), "{alpn}: {reason}");
        realm.hub.err_line(says);
    }
    assert_eq!(realm.hub.out(), Vec::<String>::new(), "none of them leaves a record");
}

#[test]
fn malformed_control_frames_close_only_their_own_session() {
    let path = path(serve(echo));
    let mut held = connect(path.address);
    held.write_all(b"a").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let text = |name: &str| std::fs::read_to_string(path.realm.file(name)).unwrap();
    let (ca, pair) = (text("ca.pem"), Pair { certificate: text("c.pem"), key: text("c.key") });
    let hub = SocketAddr::from(([127, 0, 0, 1], path.realm.port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut open = Vec::new();
    let request = SessionOpen {
        version: 1,
        role: Role::Consumer,
        service: String::new(),
        instance: [7; 16],
        weight: 0,
        flags: Flags::NONE,
        hubs: Vec::new(),
    };
    Frame::SessionOpen(request).encode(&mut open);
    let too_long = [&open[..], b"\x21\x80\x00\x40\x01"].concat();
    let twice = [&open[..], &open].concat();
    let unknown = [&open[..], b"\x27\x00"].concat();
    let short = [&open[..], b"\x11\x02xx"].concat();
    for (bytes, code) in
        [(&b"\x21\x01\x05"[..], 0x10), (&too_long, 0x10), (&twice, 0x10), (&unknown, 0x10), (&short, 0x10), (b"", 0x13)]
    {
        let closed = runtime.block_on(async {
            let session = Session::dial(&["sc02-consumer"], &pair, &ca, hub, "127.0.0.1").await;
            let (mut send, _recv) = session.connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            if bytes.is_empty() {
                send.finish().unwrap();
            }
            tokio::time::timeout(Duration::from_secs(10), session.connection.closed()).await.expect("it is closed")
        });
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        assert_eq!(close.error_code, VarInt::from_u32(code), "{:?}", bytes.escape_ascii().to_string());
    }
    path.realm.hub.err_line("code 0x10");
    path.realm.hub.err_line("code 0x13");
    held.write_all(b"b").unwrap();
    held.read_exact(&mut [0]).unwrap();
    echo_works(path.address, b"unharmed");
}

/// SIGKILL sends nothing to the peers: the idle timeout detects it.
#[test]
fn a_provider_that_dies_without_a_word_is_a_reset_and_is_replaced() {
    let realm = Realm::start(|inventory| inventory);
    realm.add(&["--service", "s", "--provider", "p2"]);
    realm.hub.signal("USR1");
    realm.hub.err_line("changed");
    let mut first = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer_with("c", &["--pause-max", "3"]);
    let held = connect(address);
    (&held).write_all(b"x").unwrap();
    (&held).read_exact(&mut [0]).unwrap();
    let second = realm.provider("p2", serve(echo));
    first.signal("KILL");
    first.wait();
    assert!(is_reset(read_all(&held)), "never a clean end, once nobody has come back for 3 s");
    let end = realm.hub.out_line("endSpnSession");
    assert!(end.contains(r#""spnEndPoint":"CN=p""#) && end.contains(r#""terminateReason":"error""#), "{end}");
    echo_works(address, b"the other one");
    drop(second);
}

#[test]
fn garbage_datagrams_are_ignored() {
    let path = path(serve(echo));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = Pattern::new(9, 1 << 20);
    for length in (0..1400).step_by(7) {
        let mut datagram = vec![0; length];
        noise.read_exact(&mut datagram).unwrap();
        socket.send_to(&datagram, ("127.0.0.1", path.realm.port)).unwrap();
    }
    echo_works(path.address, b"still here");
}

#[test]
fn a_reload_changes_rights_and_leaves_the_rest_alone() {
    let path = path(serve(echo));
    let tcp = connect(path.address);
    (&tcp).write_all(b"a").unwrap();
    (&tcp).read_exact(&mut [0]).unwrap();
    let inventory = path.realm.file("inventory.yaml");
    let good = std::fs::read_to_string(&inventory).unwrap();
    // A failed reload keeps the old state and says why.
    std::fs::write(&inventory, "realms: [").unwrap();
    path.realm.hub.signal("USR1");
    path.realm.hub.err_line("reload failed");
    (&tcp).write_all(b"b").unwrap();
    (&tcp).read_exact(&mut [0]).unwrap();
    // A realm without CA harms nobody, not even its own hub that runs.
    std::fs::write(&inventory, good.replace("CERTIFICATE-----", "NONSENSE-----")).unwrap();
    path.realm.hub.signal("USR1");
    path.realm.hub.err_line("no certificate in the PEM text");
    (&tcp).write_all(b"c").unwrap();
    (&tcp).read_exact(&mut [0]).unwrap();
    // The consumer loses its right, and with it its session.
    std::fs::write(&inventory, good.replace("- c\n", "- someone\n")).unwrap();
    path.realm.hub.signal("USR1");
    path.realm.hub.err_line("service urn:chip-in:service:r:hub:s changed");
    assert!(is_reset(read_all(&tcp)));
    path.consumer.err_line("0x15");
}
