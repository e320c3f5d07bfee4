//! Many seeds, one world each, over as many threads as there are cores.
//!
//! A world has a runtime of its own on one thread, so seeds are free of each other. The lowest
//! seed that fails is what is told, with the command that runs it alone.

use std::{
    num::NonZeroUsize,
    ops::Range,
    panic::AssertUnwindSafe,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{mutant::Mutant, plan::lock, sim};

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub problem: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, problem } = self;
        write!(
            f,
            "seed {seed} fails: {problem}\nto see it happen: SUPERSTEP_SIM_SEED={seed} cargo run \
             -p superstep-sim"
        )
    }
}

/// Runs `seeds`, with a mistake if there is one, until one fails. The lower a seed, the sooner it
/// is run; what is told is the lowest that failed among those that were.
pub fn sweep(seeds: Range<u64>, mutant: Option<Mutant>) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Option<Failure>> = Mutex::default();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let is_late = lock(&failed)
                        .as_ref()
                        .is_some_and(|other| other.seed < seed);
                    if seed >= seeds.end || is_late {
                        return;
                    }
                    let Some(problem) = problem_of(seed, mutant) else {
                        continue;
                    };
                    let mut failed = lock(&failed);
                    if failed.as_ref().is_none_or(|other| seed < other.seed) {
                        *failed = Some(Failure { seed, problem });
                    }
                }
            });
        }
    });
    lock(&failed).take()
}

fn problem_of(seed: u64, mutant: Option<Mutant>) -> Option<String> {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| sim::run(seed, mutant)));
    match ran {
        Ok(outcome) => outcome.problem,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("a panic: {}", message.unwrap_or("without words")))
        }
    }
}
