//! What services and people ask of superstep: start, resume, cancel, update, retry.
//!
//! Written by `cargo xtask fix` from `proto/superstep/v1/commands.proto`, never by hand. The
//! rules that all messages share stand in `common.proto`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Starts a run of a graph, on a new thread or on one that is there.
///
/// Subject `<prefix>.<namespace>.start.<graph>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartCommand {
    /// The thread. Absent: superstep makes one from the command's id, so that the same command
    /// again means the same thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// The run's own id. Absent: superstep makes one from the command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The graph's input, usually an object with some keys of its state. Absent or `null`: no new
    /// input; the run goes on with the work that the thread has left.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub input: Option<Value>,
    /// Settings of this run.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub config: Option<RunConfig>,
    /// What the sender wants to find again in thread lists and checkpoints.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub metadata: BTreeMap<String, Value>,
    /// What to do if a run of the thread is not over. Only `reject`, the default: the command is
    /// refused as `busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multitask_strategy: Option<String>,
    /// Only this version of the graph. Absent: superstep picks the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_version: Option<String>,
}

/// Settings of one run, as in LangGraph's `config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// At most so many supersteps; then the run fails. Absent: 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursion_limit: Option<u32>,
    /// Values that nodes read from their context, by name.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub configurable: BTreeMap<String, Value>,
    /// Words that are kept with the run.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tags: Vec<String>,
}

/// Answers open questions of a thread, which then goes on in a new run.
///
/// Subject `<prefix>.<namespace>.resume.<thread>`, as the event of a question says it in
/// `resume_subject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeCommand {
    /// One answer; or, if it is an object whose keys all have 32 hex digits, answers by interrupt
    /// id. May be any JSON, `null` included.
    pub resume: Value,
    /// The question that `resume` answers. Send it whenever it is known: a plain answer without
    /// it is taken only for the one open question, and only if it was sent after that opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_id: Option<String>,
    /// The question by the key that the node gave it, such as `order-42/approval`; instead of
    /// `interrupt_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The id of the run that goes on. Absent: superstep makes one from the command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Changes the state before the thread goes on: an object of writes by key.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub update: Option<Value>,
    /// Runs these nodes too: a node's name, `{"node": ..., "input": ...}`, or a list of both.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub goto: Option<Value>,
}

/// Ends what runs or waits on a thread. Completed supersteps stay; open questions close.
///
/// Subject `<prefix>.<namespace>.cancel.<thread>`. The body may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelCommand {
    /// Why, for people; kept with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Changes the state of a thread that no run is working on, as if a node had written it.
///
/// Subject `<prefix>.<namespace>.update.<thread>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateCommand {
    /// The writes, an object by key. `null` with `as_node` `__end__` ends the thread and closes
    /// its questions.
    pub values: Value,
    /// The node that is taken to have written them; what follows it is next. Absent: the node that
    /// wrote last, if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<String>,
}

/// Tries the failed or cancelled superstep of a thread again, in a new run.
///
/// Subject `<prefix>.<namespace>.retry.<thread>`. The body may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryCommand {
    /// The id of the new run. Absent: superstep makes one from the command's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
}
