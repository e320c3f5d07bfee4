//! Inputs and answers with which `demo` shows the guide's graphs.
//!
//! The keys are the guide's own. The mails of a demo go to a file of their own, so that trying
//! it leaves nothing in the working folder; `SUPERSTEP_OUTBOX` names another.

use std::path::PathBuf;

use serde_json::json;
use superstep::RunnableGraph;
use superstep_cli::{Choice, Example};
use superstep_guide::{outbox::Outbox, writer::Writer};

pub(crate) struct Demo {
    outbox: PathBuf,
}

impl Demo {
    pub(crate) fn new() -> Self {
        let named = std::env::var_os("SUPERSTEP_OUTBOX").filter(|path| !path.is_empty());
        let own = || {
            let name = format!("superstep-demo-outbox-{}.jsonl", std::process::id());
            std::env::temp_dir().join(name)
        };
        Self {
            outbox: named.map_or_else(own, PathBuf::from),
        }
    }

    /// The guide's graphs with the demo's outbox.
    pub(crate) fn graphs(&self) -> Vec<RunnableGraph> {
        superstep_guide::graphs_with(&Writer::from_env(), &Outbox::at(&self.outbox))
    }

    /// An example for each; `email` first, so that it is the default.
    pub(crate) fn examples(&self) -> Vec<Example> {
        let yes_or_no = || {
            [
                Choice::new('y', "approve", json!({"approved": true})),
                Choice::new('n', "reject", json!({"approved": false})),
            ]
        };
        let call = json!({"id": "call-1", "name": "add", "args": {"a": 2, "b": 3}});
        let asks_for_tool = json!({"role": "assistant", "content": "", "tool_calls": [call]});
        vec![
            Example::new("email", json!({"topic": "the delayed order 42"}))
                .with_question(yes_or_no().into_iter().chain([Choice::text(
                    'e',
                    "edit the draft",
                    "edited_draft",
                    "draft",
                )]))
                .with_note(format!(
                    "mails that were sent are lines of {}",
                    self.outbox.display()
                )),
            Example::new("basic", json!({"draft": "We ship on Monday."}))
                .with_question(yes_or_no()),
            Example::new("tools", json!({"messages": [asks_for_tool]})).with_question(yes_or_no()),
            Example::new("report", json!({"data": {"sales": 7, "returns": 1}})).with_question([
                Choice::new('k', "keep it", json!({})),
                Choice::text('e', "edit the report", "edited_report", "report"),
            ]),
            Example::new("multi", json!({"draft": "We ship on Monday."}))
                .with_question([Choice::text('e', "edit the draft", "edited_draft", "draft")])
                .with_question([Choice::text(
                    'a',
                    "approve, with changes if any",
                    "approved_draft",
                    "draft",
                )]),
            Example::new("conditional", json!({"confidence": 0.5})).with_question([
                Choice::new('y', "proceed", json!({"proceed": true})),
                Choice::new('n', "do not proceed", json!({"proceed": false})),
            ]),
            Example::new("fanout", json!({"count": 8})),
        ]
    }
}
