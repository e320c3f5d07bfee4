//! What superstep tells the world: stored events, and live output that is not stored.
//!
//! Written by `cargo xtask fix` from `proto/superstep/v1/events.proto`, never by hand. The
//! rules that all messages share stand in `common.proto`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refusal;

/// What happened. The word is also a token of the event's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A start was accepted.
    RunStarted,
    /// A run reached the graph's end; `values` are the thread's.
    RunCompleted,
    /// A run ended in an error; `error` says which. The thread can be retried.
    RunFailed,
    /// A run was cancelled; open questions are closed.
    RunCancelled,
    /// A question opened; `interrupt` carries it and says where to answer.
    Interrupt,
    /// A question's deadline passed; `interrupt_id` says which.
    InterruptExpired,
    /// Answers were accepted; `answers` are the audit trail, `run_id` is the run that goes on.
    ResumeAccepted,
    /// A resume was refused.
    ResumeRefused,
    /// A start was refused; also one that had waited for its turn and could not begin.
    StartRefused,
    /// A cancel was refused.
    CancelRefused,
    /// An update was refused.
    UpdateRefused,
    /// A retry was refused.
    RetryRefused,
    /// The state was changed from outside.
    StateUpdated,
    /// The thread was deleted.
    ThreadDeleted,
    /// A run ended before the graph did: the thread waits for answers. It comes after the
    /// `interrupt` events of the questions that the run opened, and without any if it opened none.
    RunStopped,
    /// A start was accepted and waits for its turn, or for its time.
    RunQueued,
    /// A question was given up by new input, in the `langgraph` profile; `interrupt_id` says which.
    InterruptDiscarded,
    /// A task kills the workers it runs on: it failed without being run once more, and its run ends
    /// in error. `error` says which task, of which node, and how often it was begun. The thread can
    /// be retried.
    DeadLetter,
    /// A kind that this reader does not know; never written. New kinds come: pass over it.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// Every word that is written, in the order of the contract.
    pub const ALL: [Self; 18] = [
        Self::RunStarted,
        Self::RunCompleted,
        Self::RunFailed,
        Self::RunCancelled,
        Self::Interrupt,
        Self::InterruptExpired,
        Self::ResumeAccepted,
        Self::ResumeRefused,
        Self::StartRefused,
        Self::CancelRefused,
        Self::UpdateRefused,
        Self::RetryRefused,
        Self::StateUpdated,
        Self::ThreadDeleted,
        Self::RunStopped,
        Self::RunQueued,
        Self::InterruptDiscarded,
        Self::DeadLetter,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunStarted => "run_started",
            Self::RunCompleted => "run_completed",
            Self::RunFailed => "run_failed",
            Self::RunCancelled => "run_cancelled",
            Self::Interrupt => "interrupt",
            Self::InterruptExpired => "interrupt_expired",
            Self::ResumeAccepted => "resume_accepted",
            Self::ResumeRefused => "resume_refused",
            Self::StartRefused => "start_refused",
            Self::CancelRefused => "cancel_refused",
            Self::UpdateRefused => "update_refused",
            Self::RetryRefused => "retry_refused",
            Self::StateUpdated => "state_updated",
            Self::ThreadDeleted => "thread_deleted",
            Self::RunStopped => "run_stopped",
            Self::RunQueued => "run_queued",
            Self::InterruptDiscarded => "interrupt_discarded",
            Self::DeadLetter => "dead_letter",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened to a thread.
///
/// Subject `<prefix>.<namespace>.events.<kind>.<graph>.<thread>`; the graph's token is `-` where
/// no graph is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Names the event; also its `Nats-Msg-Id`. Repeats have the same.
    pub event_id: String,
    /// What happened.
    pub kind: EventKind,
    /// The thread. For a refused start that named none, the one that superstep would have made.
    pub thread_id: String,
    /// The run that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// The graph's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_version: Option<String>,
    /// When, by the store's clock.
    pub time: String,
    /// The thread's checkpoint after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// The record that says it in the thread's log, `<version>-<16 hex digits>`. Absent for
    /// refusals: they are in no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The command that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// Who sent that command, in the words of its `Superstep-Sender` header. Not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The question; for `interrupt`.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub interrupt: Option<InterruptDetail>,
    /// The answers; for `resume_accepted`.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub answers: Vec<Answer>,
    /// Why; for the refused kinds.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub refusal: Option<Refusal>,
    /// The thread's values; for `run_completed`. Absent if they are too large, see
    /// `values_omitted`.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub values: Option<Value>,
    /// What went wrong; for `run_failed` and `dead_letter`.
    #[serde(
        default,
        deserialize_with = "crate::field::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub error: Option<RunError>,
    /// The reason that the sender gave; for `run_cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if `values` did not fit in a message: read them from the thread.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "crate::field::is_false"
    )]
    pub values_omitted: bool,
    /// The question; for `interrupt_expired` and `interrupt_discarded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_id: Option<String>,
}

impl Event {
    /// A message of what is always there; everything else is absent.
    pub fn new(
        event_id: impl Into<String>,
        kind: EventKind,
        thread_id: impl Into<String>,
        time: impl Into<String>,
    ) -> Self {
        Self {
            event_id: event_id.into(),
            kind,
            thread_id: thread_id.into(),
            run_id: None,
            graph: None,
            graph_version: None,
            time: time.into(),
            checkpoint_id: None,
            record: None,
            command_id: None,
            sender: None,
            interrupt: None,
            answers: Vec::new(),
            refusal: None,
            values: None,
            error: None,
            reason: None,
            values_omitted: false,
            interrupt_id: None,
        }
    }
}

/// A question that a node asked and that waits for an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterruptDetail {
    /// Names the question, 32 hex digits. Stays the same if the superstep is done again.
    pub interrupt_id: String,
    /// The task that asked.
    pub task_id: String,
    /// The node that asked.
    pub node: String,
    /// The place of the subgraph that the node is in; empty for the graph itself.
    pub checkpoint_ns: String,
    /// The question's number among those of its task, from 0.
    pub index: u32,
    /// What the node asks: the payload of its `interrupt` call.
    pub value: Value,
    /// Until when it can be answered. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The node's own name for the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Publish `{"interrupt_id": ..., "resume": <answer>}` here to answer.
    pub resume_subject: String,
}

/// An answer as it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub interrupt_id: String,
    /// The answer.
    pub value: Value,
    /// When it was accepted.
    pub at: String,
    /// Who gave it, in the words of the `Superstep-Sender` header. Not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
}

/// Why a run failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunError {
    /// The kind of error as a word for programs, such as an error's type. New ones come.
    pub kind: String,
    /// The error for people.
    pub message: String,
    /// The node that failed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The task that failed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
}

/// Live output of a run. It is not stored: who subscribes late has missed it.
///
/// Subject `<prefix>.<namespace>.output.<thread>.<run>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The thread.
    pub thread_id: String,
    /// The run.
    pub run_id: String,
    /// The stream mode that `data` belongs to, as in LangGraph: `values`, `updates`, `messages`,
    /// `custom`, `tasks`, `checkpoints` or `debug`. `end`, without data: the run is over.
    pub mode: String,
    /// The superstep.
    pub step: i32,
    /// The place of the subgraph that it comes from: the names of its nodes from the outside in,
    /// with `|` between them; empty for the graph itself.
    pub checkpoint_ns: String,
    /// The output itself; its shape depends on the mode.
    pub data: Value,
}
