//! `towline proxy` as its operator and its clients know it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use towline_tests::{
    needs,
    programs::{PATIENCE, Program, free_tcp_address, path_of},
    servers::{NameServer, abort, connect, serve},
};

const BIG: usize = 10_000_000;

/// `small`, `big`, `slow` (a second in the middle), `echo` (the head itself); anything else is none.
fn origin() -> u16 {
    let answer = |mut tcp: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        match head.split(u8::is_ascii_whitespace).nth(1) {
            Some(b"big") => tcp.write_all(&vec![b'x'; BIG])?,
            Some(b"small") => tcp.write_all(b"a small file")?,
            Some(b"echo") => tcp.write_all(&head)?,
            Some(b"slow") => {
                tcp.write_all(b"first ")?;
                thread::sleep(Duration::from_secs(1));
                tcp.write_all(b"last")?;
            }
            _ => {}
        }
        tcp.shutdown(Shutdown::Write)
    };
    serve(answer).port()
}

/// The program, and where it listens.
fn start(arguments: &[&str]) -> (Program, SocketAddr) {
    let given = ["proxy", "--listen", "127.0.0.1:0"];
    let proxy = Program::start("towline", &[&given, arguments].concat());
    let line = proxy.err_line("listening on ");
    let address = line.split("listening on ").nth(1).and_then(|text| text.parse().ok()).expect("an address");
    (proxy, address)
}

fn fails(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(path_of("towline")).args(arguments).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn fetch(address: SocketAddr, head: &[u8]) -> io::Result<Vec<u8>> {
    finish(connect(address), head)
}

fn finish(mut tcp: TcpStream, head: &[u8]) -> io::Result<Vec<u8>> {
    tcp.write_all(head)?;
    let mut body = Vec::new();
    tcp.read_to_end(&mut body).map(|_| body)
}

/// A connection that comes from another of the addresses of loopback.
fn connect_from(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

#[test]
fn json_records_say_what_was_done() {
    let port = origin().to_string();
    let (mut proxy, address) = start(&["--origin-port", &port, "--allow-all"]);
    for head in [&b"127.0.0.1 small\r\n\r\n"[..], b"127.0.0.1 small\r\n\r\n", b"127.0.0.1 none\r\n\r\n", b"one\r\n\r\n"]
    {
        fetch(address, head).unwrap();
    }
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    let records: Vec<Value> = proxy.out().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let fields = |record: &Value| {
        assert!(record["at"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{record}");
        assert!(record["ms"].is_u64() && record.as_object().map(serde_json::Map::len) == Some(7), "{record}");
        format!("{} {} {} {} {}", record["server"], record["file"], record["hit"], record["outcome"], record["bytes"])
    };
    assert_eq!(
        records.iter().map(fields).collect::<Vec<_>>(),
        [
            r#""127.0.0.1" "small" false "served" 12"#,
            r#""127.0.0.1" "small" true "served" 12"#,
            r#""127.0.0.1" "none" false "no_such_file" 0"#,
            r#""" "" false "malformed" 0"#
        ]
    );
    let end = proxy.err_line("ended");
    for count in ["accepted=4", "malformed=1", "hits=1", "misses=2", "fetches=2", "bytes_out=24"] {
        assert!(end.contains(count), "{end}");
    }
}

#[test]
fn a_log_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (port, path) = (origin().to_string(), log.to_str().unwrap());
    for _ in 0..2 {
        let (mut proxy, address) = start(&["--origin-port", &port, "--compat", "sample", "--log", path]);
        assert_eq!(fetch(address, b"127.0.0.1 small \r\n\r\n").unwrap(), b"a small file");
        proxy.signal("INT");
        assert!(proxy.wait().success());
    }
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> =
        text.split("\n\n").map(|entry| entry.split_once(' ').map_or(entry, |(_, rest)| rest)).collect();
    let entries = ["small 127.0.0.1 0 ", "small 127.0.0.1 1 "];
    let header = "filename servername caching_status";
    assert_eq!(lines, [&[header][..], &entries, &entries, &[""]].concat(), "one header");
}

#[test]
fn sigterm_ends_with_the_last_transaction() {
    let port = origin().to_string();
    let (mut proxy, address) = start(&["--origin-port", &port, "--allow-all"]);
    let mut tcp = connect(address);
    tcp.write_all(b"127.0.0.1 slow\r\n\r\n").unwrap();
    let mut first = [0; 6];
    tcp.read_exact(&mut first).unwrap();
    proxy.signal("TERM");
    proxy.err_line("SIGTERM");
    // No client is accepted any more; the last ones may still be in the queue.
    let began = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it still listens");
        thread::sleep(Duration::from_millis(5));
    }
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).unwrap();
    assert_eq!((&first[..], &rest[..]), (&b"first "[..], &b"last"[..]));
    assert!(proxy.wait().success());
}

#[test]
fn the_second_sigterm_ends_at_once() {
    let port = origin().to_string();
    let (mut proxy, address) = start(&["--origin-port", &port, "--allow-all"]);
    let mut idle = connect(address);
    // It is there when another one has been served.
    fetch(address, b"127.0.0.1 small\r\n\r\n").unwrap();
    proxy.signal("TERM");
    proxy.err_line("SIGTERM");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert_eq!(idle.read(&mut [0; 9]).unwrap(), 0);
    assert!(proxy.out().iter().any(|line| line.contains(r#""outcome":"shut_down""#)), "{:?}", proxy.out());
}

#[test]
fn without_any_allow_nothing_is_fetched() {
    let port = origin().to_string();
    let (proxy, address) = start(&["--origin-port", &port]);
    proxy.err_line("nothing will be fetched: no server is allowed; give --allow, --allow-net or --allow-all");
    assert_eq!(fetch(address, b"127.0.0.1 small\r\n\r\n").unwrap(), b"");
    proxy.out_line("refused_origin");
}

#[test]
fn only_what_is_allowed_is_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    fs::write(
        &file,
        "# these\nfiles.test 127.0.0.1\nINSIDE.test 127.0.0.2 # private, too\nempty.test\nother.org 127.0.0.1\n",
    )
    .unwrap();
    let (port, hosts) = (origin().to_string(), file.to_str().unwrap());
    let given = ["--origin-port", &port, "--hosts", hosts, "--allow", "*.test", "--allow-net", "127.0.0.1/32"];
    let (proxy, address) = start(&given);
    let outcome = |server: &str| {
        let body = fetch(address, format!("{server} small\r\n\r\n").as_bytes()).unwrap();
        let line = proxy.out_line(&format!(r#""server":"{server}""#));
        let record: Value = serde_json::from_str(&line).unwrap();
        (String::from_utf8(body).unwrap(), record["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(outcome("files.test"), ("a small file".to_owned(), "served".to_owned()));
    for (server, why) in [
        ("other.org", "refused_origin"),
        ("inside.test", "refused_origin"),
        ("empty.test", "resolve_failed"),
        ("none.test", "resolve_failed"),
        ("127.0.0.2", "refused_origin"),
    ] {
        assert_eq!(outcome(server), (String::new(), why.to_owned()), "{server}");
    }
}

#[test]
fn no_one_is_sent_in_a_circle() {
    let address = free_tcp_address();
    let port = address.port().to_string();
    let listen = address.to_string();
    let proxy = Program::start("towline", &["proxy", "--listen", &listen, "--origin-port", &port, "--allow-all"]);
    proxy.err_line("listening on ");
    assert_eq!(fetch(address, b"127.0.0.1 small\r\n\r\n").unwrap(), b"");
    proxy.out_line("refused_origin");
}

#[test]
fn bad_starts_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    fs::write(&file, "a.test 192.0.2.1\nb.test nowhere\n").unwrap();
    let hosts = file.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let given = ["proxy", "--origin-port", "80", "--listen"];
    let with = |rest: &[&str]| fails(&[&given, rest].concat());
    for (rest, code, words) in [
        (&["127.0.0.1:0", "--hosts", hosts][..], 1, "line 2: expected NAME ADDRESS…, found \"nowhere\""),
        (&["127.0.0.1:0", "--hosts", "/no/such/file"], 2, "cannot read /no/such/file"),
        (&[&taken], 2, "is something else running there?"),
        (&["127.0.0.1:0", "--log", "/no/such/dir/log"], 2, "cannot write to /no/such/dir/log"),
        (&["127.0.0.1:0", "--allow-net", "10.0.0.0/33"], 2, "expected ADDRESS/BITS"),
        (&["127.0.0.1:0", "--allow", "a*b"], 2, "expected a name or *.SUFFIX"),
        (&["127.0.0.1:0", "--head-timeout", "0"], 2, "expected a number of seconds above 0"),
        (&["localhost"], 2, "invalid"),
    ] {
        let (status, text) = with(rest);
        assert!(status == Some(code) && text.contains(words), "{rest:?}: {status:?} {text}");
    }
    let (status, text) = fails(&["proxy", "--listen", "127.0.0.1:0", "--origin-port", "0"]);
    assert!(status == Some(2) && text.contains("--origin-port"), "{text}");
}

#[test]
fn names_are_asked_of_the_resolver() {
    let names = NameServer::start("origin.test", &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
    let (port, resolver) = (origin().to_string(), names.address.to_string());
    let (proxy, address) = start(&["--origin-port", &port, "--allow-all", "--resolver", &resolver]);
    // Nothing listens on ::1: it is tried, and the other one serves.
    assert_eq!(fetch(address, b"origin.test small\r\n\r\n").unwrap(), b"a small file");
    assert_eq!(fetch(address, b"none.test small\r\n\r\n").unwrap(), b"");
    proxy.out_line("resolve_failed");
}

/// A day of bad clients in a few seconds: those who are good are served all the while, and memory stays what it was.
#[test]
fn hostile_clients_do_no_harm() {
    let port = origin().to_string();
    let given = ["--origin-port", &port, "--allow-all", "--head-timeout", "2", "--log", "/dev/null"];
    let (mut proxy, address) = start(&given);
    let honest = |nth: u8| {
        let body = finish(connect_from(Ipv4Addr::new(127, 9, 9, nth), address), b"127.0.0.1 small\r\n\r\n");
        assert_eq!(body.unwrap(), b"a small file", "honest client {nth}");
    };
    honest(1);
    fetch(address, b"127.0.0.1 big\r\n\r\n").unwrap();
    let before = proxy.resident();

    // More of them than there may be at once, from many addresses.
    let hostile = |network: u8, habit: fn(TcpStream) -> io::Result<()>| {
        for nth in 0..60 {
            for subnet in 0..6 {
                let _ = habit(connect_from(Ipv4Addr::new(127, network, subnet, nth % 2 + 1), address));
            }
        }
    };
    let mut held = Vec::new();
    // Those that never say anything, or never end, or never read.
    for nth in 0..1400u32 {
        let from = Ipv4Addr::new(127, 1, (nth / 60) as u8, 1);
        let mut tcp = connect_from(from, address);
        let words: &[u8] = match nth % 4 {
            0 => b"",
            1 => b"127.0.0.1 never-ends",
            2 => b"127.0.0.1 big\r\n\r\n",
            _ => b"127.0.0.1 small\r\n\r\n and more and more and more",
        };
        let _ = tcp.write_all(words);
        held.push(tcp);
    }
    honest(2);
    // Malformed heads; ends in the middle; NULs; floods after the head; resets at once.
    hostile(2, |mut tcp| tcp.write_all(&[b'x'; 9000]));
    hostile(3, |mut tcp| {
        tcp.write_all(b"127.0.0.1 half")?;
        tcp.shutdown(Shutdown::Both)
    });
    honest(3);
    hostile(4, |mut tcp| tcp.write_all(b"\0\0\0 \0\0\r\n\r\n"));
    hostile(5, |mut tcp| {
        tcp.write_all(b"127.0.0.1 small\r\n\r\n")?;
        tcp.set_write_timeout(Some(Duration::from_millis(10)))?;
        tcp.write_all(&[b'x'; 300_000])
    });
    hostile(6, |mut tcp| {
        tcp.write_all(b"127.0.0.1 big\r\n\r\n")?;
        abort(tcp);
        Ok(())
    });
    honest(4);
    // As many different objects that do not exist.
    for nth in 0..500 {
        let mut tcp = connect_from(Ipv4Addr::new(127, 7, nth as u8, 1), address);
        let _ = tcp.write_all(format!("127.0.0.1 none{nth}\r\n\r\n").as_bytes());
    }
    honest(5);
    let most = 100 << 20;
    let after = proxy.resident();
    assert!(after < before + most, "{before} bytes before, {after} after");
    drop(held);
    honest(6);
    proxy.signal("INT");
    assert!(proxy.wait().success(), "{:?}", proxy.err());
    assert!(!proxy.err().iter().any(|line| line.contains("panicked")), "{:?}", proxy.err());
}

#[test]
fn it_listens_on_both_families() {
    if !needs::ipv6() {
        return;
    }
    let port = origin().to_string();
    let given = ["proxy", "--listen", "127.0.0.1:0", "[::1]:0", "--origin-port", &port, "--allow-all"];
    let proxy = Program::start("towline", &given);
    for ip in ["127.0.0.1:", "[::1]:"] {
        let line = proxy.err_line(&format!("listening on {ip}"));
        let address: SocketAddr = line.split("listening on ").nth(1).and_then(|text| text.parse().ok()).unwrap();
        assert!(matches!(address.ip(), IpAddr::V4(_)) == ip.starts_with('1'));
        assert_eq!(fetch(address, b"127.0.0.1 echo\r\n\r\n").unwrap(), b"127.0.0.1 echo \r\n\r\n");
    }
}
