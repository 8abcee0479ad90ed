//! The rows that both ways to serve have in common.

use super::*;

pub(super) fn ways() -> Ways {
    vec![
        ("start", "", vec![]),
        ("read_request", "start", vec![Event::Accepted]),
        ("cache_lookup", "read_request", vec![client(HEAD)]),
        ("cache_read, asked", "cache_lookup", vec![hit(6)]),
        ("cache_read, written", "cache_read, asked", vec![cached("abcd")]),
        ("cache_read, asked for the rest", "cache_read, written", vec![client_sent(4)]),
        ("cache_read, everything given", "cache_read, asked for the rest", vec![cached("ef")]),
        ("cache_prepare_write", "cache_lookup", vec![miss()]),
        ("wait_flight", "cache_prepare_write", vec![refused(WriteRefusal::Locked)]),
        ("cache_lookup, waited", "wait_flight", vec![Event::FlightDone(Flight::Ok)]),
        ("cache_read, waited", "cache_lookup, waited", vec![hit(6)]),
        ("resolve", "cache_prepare_write", vec![ready()]),
        ("connect", "resolve", vec![resolved(&["127.0.0.1", "::1"])]),
        ("connect, the last", "connect", vec![connect_failed()]),
        ("send_request", "connect", vec![connected()]),
        ("read_origin, nothing yet", "send_request", vec![origin_sent(8)]),
        ("drain_client", "cache_read, everything given", vec![Event::Shutdown]),
        ("done", "start", vec![Event::Shutdown]),
    ]
}

pub(super) fn rows() -> Rows {
    let long = "x".repeat(2050);
    let mut rows = vec![
        ("start", Event::Accepted, "read_request", "read_client 2050"),
        ("start", client_error(), "done", "finished client_left"),
        ("start", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("read_request", client("s f"), "read_request", "read_client 2047"),
        ("read_request", client(HEAD), "cache_lookup", "open_cache_read 1:sf #1; read_client 4"),
        ("read_request", client("s f\r\n\r\nabcd"), "cache_lookup", "open_cache_read 1:sf #1; read_client 4"),
        ("read_request", client("s f\r\n\r\nabcde"), "cache_lookup", "open_cache_read 1:sf #1"),
        ("read_request", client("\r\n\r\n"), "done", "close_client fin; finished malformed TooFewNames"),
        ("read_request", client("s\0f\r\n\r\n"), "done", "close_client fin; finished malformed ControlByte"),
        ("read_request", client(&long), "done", "close_client fin; finished malformed TooLong"),
        ("read_request", client("t f\r\n\r\n"), "done", "close_client fin; finished refused_origin"),
        ("read_request", Event::ClientEof, "done", "close_client fin; finished client_left"),
        ("read_request", client_error(), "done", "finished client_left"),
        ("read_request", Event::GiveWay, "done", "close_client fin; finished busy"),
        ("read_request", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("cache_lookup", hit(6), "cache_read", "log f s 1; read_cache 4"),
        ("cache_lookup", hit(3), "cache_read", "log f s 1; read_cache 3"),
        ("cache_lookup", hit(0), "done", "close_cache; close_client fin; finished cache_failed"),
        ("cache_lookup", miss(), "cache_prepare_write", "log f s 0; open_cache_write 1:sf #2"),
        ("cache_lookup", client_error(), "done", "finished client_left"),
        ("cache_lookup", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("cache_lookup, waited", hit(6), "cache_read", "log f s 1; read_cache 4"),
        ("cache_lookup, waited", miss(), "done", "log f s 0; close_client fin; finished cache_failed"),
        ("cache_lookup, waited", client_error(), "done", "finished client_left"),
        ("cache_lookup, waited", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("cache_read, asked", cached("abcd"), "cache_read", "write_client abcd"),
        ("cache_read, asked", cached("abcdefg"), "cache_read", ""),
        ("cache_read, asked", Event::CacheReadFailed, "cache_prepare_write", "close_cache; open_cache_write 1:sf #2"),
        ("cache_read, asked", client_error(), "done", "close_cache; finished client_left"),
        ("cache_read, asked", Event::Shutdown, "done", "close_cache; close_client fin; finished shut_down"),
        //
        ("cache_read, waited", cached("abcd"), "cache_read", "write_client abcd"),
        ("cache_read, waited", Event::CacheReadFailed, "done", "close_cache; close_client fin; finished cache_failed"),
        ("cache_read, waited", client_error(), "done", "close_cache; finished client_left"),
        ("cache_read, waited", Event::Shutdown, "done", "close_cache; close_client fin; finished shut_down"),
        //
        ("cache_read, written", client_sent(1), "cache_read", ""),
        ("cache_read, written", client_sent(4), "cache_read", "read_cache 2"),
        ("cache_read, written", Event::Shutdown, "done", "close_cache; close_client abort; finished shut_down"),
        //
        ("cache_read, asked for the rest", cached("e"), "cache_read", "write_client e"),
        ("cache_read, asked for the rest", cached("ef"), "cache_read", "write_client ef"),
        ("cache_read, asked for the rest", cached("efg"), "cache_read", ""),
        (
            "cache_read, asked for the rest",
            Event::Shutdown,
            "done",
            "close_cache; close_client abort; finished shut_down",
        ),
        //
        ("cache_read, everything given", client_sent(1), "cache_read", ""),
        (
            "cache_read, everything given",
            client_sent(2),
            "done",
            "close_cache; close_client fin; finished served hit 6",
        ),
        ("cache_read, everything given", Event::Shutdown, "drain_client", "close_cache"),
        //
        ("cache_prepare_write", ready(), "resolve", "resolve s #3"),
        ("cache_prepare_write", refused(WriteRefusal::Locked), "wait_flight", ""),
        ("cache_prepare_write", refused(WriteRefusal::Busy), "done", "close_client fin; finished busy"),
        ("cache_prepare_write", client_error(), "done", "abort_cache; finished client_left"),
        ("cache_prepare_write", Event::Shutdown, "done", "abort_cache; close_client fin; finished shut_down"),
        //
        ("wait_flight", Event::FlightDone(Flight::Ok), "cache_lookup", "open_cache_read 1:sf #3"),
        (
            "wait_flight",
            Event::FlightDone(Flight::Failed(Outcome::NoSuchFile)),
            "done",
            "close_client fin; finished no_such_file",
        ),
        ("wait_flight", Event::FlightDone(Flight::Abandoned), "cache_prepare_write", "open_cache_write 1:sf #3"),
        ("wait_flight", client_error(), "done", "finished client_left"),
        ("wait_flight", Event::Shutdown, "done", "close_client fin; finished shut_down"),
        //
        ("resolve", resolved(&["127.0.0.1", "::1"]), "connect", "connect 127.0.0.1 8080 #4"),
        ("resolve", resolved(&["10.0.0.1", "::1"]), "connect", "connect ::1 8080 #4"),
        ("resolve", resolved(&["10.0.0.1"]), "done", "abort_cache; close_client fin; finished refused_origin"),
        ("resolve", resolved(&[]), "done", "abort_cache; close_client fin; finished resolve_failed"),
        ("resolve", resolve_failed(), "done", "abort_cache; close_client fin; finished resolve_failed"),
        ("resolve", client_error(), "resolve", ""),
        ("resolve", Event::GiveWay, "done", "cancel_resolve; abort_cache; close_client fin; finished busy"),
        ("resolve", Event::Shutdown, "done", "cancel_resolve; abort_cache; close_client fin; finished shut_down"),
        //
        ("connect", connected(), "send_request", r"write_origin s f \r\n\r\n"),
        ("connect", connect_failed(), "connect", "connect ::1 8080 #5"),
        ("connect", client_error(), "connect", ""),
        ("connect", Event::Shutdown, "done", "cancel_connect; abort_cache; close_client fin; finished shut_down"),
        //
        ("connect, the last", connected(), "send_request", r"write_origin s f \r\n\r\n"),
        ("connect, the last", connect_failed(), "done", "abort_cache; close_client fin; finished connect_failed"),
        ("connect, the last", client_error(), "connect", ""),
        (
            "connect, the last",
            Event::Shutdown,
            "done",
            "cancel_connect; abort_cache; close_client fin; finished shut_down",
        ),
        //
        ("send_request", origin_sent(3), "send_request", ""),
        ("send_request", origin_sent(8), "read_origin", "read_origin 4"),
        (
            "send_request",
            Event::OriginEof,
            "done",
            "abort_cache; close_origin abort; close_client fin; finished origin_failed",
        ),
        (
            "send_request",
            origin_error(),
            "done",
            "abort_cache; close_origin abort; close_client fin; finished origin_failed",
        ),
        ("send_request", client_error(), "send_request", ""),
        (
            "send_request",
            Event::Shutdown,
            "done",
            "abort_cache; close_origin abort; close_client fin; finished shut_down",
        ),
        //
        ("drain_client", client_sent(1), "drain_client", ""),
        ("drain_client", client_sent(2), "done", "close_client fin; finished served hit 6"),
        ("drain_client", client_error(), "done", "finished client_left"),
        ("drain_client", Event::Shutdown, "done", "close_client abort; finished shut_down"),
    ];
    for situation in ["cache_read, written", "cache_read, asked for the rest", "cache_read, everything given"] {
        let failed = "close_cache; close_client abort; finished cache_failed";
        rows.push((situation, Event::CacheReadFailed, "done", failed));
        rows.push((situation, client_error(), "done", "close_cache; finished client_left"));
    }
    discarding(
        &[
            "cache_lookup",
            "cache_lookup, waited",
            "cache_read, asked",
            "cache_read, waited",
            "cache_read, written",
            "cache_read, asked for the rest",
            "cache_read, everything given",
            "cache_prepare_write",
            "wait_flight",
            "resolve",
            "connect",
            "connect, the last",
            "send_request",
            "read_origin, nothing yet",
            "drain_client",
        ],
        &mut rows,
    );
    rows
}
