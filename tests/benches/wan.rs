//! What a long path carries: `cargo bench -p towline-tests --bench wan [PART OF A ROW'S NAME]`.
//!
//! A consumer agent, a path that delays, loses, reorders or queues, a hub and a provider agent: the real programs, and beside them TCP over
//! the same path in the same minute. Compare columns, not runs: everything runs on this machine, and the faster a row is the more it is the machine's.
//!
//! It needs root, `ip` and /dev/net/tun, and says so where it cannot run. Programs first: `cargo build --release --workspace --bins`.

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path as FilePath,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use towline_tests::{
    programs::{Program, path_of},
    wan::{Link, Namespace, Path},
};

/// A flow lasts so long,
const LASTS: Duration = Duration::from_secs(8);
/// of which this does not count.
const WARM: Duration = Duration::from_secs(3);
const HUB: &str = "10.77.0.2";
const SERVICE: &str = "127.0.0.1:9000";
const CONSUMER: &str = "127.0.0.1:9100";

/// A row of the table.
struct Row {
    name: String,
    path: Path,
    /// Between the hub and the provider, if that is a long way, too.
    second: Option<Path>,
    streams: usize,
    /// From the provider to the consumer.
    back: bool,
}

fn rows() -> Vec<Row> {
    let ms = Duration::from_millis;
    let path = |round_trip, loss| Path { round_trip: ms(round_trip), loss, ..Path::default() };
    let row = |name: &str, path| Row { name: name.to_owned(), path, second: None, streams: 1, back: false };
    let late = |late, by| Path { late: (late, ms(by)), ..path(20, 0) };
    let mut rows = vec![
        row("20 ms", path(20, 0)),
        row("50 ms", path(50, 0)),
        row("100 ms", path(100, 0)),
        row("20 ms, 0.1 % lost", path(20, 1_000)),
        row("20 ms, 1 % lost", path(20, 10_000)),
        row("20 ms, 1 % 1 ms late", late(10_000, 1)),
        row("20 ms, 5 % 5 ms late", late(50_000, 5)),
        Row { streams: 16, ..row("20 ms, 1 % lost, 16 streams", path(20, 10_000)) },
        Row { back: true, ..row("20 ms, 1 % lost, back", path(20, 10_000)) },
        Row { second: Some(path(50, 1_000)), ..row("20 ms, 0.1 % lost; then 50 ms, 0.1 % lost", path(20, 1_000)) },
    ];
    for mbit in [10, 100] {
        for products in [1, 4] {
            let rate = mbit * 125_000;
            let queue = rate * 20 / 1000 * products;
            let name = format!("20 ms, {mbit} Mb/s, queue of {products}");
            rows.push(row(&name, Path { rate, queue, ..path(20, 0) }));
        }
    }
    rows
}

fn main() -> ExitCode {
    let wanted = env::args().skip(1).find(|argument| !argument.starts_with("--"));
    match rows().iter().filter(|row| wanted.as_ref().is_none_or(|part| row.name.contains(part))).try_for_each(measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no path can be played here: {error}\nit needs root, `ip` (iproute2) and /dev/net/tun");
            ExitCode::from(2)
        }
    }
}

/// The namespaces of a row, and what lies between them.
struct World {
    consumer: Namespace,
    hub: Namespace,
    provider: Option<Namespace>,
    _links: Vec<Link>,
}

impl World {
    fn new(row: &Row) -> io::Result<Self> {
        let (consumer, hub) = (Namespace::new("a")?, Namespace::new("b")?);
        let mut links = vec![Link::new([&consumer, &hub], "wan0", 77, row.path)?];
        let mut provider = None;
        if let Some(path) = row.second {
            let far = Namespace::new("c")?;
            links.push(Link::new([&hub, &far], "wan1", 78, path)?);
            consumer.ip("route add 10.78.0.0/24 via 10.77.0.2")?;
            far.ip("route add 10.77.0.0/24 via 10.78.0.1")?;
            let forward = hub.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status()?;
            assert!(forward.success(), "packets are forwarded");
            provider = Some(far);
        }
        Ok(Self { consumer, hub, provider, _links: links })
    }

    fn far(&self) -> &Namespace {
        self.provider.as_ref().unwrap_or(&self.hub)
    }

    /// Where TCP goes directly.
    fn direct(&self) -> SocketAddr {
        let host = if self.provider.is_some() { "10.78.0.2" } else { HUB };
        format!("{host}:9000").parse().expect("an address")
    }
}

/// Mb/s, and the round trip beside it, where the path has a queue.
struct Measured {
    rate: f64,
    ping: Option<Duration>,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}", self.rate)?;
        self.ping.map_or(Ok(()), |ping| write!(f, " ({:.0} ms)", ping.as_secs_f64() * 1e3))
    }
}

fn measure(row: &Row) -> io::Result<()> {
    let mut cells = Vec::new();
    let mut best: f64 = 0.0;
    for congestion in ["cubic", "bbr"] {
        let world = World::new(row)?;
        let direct = world.direct();
        match flow(&world, row, direct, congestion) {
            Ok(measured) => {
                best = best.max(measured.rate);
                cells.push(format!("TCP {congestion} {measured}"));
            }
            Err(error) => cells.push(format!("TCP {congestion}: {error}")),
        }
    }
    for congestion in ["cubic", "bbr"] {
        let world = World::new(row)?;
        let directory = tempfile::tempdir()?;
        let _programs = chain(&world, directory.path(), congestion);
        let measured = flow(&world, row, CONSUMER.parse().expect("an address"), "bbr")?;
        cells.push(format!("ours {congestion} {measured} = {:.2}", measured.rate / best));
    }
    if row.path.rate > 0 {
        cells.push(beside(row)?);
    }
    println!("{}: {}", row.name, cells.join(" | "));
    Ok(())
}

/// Ours beside one TCP flow on the same path: the shares.
fn beside(row: &Row) -> io::Result<String> {
    let world = World::new(row)?;
    let directory = tempfile::tempdir()?;
    let _programs = chain(&world, directory.path(), "bbr");
    let tcp = Row { name: String::new(), path: Path { rate: 0, ..row.path }, second: None, ..*row };
    let direct = SocketAddr::new(world.direct().ip(), 9001);
    let world = &world;
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| flow(world, &tcp, direct, "cubic"));
        let ours = flow(world, row, CONSUMER.parse().expect("an address"), "bbr");
        (theirs.join().expect("a flow"), ours)
    });
    Ok(match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => format!("ours {:.0} beside TCP cubic {:.0}", ours.rate, theirs.rate),
        (Err(error), _) | (_, Err(error)) => format!("beside TCP cubic: {error}"),
    })
}

/// Hub and agents, each in its namespace.
fn chain(world: &World, directory: &FilePath, congestion: &str) -> Vec<Program> {
    let pki = directory.join("pki");
    let pki = pki.to_str().expect("a path in UTF-8");
    let (hub, agent) = (path_of("spnhub"), path_of("spnagent"));
    let (hub, agent) = (hub.to_str().expect("UTF-8"), agent.to_str().expect("UTF-8"));
    let (first, second) = if world.provider.is_some() { ("10.77.0.2", "10.78.0.1") } else { (HUB, HUB) };
    let mut made = Program::start(
        "spnhub",
        &[
            "pki",
            pki,
            "--realm",
            "r",
            "--hub",
            first,
            "--hub",
            second,
            "--service",
            "s",
            "--provider",
            "p",
            "--consumer",
            "c",
            "--forward",
            SERVICE,
            "--bind",
            CONSUMER,
        ],
    );
    assert!(made.wait().success(), "{:?}", made.err());
    let inventory = format!("{pki}/inventory.yaml");
    let mut programs = Vec::new();
    let hub = Program::spawn(world.hub.command(hub).args(["-c", &inventory, "--congestion", congestion]));
    hub.err_line("listening");
    programs.push(hub);
    for (namespace, role, name, host) in
        [(world.far(), "provider", "p", second), (&world.consumer, "consumer", "c", first)]
    {
        let env = format!("{pki}/{name}.env");
        let mut command = namespace.command(agent);
        command.args([role, "--env-file", &env, "--spn-hub-hostname", host, "--congestion", congestion]);
        let agent = Program::spawn(&mut command);
        agent.err_line("session established");
        programs.push(agent);
    }
    programs
}

fn socket(congestion: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    Ok(socket)
}

/// One flow, or several at once.
fn flow(world: &World, row: &Row, to: SocketAddr, congestion: &'static str) -> io::Result<Measured> {
    let (counted, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let back = row.back;
    let (count, is_over) = (counted.clone(), over.clone());
    let port = if to.ip().is_loopback() { 9000 } else { to.port() };
    let server = world.far().spawn(move || -> io::Result<()> {
        let socket = socket(congestion)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
        socket.listen(64)?;
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        while !is_over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    let (count, is_over) = (count.clone(), is_over.clone());
                    thread::spawn(move || move_bytes(stream, back, &count, &is_over));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    thread::sleep(Duration::from_millis(200));
    let (count, is_over, streams) = (counted.clone(), over.clone(), row.streams);
    let client = world.consumer.spawn(move || -> io::Result<()> {
        for _ in 0..streams {
            let socket = socket(congestion)?;
            socket.connect(&to.into())?;
            let stream = TcpStream::from(socket);
            (&stream).write_all(b"x")?;
            let (count, is_over) = (count.clone(), is_over.clone());
            thread::spawn(move || move_bytes(stream, !back, &count, &is_over));
        }
        Ok(())
    });
    let started = client.join().unwrap_or_else(|_| Err(io::Error::other("no client")));
    let measured = started.map(|()| {
        thread::sleep(WARM);
        let (began, before) = (Instant::now(), counted.load(Ordering::Relaxed));
        let ping = if row.path.rate > 0 { ping(world) } else { None };
        thread::sleep((LASTS - WARM).saturating_sub(began.elapsed()));
        let bytes = counted.load(Ordering::Relaxed) - before;
        Measured { rate: bytes as f64 * 8e-6 / began.elapsed().as_secs_f64(), ping }
    });
    over.store(true, Ordering::Relaxed);
    let served = server.join().unwrap_or_else(|_| Err(io::Error::other("no server")));
    measured.and_then(|measured| served.map(|()| measured))
}

/// Writes what there is room for, or counts what comes, until it is over.
fn move_bytes(mut stream: TcpStream, writes: bool, counted: &AtomicU64, over: &AtomicBool) {
    let mut buffer = vec![7; 256 * 1024];
    let patience = Some(Duration::from_millis(200));
    let _ = stream.set_read_timeout(patience);
    let _ = stream.set_write_timeout(patience);
    while !over.load(Ordering::Relaxed) {
        let moved = if writes { stream.write(&buffer) } else { stream.read(&mut buffer) };
        match moved {
            Ok(0) => return,
            Ok(bytes) if !writes => _ = counted.fetch_add(bytes as u64, Ordering::Relaxed),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// The median round trip of small packets beside the flow.
fn ping(world: &World) -> Option<Duration> {
    let echo = world.hub.spawn(|| -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:9007")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut buffer = [0; 16];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from)?;
        }
        Ok(())
    });
    let pinger = world.consumer.spawn(|| -> io::Result<Vec<Duration>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((HUB, 9007))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut times = Vec::new();
        for n in 0..60u32 {
            let began = Instant::now();
            socket.send(&n.to_be_bytes())?;
            let mut answer = [0; 16];
            while let Ok(length) = socket.recv(&mut answer) {
                if answer[..length] == n.to_be_bytes() {
                    times.push(began.elapsed());
                    break;
                }
            }
            thread::sleep(Duration::from_millis(30));
        }
        Ok(times)
    });
    let mut times = pinger.join().ok()?.ok()?;
    let _ = echo.join();
    times.sort();
    times.get(times.len() / 2).copied()
}
