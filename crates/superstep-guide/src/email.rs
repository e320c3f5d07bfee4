//! Approval before action: an email is drafted, reviewed by a person, and sent.
//!
//! `{"topic"}` is drafted into `draft`; the review asks `{"message", "draft"}` and takes
//! `{"approved"?, "edited_draft"?}`, where an absent `approved` means yes. `status` becomes sent
//! or rejected, and `draft` is the text as it was sent.
//!
//! The draft is written in a node before the question: a node that asks runs again from its top
//! when the answer comes, and what was approved must be what is sent.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//! use superstep_guide::{email, outbox::Outbox, writer::Writer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("outbox.jsonl");
//! let graph = email::graph(&Writer::local(), &Outbox::at(&file));
//! let app = Embedded::memory().graph(graph).build().await?;
//! let thread = app.thread("1");
//! let asked = thread.invoke(json!({"topic": "the new office"})).await?;
//! assert_eq!(asked.interrupts[0].value["message"], "Approve email?");
//!
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["review_email"]);
//! assert_eq!(state.tasks[0].interrupts[0].value["draft"], state.values["draft"]);
//!
//! let done = thread.resume(json!({"edited_draft": "We have moved."})).await?;
//! assert_eq!(done.values["status"], "sent");
//! assert_eq!(done.values["draft"], "We have moved.");
//! assert_eq!(std::fs::read_to_string(&file)?.lines().count(), 1);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use serde::{Deserialize, Serialize};
use serde_json::json;
use superstep::{Context, END, Graph, NodeError, START, State};

use crate::{outbox::Outbox, writer::Writer};

/// An email on its way.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Email {
    /// What it is about.
    #[state(required)]
    pub topic: String,
    /// Its text.
    pub draft: String,
    /// Approved, rejected or sent.
    pub status: Option<String>,
}

/// What the person answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether it may be sent.
    #[serde(default = "yes")]
    pub approved: bool,
    /// What is to be sent instead of the draft.
    #[serde(default)]
    pub edited_draft: Option<String>,
}

fn yes() -> bool {
    true
}

async fn draft_email(state: Email, writer: Writer) -> Result<EmailUpdate, NodeError> {
    let draft = writer
        .write(&format!("Write email about: {}", state.topic))
        .await?;
    Ok(Email::update().draft(draft))
}

async fn review_email(state: Email, ctx: Context) -> Result<EmailUpdate, NodeError> {
    let question = json!({"message": "Approve email?", "draft": state.draft});
    let verdict: Verdict = ctx.interrupt(question).await?;
    if !verdict.approved {
        return Ok(Email::update().status("rejected"));
    }
    let update = Email::update().status("approved");
    Ok(
        match verdict.edited_draft.filter(|edited| !edited.is_empty()) {
            Some(edited) => update.draft(edited),
            None => update,
        },
    )
}

async fn send_email(state: Email, ctx: Context, outbox: Outbox) -> Result<EmailUpdate, NodeError> {
    outbox.send(&ctx, &state.draft).await?;
    Ok(Email::update().status("sent"))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph(writer: &Writer, outbox: &Outbox) -> Graph<Email> {
    let (writer, outbox) = (writer.clone(), outbox.clone());
    Graph::<Email>::builder("email")
        .description("An email is drafted, approved or edited by a person, and sent")
        .node("draft_email", move |state| {
            draft_email(state, writer.clone())
        })
        .node("review_email", review_email)
        .node("send_email", move |state, ctx| {
            send_email(state, ctx, outbox.clone())
        })
        .edge(START, "draft_email")
        .edge("draft_email", "review_email")
        .branch_map(
            "review_email",
            |state| state.status.clone().unwrap_or_default(),
            [("approved", "send_email"), ("rejected", END)],
        )
        .edge("send_email", END)
        .build()
        .expect("the graph is right as written")
}
