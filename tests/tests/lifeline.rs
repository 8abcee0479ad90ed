//! What becomes of connections when their hub or their provider is killed: many of them, and new ones.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use towline_tests::{
    programs::{
        On::{self, Smol, Tokio},
        Realm, Ways,
    },
    servers::{connect, echo, serve},
};

/// Says something on all of them, and returns how long the last answer took.
fn all_answer(streams: &mut [TcpStream], word: &[u8]) -> Duration {
    let began = Instant::now();
    for tcp in &mut *streams {
        tcp.write_all(word).expect("a write");
    }
    for (nth, tcp) in streams.iter_mut().enumerate() {
        let mut got = vec![0; word.len()];
        tcp.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        tcp.read_exact(&mut got).unwrap_or_else(|error| panic!("connection {nth}: {error}"));
        assert_eq!(got, word);
    }
    began.elapsed()
}

fn they_outlive_a_hub(on: [On; 3], connections: usize, consumers: usize) {
    let [hub, provider, consumer] = on;
    let mut realm = Realm::start_on(hub, "127.0.0.1", |inventory| inventory);
    let _provider = realm.provider_on(provider, "p", serve(echo), Ways::default());
    let agents: Vec<_> = (0..consumers).map(|_| realm.consumer_on(consumer, "c", Ways::default())).collect();
    let mut streams: Vec<TcpStream> = (0..connections).map(|nth| connect(agents[nth % consumers].1)).collect();
    all_answer(&mut streams, b"before");
    realm.restart_hub();
    // The contract is 2 s; a machine that is busy with other tests gets more, but never as long as one wait for the next try.
    let took = all_answer(&mut streams, b"after");
    assert!(took < Duration::from_secs(10), "{took:?} for {connections} connections");
    let mut new = [connect(agents[0].1)];
    all_answer(&mut new, b"new");
}

#[test]
fn more_connections_than_first_credit_outlive_a_hub() {
    they_outlive_a_hub([Tokio; 3], 150, 1);
    they_outlive_a_hub([Smol; 3], 150, 2);
}

#[test]
fn fifteen_hundred_connections_outlive_a_hub() {
    they_outlive_a_hub([Tokio; 3], 1500, 1);
}

/// Connections whose clients speak first, begun before, while and after the hub is away for four seconds: none is reset, none is served twice.
#[test]
fn connections_begun_while_the_hub_is_away_are_served_once() {
    const EACH: usize = 40;
    let mut realm = Realm::start(|inventory| inventory);
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let service = serve(move |mut tcp| {
        let mut word = [0; 5];
        if tcp.read_exact(&mut word).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
            tcp.write_all(&word)?;
        }
        Ok(())
    });
    let _provider = realm.provider("p", service);
    let (_consumer, address) = realm.consumer("c");
    all_answer(&mut [connect(address)], b"first");
    let begin = |streams: &mut Vec<TcpStream>| {
        for _ in 0..EACH {
            let mut tcp = connect(address);
            tcp.write_all(b"hello").expect("a write");
            streams.push(tcp);
        }
    };
    let mut streams = Vec::new();
    begin(&mut streams);
    realm.hub.signal("KILL");
    realm.hub.wait();
    for _ in 0..8 {
        begin(&mut streams);
        thread::sleep(Duration::from_millis(500));
    }
    realm.hub = realm.hub("inventory.yaml");
    begin(&mut streams);
    for (nth, tcp) in streams.iter_mut().enumerate() {
        let mut got = [0; 5];
        tcp.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        tcp.read_exact(&mut got).unwrap_or_else(|error| panic!("connection {nth} of {}: {error}", 10 * EACH));
        assert_eq!(&got, b"hello");
    }
    assert_eq!(served.load(Ordering::Relaxed), 10 * EACH + 1);
}
