//! Times the same chain of supersteps in superstep and in LangGraph, turn by turn.
//!
//! Each turn is a process of its own that warms up and then reports one time. The sides take
//! turns, so that whatever else the machine does falls on all of them. What the chain is, is left
//! to `crates/superstep/examples/chain.rs` and `tests/conformance/chain.py`.
//!
//! The rule it keeps: a time counts only beside what was done for it, so sides that saved
//! different numbers of checkpoints are an error, not a result.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::script;
use crate::python::Python;
use crate::steps;
use crate::workspace::{Workspace, output_of};

const SUPERSTEPS: u32 = 1_000;

/// What one turn reported.
#[derive(Clone, Copy, Debug)]
struct Turn {
    seconds: f64,
    checkpoints: u64,
}

/// Runs all turns and prints medians, spread and ratios.
pub(crate) fn run(workspace: &Workspace, python: &Python, rounds: u32) -> anyhow::Result<bool> {
    ensure!(rounds > 0, "--rounds is 0: there is nothing to time");
    steps::run(&mut workspace.cargo(&[
        "build",
        "--quiet",
        "--release",
        "-p",
        "superstep",
        "--example",
        "chain",
    ]))?;
    let ours: PathBuf = workspace.target.join("release/examples/chain");
    let names = [
        "superstep",
        "LangGraph, durability async (its default)",
        "LangGraph, durability sync",
    ];
    let command = |side: usize| -> Command {
        let mut command = match side {
            0 => Command::new(&ours),
            side => {
                let mut command = script(workspace, python, "chain.py");
                command.args(["--durability", if side == 1 { "async" } else { "sync" }]);
                command
            }
        };
        command.arg(SUPERSTEPS.to_string());
        command
    };

    let mut turns: [Vec<Turn>; 3] = Default::default();
    for round in 1..=rounds {
        for (side, name) in names.iter().enumerate() {
            let turn = read(&output_of(&mut command(side))?)
                .with_context(|| format!("{name} reported no time"))?;
            eprintln!("round {round}: {name}: {:.1} ms", turn.seconds * 1e3);
            turns[side].push(turn);
        }
    }
    let saved = turns[0][0].checkpoints;
    for turn in turns.iter().flatten() {
        ensure!(
            turn.checkpoints == saved,
            "the sides did not do the same: {saved} checkpoints against {}",
            turn.checkpoints
        );
    }

    println!(
        "chain of {SUPERSTEPS} supersteps in memory, {saved} checkpoints, {rounds} runs a side, \
         turn by turn; Python {}",
        python.version
    );
    println!();
    println!("| side | run, ms | per superstep, us | times superstep |");
    println!("|---|---|---|---|");
    let base = median(&seconds(&turns[0]));
    for (name, turns) in names.iter().zip(&turns) {
        let all = seconds(turns);
        let middle = median(&all);
        println!(
            "| {name} | {:.1} ({:.1}-{:.1}) | {:.1} | {:.1} |",
            middle * 1e3,
            all[0] * 1e3,
            all[all.len() - 1] * 1e3,
            middle * 1e6 / f64::from(SUPERSTEPS),
            middle / base,
        );
    }
    Ok(true)
}

/// The times of a side, shortest first.
fn seconds(turns: &[Turn]) -> Vec<f64> {
    let mut all: Vec<f64> = turns.iter().map(|turn| turn.seconds).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The middle of sorted numbers; of an even count, the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(below, above)
}

/// Reads the line of JSON that a turn ends with.
fn read(output: &str) -> anyhow::Result<Turn> {
    let line = output.lines().last().context("it said nothing")?;
    let said: serde_json::Value = serde_json::from_str(line)?;
    Ok(Turn {
        seconds: said["seconds"].as_f64().context("no seconds")?,
        checkpoints: said["checkpoints"].as_u64().context("no checkpoints")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        for (numbers, middle) in [
            (vec![3.0], 3.0),
            (vec![1.0, 2.0], 1.5),
            (vec![1.0, 2.0, 9.0], 2.0),
            (vec![1.0, 2.0, 4.0, 9.0], 3.0),
        ] {
            assert!((median(&numbers) - middle).abs() < 1e-9, "{numbers:?}");
        }
    }

    #[test]
    fn a_turn_without_a_time_is_refused() {
        let turn = read("noise\n{\"seconds\": 0.5, \"checkpoints\": 3}\n").expect("a turn");
        assert!((turn.seconds - 0.5).abs() < 1e-9 && turn.checkpoints == 3);
        for output in ["", "{}", "{\"seconds\": 1.0}", "Traceback"] {
            assert!(read(output).is_err(), "{output:?}");
        }
    }
}
