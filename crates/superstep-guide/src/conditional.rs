//! Conditional interrupt: a person is asked only where confidence is low.
//!
//! `{"confidence"}` below 0.8 asks `{"message"}` and takes `{"proceed": bool}`; otherwise nobody
//! is asked. `status` becomes approved or rejected.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(superstep_guide::conditional::graph()).build().await?;
//! let sure = app.thread("sure").invoke(json!({"confidence": 0.8})).await?;
//! assert_eq!(sure.values["status"], "approved");
//! let state = app.thread("sure").state().await?.expect("the thread was started");
//! assert!(state.next.is_empty() && state.interrupts.is_empty());
//!
//! let thread = app.thread("unsure");
//! let _ = thread.invoke(json!({"confidence": 0.79})).await?;
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["conditional_review"]);
//! assert_eq!(state.interrupts[0].value, json!({"message": "Low confidence, review?"}));
//!
//! let done = thread.resume(json!({"proceed": false})).await?;
//! assert_eq!(done.values["status"], "rejected");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{Context, END, Graph, NodeError, START, State};

/// Below this a person is asked.
const CONFIDENCE_MIN: f64 = 0.8;

/// A decision and how sure its maker is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Decision {
    /// From 0 to 1.
    #[state(required)]
    pub confidence: f64,
    /// Approved or rejected.
    pub status: Option<String>,
}

/// What the person answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Whether to go on all the same.
    pub proceed: bool,
}

async fn conditional_review(state: Decision, ctx: Context) -> Result<DecisionUpdate, NodeError> {
    if state.confidence < CONFIDENCE_MIN {
        let question = json!({"message": "Low confidence, review?"});
        let answer: Answer = ctx.interrupt(question).await?;
        if !answer.proceed {
            return Ok(Decision::update().status("rejected"));
        }
    }
    Ok(Decision::update().status("approved"))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Decision> {
    Graph::<Decision>::builder("conditional")
        .description("A person is asked only where confidence is below 0.8")
        .node("conditional_review", conditional_review)
        .edge(START, "conditional_review")
        .edge("conditional_review", END)
        .build()
        .expect("the graph is right as written")
}
