//! Single flight (docs/protocols/txn.md, Cache).

use super::*;

/// A leader that is fetching `f`, and so many who wait for it.
fn queue(config: Config, waiting: usize) -> (Bench, TxnId, Vec<TxnId>) {
    let mut bench = Bench::new(config);
    let (leader, _) = bench.ask("f");
    let mut waiters = Vec::new();
    for nth in 1..=waiting {
        let (conn, does) = bench.ask("f");
        assert_eq!(does, [format!("{nth} read_client 65536")], "it asks nobody");
        waiters.push(conn);
    }
    bench.fetch(leader);
    assert_eq!(bench.proxy.counters().longest_queue, waiting);
    (bench, leader, waiters)
}

#[test]
fn one_fetch_for_all_who_ask_meanwhile() {
    let (mut bench, leader, waiters) = queue(config(), 3);
    bench.on(leader, origin("hello"));
    bench.on(leader, sent("hello"));
    assert_eq!(
        bench.on(leader, Event::OriginEof),
        [
            "0 close_origin fin",
            "0 close_client fin 65536",
            "1 write_client hello",
            "2 write_client hello",
            "3 write_client hello"
        ]
    );
    for conn in waiters {
        bench.on(conn, sent("hello"));
    }
    let hit = |hit| Outcome::Served { hit, bytes: 5 };
    assert_eq!(bench.outcomes(), [hit(false), hit(true), hit(true), hit(true)]);
    let counters = bench.proxy.counters();
    assert_eq!((counters.fetches, counters.coalesced, counters.misses, counters.hits), (1, 3, 4, 3));
    assert_eq!(counters.longest_queue, 0);
}

#[test]
fn who_leaves_the_queue_is_not_told() {
    let (mut bench, leader, waiters) = queue(config(), 2);
    assert_eq!(bench.on(waiters[0], Event::ClientError { kind: Fault::Reset }), ["1 close_client abort 0"]);
    bench.on(leader, origin("hello"));
    bench.on(leader, sent("hello"));
    let does = bench.on(leader, Event::OriginEof);
    assert_eq!(does[2..], ["2 write_client hello"]);
}

#[test]
fn a_failure_is_everybodys() {
    let (mut bench, leader, _) = queue(config(), 2);
    let does = bench.on(leader, Event::OriginError { kind: Fault::Reset });
    assert_eq!(
        does,
        ["0 close_origin abort", "0 close_client fin 65536", "1 close_client fin 65536", "2 close_client fin 65536"]
    );
    assert_eq!(bench.outcomes(), [Outcome::OriginFailed; 3]);
    assert_eq!(bench.proxy.counters().fetches, 1, "a broken origin is asked once");
}

#[test]
fn no_such_file_is_everybodys_too() {
    let (mut bench, leader, _) = queue(config(), 2);
    bench.on(leader, Event::OriginEof);
    assert_eq!(bench.outcomes(), [Outcome::NoSuchFile; 3]);
    assert_eq!(bench.proxy.cache().bytes(), 0);
}

/// P4: the fetch of a client that has left goes on for those who wait.
#[test]
fn a_leader_that_leaves_leaves_its_fetch() {
    let (mut bench, leader, waiters) = queue(config(), 1);
    bench.on(leader, origin("hello"));
    assert_eq!(bench.on(leader, Event::ClientError { kind: Fault::Reset }), ["0 read_origin 65536"]);
    assert_eq!(
        bench.on(leader, Event::OriginEof),
        ["0 close_origin fin", "0 close_client abort 0", "1 write_client hello"]
    );
    bench.on(waiters[0], sent("hello"));
    assert_eq!(bench.outcomes(), [Outcome::ClientLeft, Outcome::Served { hit: true, bytes: 5 }]);
}

/// P4 switched off: the next one leads, and the others wait on.
#[test]
fn a_leader_that_takes_its_fetch_along_is_followed() {
    let mut config = config();
    config.transaction.finish_fetch = false;
    let (mut bench, leader, waiters) = queue(config, 3);
    let does = bench.on(leader, Event::ClientError { kind: Fault::Reset });
    assert_eq!(does, ["0 close_origin abort", "0 close_client abort 0", "1 connect 192.0.2.9:8080 #4"]);
    assert_eq!(bench.proxy.counters().longest_queue, 2);
    bench.fetch(waiters[0]);
    bench.on(waiters[0], origin("hello"));
    bench.on(waiters[0], sent("hello"));
    let does = bench.on(waiters[0], Event::OriginEof);
    assert_eq!(does[2..], ["2 write_client hello", "3 write_client hello"], "in their old order");
}

/// What is not kept helps nobody: the next one fetches while the first is still being served.
#[test]
fn a_leader_over_the_bound_is_followed() {
    let mut config = config();
    config.transaction.max_object = 5;
    let (mut bench, leader, waiters) = queue(config, 2);
    bench.on(leader, origin("hello"));
    bench.on(leader, sent("hello"));
    assert_eq!(
        bench.on(leader, origin("!")),
        ["0 write_client !", "1 connect 192.0.2.9:8080 #4"],
        "the leader goes on without the cache"
    );
    bench.on(leader, sent("!"));
    bench.on(leader, Event::OriginEof);
    assert_eq!(bench.outcomes(), [Outcome::Served { hit: false, bytes: 6 }]);
    bench.on(waiters[0], Event::ConnectFailed { why: Fault::Refused, seq: None });
    assert_eq!(bench.outcomes(), [Outcome::ConnectFailed; 2]);
}

#[test]
fn a_queue_has_an_end() {
    let mut config = config();
    config.cache.max_waiters = 2;
    let (mut bench, ..) = queue(config, 2);
    let (_, does) = bench.ask("f");
    assert_eq!(does, ["3 read_client 65536", "3 close_client fin 65536"]);
    assert_eq!(bench.outcomes(), [Outcome::Busy]);
}

/// P11: the original refuses.
#[test]
fn without_single_flight_nobody_waits() {
    let mut config = config();
    config.transaction = config.transaction.sample();
    let mut bench = Bench::new(config);
    let (leader, _) = bench.ask("f");
    let (_, does) = bench.ask("f");
    assert_eq!(does, ["1 read_client 65536", "1 close_client fin 65536"]);
    assert_eq!(bench.outcomes(), [Outcome::Busy]);
    bench.fetch(leader);
}

/// Who waits waits no longer than its own time.
#[test]
fn a_waiter_has_its_own_deadline() {
    let mut config = config();
    config.transaction.transaction_timeout = Duration::from_secs(10);
    let mut bench = Bench::new(config);
    let (leader, _) = bench.ask("f");
    bench.now += Duration::from_secs(4);
    bench.ask("f");
    bench.fetch(leader);
    bench.on(leader, origin("hello"));
    let does = bench.wait(Duration::from_secs(6));
    // The leader's time is over first; the waiter is next, and has four seconds left.
    assert_eq!(does, ["0 close_origin abort", "0 close_client abort 65536", "1 connect 192.0.2.9:8080 #4"]);
    assert_eq!(bench.wait(Duration::from_secs(4)), ["1 cancel_connect", "1 close_client fin 65536"]);
}

/// A client that takes its time with what it leads must not make others wait.
#[test]
fn a_slow_leader_holds_up_nobody() {
    let (mut bench, leader, waiters) = queue(config(), 2);
    assert_eq!(bench.on(leader, origin("hello")), ["0 write_client hello"]);
    assert_eq!(
        bench.wait(Duration::from_secs(5)),
        ["1 connect 192.0.2.9:8080 #3", "2 connect 192.0.2.9:8080 #3"],
        "each past the cache"
    );
    assert_eq!(bench.proxy.counters().longest_queue, 0, "and room for others");
    bench.fetch(waiters[0]);
    bench.on(waiters[0], origin("hello"));
    bench.on(waiters[0], sent("hello"));
    assert_eq!(bench.on(waiters[0], Event::OriginEof), ["1 close_origin fin", "1 close_client fin 65536"]);
    assert_eq!(bench.proxy.cache().entries(), 0);
    bench.on(leader, sent("hello"));
    bench.on(leader, Event::OriginEof);
    assert_eq!(bench.proxy.cache().entries(), 1, "what is kept is the leader's");
}

/// With file-only keys two servers have one object. That one of them fails says nothing of the other (K1, P3).
#[test]
fn another_servers_failure_is_not_ones_own() {
    let mut config = config();
    config.transaction.key_mode = KeyMode::File;
    let mut bench = Bench::new(config);
    let (leader, _) = bench.ask("f");
    let other = bench.come();
    assert_eq!(bench.on(other, Event::ClientData { bytes: "192.0.2.8 f\r\n\r\n".into() }), ["1 read_client 65536"]);
    bench.ask("f");
    let does = bench.on(leader, Event::ConnectFailed { why: Fault::Refused, seq: None });
    assert_eq!(does, ["0 close_client fin 65536", "2 close_client fin 65536", "1 connect 192.0.2.8:8080 #4"]);
}
