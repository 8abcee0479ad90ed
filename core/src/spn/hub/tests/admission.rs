//! Who comes in, who does not, and how it is said (IDN, ADM, PRV-1 to PRV-5).

use super::*;
use crate::spn::{
    record::TerminateReason,
    wire::{code::SessionCode, frame::Flags},
};

fn reject(code: SessionCode, retry_after_ms: u64) -> impl Fn(&Frame) -> bool {
    move |frame| matches!(frame, Frame::SessionReject { code: c, retry_after_ms: r, .. } if (*c, *r) == (code, retry_after_ms))
}

/// What SESSION_OPEN is answered with.
fn answer(bench: &mut Bench, alpn: Role, name: &str, role: Role, service: &str) -> Vec<Frame> {
    let hand = bench.dial(alpn.alpn(Protocol::Sc02), name);
    bench.open(hand, role, service, 100, hand as u8);
    bench.frames(hand)
}

#[test]
fn session_open_is_judged_in_order() {
    use Role::{Consumer, Provider};
    let mut bench = Bench::new(|_| {});
    for (alpn, name, role, service, code, retry) in [
        (Consumer, "c", Provider, "", 0x14, 0),
        (Provider, "c", Provider, "", 0x15, 0),
        (Consumer, "nobody", Consumer, "urn:s", 0x15, 0),
        (Consumer, "c", Consumer, "urn:nothing", 0x16, 0),
        (Consumer, "c", Consumer, "urn:s", 100, 1000),
    ] {
        let mut frames = answer(&mut bench, alpn, name, role, service);
        if code == 100 {
            assert_eq!(frames, [], "a provider may come yet");
            bench.wait(Duration::from_secs(1));
            frames = bench.frames(bench.hands.len() - 1);
        }
        assert!(matches!(&frames[..], [frame] if reject(SessionCode(code), retry)(frame)), "{code}: {frames:?}");
        assert!(bench.refusals.last().unwrap().contains(&format!("code 0x{code:x}")), "{:?}", bench.refusals);
    }
    let frames = answer(&mut bench, Provider, "p", Provider, "");
    let [Frame::SessionAck(ack)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&ack.service[..], ack.max_connections, ack.session_id.len()), ("urn:s", 0, 16));
    let frames = answer(&mut bench, Consumer, "c", Consumer, "urn:s");
    assert!(matches!(&frames[..], [Frame::SessionAck(ack)] if ack.max_connections == 10_000), "{frames:?}");
    assert_eq!(bench.records.len(), 2, "the refused leave no record");
}

#[test]
fn a_consumer_that_is_earlier_than_its_provider_is_let_in_with_it() {
    let mut bench = Bench::new(|_| {});
    let consumers: Vec<usize> = (0..3)
        .map(|_| {
            let consumer = bench.dial(b"sc02-consumer", "c");
            bench.open(consumer, Role::Consumer, "", 0, 0);
            consumer
        })
        .collect();
    bench.wait(Duration::from_millis(900));
    bench.kill(consumers[1]);
    bench.session(Role::Provider, "p");
    for consumer in [consumers[0], consumers[2]] {
        assert!(matches!(bench.frames(consumer)[..], [Frame::SessionAck(_)]), "{:?}", bench.refusals);
        bench.connect(consumer, consumer as u8, b"at once");
    }
    assert_eq!((bench.hub.status().consumers, bench.hub.status().connections), (3, 2));
    assert_eq!(bench.refusals, [""; 0]);
}

#[test]
fn an_early_consumer_may_not_speak_and_may_lose_its_right() {
    let mut bench = Bench::new(|_| {});
    let early = |bench: &mut Bench| {
        let consumer = bench.dial(b"sc02-consumer", "c");
        bench.open(consumer, Role::Consumer, "", 0, 0);
        consumer
    };
    let speaks = early(&mut bench);
    bench.send(speaks, &Frame::SetWeight { weight: 1 });
    assert_eq!(bench.close_code(speaks), Some(0x10));
    let loses = early(&mut bench);
    let mut config = bench.hub.config.clone();
    config.services[0].consumers.clear();
    bench.hub.reload(bench.now, config).unwrap();
    bench.settle();
    assert!(bench.frames(loses).iter().any(reject(SessionCode(0x15), 0)));
}

#[test]
fn a_refused_endpoint_that_does_not_close_is_closed() {
    let mut bench = Bench::new(|_| {});
    let hand = bench.dial(b"sc02-consumer", "nobody");
    bench.open(hand, Role::Consumer, "", 0, 0);
    assert_eq!(bench.close_code(hand), None, "a close would overtake SESSION_REJECT");
    bench.wait(Duration::from_secs(4));
    assert_eq!(bench.close_code(hand), Some(0x15));
    assert_eq!(bench.refusals.len(), 1, "said once: {:?}", bench.refusals);
}

#[test]
fn violations_close_their_own_session_only() {
    let mut bench = Bench::new(|_| {});
    let provider = bench.session(Role::Provider, "p");
    let close_of = |bench: &mut Bench, deed: fn(&mut Bench, usize)| {
        let hand = bench.dial(b"sc02-consumer", "c");
        deed(bench, hand);
        bench.close_code(hand)
    };
    // Before SESSION_ACK.
    assert_eq!(close_of(&mut bench, |b, h| b.send(h, &Frame::SetWeight { weight: 1 })), Some(0x10));
    assert_eq!(close_of(&mut bench, |b, h| b.send(h, &Frame::SessionOpenRole { role: 3 })), Some(0x10));
    assert_eq!(
        close_of(&mut bench, |b, h| {
            let it = &mut b.hands[h];
            let control = it.quic.open(it.session).unwrap();
            let data = it.quic.open(it.session).unwrap();
            it.quic.write(it.session, data, &mut [Bytes::from_static(b"x")]);
            it.quic.write(it.session, control, &mut [Bytes::from_static(b"\x01")]);
            b.settle();
        }),
        Some(0x12)
    );
    assert_eq!(close_of(&mut bench, |b, _| b.wait(Duration::from_secs(11))), Some(0x11));
    // After it.
    assert_eq!(
        close_of(&mut bench, |b, h| {
            b.open(h, Role::Consumer, "", 0, 9);
            b.open(h, Role::Consumer, "", 0, 9);
        }),
        Some(0x10),
        "a second SESSION_OPEN"
    );
    assert_eq!(
        close_of(&mut bench, |b, h| {
            b.open(h, Role::Consumer, "", 0, 9);
            b.send(h, &Frame::SetWeight { weight: 1 });
        }),
        Some(0x10),
        "a consumer has no weight"
    );
    assert_eq!(
        close_of(&mut bench, |b, h| {
            b.open(h, Role::Consumer, "", 0, 9);
            let stream = b.hands[h].control.as_ref().unwrap().stream();
            b.write(h, stream, b"\x7f\xff\x02xx");
        }),
        Some(0x10),
        "an odd type that is unknown"
    );
    assert_eq!(
        close_of(&mut bench, |b, h| {
            b.open(h, Role::Consumer, "", 0, 9);
            let stream = b.hands[h].control.as_ref().unwrap().stream();
            b.finish(h, stream);
        }),
        Some(0x13)
    );
    let version = close_of(&mut bench, |b, h| {
        b.send(h, &Frame::SessionOpenVersion { version: 2 });
        assert!(matches!(b.frames(h)[..], [Frame::SessionReject { code: SessionCode(0x10), .. }]));
    });
    assert_eq!(version, None, "another version is rejected by frame");
    assert_eq!(bench.close_code(provider), None);
    assert_eq!(bench.hub.status().providers, 1);
    let is_error =
        |record: &&RecordEvent| matches!(record, RecordEvent::EndSession { reason: TerminateReason::Error, .. });
    assert_eq!(bench.records.iter().filter(is_error).count(), 4, "each session that had begun");
}

#[test]
fn unknown_even_frames_are_ignored() {
    let mut bench = Bench::new(|_| {});
    let provider = bench.session(Role::Provider, "p");
    let stream = bench.hands[provider].control.as_ref().unwrap().stream();
    bench.write(provider, stream, b"\x40\x80\x02xx");
    bench.send(provider, &Frame::SetWeight { weight: 7 });
    assert_eq!(bench.frames(provider), [Frame::SetWeightAck { weight: 7, streams: 0 }]);
}

#[test]
fn sc01_is_admitted_by_the_same_rules() {
    let mut bench = Bench::new(|_| {});
    for (alpn, name) in [(&b"sc01-provider"[..], "c"), (b"sc01-consumer", "p"), (b"sc01-consumer", "nobody")] {
        let hand = bench.dial(alpn, name);
        assert_eq!(bench.close_code(hand), Some(0x15), "{name}");
    }
    let consumer = bench.dial(b"sc01-consumer", "c");
    assert_eq!((bench.close_code(consumer), bench.hub.status().consumers), (None, 1), "without a provider, too");
}

#[test]
fn a_singletons_second_provider_is_refused_while_the_first_lives() {
    let mut bench = Bench::new(|config| config.services[0].singleton = true);
    bench.session(Role::Provider, "p");
    let second = bench.dial(b"sc02-provider", "p2");
    bench.open(second, Role::Provider, "", 100, 2);
    assert_eq!(bench.frames(second), [], "held while the first is asked");
    bench.wait(Duration::from_millis(200));
    let frames = bench.frames(second);
    assert!(matches!(&frames[..], [frame] if reject(SessionCode(0x17), 5000)(frame)), "{frames:?}");
    // On sc01 it is a close.
    let third = bench.dial(b"sc01-provider", "p2");
    bench.wait(Duration::from_millis(200));
    assert_eq!(bench.close_code(third), Some(0x17));
}

#[test]
fn a_dead_singleton_is_replaced() {
    let mut bench = Bench::new(|config| config.services[0].singleton = true);
    let first = bench.session(Role::Provider, "p");
    bench.kill(first);
    let second = bench.dial(b"sc02-provider", "p2");
    bench.open(second, Role::Provider, "", 100, 2);
    assert_eq!(bench.frames(second), []);
    bench.wait(Duration::from_millis(3100));
    assert!(matches!(bench.frames(second)[..], [Frame::SessionAck(_)]));
    assert_eq!(bench.hub.status().providers, 1);
}

#[test]
fn a_newcomer_that_gives_up_leaves_its_place_to_the_next() {
    let mut bench = Bench::new(|config| config.services[0].singleton = true);
    let first = bench.session(Role::Provider, "p");
    bench.kill(first);
    let second = bench.dial(b"sc02-provider", "p2");
    bench.open(second, Role::Provider, "", 100, 2);
    let (now, it) = (bench.now, &mut bench.hands[second]);
    it.quic.close(now, it.session, 0, "changed my mind");
    bench.settle();
    let third = bench.dial(b"sc02-provider", "p2");
    bench.open(third, Role::Provider, "", 100, 3);
    assert_eq!(bench.frames(third), [], "held while the first is asked");
    bench.wait(Duration::from_millis(3100));
    assert!(matches!(bench.frames(third)[..], [Frame::SessionAck(_)]));
}

#[test]
fn the_same_process_replaces_its_older_session() {
    let mut bench = Bench::new(|config| config.services[0].singleton = true);
    let older = bench.dial(b"sc02-provider", "p");
    bench.open(older, Role::Provider, "", 100, 7);
    bench.frames(older);
    let newer = bench.dial(b"sc02-provider", "p");
    bench.open(newer, Role::Provider, "", 100, 7);
    assert!(matches!(bench.frames(newer)[..], [Frame::SessionAck(_)]), "no conflict");
    assert!(matches!(bench.frames(older)[..], [Frame::SessionClose { code: SessionCode(0), .. }]));
}

#[test]
fn a_retiring_singleton_makes_room() {
    let mut bench = Bench::new(|config| config.services[0].singleton = true);
    let first = bench.session(Role::Provider, "p");
    bench.send(first, &Frame::SetWeight { weight: 0 });
    bench.session(Role::Provider, "p2");
}

#[test]
fn sessions_of_one_identity_are_bounded() {
    let mut bench = Bench::new(|config| config.limits.sessions_per_identity = 2);
    bench.session(Role::Provider, "p");
    bench.session(Role::Provider, "p");
    let frames = answer(&mut bench, Role::Provider, "p", Role::Provider, "");
    assert!(matches!(&frames[..], [frame] if reject(SessionCode(0x19), 0)(frame)), "{frames:?}");
    bench.session(Role::Provider, "p2");
}

#[test]
fn refusals_are_reported_at_a_bounded_rate() {
    let mut bench = Bench::new(|config| config.limits.refusals_per_second = 2);
    for _ in 0..5 {
        bench.dial(b"sc01-consumer", "nobody");
    }
    assert_eq!(bench.refusals.len(), 2);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.suppressed, 3);
}

#[test]
fn a_reload_ends_what_has_lost_its_right() {
    let mut bench = Bench::new(|_| {});
    let provider = bench.session(Role::Provider, "p");
    let consumer = bench.session(Role::Consumer, "c");
    bench.connect(consumer, 1, b"x");
    let mut config = bench.hub.config.clone();
    config.services[0].consumers = vec!["c2".to_owned()];
    let changes = bench.hub.reload(bench.now, config.clone()).unwrap();
    assert_eq!(changes, ["service urn:s changed"]);
    bench.settle();
    assert!(matches!(
        bench.frames(consumer)[..],
        [Frame::Connected { .. }, Frame::SessionClose { code: SessionCode(0x15), .. }]
    ));
    let [served] = bench.opened(provider)[..] else { panic!("one stream") };
    assert_eq!(bench.reset_code(provider, served), Some(0x21));
    assert_eq!((bench.hub.status().providers, bench.hub.status().consumers), (1, 0));
    config.key = "nonsense".to_owned();
    assert!(matches!(bench.hub.reload(bench.now, config), Err(ConfigError::Server(_))));
    assert_eq!(bench.hub.status().providers, 1, "a failed reload changes nothing");
}

#[test]
fn a_certificate_that_is_not_valid_yet_does_not_replace_one_that_is() {
    let mut bench = Bench::new(|_| {});
    let old = bench.hub.config.clone();
    let mut config = old.clone();
    (config.certificate, config.key) = bench.ca.early_server();
    let changes = bench.hub.reload(bench.now, config.clone()).unwrap();
    assert_eq!(changes, ["the new certificate is not valid yet: the old one stays, load again when it is"]);
    let provider = bench.session(Role::Provider, "p");
    assert_eq!(bench.hub.status().providers, 1, "hand {provider} believes the hub");
    // When its time has come.
    let unix = Duration::from_secs(4_102_444_800);
    bench.hub.set_epoch(bench.now, Epoch { instant: bench.now, unix });
    assert_eq!(bench.hub.reload(bench.now, config).unwrap(), ["certificate changed"]);
    // A hub that has no other one starts with it.
    let mut early = old;
    (early.certificate, early.key) = bench.ca.early_server();
    let epoch = Epoch { instant: bench.now, unix: pki::UNIX };
    assert!(Hub::new(bench.now, early, [1; 32], epoch).is_ok());
}

#[test]
fn a_drain_notifies_every_session_and_ends_with_the_last() {
    let mut bench = Bench::new(|_| {});
    let (new, old) = (bench.session(Role::Provider, "p"), bench.dial(b"sc01-consumer", "c"));
    bench.hub.shutdown(bench.now);
    bench.settle();
    assert_eq!(bench.frames(new), [Frame::SessionShutdown { flags: Flags::NONE, deadline_ms: 30_000 }]);
    assert!(bench.hands[old].events.contains(&quic::Event::Datagram(Bytes::from_static(b"notify_shutdown"))));
    let late = bench.dial(b"sc02-consumer", "c2");
    assert!(
        matches!(bench.hands[late].events.back(), Some(quic::Event::Closed(CloseReason::Transport { code: 0x02, .. }))),
        "no new session"
    );
    bench.send(new, &Frame::SessionClose { code: SessionCode(0), text: String::new() });
    let now = bench.now;
    let it = &mut bench.hands[old];
    it.quic.close(now, it.session, 0, "done");
    bench.settle();
    assert!(bench.stopped);
}

#[test]
fn a_drain_has_an_end() {
    let mut bench = Bench::new(|_| {});
    let provider = bench.session(Role::Provider, "p");
    bench.hub.shutdown(bench.now);
    bench.wait(Duration::from_secs(29));
    assert!(!bench.stopped);
    bench.wait(Duration::from_secs(2));
    assert!(bench.stopped);
    assert_eq!(bench.close_code(provider), Some(0));
}

#[test]
fn strangers_that_begin_handshakes_are_reported() {
    let mut bench = Bench::new(|config| (config.limits.handshakes, config.limits.refusals_per_second) = (0, 1));
    for _ in 0..3 {
        bench.dial(b"sc02-consumer", "c");
    }
    bench.wait(Duration::from_millis(500));
    assert_eq!(bench.refusals, ["refused 192.0.2.10:999: handshake failed: too many handshakes at once"]);
    bench.wait(Duration::from_secs(30));
    assert!(bench.suppressed > 1, "{} were counted", bench.suppressed);
}
