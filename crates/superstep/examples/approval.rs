//! A purchase that a person must approve, in one process with its threads in a folder.
//!
//! Run it, look at the question, run it again with an answer; the thread outlives each process:
//!
//! ```text
//! cargo run --example approval
//! cargo run --example approval -- yes
//! ```

use anyhow::Result;
use serde::{Deserialize, Serialize};
use superstep::{Context, END, Embedded, Graph, NodeError, START, State};

#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
struct Purchase {
    item: String,
    cents: u64,
    status: String,
    #[state(reducer = append)]
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Question<'a> {
    message: &'a str,
    item: &'a str,
    cents: u64,
}

#[derive(Serialize, Deserialize)]
struct Decision {
    approved: bool,
}

async fn check_budget(purchase: Purchase) -> Result<PurchaseUpdate, NodeError> {
    let note = format!("{} cents are in the budget", purchase.cents);
    Ok(Purchase::update().push_notes(note))
}

async fn approve(purchase: Purchase, ctx: Context) -> Result<PurchaseUpdate, NodeError> {
    let question = Question {
        message: "May this be bought?",
        item: &purchase.item,
        cents: purchase.cents,
    };
    let decision: Decision = ctx.interrupt(question).await?;
    Ok(Purchase::update().status(if decision.approved {
        "approved"
    } else {
        "rejected"
    }))
}

async fn buy(purchase: Purchase, ctx: Context) -> Result<PurchaseUpdate, NodeError> {
    // A shop that is given the key sells once, however often this node runs.
    let note = format!(
        "bought {} with key {}",
        purchase.item,
        ctx.idempotency_key()
    );
    Ok(Purchase::update().status("bought").push_notes(note))
}

fn graph() -> Result<Graph<Purchase>> {
    Ok(Graph::<Purchase>::builder("purchase")
        .description("Buys what a person approves")
        .node("check_budget", check_budget)
        .node("approve", approve)
        .node("buy", buy)
        .edge(START, "check_budget")
        .edge("check_budget", "approve")
        .branch_map(
            "approve",
            |purchase| purchase.status == "approved",
            [("true", "buy"), ("false", END)],
        )
        .edge("buy", END)
        .build()?)
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join("superstep-approval");
    let app = Embedded::sqlite(folder).graph(graph()?).build().await?;
    let thread = app.thread("order-42");

    if thread.state().await?.is_none() {
        let order = Purchase::update().item("a lamp").cents(4_999);
        let _ = thread.invoke(order).await?;
    }
    let waiting = thread
        .state()
        .await?
        .is_some_and(|state| !state.next.is_empty());
    match (waiting, std::env::args().nth(1)) {
        (true, None) => {
            let state = thread.state().await?.expect("the thread was started");
            for interrupt in &state.interrupts {
                println!("order-42 waits: {}", interrupt.value);
            }
            println!("run it again with yes or no");
        }
        (true, Some(word)) => {
            let approved = word == "yes";
            let run = thread.resume(Decision { approved }).await?;
            let purchase: Purchase = run.state()?;
            println!("order-42 is {}: {:?}", purchase.status, purchase.notes);
            thread.delete().await?;
        }
        (false, _) => thread.delete().await?,
    }
    Ok(())
}
