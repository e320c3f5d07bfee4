//! Refusals: why a command is not accepted, each a kind with its data.
//!
//! The kinds are public (`proto/`): a sender decides by them. The message says what to do.

use serde::{Deserialize, Serialize};
use superstep_graph::{InterruptId, NodeName};

use crate::{
    ids::{CommandId, GraphId, GraphName, RunId, ThreadId, UnixMillis},
    status::ThreadStatus,
};

/// Why a command is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The body is not what its kind of command needs.
    #[error("the command cannot be read: {reason}")]
    Malformed {
        /// Where and what.
        reason: String,
    },
    /// Something is over its bound.
    #[error("{what} has {bytes} bytes and may have {bytes_max}; send less, or a reference to it")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// No worker ever registered the graph.
    #[error(
        "graph `{graph}` is not known; known are: {known}; start a worker that has it, or correct \
         the name"
    )]
    UnknownGraph {
        /// The name that was asked for.
        graph: String,
        /// The names there are.
        known: String,
    },
    /// There is no such thread.
    #[error("thread `{thread}` does not exist; start it first, or correct the id")]
    UnknownThread {
        /// The thread.
        thread: ThreadId,
    },
    /// The thread belongs to another graph.
    #[error("thread `{thread}` belongs to graph `{graph}`; use another thread id")]
    WrongGraph {
        /// The thread.
        thread: ThreadId,
        /// Its graph.
        graph: GraphName,
    },
    /// A run is under way, or questions are open, and the command would disturb it.
    #[error(
        "thread `{thread}` is {status}: run `{run}` is not over; wait for it, answer its \
         questions, or cancel it"
    )]
    Busy {
        /// The thread.
        thread: ThreadId,
        /// How it stands.
        status: ThreadStatus,
        /// The run.
        run: RunId,
    },
    /// No question is open.
    #[error("thread `{thread}` is {status} and waits for no answer; nothing to resume")]
    NotWaiting {
        /// The thread.
        thread: ThreadId,
        /// How it stands.
        status: ThreadStatus,
    },
    /// The question has its answer.
    #[error(
        "interrupt `{interrupt}` was already answered{}{}; this answer changes nothing",
        by(sender.as_deref()), if *same { " with the same value" } else { "" }
    )]
    AlreadyAnswered {
        /// The question.
        interrupt: InterruptId,
        /// When it was answered.
        at: UnixMillis,
        /// Who answered.
        sender: Option<String>,
        /// The command that answered.
        command: CommandId,
        /// Whether the value was the same.
        same: bool,
    },
    /// The named question is none of this thread's.
    #[error("thread `{thread}` has no interrupt `{interrupt}`; open are: {open}")]
    UnknownInterrupt {
        /// The thread.
        thread: ThreadId,
        /// The question.
        interrupt: InterruptId,
        /// The open ones.
        open: String,
    },
    /// Several questions are open and the answer names none.
    #[error("thread `{thread}` has several open interrupts ({open}); name the one you answer")]
    Ambiguous {
        /// The thread.
        thread: ThreadId,
        /// The open ones.
        open: String,
    },
    /// The answer was sent before the question opened.
    #[error(
        "the answer was sent before interrupt `{interrupt}` opened and cannot be meant for it; \
         look at the question and answer by its id"
    )]
    Stale {
        /// The question that is open.
        interrupt: InterruptId,
        /// When it opened.
        opened_at: UnixMillis,
    },
    /// The question was not answered in time.
    #[error("interrupt `{interrupt}` expired; it can no longer be answered")]
    Expired {
        /// The question.
        interrupt: InterruptId,
    },
    /// The question was given up by a cancel, an update or new input.
    #[error("interrupt `{interrupt}` was given up ({why}); it can no longer be answered")]
    Cancelled {
        /// The question.
        interrupt: InterruptId,
        /// What ended it.
        why: String,
    },
    /// The input does not fit the graph.
    #[error("the input does not fit the graph: {reason}")]
    InvalidInput {
        /// What does not fit.
        reason: String,
    },
    /// The update does not fit the graph.
    #[error("the update cannot be applied: {reason}")]
    InvalidUpdate {
        /// What does not fit.
        reason: String,
    },
    /// Nothing failed and nothing was cancelled.
    #[error("thread `{thread}` is {status} and has nothing to retry")]
    NothingToRetry {
        /// The thread.
        thread: ThreadId,
        /// How it stands.
        status: ThreadStatus,
    },
    /// As many runs wait on the thread as may.
    #[error(
        "thread `{thread}` has {queued} runs waiting and may have no more; wait until some are \
         over, or cancel them"
    )]
    QueueFull {
        /// The thread.
        thread: ThreadId,
        /// How many wait.
        queued: usize,
    },
    /// The thread never had this run, as far as it remembers.
    #[error("thread `{thread}` has no run `{run}`; take the id from its start's reply")]
    UnknownRun {
        /// The thread.
        thread: ThreadId,
        /// The run.
        run: RunId,
    },
    /// Nothing runs and nothing waits.
    #[error("thread `{thread}` is {status} and has nothing to cancel")]
    NothingToCancel {
        /// The thread.
        thread: ThreadId,
        /// How it stands.
        status: ThreadStatus,
    },
    /// The thread waits at a node that the live version of its graph does not have.
    #[error(
        "thread `{thread}` waits at node `{node}` of {from}, which {to} does not have; nothing \
         changed and its questions stay open: start a worker of {from}, or of a new version that \
         has the node, and send the command again"
    )]
    MissingNode {
        /// The thread.
        thread: ThreadId,
        /// The node.
        node: NodeName,
        /// The thread's version.
        from: GraphId,
        /// The version that was to take it over.
        to: GraphId,
    },
    /// A version of the graph could not make its state of the thread's.
    #[error(
        "thread `{thread}` cannot go from {from} to {to}: {reason}; nothing changed: start a \
         worker of {from}, or of a new version that can take it, and send the command again"
    )]
    MigrationFailed {
        /// The thread.
        thread: ThreadId,
        /// The thread's version.
        from: GraphId,
        /// The version that was to take it over.
        to: GraphId,
        /// What the migration said.
        reason: String,
    },
    /// What is asked for is not built.
    #[error("{what} is not supported by this version; {instead}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do instead.
        instead: String,
    },
}

fn by(sender: Option<&str>) -> String {
    sender
        .map(|sender| format!(" by {sender}"))
        .unwrap_or_default()
}

impl Refusal {
    /// The kind as its one word, as `proto/` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::UnknownGraph { .. } => "unknown_graph",
            Self::UnknownThread { .. } => "unknown_thread",
            Self::WrongGraph { .. } => "wrong_graph",
            Self::Busy { .. } => "busy",
            Self::NotWaiting { .. } => "not_waiting",
            Self::AlreadyAnswered { .. } => "already_answered",
            Self::UnknownInterrupt { .. } => "unknown_interrupt",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Stale { .. } => "stale",
            Self::Expired { .. } => "expired",
            Self::Cancelled { .. } => "cancelled",
            Self::InvalidInput { .. } => "invalid_input",
            Self::InvalidUpdate { .. } => "invalid_update",
            Self::NothingToRetry { .. } => "nothing_to_retry",
            Self::NothingToCancel { .. } => "nothing_to_cancel",
            Self::QueueFull { .. } => "queue_full",
            Self::UnknownRun { .. } => "unknown_run",
            Self::MissingNode { .. } => "missing_node",
            Self::MigrationFailed { .. } => "migration_failed",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// Whether the command may only have come too early: what it names may be on its way, so it
    /// is held back for a bounded time before it is refused.
    pub fn may_be_early(&self) -> bool {
        matches!(
            self,
            Self::UnknownThread { .. } | Self::UnknownGraph { .. } | Self::UnknownRun { .. }
        )
    }
}
