//! Random lives of a proxy, on virtual time.

use std::env;

use towline_tests::txn::lives;

/// Number of seeds in every run of the tests.
const SEEDS: u64 = 500;

#[test]
fn seeds_keep_the_invariants() {
    if let Ok(seed) = env::var("TOWLINE_SIM_SEED") {
        let journal = lives::run(seed.parse().expect("TOWLINE_SIM_SEED is a number")).expect("the invariants hold");
        println!("{}", journal.join("\n"));
        return;
    }
    let faults: Vec<_> = (0..SEEDS).filter_map(|seed| Some((seed, lives::run(seed).err()?))).collect();
    for (seed, fault) in &faults {
        eprintln!(
            "seed {seed}: {fault}; again with TOWLINE_SIM_SEED={seed} cargo test -p towline-tests --test txn_sim -- --nocapture"
        );
    }
    assert!(faults.is_empty(), "{} of {SEEDS} seeds", faults.len());
}

#[test]
fn a_seed_is_a_life() {
    let mut lines = 0;
    for seed in 0..20 {
        let (first, second) = (lives::run(seed).unwrap(), lives::run(seed).unwrap());
        lines += first.len();
        for (nth, (a, b)) in first.iter().zip(&second).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {nth}");
        }
        assert_eq!(first.len(), second.len());
    }
    assert!(lines > 1000, "something happens in a life");
}
