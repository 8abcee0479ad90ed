//! A consumer agent that ends leaves its address to the next one at once, and keeps what it has (EPS-10).

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use towline_core::{
    quic::{Identity, Roots},
    spn::{Role, endpoint::Config},
};
use towline_smol::endpoint::{Hubs, consumer_agent};
use towline_tests::{
    programs::{PATIENCE, Program, Realm},
    servers::{connect, echo, serve},
};

fn says(tcp: &mut TcpStream, text: &[u8]) {
    tcp.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

#[test]
fn the_next_consumer_takes_the_address_while_the_last_one_drains() {
    let realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let (mut old, address) = realm.consumer("c");
    let mut held = connect(address);
    says(&mut held, b"before");
    old.signal("TERM");
    old.err_line("SIGTERM");
    // Clients find nobody for a moment; never somebody who resets them.
    let (settings, address) = (realm.file("c.env"), address.to_string());
    let options = ["consumer", "--env-file", &settings, "--bind-address", &address];
    let began = Instant::now();
    let next = loop {
        let mut next = Program::start("spnagent", &options);
        thread::sleep(Duration::from_millis(500));
        if next.err().iter().any(|line| line.contains("listening on ")) {
            break next;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", next.err());
        next.signal("KILL");
        next.wait();
    };
    next.err_line("session established");
    says(&mut connect(address.parse().unwrap()), b"over the next");
    says(&mut held, b"over the last");
    drop(held);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_consumer_on_smol_lets_its_address_go_when_it_is_closed() {
    let realm = Realm::start(|inventory| inventory);
    let _provider = realm.provider("p", serve(echo));
    let text = |name: &str| fs::read_to_string(realm.file(name)).unwrap();
    let identity = Identity::from_pem(&text("c.pem"), &text("c.key")).unwrap();
    let config = Config::new(Role::Consumer, "127.0.0.1", identity, Roots::from_pem(&text("ca.pem")).unwrap());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (control, address, task) =
        consumer_agent(config, Hubs { port: realm.port, resolver: None }, any, |_| {}).unwrap();
    let agent = thread::spawn(move || smol::block_on(task));
    let mut held = connect(address);
    says(&mut held, b"before");
    control.close();
    let began = Instant::now();
    while TcpListener::bind(address).is_err() {
        assert!(began.elapsed() < PATIENCE / 2, "it is still there");
        thread::sleep(Duration::from_millis(20));
    }
    says(&mut held, b"after");
    drop(held);
    agent.join().unwrap();
}
