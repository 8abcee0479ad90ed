//! How agents find their hubs: name servers that change their minds, settings that change, and names with several addresses (ADR-1, ADR-9 to ADR-13).

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use towline_tests::{
    programs::{
        On::{self, Smol, Tokio},
        Realm, Ways,
    },
    servers::{connect, echo, serve},
};

/// A name server whose answers, negative ones included, have a TTL of an hour.
struct Dns {
    address: SocketAddr,
    names: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

const HOUR: [u8; 4] = 3600u32.to_be_bytes();

impl Dns {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let names: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>> = Arc::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let (known, count) = (names.clone(), asked.clone());
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                count.fetch_add(1, Ordering::Relaxed);
                let reply = answer(&query[..length], &known.lock().unwrap());
                let _ = socket.send_to(&reply, from);
            }
        });
        Self { address, names, asked }
    }

    fn list(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

/// RFC 1035 §4.1; a "no" with the SOA of RFC 2308 §3.
fn answer(query: &[u8], known: &BTreeMap<String, Vec<IpAddr>>) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let (question, kind) = (&query[12..at + 5], query[at + 2]);
    let found = known.get(&labels.join("."));
    let data = found.into_iter().flatten().filter_map(|address| match (address, kind) {
        (IpAddr::V4(address), 1) => Some(address.octets().to_vec()),
        (IpAddr::V6(address), 28) => Some(address.octets().to_vec()),
        _ => None,
    });
    let data: Vec<Vec<u8>> = data.collect();
    let no = u8::from(data.is_empty());
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let mut reply = [&query[..2], &[0x85, code, 0, 1, 0, data.len() as u8, 0, no, 0, 0], question].concat();
    for data in &data {
        reply.extend([&[0xc0, 12, 0, kind, 0, 1][..], &HOUR, &[0, data.len() as u8], data].concat());
    }
    if no > 0 {
        let soa = [&[0, 0][..], &[0, 0, 0, 1], &HOUR, &HOUR, &HOUR, &HOUR].concat();
        reply.extend([&[0, 0, 6, 0, 1][..], &HOUR, &[0, soa.len() as u8], &soa].concat());
    }
    reply
}

/// Runs the same with the resolvers of both runtimes.
macro_rules! on_both {
    ($resolver:ident, $test:expr) => {{
        {
            use towline_tokio::resolve::Resolver as $resolver;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { $test });
        }
        {
            use towline_smol::resolve::Resolver as $resolver;
            smol::block_on(async { $test });
        }
    }};
}

#[test]
fn an_agent_asks_each_time_whatever_the_answer_says_of_itself() {
    on_both!(Resolver, {
        let dns = Dns::start();
        let resolver = Resolver::at(dns.address).fresh();
        assert!(resolver.addresses("hub.test.").await.is_err());
        dns.list("hub.test", &["192.0.2.1"]);
        assert_eq!(resolver.addresses("hub.test.").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        dns.list("hub.test", &["192.0.2.2", "2001:db8::2"]);
        assert_eq!(resolver.addresses("hub.test.").await.unwrap().len(), 2);
    });
}

#[test]
fn a_proxy_keeps_an_answer_and_hardly_a_no() {
    on_both!(Resolver, {
        let dns = Dns::start();
        let resolver = Resolver::at(dns.address);
        assert!(resolver.addresses("origin.test.").await.is_err());
        dns.list("origin.test", &["192.0.2.1"]);
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(resolver.addresses("origin.test.").await.unwrap().len(), 1);
        let asked = dns.asked.load(Ordering::Relaxed);
        resolver.addresses("origin.test.").await.unwrap();
        // The family that it has none of is a "no".
        assert!(dns.asked.load(Ordering::Relaxed) <= asked + 1);
    });
}

#[test]
fn what_the_system_says_is_read_again_when_it_changes() {
    on_both!(Resolver, {
        let directory = tempfile::tempdir().unwrap();
        let (servers, hosts) = (directory.path().join("resolv.conf"), directory.path().join("hosts"));
        // Nothing is there yet, and nothing ends.
        let resolver = Resolver::of_files(&servers, &hosts).fresh();
        let error = resolver.addresses("hub.test.").await.unwrap_err().to_string();
        assert!(error.contains("resolv.conf names no DNS server"), "{error}");
        fs::write(&servers, "# Generated by a network manager\n").unwrap();
        fs::write(&hosts, "127.0.0.1 localhost\n192.0.2.7 hub.test\n").unwrap();
        assert_eq!(resolver.addresses("hub.test.").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        // Replaced, as programs do it that write such files, and by one of the same length.
        let new = directory.path().join("new");
        fs::write(&new, "127.0.0.1 localhost\n192.0.2.8 hub.test\n").unwrap();
        fs::rename(&new, &hosts).unwrap();
        assert_eq!(resolver.addresses("hub.test.").await.unwrap(), ["192.0.2.8".parse::<IpAddr>().unwrap()]);
        // The file names a server again, which does not answer: the error is about that server.
        fs::write(&hosts, "").unwrap();
        fs::write(&servers, "nameserver 127.0.0.77\noptions timeout:1 attempts:1\n").unwrap();
        let error = resolver.addresses("hub.test.").await.unwrap_err().to_string();
        assert!(!error.contains("names no DNS server"), "{error}");
    });
}

#[test]
fn an_address_without_a_route_is_not_used() {
    use towline_tokio::resolve::is_usable;
    assert!(is_usable("127.0.0.1:4433".parse().unwrap()));
    // Nothing can be sent there: RFC 4291 leaves these to nobody.
    assert!(!is_usable("255.255.255.255:4433".parse().unwrap()));
}

/// A realm whose hub listens on both families, and the options of its agents.
fn two_families(on: On) -> (Realm, Dns) {
    let realm = Realm::start_on(on, "hub.test", |inventory| inventory.replace("\"0.0.0.0\"", "\"::\""));
    let dns = Dns::start();
    dns.list("hub.test", &["127.0.0.1", "::1"]);
    (realm, dns)
}

fn sessions(records: &[String]) -> usize {
    records.iter().filter(|line| line.contains("startSpnSession")).count()
}

fn one_session_by_two_addresses(on: On) {
    let (mut realm, dns) = two_families(on);
    let resolver = dns.address.to_string();
    let ways = Ways { resolver: Some(&resolver), ..Ways::default() };
    let provider = realm.provider_on(on, "p", serve(echo), ways);
    let (consumer, address) = realm.consumer_on(on, "c", ways);
    for agent in [&provider, &consumer] {
        agent.err_line("another address of the same hub");
    }
    let mut tcp = connect(address);
    say(&mut tcp, b"before");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(sessions(&realm.hub.out()), 2, "{:#?}", realm.hub.out());
    // A hub that comes back has one session of each again.
    realm.restart_hub();
    say(&mut tcp, b"after");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(sessions(&realm.hub.out()), 2, "{:#?}", realm.hub.out());
    say(&mut tcp, b"and on");
}

fn say(tcp: &mut std::net::TcpStream, text: &[u8]) {
    use std::io::{Read, Write};
    tcp.write_all(text).unwrap();
    let mut heard = vec![0; text.len()];
    tcp.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text);
}

#[test]
fn a_hub_with_two_addresses_has_one_session_of_each_agent() {
    one_session_by_two_addresses(Tokio);
}

#[test]
fn a_hub_on_smol_with_two_addresses_has_one_session_of_each_agent() {
    one_session_by_two_addresses(Smol);
}

#[test]
fn a_name_that_is_made_after_the_start_is_found() {
    for on in [Tokio, Smol] {
        let realm = Realm::start_on(on, "hub.test", |inventory| inventory);
        let dns = Dns::start();
        let (name, resolver) = (dns.names.clone(), dns.address.to_string());
        let asked = dns.asked.clone();
        thread::spawn(move || {
            while asked.load(Ordering::Relaxed) < 2 {
                thread::sleep(Duration::from_millis(10));
            }
            name.lock().unwrap().insert("hub.test".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
        });
        // It has its session when this returns.
        let _agent = realm.provider_on(on, "p", serve(echo), Ways { resolver: Some(&resolver), ..Ways::default() });
    }
}
