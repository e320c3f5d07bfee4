//! Replays one seed and prints what happened, step by step.
//!
//! `SUPERSTEP_SIM_SEED=7 superstep-sim --thread t0 --until 500` shows what concerns one thread up
//! to an event; `--seeds 2000` looks for a seed that fails. The same seed always prints the same,
//! so a number seen once can be gone back to. Exits 1 if a seed fails.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use superstep_sim::{Entry, Mutant, run, sweep};

/// Replays a seed of the simulator, or looks for one that fails.
#[derive(Debug, Parser)]
#[command(name = "superstep-sim")]
struct Args {
    /// The seed to replay.
    #[arg(long, env = "SUPERSTEP_SIM_SEED", default_value_t = 0)]
    seed: u64,
    /// Run so many seeds from `--seed` on, and name the first that fails.
    #[arg(long)]
    seeds: Option<u64>,
    /// Only what concerns this thread, and what concerns everyone.
    #[arg(long)]
    thread: Option<String>,
    /// Only what this worker does, such as `w1`, and what concerns everyone.
    #[arg(long)]
    worker: Option<String>,
    /// From this event on.
    #[arg(long, default_value_t = 1)]
    from: usize,
    /// Up to this event.
    #[arg(long, default_value_t = usize::MAX)]
    until: usize,
    /// Break one rule on purpose.
    #[arg(long)]
    mutant: Option<Mutant>,
}

impl Args {
    fn shows(&self, entry: &Entry) -> bool {
        let of = |word: &Option<String>| word.as_ref().is_none_or(|word| entry.names(word));
        let in_range = (self.from..=self.until).contains(&entry.number);
        in_range && (entry.is_of_all() || (of(&self.thread) && of(&self.worker)))
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut out = io::stdout().lock();
    if let Some(seeds) = args.seeds {
        let failure = sweep(args.seed..args.seed + seeds, args.mutant);
        let Some(failure) = failure else {
            writeln!(out, "{seeds} seeds from {} on end well", args.seed)?;
            return Ok(ExitCode::SUCCESS);
        };
        writeln!(out, "{failure}")?;
        return Ok(ExitCode::FAILURE);
    }
    let outcome = run(args.seed, args.mutant);
    for entry in outcome.entries.iter().filter(|entry| args.shows(entry)) {
        writeln!(out, "{entry}")?;
    }
    let Some(problem) = outcome.problem else {
        writeln!(out, "seed {} ends well", args.seed)?;
        return Ok(ExitCode::SUCCESS);
    };
    writeln!(out, "seed {} fails: {problem}", args.seed)?;
    Ok(ExitCode::FAILURE)
}
