//! `cargo xtask oracle`: asks real LangGraph whether the recorded cases still say what it does.
//!
//! The recorder and the generator of `tests/conformance` run in a Python of their own under the
//! target folder, with the versions that `tests/conformance/requirements.txt` pins. Comparing
//! superstep with what was recorded is left to the `conformance` runner.
//!
//! The rule it keeps: no part of `verify` or `test`. Those need no Python packages, and the cases
//! are evidence that a change here must not rewrite by itself.

mod chain;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::python::{self, Purpose};
use crate::workspace::Workspace;

/// The Python that LangGraph runs in.
const PYTHON: Purpose = Purpose {
    name: "oracle",
    pins: "tests/conformance/requirements.txt",
};

/// What to ask LangGraph for; without arguments, whether the recorded cases still hold.
#[derive(Debug, clap::Args)]
pub(crate) struct Oracle {
    /// Check these files of cases, not all of `tests/conformance/cases`.
    #[arg(value_name = "FILE", conflicts_with_all = ["random", "chain"])]
    files: Vec<PathBuf>,
    /// Make new random cases from this seed, recorded on LangGraph.
    #[arg(long, value_name = "SEED", requires = "out", conflicts_with = "chain")]
    random: Option<u64>,
    /// How many random cases to make.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "random")]
    count: u32,
    /// The folder that gets `random-SEED.json`.
    #[arg(long, value_name = "DIR", requires = "random")]
    out: Option<PathBuf>,
    /// Time a chain of supersteps in memory, here and in LangGraph, turn by turn.
    #[arg(long)]
    chain: bool,
    /// How often the chain is timed on each side.
    #[arg(long, value_name = "N", default_value_t = 7, requires = "chain")]
    rounds: u32,
    /// The Python to make the private one from: 3.10 or newer.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// Runs the recipe; false when LangGraph does something else than was recorded.
pub(crate) fn run(workspace: &Workspace, asked: &Oracle) -> anyhow::Result<bool> {
    let python = python::bring_up(workspace, PYTHON, asked.python.as_deref())?;
    if asked.chain {
        return chain::run(workspace, &python, asked.rounds);
    }
    let mut command = if let (Some(seed), Some(out)) = (asked.random, &asked.out) {
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))?;
        let mut command = script(workspace, &python, "generate_random.py");
        command
            .args(["--seed", &seed.to_string()])
            .args(["--count", &asked.count.to_string()])
            .arg("--out")
            .arg(out.join(format!("random-{seed}.json")));
        command
    } else {
        let mut command = script(workspace, &python, "run_oracle.py");
        command.arg("--check").args(&asked.files);
        command
    };
    let status = command.status().context("cannot run the oracle's Python")?;
    Ok(status.success())
}

/// A command that runs one of the scripts of `tests/conformance`.
fn script(workspace: &Workspace, python: &python::Python, name: &str) -> Command {
    let mut command = Command::new(&python.program);
    command
        .arg(workspace.root.join("tests/conformance").join(name))
        // No compiled files beside the scripts, and one order of sets on every run.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONUNBUFFERED", "1")
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME");
    command
}
