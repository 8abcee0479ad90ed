//! The binding, against a host played by hand.

mod ending;
mod flights;
mod slow;

use std::time::Duration;

use super::*;
use crate::{
    net::Close,
    testing::first_instant,
    txn::{
        allow::Allow,
        transaction::{Fault, KeyMode, Outcome, Serve},
    },
};

struct Bench {
    proxy: Proxy,
    now: Instant,
    notices: Vec<Notice>,
    /// Connections, whose transactions they are of, and what they are.
    seen: BTreeMap<ConnId, (usize, Seen)>,
}

/// What a connection is, as far as the host has come with it.
#[derive(Clone, Copy)]
enum Seen {
    Client,
    Asked,
    Dialled,
    Origin,
    /// Its question was answered, and it is not open.
    Answered,
}

fn config() -> Config {
    let mut config = Config::default();
    config.transaction.origin_port = 8080;
    config.transaction.allow = Allow::everything();
    config
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = first_instant();
        let mut proxy = Proxy::new(config);
        proxy.start(now);
        assert!(proxy.wants_accept());
        Self { proxy, now, notices: Vec::new(), seen: BTreeMap::new() }
    }

    /// A client comes; its transaction, which has been told to read its head.
    fn come(&mut self) -> TxnId {
        self.come_from([192, 0, 2, 1]).expect("there is room")
    }

    fn come_from(&mut self, ip: [u8; 4]) -> Option<TxnId> {
        let id = self.incoming((ip, 999).into())?;
        assert_eq!(self.does(), [format!("{} read_client 2050", nth(id))]);
        Some(id)
    }

    /// A client comes; nothing, if it is refused, with an end in good order.
    fn incoming(&mut self, address: SocketAddr) -> Option<TxnId> {
        let conn = self.proxy.handle_incoming(self.now, address);
        if let Some(&Conn { txn, .. }) = self.proxy.conns.get(conn) {
            self.seen.insert(conn, (nth(txn), Seen::Client));
            return Some(txn);
        }
        let close = Command::Close { conn, how: Close::Fin, unread: 4096 };
        assert_eq!((self.proxy.poll_command(), self.proxy.poll_command()), (Some(close), None));
        None
    }

    /// The client's connection, and the origin's.
    fn conns(&mut self, id: TxnId) -> (ConnId, Option<ConnId>) {
        let txn = self.proxy.txn(id).expect("it lives");
        (txn.client, txn.origin)
    }

    /// What the host is to do, as text.
    fn does(&mut self) -> Vec<String> {
        let commands: Vec<_> = std::iter::from_fn(|| self.proxy.poll_command()).collect();
        self.notices.extend(std::iter::from_fn(|| self.proxy.poll_notice()));
        commands.iter().filter_map(|command| self.say(command)).collect()
    }

    fn say(&mut self, command: &Command) -> Option<String> {
        let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
        let (of, seen) = match command {
            Command::Resolve { conn, .. } => (conn, Some(Seen::Asked)),
            Command::Connect { conn, .. } => (conn, Some(Seen::Dialled)),
            Command::Read { conn, .. } | Command::Write { conn, .. } | Command::Close { conn, .. } => (conn, None),
            Command::StopListening => return Some("stop_listening".to_owned()),
            Command::Stop => return Some("stop".to_owned()),
        };
        let mut question = 0;
        if let Some(seen) = seen {
            let &Conn { txn, side: Side::Origin { seq } } = self.proxy.conns.get(*of).expect("it is new") else {
                panic!("a client is neither asked for nor dialled");
            };
            question = seq;
            self.seen.insert(*of, (nth(txn), seen));
        }
        let (nth, seen) = self.seen[of];
        let side = if matches!(seen, Seen::Client) { "client" } else { "origin" };
        Some(match command {
            Command::Read { max, .. } => format!("{nth} read_{side} {max}"),
            Command::Write { bytes, .. } => format!("{nth} write_{side} {}", text(bytes)),
            Command::Resolve { name, .. } => format!("{nth} resolve {} #{question}", text(name)),
            Command::Connect { address, .. } => format!("{nth} connect {address} #{question}"),
            Command::Close { how, unread, .. } => {
                let how = if *how == Close::Fin { "fin" } else { "abort" };
                match seen {
                    Seen::Client => format!("{nth} close_client {how} {unread}"),
                    Seen::Asked => format!("{nth} cancel_resolve"),
                    Seen::Dialled => format!("{nth} cancel_connect"),
                    Seen::Origin => format!("{nth} close_origin {how}"),
                    Seen::Answered => return None,
                }
            }
            Command::StopListening | Command::Stop => return None,
        })
    }

    /// Something has happened to a connection of a transaction; what the host is to do then.
    fn on(&mut self, id: TxnId, event: Event) -> Vec<String> {
        let (client, origin) = self.conns(id);
        let to_client = |event| (client, event);
        let to_origin = |event| (origin.expect("an origin"), event);
        let (conn, event) = match event {
            Event::ClientData { bytes } => to_client(net::Event::Data { bytes }),
            Event::ClientEof => to_client(net::Event::End),
            Event::ClientError { kind } => to_client(net::Event::Error { fault: kind }),
            Event::ClientSent { len } => to_client(net::Event::Sent { len }),
            Event::Resolved { addrs, .. } => to_origin(net::Event::Resolved { addresses: addrs }),
            Event::ResolveFailed { why, .. } => to_origin(net::Event::ResolveFailed { fault: why }),
            Event::Connected { .. } => to_origin(net::Event::Connected),
            Event::ConnectFailed { why, .. } => to_origin(net::Event::ConnectFailed { fault: why }),
            Event::OriginSent { len } => to_origin(net::Event::Sent { len }),
            Event::OriginData { bytes } => to_origin(net::Event::Data { bytes }),
            Event::OriginEof => to_origin(net::Event::End),
            Event::OriginError { kind } => to_origin(net::Event::Error { fault: kind }),
            other => panic!("no event of a connection: {other:?}"),
        };
        let seen = match event {
            net::Event::Connected => Some(Seen::Origin),
            net::Event::Resolved { .. } | net::Event::ResolveFailed { .. } | net::Event::ConnectFailed { .. } => {
                Some(Seen::Answered)
            }
            net::Event::Data { .. } | net::Event::End | net::Event::Sent { .. } | net::Event::Error { .. } => None,
        };
        if let Some(seen) = seen {
            self.seen.insert(conn, (nth(id), seen));
        }
        self.proxy.handle_event(self.now, conn, event);
        self.does()
    }

    fn wait(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.proxy.handle_timeout(self.now);
        self.does()
    }

    /// A client comes and asks for `file` of the server 192.0.2.9.
    fn ask(&mut self, file: &str) -> (TxnId, Vec<String>) {
        let conn = self.come();
        let does = self.on(conn, head(file));
        (conn, does)
    }

    /// Its fetch, up to the credit for the first piece.
    fn fetch(&mut self, conn: TxnId) {
        let nth = nth(conn);
        let does = self.on(conn, Event::Connected { seq: None });
        assert!(does[0].starts_with(&format!("{nth} write_origin 192.0.2.9 ")), "{does:?}");
        assert_eq!(self.on(conn, Event::OriginSent { len: 2050 }), [format!("{nth} read_origin 65536")]);
    }

    /// A whole miss that is served.
    fn store(&mut self, file: &str, body: &str) {
        let (conn, _) = self.ask(file);
        self.fetch(conn);
        self.on(conn, origin(body));
        self.on(conn, sent(body));
        self.on(conn, Event::OriginEof);
        assert_eq!(self.outcomes(), [Outcome::Served { hit: false, bytes: body.len() as u64 }]);
    }

    /// How transactions ended since the last time this was asked.
    fn outcomes(&mut self) -> Vec<Outcome> {
        let outcomes = self.notices.iter().filter_map(|notice| match notice {
            Notice::Finished { record, .. } => Some(record.outcome),
            Notice::Lookup(_) | Notice::Stopped { .. } => None,
        });
        let outcomes = outcomes.collect();
        self.notices.clear();
        outcomes
    }
}

fn head(file: &str) -> Event {
    Event::ClientData { bytes: format!("192.0.2.9 {file}\r\n\r\n").into() }
}

fn origin(body: &str) -> Event {
    Event::OriginData { bytes: body.to_owned().into() }
}

fn sent(body: &str) -> Event {
    Event::ClientSent { len: body.len() as u64 }
}

/// The place of a transaction in its table.
fn nth(id: TxnId) -> usize {
    (id.0 & u64::from(u32::MAX)) as usize
}

#[test]
fn a_miss_and_a_hit() {
    let mut bench = Bench::new(config());
    let start = bench.now;
    let (conn, does) = bench.ask("f");
    let client = bench.conns(conn).0;
    assert_eq!(does, ["0 read_client 65536", "0 connect 192.0.2.9:8080 #3"]);
    assert_eq!(bench.on(conn, Event::Connected { seq: Some(3) }), [r"0 write_origin 192.0.2.9 f \r\n\r\n"]);
    assert_eq!(bench.on(conn, Event::OriginSent { len: 16 }), ["0 read_origin 65536"]);
    assert_eq!(bench.on(conn, origin("hello")), ["0 write_client hello"]);
    assert_eq!(bench.on(conn, sent("hello")), ["0 read_origin 65536"]);
    bench.now += Duration::from_millis(7);
    assert_eq!(bench.on(conn, Event::OriginEof), ["0 close_origin fin", "0 close_client fin 65536"]);
    let key = (Bytes::from_static(b"f"), Bytes::from_static(b"192.0.2.9"));
    let lookup = |at, hit| Notice::Lookup(Lookup { at, file: key.0.clone(), server: key.1.clone(), hit });
    let record = |client, at, hit, ms| {
        let outcome = Outcome::Served { hit, bytes: 5 };
        let (file, server) = (key.0.clone(), key.1.clone());
        Notice::Finished { client, record: Record { at, file, server, hit, outcome, bytes: 5, ms } }
    };
    assert_eq!(bench.notices, [lookup(start, false), record(client, bench.now, false, 7)]);
    bench.notices.clear();

    let (conn, does) = bench.ask("f");
    let client = bench.conns(conn).0;
    assert_eq!(does, ["0 read_client 65536", "0 write_client hello"]);
    assert_eq!(bench.on(conn, sent("hello")), ["0 close_client fin 65536"]);
    assert_eq!(bench.notices, [lookup(bench.now, true), record(client, bench.now, true, 0)]);
    let counters = bench.proxy.counters();
    assert_eq!((counters.accepted, counters.misses, counters.hits, counters.fetches), (2, 1, 1, 1));
    assert_eq!((counters.bytes_in, counters.bytes_out, counters.live), (5, 10, 0));
    assert!(counters.failures.is_empty());
}

#[test]
fn stored_is_looked_up_twice() {
    let mut config = config();
    config.transaction = config.transaction.sample();
    let mut bench = Bench::new(config);
    let (conn, _) = bench.ask("f");
    bench.fetch(conn);
    assert_eq!(bench.on(conn, origin("hello")), ["0 read_origin 65536"]);
    assert_eq!(bench.on(conn, Event::OriginEof), ["0 close_origin fin", "0 write_client hello"]);
    assert_eq!(bench.on(conn, sent("hello")), ["0 close_client fin 65536"]);
    let hits = bench.notices.iter().filter_map(|notice| match notice {
        Notice::Lookup(lookup) => Some(lookup.hit),
        Notice::Finished { .. } | Notice::Stopped { .. } => None,
    });
    assert_eq!(hits.collect::<Vec<_>>(), [false, true]);
    // K1: of another server, the same file.
    let conn = bench.come();
    let does = bench.on(conn, Event::ClientData { bytes: "other.test f \r\n\r\n".into() });
    assert_eq!(does, ["0 read_client 65536", "0 write_client hello"]);
}

#[test]
fn what_a_client_sends_behind_its_head_may_be_in_the_way_of_its_end() {
    let mut bench = Bench::new(config());
    bench.store("f", "hello");
    let conn = bench.come();
    let bytes = [&b"192.0.2.9 f\r\n\r\n"[..], &[b'x'; 1000]].concat().into();
    bench.on(conn, Event::ClientData { bytes });
    assert_eq!(bench.on(conn, sent("hello"))[0], "0 close_client fin 64536", "what is left of discard_max");
}

#[test]
fn failures_are_counted_by_name() {
    let mut bench = Bench::new(config());
    let conn = bench.come();
    bench.on(conn, Event::ClientData { bytes: "x\r\n\r\n".into() });
    let (conn, _) = bench.ask("f");
    bench.on(conn, Event::ConnectFailed { why: Fault::Refused, seq: None });
    let (conn, _) = bench.ask("f");
    bench.on(conn, Event::ClientError { kind: Fault::Reset });
    bench.on(conn, Event::ConnectFailed { why: Fault::Refused, seq: None });
    let counters = bench.proxy.counters();
    assert_eq!(counters.malformed, 1);
    assert_eq!(counters.failures, BTreeMap::from([("connect_failed", 1), ("client_left", 1)]));
}

#[test]
fn events_of_the_dead_mean_nothing() {
    let mut bench = Bench::new(config());
    let (dead, _) = bench.ask("f");
    let (client, origin) = bench.conns(dead);
    bench.on(dead, Event::ConnectFailed { why: Fault::Refused, seq: None });
    let (living, _) = bench.ask("g");
    assert_eq!((nth(dead), nth(living)), (0, 0));
    assert_ne!(dead, living);
    for (conn, event) in [
        (origin.unwrap(), net::Event::Connected),
        (client, net::Event::Error { fault: Fault::Reset }),
        (client, net::Event::Data { bytes: "x".into() }),
    ] {
        bench.proxy.handle_event(bench.now, conn, event);
        assert!(bench.does().is_empty());
    }
    bench.fetch(living);
}

#[test]
fn one_client_has_its_share() {
    let mut bench = Bench::new(Config { max_per_client: 2, ..config() });
    let first = bench.come_from([192, 0, 2, 1]).unwrap();
    bench.come_from([192, 0, 2, 1]).unwrap();
    assert_eq!(bench.come_from([192, 0, 2, 1]), None);
    assert!(bench.proxy.wants_accept(), "others may come");
    bench.come_from([192, 0, 2, 2]).unwrap();
    let mut closed = Bench::new(Config { max_per_client: 0, ..config() });
    assert_eq!(closed.come_from([192, 0, 2, 1]), None);
    assert!(closed.proxy.clients.is_empty(), "who is refused is not remembered");
    // The same machine by its other name.
    assert_eq!(bench.incoming("[::ffff:192.0.2.1]:5".parse().unwrap()), None);
    bench.on(first, Event::ClientEof);
    bench.come_from([192, 0, 2, 1]).unwrap();
    let local = std::iter::repeat_with(|| bench.come_from([127, 0, 0, 1]).expect("this machine may be many"));
    let local: Vec<_> = local.take(3).collect();
    for conn in local {
        bench.on(conn, Event::ClientEof);
    }
    assert_eq!((bench.proxy.counters().refused, bench.proxy.counters().live), (2, 3));
    assert_eq!(bench.proxy.clients.len(), 2, "who has none is not remembered");
}

#[test]
fn no_more_than_there_may_be() {
    let mut config = config();
    config.accept.max_transactions = 2;
    let mut bench = Bench::new(config);
    let first = bench.come();
    bench.come();
    assert!(!bench.proxy.wants_accept());
    // A host that accepts all the same is rid of it.
    assert_eq!(bench.incoming(([192, 0, 2, 9], 1).into()), None);
    assert_eq!(bench.proxy.counters().live, 2);
    bench.on(first, Event::ClientEof);
    assert!(bench.proxy.wants_accept());
    bench.come();
    assert_eq!((bench.proxy.counters().accepted, bench.proxy.counters().refused), (3, 1));
}

#[test]
fn files_run_out_for_a_while() {
    let mut bench = Bench::new(config());
    bench.proxy.handle_accept_failed(bench.now, AcceptFault::Aborted);
    assert!(bench.proxy.wants_accept());
    bench.proxy.handle_accept_failed(bench.now, AcceptFault::Files);
    assert!(!bench.proxy.wants_accept());
    assert_eq!(bench.proxy.poll_timeout(), Some(bench.now + Duration::from_millis(100)));
    bench.wait(Duration::from_millis(100));
    assert!(bench.proxy.wants_accept());
}

#[test]
fn eviction_and_purge_leave_readers_alone() {
    let mut config = config();
    config.transaction.chunk = 2;
    config.cache.max_bytes = 40;
    let mut bench = Bench::new(config);
    let body = "abcd";
    let (conn, _) = bench.ask("f");
    bench.on(conn, Event::Connected { seq: None });
    bench.on(conn, Event::OriginSent { len: 16 });
    for piece in ["ab", "cd"] {
        bench.on(conn, origin(piece));
        bench.on(conn, sent(piece));
    }
    bench.on(conn, Event::OriginEof);
    let key = bench.proxy.transaction.key_mode.key(&request("f"));
    assert_eq!(bench.proxy.cache().bytes(), (key.len() + body.len()) as u64);

    let (reader, does) = bench.ask("f");
    assert_eq!(does, ["0 read_client 2", "0 write_client ab"]);
    let (other, _) = bench.ask("g");
    bench.on(other, Event::Connected { seq: None });
    bench.on(other, Event::OriginSent { len: 16 });
    for _ in 0..8 {
        bench.on(other, origin("xy"));
        bench.on(other, sent("xy"));
    }
    bench.on(other, Event::OriginEof);
    assert_eq!((bench.proxy.counters().evictions, bench.proxy.cache().entries()), (1, 1));
    assert_eq!(bench.on(reader, sent("ab")), ["0 write_client cd"], "the evicted object is still there for its reader");
    assert_eq!(bench.on(reader, sent("cd")), ["0 close_client fin 65536"]);
    let (_, does) = bench.ask("f");
    assert_eq!(does.last().unwrap(), "0 connect 192.0.2.9:8080 #3", "and gone for others");
    let key = bench.proxy.transaction.key_mode.key(&request("g"));
    assert!(bench.proxy.purge(&key) && !bench.proxy.purge(&key));
}

fn request(file: &str) -> crate::txn::request::Request {
    crate::txn::request::parse(format!("192.0.2.9 {file}\r\n\r\n").into(), false).unwrap()
}

#[test]
fn the_cache_stays_within_its_bounds() {
    let mut config = config();
    config.cache.max_bytes = 1000;
    config.cache.max_entries = 20;
    let mut bench = Bench::new(config);
    for nth in 0..200u32 {
        bench.store(&format!("f{nth}"), &"x".repeat((nth as usize * 37) % 300 + 1));
        assert!(bench.proxy.cache().bytes() <= 1000 && bench.proxy.cache().entries() <= 20);
    }
    // What is larger than everything is served, and not kept.
    bench.store("large", &"x".repeat(2000));
    assert!(bench.proxy.cache().bytes() <= 1000);
    assert!(bench.proxy.txns.is_empty() && bench.proxy.clients.is_empty(), "nobody is remembered");
}

/// Nothing is kept of a connection that is over: neither a deadline, nor a slot, nor a client's share.
#[test]
fn connections_leave_nothing_behind() {
    let mut bench = Bench::new(config());
    for nth in 0..2000u32 {
        let conn = bench.come_from([10, 0, (nth >> 8) as u8, nth as u8]).unwrap();
        bench.on(conn, Event::ClientEof);
        bench.notices.clear();
    }
    assert!(bench.proxy.txns.is_empty() && bench.proxy.conns.is_empty());
    assert!(bench.proxy.clients.is_empty() && bench.proxy.work.is_empty());
    while let Some(due) = bench.proxy.poll_timeout() {
        bench.now = bench.now.max(due);
        assert!(bench.wait(Duration::ZERO).is_empty());
    }
}

/// The proxy stores no more of an object than the cache takes.
#[test]
fn the_smaller_bound_of_an_object_counts() {
    let mut config = config();
    config.cache.max_object = 3;
    config.transaction.serve = Serve::Stored;
    config.transaction.key_mode = KeyMode::File;
    let mut bench = Bench::new(config);
    let (conn, _) = bench.ask("f");
    bench.fetch(conn);
    assert_eq!(bench.on(conn, origin("abcd")), ["0 close_origin abort", "0 close_client fin 65536"]);
    assert_eq!(bench.outcomes(), [Outcome::OriginFailed]);
}
