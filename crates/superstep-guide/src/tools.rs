//! Tool approval: a person sees which tools a model asks for before any of them runs.
//!
//! `{"messages"}` with tool calls in the last one asks `{"message", "tools"}`; after
//! `{"approved": true}` each call's result is a message, after `{"approved": false}` one message
//! says "Tool use denied". Without tool calls nothing is asked and nothing runs.
//!
//! ```
//! use serde_json::json;
//! use superstep::Embedded;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Embedded::memory().graph(superstep_guide::tools::graph()).build().await?;
//! let thread = app.thread("1");
//! let call = json!({"id": "call-1", "name": "add", "args": {"a": 2, "b": 3}});
//! let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
//! let asked = thread.invoke(json!({"messages": [message]})).await?;
//! assert_eq!(
//!     asked.interrupts[0].value,
//!     json!({"message": "Approve these tool calls?", "tools": ["add"]})
//! );
//!
//! let state = thread.state().await?.expect("the thread was started");
//! assert_eq!(state.next, ["approve_tools"]);
//! assert_eq!(state.tasks[0].interrupts[0].value["tools"][0], "add");
//!
//! let done = thread.resume(json!({"approved": true})).await?;
//! assert_eq!(done.values["messages"][1]["content"], "5");
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use superstep::{Context, END, Graph, NodeError, START, State};

use crate::basic::Approval;

/// A conversation.
#[derive(Clone, Debug, Default, Serialize, Deserialize, State)]
pub struct Chat {
    /// What was said so far.
    #[state(reducer = messages)]
    pub messages: Vec<Message>,
}

/// A message; models send more than is read here, and all of it is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who says it.
    #[serde(default)]
    pub role: String,
    /// What is said: a text, nothing, or parts.
    #[serde(default)]
    pub content: Value,
    /// The tools that it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that it is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// A tool that a model asks for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// Names the call, for its result.
    #[serde(default)]
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// What it is called with.
    #[serde(default)]
    pub args: Value,
}

async fn approve_tools(state: Chat, ctx: Context) -> Result<Option<ChatUpdate>, NodeError> {
    let calls = calls(&state);
    if calls.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    let question = json!({"message": "Approve these tool calls?", "tools": names});
    let answer: Approval = ctx.interrupt(question).await?;
    if answer.approved {
        return Ok(None);
    }
    Ok(Some(Chat::update().push_messages(Message {
        role: "assistant".to_owned(),
        content: "Tool use denied".into(),
        ..Message::default()
    })))
}

async fn run_tools(state: Chat) -> Result<ChatUpdate, NodeError> {
    let results = calls(&state).iter().map(|call| Message {
        role: "tool".to_owned(),
        content: run_tool(call).into(),
        tool_call_id: call.id.clone(),
        ..Message::default()
    });
    Ok(Chat::update().messages(results))
}

fn calls(state: &Chat) -> &[ToolCall] {
    state.messages.last().map_or(&[], |last| &last.tool_calls)
}

/// The tools there are. What a model gets wrong is a result for it to read, no failed run.
fn run_tool(call: &ToolCall) -> String {
    match call.name.as_str() {
        "add" => match (call.args["a"].as_f64(), call.args["b"].as_f64()) {
            (Some(a), Some(b)) => (a + b).to_string(),
            _ => "add takes two numbers, a and b".to_owned(),
        },
        "count_words" => match call.args["text"].as_str() {
            Some(text) => text.split_whitespace().count().to_string(),
            None => "count_words takes a text".to_owned(),
        },
        other => format!("there is no tool {other}; there are add and count_words"),
    }
}

/// The graph.
///
/// # Panics
/// Never: a test builds it.
pub fn graph() -> Graph<Chat> {
    Graph::<Chat>::builder("tools")
        .description("A person approves the tool calls of a model before they run")
        .node("approve_tools", approve_tools)
        .node("run_tools", run_tools)
        .edge(START, "approve_tools")
        .branch_map(
            "approve_tools",
            |state| !calls(state).is_empty(),
            [("true", "run_tools"), ("false", END)],
        )
        .edge("run_tools", END)
        .build()
        .expect("the graph is right as written")
}
