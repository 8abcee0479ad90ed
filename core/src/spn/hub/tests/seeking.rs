//! Who may have a connection of which nothing was heard (SEK).

use super::*;
use crate::spn::wire::{
    code::{SessionCode, StreamCode},
    frame::{Flags, ResumeReq},
};

const KEY: ConnKey = ConnKey([7; 16]);

/// Endpoints that know SEEK.
fn bench() -> Bench {
    Bench { flags: Flags::RESUMABLE | Flags::SEEKS, ..Bench::new(|_| {}) }
}

fn listed(number: u64, flags: u8, instances: &[usize]) -> Frame {
    list(number, flags, instances, &[])
}

fn list(number: u64, flags: u8, instances: &[usize], retiring: &[usize]) -> Frame {
    let ids = |hands: &[usize]| hands.iter().map(|hand| [*hand as u8; 16]).collect();
    Frame::Providers { number, flags: Flags(flags), instances: ids(instances), retiring: ids(retiring) }
}

/// A consumer's session, with the frames behind SESSION_ACK.
fn consumer(bench: &mut Bench) -> (usize, Vec<Frame>) {
    let hand = bench.dial(Role::Consumer.alpn(Protocol::Sc02), "c");
    bench.open(hand, Role::Consumer, "", 100, hand as u8);
    let mut frames = bench.frames(hand);
    assert!(matches!(frames.remove(0), Frame::SessionAck(_)));
    (hand, frames)
}

#[test]
fn a_consumer_knows_every_provider_that_may_get_its_connections() {
    let mut bench = bench();
    let p = bench.session(Role::Provider, "p");
    let (c, frames) = consumer(&mut bench);
    assert_eq!(frames, [listed(1, 0, &[p])]);
    bench.connect(c, 1, b"early");
    assert_eq!(bench.opened(p).len(), 0, "it has not said that it knows");
    // A consumer that does not know SEEK is not held up by one that has not answered.
    bench.flags = Flags::RESUMABLE;
    let plain = bench.session(Role::Consumer, "c2");
    bench.connect(plain, 2, b"plain");
    assert_eq!(bench.opened(p).len(), 1);
    bench.send(c, &Frame::ProvidersAck { number: 1 });
    assert_eq!(bench.opened(p).len(), 2);
    // Another one comes: it has the fewest, and gets none before it is known. It cannot be asked, and that is said.
    let p2 = bench.session(Role::Provider, "p2");
    assert_eq!(bench.frames(c).last(), Some(&listed(2, Flags::OTHERS.0, &[p])));
    bench.connect(c, 3, b"x");
    assert_eq!((bench.opened(p).len(), bench.opened(p2).len()), (3, 0));
    // More than there is counts as all there is.
    bench.send(c, &Frame::ProvidersAck { number: 9 });
    bench.connect(c, 4, b"x");
    assert_eq!((bench.opened(p).len(), bench.opened(p2).len()), (3, 1));
    bench.send(p2, &Frame::SessionClose { code: SessionCode(0), text: String::new() });
    assert_eq!(bench.frames(c).last(), Some(&listed(3, 0, &[p])));
    bench.hub.check().unwrap();
}

#[test]
fn a_provider_that_retires_gets_nothing_and_can_be_asked() {
    let mut bench = bench();
    let p = bench.session(Role::Provider, "p");
    let (c, _) = consumer(&mut bench);
    bench.send(c, &Frame::ProvidersAck { number: 1 });
    bench.send(p, &Frame::SetWeight { weight: 0 });
    assert_eq!(bench.frames(c), [list(2, 0, &[], &[p])]);
    bench.send(c, &Frame::ProvidersAck { number: 2 });
    bench.connect(c, 1, b"new");
    assert_eq!(bench.opened(p).len(), 0);
    // What it may have got before is sought there.
    bench.send(
        c,
        &Frame::ResumeReq(ResumeReq {
            conn: KEY,
            generation: 0,
            received: 0,
            sent: 5,
            flags: Flags::NONE,
            code: StreamCode(0),
        }),
    );
    let seek = Frame::Seek { conn: KEY, instance: [p as u8; 16] };
    bench.send(c, &seek);
    assert_eq!(bench.frames(p).last(), Some(&seek));
    // A second session of it, on this hub or after a restart, begins with weight 0.
    let flags = bench.flags;
    let again = bench.dial(Role::Provider.alpn(Protocol::Sc02), "p");
    bench.flags = flags;
    bench.open(again, Role::Provider, "", 0, again as u8);
    assert_eq!(bench.frames(c).last(), Some(&list(3, 0, &[], &[p, again])));
    bench.send(p, &Frame::SetWeight { weight: 10 });
    assert_eq!(bench.frames(c).last(), Some(&list(4, 0, &[p], &[again])));
    assert_eq!(bench.opened(p).len(), 0, "the consumer has not said that it knows");
    bench.send(c, &Frame::ProvidersAck { number: 4 });
    assert_eq!(bench.opened(p).len(), 1);
    bench.hub.check().unwrap();
}

#[test]
fn a_provider_is_asked_once_and_only_for_what_is_to_be_resumed() {
    let mut bench = bench();
    let p = bench.session(Role::Provider, "p");
    let (c, _) = consumer(&mut bench);
    let (seek, absent) =
        (Frame::Seek { conn: KEY, instance: [p as u8; 16] }, Frame::Absent { conn: KEY, instance: [9; 16] });
    bench.send(c, &seek);
    assert_eq!(bench.frames(p), [], "it has not asked to resume it");
    bench.send(p, &absent);
    assert_eq!(bench.frames(c), [], "the search has ended");
    let request = ResumeReq { conn: KEY, generation: 0, received: 0, sent: 5, flags: Flags::NONE, code: StreamCode(0) };
    bench.send(c, &Frame::ResumeReq(request));
    bench.send(c, &seek);
    bench.send(c, &seek);
    bench.send(c, &Frame::Seek { conn: KEY, instance: [8; 16] });
    assert_eq!(bench.frames(p), [seek]);
    bench.send(p, &absent);
    let notified = Frame::Absent { conn: KEY, instance: [p as u8; 16] };
    assert_eq!(bench.frames(c), [notified], "under its own name");
    bench.send(c, &Frame::CloseReq { conn: KEY, code: StreamCode(0x28) });
    assert_eq!(bench.exchange().pairings.len(), 0);
}
