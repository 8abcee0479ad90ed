//! More than the limits allow.

use super::*;
use crate::{
    net,
    pipe::{
        machines::{end::By, receiver::Mode},
        policy::load::Limits,
        wire::message::{Abort, Block, Loss, Part},
    },
};

fn blocks(pipe: u16, count: usize, payload: &'static [u8]) -> Vec<Message> {
    let part = Part::Data { loss: Loss::NEVER, payload: Bytes::from_static(payload) };
    vec![Block { pipe: id(pipe), part }.into(); count]
}

fn encoded(raw: &Raw, messages: &[Message]) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        raw.codec.encode(message, &mut bytes).unwrap();
    }
    bytes.freeze()
}

#[test]
fn all_pipes_of_a_side_at_once_and_one_more() {
    let mut pair = Pair::new(codecs()[0]);
    for nth in 1..=32_767u16 {
        let pipe = loop {
            match pair.client.binding.open(pair.now, nth, vec![], 0) {
                Ok(pipe) => break pipe,
                Err(error) => {
                    assert_eq!(error, OpenError::Full);
                    pair.exchange();
                }
            }
        };
        pair.client.live.insert(pipe);
    }
    pair.exchange();
    assert_eq!(pair.client.binding.open(pair.now, 0, vec![], 0), Err(OpenError::NoFreePipe));
    assert_eq!((pair.client.binding.pipes(), pair.server.binding.pipes()), (32_767, 32_767));
    // The other side has ids of its own.
    let back = pair.server.open(pair.now, 7, vec![]);
    pair.exchange();
    pair.server.binding.cancel(back).unwrap();
    // One is over, and there is a place.
    let called: Vec<_> = pair.server.live.iter().copied().collect();
    pair.server.binding.close(called[7], Ok(Value::Null)).unwrap();
    pair.exchange();
    pair.client.open(pair.now, 9, vec![]);
    assert_eq!(pair.client.binding.open(pair.now, 0, vec![], 0), Err(OpenError::NoFreePipe));
    pair.exchange();
    pair.client.binding.end(pair.now, true);
    pair.exchange();
    assert_eq!((pair.client.closed, pair.server.closed), (Some(Why::Ended), Some(Why::PeerClosed)));
}

#[test]
fn the_65th_block_waits_outside_while_the_application_has_not_decided() {
    for codec in codecs() {
        let mut raw = Raw::new(codec);
        raw.says(&[&[open(1, 20)][..], &blocks(1, 65, b"x")].concat());
        assert_eq!(raw.server.binding.waiting(), (64, 64));
        assert!(!raw.server.binding.wants_read());
        let pipe = raw.server.called();
        raw.server.binding.choose(pipe, Mode::Messages).unwrap();
        assert_eq!(raw.server.take().len(), 65, "none is lost");
        assert_eq!(raw.server.binding.waiting(), (0, 0));
        assert!(raw.server.binding.wants_read());
        raw.expect_alive();
    }
}

#[test]
fn a_host_that_reads_without_being_asked_loses_the_pipe_and_not_the_session() {
    for codec in codecs() {
        let mut raw = Raw::with(codec, |config| config.unread_max = 0);
        let answers = raw.says(&[&[open(1, 20)][..], &blocks(1, 65, b"x")].concat());
        let overflow = Err(Abort::new(-1, "receive queue overflow"));
        assert_eq!(answers, [close(1, overflow.clone())]);
        let events = raw.server.take();
        let [Event::Called { pipe, .. }, end] = &*events else { panic!("{events:?}") };
        assert_eq!(*end, Event::Ended { pipe: *pipe, by: By::Overflow, result: overflow, unread: [].into() });
        assert_eq!(raw.server.binding.waiting(), (0, 0));
        assert_eq!(raw.says(&blocks(1, 3, b"late")), [], "they were on their way");
        raw.expect_alive();
    }
}

#[test]
fn a_stream_that_nobody_reads_stops_the_peer() {
    let mut raw = Raw::new(codecs()[1]);
    raw.says(&[open(1, 21)]);
    let pipe = raw.server.called();
    raw.server.binding.choose(pipe, Mode::Stream).unwrap();
    let piece = encoded(&raw, &blocks(1, 1, &[b'x'; 60_000]));
    let mut pieces = 0;
    while raw.server.binding.wants_read() {
        assert_eq!(raw.says_bytes(piece.clone()), []);
        pieces += 1;
    }
    assert_eq!(pieces, 18, "1 MiB, and what began before");
    assert_eq!(raw.server.binding.waiting(), (18, 18 * 60_000));
    while let Ok(Read::Data(bytes)) = raw.server.binding.read_stream(pipe) {
        assert_eq!(bytes.len(), 60_000);
    }
    assert!(raw.server.binding.wants_read());
    raw.server.take();
    raw.expect_alive();
}

#[test]
fn the_end_of_a_pipe_lets_the_session_read_again() {
    for by_peer in [true, false] {
        let mut raw = Raw::new(codecs()[0]);
        raw.says(&[open(1, 21)]);
        let pipe = raw.server.called();
        raw.server.binding.choose(pipe, Mode::Stream).unwrap();
        raw.says(&blocks(1, 1024, b""));
        assert!(!raw.server.binding.wants_read());
        if by_peer {
            // A session that ends is not held up by what nobody reads.
            raw.server.binding.handle_data(raw.now, encoded(&raw, &[close(1, Ok(Value::Null))]));
            raw.server.binding.handle_end(raw.now);
            let events = raw.server.take();
            assert!(matches!(&events[1], Event::Ended { unread, .. } if unread.len() == 1024), "{events:?}");
            assert_eq!(raw.server.closed, Some(Why::PeerLeft));
        } else {
            raw.server.binding.close(pipe, Ok(Value::Null)).unwrap();
            assert!(raw.server.binding.wants_read());
            raw.server.take();
            raw.hears();
            raw.expect_alive();
        }
        assert_eq!(raw.server.binding.waiting(), (0, 0));
    }
}

#[test]
fn many_streams_together_reach_the_limit_of_the_session() {
    let mut raw = Raw::with(codecs()[0], |config| config.read = Limits { soft_messages: 10, ..Limits::READ });
    for pipe in 1..=10 {
        assert!(raw.server.binding.wants_read());
        raw.says(&[open(pipe, 21)]);
        let called = raw.server.called();
        raw.server.binding.choose(called, Mode::Stream).unwrap();
        raw.says(&blocks(pipe, 1, b"x"));
        raw.server.take();
    }
    assert!(!raw.server.binding.wants_read());
    let first = *raw.server.live.first().unwrap();
    assert_eq!(raw.server.binding.read_stream(first), Ok(Read::Data("x".into())));
    assert!(raw.server.binding.wants_read());
}

#[test]
fn hard_limits_end_the_session() {
    let hard = Limits { soft_messages: 2, hard_messages: 3, ..Limits::READ };
    // A peer that makes answers necessary, and takes none.
    let mut raw = Raw::with(codecs()[0], |config| config.write = hard);
    let nothing = encoded(&raw, &blocks(9, 3, b""));
    raw.server.binding.handle_data(raw.now, nothing);
    raw.server.poll();
    assert_eq!(raw.server.closed, Some(Why::Overload));
    assert_eq!(raw.server.binding.poll_write(), None);

    let mut raw = Raw::with(codecs()[0], |config| (config.read, config.unread_max) = (hard, 0));
    raw.says(&[open(1, 20)]);
    raw.says(&blocks(1, 3, b""));
    let events = raw.server.take();
    assert!(matches!(events.last(), Some(Event::Closed { why: Why::Overload, how: net::Close::Abort, .. })));
}

/// Blocks and calls of one pair, without whatever a test keeps of them.
fn flow(pair: &mut Pair, mut say: impl FnMut(&mut Session), mut answer: impl FnMut(&mut Session, Event)) {
    say(&mut pair.client.binding);
    let Pair { now, client, server } = pair;
    loop {
        while let Some(event) = server.binding.poll_event() {
            answer(&mut server.binding, event);
        }
        while client.binding.poll_event().is_some() {}
        let (there, back) = (client.binding.poll_write(), server.binding.poll_write());
        if there.is_none() && back.is_none() {
            return;
        }
        if let Some(bytes) = there {
            server.binding.handle_data(*now, bytes);
            client.binding.handle_sent(*now);
        }
        if let Some(bytes) = back {
            client.binding.handle_data(*now, bytes);
            server.binding.handle_sent(*now);
        }
    }
}

#[test]
fn a_block_costs_no_allocation_beyond_its_buffer() {
    for codec in codecs() {
        let mut pair = Pair::new(codec);
        let pipe = pair.client.open(pair.now, 20, vec![]);
        pair.exchange();
        let called = pair.server.called();
        pair.server.binding.choose(called, Mode::Messages).unwrap();
        let payload = Bytes::from(vec![7; 1000]);
        let mut blocks = 0;
        let mut round = || {
            let say = |client: &mut Session| {
                (0..60).for_each(|_| client.send(pipe, Loss::NEVER, payload.clone()).unwrap());
            };
            flow(&mut pair, say, |_, event| blocks += u32::from(matches!(event, Event::Block { .. })));
        };
        (0..10).for_each(|_| round());
        let used = allocation_counter::measure(|| (0..10).for_each(|_| round()));
        assert_eq!(blocks, 1200);
        // The buffer of each write grows to its size, and is shared.
        assert!(used.count_total <= 10 * 12, "{} allocations for 600 blocks", used.count_total);
    }
}

/// A session that nobody uses is small, also when it has been used.
#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() < 2_500, "{}", size_of::<Session>());
    let mut kept = None;
    let used = allocation_counter::measure(|| {
        let mut pair = Pair::new(codecs()[0]);
        for _ in 0..20 {
            let now = pair.now;
            let say = |client: &mut Session| {
                for _ in 0..500 {
                    client.open(now, 10, vec![text()], 0).unwrap();
                }
            };
            flow(&mut pair, say, |server, event| {
                if let Event::Called { pipe, .. } = event {
                    server.close(pipe, Ok(text())).unwrap();
                }
            });
        }
        kept = Some(pair);
    });
    assert!(used.bytes_current < 200_000, "{} bytes are left of 500 calls at once", used.bytes_current);
}

fn text() -> Value {
    Value::from("some words that say little")
}
