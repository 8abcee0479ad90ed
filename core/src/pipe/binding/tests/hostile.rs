//! A peer that breaks rules: a test for each line of the table in docs/protocols/pipe.md, Session.

use std::time::Duration;

use super::*;
use crate::{
    net,
    pipe::{
        machines::{callee, end::By, receiver::Mode, session::Violation},
        wire::message::{Abort, Block, Loss, Part},
    },
};

fn block(pipe: u16, payload: &'static [u8]) -> Message {
    Block { pipe: id(pipe), part: Part::Data { loss: Loss::NEVER, payload: Bytes::from_static(payload) } }.into()
}

fn eof(pipe: u16) -> Message {
    Block { pipe: id(pipe), part: Part::Eof }.into()
}

fn abort(message: &str) -> Result<Value, Abort> {
    Err(Abort::new(-1, message))
}

fn control(code: u8, data: &'static [u8]) -> Message {
    Control { code: code.cast_signed(), data: Bytes::from_static(data) }.into()
}

/// The session is over for that reason, and nothing else has happened but these ends of pipes.
#[track_caller]
fn expect_end(raw: &mut Raw, expected: Why, pipes: usize) {
    let events = raw.server.take();
    let (last, ends) = events.split_last().unwrap();
    assert!(matches!(last, Event::Closed { why, how: net::Close::Fin, .. } if *why == expected), "{last:?}");
    let closing = Err(Abort::new(-2, "session closing"));
    let is_end = |event: &&Event| matches!(event, Event::Ended { by: By::Session, result, .. } if *result == closing);
    assert_eq!(ends.iter().filter(is_end).count(), pipes);
    assert!(!raw.server.binding.wants_read() && raw.server.binding.poll_timeout().is_none());
    assert_eq!(raw.says(&[open(9, 9)]), [], "nothing means anything any more");
}

#[test]
fn an_unknown_function() {
    for codec in codecs() {
        for (function, message) in [(14, "function not found: 14"), (0xffff, "function not found: -1")] {
            let mut raw = Raw::new(codec);
            assert_eq!(raw.says(&[open(1, function)]), []);
            let pipe = raw.server.called();
            raw.server.binding.refuse(pipe, Refused::UnknownFunction).unwrap();
            assert_eq!(raw.hears(), [close(1, abort(message))]);
            assert_eq!(raw.server.binding.refuse(pipe, Refused::Internal), Err(CloseError::Gone));
            raw.server.take();
            raw.expect_alive();
        }
    }
    for (why, message) in [(Refused::Unexpected, "unexpected error"), (Refused::Internal, "internal error")] {
        let mut raw = Raw::new(codecs()[0]);
        raw.says(&[open(1, 15)]);
        let pipe = raw.server.called();
        raw.server.binding.refuse(pipe, why).unwrap();
        assert_eq!(raw.hears(), [close(1, abort(message))]);
    }
}

#[test]
fn a_duplicate_pipe_id() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        assert_eq!(raw.says(&[open(5, 17), open(5, 10)]), [close(5, abort("duplicate pipe-id specified: 5"))]);
        let pipe = raw.server.called();
        raw.server.binding.close(pipe, Ok(Value::Null)).unwrap();
        assert_eq!(raw.hears(), [close(5, Ok(Value::Null))], "the first one goes on");
        raw.server.take();
        raw.expect_alive();
    }
}

#[test]
fn a_block_or_eof_for_an_unknown_pipe() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        let unknown = |pipe, number| close(pipe, abort(&format!("unknown pipe-id specified: {number}")));
        assert_eq!(raw.says(&[block(7, b"x"), eof(7)]), [unknown(7, "7"), unknown(7, "7")]);
        assert_eq!(raw.says(&[block(0x8005, b"x")]), [unknown(0x8005, "-32763")]);
        raw.expect_alive();
    }
}

#[test]
fn late_blocks_of_a_pipe_that_this_side_closed() {
    let mut raw = Raw::with(codecs()[0], |config| config.closed_ids = 2);
    for pipe in [1, 2, 3] {
        raw.says(&[open(pipe, 20)]);
        let called = raw.server.called();
        raw.server.binding.close(called, Ok(Value::Null)).unwrap();
        raw.hears();
        raw.server.take();
    }
    let late = [block(1, b"x"), block(2, b"x"), eof(2), block(3, b"x"), close(3, Ok(Value::Null))];
    let forgotten = close(1, abort("unknown pipe-id specified: 1"));
    assert_eq!(raw.says(&late), [forgotten], "only so many are remembered");
    // The id is free all the same (PID-4).
    raw.says(&[open(3, 10)]);
    raw.server.called();
}

#[test]
fn a_close_for_an_unknown_pipe() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        assert_eq!(raw.says(&[close(7, Ok(Value::Null)), close(0x8001, abort("no"))]), []);
        assert_eq!(raw.server.take(), []);
        raw.expect_alive();
    }
}

#[test]
fn a_pipe_id_of_this_side() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        assert_eq!(raw.says(&[open(0x8005, 10)]), [close(0x8005, abort("wrong pipe-id side: -32763"))]);
        assert_eq!(raw.server.take(), []);
        raw.expect_alive();

        let accept = callee::Config { accept_foreign_ids: true };
        let mut raw = Raw::with(codec, |config| config.callee = accept);
        assert_eq!(raw.says(&[open(0x8000, 10)]), []);
        let foreign = raw.server.called();
        let own = raw.server.open(raw.now, 100, Vec::new());
        assert_eq!(raw.hears(), [open(0x8001, 100)], "an id in use is passed over");
        raw.server.binding.close(foreign, Ok(Value::Null)).unwrap();
        raw.server.binding.cancel(own).unwrap();
        let cancelled = close(0x8001, abort("cancelled"));
        assert_eq!(raw.hears(), [close(0x8000, Ok(Value::Null)), cancelled]);
    }
}

#[test]
fn a_block_to_a_function_that_takes_none() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        raw.says(&[open(1, 17)]);
        let pipe = raw.server.called();
        raw.server.binding.choose(pipe, Mode::Discard).unwrap();
        assert_eq!(raw.says(&[block(1, b"x"), eof(1)]), []);
        assert_eq!(raw.server.take(), []);
        raw.expect_alive();
    }
}

#[test]
fn a_block_behind_eof() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        raw.says(&[open(1, 20)]);
        let pipe = raw.server.called();
        raw.server.binding.choose(pipe, Mode::Messages).unwrap();
        assert_eq!(raw.says(&[block(1, b""), eof(1), block(1, b"x"), eof(1)]), []);
        let empty = Event::Block { pipe, loss: Loss::NEVER, payload: Bytes::new() };
        assert_eq!(raw.server.take(), [empty, Event::Eof { pipe }]);
        raw.expect_alive();
    }
}

#[test]
fn violations() {
    let second = || vec![sync(1)];
    for codec in codecs() {
        for (message, violation) in [
            (second(), Violation::SecondSync),
            (vec![control(b'Q', b"short")], Violation::SecondSync),
            (vec![control(b'Z', b"")], Violation::UnknownControl(90)),
            (vec![Control::ping().into()], Violation::Ping),
        ] {
            let mut raw = Raw::new(codec);
            raw.says(&[open(1, 17), open(2, 17)]);
            raw.server.take();
            let more = [message, vec![open(3, 10)]].concat();
            assert_eq!(raw.says(&more), [Control::close().into()]);
            expect_end(&mut raw, Why::Violation(violation), 2);
        }
        for (message, violation) in [
            (open(1, 10), Violation::NoSync),
            (eof(1), Violation::NoSync),
            (Control::close().into(), Violation::NoSync),
            (control(b'Q', &[0; 49]), Violation::ShortSync),
            (control(b'Q', &[1; 50]), Violation::Version(0x0101)),
            (control(b'Q', &[0; 50]), Violation::SecondSync),
        ] {
            let mut raw = Raw::silent(codec, |_| {});
            let answers = raw.says(&[message, open(1, 10)]);
            if violation == Violation::SecondSync {
                // Version 0 has the major number that we know, and the session is open.
                assert_eq!(answers.len(), 1);
                continue;
            }
            assert_eq!(answers, [Control::close().into()]);
            expect_end(&mut raw, Why::Violation(violation), 0);
        }
    }
}

#[test]
fn a_violation_is_answered_whatever_comes_behind_it() {
    let mut raw = Raw::new(codecs()[0]);
    let mut bytes = BytesMut::new();
    raw.codec.encode(&control(b'Z', b""), &mut bytes).unwrap();
    bytes.extend_from_slice(b"\x01 no message");
    raw.server.binding.handle_data(raw.now, bytes.freeze());
    raw.server.binding.handle_end(raw.now);
    assert_eq!(raw.hears(), [Control::close().into()]);
    expect_end(&mut raw, Why::Violation(Violation::UnknownControl(90)), 0);
}

#[test]
fn a_peer_that_says_nothing_has_10_s() {
    let mut raw = Raw::silent(codecs()[0], |_| {});
    let due = raw.now + Duration::from_secs(10);
    assert_eq!(raw.server.binding.poll_timeout(), Some(due));
    raw.server.binding.handle_timeout(due);
    assert_eq!(raw.hears(), [Control::close().into()]);
    expect_end(&mut raw, Why::Violation(Violation::HandshakeTimeout), 0);
}

#[test]
fn a_control_close_is_not_answered() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        raw.says(&[open(1, 17)]);
        raw.server.take();
        assert_eq!(raw.says(&[Control::close().into(), open(2, 10)]), []);
        expect_end(&mut raw, Why::PeerClosed, 1);
    }
}

#[test]
fn bytes_that_are_no_message() {
    for (codec, bytes) in [
        (codecs()[0], &b"\x01"[..]),
        (codecs()[0], b"\x28\x00\x00\x0a\x00"),
        (codecs()[0], b"\x23\x01\x00\xdb\x00\x00\xf0\x00"),
        (codecs()[1], b"\x01"),
        (codecs()[1], b"\x28\x00\x00\x00\x00\x0a\x00\x00"),
        (codecs()[1], b"\x23\x00\x01\x00\xf0\x00"),
    ] {
        let mut raw = Raw::new(codec);
        raw.says(&[open(1, 17)]);
        raw.server.take();
        assert_eq!(raw.says_bytes(Bytes::from_static(bytes)), []);
        let events = raw.server.take();
        assert!(matches!(&events[1], Event::Closed { why: Why::Undecodable, fault: Some(_), .. }), "{events:?}");
        assert!(matches!(&events[0], Event::Ended { by: By::Session, .. }));
    }
}

#[test]
fn the_end_of_the_peer_s_direction_ends_the_session() {
    let mut raw = Raw::new(codecs()[1]);
    let mut bytes = BytesMut::new();
    raw.codec.encode(&open(1, 17), &mut bytes).unwrap();
    raw.server.binding.handle_data(raw.now, bytes.freeze());
    raw.server.binding.handle_end(raw.now);
    let events = raw.server.take();
    assert!(
        matches!(*events, [Event::Called { .. }, Event::Ended { .. }, Event::Closed { why: Why::PeerLeft, .. }]),
        "what came before counts: {events:?}"
    );
    assert_eq!(raw.hears(), []);

    let mut raw = Raw::new(codecs()[1]);
    raw.server.open(raw.now, 10, Vec::new());
    raw.server.binding.handle_error(raw.now);
    let events = raw.server.take();
    assert!(matches!(*events, [Event::Ended { .. }, Event::Closed { why: Why::Lost, how: net::Close::Abort, .. }]));
}

#[test]
fn a_message_of_our_own_that_is_too_long_fails_where_it_is_made() {
    for codec in codecs() {
        let long = || Value::Binary(vec![0; 65_510].into());
        let mut raw = Raw::new(codec);
        assert!(matches!(raw.server.binding.open(raw.now, 1, vec![long()], 0), Err(OpenError::Encode(_))));
        assert_eq!((raw.server.binding.pipes(), raw.hears()), (0, vec![]));
        raw.says(&[open(1, 12)]);
        let pipe = raw.server.called();
        let block = Bytes::from(vec![0; 61_440]);
        assert!(matches!(raw.server.binding.send(pipe, Loss::NEVER, block), Err(SendError::Encode(_))));
        assert!(matches!(raw.server.binding.close(pipe, Ok(long())), Err(CloseError::Encode(_))));
        assert_eq!(raw.hears(), [close(1, abort("unexpected error"))], "the peer does not wait in vain");
        raw.server.take();
        raw.expect_alive();
    }
}
