//! The caching proxy over real sockets, on both runtimes: the same tests for the same loop.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use towline_core::{
    net::Hosts,
    txn::{allow::Allow, proxy::Config},
};
use towline_tests::servers::{NameServer, abort, connect, serve as serve_tcp};

/// What a test needs of a proxy that runs.
struct Running {
    address: SocketAddr,
    drain: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Drains the proxy, which then ends by itself.
    fn drain(mut self) {
        (self.drain)();
        self.thread.take().expect("a thread").join().expect("an end");
    }
}

macro_rules! start {
    ($runtime:ident, $config:expr, $dns:expr, $block_on:expr) => {{
        use $runtime::{proxy::Names, resolve::Resolver};
        let hosts = || Names::Hosts(Arc::new(Hosts::parse("origin.test 127.0.0.1").unwrap()));
        let names = $dns.map_or_else(hosts, |server| Names::Dns(Resolver::at(server)));
        let (tell, told) = std::sync::mpsc::channel();
        let config = $config;
        let thread = thread::spawn(move || {
            $block_on(async move {
                let listen = [SocketAddr::from(([127, 0, 0, 1], 0))];
                let (control, local, task) = $runtime::proxy::serve(config, &listen, names, |_, _| {}).unwrap();
                tell.send((control, local[0])).unwrap();
                task.await;
            });
        });
        let (control, address) = told.recv().unwrap();
        Running { address, drain: Box::new(move || control.drain()), thread: Some(thread) }
    }};
}

/// Where names are asked for; without a server there is a list.
type Dns = Option<SocketAddr>;

fn on_tokio(config: Config, dns: Dns) -> Running {
    start!(towline_tokio, config, dns, |task| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(task)
    })
}

fn on_smol(config: Config, dns: Dns) -> Running {
    start!(towline_smol, config, dns, smol::block_on)
}

const BIG: usize = 3_000_000;

/// Answers one head: `big` and `small` are files, `broken` breaks off in the middle, anything else is none.
fn origin(asked: Arc<AtomicUsize>) -> SocketAddr {
    serve_tcp(move |mut tcp: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        asked.fetch_add(1, Ordering::SeqCst);
        match head.split(u8::is_ascii_whitespace).nth(1) {
            Some(b"big") => tcp.write_all(&vec![b'x'; BIG])?,
            Some(b"small") => tcp.write_all(b"a small file")?,
            Some(b"broken") => {
                tcp.write_all(&vec![b'x'; 1000])?;
                abort(tcp);
                return Ok(());
            }
            _ => {}
        }
        tcp.shutdown(Shutdown::Write)
    })
}

fn ask(address: SocketAddr, pieces: &[&[u8]], half_close: bool) -> io::Result<Vec<u8>> {
    let mut tcp = connect(address);
    for piece in pieces {
        tcp.write_all(piece)?;
    }
    if half_close {
        tcp.shutdown(Shutdown::Write)?;
    }
    let mut reply = Vec::new();
    tcp.read_to_end(&mut reply)?;
    Ok(reply)
}

fn setting(change: impl FnOnce(&mut Config)) -> (Config, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut config = Config::default();
    config.transaction.origin_port = origin(asked.clone()).port();
    config.transaction.allow = Allow::everything();
    change(&mut config);
    (config, asked)
}

fn files_are_fetched_once(start: fn(Config, Dns) -> Running) {
    let (config, asked) = setting(|_| {});
    let proxy = start(config, None);
    for _ in 0..2 {
        assert_eq!(ask(proxy.address, &[b"origin.test small \r\n\r\n"], false).unwrap(), b"a small file");
        let big = ask(proxy.address, &[b"origin.", b"test big\r", b"\n\r\n"], true).unwrap();
        assert_eq!((big.len(), big.iter().all(|&byte| byte == b'x')), (BIG, true));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "the second time they come out of the cache");
    // What comes behind a head is no second request, and no reason for a reset.
    let surplus = b"origin.test small\r\n\r\norigin.test big\r\n\r\n";
    assert_eq!(ask(proxy.address, &[surplus], false).unwrap(), b"a small file");
    for nothing in [&b"origin.test none \r\n\r\n"[..], b"elsewhere.test small \r\n\r\n", b"malformed\r\n\r\n"] {
        assert_eq!(ask(proxy.address, &[nothing], false).unwrap(), b"");
    }
    proxy.drain();
}

fn a_broken_origin_is_a_reset_and_never_kept(start: fn(Config, Dns) -> Running) {
    let (config, asked) = setting(|_| {});
    let proxy = start(config, None);
    for _ in 0..2 {
        let error = ask(proxy.address, &[b"origin.test broken \r\n\r\n"], false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    proxy.drain();
}

fn many_at_once_ask_the_origin_once(start: fn(Config, Dns) -> Running) {
    let (config, asked) = setting(|config| config.max_per_client = 1000);
    let proxy = start(config, None);
    let address = proxy.address;
    let clients: Vec<_> =
        (0..100).map(|_| thread::spawn(move || ask(address, &[b"origin.test big \r\n\r\n"], false))).collect();
    for client in clients {
        assert_eq!(client.join().unwrap().unwrap().len(), BIG);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    proxy.drain();
}

/// Whatever the form of a client's head, the origin gets the head of the cache key.
fn nobody_plants_the_answer_to_another_question(start: fn(Config, Dns) -> Running) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let origin = serve_tcp(move |mut tcp: TcpStream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        tcp.write_all(&head)?;
        seen.lock().unwrap().push(String::from_utf8(head).unwrap());
        tcp.shutdown(Shutdown::Write)
    });
    for is_strict in [false, true] {
        let (mut config, _) = setting(|config| config.transaction.strict_head = is_strict);
        config.transaction.origin_port = origin.port();
        let proxy = start(config, None);
        for (nth, head) in
            ["origin.test  F", "  origin.test F ", "origin.test F", "origin.test F evil ", "origin.test  F  evil"]
                .into_iter()
                .enumerate()
        {
            let file = format!("file{nth}");
            let plain = format!("origin.test {file} \r\n\r\n");
            let planted = ask(proxy.address, &[format!("{}\r\n\r\n", head.replace('F', &file)).as_bytes()], false);
            let is_refused = is_strict && head.contains("evil");
            assert_eq!(planted.unwrap(), if is_refused { b"" } else { plain.as_bytes() }, "{head}");
            assert_eq!(ask(proxy.address, &[plain.as_bytes()], false).unwrap(), plain.as_bytes());
            assert_eq!(std::mem::take(&mut *heads.lock().unwrap()), [plain], "asked once, and for this: {head}");
        }
        proxy.drain();
    }
}

/// The time limit of a head is so long that a client that has to wait for it fails.
fn slow_heads_keep_nobody_out(start: fn(Config, Dns) -> Running) {
    let (config, _) = setting(|config| {
        config.accept.max_transactions = 40;
        config.accept.max_heads = 30;
        config.accept.drain_timeout = Duration::from_millis(1);
        config.transaction.head_timeout = Duration::from_secs(1000);
        config.transaction.transaction_timeout = Duration::from_secs(1000);
    });
    let proxy = start(config, None);
    let mut slow: Vec<_> = (0..100).map(|_| connect(proxy.address)).collect();
    for tcp in &mut slow {
        tcp.write_all(b"origin.t").unwrap();
    }
    for _ in 0..3 {
        assert_eq!(ask(proxy.address, &[b"origin.test small \r\n\r\n"], false).unwrap(), b"a small file");
    }
    // The last of them are still welcome.
    let mut last = slow.pop().unwrap();
    last.write_all(b"est small \r\n\r\n").unwrap();
    let mut reply = Vec::new();
    last.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"a small file");
    proxy.drain();
}

/// Many names get no answer; a name that has an answer is resolved nevertheless.
fn slow_names_keep_nobody_out(start: fn(Config, Dns) -> Running) {
    let names = NameServer::start_silent("origin.test", &[[127, 0, 0, 1].into()]);
    let (config, _) = setting(|config| {
        config.accept.drain_timeout = Duration::from_millis(1);
        config.lookups.max_asking = 8;
        config.lookups.max_waiting = 20;
        config.lookups.longest_wait = Duration::from_secs(1000);
        config.transaction.resolve_timeout = Duration::from_secs(1000);
        config.transaction.transaction_timeout = Duration::from_secs(1000);
    });
    let proxy = start(config, Some(names.address));
    let mut crowd: Vec<_> = (0..60).map(|_| connect(proxy.address)).collect();
    for (nth, tcp) in crowd.iter_mut().enumerate() {
        tcp.write_all(format!("silent{nth}.test small \r\n\r\n").as_bytes()).unwrap();
        tcp.set_nonblocking(true).unwrap();
    }
    // All of the crowd has been read when 8 of it ask, 20 wait, and the others have given way.
    let mut in_the_way = crowd.len() - 8 - 20;
    while in_the_way > 0 {
        let before = crowd.len();
        crowd.retain_mut(|tcp| tcp.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        in_the_way = in_the_way.saturating_sub(before - crowd.len());
        thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..3 {
        assert_eq!(ask(proxy.address, &[b"origin.test small \r\n\r\n"], false).unwrap(), b"a small file");
    }
    proxy.drain();
}

/// Each test on each runtime.
macro_rules! on_both {
    ($($test:ident),+) => {
        mod tokio_loop {
            $(#[test] fn $test() { super::$test(super::on_tokio); })+
        }
        mod smol_loop {
            $(#[test] fn $test() { super::$test(super::on_smol); })+
        }
    };
}

on_both!(
    files_are_fetched_once,
    a_broken_origin_is_a_reset_and_never_kept,
    many_at_once_ask_the_origin_once,
    nobody_plants_the_answer_to_another_question,
    slow_heads_keep_nobody_out,
    slow_names_keep_nobody_out
);
