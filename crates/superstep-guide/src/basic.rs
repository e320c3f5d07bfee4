//! Basic interrupt: a person says yes or no to a draft.
//!
//! `{"draft"}` asks `{"message", "draft"}`; the answer `{"approved": bool}` becomes `status`
//! approved or rejected. Any other answer fails the run and says what was expected.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(superstep_guide::basic::graph()).build().await?;
//! let thread = app.thread("1");
//! let asked = thread.invoke(json!({"draft": "Dear Ada"})).await?;
//! assert_eq!(asked.interrupts[0].value, json!({"message": "Review this draft", "draft": "Dear Ada"}));
//!
//! // What does the thread wait for? Any process may look, now or in a month.
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["human_review"]);
//! assert_eq!(state.tasks[0].interrupts[0].value["message"], "Review this draft");
//!
//! let done = thread.resume(json!({"approved": true})).await?;
//! assert_eq!(done.values["status"], "approved");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

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
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Whether the draft may be used.
    pub approved: bool,
}

async fn human_review(state: Review, ctx: Context) -> Result<ReviewUpdate, NodeError> {
    let question = json!({"message": "Review this draft", "draft": state.draft});
    let answer: Approval = ctx.interrupt(question).await?;
    let status = if answer.approved {
        "approved"
    } else {
        "rejected"
    };
    Ok(Review::update().status(status))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Review> {
    Graph::<Review>::builder("basic")
        .description("A person approves or rejects a draft")
        .node("human_review", human_review)
        .edge(START, "human_review")
        .edge("human_review", END)
        .build()
        .expect("the graph is right as written")
}
