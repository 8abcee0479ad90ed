//! Random lives of a hub and its endpoints, on a simulated network.

use std::{env, thread};

use towline_tests::sim;

/// Number of seeds in every run of the tests; `TOWLINE_SIM_SEEDS=100000` changes it.
const SEEDS: u64 = 1000;

#[test]
fn seeds_keep_the_invariants() {
    if let Ok(seed) = env::var("TOWLINE_SIM_SEED") {
        let (journal, fault) = match sim::run(seed.parse().expect("TOWLINE_SIM_SEED is a number")) {
            Ok(journal) => (journal, None),
            Err((journal, fault)) => (journal, Some(fault)),
        };
        println!("{}", journal.join("\n"));
        assert_eq!(fault, None);
        return;
    }
    let count = env::var("TOWLINE_SIM_SEEDS").map_or(SEEDS, |count| count.parse().expect("a number of seeds"));
    let workers: Vec<_> = (0..2u64)
        .map(|worker| {
            thread::spawn(move || {
                (worker..count).step_by(2).filter_map(|seed| Some((seed, sim::run(seed).err()?.1))).collect::<Vec<_>>()
            })
        })
        .collect();
    let faults: Vec<(u64, String)> = workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect();
    for (seed, fault) in &faults {
        eprintln!(
            "seed {seed}: {fault}; again with TOWLINE_SIM_SEED={seed} cargo test -p towline-tests --test sim -- --nocapture"
        );
    }
    assert!(faults.is_empty(), "{} of {count} seeds", faults.len());
}

#[test]
fn a_seed_is_a_life() {
    for seed in [3, 17, 42] {
        let (first, second) = (sim::run(seed).unwrap(), sim::run(seed).unwrap());
        assert!(first.len() > 4, "{first:#?}");
        for (nth, (a, b)) in first.iter().zip(&second).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {nth}");
        }
        assert_eq!(first.len(), second.len());
    }
}
