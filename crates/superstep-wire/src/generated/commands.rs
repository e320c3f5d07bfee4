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
    /// What to do if a run of the thread is not over. `enqueue`, the default: this one waits for its
    /// turn, first come, first served, and while questions are open (in the `langgraph` profile it
    /// begins then, and gives them up). `reject`: the command is refused as `busy`. `interrupt`: what
    /// runs and what waits for its turn is cancelled; completed supersteps stay. `rollback`: the
    /// same, and what the running one did is undone and left out of the history.
    ///
    /// A start with the `run_id` of a run that the thread remembers is accepted again and begins
    /// nothing, whatever this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multitask_strategy: Option<String>,
    /// Only this version of the graph. Absent: superstep picks the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_version: Option<String>,
    /// The checkpoint of the thread that the run goes on from, by its id, instead of the last one:
    /// what follows is a branch of its own. One that the thread does not have is refused as
    /// `invalid_input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// Stops this run before these nodes: a list of names, or `"*"` for each node. Absent or
    /// `null`: where the graph says; `[]`: nowhere.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub interrupt_before: Option<Value>,
    /// Stops this run after these nodes, as in `interrupt_before`.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub interrupt_after: Option<Value>,
    /// What the history keeps of this run: each superstep's checkpoint with `sync`, the default,
    /// or `async`, which is the same; with `exit` the last one only. A crash loses nothing either
    /// way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// What the run sends as live output while it runs: `values`, `updates`, `custom`, `messages`,
    /// `tasks`, `checkpoints` or `debug`. None: what its nodes emit (`custom` and `messages`).
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub stream_mode: Vec<String>,
    /// Whether its subgraphs send theirs too.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "crate::field::is_false"
    )]
    pub stream_subgraphs: bool,
    /// The run waits for so many seconds from when the command was sent before it can begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<u32>,
}

/// Settings of one run, as in LangGraph's `config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// At most so many supersteps, from 1; then the run fails. Absent: 25 for a start, as many as
    /// the run before for a resume or retry (25 in the `langgraph` profile).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursion_limit: Option<u32>,
    /// Values that nodes read from their context, by name. Only for a start; what goes on keeps
    /// them.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub configurable: BTreeMap<String, Value>,
    /// Words that are kept with the run. Only for a start.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tags: Vec<String>,
}

/// Answers open questions of a thread, which then goes on in a new run; or changes what waits and
/// goes on. One of `resume`, `update`, `goto` and `checkpoint_id` at least has to be there.
///
/// A worker of the graph has to look at `update`, `goto` and `checkpoint_id`: the Reply says then
/// that the command is accepted, and a `resume_refused` event may follow all the same.
///
/// Subject `<prefix>.<namespace>.resume.<thread>`, as the event of a question says it in
/// `resume_subject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeCommand {
    /// One answer; or, if it is an object whose keys all have 32 hex digits, answers by interrupt
    /// id. May be any JSON, `null` included. Absent: no answer, open questions stay open.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub resume: Option<Value>,
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
    /// Changes the state before the thread goes on: an object of writes by key. `null`: nothing.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub update: Option<Value>,
    /// Runs these nodes too, beside what waits: a node's name, a packet
    /// `{"node": ..., "input": ...}` that the node runs on instead of the state, or a list of both.
    /// `null`: none.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub goto: Option<Value>,
    /// Settings of the run that goes on; only `recursion_limit`.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub config: Option<RunConfig>,
    /// The checkpoint that the run goes on from, as in StartCommand. An older one than the last
    /// takes no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// Stops the run before these nodes, as in StartCommand.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub interrupt_before: Option<Value>,
    /// Stops the run after these nodes, as in StartCommand.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub interrupt_after: Option<Value>,
    /// What the history keeps of the run, as in StartCommand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// The thread's graph. Needed only where a thread that is not there may be begun by a command,
    /// which is in the `langgraph` profile. Another graph than the thread's is refused as
    /// `wrong_graph`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// What the run sends as live output while it runs, as in a start.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub stream_mode: Vec<String>,
    /// Whether its subgraphs send theirs too.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "crate::field::is_false"
    )]
    pub stream_subgraphs: bool,
}

/// Ends what runs or waits on a thread, and the runs that wait for their turn. Completed supersteps
/// stay; open questions close.
///
/// Subject `<prefix>.<namespace>.cancel.<thread>`. The body may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelCommand {
    /// Why, for people; kept with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only this run: the one under way, or one that waits for its turn. One that the thread does
    /// not have is refused as `unknown_run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// `interrupt`, the default, or `rollback`: what the run under way did is undone, and left out
    /// of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// Changes the state of a thread that no run is working on, as if a node had written it; or
/// several nodes, in one superstep. One of `values` and `updates` has to be there.
///
/// A worker of the graph has to look at it: the Reply says that it is accepted, and an
/// `update_refused` event may follow all the same, else `state_updated`.
///
/// Subject `<prefix>.<namespace>.update.<thread>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateCommand {
    /// The writes, an object by key. `null` with `as_node` `__end__` ends the thread and closes
    /// its questions.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub values: Option<Value>,
    /// The node that is taken to have written them; what follows it is next. Absent: the node that
    /// wrote last, if there is only one. `__input__`: as if it were a run's input. `__copy__`: the
    /// checkpoint again, beside the one it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<String>,
    /// Updates by several nodes, all in one superstep; instead of `values` and `as_node`.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub updates: Vec<StateUpdate>,
    /// The checkpoint to update, by its id, instead of the last one: what follows is a branch of
    /// its own. One that the thread does not have is refused as `invalid_input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// The thread's graph: a thread that is not there yet is made, of its newest version. Without
    /// it such a thread is refused as `unknown_thread`. Another graph than the thread's is refused
    /// as `wrong_graph`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// The subgraph of a waiting task to update, by its nodes from the outside in. One in which no
    /// task waits is refused as `invalid_update`.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub subgraph: Vec<String>,
}

/// One of several updates of a superstep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateUpdate {
    /// The writes, as in UpdateCommand.
    pub values: Value,
    /// The node that is taken to have written them, as in UpdateCommand.
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
    /// Settings of the new run; only `recursion_limit`.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub config: Option<RunConfig>,
    /// Run again from this checkpoint, as if its tasks never had run; what follows is a branch.
    /// Absent: what failed or was cancelled of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
}
