//! What commands, events and replies share: how a command was refused.
//!
//! Written by `cargo xtask fix` from `proto/superstep/v1/common.proto`, never by hand. The
//! rules that all messages share stand in `common.proto`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a command was refused. What the sender should do stands with each word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The body is not JSON, not an object, or has a wrong or an unknown field. Correct it and
    /// send it as a new command.
    Malformed,
    /// The body is over the size limit. Keep large values elsewhere and send a reference.
    TooLarge,
    /// No worker has registered a graph of this name (and version). Check the name; start a
    /// worker that has it.
    UnknownGraph,
    /// There is no thread of this name, also not after a short wait for a start on its way.
    /// Check the thread id.
    UnknownThread,
    /// The thread belongs to another graph. Use another thread id.
    WrongGraph,
    /// A run of the thread is under way or has open questions, and the command would disturb it.
    /// Wait for its end, answer the questions, or cancel it first.
    Busy,
    /// No question of the thread is open. Nothing is to be answered; look at its state.
    NotWaiting,
    /// The question has an answer already; the first one counts. The data says when and by whom
    /// it was answered, and whether the value was the same.
    AlreadyAnswered,
    /// The thread never asked a question of this id or key, or asks it no longer. Take the id
    /// from the latest `interrupt` event.
    UnknownInterrupt,
    /// Several questions are open and the answer names none. Name one with `interrupt_id` or
    /// `key`, or send a map of answers by interrupt id.
    Ambiguous,
    /// A plain answer that was sent before the open question was asked, so it cannot be meant
    /// for it. Look at the open question and answer it by its id.
    Stale,
    /// The command is older than what the thread remembers of commands, so it may have been
    /// decided before. Look at the state; if it is still wanted, send it as a new command.
    TooOld,
    /// The question's deadline has passed. Nothing is to be answered any more.
    Expired,
    /// The question was given up by a cancel, an update or new input. Look at the state; start
    /// a new run if it is still wanted.
    Cancelled,
    /// The input does not fit the graph's registered input schema. Correct the input.
    InvalidInput,
    /// The update does not fit the graph: a key or a node that it does not have, or a value of
    /// another type. Correct the update.
    InvalidUpdate,
    /// The answer does not fit what the question asks for. Correct the answer; the question
    /// stays open.
    InvalidAnswer,
    /// This sender may not do this.
    NotAllowed,
    /// The thread has moved past what the command was meant for: another run, another
    /// incarnation of the thread. Look at the state.
    Superseded,
    /// The thread has no failed or cancelled superstep. Nothing is to be retried.
    NothingToRetry,
    /// Nothing of the thread runs and nothing waits. Nothing is to be cancelled.
    NothingToCancel,
    /// As many runs wait on the thread as may. Wait until some are over, or cancel them.
    QueueFull,
    /// The thread has no run of this id, as far as it remembers, also not after a short wait for a
    /// start on its way. Take the id from the reply to its start.
    UnknownRun,
    /// The thread waits at a node that the live version of its graph does not have, and its own
    /// version has no worker. Its questions stay open; start a worker of its version, or of a new
    /// one that has the node, then send the command again, under another id.
    MissingNode,
    /// The live version of the graph could not make its state of the thread's. Nothing changed; do
    /// as for `missing_node`.
    MigrationFailed,
    /// This version of superstep, or this graph, does not offer what the command asks for. The
    /// message names it.
    Unsupported,
    /// A kind that this reader does not know; never written.
    #[serde(other)]
    Unknown,
}

impl RefusalKind {
    /// Every word that is written, in the order of the contract.
    pub const ALL: [Self; 26] = [
        Self::Malformed,
        Self::TooLarge,
        Self::UnknownGraph,
        Self::UnknownThread,
        Self::WrongGraph,
        Self::Busy,
        Self::NotWaiting,
        Self::AlreadyAnswered,
        Self::UnknownInterrupt,
        Self::Ambiguous,
        Self::Stale,
        Self::TooOld,
        Self::Expired,
        Self::Cancelled,
        Self::InvalidInput,
        Self::InvalidUpdate,
        Self::InvalidAnswer,
        Self::NotAllowed,
        Self::Superseded,
        Self::NothingToRetry,
        Self::NothingToCancel,
        Self::QueueFull,
        Self::UnknownRun,
        Self::MissingNode,
        Self::MigrationFailed,
        Self::Unsupported,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnknownGraph => "unknown_graph",
            Self::UnknownThread => "unknown_thread",
            Self::WrongGraph => "wrong_graph",
            Self::Busy => "busy",
            Self::NotWaiting => "not_waiting",
            Self::AlreadyAnswered => "already_answered",
            Self::UnknownInterrupt => "unknown_interrupt",
            Self::Ambiguous => "ambiguous",
            Self::Stale => "stale",
            Self::TooOld => "too_old",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid_input",
            Self::InvalidUpdate => "invalid_update",
            Self::InvalidAnswer => "invalid_answer",
            Self::NotAllowed => "not_allowed",
            Self::Superseded => "superseded",
            Self::NothingToRetry => "nothing_to_retry",
            Self::NothingToCancel => "nothing_to_cancel",
            Self::QueueFull => "queue_full",
            Self::UnknownRun => "unknown_run",
            Self::MissingNode => "missing_node",
            Self::MigrationFailed => "migration_failed",
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason as a word for programs.
    pub kind: RefusalKind,
    /// The reason for people: what was refused, why, and what to do.
    pub message: String,
    /// What belongs to the reason, an object whose keys depend on the kind (see
    /// `proto/README.md`).
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub data: Option<Value>,
}

impl Refusal {
    /// A message of what is always there; everything else is absent.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            data: None,
        }
    }
}
