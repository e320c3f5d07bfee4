//! Records: everything that ever happens to a thread, as data.
//!
//! A record is an entry of the thread's log. What it means is `fold`'s business, how it is
//! encoded is `superstep-wire`'s. Fields are only ever added; a meaning never changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use superstep_graph::{
    Checkpoint, Delta, InterruptId, Lineage, NodeName, Send, Source, Target, Task, TaskId, Write,
};

use crate::{
    ids::{CommandId, Dispatch, GraphId, Head, RunId, UnixMillis},
    pause::Paused,
    queue::{Displaced, QueuedRun, Restored},
    refusal::Refusal,
    state::ThreadState,
};

pub use crate::terms::{Durability, Profile, Terms};

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
    /// What vendors add to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// The kind of error of a task that kills the workers it runs on.
pub const TASK_POISONED: &str = "TaskPoisoned";

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

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A checkpoint to go on from instead of the last one, with all that must be known of it: what
/// follows it is a branch of its own, and no reader has to look for it further back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// The record that saved it, and when.
    pub saved: (Head, UnixMillis),
    /// The channels.
    pub checkpoint: Checkpoint,
    /// What it triggered, in plan order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
}

/// One update of the state from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The values by channel.
    pub values: Value,
    /// The node it is made as; the one that ran last otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_node: Option<NodeName>,
}

/// A target of a goto as data: a node's name or a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goto {
    /// A node.
    Node(NodeName),
    /// A packet.
    Send(Send),
}

impl From<Goto> for Target {
    fn from(goto: Goto) -> Self {
        match goto {
            Goto::Node(node) => Self::Node(node),
            Goto::Send(send) => Self::Send(send),
        }
    }
}

impl From<Target> for Goto {
    fn from(target: Target) -> Self {
        match target {
            Target::Node(node) => Self::Node(node),
            Target::Send(send) => Self::Send(send),
        }
    }
}

/// A run that has to be prepared. Nothing of it counts before it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskedCommand {
    /// Who asked.
    pub command: CommandRef,
    /// The run that it begins.
    pub run: RunId,
    /// The answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<InterruptId, Value>,
    /// An answer without a question.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "superstep_graph::some"
    )]
    pub offer: Option<Value>,
    /// The update; null for none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub update: Value,
    /// Where to go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goto: Vec<Goto>,
    /// Whether what waits runs as if it never had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// How many supersteps it may take; as many as the run before otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursion_limit: Option<u32>,
    /// What else it is given.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
}

/// A question as a task raised it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// Its place among the questions of its task, from 0.
    pub index: usize,
    /// Its id, if a subgraph of the task asks it; else it follows from the task and the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<InterruptId>,
    /// What it asks.
    pub payload: Value,
    /// Until when it can be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
}

impl Raised {
    /// The question's id, if `task` asks it.
    pub fn id_for(&self, task: &TaskId) -> InterruptId {
        match &self.id {
            Some(id) => id.clone(),
            None => InterruptId::of(task, self.index),
        }
    }
}

/// How a task ended in its round: the content of the round's map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskResult {
    /// The node returned; these are its writes, edges and paths included.
    Finished {
        /// In order.
        writes: Vec<Write>,
        /// How the node failed, if an error handler wrote this in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handled: Option<RunError>,
        /// The state of its subgraph, if that outlives the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeps: Option<Box<ThreadState>>,
    },
    /// The node waits for answers.
    Interrupted {
        /// Every question that is unanswered, by its index; empty only if a subgraph stopped at
        /// a breakpoint.
        raised: Vec<Raised>,
        /// Questions that took the answer that was offered to whoever asks first, by index.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        took: Vec<(usize, Value)>,
        /// What its subgraph did in this round.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        child: Vec<Record>,
    },
    /// The node failed for good.
    Failed {
        /// Why.
        error: RunError,
        /// What it wrote, if the node itself returned and only a path of it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        writes: Option<Vec<Write>>,
        /// Questions that took the answer that was offered to whoever asks first, by index.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        took: Vec<(usize, Value)>,
        /// What its subgraph did in this round.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        child: Vec<Record>,
    },
    /// The node waits for a time, and perhaps for answers beside.
    Paused(Box<Paused>),
}

impl TaskResult {
    /// A node that returned: its writes.
    pub fn finished(writes: Vec<Write>) -> Self {
        Self::Finished {
            writes,
            handled: None,
            keeps: None,
        }
    }

    /// A node that asks.
    pub fn interrupted(raised: Vec<Raised>) -> Self {
        Self::Interrupted {
            raised,
            took: Vec::new(),
            child: Vec::new(),
        }
    }

    /// A node that failed, with what it wrote if only a path of it did.
    pub fn failed(error: RunError, writes: Option<Vec<Write>>) -> Self {
        Self::Failed {
            error,
            writes,
            took: Vec::new(),
            child: Vec::new(),
        }
    }

    /// What the task's subgraph did in this round, if the call is not over.
    pub fn child(&self) -> &[Record] {
        match self {
            Self::Finished { .. } => &[],
            Self::Interrupted { child, .. } | Self::Failed { child, .. } => child,
            Self::Paused(paused) => &paused.child,
        }
    }

    /// The questions that it asks.
    pub fn raised(&self) -> &[Raised] {
        match self {
            Self::Interrupted { raised, .. } => raised,
            Self::Paused(paused) => &paused.raised,
            Self::Finished { .. } | Self::Failed { .. } => &[],
        }
    }
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
    /// Its tasks wait: the run stops at a breakpoint.
    Break,
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
    /// How the node failed, if an error handler wrote this in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<RunError>,
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
    /// Whether a channel of the graph's output was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output: bool,
    /// The states of subgraphs that outlive their calls, by node, where they changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<NodeName, Box<ThreadState>>,
}

/// A command applied to the checkpoint as it stands: no step passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Amended {
    /// The dispatch that it answers.
    pub closes: Dispatch,
    /// The run that goes on.
    pub run: RunId,
    /// What changed.
    pub delta: Delta,
    /// What the checkpoint triggers now, in plan order; those that were there before keep what
    /// they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// Those of them that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub round: Vec<TaskId>,
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
        /// The topology of that, as it was registered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topology: Option<String>,
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
        /// What else the run is given.
        #[serde(default, skip_serializing_if = "Terms::is_default")]
        terms: Terms,
        /// The checkpoint that the input is for, if not the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Box<Base>>,
        /// The open questions that it gives up.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        discards: Vec<InterruptId>,
    },
    /// A start waits for its turn; the first one creates the thread.
    Enqueued(Box<QueuedRun>),
    /// A start ended what was not over, and comes next.
    Displaced(Box<Displaced>),
    /// A thread was made without a run, to be updated.
    Created {
        /// Who asked.
        command: CommandRef,
        /// The graph and version that run it.
        graph: GraphId,
        /// The topology of that, as it was registered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topology: Option<String>,
        /// How the thread decides.
        #[serde(default)]
        profile: Profile,
        /// How many milliseconds the thread stays while it rests; for good if it says nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// A checkpoint.
    Committed(Box<Committed>),
    /// A command was applied to the checkpoint as it stands, and its tasks run.
    Amended(Box<Amended>),
    /// A round ended with open questions.
    Interrupted(Parked),
    /// A round ended and nobody is asked anything new: tasks wait for a time.
    Paused(Parked),
    /// A time came that tasks waited for; they run again, in the same run.
    Woken {
        /// The run that goes on.
        run: RunId,
        /// The tasks that run again.
        tasks: Vec<TaskId>,
    },
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
        /// An answer without a question: whoever asks first in the next superstep takes it.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "superstep_graph::some"
        )]
        offer: Option<Value>,
        /// How many supersteps it may take; as many as the run before otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recursion_limit: Option<u32>,
        /// What else the run is given.
        #[serde(default, skip_serializing_if = "Terms::is_default")]
        terms: Terms,
    },
    /// What failed or was cancelled runs again.
    Retried {
        /// Who asked.
        command: CommandRef,
        /// The new run.
        run: RunId,
        /// The tasks that run again; empty if only the superstep's writes are applied again.
        tasks: Vec<TaskId>,
        /// Whether they run as if they never had: what they did and were answered is dropped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
        /// How many supersteps it may take; as many as the run before otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recursion_limit: Option<u32>,
        /// What else the run is given.
        #[serde(default, skip_serializing_if = "Terms::is_default")]
        terms: Terms,
    },
    /// A run begins that a worker of the graph has to prepare: an update or targets beside or
    /// instead of answers, or a copy of an older checkpoint.
    Commanded {
        /// The run, and what it begins with.
        asked: Box<AskedCommand>,
        /// The checkpoint that is copied first, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Box<Base>>,
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
        /// More updates of the same superstep.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<Update>,
        /// The checkpoint that is updated, if not the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Box<Base>>,
        /// The place of the subgraph that is updated: nodes from the outside in.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subgraph: Vec<NodeName>,
    },
    /// The state of a task's subgraph was updated: the records that did it.
    ChildUpdated {
        /// The dispatch that it answers.
        closes: Dispatch,
        /// The task.
        task: TaskId,
        /// What was done to its subgraph.
        child: Vec<Record>,
    },
    /// What was asked cannot be done; nothing changed.
    Declined {
        /// The dispatch that it answers.
        closes: Dispatch,
        /// Who asked.
        command: CommandRef,
        /// Why not.
        refusal: Refusal,
        /// Whether the checkpoint cannot be read or gone on from any more, as in LangGraph, which
        /// keeps a command that cannot be applied.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        spoils: bool,
        /// Whether it was a resume; an update otherwise.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resume: bool,
        /// The run of the queue that cannot begin, if it was one: a start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queued: Option<RunId>,
    },
    /// Another version of the graph is to take the thread over: nothing of it runs until a worker
    /// of that version says whether it can.
    MoveAsked {
        /// The version.
        to: GraphId,
        /// Its topology, as it was registered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topology: Option<String>,
        /// The command that waits for it, if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandRef>,
        /// What tasks of open rounds had finished with: it is parked.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        results: BTreeMap<TaskId, TaskResult>,
    },
    /// The thread goes on under another version of its graph, where it stood.
    Moved {
        /// The dispatch that it answers.
        closes: Dispatch,
        /// The version.
        graph: GraphId,
        /// Its topology.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topology: Option<String>,
        /// What the version's migration changed.
        #[serde(default, skip_serializing_if = "is_default")]
        delta: Delta,
    },
    /// The thread stays under its version of the graph, as it stood.
    MoveDeclined {
        /// The dispatch that it answers.
        closes: Dispatch,
        /// Why; nothing if the version was no longer wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<Refusal>,
    },
    /// What ran and what waited was cancelled; finished supersteps stay.
    Cancelled {
        /// Who asked.
        command: CommandRef,
        /// Why, in the sender's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether only runs of the queue were: what runs and waits goes on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        spares: bool,
        /// The runs of the queue that were, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        queued: Vec<RunId>,
        /// What the run that was under way is rolled back to, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restores: Option<Box<Restored>>,
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
            Self::Enqueued(_) => "enqueued",
            Self::Displaced(_) => "displaced",
            Self::Created { .. } => "created",
            Self::Committed(_) => "committed",
            Self::Amended(_) => "amended",
            Self::Interrupted(_) => "interrupted",
            Self::Paused(_) => "paused",
            Self::Woken { .. } => "woken",
            Self::Failed(_) => "failed",
            Self::Resumed { .. } => "resumed",
            Self::Retried { .. } => "retried",
            Self::Commanded { .. } => "commanded",
            Self::UpdateAsked { .. } => "update_asked",
            Self::ChildUpdated { .. } => "child_updated",
            Self::Declined { .. } => "declined",
            Self::MoveAsked { .. } => "move_asked",
            Self::Moved { .. } => "moved",
            Self::MoveDeclined { .. } => "move_declined",
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
