//! The fuzz targets, with what is in fuzz/corpus and with bytes at random: no search, but what was found once stays mended.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use towline_core::fuzzing::TARGETS;
use towline_tests::random::Random;

/// Bytes at random for each target; for the hub fewer, as each costs a handshake.
fn lives(target: &str) -> u64 {
    if target.starts_with("spn_") && target != "spn_frames" { 50 } else { 5_000 }
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{target}.rs"))).expect("a program");
        assert!(program.contains(&format!("run(\"{target}\", data)")), "{program}");
    }
    let programs = fs::read_dir(fuzz.join("fuzz_targets")).expect("programs").count();
    assert_eq!(programs, TARGETS.len());
}

#[test]
fn corpora_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz").join("corpus");
    for (target, body) in TARGETS {
        let files = fs::read_dir(corpus.join(target)).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
        let mut inputs = 0;
        for file in files {
            let path = file.expect("a file").path();
            let data = fs::read(&path).expect("a readable file");
            if catch_unwind(AssertUnwindSafe(|| body(&data))).is_err() {
                panic!("{} fails; see above", path.display());
            }
            inputs += 1;
        }
        assert!(inputs > 0, "{target} has an empty corpus");
    }
}

#[test]
fn bytes_at_random_pass() {
    for (target, body) in TARGETS {
        let mut random = Random::new(7);
        for nth in 0..lives(target) {
            let length = random.below(if nth % 10 == 0 { 3000 } else { 120 });
            let data: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
            if catch_unwind(AssertUnwindSafe(|| body(&data))).is_err() {
                panic!("{target} fails with {data:02x?}");
            }
        }
    }
}
