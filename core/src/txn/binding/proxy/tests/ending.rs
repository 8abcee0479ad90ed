//! How a proxy ends.

use super::*;

fn stopped(error: Option<AcceptFault>) -> Notice {
    Notice::Stopped { error }
}

#[test]
fn a_drain_waits_for_the_last_one() {
    let mut bench = Bench::new(config());
    bench.store("f", "hello");
    let (conn, _) = bench.ask("f");
    bench.proxy.drain(bench.now);
    assert_eq!(bench.does(), ["stop_listening"]);
    assert!(!bench.proxy.wants_accept());
    assert_eq!(bench.incoming(([192, 0, 2, 1], 1).into()), None, "it was on its way");
    assert_eq!(bench.on(conn, sent("hello")), ["0 close_client fin 65536", "stop"]);
    assert_eq!(bench.notices.last(), Some(&stopped(None)));
}

#[test]
fn a_drain_of_nobody_is_over_at_once() {
    let mut bench = Bench::new(config());
    bench.proxy.drain(bench.now);
    assert_eq!(bench.does(), ["stop_listening", "stop"]);
    assert_eq!(bench.notices, [stopped(None)]);
    bench.proxy.drain(bench.now);
    assert!(bench.does().is_empty());
    assert_eq!(bench.notices.len(), 1, "once");
}

/// At the end of the drain time everybody is cut off, also who has been given everything and has not taken it: nobody takes a part for the whole.
#[test]
fn the_end_of_a_drain_cuts_off_whoever_is_left() {
    let mut config = config();
    config.accept.drain_timeout = Duration::from_secs(5);
    let mut bench = Bench::new(config);
    bench.store("f", "hello");
    bench.ask("f");
    let (fetching, _) = bench.ask("g");
    bench.fetch(fetching);
    bench.on(fetching, origin("part"));
    bench.ask("g");
    bench.proxy.drain(bench.now);
    assert_eq!(
        bench.wait(Duration::from_secs(5)),
        [
            "stop_listening",
            "1 close_origin abort",
            "1 close_client abort 65536",
            "2 close_client fin 65536",
            "0 close_client abort 65536",
            "stop"
        ]
    );
    assert_eq!(bench.notices.last(), Some(&stopped(None)), "the last notice");
    assert_eq!(bench.outcomes(), [Outcome::ShutDown; 3]);
    assert_eq!(bench.proxy.counters().live, 0);
}

#[test]
fn a_stop_lets_only_those_go_on_who_have_everything() {
    let mut bench = Bench::new(config());
    bench.store("f", "hello");
    let (everything, _) = bench.ask("f");
    let (fetching, _) = bench.ask("g");
    bench.fetch(fetching);
    bench.on(fetching, origin("part"));
    bench.come();
    bench.proxy.stop(bench.now);
    assert_eq!(
        bench.does(),
        ["stop_listening", "1 close_origin abort", "1 close_client abort 65536", "2 close_client fin 65536"]
    );
    assert_eq!(bench.on(everything, sent("hello")), ["0 close_client fin 65536", "stop"]);
    assert_eq!(bench.notices.last(), Some(&stopped(None)));
    assert_eq!(bench.proxy.cache().bytes(), "9:192.0.2.9f".len() as u64 + 5, "nothing of the broken fetch");
}

/// A listener that fails takes nobody's reply for a whole one.
#[test]
fn a_broken_listener_ends_everything() {
    let mut bench = Bench::new(config());
    bench.store("f", "hello");
    bench.ask("f");
    let (fetching, _) = bench.ask("g");
    bench.fetch(fetching);
    bench.on(fetching, origin("part"));
    bench.proxy.handle_accept_failed(bench.now, AcceptFault::Other);
    assert_eq!(
        bench.does(),
        ["stop_listening", "1 close_origin abort", "1 close_client abort 65536", "0 close_client abort 65536", "stop"]
    );
    assert_eq!(bench.notices.last(), Some(&stopped(Some(AcceptFault::Other))));
}
