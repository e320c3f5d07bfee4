//! Events: what the world is told of a record.
//!
//! A pure function of the record and the state after it, so an event that was lost can be made
//! again, with the same id. Shapes on the wire are in `proto/`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use superstep_graph::{InterruptId, NodeName, TaskId};

use crate::{
    ids::{CommandId, Head, RunId, ThreadId, UnixMillis},
    record::{CommandRef, Parked, Record, RecordBody, RunError, TASK_POISONED, TaskResult, Then},
    refusal::Refusal,
    state::ThreadState,
};

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventData {
    /// A run began with input, or again by a retry.
    RunStarted,
    /// A run waits for its turn.
    RunQueued,
    /// The run reached the graph's end.
    RunCompleted {
        /// The state's values.
        values: Map<String, Value>,
    },
    /// The run ended before the graph did: it waits for answers.
    RunStopped,
    /// The run ended in error.
    RunFailed {
        /// Why.
        error: RunError,
    },
    /// A task failed unrun, because it kills the workers it runs on.
    DeadLetter {
        /// The task.
        task: TaskId,
        /// What was tried, and how often.
        error: RunError,
    },
    /// The run was cancelled.
    RunCancelled {
        /// Why, in the sender's words.
        reason: Option<String>,
    },
    /// A question opened.
    Interrupt {
        /// Its id.
        interrupt: InterruptId,
        /// The task that asks.
        task: TaskId,
        /// The node that asks.
        node: NodeName,
        /// Its place among the questions of its task.
        index: usize,
        /// What it asks.
        payload: Value,
        /// Until when it can be answered.
        expires_at: Option<UnixMillis>,
    },
    /// A question was not answered in time.
    InterruptExpired {
        /// Its id.
        interrupt: InterruptId,
    },
    /// A question was given up by new input.
    InterruptDiscarded {
        /// Its id.
        interrupt: InterruptId,
    },
    /// Answers were accepted.
    ResumeAccepted {
        /// The answers.
        answers: BTreeMap<InterruptId, Value>,
    },
    /// A command that was accepted could not be done after all.
    UpdateRefused {
        /// Why not.
        refusal: Refusal,
    },
    /// As `UpdateRefused`, of a resume.
    ResumeRefused {
        /// Why not.
        refusal: Refusal,
    },
    /// As `UpdateRefused`, of a start that had waited for its turn.
    StartRefused {
        /// Why not.
        refusal: Refusal,
    },
    /// The state was updated from outside.
    StateUpdated,
    /// The thread was deleted.
    ThreadDeleted,
}

impl EventData {
    /// The event's kind, as `proto/` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunStarted => "run_started",
            Self::RunQueued => "run_queued",
            Self::RunCompleted { .. } => "run_completed",
            Self::RunStopped => "run_stopped",
            Self::RunFailed { .. } => "run_failed",
            Self::DeadLetter { .. } => "dead_letter",
            Self::RunCancelled { .. } => "run_cancelled",
            Self::Interrupt { .. } => "interrupt",
            Self::InterruptExpired { .. } => "interrupt_expired",
            Self::InterruptDiscarded { .. } => "interrupt_discarded",
            Self::ResumeAccepted { .. } => "resume_accepted",
            Self::UpdateRefused { .. } => "update_refused",
            Self::ResumeRefused { .. } => "resume_refused",
            Self::StartRefused { .. } => "start_refused",
            Self::StateUpdated => "state_updated",
            Self::ThreadDeleted => "thread_deleted",
        }
    }
}

/// An event of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadEvent {
    /// Names the event for ever: thread, record and index.
    pub id: String,
    /// When the record was appended.
    pub time: UnixMillis,
    /// The record.
    pub record: Head,
    /// The run it belongs to, if any.
    pub run: Option<RunId>,
    /// The command behind it, and who sent that, if any.
    pub command: Option<(CommandId, Option<String>)>,
    /// What it says.
    pub data: EventData,
}

/// The id of the `index`-th event of a record: with the nonce, so that a redone record's events
/// are not taken for those of the one that was lost.
pub fn event_id(thread: &ThreadId, record: Head, index: usize) -> String {
    // Ids travel in headers, which carry printable ASCII only; a thread id may be anything.
    let thread = superstep_graph::digest(&[thread.as_str()]);
    format!("{}-{record}-{index}", &thread[..12])
}

/// The events of `record`; `after` is the state after it.
pub fn events(record: &Record, after: &ThreadState) -> Vec<ThreadEvent> {
    let mut told = Vec::new();
    // Of runs that are not the thread's last, by the place of what is told of them.
    let mut others: BTreeMap<usize, RunId> = BTreeMap::new();
    let mut command: Option<&CommandRef> = None;
    match &record.body {
        RecordBody::Started {
            command: by,
            discards,
            ..
        } => {
            command = Some(by);
            let discards = discards.iter().cloned();
            told.extend(discards.map(|interrupt| EventData::InterruptDiscarded { interrupt }));
            told.push(EventData::RunStarted);
        }
        RecordBody::Enqueued(queued) => {
            command = Some(&queued.command);
            others.insert(told.len(), queued.run.clone());
            told.push(EventData::RunQueued);
        }
        RecordBody::Displaced(displaced) => {
            command = Some(&displaced.start.command);
            let reason = format!("displaced by run {}", displaced.start.run);
            for run in displaced.run.iter().chain(&displaced.queued) {
                others.insert(told.len(), run.clone());
                let reason = Some(reason.clone());
                told.push(EventData::RunCancelled { reason });
            }
            others.insert(told.len(), displaced.start.run.clone());
            told.push(EventData::RunQueued);
        }
        RecordBody::Retried { command: by, .. } => {
            command = Some(by);
            told.push(EventData::RunStarted);
            told.extend(ended_at_once(after));
        }
        RecordBody::Commanded { asked, .. } => {
            command = Some(&asked.command);
            told.push(if asked.answers.is_empty() && asked.offer.is_none() {
                EventData::RunStarted
            } else {
                EventData::ResumeAccepted {
                    answers: asked.answers.clone(),
                }
            });
        }
        RecordBody::Amended(_) => told.extend(ended_at_once(after)),
        RecordBody::ChildUpdated { .. } => told.push(EventData::StateUpdated),
        RecordBody::Committed(committed) => match &committed.then {
            Then::Run => {}
            Then::Complete => {
                told.push(EventData::RunCompleted {
                    values: after.visible_values(),
                });
            }
            Then::Wait => told.push(EventData::StateUpdated),
            Then::Break => told.push(EventData::RunStopped),
            Then::Fail(error) => told.push(EventData::RunFailed {
                error: error.clone(),
            }),
        },
        RecordBody::Interrupted(parked) => {
            told.extend(dead_letters(parked));
            told.extend(opened(record, after));
            // With a task that goes on by itself the run is not over.
            if !after.is_paused() {
                told.push(EventData::RunStopped);
            }
        }
        RecordBody::Failed(parked) => {
            told.extend(dead_letters(parked));
            told.extend(opened(record, after));
            if let Some(error) = &parked.error {
                told.push(EventData::RunFailed {
                    error: error.clone(),
                });
            }
        }
        RecordBody::Resumed {
            command: by,
            answers,
            ..
        } => {
            command = Some(by);
            told.push(EventData::ResumeAccepted {
                answers: answers.clone(),
            });
            told.extend(ended_at_once(after));
        }
        RecordBody::UpdateAsked { .. }
        | RecordBody::Created { .. }
        | RecordBody::Paused(_)
        | RecordBody::Woken { .. }
        | RecordBody::MoveAsked { .. }
        | RecordBody::Moved { .. }
        | RecordBody::MoveDeclined { .. } => {}
        RecordBody::Declined {
            command: by,
            refusal,
            resume,
            queued,
            ..
        } => {
            command = Some(by);
            let refusal = refusal.clone();
            others.extend(queued.clone().map(|run| (told.len(), run)));
            told.push(if queued.is_some() {
                EventData::StartRefused { refusal }
            } else if *resume {
                EventData::ResumeRefused { refusal }
            } else {
                EventData::UpdateRefused { refusal }
            });
        }
        RecordBody::Cancelled {
            command: by,
            reason,
            spares,
            queued,
            ..
        } => {
            command = Some(by);
            let cancelled = || EventData::RunCancelled {
                reason: reason.clone(),
            };
            if !spares {
                told.push(cancelled());
            }
            for run in queued {
                others.insert(told.len(), run.clone());
                told.push(cancelled());
            }
        }
        RecordBody::DeadlinePassed { interrupt } => {
            told.push(EventData::InterruptExpired {
                interrupt: interrupt.clone(),
            });
            let run = after.run.as_ref().filter(|_| !after.is_running());
            if let Some(error) = run.and_then(|run| run.error.clone()) {
                told.push(EventData::RunFailed { error });
            }
        }
        RecordBody::Deleted { command: by } => {
            command = Some(by);
            told.push(EventData::ThreadDeleted);
        }
    }
    let last = || after.run.as_ref().map(|run| run.id.clone());
    // Several runs may be open at once; a round's end is that of its own run.
    let run = match &record.body {
        RecordBody::Committed(committed) => committed.run.clone().or_else(last),
        RecordBody::Interrupted(parked) | RecordBody::Failed(parked) => {
            parked.run.clone().or_else(last)
        }
        RecordBody::Commanded { asked, .. } => Some(asked.run.clone()),
        _ => last(),
    };
    told.into_iter()
        .enumerate()
        .map(|(index, data)| ThreadEvent {
            id: event_id(&after.thread, record.head, index),
            time: record.time,
            record: record.head,
            run: others.get(&index).cloned().or_else(|| run.clone()),
            command: command.map(|by| (by.id.clone(), by.sender.clone())),
            data,
        })
        .collect()
}

/// The end of a run that found nothing to do.
fn ended_at_once(after: &ThreadState) -> Option<EventData> {
    if after.is_running() {
        None
    } else if after.tasks.is_empty() {
        let values = after.visible_values();
        Some(EventData::RunCompleted { values })
    } else {
        Some(EventData::RunStopped)
    }
}

/// The tasks of a round that failed because they kill the workers they run on.
fn dead_letters(parked: &Parked) -> impl Iterator<Item = EventData> {
    parked
        .results
        .iter()
        .filter_map(|(task, result)| match result {
            TaskResult::Failed { error, .. } if error.kind == TASK_POISONED => {
                Some(EventData::DeadLetter {
                    task: task.clone(),
                    error: error.clone(),
                })
            }
            _ => None,
        })
}

/// The questions that this record opened.
fn opened(record: &Record, after: &ThreadState) -> Vec<EventData> {
    after
        .open_questions()
        .filter(|(_, question)| question.opened_by == record.head.version)
        .map(|(task, question)| EventData::Interrupt {
            interrupt: question.id.clone(),
            task: task.task.id.clone(),
            node: task.task.node.clone(),
            index: question.index,
            payload: question.payload.clone(),
            expires_at: question.expires_at,
        })
        .collect()
}
