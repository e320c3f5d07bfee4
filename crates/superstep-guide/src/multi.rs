//! Multiple interrupts: two questions in a row in one node.
//!
//! `{"draft"}` asks `{"message", "draft"}`, answered with `{"edited_draft"}`; then the same node
//! asks `{"message", "draft"}` with that edit, answered with `{"approved_draft"}`, which becomes
//! `final_draft`. The node runs again from its top for each answer; the answers that are there
//! come back in the order of its questions.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(superstep_guide::multi::graph()).build().await?;
//! let thread = app.thread("1");
//! let _ = thread.invoke(json!({"draft": "a"})).await?;
//!
//! let second = thread.resume(json!({"edited_draft": "b"})).await?;
//! assert_eq!(second.interrupts[0].value, json!({"message": "Final approval", "draft": "b"}));
//!
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["multi_review"]);
//! assert_eq!(state.tasks[0].interrupts[0].value["message"], "Final approval");
//!
//! let done = thread.resume(json!({"approved_draft": "c"})).await?;
//! assert_eq!(done.values["final_draft"], "c");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{Context, END, Graph, NodeError, START, State};

/// A draft and its last form.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Draft {
    /// What is to be reviewed.
    #[state(required)]
    pub draft: String,
    /// What was approved.
    pub final_draft: Option<String>,
}

/// The first answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edited {
    /// The draft as it should be.
    pub edited_draft: String,
}

/// The second answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// The draft as it is approved.
    pub approved_draft: String,
}

async fn multi_review(state: Draft, ctx: Context) -> Result<DraftUpdate, NodeError> {
    let question = json!({"message": "Review draft", "draft": state.draft});
    let edited: Edited = ctx.interrupt(question).await?;

    let question = json!({"message": "Final approval", "draft": edited.edited_draft});
    let approved: Approved = ctx.interrupt(question).await?;

    Ok(Draft::update().final_draft(approved.approved_draft))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Draft> {
    Graph::<Draft>::builder("multi")
        .description("A person edits a draft, then gives it a final approval")
        .node("multi_review", multi_review)
        .edge(START, "multi_review")
        .edge("multi_review", END)
        .build()
        .expect("the graph is right as written")
}
