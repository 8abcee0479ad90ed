//! Connections: what goes through, and how they end (DAT, HBC, PRV-6 to PRV-11).

use super::*;
use crate::spn::{
    record::DisconnectReason,
    wire::{
        code::StreamCode,
        frame::{Flags, ResumeReq},
    },
};

/// A provider, a consumer, and a connection between them with its two streams.
fn joined(consumer: Protocol, provider: Protocol) -> (Bench, (usize, StreamId), (usize, StreamId)) {
    let mut bench = Bench::new(|_| {});
    let p = match provider {
        Protocol::Sc02 => bench.session(Role::Provider, "p"),
        Protocol::Sc01 => bench.dial(b"sc01-provider", "p"),
    };
    let c = match consumer {
        Protocol::Sc02 => bench.session(Role::Consumer, "c"),
        Protocol::Sc01 => bench.dial(b"sc01-consumer", "c"),
    };
    let up = match consumer {
        Protocol::Sc02 => bench.connect(c, 1, b"hello"),
        Protocol::Sc01 => bench.stream(c, b"hello"),
    };
    let [down] = bench.opened(p)[..] else { panic!("{} streams", bench.opened(p).len()) };
    let (bytes, _) = bench.read(p, down);
    let payload = match provider {
        Protocol::Sc02 => {
            assert_eq!((bytes[0], bytes[17]), (1, 0), "CONNECT, not resumable");
            assert!(consumer == Protocol::Sc01 || bytes[1..17] == [1; 16], "the consumer's key");
            &bytes[18..]
        }
        Protocol::Sc01 => &bytes[..],
    };
    assert_eq!(payload, b"hello");
    if consumer == Protocol::Sc02 {
        assert_eq!(bench.frames(c), [Frame::Connected { conn: ConnKey([1; 16]), flags: Flags::NONE }]);
    }
    (bench, (c, up), (p, down))
}

const PAIRS: [(Protocol, Protocol); 4] = [
    (Protocol::Sc02, Protocol::Sc02),
    (Protocol::Sc02, Protocol::Sc01),
    (Protocol::Sc01, Protocol::Sc02),
    (Protocol::Sc01, Protocol::Sc01),
];

fn end(bench: &Bench) -> (u64, u64, DisconnectReason) {
    let ends: Vec<_> = bench
        .records
        .iter()
        .filter_map(|record| match record {
            RecordEvent::EndConnection { sent, received, reason, .. } => Some((*sent, *received, *reason)),
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), 1, "one end record");
    ends[0]
}

#[test]
fn half_closes_and_totals_in_all_pairs() {
    for (consumer, provider) in PAIRS {
        let (mut bench, (c, up), (p, down)) = joined(consumer, provider);
        bench.write(c, up, b" world");
        bench.finish(c, up);
        assert_eq!(bench.read(p, down), (b" world".to_vec(), ReadOutcome::Finished));
        // The other direction goes on.
        bench.write(p, down, b"answer");
        assert_eq!(bench.read(c, up), (b"answer".to_vec(), ReadOutcome::Blocked));
        bench.finish(p, down);
        assert_eq!(bench.read(c, up), (Vec::new(), ReadOutcome::Finished));
        assert_eq!(end(&bench), (11, 6, DisconnectReason::Closed), "preambles do not count");
        assert_eq!(bench.hub.status().connections, 0);
    }
}

/// How a consumer sees the end of what is not all: a deployed one would open another stream for the same client if it saw a reset.
fn cut_short(consumer: Protocol, code: StreamCode) -> ReadOutcome {
    if consumer == Protocol::Sc01 { ReadOutcome::Finished } else { ReadOutcome::Reset(code.0) }
}

#[test]
fn codes_are_copied_between_equals_and_translated_from_sc01() {
    for (consumer, provider) in PAIRS {
        for code in [7, 0x27] {
            let (mut bench, (c, up), (p, down)) = joined(consumer, provider);
            let it = &mut bench.hands[p];
            it.quic.reset(it.session, down, code);
            bench.settle();
            let expected = match (provider, consumer) {
                (Protocol::Sc01, Protocol::Sc02) => 0x20,
                (Protocol::Sc01, Protocol::Sc01) if code == 0x27 => 0x20,
                _ => code,
            };
            let outcome = bench.read(c, up).1;
            assert_eq!(outcome, cut_short(consumer, StreamCode(expected)), "{provider:?} to {consumer:?}");
            // One way only.
            bench.write(c, up, b"more");
            assert_eq!(bench.read(p, down).0, b"more");
            bench.finish(c, up);
            assert_eq!(end(&bench).2, DisconnectReason::ClosedByPeer);
        }
    }
}

#[test]
fn a_stop_reaches_the_writer_and_leaves_the_other_direction() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    let it = &mut bench.hands[c];
    it.quic.stop(it.session, up, 9);
    bench.settle();
    assert!(bench.was_stopped(p, down, StreamCode(9)));
    bench.write(c, up, b"still");
    assert_eq!(bench.read(p, down).0, b"still");
}

#[test]
fn a_stop_is_heard_while_the_writer_is_blocked() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    // The consumer does not read, until nothing moves.
    let block = vec![0; 100_000];
    for _ in 0..60 {
        bench.write(p, down, &block);
    }
    let it = &mut bench.hands[c];
    it.quic.stop(it.session, up, 9);
    bench.settle();
    assert!(bench.was_stopped(p, down, StreamCode(9)));
}

#[test]
fn a_reset_is_heard_while_its_reader_is_stalled() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    let block = vec![0; 100_000];
    for _ in 0..60 {
        bench.write(p, down, &block);
    }
    let it = &mut bench.hands[p];
    it.quic.reset(it.session, down, 0x20);
    bench.settle();
    bench.wait(Duration::from_millis(100));
    let mut outcome = bench.read(c, up).1;
    while outcome == ReadOutcome::More {
        outcome = bench.read(c, up).1;
    }
    assert_eq!(outcome, ReadOutcome::Reset(0x20));
}

#[test]
fn a_lost_session_resets_the_partner_at_once() {
    for (consumer, provider) in PAIRS {
        let (mut bench, (c, up), (p, _)) = joined(consumer, provider);
        let now = bench.now;
        let it = &mut bench.hands[p];
        it.quic.close(now, it.session, 0, "bye");
        bench.settle();
        assert_eq!(bench.read(c, up).1, cut_short(consumer, StreamCode(0x21)));
        assert_eq!(end(&bench).2, DisconnectReason::Error);
    }
}

#[test]
fn close_request_is_forwarded_and_answered() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    let conn = ConnKey([1; 16]);
    bench.send(c, &Frame::CloseReq { conn, code: StreamCode(0x20) });
    assert_eq!(bench.frames(p), [Frame::CloseReq { conn, code: StreamCode(0x20) }]);
    bench.send(p, &Frame::CloseAck { conn });
    assert_eq!(bench.reset_code(p, down), Some(0x20));
    assert_eq!(bench.reset_code(c, up), Some(0x20));
    assert_eq!(end(&bench).2, DisconnectReason::ClosedByPeer);
    bench.send(c, &Frame::CloseReq { conn, code: StreamCode(0) });
    assert_eq!(bench.frames(c), [Frame::CloseAck { conn }], "for a connection that is not there");
}

#[test]
fn close_request_towards_sc01_is_a_reset() {
    let (mut bench, (c, _), (p, down)) = joined(Protocol::Sc02, Protocol::Sc01);
    bench.send(c, &Frame::CloseReq { conn: ConnKey([1; 16]), code: StreamCode(0x20) });
    assert_eq!(bench.reset_code(p, down), Some(0x20));
}

#[test]
fn preambles_that_are_none() {
    let mut bench = Bench::new(|_| {});
    bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    let wrong = bench.stream(c, b"GET / HTTP/1.1");
    assert_eq!(bench.reset_code(c, wrong), Some(0x10));
    let cut = bench.stream(c, b"\x01123");
    bench.finish(c, cut);
    assert_eq!(bench.reset_code(c, cut), Some(0x10));
    let slow = bench.stream(c, b"\x01123");
    bench.wait(Duration::from_secs(9));
    assert_eq!(bench.reset_code(c, slow), None);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.reset_code(c, slow), Some(0x27), "it may try again");
    let resume = Preamble::Resume { conn: ConnKey([3; 16]), flags: Flags::NONE, generation: 1, offset: 0, received: 0 };
    let resume = bench.stream(c, &resume.to_bytes());
    assert_eq!(bench.reset_code(c, resume), Some(0x27));
    assert_eq!(bench.hub.status().consumers, 1, "the session lives");
}

#[test]
fn preambles_go_before_payload() {
    let mut bench = Bench::new(|_| {});
    let p = bench.session(Role::Provider, "p");
    let it = &mut bench.hands[p];
    it.quic.set_max_streams(it.session, 10);
    bench.settle();
    let c = bench.session(Role::Consumer, "c");
    for key in 1..4 {
        bench.connect(c, key, b"payload");
    }
    let ids = bench.exchange().connections.filter(|_| true);
    let [first, second, third] = ids[..] else { panic!("{ids:?}") };
    // Of the last one nothing has been written yet, as if the window had been exhausted.
    let connections = bench.exchange().connections;
    connections.get_mut(third).unwrap().expect_preamble();
    for id in ids {
        connections.ready(id, Side::Consumer);
    }
    let order = bench.exchange().connections.ready_ids();
    assert_eq!(order, [third, first, second]);
}

#[test]
fn a_connection_id_belongs_to_its_consumer() {
    let (mut bench, (c, _), _) = joined(Protocol::Sc02, Protocol::Sc02);
    let again = bench.connect(c, 1, b"x");
    assert_eq!(bench.reset_code(c, again), Some(0x23));
    let other = bench.session(Role::Consumer, "c2");
    let stolen = bench.connect(other, 1, b"x");
    assert_eq!(bench.reset_code(other, stolen), Some(0x15));
    bench.send(other, &Frame::CloseReq { conn: ConnKey([1; 16]), code: StreamCode(0x20) });
    assert_eq!(bench.frames(other), [Frame::CloseAck { conn: ConnKey([1; 16]) }]);
    assert_eq!(bench.hub.status().connections, 1, "and is not forwarded");
}

#[test]
fn a_provider_opens_no_streams() {
    let mut bench = Bench::new(|_| {});
    let p = bench.session(Role::Provider, "p");
    let stream = bench.stream(p, b"x");
    assert_eq!(bench.reset_code(p, stream), Some(0x10));
    assert_eq!(bench.close_code(p), None);
}

#[test]
fn connections_above_the_limit_are_reset() {
    let mut bench = Bench::new(|config| config.limits.connections_per_session = 2);
    bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    for key in 1..3 {
        bench.connect(c, key, b"x");
    }
    let third = bench.connect(c, 3, b"x");
    assert_eq!(bench.reset_code(c, third), Some(0x25));
}

#[test]
fn without_credit_at_the_provider_connections_wait_in_order() {
    // The hand grants 4 streams.
    let mut bench = Bench::new(|_| {});
    let p = bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    let ups: Vec<StreamId> = (1..=6).map(|key| bench.connect(c, key, &[key])).collect();
    assert_eq!(bench.opened(p).len(), 4);
    let downs = bench.opened(p);
    for nth in 0..2 {
        bench.finish(c, ups[nth]);
        bench.finish(p, downs[nth]);
        bench.read(p, downs[nth]);
        bench.read(c, ups[nth]);
    }
    // Acknowledgements may take a moment.
    bench.wait(Duration::from_millis(100));
    let downs = bench.opened(p);
    assert_eq!(downs.len(), 6);
    let payloads: Vec<u8> = downs[4..].iter().map(|down| bench.read(p, *down).0[18]).collect();
    assert_eq!(payloads, [5, 6]);
}

#[test]
fn connections_that_wait_for_a_provider_hold_up_no_neighbour() {
    // The hand grants 4 streams; two more connections wait, and their payload fills more than a session's window.
    let mut bench = Bench::new(|_| {});
    let p = bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    let block = vec![7; 100_000];
    let ups: Vec<StreamId> = (1..=6).map(|key| bench.connect(c, key, b"")).collect();
    for _ in 0..8 {
        bench.write(c, ups[4], &block);
        bench.write(c, ups[5], &block);
        bench.wait(Duration::from_millis(5));
    }
    bench.wait(Duration::from_millis(200));
    let down = bench.opened(p)[0];
    let mut total = 0;
    for _ in 0..40 {
        bench.write(c, ups[0], &block);
        total += bench.read(p, down).0.len();
        bench.wait(Duration::from_millis(5));
        total += bench.read(p, down).0.len();
    }
    assert!(total > 3_000_000, "{total} bytes");
    let conn = ConnKey([9; 16]);
    bench.frames(c);
    bench.send(c, &Frame::CloseReq { conn, code: StreamCode(0) });
    assert_eq!(bench.frames(c), [Frame::CloseAck { conn }], "nor the control stream");
    // What waits ends with its consumer, and takes its window along.
    assert!(bench.exchange().links.budget().parked() > 0);
    let (now, it) = (bench.now, &mut bench.hands[c]);
    it.quic.close(now, it.session, 0, "bye");
    bench.settle();
    assert_eq!(
        (bench.exchange().links.budget().parked(), bench.hub.status().connections),
        (0, 0),
        "the search has ended"
    );
}

#[test]
fn a_provider_that_dies_without_a_word_is_a_reset_within_the_idle_timeout() {
    for (consumer, provider) in PAIRS {
        let (mut bench, (c, up), (p, _)) = joined(consumer, provider);
        bench.kill(p);
        bench.wait(Duration::from_secs(19));
        assert_eq!(bench.reset_code(c, up), None);
        // The first PING that is not answered begins the idle time once more (RFC 9000 §10.1).
        bench.wait(Duration::from_secs(6));
        assert_eq!(
            bench.read(c, up).1,
            cut_short(consumer, StreamCode(0x21)),
            "never a clean end, where that can be said"
        );
        assert_eq!(end(&bench).2, DisconnectReason::Error);
    }
}

/// Datagrams that the hub handles when it relays 8 MB over so many connections of one session.
fn datagrams_of(connections: u8) -> usize {
    let mut bench = Bench::new(|_| {});
    let p = bench.session(Role::Provider, "p");
    let it = &mut bench.hands[p];
    it.quic.set_max_streams(it.session, 100);
    bench.settle();
    let c = bench.session(Role::Consumer, "c");
    let ups: Vec<StreamId> = (0..connections).map(|key| bench.connect(c, key, b"")).collect();
    let downs = bench.opened(p);
    let (before, block) = (bench.datagrams, vec![7; 50_000]);
    let mut total = 0;
    for nth in 0..160 {
        let at = nth % ups.len();
        bench.write(c, ups[at], &block);
        bench.wait(Duration::from_millis(1));
        total += downs.iter().map(|down| bench.read(p, *down).0.len()).sum::<usize>();
    }
    assert_eq!(total, 8_000_000 + 18 * downs.len(), "all of it, and the preambles");
    bench.datagrams - before
}

#[test]
fn many_streams_cost_what_one_does() {
    let (one, sixteen) = (datagrams_of(1), datagrams_of(16));
    assert!(sixteen * 100 < one * 110, "{sixteen} datagrams for 16 connections, {one} for one");
}

#[test]
fn a_connection_waits_a_minute_for_a_provider() {
    let mut bench = Bench::new(|_| {});
    let c = bench.dial(b"sc01-consumer", "c");
    let stream = bench.stream(c, b"x");
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.read(c, stream).1, ReadOutcome::Blocked);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.read(c, stream).1, ReadOutcome::Finished);
    assert!(!bench.records.iter().any(|record| matches!(record, RecordEvent::StartConnection(_))));
}

#[test]
fn weights_share_connections_out() {
    let mut bench = Bench::new(|_| {});
    let (p, p2) = (bench.session(Role::Provider, "p"), bench.session(Role::Provider, "p2"));
    bench.send(p2, &Frame::SetWeight { weight: 50 });
    let c = bench.session(Role::Consumer, "c");
    for key in 1..=6 {
        bench.connect(c, key, b"x");
    }
    assert_eq!((bench.opened(p).len(), bench.opened(p2).len()), (4, 2));
    bench.send(p2, &Frame::SetWeight { weight: 0 });
    bench.send(p, &Frame::SetWeight { weight: 0 });
    let waiting = bench.connect(c, 7, b"x");
    assert_eq!((bench.opened(p).len(), bench.opened(p2).len()), (4, 2), "weight 0 takes none");
    bench.send(p2, &Frame::SetWeight { weight: 1 });
    assert_eq!(bench.opened(p2).len(), 3);
    assert_eq!(bench.reset_code(c, waiting), None);
}

#[test]
fn a_retiring_provider_of_sc01_gets_no_new_connections() {
    let mut bench = Bench::new(|_| {});
    let (old, new) = (bench.dial(b"sc01-provider", "p"), bench.session(Role::Provider, "p2"));
    let it = &mut bench.hands[old];
    it.quic.send_datagram(it.session, Bytes::from_static(b" notify_shutdown\n"));
    bench.settle();
    let c = bench.session(Role::Consumer, "c");
    for key in 1..=3 {
        bench.connect(c, key, b"x");
    }
    assert_eq!((bench.opened(old).len(), bench.opened(new).len()), (0, 3));
}

#[test]
fn a_stalled_reader_blocks_no_neighbour_and_no_control() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    // The provider does not read this one.
    let block = vec![7; 100_000];
    for _ in 0..60 {
        bench.write(c, up, &block);
        bench.wait(Duration::from_millis(5));
    }
    bench.wait(Duration::from_millis(200));
    let parked = bench.exchange().links.budget().parked();
    assert!(parked > 0 && parked <= bench.hub.config.limits.relay_memory, "{parked}");
    // Other windows are for those who come later: what is parked stays as it is.
    let mut config = bench.hub.config.clone();
    config.transport.stream_window /= 4;
    bench.hub.reload(bench.now, config).unwrap();
    // A neighbour in the same sessions moves more than any window holds.
    let up2 = bench.connect(c, 2, b"");
    let down2 = bench.opened(p)[1];
    let mut total = 0;
    for _ in 0..40 {
        bench.write(c, up2, &block);
        total += bench.read(p, down2).0.len();
        bench.wait(Duration::from_millis(5));
        total += bench.read(p, down2).0.len();
    }
    assert!(total > 3_000_000, "{total} bytes");
    bench.send(p, &Frame::SetWeight { weight: 3 });
    assert_eq!(bench.frames(p).last(), Some(&Frame::SetWeightAck { weight: 3, streams: 2 }));
    // When it reads again, everything comes, and the window goes back.
    let mut got = 0;
    for _ in 0..200 {
        got += bench.read(p, down).0.len();
        bench.wait(Duration::from_millis(5));
    }
    assert!(got > 1_000_000, "{got} bytes");
    assert_eq!(bench.exchange().links.budget().parked(), 0);
}

#[test]
fn a_slow_reader_takes_no_speed_from_its_neighbour() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc02, Protocol::Sc02);
    let up2 = bench.connect(c, 2, b"");
    let down2 = bench.opened(p)[1];
    let block = vec![7; 100_000];
    let (mut slow, mut fast) = (0, 0);
    for tick in 0..400 {
        // One is read at 5 MB/s, never so late that it seems to stand still; the other at once.
        let (it, mut chunks) = (&mut bench.hands[p], Vec::new());
        if tick % 4 == 0 {
            let _ = it.quic.read(it.session, down, &mut chunks, 70);
            slow += chunks.iter().map(Bytes::len).sum::<usize>();
        }
        bench.write(c, up, &block);
        bench.write(c, up2, &block);
        fast += bench.read(p, down2).0.len();
        bench.wait(Duration::from_millis(5));
        fast += bench.read(p, down2).0.len();
    }
    assert!(slow > 5_000_000, "{slow} bytes");
    assert!(fast > 36_000_000, "{fast} bytes beside {slow}");
}

#[test]
fn a_flood_of_control_frames_is_read_at_its_rate() {
    let mut bench = Bench::new(|config| config.limits.control_rate = 100);
    let p = bench.session(Role::Provider, "p");
    for weight in 0..300 {
        bench.send(p, &Frame::SetWeight { weight });
    }
    let first = bench.frames(p).len();
    assert!(first <= 100, "{first} in the first second");
    bench.wait(Duration::from_secs(5));
    let more = bench.frames(p);
    assert_eq!(first + more.len(), 300, "none is lost");
    assert_eq!(more.last(), Some(&Frame::SetWeightAck { weight: 299, streams: 0 }));
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut bench = Bench::new(|config| config.limits.control_rate = u32::MAX);
    let p = bench.session(Role::Provider, "p");
    // Each asks for an answer, and none is read.
    let mut asks = Vec::new();
    for _ in 0..2000 {
        Frame::CloseReq { conn: ConnKey([9; 16]), code: StreamCode(0) }.encode(&mut asks);
    }
    for _ in 0..100 {
        let stream = bench.hands[p].control.as_ref().unwrap().stream();
        bench.write(p, stream, &asks);
        bench.wait(Duration::from_millis(10));
    }
    let handle = bench.exchange().links.iter().next().unwrap().0;
    let backlog = bench.exchange().links.get(handle).unwrap().control().backlog();
    assert!(backlog < 2 * bench.hub.config.limits.control_backlog, "{backlog} bytes");
    // They are all answered once they are read.
    let mut answered = 0;
    for _ in 0..400 {
        answered += bench.frames(p).len();
        bench.wait(Duration::from_millis(10));
    }
    assert!(answered > 10_000, "{answered}");
}

/// A provider whose own questions have filled its control stream with answers that it does not read.
fn deaf_provider(change: Change) -> (Bench, usize) {
    let mut bench = Bench::new(change);
    bench.flags = Flags::RESUMABLE;
    let p = bench.session(Role::Provider, "p");
    let it = &mut bench.hands[p];
    it.quic.set_max_streams(it.session, 1000);
    let mut asks = Vec::new();
    for _ in 0..2000 {
        Frame::CloseReq { conn: ConnKey([255; 16]), code: StreamCode(0) }.encode(&mut asks);
    }
    for _ in 0..50 {
        let stream = bench.hands[p].control.as_ref().unwrap().stream();
        bench.write(p, stream, &asks);
        bench.wait(Duration::from_millis(1100));
    }
    assert_eq!(bench.close_code(p), None);
    (bench, p)
}

/// Everything that waits for a hand is read.
fn read_all(bench: &mut Bench, hand: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    for _ in 0..1000 {
        frames.extend(bench.frames(hand));
        bench.wait(Duration::from_millis(10));
    }
    frames
}

#[test]
fn a_session_that_reads_nothing_pays_for_nobody_but_itself() {
    let (mut bench, p) = deaf_provider(|config| config.limits.control_backlog = 100);
    let c = bench.session(Role::Consumer, "c");
    for key in 0..90 {
        bench.connect(c, key, b"x");
        bench.send(c, &Frame::CloseReq { conn: ConnKey([key; 16]), code: StreamCode(0x20) });
    }
    let last = bench.connect(c, 200, b"last");
    assert_eq!(
        (bench.close_code(p), bench.close_code(c), bench.opened(p).len()),
        (None, None, 0),
        "it gets nothing new"
    );
    bench.hub.check().unwrap();
    read_all(&mut bench, p);
    assert_eq!(bench.opened(p).len(), 1, "until it has read");
    assert_eq!(bench.reset_code(c, last), None);
}

#[test]
fn a_consumer_that_asks_to_resume_for_ever_fills_no_providers_control_stream() {
    let (mut bench, p) = deaf_provider(|config| {
        (config.limits.control_backlog, config.limits.control_rate) = (100, u32::MAX);
    });
    let values = |key: u8, received| ResumeReq {
        conn: ConnKey([key; 16]),
        generation: 0,
        received,
        sent: 0,
        flags: Flags::NONE,
        code: StreamCode(0),
    };
    // It has asked, and reads nothing of the answers: they were queued behind what it has left unread.
    let handle = bench.exchange().links.iter().next().unwrap().0;
    let now = bench.now;
    for key in 0..3 {
        let (intake, mut cx) = bench.hub.split(now);
        intake.resume_req(&mut cx, handle, &values(key, 0), None);
    }
    let c = bench.session(Role::Consumer, "c");
    let mut asks = Vec::new();
    for received in 0..2000 {
        Frame::ResumeReq(values(received as u8 % 3, received)).encode(&mut asks);
    }
    for _ in 0..50 {
        let stream = bench.hands[c].control.as_ref().unwrap().stream();
        bench.write(c, stream, &asks);
        bench.wait(Duration::from_millis(10));
        while !bench.frames(c).is_empty() {}
    }
    assert_eq!((bench.close_code(p), bench.close_code(c)), (None, None));
    assert!(bench.exchange().links.get(handle).unwrap().control().backlog() < 5000);
    bench.hub.check().unwrap();
    let notified: Vec<_> = read_all(&mut bench, p)
        .into_iter()
        .filter_map(|frame| if let Frame::ResumeAck(ack) = frame { Some((ack.conn.0[0], ack.received)) } else { None })
        .collect();
    assert_eq!(notified, [(0, 1999), (1, 1997), (2, 1998)], "the newest of each");
}

#[test]
fn a_stream_of_sc01_is_a_connection_from_its_first_own_byte_or_its_end() {
    for provider in [Protocol::Sc01, Protocol::Sc02] {
        let mut bench = Bench::new(|_| {});
        let p = match provider {
            Protocol::Sc01 => bench.dial(b"sc01-provider", "p"),
            Protocol::Sc02 => bench.session(Role::Provider, "p"),
        };
        let c = bench.dial(b"sc01-consumer", "c");
        let session = bench.hands[c].session;
        let streams: Vec<_> = (0..4).map(|_| bench.hands[c].quic.open(session).unwrap()).collect();
        bench.write(c, streams[3], b"x");
        assert_eq!(
            (bench.hub.status().connections, bench.opened(p).len()),
            (1, 1),
            "the lower ones are open, and no more"
        );
        bench.write(c, streams[1], b"y");
        bench.finish(c, streams[2]);
        assert_eq!((bench.hub.status().connections, bench.opened(p).len()), (3, 3));
        let payload = |bench: &mut Bench, nth: usize| {
            let stream = bench.opened(p)[nth];
            let (bytes, outcome) = bench.read(p, stream);
            let preamble = if provider == Protocol::Sc02 { 18 } else { 0 };
            (bytes[preamble..].to_vec(), outcome)
        };
        assert_eq!(payload(&mut bench, 0), (b"x".to_vec(), ReadOutcome::Blocked));
        assert_eq!(payload(&mut bench, 1), (b"y".to_vec(), ReadOutcome::Blocked));
        assert_eq!(payload(&mut bench, 2), (vec![], ReadOutcome::Finished), "an end is passed on");
        // What ends before it has begun is nothing.
        bench.hands[c].quic.reset(session, streams[0], 5);
        bench.settle();
        assert_eq!((bench.hub.status().connections, bench.opened(p).len()), (3, 3));
        bench.hub.check().unwrap();
    }
}

/// A deployed consumer that sees a stream break opens another one for the same client, in mid-connection.
#[test]
fn a_consumer_of_sc01_sees_an_end_and_never_a_break() {
    for provider in [Protocol::Sc01, Protocol::Sc02] {
        let ends: [fn(&mut Bench, usize, StreamId); 4] = [
            // Its service resets, or it cannot dial.
            |bench, p, down| {
                let it = &mut bench.hands[p];
                it.quic.reset(it.session, down, 1);
                it.quic.stop(it.session, down, 0);
            },
            |bench, p, down| {
                let it = &mut bench.hands[p];
                it.quic.stop(it.session, down, 0);
                it.quic.finish(it.session, down);
            },
            // It is lost, or leaves.
            |bench, p, _| {
                bench.kill(p);
                bench.wait(Duration::from_secs(30));
            },
            |bench, p, _| {
                let (now, it) = (bench.now, &mut bench.hands[p]);
                it.quic.close(now, it.session, 0, "");
            },
        ];
        for end in ends {
            let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc01, provider);
            bench.write(p, down, b"half of it");
            end(&mut bench, p, down);
            bench.settle();
            assert_eq!(bench.read(c, up), (b"half of it".to_vec(), ReadOutcome::Finished));
            let was_stopped =
                |bench: &Bench| bench.hands[c].events.iter().any(|event| matches!(event, quic::Event::Stopped(..)));
            // It may go on writing as long as it likes: more than any window lets through without a reader.
            for _ in 0..40 {
                bench.write(c, up, &[0; 100_000]);
                bench.wait(Duration::from_millis(100));
            }
            bench.finish(c, up);
            bench.wait(Duration::from_millis(100));
            assert!(!was_stopped(&bench), "{provider:?}");
            assert!(bench.hands[c].events.contains(&quic::Event::Acked(up)), "all of it was taken");
            assert_eq!((bench.hub.status().connections, bench.hub.status().consumers), (0, 1));
            assert!(
                bench.exchange().links.iter().all(|(_, link)| !link.streams().has_discarded()),
                "nothing is left of it"
            );
            bench.hub.check().unwrap();
        }
    }
}

#[test]
fn a_consumer_of_sc01_that_stops_is_heard() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc01, Protocol::Sc02);
    let it = &mut bench.hands[c];
    it.quic.stop(it.session, up, 9);
    bench.settle();
    assert!(bench.was_stopped(p, down, StreamCode(0x20)));
    bench.finish(c, up);
    assert_eq!(bench.hub.status().connections, 0);
}

#[test]
fn what_consumers_of_sc01_have_open_ends_before_a_drain_does() {
    let (mut bench, (c, up), (p, down)) = joined(Protocol::Sc01, Protocol::Sc02);
    let (modern, now) = (bench.session(Role::Consumer, "c2"), bench.now);
    let stays = bench.connect(modern, 9, b"x");
    bench.hub.shutdown(now);
    bench.settle();
    bench.wait(Duration::from_secs(27));
    bench.write(p, down, b"half of it");
    assert_eq!(bench.read(c, up), (b"half of it".to_vec(), ReadOutcome::Blocked));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.read(c, up), (vec![], ReadOutcome::Finished));
    assert_eq!((bench.close_code(c), end(&bench).2), (None, DisconnectReason::Error));
    assert!(bench.was_stopped(p, down, StreamCode(0x21)));
    assert_eq!(bench.reset_code(modern, stays), None, "others have their time");
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.close_code(c), Some(0));
}
