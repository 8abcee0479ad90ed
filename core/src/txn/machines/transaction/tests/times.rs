//! Deadlines, and answers that come too late.

use super::*;

/// Where a miss is when these have happened, in order.
fn miss_until(serve: Serve, steps: usize) -> Play {
    let steps = [
        Event::Accepted,
        client(HEAD),
        miss(),
        ready(),
        resolved(&["127.0.0.1", "::1"]),
        connected(),
        origin_sent(8),
        origin("abcd"),
    ]
    .into_iter()
    .take(steps);
    Play::new(config(serve)).after(steps)
}

/// Nothing before its time, then exactly this.
fn fires(mut play: Play, after: u64, actions: &str, state: &str) -> Play {
    let after = Duration::from_millis(after);
    assert_eq!(play.wait(after - Duration::from_millis(1)), "", "too early");
    assert_eq!(play.wait(Duration::from_millis(1)), actions);
    assert_eq!(play.state(), state);
    play
}

#[test]
fn t1_a_head_takes_its_time() {
    let mut play = Play::new(config(Serve::Streamed)).after([Event::Accepted]);
    for _ in 0..9 {
        assert_eq!(play.wait(Duration::from_secs(1)), "");
        play.on(client("s"));
    }
    fires(play, 1000, "close_client fin; finished timed_out Head", "done");
    let silent = Play::new(config(Serve::Streamed)).after([Event::Accepted]);
    fires(silent, 10_000, "close_client fin; finished timed_out Head", "done");
}

#[test]
fn t2_a_resolver_is_silent() {
    let play = miss_until(Serve::Streamed, 4);
    fires(play, 5000, "cancel_resolve; abort_cache; close_client fin; finished resolve_failed", "done");
}

#[test]
fn t3_each_address_has_its_time() {
    let play = miss_until(Serve::Streamed, 5);
    let play = fires(play, 5000, "cancel_connect; connect ::1 8080 #5", "connect");
    fires(play, 5000, "cancel_connect; abort_cache; close_client fin; finished connect_failed", "done");
}

#[test]
fn t4_an_origin_falls_silent() {
    let failed = "abort_cache; close_origin abort; close_client fin; finished origin_failed";
    fires(miss_until(Serve::Streamed, 6), 30_000, failed, "done");
    fires(miss_until(Serve::Streamed, 7), 30_000, failed, "done");
    let mut play = miss_until(Serve::Streamed, 8).after([stored(4)]);
    assert_eq!(play.wait(Duration::from_secs(29)), "");
    assert_eq!(play.on(client_sent(4)), "read_origin 4");
    let failed = "abort_cache; close_origin abort; close_client abort; finished origin_failed";
    fires(play, 30_000, failed, "done");
    let play = miss_until(Serve::Stored, 8).after([stored(4)]);
    fires(play, 30_000, "abort_cache; close_origin abort; close_client fin; finished origin_failed", "done");
}

#[test]
fn t7_a_client_reads_too_slowly() {
    let play = Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD), hit(6), cached("abcd")]);
    fires(play, 30_000, "close_client abort; close_cache; finished timed_out ClientWrite", "done").assert_over();
    // It is cut off, and its fetch goes on.
    let play = miss_until(Serve::Streamed, 8).after([stored(4)]);
    let mut play = fires(play, 30_000, "close_client abort; read_origin 4", "read_origin");
    assert_eq!(play.on(origin("ef")), "write_cache ef");
    assert_eq!(play.on(client_error()), "", "what was to be expected");
    assert_eq!(play.on(stored(2)), "read_origin 4");
    assert_eq!(play.on(Event::OriginEof), "close_origin fin; commit_cache");
    assert_eq!(play.on(Event::CacheCommitted), "finished timed_out ClientWrite");
    // Unless there is nothing to fetch it for.
    let config = Config { finish_fetch: false, ..config(Serve::Streamed) };
    let mut play = Play::new(config).after([Event::Accepted, client(HEAD), miss(), ready(), resolved(&["::1"])]);
    play = play.after([connected(), origin_sent(8), origin("abcd"), stored(4)]);
    let cut = "close_client abort; abort_cache; close_origin abort; finished timed_out ClientWrite";
    fires(play, 30_000, cut, "done");
}

#[test]
fn t7_who_was_given_everything_must_take_it_too() {
    let play = Play::new(config(Serve::Streamed));
    let play = play.after([Event::Accepted, client(HEAD), hit(4), cached("abcd"), Event::Shutdown]);
    assert_eq!(play.state(), "drain_client");
    fires(play, 30_000, "close_client abort; finished timed_out ClientWrite", "done");
}

#[test]
fn t8_the_cache_is_silent() {
    let begun = || Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD)]);
    fires(begun(), 5000, "close_client fin; finished cache_failed", "done");
    fires(begun().after([hit(6)]), 5000, "close_cache; close_client fin; finished cache_failed", "done");
    fires(begun().after([miss()]), 5000, "abort_cache; close_client fin; finished cache_failed", "done");
    // streamed: on without the cache.
    let play = miss_until(Serve::Streamed, 8).after([client_sent(4)]);
    let mut play = fires(play, 5000, "abort_cache; read_origin 4", "read_origin");
    assert_eq!(play.on(Event::OriginEof), "close_origin fin; close_client fin; finished served miss 4");
    let play = miss_until(Serve::Streamed, 8).after([client_sent(4), stored(4), Event::OriginEof]);
    fires(play, 5000, "finished served miss 4", "done");
    // stored: not without it.
    let play = miss_until(Serve::Stored, 8);
    fires(play, 5000, "abort_cache; close_origin abort; close_client fin; finished cache_failed", "done");
    let play = miss_until(Serve::Stored, 8).after([stored(4), Event::OriginEof]);
    fires(play, 5000, "close_client fin; finished cache_failed", "done");
}

#[test]
fn t9_a_transaction_takes_its_time() {
    let config = Config { transaction_timeout: Duration::from_secs(2), ..config(Serve::Streamed) };
    let begun = || Play::new(config.clone()).after([Event::Accepted, client(HEAD)]);
    let late = "finished timed_out Transaction";
    let cases = [
        (vec![], format!("close_client fin; {late}")),
        (vec![hit(6)], format!("close_cache; close_client fin; {late}")),
        (vec![hit(6), cached("abcd")], format!("close_cache; close_client abort; {late}")),
        (vec![miss()], format!("abort_cache; close_client fin; {late}")),
        (vec![miss(), refused(WriteRefusal::Locked)], format!("close_client fin; {late}")),
        (vec![miss(), ready()], format!("cancel_resolve; abort_cache; close_client fin; {late}")),
        (vec![miss(), ready(), resolved(&["::1"])], format!("cancel_connect; abort_cache; close_client fin; {late}")),
        (
            vec![miss(), ready(), resolved(&["::1"]), connected()],
            format!("abort_cache; close_origin abort; close_client fin; {late}"),
        ),
        (
            vec![miss(), ready(), resolved(&["::1"]), connected(), origin_sent(8), origin("abcd")],
            format!("abort_cache; close_origin abort; close_client abort; {late}"),
        ),
    ];
    fires(Play::new(config.clone()).after([Event::Accepted]), 2000, &format!("close_client fin; {late}"), "done");
    for (events, actions) in cases {
        fires(begun().after(events), 2000, &actions, "done").assert_over();
    }
    // Who has been given everything may take it.
    let play = fires(begun().after([hit(4), cached("abcd")]), 2000, "close_cache", "drain_client");
    assert_eq!(play.clone().on(client_sent(4)), "close_client fin; finished served hit 4");
    fires(play, 28_000, "close_client abort; finished timed_out ClientWrite", "done");
}

impl Play {
    /// Nothing has any effect any more.
    fn assert_over(mut self) {
        for event in Transaction::alphabet() {
            assert_eq!(self.on(event), "");
        }
        assert_eq!((self.state(), self.machine.poll_timeout()), ("done", None));
        assert_eq!(self.wait(Duration::from_secs(1000)), "");
    }
}

/// Invariant 7: each question has its number, and only that of the last one counts.
#[test]
fn late_answers_change_nothing() {
    let answers = |seq: u64| {
        let seq = Some(seq);
        [
            Event::CacheHit { len: 4, seq },
            Event::CacheMiss { seq },
            Event::CacheWriteReady { seq },
            Event::CacheWriteRefused { why: WriteRefusal::Busy, seq },
            Event::Resolved { addrs: vec!["::1".parse().unwrap()], seq },
            Event::ResolveFailed { why: Fault::TimedOut, seq },
            Event::Connected { seq },
            Event::ConnectFailed { why: Fault::Refused, seq },
        ]
    };
    for serve in [Serve::Streamed, Serve::Stored] {
        // The number of the question that is open after so many steps: lookup 1, write 2, name 3, address 4.
        for (steps, current) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 4), (7, 4), (8, 4)] {
            let mut play = miss_until(serve, steps);
            let before = (play.state(), play.machine.fingerprint(), play.machine.unexpected_events());
            for late in (0..8).filter(|&seq| seq != current) {
                for event in answers(late) {
                    assert_eq!(play.on(event.clone()), "", "{event:?} after {steps}");
                }
            }
            assert_eq!((play.state(), play.machine.fingerprint(), play.machine.unexpected_events()), before);
        }
    }
    let mut play = miss_until(Serve::Streamed, 5);
    assert_eq!(play.on(Event::ConnectFailed { why: Fault::Refused, seq: Some(4) }), "connect ::1 8080 #5");
    assert_eq!(play.on(Event::Connected { seq: Some(4) }), "", "the first address, after all");
    assert_eq!(play.on(Event::Connected { seq: Some(5) }), r"write_origin s f \r\n\r\n");
}

#[test]
fn t10_another_takes_too_long() {
    let locked = || refused(WriteRefusal::Locked);
    let waiting = || Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD), miss(), locked()]);
    let mut play = fires(waiting(), 5000, "leave_flight; resolve s #3", "resolve");
    assert_eq!(play.on(Event::FlightDone(Flight::Ok)), "", "it does not wait any more");
    let mut play = play.after([resolved(&["::1"]), connected(), origin_sent(8)]);
    assert_eq!(play.on(origin("abcd")), "write_client abcd", "past the cache");

    // The time is one and the same, however many lead.
    let mut play = waiting();
    for _ in 0..4 {
        assert_eq!(play.wait(Duration::from_secs(1)), "");
        play = play.after([Event::FlightDone(Flight::Abandoned), locked()]);
    }
    fires(play, 1000, "leave_flight; resolve s #7", "resolve");

    // Who leads himself in the end has all the time of a fetch; so has who finds it in the cache.
    for events in [vec![Event::FlightDone(Flight::Abandoned), ready()], vec![Event::FlightDone(Flight::Ok), hit(1)]] {
        let mut play = waiting().after(events);
        assert_eq!(play.wait(Duration::from_millis(4999)), "");
        let before = play.state();
        play.wait(Duration::from_millis(2));
        assert!(before == "cache_read" || play.state() == "done", "its own time is over, not that of the flight");
    }

    // Stored, another's fetch goes at the pace of the origin, not of its client.
    let play = Play::new(config(Serve::Stored)).after([Event::Accepted, client(HEAD), miss(), locked()]);
    fires(play, 300_000, "close_client fin; finished timed_out Transaction", "done");
}
