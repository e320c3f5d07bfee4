//! Edit before continue: a person may change a report before the run goes on with it.
//!
//! `{"data"}` is written up into `report`; the question is `{"message", "report"}`, the answer
//! `{"edited_report"?}`, and `report` is what the person left. Written in a node of its own, so
//! that the report the person saw is the one that stays.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//! use superstep_guide::{report, writer::Writer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(report::graph(&Writer::local())).build().await?;
//! let thread = app.thread("1");
//! let asked = thread.invoke(json!({"data": {"sales": 7}})).await?;
//! assert_eq!(asked.interrupts[0].value["message"], "Edit report if needed");
//!
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["edit_report"]);
//! assert_eq!(state.tasks[0].interrupts[0].value["report"], state.values["report"]);
//!
//! let done = thread.resume(json!({"edited_report": "Seven sales."})).await?;
//! assert_eq!(done.values["report"], "Seven sales.");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use superstep::{Context, END, Graph, NodeError, START, State};

use crate::writer::Writer;

/// A report on some data.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Report {
    /// What it is about: a text or any JSON.
    #[state(required)]
    pub data: Value,
    /// Its text.
    pub report: String,
}

/// What the person answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The report as it should be; absent if it is right as it is.
    #[serde(default)]
    pub edited_report: Option<String>,
}

async fn generate_report(state: Report, writer: Writer) -> Result<ReportUpdate, NodeError> {
    let data = match &state.data {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let report = writer
        .write(&format!("Write a short report on this data: {data}"))
        .await?;
    Ok(Report::update().report(report))
}

async fn edit_report(state: Report, ctx: Context) -> Result<Option<ReportUpdate>, NodeError> {
    let question = json!({"message": "Edit report if needed", "report": state.report});
    let edit: Edit = ctx.interrupt(question).await?;
    Ok(edit
        .edited_report
        .map(|edited| Report::update().report(edited)))
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph(writer: &Writer) -> Graph<Report> {
    let writer = writer.clone();
    Graph::<Report>::builder("report")
        .description("A report is written and may be edited by a person")
        .node("generate_report", move |state| {
            generate_report(state, writer.clone())
        })
        .node("edit_report", edit_report)
        .edge(START, "generate_report")
        .edge("generate_report", "edit_report")
        .edge("edit_report", END)
        .build()
        .expect("the graph is right as written")
}
