//! Records: everything that ever happens to a thread, as data.
//!
//! A record is an entry of the thread's log. What it means is `fold`'s business, how it is
//! encoded is `superstep-wire`'s. Fields are only ever added; a meaning never changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use superstep_graph::{Delta, InterruptId, Lineage, NodeName, Source, Task, TaskId, Write};

use crate::{
    ids::{CommandId, Dispatch, GraphId, Head, RunId, UnixMillis},
    refusal::Refusal,
    state::ThreadState,
};

/// Which way a thread decides where LangGraph's own behaviour is plainly unsafe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Refuses what would lose or misdeliver an answer.
    #[default]
    Default,
    /// Does what LangGraph 1.2.22 was recorded doing.
    Langgraph,
}

/// A command as the log remembers it: what was asked is in the record, who asked is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRef {
    /// Its id.
    pub id: CommandId,
    /// When it was sent, by the stream's clock.
    pub sent_at: UnixMillis,
    /// Who sent it, in the sender's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The W3C trace context it came with; a run's trace goes on over its interrupts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Why a run ended in error: what a person reads, and what clients match on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A short name, such as `GraphRecursionError`, or what the node called its error.
    pub kind: String,
    /// What failed, and why.
    pub message: String,
    /// The node that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The task that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// A question as a task raised it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// Its place among the questions of its task, from 0.
    pub index: usize,
    /// What it asks.
    pub payload: Value,
    /// Until when it can be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
}

/// How a task ended in its round: the content of the round's map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskResult {
    /// The node returned; these are its writes, edges and paths included.
    Finished {
        /// In order.
        writes: Vec<Write>,
    },
    /// The node waits for answers.
    Interrupted {
        /// Every question that is unanswered, by its index; never empty.
        raised: Vec<Raised>,
    },
    /// The node failed for good.
    Failed {
        /// Why.
        error: RunError,
        /// What it wrote, if the node itself returned and only a path of it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        writes: Option<Vec<Write>>,
    },
}

/// What comes after a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Its tasks run.
    Run,
    /// Nothing is left: the run reached the graph's end.
    Complete,
    /// Its tasks wait for a command, as after a state update.
    Wait,
    /// The run ends in error although the checkpoint is good, as at the recursion limit.
    Fail(RunError),
}

/// What a task of the superstep wrote to the state, for the history. A value that is the whole
/// of what the delta sets (or adds) is not repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The task.
    pub task: TaskId,
    /// Its writes to channels of the state, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrote: Vec<TracedWrite>,
}

/// One write of a [`Trace`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracedWrite {
    /// Wrote to this channel just what the delta says.
    AsDelta(superstep_graph::ChannelName),
    /// Wrote this.
    Value(Write),
}

/// A superstep, an input, or an update: a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// What made it.
    pub source: Source,
    /// Its number.
    pub step: i64,
    /// What it descends from.
    pub lineage: Lineage,
    /// What changed.
    pub delta: Delta,
    /// What it triggers, in plan order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// What comes next.
    pub then: Then,
    /// The dispatch that it answers.
    pub closes: Dispatch,
    /// The run whose dispatch that was; absent for an update, which is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The node an update was made as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<NodeName>,
    /// What its tasks wrote, in plan order of the superstep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<Trace>,
}

/// A round that ended without a checkpoint: what finished is parked and not run again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// The dispatch that it answers.
    pub closes: Dispatch,
    /// The run whose dispatch that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// How each task of the round ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<TaskId, TaskResult>,
    /// Why the run ended in error, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordBody {
    /// A run begins with new input; the first one creates the thread.
    Started {
        /// Who asked.
        command: CommandRef,
        /// The new run.
        run: RunId,
        /// The graph and version that run it.
        graph: GraphId,
        /// How the thread decides from now on.
        #[serde(default)]
        profile: Profile,
        /// The input.
        input: Value,
        /// How many supersteps the run may take.
        recursion_limit: u32,
        /// Values that nodes may read, as the caller gave them.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        config: Map<String, Value>,
        /// Kept with the thread.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        metadata: Map<String, Value>,
    },
    /// A checkpoint.
    Committed(Box<Committed>),
    /// A round ended with open questions.
    Interrupted(Parked),
    /// A run ended in error; what finished is parked.
    Failed(Parked),
    /// Answers were accepted; their tasks run again.
    Resumed {
        /// Who answered.
        command: CommandRef,
        /// The new run.
        run: RunId,
        /// The answers.
        answers: BTreeMap<InterruptId, Value>,
        /// The tasks that run again.
        tasks: Vec<TaskId>,
    },
    /// What failed or was cancelled runs again.
    Retried {
        /// Who asked.
        command: CommandRef,
        /// The new run.
        run: RunId,
        /// The tasks that run again; empty if only the superstep's writes are applied again.
        tasks: Vec<TaskId>,
    },
    /// A state update was accepted; a worker of the graph applies it.
    UpdateAsked {
        /// Who asked.
        command: CommandRef,
        /// The update.
        values: Value,
        /// The node it is made as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_node: Option<NodeName>,
    },
    /// What was asked cannot be done; nothing changed.
    Declined {
        /// The dispatch that it answers.
        closes: Dispatch,
        /// Who asked.
        command: CommandRef,
        /// Why not.
        refusal: Refusal,
    },
    /// What ran and what waited was cancelled; finished supersteps stay.
    Cancelled {
        /// Who asked.
        command: CommandRef,
        /// Why, in the sender's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A question was not answered in time.
    DeadlinePassed {
        /// The question.
        interrupt: InterruptId,
    },
    /// The thread was deleted: a tombstone.
    Deleted {
        /// Who asked.
        command: CommandRef,
    },
}

impl RecordBody {
    /// The record's kind as its one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Committed(_) => "committed",
            Self::Interrupted(_) => "interrupted",
            Self::Failed(_) => "failed",
            Self::Resumed { .. } => "resumed",
            Self::Retried { .. } => "retried",
            Self::UpdateAsked { .. } => "update_asked",
            Self::Declined { .. } => "declined",
            Self::Cancelled { .. } => "cancelled",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::Deleted { .. } => "deleted",
        }
    }
}

/// A record of a thread's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its version and nonce.
    pub head: Head,
    /// When it was appended: never before the record before it.
    pub time: UnixMillis,
    /// Events of records up to this version are known to be in their stream.
    #[serde(default)]
    pub told: u64,
    /// What happened.
    pub body: RecordBody,
    /// The whole state after this record, every so many records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Box<ThreadState>>,
}
