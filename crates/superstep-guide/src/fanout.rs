//! Fan-out: many tasks in one superstep, their results in the order they were sent.
//!
//! `{"count", "sleep_ms"?}` sends `count` packets, each a task of the next superstep that takes
//! `sleep_ms`; `results` collects their numbers in order, `total` is their sum. Not of the guide:
//! it is there to see tasks spread over workers, and to kill some.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(superstep_guide::fanout::graph()).build().await?;
//! let done = app.thread("1").invoke(json!({"count": 4})).await?;
//! assert_eq!(done.values["results"], json!([0, 1, 2, 3]));
//! assert_eq!(done.values["total"], 6);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use superstep::{END, Graph, NodeError, START, Send, State};

/// How many tasks, and what they came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Spread {
    /// How many tasks.
    #[state(required)]
    pub count: u64,
    /// How long each takes, in milliseconds.
    pub sleep_ms: Option<u64>,
    /// The tasks' numbers, from 0.
    #[state(reducer = append)]
    pub results: Vec<u64>,
    /// The sum of the results.
    pub total: Option<u64>,
}

/// What one task is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Its number.
    pub index: u64,
    /// How long it takes, in milliseconds.
    pub sleep_ms: u64,
}

async fn split(state: Spread) -> Result<Vec<Send>, NodeError> {
    let sleep_ms = state.sleep_ms.unwrap_or(0);
    let items = (0..state.count).map(|index| Item { index, sleep_ms });
    Ok(items.map(|item| Send::to("work", item)).collect())
}

async fn work(item: Item) -> Result<SpreadUpdate, NodeError> {
    tokio::time::sleep(Duration::from_millis(item.sleep_ms)).await;
    Ok(Spread::update().push_results(item.index))
}

async fn collect(state: Spread) -> Result<SpreadUpdate, NodeError> {
    Ok(Spread::update().total(state.results.iter().sum()))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Spread> {
    Graph::<Spread>::builder("fanout")
        .description("Many tasks in one superstep, collected in order")
        .node("split", split)
        .node_with_input("work", work)
        .node("collect", collect)
        .edge(START, "split")
        .edge("work", "collect")
        .edge("collect", END)
        .build()
        .expect("the graph is right as written")
}
