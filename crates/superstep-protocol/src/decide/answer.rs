//! Resume and deadline: what closes a question. Exactly one of them wins.
//!
//! An answer never reaches a question that it does not name or, unnamed, that opened after it
//! was sent. A refusal says what became of the question, so that no click vanishes silently.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::{InterruptId, TaskId};

use super::{Answers, Nothing, Verdict, command};
use crate::{
    ids::{RunId, UnixMillis},
    record::{CommandRef, Profile, RecordBody},
    refusal::Refusal,
    state::{Closed, Progress, Question, ThreadState, value_digest},
};

pub(super) fn resume(
    state: &ThreadState,
    command: &CommandRef,
    run: &RunId,
    answers: &Answers,
    now: UnixMillis,
) -> Verdict {
    if command::update_asked(state) {
        // The update may give the question up; what it leaves open decides.
        return Verdict::Wait;
    }
    let answers = match answers {
        Answers::Plain(value) => match the_one_open(state, command, value) {
            Ok(id) => BTreeMap::from([(id, value.clone())]),
            Err(refusal) => return Verdict::Refuse(refusal),
        },
        // It would begin a run that has nothing to do.
        Answers::ById(answers) if answers.is_empty() => {
            return Verdict::Refuse(Refusal::Malformed {
                reason: "a resume by id answers no question; name at least one".to_owned(),
            });
        }
        Answers::ById(answers) => {
            for (id, value) in answers {
                if let Err(refusal) = check_open(state, id, value) {
                    return Verdict::Refuse(refusal);
                }
            }
            answers.clone()
        }
    };
    for (_, question) in state.open_questions() {
        let late = question
            .expires_at
            .is_some_and(|expires_at| expires_at <= now);
        if late && answers.contains_key(&question.id) {
            return Verdict::Refuse(Refusal::Expired {
                interrupt: question.id.clone(),
            });
        }
    }
    let tasks = tasks_to_run(state, &answers);
    Verdict::Append(RecordBody::Resumed {
        command: command.clone(),
        run: run.clone(),
        answers,
        tasks,
    })
}

/// The answered tasks, and those that failed or were cancelled and wait for no answer: the
/// superstep can only close with them. In the `langgraph` profile every unanswered task too.
fn tasks_to_run(state: &ThreadState, answers: &BTreeMap<InterruptId, Value>) -> Vec<TaskId> {
    state
        .tasks
        .iter()
        .filter(|task| {
            let answered = task.open_questions().any(|q| answers.contains_key(&q.id));
            let idle = match task.progress {
                Progress::Failed { .. } => true,
                Progress::Waiting => {
                    state.profile == Profile::Langgraph || task.open_questions().next().is_none()
                }
                Progress::Open { .. } | Progress::Finished { .. } => false,
            };
            answered || idle
        })
        .map(|task| task.task.id.clone())
        .collect()
}

fn open_ids(state: &ThreadState) -> String {
    let ids: Vec<&str> = state
        .open_questions()
        .map(|(_, question)| question.id.as_str())
        .collect();
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.join(", ")
    }
}

fn the_one_open(
    state: &ThreadState,
    command: &CommandRef,
    value: &Value,
) -> Result<InterruptId, Refusal> {
    let open: Vec<&Question> = state
        .open_questions()
        .map(|(_, question)| question)
        .collect();
    match open.as_slice() {
        [] => Err(not_waiting(state, command, value)),
        // The clocks of stream and store are taken to agree; a plain answer from before the
        // question is a double click on the one before it.
        [question] if command.sent_at < question.opened_at => Err(Refusal::Stale {
            interrupt: question.id.clone(),
            opened_at: question.opened_at,
        }),
        [question] => Ok(question.id.clone()),
        _ => Err(Refusal::Ambiguous {
            thread: state.thread.clone(),
            open: open_ids(state),
        }),
    }
}

/// Nothing is open. If the last question that closed was still open when the answer was sent,
/// what became of that question is the better reply.
fn not_waiting(state: &ThreadState, command: &CommandRef, value: &Value) -> Refusal {
    match state.closed.last() {
        Some((id, closed @ Closed::Answered { at, .. })) if command.sent_at <= *at => {
            closed_refusal(id, closed, value)
        }
        Some((id, closed @ (Closed::Expired | Closed::GivenUp { .. }))) if !state.is_busy() => {
            closed_refusal(id, closed, value)
        }
        _ => Refusal::NotWaiting {
            thread: state.thread.clone(),
            status: state.status(),
        },
    }
}

fn check_open(state: &ThreadState, id: &InterruptId, value: &Value) -> Result<(), Refusal> {
    if state
        .open_questions()
        .any(|(_, question)| question.id == *id)
    {
        return Ok(());
    }
    Err(match state.closed(id) {
        Some(closed) => closed_refusal(id, closed, value),
        None => Refusal::UnknownInterrupt {
            thread: state.thread.clone(),
            interrupt: id.clone(),
            open: open_ids(state),
        },
    })
}

fn closed_refusal(id: &InterruptId, closed: &Closed, value: &Value) -> Refusal {
    match closed {
        Closed::Answered {
            at,
            command,
            sender,
            value: digest,
        } => Refusal::AlreadyAnswered {
            interrupt: id.clone(),
            at: *at,
            sender: sender.clone(),
            command: command.clone(),
            same: *digest == value_digest(value),
        },
        Closed::Expired => Refusal::Expired {
            interrupt: id.clone(),
        },
        Closed::GivenUp { why } => Refusal::Cancelled {
            interrupt: id.clone(),
            why: why.clone(),
        },
    }
}

pub(super) fn deadline(state: &ThreadState, interrupt: &InterruptId, now: UnixMillis) -> Verdict {
    let question = state
        .open_questions()
        .map(|(_, q)| q)
        .find(|q| q.id == *interrupt);
    match question.map(|question| question.expires_at) {
        // Answered, given up, or expired before: whoever came first won.
        None => Verdict::Nothing(Nothing::Late),
        // As for an answer: the update may give the question up.
        Some(Some(expires_at)) if expires_at <= now && command::update_asked(state) => {
            Verdict::Wait
        }
        Some(Some(expires_at)) if expires_at <= now => {
            Verdict::Append(RecordBody::DeadlinePassed {
                interrupt: interrupt.clone(),
            })
        }
        Some(_) => Verdict::Nothing(Nothing::NotDue),
    }
}
