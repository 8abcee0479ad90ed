//! Connections that outlive their streams (RES, OWN, HBC-14 to HBC-18).

use super::*;
use crate::spn::{
    Tag,
    record::DisconnectReason,
    wire::{
        code::{SessionCode, StreamCode},
        frame::{AckEntry, Flags, ResumeAck, ResumeReq},
    },
};

const KEY: ConnKey = ConnKey([7; 16]);
const PAUSE_REQ: Frame = Frame::PauseReq { conn: KEY };

fn bench(change: Change) -> Bench {
    Bench { flags: Flags::RESUMABLE, ..Bench::new(change) }
}

/// A provider and a consumer that can resume, and a connection on which both have spoken.
struct Pair {
    bench: Bench,
    c: usize,
    p: usize,
    up: StreamId,
    down: StreamId,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self::silent();
        pair.bench.write(pair.p, pair.down, b"hi");
        assert_eq!(pair.bench.read(pair.c, pair.up).0, b"hi");
        pair
    }

    /// Nothing has come back from the provider.
    fn silent() -> Self {
        let mut bench = bench(|_| {});
        let p = bench.session(Role::Provider, "p");
        let c = bench.session(Role::Consumer, "c");
        let up = bench.connect(c, 7, b"hello");
        let down = bench.opened(p)[0];
        assert_eq!(bench.read(p, down).0, [&[1], &[7; 16][..], &[1], b"hello"].concat(), "CONNECT, resumable");
        assert_eq!(bench.frames(c), [Frame::Connected { conn: KEY, flags: Flags(1) }]);
        Self { bench, c, p, up, down }
    }

    /// Each hand has its stream reset and stopped with this code.
    fn assert_cut(&mut self, hand: usize, stream: StreamId, code: StreamCode) {
        assert_eq!(self.bench.reset_code(hand, stream), Some(code.0));
        assert!(self.bench.was_stopped(hand, stream, code));
    }

    /// Both streams end, and the ends have something left to report.
    fn finish(&mut self) {
        let Self { bench, c, p, up, down } = self;
        bench.finish(*c, *up);
        bench.finish(*p, *down);
        assert_eq!(bench.read(*p, *down).1, ReadOutcome::Finished);
        assert_eq!(bench.read(*c, *up).1, ReadOutcome::Finished);
        assert_eq!((ends(bench), bench.hub.status().connections), (vec![DisconnectReason::Closed], 1));
    }
}

fn request(generation: u64, received: u64, sent: u64, flags: u8, code: StreamCode) -> ResumeReq {
    ResumeReq { conn: KEY, generation, received, sent, flags: Flags(flags), code }
}

fn ask(bench: &mut Bench, hand: usize, generation: u64, received: u64, sent: u64) {
    bench.send(hand, &Frame::ResumeReq(request(generation, received, sent, 0, StreamCode(0))));
}

fn answer(status: StreamCode, generation: u64, received: u64, flags: u8) -> Frame {
    Frame::ResumeAck(ResumeAck { conn: KEY, status, generation, received, flags: Flags(flags) })
}

fn report(received: u64, flags: u8) -> Frame {
    Frame::DataAck(vec![AckEntry { conn: KEY, received, flags: Flags(flags) }])
}

fn resume(generation: u32, offset: u64, received: u64) -> Bytes {
    Preamble::Resume { conn: KEY, flags: Flags::NONE, generation, offset, received }.to_bytes()
}

fn ends(bench: &Bench) -> Vec<DisconnectReason> {
    let reason = |record: &RecordEvent| match record {
        RecordEvent::EndConnection { reason, .. } => Some(*reason),
        _ => None,
    };
    bench.records.iter().filter_map(reason).collect()
}

#[test]
fn resumable_when_all_three_say_so() {
    for (consumer, connect, provider) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        let mut bench = Bench::new(|_| {});
        bench.flags = Flags(provider);
        let p = bench.session(Role::Provider, "p");
        bench.flags = Flags(consumer);
        let c = bench.session(Role::Consumer, "c");
        bench.stream(c, &Preamble::Connect { conn: KEY, flags: Flags(connect) }.to_bytes());
        let down = bench.opened(p)[0];
        assert_eq!(bench.read(p, down).0[17], 0);
        assert_eq!(bench.frames(c), [Frame::Connected { conn: KEY, flags: Flags::NONE }]);
    }
}

#[test]
fn reports_go_to_the_partner_and_the_last_ones_end_the_route() {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    pair.bench.send(p, &report(5, 0));
    assert_eq!(pair.bench.frames(c), [report(5, 0)]);
    pair.finish();
    let bench = &mut pair.bench;
    bench.send(p, &report(5, 2));
    assert_eq!(bench.frames(c), [report(5, 2)]);
    assert_eq!(bench.hub.status().connections, 1);
    bench.send(c, &report(2, 2));
    assert_eq!(bench.frames(p), [report(2, 2)]);
    assert_eq!((bench.hub.status().connections, ends(bench).len()), (0, 1));
    bench.send(c, &report(2, 2));
    assert_eq!(bench.frames(p), [], "no route");
}

#[test]
fn a_session_lost_and_resumed_on_another() {
    let mut pair = Pair::new();
    let p = pair.p;
    pair.bench.kill(pair.c);
    pair.bench.wait(Duration::from_secs(30));
    pair.assert_cut(p, pair.down, StreamCode(0x27));
    let bench = &mut pair.bench;
    assert_eq!(ends(bench), [DisconnectReason::Error]);
    ask(bench, p, 0, 5, 2);
    assert_eq!(bench.frames(p), [], "alone");
    assert_eq!(bench.hub.status().paused, 1);
    let c = bench.session(Role::Consumer, "c");
    ask(bench, c, 0, 2, 9);
    assert_eq!(bench.frames(c), [answer(StreamCode(0), 0, 5, 0)]);
    assert_eq!(bench.frames(p), [answer(StreamCode(0), 0, 2, 0)]);
    let up = bench.stream(c, &[&resume(1, 5, 2), &b"more"[..]].concat());
    let down = *bench.opened(p).last().unwrap();
    assert_eq!(bench.read(p, down).0, [&resume(1, 5, 2), &b"more"[..]].concat(), "copied");
    assert_eq!(bench.frames(c), [], "no CONNECTED");
    bench.write(p, down, &[&resume(1, 2, 5), &b"answer"[..]].concat());
    assert_eq!(bench.read(c, up).0, [&resume(1, 2, 5), &b"answer"[..]].concat());
    assert_eq!(bench.hub.status().paused, 0);
    bench.finish(c, up);
    bench.finish(p, down);
    let totals = bench.records.iter().rev().find_map(|record| match record {
        RecordEvent::EndConnection { sent, received, .. } => Some((*sent, *received)),
        _ => None,
    });
    assert_eq!(totals, Some((4, 6)), "preambles do not count");
    assert_eq!(ends(bench), [DisconnectReason::Error, DisconnectReason::Closed]);
}

#[test]
fn a_preamble_on_its_way_is_not_destroyed() {
    let mut pair = Pair::silent();
    let (p, down) = (pair.p, pair.down);
    let it = &mut pair.bench.hands[pair.c];
    it.quic.reset(it.session, pair.up, 0x27);
    pair.bench.settle();
    assert_eq!(pair.bench.frames(p), [PAUSE_REQ]);
    assert_eq!(pair.bench.read(p, down).1, ReadOutcome::Blocked);
    pair.bench.send(p, &Frame::PauseAck { conn: KEY });
    pair.assert_cut(p, down, StreamCode(0x27));
    assert_eq!(ends(&pair.bench), [DisconnectReason::Closed]);
}

#[test]
fn a_provider_that_dies_untouched_gives_way_to_another() {
    let mut bench = bench(|_| {});
    let p = bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    let up = bench.connect(c, 7, b"");
    bench.kill(p);
    bench.wait(Duration::from_secs(30));
    assert_eq!(bench.reset_code(c, up), Some(0x28));
}

#[test]
fn a_request_ends_the_leg_that_its_sender_has_lost() {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    ask(&mut pair.bench, p, 0, 5, 2);
    pair.assert_cut(c, pair.up, StreamCode(0x27));
    let bench = &mut pair.bench;
    assert_eq!(bench.frames(p), []);
    ask(bench, c, 0, 2, 5);
    assert_eq!(
        (bench.frames(c), bench.frames(p)),
        (vec![answer(StreamCode(0), 0, 5, 0)], vec![answer(StreamCode(0), 0, 2, 0)])
    );
    // The consumer opens the next leg, the provider's request stays until it has answered.
    let up = bench.stream(c, &resume(1, 5, 2));
    assert_eq!(bench.opened(p).len(), 2);
    let it = &mut bench.hands[c];
    it.quic.reset(it.session, up, 0x27);
    it.quic.stop(it.session, up, 0x27);
    bench.settle();
    ask(bench, c, 1, 2, 5);
    assert_eq!(
        (bench.frames(c), bench.frames(p)),
        (vec![answer(StreamCode(0), 0, 5, 0)], vec![answer(StreamCode(0), 1, 2, 0)])
    );
    let up = bench.stream(c, &resume(2, 5, 2));
    let down = bench.opened(p)[2];
    // An older request of the provider's, from another session, touches nothing.
    ask(bench, p, 1, 5, 2);
    bench.write(p, down, &resume(2, 2, 5));
    assert_eq!(bench.read(c, up).0, resume(2, 2, 5));
    assert_eq!((bench.frames(c), bench.frames(p)), (vec![], vec![]));
    assert_eq!(bench.exchange().pairings.len(), 0, "the provider's is forgotten, too");
}

#[test]
fn a_stream_that_nobody_waits_for_is_reset() {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    let bench = &mut pair.bench;
    // No request of the provider's; an older generation; one that its sender has given up.
    let early = bench.stream(c, &resume(1, 5, 2));
    assert_eq!(bench.reset_code(c, early), Some(0x27));
    ask(bench, p, 0, 5, 2);
    ask(bench, c, 1, 2, 5);
    let given_up = bench.stream(c, &resume(1, 5, 2));
    assert_eq!(bench.reset_code(c, given_up), Some(0x27));
    let next = bench.stream(c, &resume(2, 5, 2));
    assert_eq!((bench.reset_code(c, next), bench.opened(p).len()), (None, 2));
    ask(bench, c, 1, 2, 5);
    let late = bench.stream(c, &resume(2, 5, 2));
    assert_eq!(bench.reset_code(c, late), Some(0x27));
    // A higher one takes the place of the present leg, of which nothing has come back.
    let newest = bench.stream(c, &resume(3, 5, 2));
    assert_eq!((bench.reset_code(c, newest), bench.opened(p).len()), (None, 3));
    assert_eq!(bench.reset_code(c, next), Some(0x27));
}

#[test]
fn an_abort_is_reported_to_each_end_that_asks() {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    ask(&mut pair.bench, p, 0, 5, 2);
    let bench = &mut pair.bench;
    bench.send(c, &Frame::ResumeReq(request(0, 2, 5, Flags::ABORTED.0, StreamCode(0x20))));
    assert_eq!(
        (bench.frames(c), bench.frames(p)),
        (vec![answer(StreamCode(0), 0, 5, 0)], vec![answer(StreamCode(0x20), 0, 2, 4)])
    );
    assert_eq!(bench.exchange().pairings.len(), 0);
    // The other way round, and through CLOSE_REQ.
    ask(bench, p, 0, 5, 2);
    bench.send(c, &Frame::CloseReq { conn: KEY, code: StreamCode(0x20) });
    assert_eq!(bench.frames(c), [Frame::CloseAck { conn: KEY }]);
    assert_eq!(bench.frames(p), [Frame::CloseReq { conn: KEY, code: StreamCode(0x20) }]);
    assert_eq!(bench.exchange().pairings.len(), 0);
}

#[test]
fn the_end_of_a_connection_is_not_lost_with_a_session() {
    let mut pair = Pair::new();
    pair.finish();
    let (c, p) = (pair.c, pair.p);
    let bench = &mut pair.bench;
    bench.kill(c);
    bench.wait(Duration::from_secs(30));
    assert_eq!(bench.frames(p), [PAUSE_REQ], "there is no stream left to reset");
    assert_eq!((bench.hub.status().connections, ends(bench).len()), (0, 1));
}

#[test]
fn identities_see_their_own() {
    let mut pair = Pair::new();
    let bench = &mut pair.bench;
    let (c2, p2) = (bench.session(Role::Consumer, "c2"), bench.session(Role::Provider, "p2"));
    for stranger in [c2, p2] {
        ask(bench, stranger, 9, 0, 0);
        assert_eq!(bench.frames(stranger), [answer(StreamCode(0x15), 0, 0, 0)]);
        bench.send(stranger, &report(3, 2));
        bench.send(stranger, &Frame::PauseAck { conn: KEY });
        bench.send(stranger, &Frame::CloseReq { conn: KEY, code: StreamCode(0x20) });
        assert_eq!(bench.frames(stranger), [Frame::CloseAck { conn: KEY }]);
    }
    for bytes in [resume(9, 0, 0), Preamble::Connect { conn: KEY, flags: Flags(1) }.to_bytes()] {
        let stream = bench.stream(c2, &bytes);
        assert_eq!(bench.reset_code(c2, stream), Some(0x15));
    }
    let known = bench.connect(pair.c, 7, b"");
    assert_eq!(bench.reset_code(pair.c, known), Some(0x23));
    assert_eq!((bench.frames(pair.c), bench.frames(pair.p)), (vec![], vec![]));
    // What is parked is theirs, too.
    ask(bench, pair.p, 0, 0, 0);
    bench.kill(pair.c);
    bench.wait(Duration::from_secs(30));
    ask(bench, p2, 9, 0, 0);
    assert_eq!(bench.frames(p2), [answer(StreamCode(0x15), 0, 0, 0)]);
    bench.send(p2, &Frame::CloseReq { conn: KEY, code: StreamCode(0x20) });
    assert_eq!(bench.exchange().pairings.len(), 1);
}

#[test]
fn requests_are_bounded_in_number_and_time() {
    let mut bench = bench(|config| config.limits.connections_per_session = 2);
    let p = bench.session(Role::Provider, "p");
    let ask = |bench: &mut Bench, key| {
        let request = ResumeReq { conn: ConnKey([key; 16]), ..request(0, 0, 0, 0, StreamCode::OK) };
        bench.send(p, &Frame::ResumeReq(request));
    };
    let status = |frames: Vec<Frame>| {
        let status = |frame: &Frame| match frame {
            Frame::ResumeAck(ack) => (ack.conn.0[0], ack.status),
            other => panic!("{other:?}"),
        };
        frames.iter().map(status).collect::<Vec<_>>()
    };
    for key in [1, 2, 3, 1] {
        ask(&mut bench, key);
        bench.wait(Duration::from_secs(1));
    }
    assert_eq!(status(bench.frames(p)), [(3, StreamCode(0x19))]);
    // The newer request of 1 waits from its own time on.
    bench.wait(Duration::from_millis(148_500));
    assert_eq!(status(bench.frames(p)), [(2, StreamCode(0x24))]);
    bench.wait(Duration::from_secs(4));
    assert_eq!(status(bench.frames(p)), [(1, StreamCode(0x24))]);
    assert_eq!(bench.exchange().pairings.len(), 0);
    ask(&mut bench, 4);
    bench.kill(p);
    bench.wait(Duration::from_secs(30));
    assert_eq!(bench.exchange().pairings.len(), 0, "it ends with its session");
}

#[test]
fn a_request_expires_beside_an_older_one_of_another_session() {
    let mut bench = bench(|_| {});
    let p = bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    for (hand, key, then) in [(c, 1, 200), (c, 9, 300), (p, 2, 200), (p, 9, 0)] {
        let request = ResumeReq { conn: ConnKey([key; 16]), ..request(0, 0, 0, 0, StreamCode::OK) };
        bench.send(hand, &Frame::ResumeReq(request));
        bench.wait(Duration::from_millis(then));
    }
    bench.wait(Duration::from_secs(155));
    let is_late =
        |frame: &Frame| matches!(frame, Frame::ResumeAck(ack) if ack.status == StreamCode::RESUME_PARTNER_MISSING);
    for hand in [c, p] {
        assert_eq!(bench.frames(hand).iter().filter(|frame| is_late(frame)).count(), 2);
    }
    assert_eq!(bench.exchange().pairings.len(), 0);
    bench.hub.check().unwrap();
}

#[test]
fn a_shutdown_pauses_what_can_be_resumed() {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    let stay = ConnKey([9; 16]);
    pair.bench.stream(c, &Preamble::Connect { conn: stay, flags: Flags::NONE }.to_bytes());
    ask(&mut pair.bench, p, 0, 5, 2);
    pair.assert_cut(c, pair.up, StreamCode(0x27));
    let now = pair.bench.now;
    let bench = &mut pair.bench;
    drop((bench.frames(c), bench.frames(p)));
    let up = bench.connect(c, 8, b"x");
    let paused = ConnKey([8; 16]);
    bench.frames(c);
    bench.hub.shutdown(now);
    bench.settle();
    let shutdown = Frame::SessionShutdown { flags: Flags(1), deadline_ms: 30_000 };
    let pause = Frame::PauseReq { conn: paused };
    assert_eq!(bench.frames(c), [shutdown.clone(), pause.clone()]);
    assert_eq!(bench.frames(p), [shutdown, pause, answer(StreamCode(0x27), 0, 0, 0)], "what waits is sent elsewhere");
    for hand in [c, p] {
        bench.send(hand, &Frame::PauseAck { conn: paused });
    }
    assert_eq!(bench.reset_code(c, up), Some(0x27));
    assert_eq!(ends(bench), [DisconnectReason::Error, DisconnectReason::Closed]);
    assert_eq!(bench.hub.status().connections, 1, "what cannot be paused drains");
    ask(bench, c, 0, 0, 0);
    assert_eq!(bench.frames(c), [answer(StreamCode(0x27), 0, 0, 0)]);
}

#[test]
fn a_service_is_paused_and_goes_on() {
    let mut pair = Pair::new();
    let (c, p, now) = (pair.c, pair.p, pair.bench.now);
    assert!(!pair.bench.hub.pause(now, "urn:other"));
    assert!(pair.bench.hub.pause(now, "urn:s"));
    pair.bench.settle();
    assert_eq!((pair.bench.frames(c), pair.bench.frames(p)), (vec![PAUSE_REQ], vec![PAUSE_REQ]));
    for hand in [c, p] {
        pair.bench.send(hand, &Frame::PauseAck { conn: KEY });
    }
    pair.assert_cut(c, pair.up, StreamCode(0x27));
    pair.assert_cut(p, pair.down, StreamCode(0x27));
    let bench = &mut pair.bench;
    assert_eq!(ends(bench), [DisconnectReason::Closed]);
    ask(bench, c, 0, 2, 5);
    ask(bench, p, 0, 5, 2);
    // Neither what was paused nor what is new is served.
    let early = bench.stream(c, &resume(1, 5, 2));
    assert_eq!(bench.reset_code(c, early), Some(0x27));
    bench.connect(c, 8, b"new");
    assert_eq!((bench.frames(c), bench.frames(p), bench.opened(p).len()), (vec![], vec![], 1));
    let status = &bench.hub.status().services[0];
    assert_eq!((status.is_paused, status.providers, status.connections), (true, 1, 0));
    assert!(bench.hub.unpause(now, "urn:s"));
    bench.settle();
    let connected = Frame::Connected { conn: ConnKey([8; 16]), flags: Flags(1) };
    assert_eq!(bench.frames(c), [connected, answer(StreamCode(0), 0, 5, 0)]);
    assert_eq!((bench.frames(p), bench.opened(p).len()), (vec![answer(StreamCode(0), 0, 2, 0)], 2));
    bench.stream(c, &resume(1, 5, 2));
    assert_eq!(bench.opened(p).len(), 3);
}

fn ask_for(bench: &mut Bench, hand: usize, generation: u64, received: u64, sent: u64, partner: &str) {
    let values = request(generation, received, sent, 0, StreamCode::OK);
    bench.send(hand, &Frame::ResumeReqWith { values, partner: Tag::of(partner) });
}

#[test]
fn ends_that_ask_are_sent_the_tag_of_their_partner() {
    let mut bench = bench(|_| {});
    bench.flags |= Flags::PARTNERS;
    let p = bench.session(Role::Provider, "p");
    let c = bench.session(Role::Consumer, "c");
    bench.connect(c, 7, b"hello");
    let down = bench.opened(p)[0];
    let said = [&[3][..], &Tag::of("c").0, &[1], &[7; 16], &[1], b"hello"].concat();
    assert_eq!(bench.read(p, down).0, said, "OWNER, CONNECT");
    assert_eq!(
        bench.frames(c),
        [Frame::Connected { conn: KEY, flags: Flags(1) }, Frame::Partner { conn: KEY, partner: Tag::of("p") }]
    );
    // The next leg says it again, and the provider's answer is what it was.
    ask_for(&mut bench, p, 0, 5, 2, "c");
    ask_for(&mut bench, c, 0, 0, 5, "p");
    bench.frames(c);
    let up = bench.stream(c, &[&resume(1, 5, 0), &b"!"[..]].concat());
    let down = *bench.opened(p).last().unwrap();
    assert_eq!(bench.read(p, down).0, [&[3][..], &Tag::of("c").0, &resume(1, 5, 0), b"!"].concat());
    bench.write(p, down, &[&resume(1, 0, 5), &b"answer"[..]].concat());
    assert_eq!(bench.read(c, up).0, [&resume(1, 0, 5), &b"answer"[..]].concat());
    bench.finish(c, up);
    bench.finish(p, down);
    let totals = bench.records.iter().rev().find_map(|record| match record {
        RecordEvent::EndConnection { sent, received, .. } => Some((*sent, *received)),
        _ => None,
    });
    assert_eq!(totals, Some((1, 6)), "without preambles");
    // Nothing is to be kept of a connection that cannot be resumed.
    bench.stream(c, &Preamble::Connect { conn: ConnKey([8; 16]), flags: Flags::NONE }.to_bytes());
    let down = *bench.opened(p).last().unwrap();
    assert_eq!(bench.read(p, down).0, [&[1], &[8; 16][..], &[0]].concat());
    assert_eq!(bench.frames(c), [Frame::Connected { conn: ConnKey([8; 16]), flags: Flags::NONE }]);
}

/// A hub that has restarted, and so knows nothing of the connection, which began between `c` and `p`.
#[test]
fn who_knows_the_id_of_a_connection_does_not_have_it() {
    for thief_first in [true, false] {
        let mut bench = bench(|_| {});
        let p = bench.session(Role::Provider, "p");
        let thief = bench.session(Role::Consumer, "c2");
        if thief_first {
            ask(&mut bench, thief, 9, 0, 5);
            assert_eq!(bench.frames(thief), [], "not known yet");
        }
        ask_for(&mut bench, p, 0, 5, 2, "c");
        if !thief_first {
            ask_for(&mut bench, thief, 9, 0, 5, "p");
        }
        assert_eq!((bench.frames(thief), bench.frames(p)), (vec![answer(StreamCode(0x15), 0, 0, 0)], vec![]));
        // It does without the answer, has a connection of that name begun, or has it ended.
        for bytes in [resume(9, 5, 0), Preamble::Connect { conn: KEY, flags: Flags(1) }.to_bytes()] {
            let stream = bench.stream(thief, &bytes);
            assert_eq!(bench.reset_code(thief, stream), Some(0x15));
        }
        bench.send(thief, &Frame::CloseReq { conn: KEY, code: StreamCode(0x20) });
        bench.send(thief, &Frame::ResumeReq(request(9, 0, 5, Flags::ABORTED.0, StreamCode(0x20))));
        assert_eq!(bench.frames(thief), [Frame::CloseAck { conn: KEY }, answer(StreamCode(0x15), 0, 0, 0)]);
        assert_eq!((bench.opened(p).len(), bench.frames(p)), (0, vec![]));
        // The owner goes on.
        let c = bench.session(Role::Consumer, "c");
        ask_for(&mut bench, c, 0, 2, 9, "p");
        assert_eq!(
            (bench.frames(c), bench.frames(p)),
            (vec![answer(StreamCode(0), 0, 5, 0)], vec![answer(StreamCode(0), 0, 2, 0)])
        );
        bench.stream(c, &[&resume(1, 5, 2), &b"more"[..]].concat());
        assert_eq!(bench.opened(p).len(), 1);
    }
}

/// The owner has lost its right; the connection is not anybody's now.
#[test]
fn a_right_that_was_withdrawn_is_nobodys_gain() {
    let mut bench = bench(|_| {});
    let p = bench.session(Role::Provider, "p");
    let (c, thief) = (bench.session(Role::Consumer, "c"), bench.session(Role::Consumer, "c2"));
    ask_for(&mut bench, p, 0, 5, 2, "c");
    let now = bench.now;
    let mut config = bench.hub.config.clone();
    config.services[0].consumers = vec!["c2".to_owned()];
    bench.hub.reload(now, config).unwrap();
    bench.settle();
    assert!(matches!(bench.frames(c)[..], [Frame::SessionClose { code: SessionCode(0x15), .. }]));
    ask_for(&mut bench, c, 0, 2, 9, "p");
    ask_for(&mut bench, thief, 0, 2, 9, "p");
    assert_eq!(bench.frames(c), [], "it has no session any more");
    assert_eq!((bench.frames(thief), bench.frames(p)), (vec![answer(StreamCode(0x15), 0, 0, 0)], vec![]));
}

/// Both ends have asked for the next stream, and the provider's session has no credit for one.
fn out_of_credit() -> (Pair, StreamId) {
    let mut pair = Pair::new();
    let (c, p) = (pair.c, pair.p);
    let bench = &mut pair.bench;
    for key in 8..11 {
        bench.connect(c, key, b"x");
    }
    assert_eq!(bench.opened(p).len(), 4, "that is all it grants");
    ask(bench, p, 0, 5, 2);
    ask(bench, c, 0, 2, 5);
    drop((bench.frames(c), bench.frames(p)));
    let up = bench.stream(c, &[&resume(1, 5, 2), &b"more"[..]].concat());
    assert_eq!((bench.opened(p).len(), bench.reset_code(c, up)), (4, None));
    bench.hub.check().unwrap();
    (pair, up)
}

fn grant(bench: &mut Bench, hand: usize, streams: u32) {
    let it = &mut bench.hands[hand];
    it.quic.set_max_streams(it.session, streams);
    bench.settle();
    bench.hub.check().unwrap();
}

#[test]
fn a_leg_waits_for_a_stream_of_its_provider() {
    let (mut pair, up) = out_of_credit();
    let (c, p) = (pair.c, pair.p);
    let bench = &mut pair.bench;
    // New connections wait behind it.
    bench.connect(c, 11, b"new");
    bench.wait(Duration::from_secs(10));
    grant(bench, p, 5);
    let down = *bench.opened(p).last().unwrap();
    assert_eq!(bench.read(p, down).0, [&resume(1, 5, 2), &b"more"[..]].concat());
    bench.write(p, down, &resume(1, 2, 5));
    assert_eq!(bench.read(c, up).0, resume(1, 2, 5));
    assert_eq!((bench.opened(p).len(), bench.exchange().pairings.len()), (5, 0));
    grant(bench, p, 6);
    assert_eq!(bench.opened(p).len(), 6);
}

#[test]
fn a_leg_that_waits_is_given_up_for_the_next_one() {
    // Its consumer has lost the stream,
    let (mut pair, up) = out_of_credit();
    let (c, p) = (pair.c, pair.p);
    ask(&mut pair.bench, c, 1, 2, 5);
    assert_eq!(pair.bench.reset_code(c, up), Some(0x27));
    assert_eq!(pair.bench.frames(c), [answer(StreamCode(0), 0, 5, 0)]);
    grant(&mut pair.bench, p, 8);
    assert_eq!(pair.bench.opened(p).len(), 4);
    // its provider leaves,
    let (mut pair, up) = out_of_credit();
    pair.bench.send(pair.p, &Frame::SessionClose { code: SessionCode(0x27), text: String::new() });
    assert_eq!(pair.bench.reset_code(pair.c, up), Some(0x27));
    pair.bench.hub.check().unwrap();
    // there is never any,
    let (mut pair, up) = out_of_credit();
    pair.bench.wait(Duration::from_secs(61));
    assert_eq!(pair.bench.reset_code(pair.c, up), Some(0x27));
    // the service is paused,
    let (mut pair, up) = out_of_credit();
    let now = pair.bench.now;
    pair.bench.hub.pause(now, "urn:s");
    pair.bench.settle();
    assert_eq!(pair.bench.reset_code(pair.c, up), Some(0x27));
    // or its consumer wants it no more, and informs its provider.
    let (mut pair, up) = out_of_credit();
    let (c, p) = (pair.c, pair.p);
    pair.bench.send(c, &Frame::CloseReq { conn: KEY, code: StreamCode(0x20) });
    assert_eq!(pair.bench.reset_code(c, up), Some(0x20));
    assert_eq!(pair.bench.frames(c), [Frame::CloseAck { conn: KEY }]);
    pair.bench.send(c, &Frame::ResumeReq(request(1, 2, 5, Flags::ABORTED.0, StreamCode(0x20))));
    assert_eq!(pair.bench.frames(p), [answer(StreamCode(0x20), 1, 2, 4)]);
    pair.bench.hub.check().unwrap();
}
