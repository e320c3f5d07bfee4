//! Measures: what a worker tells about its work as numbers.
//!
//! A [`Meter`] gets every measure as it happens; what is kept of it, under which names, and who
//! may read it, is left to whoever puts one in. Nothing is measured where there is none.
//!
//! The rule it keeps: what a measure names (graph, node, kind) has few values. Threads, runs,
//! tasks and whatever a sender chose freely are never part of one.

use std::time::Duration;

use superstep_protocol::{EventData, RecordBody, TaskResult};

/// Takes measures. It is called where the work is done, so it must not wait.
pub trait Meter: Send + Sync + 'static {
    /// Takes one.
    fn measure(&self, measure: Measure<'_>);
}

/// One measure.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Measure<'a> {
    /// A run began: with input, or again.
    RunBegun {
        /// Its graph.
        graph: &'a str,
    },
    /// A run ended.
    RunEnded {
        /// Its graph.
        graph: &'a str,
        /// How: `completed`, `failed`, `cancelled` or `stopped`, which is to wait for answers.
        status: &'static str,
    },
    /// A question changed.
    Interrupt {
        /// The graph that asks.
        graph: &'a str,
        /// What became of it: `opened`, `answered` or `expired`.
        what: &'static str,
    },
    /// A superstep was saved, or the input of a run.
    Superstep {
        /// Its graph.
        graph: &'a str,
    },
    /// A task ended, after all its attempts.
    Task {
        /// Its graph.
        graph: &'a str,
        /// Its node.
        node: &'a str,
        /// How: `finished`, `interrupted`, `failed` or `paused`.
        ended: &'static str,
        /// How long it took, pauses between attempts included.
        took: Duration,
    },
    /// A message was picked up for the first time.
    PickedUp {
        /// The consumer: `commands`, or the graph, with its version, whose work it is.
        consumer: &'a str,
        /// How long after it was published, by the clocks of the message system and this worker.
        after: Duration,
    },
    /// A message was handed over again.
    Redelivered {
        /// The consumer.
        consumer: &'a str,
    },
    /// An append was refused because the thread had moved on.
    AppendConflict,
    /// A command was decided.
    Command {
        /// Its kind.
        kind: &'static str,
        /// `accepted`, `repeated`, or the kind of the refusal.
        outcome: &'a str,
    },
    /// The store was called.
    StoreCall {
        /// `load`, `append`, or `other`.
        call: &'static str,
        /// Whether it answered.
        ok: bool,
        /// How long it took.
        took: Duration,
    },
    /// What a thread owed was performed on behalf of somebody else.
    Reconciled {
        /// How long the thread had stood still.
        stood: Duration,
    },
    /// A timer was fired.
    TimerFired {
        /// How long after it became due, by the store's clock.
        late: Duration,
    },
}

impl<'a> Measure<'a> {
    /// What an event of a run says in numbers, if it says anything.
    pub(crate) fn of_event(graph: &'a str, event: &EventData) -> Option<Self> {
        let ended = |status| Self::RunEnded { graph, status };
        let question = |what| Self::Interrupt { graph, what };
        Some(match event {
            EventData::RunStarted => Self::RunBegun { graph },
            EventData::RunCompleted { .. } => ended("completed"),
            EventData::RunStopped => ended("stopped"),
            EventData::RunFailed { .. } => ended("failed"),
            EventData::RunCancelled { .. } => ended("cancelled"),
            EventData::Interrupt { .. } => question("opened"),
            EventData::InterruptExpired { .. } => question("expired"),
            EventData::ResumeAccepted { .. } => question("answered"),
            _ => return None,
        })
    }

    /// What a record that was just appended says in numbers, if it says anything.
    pub(crate) fn of_record(graph: &'a str, record: &RecordBody) -> Option<Self> {
        matches!(record, RecordBody::Committed { .. }).then_some(Self::Superstep { graph })
    }
}

/// How a task ended, in a word.
pub(crate) fn ended(result: &TaskResult) -> &'static str {
    if matches!(result, TaskResult::Finished { .. }) {
        "finished"
    } else if matches!(result, TaskResult::Interrupted { .. }) {
        "interrupted"
    } else if matches!(result, TaskResult::Failed { .. }) {
        "failed"
    } else {
        "paused"
    }
}
