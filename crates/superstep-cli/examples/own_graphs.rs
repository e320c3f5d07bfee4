//! A platform team's whole program: its graphs, and the command line around them.
//!
//! One `main.rs` like this is a worker (`worker`), a server for one machine (`dev`), a client
//! (`start`, `resume`, `events`, ...) and a doctor. Nothing else is to be written; where servers
//! are is said by flags, variables or a file.
//!
//! ```sh
//! cargo run -p superstep-cli --example own_graphs -- demo
//! cargo run -p superstep-cli --example own_graphs -- graph draw refund
//! cargo run -p superstep-cli --example own_graphs -- dev
//! ```

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{Context, END, Graph, NodeError, START, State};
use superstep_cli::{App, Choice, Example};

/// A refund that somebody asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
struct Refund {
    /// The order.
    #[state(required)]
    order: String,
    /// How much, in cents.
    #[state(required)]
    cents: u64,
    /// What became of it.
    status: Option<String>,
}

/// Small refunds go through; larger ones wait for a person, for as long as it takes.
async fn decide(refund: Refund, ctx: Context) -> Result<RefundUpdate, NodeError> {
    if refund.cents < 5_000 {
        return Ok(Refund::update().status("granted"));
    }
    let question =
        json!({"message": "Grant this refund?", "order": refund.order, "cents": refund.cents});
    let granted: bool = ctx.interrupt(question).await?;
    Ok(Refund::update().status(if granted { "granted" } else { "declined" }))
}

/// The key names the refund wherever it is paid, so that a node that runs twice pays once.
async fn pay(refund: Refund, ctx: Context) -> Result<RefundUpdate, NodeError> {
    ctx.emit(json!({"paying": refund.cents, "key": ctx.idempotency_key()}));
    Ok(Refund::update().status("paid"))
}

fn refund() -> Graph<Refund> {
    Graph::<Refund>::builder("refund")
        .version("1")
        .description("Refunds over 50.00 wait for a person")
        .node("decide", decide)
        .node("pay", pay)
        .edge(START, "decide")
        .branch_map(
            "decide",
            |refund| refund.status.clone().unwrap_or_default(),
            [("granted", "pay"), ("declined", END)],
        )
        .edge("pay", END)
        .build()
        .expect("the graph is right as written")
}

fn main() -> ExitCode {
    let example = Example::new("refund", json!({"order": "42", "cents": 12_000})).with_question([
        Choice::new('y', "grant", json!(true)),
        Choice::new('n', "decline", json!(false)),
    ]);
    // Without an example for `demo` it is only `superstep_cli::main([refund()])`.
    App::new([refund()]).with_example(example).main()
}
