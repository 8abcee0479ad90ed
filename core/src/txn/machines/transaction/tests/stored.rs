//! Rows of the table `txn.transaction, stored`: the object is stored first, and then the stored copy is served.

use super::*;

#[test]
fn rows() {
    let mut ways = shared::ways();
    ways.extend([
        ("read_origin, unstored", "read_origin, nothing yet", vec![origin("abcd")]),
        ("read_origin, asked", "read_origin, unstored", vec![stored(4)]),
        ("read_origin, gone", "read_origin, asked", vec![client_error()]),
        ("commit", "read_origin, asked", vec![Event::OriginEof]),
        ("commit, gone", "read_origin, gone", vec![Event::OriginEof]),
        ("cache_lookup, own", "commit", vec![Event::CacheCommitted]),
        ("cache_read, own", "cache_lookup, own", vec![hit(4)]),
        ("cache_read, own, everything given", "cache_read, own", vec![cached("abcd")]),
    ]);
    let mut rows = shared::rows();
    discarding(
        &[
            "read_origin, unstored",
            "read_origin, asked",
            "commit",
            "cache_lookup, own",
            "cache_read, own",
            "cache_read, own, everything given",
        ],
        &mut rows,
    );
    for situation in ["read_origin, gone", "commit, gone"] {
        rows.push((situation, client("abcd"), situation.split(',').next().unwrap(), ""));
    }
    let failed = "abort_cache; close_origin abort; close_client fin; finished origin_failed";
    rows.extend([
        ("cache_prepare_write", refused(WriteRefusal::Failed), "done", "close_client fin; finished cache_failed"),
        //
        ("read_origin, nothing yet", origin("abcd"), "read_origin", "write_cache abcd"),
        ("read_origin, nothing yet", origin("abcdefg"), "done", failed),
        (
            "read_origin, nothing yet",
            Event::OriginEof,
            "done",
            "abort_cache; close_origin fin; close_client fin; finished no_such_file",
        ),
        //
        ("read_origin, unstored", stored(1), "read_origin", ""),
        ("read_origin, unstored", stored(4), "read_origin", "read_origin 4"),
        //
        ("read_origin, asked", origin("ef"), "read_origin", "write_cache ef"),
        ("read_origin, asked", origin("efg"), "done", failed),
        ("read_origin, asked", Event::OriginEof, "commit", "close_origin fin; commit_cache"),
        //
        ("read_origin, gone", origin("ef"), "read_origin", "write_cache ef"),
        ("read_origin, gone", origin("efg"), "done", "abort_cache; close_origin abort; finished client_left"),
        ("read_origin, gone", Event::OriginEof, "commit", "close_origin fin; commit_cache"),
        ("read_origin, gone", origin_error(), "done", "abort_cache; close_origin abort; finished client_left"),
        ("read_origin, gone", Event::CacheWriteFailed, "done", "abort_cache; close_origin abort; finished client_left"),
        ("read_origin, gone", Event::Shutdown, "done", "abort_cache; close_origin abort; finished client_left"),
        ("read_origin, gone", client_error(), "read_origin", ""),
        //
        ("commit", Event::CacheCommitted, "cache_lookup", "open_cache_read 1:sf #5"),
        ("commit", Event::CacheWriteFailed, "done", "close_client fin; finished cache_failed"),
        ("commit", client_error(), "commit", ""),
        ("commit", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("commit, gone", Event::CacheCommitted, "done", "finished client_left"),
        ("commit, gone", Event::CacheWriteFailed, "done", "finished client_left"),
        ("commit, gone", client_error(), "commit", ""),
        ("commit, gone", Event::Shutdown, "done", "finished client_left"),
        //
        ("cache_lookup, own", hit(4), "cache_read", "log f s 1; read_cache 4"),
        ("cache_lookup, own", miss(), "done", "log f s 0; close_client fin; finished cache_failed"), // D15
        ("cache_lookup, own", client_error(), "done", "finished client_left"),
        ("cache_lookup, own", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("cache_read, own", cached("abcd"), "cache_read", "write_client abcd"),
        ("cache_read, own", Event::CacheReadFailed, "done", "close_cache; close_client fin; finished cache_failed"),
        ("cache_read, own", client_error(), "done", "close_cache; finished client_left"),
        ("cache_read, own", Event::Shutdown, "done", "close_cache; close_client fin; finished shut_down"),
        //
        (
            "cache_read, own, everything given",
            client_sent(4),
            "done",
            "close_cache; close_client fin; finished served miss 4",
        ),
        (
            "cache_read, own, everything given",
            Event::CacheReadFailed,
            "done",
            "close_cache; close_client abort; finished cache_failed",
        ),
        ("cache_read, own, everything given", client_error(), "done", "close_cache; finished client_left"),
        ("cache_read, own, everything given", Event::Shutdown, "drain_client", "close_cache"),
    ]);
    for situation in ["read_origin, nothing yet", "read_origin, unstored", "read_origin, asked"] {
        rows.push((situation, origin_error(), "done", failed));
        let no_cache = "abort_cache; close_origin abort; close_client fin; finished cache_failed";
        rows.push((situation, Event::CacheWriteFailed, "done", no_cache));
        rows.push((situation, client_error(), "read_origin", ""));
        let ended = "abort_cache; close_origin abort; close_client fin; finished shut_down";
        rows.push((situation, Event::Shutdown, "done", ended));
    }
    play_rows(&config(Serve::Stored), &ways, &rows);
}

/// E4: without single flight, a key that is being written is busy.
#[test]
fn without_single_flight_it_is_busy() {
    let config = Config { single_flight: false, ..config(Serve::Stored) };
    let mut play = Play::new(config).after([Event::Accepted, client(HEAD), miss()]);
    assert_eq!(play.on(refused(WriteRefusal::Locked)), "close_client fin; finished busy");
}

/// The log of a miss that is served: 0, then 1.
#[test]
fn a_miss_is_logged_twice() {
    let mut play = Play::new(config(Serve::Stored));
    let mut said = Vec::new();
    for event in [
        Event::Accepted,
        client(HEAD),
        miss(),
        ready(),
        resolved(&["::1"]),
        connected(),
        origin_sent(8),
        origin("abcd"),
        stored(4),
        Event::OriginEof,
        Event::CacheCommitted,
        hit(4),
        cached("abcd"),
        client_sent(4),
    ] {
        said.push(play.on(event));
    }
    let said = said.join("; ");
    let log: Vec<_> = said.split("; ").filter(|action| action.starts_with("log")).collect();
    assert_eq!(log, ["log f s 0", "log f s 1"]);
    assert!(said.ends_with("finished served miss 4"), "{said}");
}
