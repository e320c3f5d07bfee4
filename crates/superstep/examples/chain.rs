//! Times a chain of supersteps in memory: one node that counts, and a branch that loops.
//!
//! `cargo run --release -p superstep --example chain [supersteps]` runs one chain to warm up and
//! one that counts, each on a thread of its own, and prints the time of the second as one line of
//! JSON with what the thread came to. The same chain in LangGraph is
//! `tests/conformance/chain.py`; `cargo xtask oracle --chain` runs both, turn by turn.
//!
//! The rule it keeps: only the run is timed. That every superstep left a checkpoint is checked
//! after the clock has stopped.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use superstep::{Channel, Context, END, Embedded, Graph, RunOptions, START};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "its output is what it is for")]
async fn main() -> anyhow::Result<()> {
    let supersteps: u32 = match std::env::args().nth(1) {
        Some(number) => number.parse().context("the number of supersteps")?,
        None => 1_000,
    };
    let graph = Graph::dynamic("chain")
        .channel("count", Channel::Last)
        .node("add_one", |state: Value, _: Context| async move {
            Ok(json!({"count": state["count"].as_u64().unwrap_or_default() + 1}))
        })
        .edge(START, "add_one")
        .branch("add_one", move |state: &Value| {
            if state["count"].as_u64() < Some(u64::from(supersteps)) {
                "add_one"
            } else {
                END
            }
        })
        .build()?;
    let app = Embedded::memory().graph(graph).build().await?;

    let mut seconds = 0.0;
    for name in ["warm_up", "timed"] {
        let options = RunOptions {
            recursion_limit: Some(supersteps + 10),
            ..RunOptions::default()
        };
        let begin = Instant::now();
        let run = app
            .thread(name)
            .invoke_with(json!({"count": 0}), options)
            .await?;
        seconds = begin.elapsed().as_secs_f64();
        ensure!(run.error.is_none(), "the run failed: {:?}", run.error);
        ensure!(run.values["count"] == supersteps, "it miscounted");
    }
    let all = usize::try_from(supersteps)? + 100;
    let checkpoints = app.thread("timed").history(all).await?.len();
    let line = json!({"seconds": seconds, "supersteps": supersteps, "checkpoints": checkpoints});
    println!("{line}");
    Ok(())
}
