//! The vectors of transactions, three times: the binding on virtual time, `towline proxy`, and the loop on smol.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use towline_core::{net::Hosts, quic::Epoch, txn::proxy::Notice};
use towline_tests::{
    needs,
    programs::{PATIENCE, Program, free_tcp_address},
    servers::abort,
    txn::{
        vectors::{Vector, read},
        world::{Client, Dial, End, Outside, Step, Then, World},
    },
    vectors::folder,
};

/// What came of a case, or must.
#[derive(Debug, PartialEq, Eq)]
struct Result {
    ends: Vec<(Option<End>, usize, Vec<u8>)>,
    lookups: Vec<String>,
    heads: Vec<Vec<u8>>,
}

impl Result {
    fn new(clients: Vec<(Option<End>, Vec<u8>)>, lookups: Vec<String>, heads: Vec<Vec<u8>>) -> Self {
        let digest = |(end, bytes): (_, Vec<u8>)| (end, bytes.len(), Sha256::digest(&bytes).to_vec());
        Self { ends: clients.into_iter().map(digest).collect(), lookups, heads }
    }

    fn expected(Vector { expect, clients, .. }: &Vector) -> Self {
        let (length, digest) = expect.received.clone();
        Self {
            ends: vec![(expect.end, length, digest); clients.0],
            lookups: expect.lookups.clone(),
            heads: vec![expect.head.clone().unwrap_or_default(); expect.fetches],
        }
    }
}

/// Plays every case, each after those that come before it, and says what is wrong.
fn play(how: impl Fn(&[&Vector]) -> Result + Sync) {
    let Some(folder) = folder("txn") else { return };
    let vectors = read(&folder);
    let faults: Vec<String> = thread::scope(|scope| {
        let plays = vectors.values().map(|vector| {
            let (how, vectors) = (&how, &vectors);
            scope.spawn(move || {
                let in_order: Vec<&Vector> = vector.before.iter().map(|name| &vectors[name]).chain([vector]).collect();
                let (result, expected) = (how(&in_order), Result::expected(vector));
                (result != expected)
                    .then(|| format!("{}:\n  expected {expected:?}\n  found    {result:?}", vector.name))
            })
        });
        let plays: Vec<_> = plays.collect();
        plays.into_iter().filter_map(|play| play.join().expect("no panic")).collect()
    });
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), vectors.len(), faults.join("\n"));
    println!("{} vectors", vectors.len());
}

/// How long a client waits before it believes that its connection stays open.
const OPEN: Duration = Duration::from_secs(2);

/// The world of some cases: heads that are the same are answered in the same way.
struct Scripts {
    names: BTreeMap<Vec<u8>, Vec<IpAddr>>,
    origins: Vec<IpAddr>,
    steps: BTreeMap<Vec<u8>, Vec<Step>>,
}

impl Outside for Scripts {
    fn name(&self, name: &[u8]) -> Option<(Duration, Vec<IpAddr>)> {
        Some((Duration::from_millis(1), self.names.get(name).cloned().unwrap_or_default()))
    }

    fn dial(&self, address: SocketAddr) -> Dial {
        let wait = Duration::from_millis(1);
        if self.origins.contains(&address.ip()) { Dial::Accepts(wait) } else { Dial::Refuses(wait) }
    }

    fn reply(&self, head: &[u8]) -> Vec<Step> {
        self.steps.get(head).cloned().unwrap_or_default()
    }
}

#[test]
fn on_virtual_time() {
    play(|cases| {
        let last = cases.last().expect("a case");
        let origins = cases.iter().filter(|case| !case.steps.is_empty());
        let scripts = Scripts {
            names: cases.iter().flat_map(|case| case.names.clone()).collect(),
            origins: origins.clone().map(|case| case.origin).collect(),
            steps: origins.map(|case| (case.sent(), case.steps.clone())).collect(),
        };
        let mut clients = Vec::new();
        // Cases come one after the other, each when the one before is long over.
        let mut comes = Duration::ZERO;
        for case in cases {
            comes += Duration::from_secs(1000);
            for nth in 0..case.clients.0 {
                clients.push(Client {
                    comes: comes + case.clients.1 * nth as u32,
                    from: [192, 0, 2, 1].into(),
                    pieces: case.pieces.clone(),
                    then: match case.leaves {
                        Some(after) => Then::Resets(after),
                        None if case.half_closes => Then::HalfCloses,
                        None => Then::Waits,
                    },
                    takes: Some(Duration::from_millis(1)),
                });
            }
        }
        let mut world = World::new(last.mode.config(), scripts, clients);
        world.run(comes - Duration::from_secs(1));
        let (lookups, heads) = (world.lookups.len(), world.heads.len());
        world.run(comes + if last.expect.end.is_none() { OPEN } else { Duration::from_secs(900) });
        let fates = world.fates.iter().skip(world.fates.len() - last.clients.0);
        let clients = fates.map(|fate| (fate.end.map(|(end, _)| end), fate.received.clone())).collect();
        let result = Result::new(clients, world.lookups.split_off(lookups), world.heads.split_off(heads));
        // Whoever waits does not do so for ever.
        world.run(Duration::from_secs(1_000_000));
        assert!(world.fates.iter().all(|fate| fate.end.is_some()), "{}: {:?}", last.name, world.fates);
        result
    });
}

/// An origin on a real socket, that does what the case of the hour says.
struct Origin {
    port: u16,
    heads: Arc<Mutex<Vec<Vec<u8>>>>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Origin {
    /// At the addresses of those cases that have one: all on one port.
    fn start(cases: &[&Vector]) -> Self {
        let wanted: Vec<IpAddr> = cases.iter().filter(|case| !case.steps.is_empty()).map(|case| case.origin).collect();
        let (port, listeners) = std::iter::repeat_with(|| free_tcp_address().port())
            .take(10)
            .find_map(|port| {
                let listeners = wanted.iter().map(|&ip| (ip, port)).collect::<BTreeMap<_, _>>();
                Some((port, listeners.into_iter().map(TcpListener::bind).collect::<io::Result<Vec<_>>>().ok()?))
            })
            .expect("a free port");
        let origin = Self { port, heads: Arc::default(), steps: Arc::default() };
        for listener in listeners {
            let (heads, steps) = (origin.heads.clone(), origin.steps.clone());
            thread::spawn(move || {
                for tcp in listener.incoming().map_while(io::Result::ok) {
                    let (heads, steps) = (heads.clone(), steps.clone());
                    // What goes wrong here is seen at the client.
                    thread::spawn(move || drop(answer(tcp, &heads, &steps)));
                }
            });
        }
        origin
    }
}

fn answer(mut tcp: TcpStream, heads: &Mutex<Vec<Vec<u8>>>, steps: &Mutex<Vec<Step>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match tcp.read(&mut bytes)? {
            0 => return Ok(()),
            length => head.extend_from_slice(&bytes[..length]),
        }
    }
    // What follows the head would be an error; it would come at once.
    tcp.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut more = [0; 64];
    let length = tcp.read(&mut more).unwrap_or(0);
    head.extend_from_slice(&more[..length]);
    heads.lock().unwrap().push(head);
    let steps = steps.lock().unwrap().clone();
    for step in steps {
        match step {
            Step::Send(bytes) => tcp.write_all(&bytes)?,
            Step::Sleep(time) => thread::sleep(time),
            Step::Fin => return tcp.shutdown(Shutdown::Write),
            Step::Reset => {
                abort(tcp);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One client of a case.
fn ask(address: SocketAddr, case: &Vector) -> io::Result<(Option<End>, Vec<u8>)> {
    let mut tcp = TcpStream::connect(address)?;
    for (wait, piece) in &case.pieces {
        thread::sleep(*wait);
        tcp.write_all(piece)?;
    }
    if let Some(after) = case.leaves {
        thread::sleep(after);
        abort(tcp);
        return Ok((Some(End::Left), Vec::new()));
    }
    if case.half_closes {
        tcp.shutdown(Shutdown::Write)?;
    }
    tcp.set_read_timeout(Some(if case.expect.end.is_none() { OPEN } else { PATIENCE }))?;
    let mut received = Vec::new();
    let end = match tcp.read_to_end(&mut received) {
        Ok(_) => Some(End::Fin),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(End::Reset),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
        Err(error) => return Err(error),
    };
    Ok((end, received))
}

/// Plays some cases against a proxy on a real socket; `lookups` are those of the last case, given how many were of those before.
fn play_on(
    address: SocketAddr,
    origin: &Origin,
    cases: &[&Vector],
    lookups: impl FnOnce(usize) -> Vec<String>,
) -> Result {
    let mut clients = Vec::new();
    for case in cases {
        origin.steps.lock().unwrap().clone_from(&case.steps);
        origin.heads.lock().unwrap().clear();
        clients = thread::scope(|scope| {
            let clients: Vec<_> = (0..case.clients.0)
                .map(|nth| {
                    scope.spawn(move || {
                        thread::sleep(case.clients.1 * nth as u32);
                        ask(address, case).expect("a client")
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().expect("no panic")).collect()
        });
    }
    let before = cases.iter().rev().skip(1).map(|case| case.expect.lookups.len()).sum();
    let lookups = lookups(before);
    Result::new(clients, lookups, std::mem::take(&mut *origin.heads.lock().unwrap()))
}

fn hosts(cases: &[&Vector]) -> String {
    let mut hosts = String::new();
    for (name, addresses) in cases.iter().flat_map(|case| &case.names) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        hosts += &format!("{} {}\n", String::from_utf8_lossy(name), addresses.join(" "));
    }
    hosts
}

#[test]
fn against_the_program() {
    if !needs::ipv6() {
        return;
    }
    play(|cases| {
        let last = cases.last().expect("a case");
        let origin = Origin::start(cases);
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("hosts"), directory.path().join("log"));
        std::fs::write(&file, hosts(cases)).unwrap();
        let (file, log) = (file.to_str().unwrap(), log.to_str().unwrap());
        let port = origin.port.to_string();
        let given = ["proxy", "--listen", "127.0.0.1:0", "--origin-port", &port, "--hosts", file, "--log", log];
        let mode = last.mode.arguments();
        let arguments: Vec<&str> = given.into_iter().chain(mode.iter().map(String::as_str)).collect();
        let mut proxy = Program::start("towline", &arguments);
        let line = proxy.err_line("listening on ");
        let address = line.split("listening on ").nth(1).and_then(|address| address.parse().ok()).expect("an address");
        play_on(address, &origin, cases, |before| {
            // At its end everything is written down.
            proxy.signal("INT");
            assert!(proxy.wait().success());
            let text = std::fs::read_to_string(log).unwrap();
            let entries = text.strip_prefix("timestamp filename servername caching_status\n\n").expect("a header");
            let lookups = entries.split_terminator("\n\n").map(|entry| {
                let (stamp, lookup) = entry.split_once(' ').expect("a stamp");
                assert!(stamp.len() == 18 && stamp.ends_with('s'), "{stamp}");
                lookup.strip_suffix(' ').expect("a space").to_owned()
            });
            lookups.skip(before).collect()
        })
    });
}

#[test]
fn against_the_loop_on_smol() {
    if !needs::ipv6() {
        return;
    }
    play(|cases| {
        let last = cases.last().expect("a case");
        let origin = Origin::start(cases);
        let mut config = last.mode.config();
        config.transaction.origin_port = origin.port;
        let names = towline_smol::proxy::Names::Hosts(Arc::new(Hosts::parse(&hosts(cases)).unwrap()));
        let lookups = Arc::new(Mutex::new(Vec::new()));
        let notes = lookups.clone();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let epoch = Epoch { instant: Instant::now(), unix: Duration::ZERO };
            let listen = [SocketAddr::from(([127, 0, 0, 1], 0))];
            let (control, local, task) = towline_smol::proxy::serve(config, &listen, names, move |_, notice| {
                if let Notice::Lookup(lookup) = notice {
                    let entry = lookup.compat(epoch);
                    notes.lock().unwrap().push(entry.trim_end().split_once(' ').unwrap().1.to_owned());
                }
            })
            .unwrap();
            tell.send((control, local[0])).unwrap();
            smol::block_on(task);
        });
        let (control, address) = told.recv().unwrap();
        play_on(address, &origin, cases, |before| {
            control.stop();
            thread.join().unwrap();
            lookups.lock().unwrap().split_off(before)
        })
    });
}
