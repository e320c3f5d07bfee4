//! A team's own program: its graphs, and the whole command line with them.
//!
//! `cargo run -p superstep-cli --example own_graphs -- demo refund`, and likewise `dev`,
//! `worker`, `start refund '{"amount": 120}'` and every other subcommand. One file of graphs and
//! one line in `main`; settings, logs, drains and exit codes come with it.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{BuildError, Context, Graph, NodeError, RunnableGraph, START, State};

#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
struct Refund {
    amount: u64,
    approved_by: String,
    status: String,
}

async fn approve(state: Refund, ctx: Context) -> Result<RefundUpdate, NodeError> {
    if state.amount <= 50 {
        return Ok(Refund::update().approved_by("rule: small amounts"));
    }
    let question = json!({"message": "Refund this much?", "amount": state.amount});
    let approver: String = ctx.interrupt(question).await?;
    Ok(Refund::update().approved_by(approver))
}

async fn pay(state: Refund, ctx: Context) -> Result<RefundUpdate, NodeError> {
    // The key is the same however often this runs: a payment service that keeps keys pays once.
    let key = ctx.idempotency_key();
    Ok(Refund::update().status(format!("{} paid with key {key}", state.amount)))
}

fn refund() -> Result<RunnableGraph, BuildError> {
    let graph = Graph::<Refund>::builder("refund")
        .description("Small refunds go through, larger ones are approved by a person")
        .node("approve", approve)
        .node("pay", pay)
        .edge(START, "approve")
        .edge("approve", "pay")
        .build()?;
    Ok(graph.into())
}

fn main() -> ExitCode {
    match refund() {
        Ok(refund) => superstep_cli::main([refund]),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
