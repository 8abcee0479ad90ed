//! Rows of the table `txn.transaction`: each piece goes to the client and to the cache.

use super::*;

#[test]
fn rows() {
    let mut ways = shared::ways();
    ways.extend([
        ("resolve, not stored", "cache_prepare_write", vec![refused(WriteRefusal::Failed)]),
        ("connect, not stored", "resolve, not stored", vec![resolved(&["::1"])]),
        ("send_request, not stored", "connect, not stored", vec![connected()]),
        ("read_origin, both", "read_origin, nothing yet", vec![origin("abcd")]),
        ("read_origin, unstored", "read_origin, both", vec![client_sent(4)]),
        ("read_origin, owed", "read_origin, both", vec![stored(4)]),
        ("read_origin, asked", "read_origin, unstored", vec![stored(4)]),
        ("read_origin, not stored, nothing yet", "send_request, not stored", vec![origin_sent(8)]),
        ("read_origin, not stored, owed", "read_origin, not stored, nothing yet", vec![origin("abcd")]),
        ("read_origin, not stored, asked", "read_origin, not stored, owed", vec![client_sent(4)]),
        ("read_origin, gone, asked", "read_origin, asked", vec![client_error()]),
        ("read_origin, gone, unstored", "read_origin, unstored", vec![client_error()]),
        ("commit", "read_origin, asked", vec![Event::OriginEof]),
        ("commit, gone", "read_origin, gone, asked", vec![Event::OriginEof]),
    ]);
    let mut rows = shared::rows();
    discarding(
        &[
            "resolve, not stored",
            "connect, not stored",
            "send_request, not stored",
            "read_origin, both",
            "read_origin, unstored",
            "read_origin, owed",
            "read_origin, asked",
            "read_origin, not stored, nothing yet",
            "read_origin, not stored, owed",
            "read_origin, not stored, asked",
        ],
        &mut rows,
    );
    for situation in ["commit", "commit, gone", "read_origin, gone, asked", "read_origin, gone, unstored"] {
        // Nobody is there to be read from.
        rows.push((situation, client("abcd"), situation.split(',').next().unwrap(), ""));
    }
    rows.extend([
        ("cache_prepare_write", refused(WriteRefusal::Failed), "resolve", "resolve s #3"),
        //
        ("resolve, not stored", resolved(&["::1"]), "connect", "connect ::1 8080 #4"),
        ("resolve, not stored", resolve_failed(), "done", "close_client fin; finished resolve_failed"),
        ("resolve, not stored", client_error(), "done", "cancel_resolve; finished client_left"),
        ("resolve, not stored", Event::GiveWay, "done", "cancel_resolve; close_client fin; finished busy"),
        ("resolve, not stored", Event::Shutdown, "done", "cancel_resolve; close_client fin; finished shut_down"),
        //
        ("connect, not stored", connected(), "send_request", r"write_origin s f \r\n\r\n"),
        ("connect, not stored", connect_failed(), "done", "close_client fin; finished connect_failed"),
        ("connect, not stored", client_error(), "done", "cancel_connect; finished client_left"),
        ("connect, not stored", Event::Shutdown, "done", "cancel_connect; close_client fin; finished shut_down"),
        //
        ("send_request, not stored", origin_sent(8), "read_origin", "read_origin 4"),
        (
            "send_request, not stored",
            Event::OriginEof,
            "done",
            "close_origin abort; close_client fin; finished origin_failed",
        ),
        (
            "send_request, not stored",
            origin_error(),
            "done",
            "close_origin abort; close_client fin; finished origin_failed",
        ),
        ("send_request, not stored", client_error(), "done", "close_origin abort; finished client_left"),
        (
            "send_request, not stored",
            Event::Shutdown,
            "done",
            "close_origin abort; close_client fin; finished shut_down",
        ),
        //
        ("read_origin, nothing yet", origin("abcd"), "read_origin", "write_client abcd; write_cache abcd"),
        ("read_origin, nothing yet", origin("abcdefg"), "read_origin", "abort_cache; write_client abcdefg"),
        (
            "read_origin, nothing yet",
            Event::OriginEof,
            "done",
            "abort_cache; close_origin fin; close_client fin; finished no_such_file",
        ),
        (
            "read_origin, nothing yet",
            origin_error(),
            "done",
            "abort_cache; close_origin abort; close_client fin; finished origin_failed",
        ),
        ("read_origin, nothing yet", Event::CacheWriteFailed, "read_origin", "abort_cache"),
        ("read_origin, nothing yet", client_error(), "read_origin", ""),
        (
            "read_origin, nothing yet",
            Event::Shutdown,
            "done",
            "abort_cache; close_origin abort; close_client fin; finished shut_down",
        ),
        //
        ("read_origin, both", client_sent(1), "read_origin", ""),
        ("read_origin, both", client_sent(4), "read_origin", ""),
        ("read_origin, both", stored(1), "read_origin", ""),
        ("read_origin, both", stored(4), "read_origin", ""),
        ("read_origin, both", Event::CacheWriteFailed, "read_origin", "abort_cache"),
        ("read_origin, both", client_error(), "read_origin", ""),
        //
        ("read_origin, unstored", stored(4), "read_origin", "read_origin 4"),
        ("read_origin, unstored", Event::CacheWriteFailed, "read_origin", "abort_cache; read_origin 4"),
        ("read_origin, unstored", client_error(), "read_origin", ""),
        //
        ("read_origin, owed", client_sent(4), "read_origin", "read_origin 4"),
        ("read_origin, owed", Event::CacheWriteFailed, "read_origin", "abort_cache"),
        ("read_origin, owed", client_error(), "read_origin", "read_origin 4"),
        //
        ("read_origin, asked", origin("ef"), "read_origin", "write_client ef; write_cache ef"),
        ("read_origin, asked", origin("efg"), "read_origin", "abort_cache; write_client efg"),
        ("read_origin, asked", Event::OriginEof, "commit", "close_origin fin; commit_cache; close_client fin"),
        ("read_origin, asked", Event::CacheWriteFailed, "read_origin", "abort_cache"),
        ("read_origin, asked", client_error(), "read_origin", ""),
        //
        ("read_origin, not stored, nothing yet", origin("abcd"), "read_origin", "write_client abcd"),
        (
            "read_origin, not stored, nothing yet",
            Event::OriginEof,
            "done",
            "close_origin fin; close_client fin; finished no_such_file",
        ),
        (
            "read_origin, not stored, nothing yet",
            origin_error(),
            "done",
            "close_origin abort; close_client fin; finished origin_failed",
        ),
        (
            "read_origin, not stored, nothing yet",
            Event::Shutdown,
            "done",
            "close_origin abort; close_client fin; finished shut_down",
        ),
        //
        ("read_origin, not stored, owed", client_sent(4), "read_origin", "read_origin 4"),
        //
        ("read_origin, not stored, asked", origin("efgh"), "read_origin", "write_client efgh"),
        (
            "read_origin, not stored, asked",
            Event::OriginEof,
            "done",
            "close_origin fin; close_client fin; finished served miss 4",
        ),
        //
        ("read_origin, gone, asked", origin("ef"), "read_origin", "write_cache ef"),
        ("read_origin, gone, asked", origin("efg"), "done", "abort_cache; close_origin abort; finished client_left"),
        ("read_origin, gone, asked", Event::OriginEof, "commit", "close_origin fin; commit_cache"),
        //
        ("read_origin, gone, unstored", stored(4), "read_origin", "read_origin 4"),
        //
        ("commit", Event::CacheCommitted, "done", "finished served miss 4"),
        ("commit", Event::CacheWriteFailed, "done", "finished served miss 4"),
        ("commit", Event::Shutdown, "done", "finished served miss 4"),
        //
        ("commit, gone", Event::CacheCommitted, "done", "finished client_left"),
        ("commit, gone", Event::CacheWriteFailed, "done", "finished client_left"),
        ("commit, gone", Event::Shutdown, "done", "finished client_left"),
        ("commit, gone", client_error(), "commit", ""),
    ]);
    for situation in ["read_origin, both", "read_origin, unstored", "read_origin, owed", "read_origin, asked"] {
        let failed = "abort_cache; close_origin abort; close_client abort; finished origin_failed";
        rows.push((situation, origin_error(), "done", failed));
        let ended = "abort_cache; close_origin abort; close_client abort; finished shut_down";
        rows.push((situation, Event::Shutdown, "done", ended));
    }
    for situation in ["read_origin, not stored, owed", "read_origin, not stored, asked"] {
        let failed = "close_origin abort; close_client abort; finished origin_failed";
        rows.push((situation, origin_error(), "done", failed));
        let ended = "close_origin abort; close_client abort; finished shut_down";
        rows.push((situation, Event::Shutdown, "done", ended));
        rows.push((situation, client_error(), "done", "close_origin abort; finished client_left"));
    }
    rows.push((
        "read_origin, not stored, nothing yet",
        client_error(),
        "done",
        "close_origin abort; finished client_left",
    ));
    for situation in ["read_origin, gone, asked", "read_origin, gone, unstored"] {
        let left = "abort_cache; close_origin abort; finished client_left";
        for event in [Event::CacheWriteFailed, origin_error(), Event::Shutdown] {
            rows.push((situation, event, "done", left));
        }
        rows.push((situation, client_error(), "read_origin", ""));
    }
    play_rows(&config(Serve::Streamed), &ways, &rows);
}

/// P3: without single flight, what another one writes is fetched without being stored.
#[test]
fn without_single_flight_it_does_not_wait() {
    let config = Config { single_flight: false, ..config(Serve::Streamed) };
    let mut play = Play::new(config).after([Event::Accepted, client(HEAD), miss()]);
    assert_eq!(play.on(refused(WriteRefusal::Locked)), "resolve s #3");
    play = play.after([resolved(&["::1"]), connected(), origin_sent(8)]);
    assert_eq!(play.on(origin("abcd")), "write_client abcd");
    assert_eq!(play.on(client_sent(4)), "read_origin 4");
    assert_eq!(play.on(Event::OriginEof), "close_origin fin; close_client fin; finished served miss 4");
}

/// P4 switched off.
#[test]
fn without_finish_fetch_a_client_takes_its_fetch_with_it() {
    let config = Config { finish_fetch: false, ..config(Serve::Streamed) };
    let fetching = Play::new(config).after([Event::Accepted, client(HEAD), miss(), ready()]);
    let mut play = fetching.clone();
    assert_eq!(play.on(client_error()), "cancel_resolve; abort_cache; finished client_left");
    let mut play = fetching.clone().after([resolved(&["::1"])]);
    assert_eq!(play.on(client_error()), "cancel_connect; abort_cache; finished client_left");
    let mut play = fetching.after([resolved(&["::1"]), connected(), origin_sent(8), origin("abcd")]);
    assert_eq!(play.on(client_error()), "abort_cache; close_origin abort; finished client_left");
}

/// P8: an address needs no resolver, and is judged as an address.
#[test]
fn an_address_is_connected_to() {
    for (server, key, actions) in [
        ("::1", "3:::1f", "connect ::1 8080 #3"),
        ("[::1]", "5:[::1]f", "connect ::1 8080 #3"),
        ("127.0.0.9", "9:127.0.0.9f", "connect 127.0.0.9 8080 #3"),
        ("10.0.0.1", "8:10.0.0.1f", "abort_cache; close_client fin; finished refused_origin"),
    ] {
        let mut play = Play::new(config(Serve::Streamed)).after([Event::Accepted]);
        let looked_up = play.on(client(&format!("{server} f\r\n\r\n")));
        assert_eq!(looked_up, format!("open_cache_read {key} #1; read_client 4"));
        assert_eq!(play.on(miss()), format!("log f {server} 0; open_cache_write {key} #2"));
        assert_eq!(play.on(ready()), actions, "{server}");
    }
}

/// P8: the families in turn, each in the resolver's order (RFC 8305 §4).
#[test]
fn addresses_are_tried_in_turn() {
    let mut play = Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD), miss(), ready()]);
    let addrs = resolved(&["127.0.0.1", "127.0.0.2", "10.0.0.1", "127.0.0.3", "::1"]);
    let mut tried = vec![play.on(addrs)];
    while play.state() == "connect" {
        tried.push(play.on(connect_failed()));
    }
    assert_eq!(
        tried,
        [
            "connect 127.0.0.1 8080 #4",
            "connect ::1 8080 #5",
            "connect 127.0.0.2 8080 #6",
            "connect 127.0.0.3 8080 #7",
            "abort_cache; close_client fin; finished connect_failed",
        ]
    );
}

/// A waiter whose leader has left fetches itself, and is served from its own fetch.
#[test]
fn who_waited_for_an_abandoned_fetch_fetches() {
    let mut play = Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD), miss()]);
    assert_eq!(play.on(refused(WriteRefusal::Locked)), "");
    assert_eq!(play.on(Event::FlightDone(Flight::Abandoned)), "open_cache_write 1:sf #3");
    assert_eq!(play.on(ready()), "resolve s #4");
}

/// E5: a stored object that cannot be read is fetched again, once.
#[test]
fn what_cannot_be_read_is_fetched_again_once() {
    let mut play = Play::new(config(Serve::Streamed)).after([Event::Accepted, client(HEAD), hit(6)]);
    assert_eq!(play.on(Event::CacheReadFailed), "close_cache; open_cache_write 1:sf #2");
    play = play.after([refused(WriteRefusal::Locked), Event::FlightDone(Flight::Ok), hit(6)]);
    assert_eq!(play.on(Event::CacheReadFailed), "close_cache; close_client fin; finished cache_failed");
}
