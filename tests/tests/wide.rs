//! Long paths, in virtual time: a connection over one gets what the path carries (CTL-17 to CTL-21).

use std::time::Duration;

use towline_core::quic::Congestion;
use towline_tests::sim::wide::{Outcome, Path, run};

fn path(mbit: u64, round_trip_ms: u64) -> Path {
    let (rate, round_trip) = (mbit * 125_000, Duration::from_millis(round_trip_ms));
    let queue = rate * round_trip_ms / 1000;
    Path { rate, round_trip, queue, loss: 0, late: (0, Duration::ZERO), congestion: Congestion::default() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn after_a_second(path: Path) -> Outcome {
    let outcome = run(path, ms(1000), ms(2000));
    println!("{path:?}: {outcome:?}");
    outcome
}

#[test]
fn a_long_path_is_filled() {
    // 200 Mb/s over 80 ms are 2 MB: more than any window begins with, and more than a connection keeps at first.
    let outcome = run(path(200, 80), ms(3000), ms(2000));
    assert!(outcome.share > 0.85, "{outcome:?}");
    assert!(outcome.kept > 2_000_000 && outcome.kept <= 16 << 20, "{outcome:?}");
    // A short one needs none of it.
    let outcome = after_a_second(path(100, 2));
    assert!(outcome.share > 0.85 && outcome.kept <= 1 << 20, "{outcome:?}");
}

#[test]
fn packets_that_are_lost_by_chance_cost_little() {
    for loss in [1, 10] {
        let outcome = after_a_second(Path { loss, ..path(200, 20) });
        assert!(outcome.share > 0.8, "{loss} of a thousand lost: {outcome:?}");
    }
}

#[test]
fn late_packets_are_not_lost_ones() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        for late in [(10, ms(1)), (50, ms(4))] {
            let outcome = after_a_second(Path { late, congestion, ..path(100, 20) });
            assert!(outcome.share > 0.85, "{congestion}, {late:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_deep_queue_is_left_to_others() {
    for mbit in [10, 100] {
        let wide = path(mbit, 20);
        let outcome = after_a_second(Path { queue: 4 * wide.queue, ..wide });
        assert!(outcome.share > 0.85, "{outcome:?}");
        // In all no more than twice the round trip; acknowledgements wait a little, too.
        assert!(outcome.wait <= ms(22), "{outcome:?}");
    }
}
