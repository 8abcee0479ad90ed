//! The soak finds what it is there to find, and the programs pass a short one.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::SockRef;
use towline_tests::{
    programs::PATIENCE,
    servers::{connect, serve},
    soak::{
        Options,
        load::{Load, Size},
        plan::{Agent, Past, Trouble},
        run,
        verdict::{Limit, Tally},
    },
};

use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

/// What is between a client and the service.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Nothing that changes anything.
    Straight,
    /// One bit is turned over.
    Turned,
    /// Some bytes come twice.
    Repeated,
    /// Some bytes do not come.
    Missing,
    /// The service's direction ends in order, in the middle.
    Truncated,
    /// Nothing comes any more.
    Silent,
    /// A reset in the middle.
    Reset,
    /// The client's first bytes reach two services.
    Doubled,
}

/// A relay with a habit, which it shows to its first connection.
fn relay(way: Way, service: SocketAddr, has_shown: Arc<AtomicBool>) -> SocketAddr {
    let count = Arc::new(AtomicUsize::new(0));
    serve(move |client| {
        let way = if count.fetch_add(1, Ordering::SeqCst) == 0 { way } else { Way::Straight };
        let server = connect(service);
        let second = (way == Way::Doubled).then(|| connect(service));
        let is_cut = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| copy(&client, &server, second.as_ref(), Way::Straight, &is_cut, &AtomicBool::default()));
            copy(&server, &client, None, way, &is_cut, &has_shown)
        })
    })
}

fn copy(
    mut from: &TcpStream,
    mut to: &TcpStream,
    second: Option<&TcpStream>,
    way: Way,
    is_cut: &AtomicBool,
    has_shown: &AtomicBool,
) -> io::Result<()> {
    let (mut buffer, mut total) = (vec![0; 4096], 0);
    loop {
        let length = from.read(&mut buffer)?;
        if is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        let piece = &mut buffer[..length];
        if let Some(mut second) = second {
            second.write_all(piece)?;
        }
        let is_here = total < 5_000 && total + length >= 5_000;
        total += length;
        if is_here {
            has_shown.store(true, Ordering::SeqCst);
        }
        match way {
            Way::Turned if is_here => piece[0] ^= 4,
            Way::Repeated if is_here => to.write_all(piece)?,
            Way::Missing if is_here => {
                to.write_all(&piece[length / 2..])?;
                continue;
            }
            Way::Truncated if is_here => return to.shutdown(Shutdown::Both),
            Way::Reset if is_here => {
                is_cut.store(true, Ordering::SeqCst);
                for tcp in [from, to] {
                    // The close is a reset; the end of reading wakes the other thread, and nobody else sees it.
                    SockRef::from(tcp).set_linger(Some(Duration::ZERO))?;
                    tcp.shutdown(Shutdown::Read)?;
                }
                return Ok(());
            }
            Way::Silent if is_here => thread::sleep(4 * STILL),
            _ => {}
        }
        to.write_all(piece)?;
    }
}

/// Nobody sleeps unannounced; so what stands still for longer hangs, also on a machine that is busy.
const STILL: Duration = Duration::from_secs(20);

/// A few seconds of all kinds of connections over such a way.
fn over(way: Way, past: impl Fn(Instant) -> Vec<Past>) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let size = Size { connections: 40, rate: 50_000_000, seed: 1, patience: STILL };
        let (mut load, services) = Load::start(size, 1).expect("sockets");
        let (start, has_shown) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        load.begin(&[relay(way, services[0], has_shown.clone()), relay(Way::Straight, services[0], Arc::default())]);
        while !has_shown.load(Ordering::SeqCst) {
            assert!(start.elapsed() < PATIENCE, "the first connection does not come so far");
            sleep(Duration::from_millis(100)).await;
        }
        // The others do something, too.
        sleep(Duration::from_secs(5)).await;
        load.end().await;
        Tally::new(load.books(), &past(start), start)
    })
}

fn none(_: Instant) -> Vec<Past> {
    Vec::new()
}

#[test]
fn a_straight_way_is_good() {
    let tally = over(Way::Straight, none);
    assert!(tally.is_good() && tally.all.begun >= 40, "{tally}{:#?}", tally.faults);
    assert_eq!(tally.all.equal, tally.all.begun, "{tally}");
    assert_eq!(tally.kinds.len(), 9, "{tally}");
    assert!(tally.kinds.values().all(|line| line.bytes > 0), "{tally}");
}

#[test]
fn every_kind_of_fault_is_found() {
    let ways = [
        (Way::Turned, "in the place of"),
        (Way::Repeated, "are repeated"),
        (Way::Missing, "bytes are missing"),
        (Way::Truncated, "a clean end after"),
        (Way::Doubled, "served twice"),
        (Way::Silent, "hangs since"),
    ];
    let tallies =
        thread::scope(|scope| ways.map(|(way, _)| scope.spawn(move || over(way, none))).map(|run| run.join()));
    for ((way, words), tally) in ways.into_iter().zip(tallies) {
        let tally = tally.expect("no panic");
        let hung = u64::from(way == Way::Silent);
        assert_eq!((tally.all.wrong, tally.all.hung), (1 - hung, hung), "{words}: {tally}{:#?}", tally.faults);
        assert!(tally.faults.iter().any(|fault| fault.contains(words)), "{words}: {:#?}", tally.faults);
        assert!(!tally.is_good());
    }
}

#[test]
fn a_reset_is_explained_by_what_was_done_to_its_agents_and_by_nothing_else() {
    let (kill, end) = (|agent| Trouble::AgentKill(agent, Duration::ZERO), Trouble::AgentTerm);
    // The first connection is there in the first moment, over the first consumer.
    let (at_once, late) = (Duration::ZERO, Duration::from_secs(60));
    let cases = [
        (vec![], None),
        (vec![(kill(Agent::Consumer(0)), at_once)], Some(Limit::ConsumerKilled)),
        (vec![(kill(Agent::Provider(0)), at_once)], Some(Limit::ProviderKilled)),
        (vec![(kill(Agent::Consumer(1)), at_once)], None),
        (vec![(kill(Agent::Provider(1)), at_once)], None),
        // What came later explains nothing; nor does an order to end: connections then have 30 s.
        (vec![(kill(Agent::Consumer(0)), late)], None),
        (vec![(end(Agent::Consumer(0)), at_once)], None),
        // Not even if its hub goes meanwhile.
        (vec![(end(Agent::Consumer(0)), at_once), (Trouble::HubKill(0, at_once), at_once)], None),
    ];
    thread::scope(|scope| {
        for (done, limit) in cases {
            scope.spawn(move || {
                let past = |start| {
                    let past = done.iter().map(|(trouble, after)| (trouble.clone(), start + *after));
                    past.map(|(trouble, began)| Past { trouble, began, ended: began, back: None }).collect()
                };
                let tally = over(Way::Reset, past);
                let explained: Vec<_> = tally.all.explained.into_iter().collect();
                let wanted = limit.map(|limit| (limit, 1)).into_iter().collect::<Vec<_>>();
                assert_eq!((tally.all.unexplained, explained), (1 - wanted.len() as u64, wanted), "{done:?}");
                assert_eq!(tally.all.wrong + tally.all.hung, 0, "{:#?}", tally.faults);
            });
        }
    });
}

#[test]
fn a_short_soak_is_good() {
    // What takes minutes to be over is left to the bench.
    let only = ["hub-kill", "hub-term", "both-kill", "weight", "reload", "pause", "nat-port"];
    let options = Options {
        time: Duration::from_secs(25),
        connections: 60,
        only: only.map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let report = run(&options).expect("it starts");
    assert!(report.is_good(), "{}\n{:#?}\n{:#?}", report.text, report.tally.faults, report.faults);
}
