//! The arguments of `bench`.
//!
//! Every load is bounded here, in time and in number. Defaults that `bench` and `bench limit` do
//! not share are chosen where they are used.

use std::{ops::RangeInclusive, time::Duration};

use clap::{Args, Subcommand};

use crate::bench::{bare::Dispatch, scenario::Scenario, servers::Fsync};

/// The longest that one measurement may take, and its warm-up.
const DURATION: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
const WARM_UP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// The most runs that may be asked for.
pub(crate) const COUNT_MAX: u64 = 1_000_000;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
With no server named it starts a nats-server and a redis-server of its own, on loopback and in a
temporary folder, and ends them. On servers that are named it works in a namespace of its own and
removes it at the end. Beside other work absolute figures say little: take the ratios of `limit`.

Examples:
  superstep bench
  superstep bench chain --threads 256 --duration 30s --processes 2 --workers 0
  superstep bench fan-out --width 100 --count 1000 --fsync always
  superstep --nats-url nats://n1:4222 --redis-url redis://r1:6379 --json bench | jq .results"
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What else `bench` does.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// The same in turn with the least that the servers can be asked for, and the ratio of both
    #[command(after_help = "\
The bare loop pulls, appends, publishes and acks as a run must, with nothing of superstep around
it. Both take turns for some rounds; told are medians, with the lowest and highest in brackets.

Examples:
  superstep bench limit
  superstep bench limit chain --rounds 9 --dispatch full
  superstep --json bench limit interrupt | jq '.results[].ratio.median'")]
    Limit(LimitArgs),
}

/// Arguments of `bench limit`.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// How often both take their turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// What load, for how long, by which workers, on which servers.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// What each run does [default: all, one after the other]
    #[arg(value_enum)]
    pub(crate) scenario: Vec<Scenario>,
    /// How many threads are in flight at once, one run each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) threads: u64,
    /// How long each measurement takes, up to 10m [default: 10s; for limit 3s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// End after so many runs, if that is sooner [default: the time, and at most 200000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    pub(crate) count: Option<u64>,
    /// How long it runs before it is measured, up to 1m [default: 2s; for limit 1s]
    #[arg(long, value_name = "TIME", value_parser = warm_up)]
    pub(crate) warm_up: Option<Duration>,
    /// Whether a worker goes on with a thread, or each superstep is a message of its own
    /// [default: run-ahead; for limit both]
    #[arg(long, value_enum)]
    pub(crate) dispatch: Option<Dispatch>,
    /// The bytes that each node of a chain writes
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=30_000))]
    pub(crate) payload: u32,
    /// The tasks of a fan-out
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub(crate) width: u32,
    /// Workers in this process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub(crate) workers: u8,
    /// Workers in processes of their own
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub(crate) processes: u8,
    /// How many deliveries each worker works on at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,
    /// Start servers of its own, even where others are named
    #[arg(long)]
    pub(crate) private: bool,
    /// When servers of its own sync their files [default: everysec]
    #[arg(long, value_enum)]
    pub(crate) fsync: Option<Fsync>,
}

/// Arguments of a worker in a process of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  superstep bench --processes 2 starts two of it")]
pub(crate) struct BenchWorkerArgs {
    /// How many deliveries it works on at once
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: usize,
    /// How many supersteps it goes on with a thread
    #[arg(long, value_name = "N")]
    pub(crate) run_ahead: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    within(text, &DURATION)
}

fn warm_up(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    within(text, &WARM_UP)
}

fn within(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = crate::settings::duration(text)?;
    if range.contains(&time) {
        Ok(time)
    } else {
        Err(format!(
            "must be from {:?} to {:?}",
            range.start(),
            range.end()
        ))
    }
}
