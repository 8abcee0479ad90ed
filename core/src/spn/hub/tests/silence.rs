//! Providers that say nothing for a while, or for ever (PRV-12 to PRV-15).

use super::*;
use crate::spn::record::DisconnectReason;

/// Two providers and a consumer. The first connection goes to the first provider.
fn two_providers() -> (Bench, [usize; 2], usize) {
    let mut bench = Bench::new(|_| {});
    let providers = [bench.session(Role::Provider, "p"), bench.session(Role::Provider, "p2")];
    let c = bench.session(Role::Consumer, "c");
    (bench, providers, c)
}

/// Takes an endpoint off the network: what is sent to it is lost. Given back to [`Bench::hands`], it goes on.
fn unplug(bench: &mut Bench, hand: usize) -> Endpoint {
    let nobody = Endpoint::new(EndpointConfig::new([0; 32], bench.clock.clone()), None);
    std::mem::replace(&mut bench.hands[hand].quic, nobody)
}

#[test]
fn a_silent_provider_gets_nothing_new_and_what_it_got_goes_to_another_one() {
    let (mut bench, [dead, alive], c) = two_providers();
    let it = &mut bench.hands[alive];
    it.quic.set_max_streams(it.session, 100);
    bench.settle();
    // It knows this one, and no other provider has it.
    let old = bench.connect(c, 1, b"old");
    bench.wait(Duration::from_millis(100));
    assert_eq!(bench.opened(dead).len(), 1, "the first one goes to the first provider");
    let other = bench.connect(c, 2, b"other");
    bench.kill(dead);
    let lost = bench.connect(c, 3, b"lost");
    assert_eq!(bench.opened(alive).len(), 1, "three connections, one of them here");
    bench.wait(Duration::from_millis(600));
    for key in 4..10 {
        bench.connect(c, key, b"new");
    }
    assert_eq!(bench.opened(alive).len(), 7, "all of them");
    bench.wait(Duration::from_millis(2000));
    assert_eq!(bench.reset_code(c, lost), Some(0x28), "to be begun again");
    assert_eq!((bench.reset_code(c, old), bench.reset_code(c, other)), (None, None));
    let ends = bench.records.iter().filter_map(|record| match record {
        RecordEvent::EndConnection { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [DisconnectReason::Error]);
    bench.hub.check().unwrap();
}

#[test]
fn a_silent_provider_that_is_the_only_one_keeps_what_it_has() {
    let mut bench = Bench::new(|_| {});
    let (p, c) = (bench.session(Role::Provider, "p"), bench.session(Role::Consumer, "c"));
    let there = unplug(&mut bench, p);
    let up = bench.connect(c, 1, b"hello");
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.reset_code(c, up), None);
    bench.hands[p].quic = there;
    bench.wait(Duration::from_secs(1));
    let [down] = bench.opened(p)[..] else { panic!("{} streams", bench.opened(p).len()) };
    assert_eq!(&bench.read(p, down).0[18..], b"hello");
}

#[test]
fn a_provider_that_is_back_forgets_what_it_lost_and_serves_again() {
    let (mut bench, [p, _], c) = two_providers();
    let there = unplug(&mut bench, p);
    let moved = bench.connect(c, 1, b"moved");
    bench.wait(Duration::from_millis(2500));
    assert_eq!(bench.reset_code(c, moved), Some(0x28));
    bench.hands[p].quic = there;
    bench.wait(Duration::from_secs(3));
    let [lost] = bench.opened(p)[..] else { panic!("{} streams", bench.opened(p).len()) };
    assert_eq!(bench.reset_code(p, lost), Some(0x28));
    bench.connect(c, 2, b"new");
    assert_eq!(bench.opened(p).len(), 2, "it has the fewest");
    bench.hub.check().unwrap();
}

#[test]
fn a_hub_that_nobody_hears_moves_nothing() {
    let (mut bench, providers, c) = two_providers();
    let up = bench.connect(c, 1, b"hello");
    let there = providers.map(|hand| unplug(&mut bench, hand));
    let late = bench.connect(c, 2, b"hello");
    bench.wait(Duration::from_secs(4));
    assert_eq!((bench.reset_code(c, up), bench.reset_code(c, late)), (None, None));
    for (hand, quic) in providers.into_iter().zip(there) {
        bench.hands[hand].quic = quic;
    }
    bench.wait(Duration::from_secs(2));
    assert_eq!(providers.map(|hand| bench.opened(hand).len()), [1, 1]);
    bench.hub.check().unwrap();
}
