//! Runs beside each other: what a start does to one that is not over, and the queue of a thread.
//!
//! Data only. A thread works on one run at a time; the others wait in its state, oldest first,
//! and begin one by one when it comes to rest. `decide` says which start waits and which puts
//! another one out, `fold` what that leaves.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use superstep_graph::{Checkpoint, Lineage, NodeName, Task};

use crate::{
    decide::Start,
    ids::{CommandId, GraphId, Head, RunId, UnixMillis},
    record::{Base, CommandRef, Profile, Terms},
    state::ThreadState,
};

/// How many runs may wait on one thread.
pub const QUEUED_RUNS_MAX: usize = 64;

/// How many of the runs that began or were queued a thread remembers, so that the same start again
/// begins nothing.
pub const BEGUN_RUNS_MAX: usize = 32;

/// How many spans of its history a thread remembers to be rolled back; the oldest are shown again
/// beyond that. Spans without a kept run between them count as one.
pub const HIDDEN_SPANS_MAX: usize = 256;

/// What a start does if a run of its thread is not over, as LangGraph's server names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// It is refused.
    Reject,
    /// It waits for its turn.
    #[default]
    Enqueue,
    /// It ends that run, whose completed supersteps stay, and every run that waits.
    Interrupt,
    /// As `Interrupt`, and what that run did is undone first.
    Rollback,
}

impl Strategy {
    /// The strategy as its one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Enqueue => "enqueue",
            Self::Interrupt => "interrupt",
            Self::Rollback => "rollback",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no strategy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a multitask strategy; use reject, enqueue, interrupt or rollback")]
pub struct ParseStrategyError(pub String);

impl FromStr for Strategy {
    type Err = ParseStrategyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Reject, Self::Enqueue, Self::Interrupt, Self::Rollback]
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| ParseStrategyError(text.to_owned()))
    }
}

/// A start that was accepted and waits for its turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueuedRun {
    /// Who asked.
    pub command: CommandRef,
    /// The run.
    pub run: RunId,
    /// The graph and version that are to run it.
    pub graph: GraphId,
    /// The topology of that, as it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// How a new thread decides.
    #[serde(default)]
    pub profile: Profile,
    /// The input.
    pub input: Value,
    /// How many supersteps it may take.
    pub recursion_limit: u32,
    /// Values that nodes may read.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Kept with the thread once it begins.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// What else it is given.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
    /// The checkpoint to go on from, if not the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Box<Base>>,
    /// When it was queued.
    pub queued_at: UnixMillis,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixMillis>,
}

impl QueuedRun {
    pub(crate) fn of(start: &Start, now: UnixMillis) -> Self {
        Self {
            command: start.command.clone(),
            run: start.run.clone(),
            graph: start.graph.clone(),
            topology: start.topology.clone(),
            profile: start.profile,
            input: start.input.clone(),
            recursion_limit: start.recursion_limit,
            config: start.config.clone(),
            metadata: start.metadata.clone(),
            terms: start.terms.clone(),
            at: start.at.clone(),
            queued_at: now,
            not_before: start.not_before.filter(|not_before| *not_before > now),
        }
    }

    /// The start that it was.
    pub(crate) fn start(&self) -> Start {
        Start {
            command: self.command.clone(),
            run: self.run.clone(),
            graph: self.graph.clone(),
            topology: self.topology.clone(),
            profile: self.profile,
            input: self.input.clone(),
            recursion_limit: self.recursion_limit,
            config: self.config.clone(),
            metadata: self.metadata.clone(),
            terms: self.terms.clone(),
            at: self.at.clone(),
            strategy: Strategy::Enqueue,
            not_before: None,
            before: None,
        }
    }

    /// When its turn can come: the order of the queue.
    pub fn ready_at(&self) -> UnixMillis {
        self.not_before.unwrap_or(self.queued_at)
    }
}

/// A thread as it was before a run: what a rollback brings back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// The last record before the run; 0 if there was none.
    pub version: u64,
    /// The graph and version that it was under, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphId>,
    /// The topology of that, as it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The channels.
    pub checkpoint: Checkpoint,
    /// The record that saved them, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<(Head, UnixMillis)>,
    /// What the checkpoint triggered, in plan order. What was asked since is given up, and asked
    /// again if its task runs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// The states of subgraphs that outlive their calls, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<NodeName, Box<ThreadState>>,
}

impl Restored {
    /// What there is to know of `state`, the state after the last record before the run.
    pub fn of(state: &ThreadState) -> Self {
        Self {
            version: state.head.version,
            graph: Some(state.graph.clone()),
            topology: state.topology.clone(),
            checkpoint: state.checkpoint.clone(),
            saved: state.saved,
            tasks: state.tasks.iter().map(|task| task.task.clone()).collect(),
            kept: state.kept.clone(),
        }
    }

    /// A thread that its run has begun: nothing was before. `version` is that of the last record
    /// before, such as a tombstone's.
    pub fn nothing(version: u64, incarnation: &CommandId) -> Self {
        Self {
            version,
            graph: None,
            topology: None,
            checkpoint: Checkpoint::empty(Lineage::root(incarnation.as_str())),
            saved: None,
            tasks: Vec::new(),
            kept: BTreeMap::new(),
        }
    }
}

/// A start that ended what was not over, and waits for its turn at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Displaced {
    /// The new run.
    pub start: QueuedRun,
    /// The run that was under way or waited for answers, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The runs that waited in the queue, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queued: Vec<RunId>,
    /// What the run that was under way is rolled back to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Box<Restored>>,
}
