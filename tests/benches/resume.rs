//! What it takes to go on when a hub dies, and what it costs to be able to: `cargo bench -p towline-tests --bench resume`.
//!
//! Wants the programs: `cargo build --release --workspace --bins` first.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use towline_tests::{
    programs::Realm,
    servers::{connect, echo, serve},
};

/// Deaths that are measured.
const DEATHS: usize = 15;
/// The same, without traffic.
const DEATHS_IDLE: usize = 6;
/// Bytes of a bulk transfer.
const BULK: u64 = 1 << 30;
/// Transfers of each kind.
const ROUNDS: usize = 5;

fn main() {
    in_use();
    idle();
    cost();
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!("{:.0} / {:.0} / {:.0} ms", at(0), at(50), at(100))
}

/// A connection on which there is a question and an answer every 10 ms, while the hub is killed and started again.
fn in_use() {
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    let (mut tcp, began, last) = (connect(address), Instant::now(), AtomicU64::new(0));
    let (mut after_listening, mut stalls, enough) = (Vec::new(), Vec::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (last, enough) = (&last, &enough);
        scope.spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                tcp.write_all(b"x").expect("it is undisturbed");
                tcp.read_exact(&mut [0]).expect("it is undisturbed");
                last.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        for _ in 0..DEATHS {
            thread::sleep(Duration::from_millis(1500));
            let before = last.load(Ordering::Relaxed);
            realm.restart_hub();
            let listening = began.elapsed();
            // An answer that came after this hub was there.
            let back = loop {
                let at = Duration::from_micros(last.load(Ordering::Relaxed));
                if at > listening {
                    break at;
                }
                thread::sleep(Duration::from_millis(1));
            };
            after_listening.push(back - listening);
            stalls.push(back - Duration::from_micros(before));
        }
        enough.store(true, Ordering::Relaxed);
    });
    println!(
        "in use, {DEATHS} deaths: from listening to the first answer {} (least / median / most)",
        summary(after_listening)
    );
    println!("in use: between the last answer and the next {}", summary(stalls));
}

/// Agents that say nothing but keep-alives: until both have their session with the new hub.
fn idle() {
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let _consumer = realm.consumer("c");
    let times = (0..DEATHS_IDLE).map(|_| {
        realm.restart_hub();
        let began = Instant::now();
        realm.hub.out_line("serviceProvider");
        realm.hub.out_line("serviceConsumer");
        began.elapsed()
    });
    println!("idle, {DEATHS_IDLE} deaths: from listening to both sessions {}", summary(times.collect()));
}

/// Bulk data with resume and without, in turns: the machine's moods touch both.
fn cost() {
    let realm = Realm::start(|inventory| inventory);
    let sink = serve(|mut tcp: TcpStream| {
        io::copy(&mut tcp, &mut io::sink())?;
        tcp.shutdown(Shutdown::Write)
    });
    let _provider = realm.provider("p", sink);
    let (_with, with) = realm.consumer("c");
    let (_without, without) = realm.consumer_with("c", &["--pause-max", "0"]);
    let (block, mut ratios) = (vec![0; 1 << 16], Vec::new());
    for round in 0..ROUNDS {
        let rate = |address| {
            let (mut tcp, began) = (connect(address), Instant::now());
            for _ in 0..BULK / block.len() as u64 {
                tcp.write_all(&block).expect("a transfer");
            }
            tcp.shutdown(Shutdown::Write).expect("an end");
            tcp.read_to_end(&mut Vec::new()).expect("an end");
            BULK as f64 * 8.0 / 1e9 / began.elapsed().as_secs_f64()
        };
        let (with, without) = (rate(with), rate(without));
        println!(
            "bulk, round {round}: {with:.2} Gbit/s with resume, {without:.2} without, ratio {:.3}",
            with / without
        );
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    println!("bulk: median ratio {:.3}", ratios[ROUNDS / 2]);
}
