//! Seeds: every one comes to its end, and tells the same story twice.
//!
//! `SUPERSTEP_SIM_SEEDS=n` runs so many, `SUPERSTEP_SIM_SEED=x` that one, and leaves what happened
//! in a file to be stepped through; `cargo run -p superstep-sim` shows parts of it. All tests
//! (`cargo xtask test`) run 2,000.

use std::{fmt::Write, path::Path};

use superstep_sim::{run, sweep};

/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 64;

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Runs one seed and leaves its log; fails if the seed does.
fn replay(seed: u64) {
    let outcome = run(seed, None);
    let mut log = String::new();
    for entry in &outcome.entries {
        writeln!(log, "{entry}").expect("a string takes it");
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seed-{seed}.log"));
    std::fs::write(&file, log).expect("the log can be left");
    let file = file.display();
    if let Some(problem) = outcome.problem {
        panic!("seed {seed} fails: {problem}\nwhat happened is in {file}");
    }
}

#[test]
fn every_thread_of_every_seed_ends_well() {
    if let Some(seed) = from_env("SUPERSTEP_SIM_SEED") {
        return replay(seed);
    }
    let seeds = from_env("SUPERSTEP_SIM_SEEDS").unwrap_or(SEEDS);
    if let Some(failure) = sweep(0..seeds, None) {
        panic!("{failure}");
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..16 {
        let (once, again) = (run(seed, None), run(seed, None));
        let differs = once
            .entries
            .iter()
            .zip(&again.entries)
            .find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(once.entries.len(), again.entries.len(), "seed {seed}");
    }
}
