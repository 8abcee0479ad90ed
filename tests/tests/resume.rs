//! Connections that outlive the hub that carries them: the real programs, killed and restarted.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use towline_tests::{
    programs::Realm,
    random::Random,
    servers::{connect, echo, serve},
};

/// Both directions of one connection, until `enough`: random pieces, each of which must come back as it was. Returns how many bytes it moved.
fn ping_pong(mut tcp: TcpStream, seed: u64, enough: &AtomicBool, moved: &AtomicU64) -> Result<(), String> {
    let mut random = Random::new(seed);
    while !enough.load(Ordering::Relaxed) {
        let piece: Vec<u8> = (0..1 + random.below(20_000)).map(|_| random.number() as u8).collect();
        tcp.write_all(&piece).map_err(|error| format!("{seed}: write: {error}"))?;
        let mut got = vec![0; piece.len()];
        tcp.read_exact(&mut got).map_err(|error| format!("{seed}: read: {error}"))?;
        if got != piece {
            return Err(format!("{seed}: other bytes have come back"));
        }
        moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(random.below(30)));
    }
    tcp.shutdown(Shutdown::Write).map_err(|error| format!("{seed}: end: {error}"))?;
    match tcp.read_to_end(&mut Vec::new()) {
        Ok(0) => Ok(()),
        Ok(more) => Err(format!("{seed}: {more} bytes too many")),
        Err(error) => Err(format!("{seed}: last read: {error}")),
    }
}

/// Runs so many connections while `trouble` happens; none may notice.
fn undisturbed(address: SocketAddr, connections: u64, trouble: impl FnOnce(&AtomicU64)) {
    let (enough, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    let faults: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = (0..connections)
            .map(|seed| {
                let (tcp, enough, moved) = (connect(address), &enough, &moved);
                scope.spawn(move || ping_pong(tcp, seed, enough, moved))
            })
            .collect();
        trouble(&moved);
        enough.store(true, Ordering::Relaxed);
        runs.into_iter().filter_map(|run| run.join().expect("no panic").err()).collect()
    });
    assert!(faults.is_empty(), "{} of {connections}: {faults:#?}", faults.len());
}

/// Waits until so many more bytes have moved.
fn wait_for(moved: &AtomicU64, bytes: u64) {
    let from = moved.load(Ordering::Relaxed);
    for _ in 0..3000 {
        if moved.load(Ordering::Relaxed) >= from + bytes {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing moves any more");
}

#[test]
fn two_hundred_connections_outlive_ten_hubs() {
    let mut realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (_consumer, address) = realm.consumer("c");
    undisturbed(address, 200, |moved| {
        for _ in 0..10 {
            wait_for(moved, 5_000_000);
            realm.restart_hub();
        }
        wait_for(moved, 5_000_000);
    });
}

#[test]
fn half_closed_connections_outlive_a_hub() {
    let mut realm = Realm::start(|inventory| inventory);
    let provider = realm.provider(
        "p",
        serve(|mut tcp| {
            let mut question = Vec::new();
            tcp.read_to_end(&mut question)?;
            // The answer begins when the question has ended, and takes its time.
            for byte in question {
                tcp.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(10));
            }
            tcp.shutdown(Shutdown::Write)
        }),
    );
    let (_consumer, address) = realm.consumer("c");
    let mut tcp = connect(address);
    let question: Vec<u8> = (0..=255).collect();
    tcp.write_all(&question).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    realm.restart_hub();
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).unwrap();
    assert_eq!([&answer[..], &rest].concat(), question);
    drop(provider);
}
