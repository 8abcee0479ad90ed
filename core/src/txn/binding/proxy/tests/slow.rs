//! Whoever is slow keeps nobody out.

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn slow_heads_give_way_where_there_is_no_room() {
    let mut config = config();
    config.accept.max_transactions = 3;
    let mut bench = Bench::new(config);
    let slow = bench.come();
    bench.on(slow, Event::ClientData { bytes: "192.0.2.9 ".into() });
    let (fetching, _) = bench.ask("f");
    let honest = bench.come();
    assert!(!bench.proxy.wants_accept());
    assert_eq!(bench.wait(500 * MS), ["0 close_client fin 65536"]);
    assert_eq!(bench.outcomes(), [Outcome::Busy]);
    assert!(bench.proxy.wants_accept());
    bench.on(honest, head("f"));
    bench.fetch(fetching);
    bench.come();
    // Whoever has said what it wants is in nobody's way, however long its origin takes.
    bench.wait(500 * MS);
    assert_eq!(bench.proxy.counters().live, 2);
    assert_eq!(bench.proxy.counters().failures, BTreeMap::from([("busy", 2)]));
}

/// Asks for a file of a server by its name; what the host is to do then, but for reading on.
fn ask_name(bench: &mut Bench, from: [u8; 4], server: &str) -> (TxnId, Vec<String>) {
    let conn = bench.come_from(from).expect("there is room");
    let mut does = bench.on(conn, Event::ClientData { bytes: format!("{server} f \r\n\r\n").into() });
    assert_eq!(does.remove(0), format!("{} read_client 65536", nth(conn)));
    (conn, does)
}

#[test]
fn slow_names_give_way_and_names_that_are_known_do_not_wait() {
    let mut config = config();
    config.lookups.max_asking = 2;
    config.lookups.max_waiting = 2;
    let mut bench = Bench::new(config);
    let (known, does) = ask_name(&mut bench, [192, 0, 2, 1], "good.test");
    assert_eq!(does, ["0 resolve good.test #3"]);
    bench.on(known, Event::Resolved { addrs: vec![[192, 0, 2, 9].into()], seq: Some(3) });
    for nth in 1..=2 {
        assert_eq!(ask_name(&mut bench, [192, 0, 2, 2], &format!("slow{nth}")).1.len(), 1);
    }
    let (_, does) = ask_name(&mut bench, [192, 0, 2, 3], "new.test");
    assert_eq!(does, Vec::<String>::new(), "it waits for its turn");
    let (other, does) = ask_name(&mut bench, [192, 0, 2, 4], "good.test");
    assert_eq!(does, Vec::<String>::new(), "another fetches the same");
    bench.on(known, Event::ConnectFailed { why: Fault::Refused, seq: None });
    assert_eq!(bench.outcomes().len(), 2, "it fails alike");
    let _ = other;
    let (_, does) = ask_name(&mut bench, [192, 0, 2, 4], "good.test");
    assert_eq!(does.len(), 1, "{does:?}: names that have had addresses have a pool of their own");
    // Time is up for the first slow name.
    let does = bench.wait(500 * MS);
    assert_eq!(does, ["1 cancel_resolve", "1 close_client fin 65536", "3 resolve new.test #3"]);
    assert_eq!(bench.outcomes(), [Outcome::Busy]);
    // Nobody waits any more: the second one may go on for as long as names may take.
    assert!(bench.wait(4400 * MS).is_empty());
    assert_eq!(bench.proxy.counters().failures["busy"], 1);
}

#[test]
fn an_answer_makes_room() {
    let mut config = config();
    config.lookups.max_asking = 1;
    let mut bench = Bench::new(config);
    let (first, _) = ask_name(&mut bench, [192, 0, 2, 1], "a.test");
    let (second, does) = ask_name(&mut bench, [192, 0, 2, 1], "b.test");
    assert!(does.is_empty());
    ask_name(&mut bench, [192, 0, 2, 1], "c.test");
    let does = bench.on(first, Event::ResolveFailed { why: Fault::NoSuchName, seq: Some(3) });
    assert_eq!(does, ["0 close_client fin 65536", "1 resolve b.test #3"]);
    let does = bench.on(second, Event::ClientError { kind: Fault::Reset });
    assert!(does.is_empty(), "the fetch goes on for the cache: {does:?}");
    bench.proxy.stop(bench.now);
    assert_eq!(bench.does().iter().filter(|does| does.contains("close_client")).count(), 2);
}
