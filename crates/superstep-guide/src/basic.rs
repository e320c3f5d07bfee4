//! Basic interrupt: a person says yes or no to a draft.
//!
//! `{"draft"}` asks `{"message", "draft"}`; the answer `{"approved": bool}` becomes `status`
//! approved or rejected. An answer that is no such object fails the run, which can be retried.

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{Context, END, Graph, NodeError, START, State};

/// A draft and what became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Review {
    /// What is to be reviewed.
    #[state(required)]
    pub draft: String,
    /// Approved or rejected.
    pub status: Option<String>,
}

/// What the person answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// Whether the draft may be used.
    pub approved: bool,
}

async fn human_review(state: Review, ctx: Context) -> Result<ReviewUpdate, NodeError> {
    let question = json!({"message": "Review this draft", "draft": state.draft});
    let answer: Approval = ctx.interrupt(question).await?;
    Ok(Review::update().status(if answer.approved {
        "approved"
    } else {
        "rejected"
    }))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Review> {
    Graph::<Review>::builder("basic")
        .description("A person reviews a draft and approves or rejects it.")
        .node("human_review", human_review)
        .edge(START, "human_review")
        .edge("human_review", END)
        .build()
        .expect("the graph is right as written")
}
