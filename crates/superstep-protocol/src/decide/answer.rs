//! Resume and deadline: what closes a question. Exactly one of them wins.
//!
//! An answer never reaches a question that it does not name or, unnamed, that opened after it
//! was sent. A refusal says what became of the question, so that no click vanishes silently.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use superstep_graph::{InterruptId, TaskId};

use super::{Answers, Nothing, Resume, Verdict, command};
use crate::{
    ids::UnixMillis,
    record::{AskedCommand, CommandRef, Profile, RecordBody},
    refusal::Refusal,
    state::{Closed, Progress, Question, TaskState, ThreadState, value_digest},
};

pub(super) fn resume(state: &ThreadState, resume: &Resume, now: UnixMillis) -> Verdict {
    if command::graph_decides(state) {
        // What the graph decides may give the question up; what it leaves open decides.
        return Verdict::Wait;
    }
    if let Some(refusal) = command::spoiled(state) {
        return Verdict::Refuse(refusal);
    }
    let bound = match bind(state, resume) {
        Ok(bound) => bound,
        Err(refusal) => return Verdict::Refuse(refusal),
    };
    for (_, question) in state.open_questions() {
        let late = question
            .expires_at
            .is_some_and(|expires_at| expires_at <= now);
        if late && bound.answers.contains_key(&question.id) {
            return Verdict::Refuse(Refusal::Expired {
                interrupt: question.id.clone(),
            });
        }
    }
    let Resume {
        command,
        run,
        update,
        goto,
        recursion_limit,
        terms,
        ..
    } = resume.clone();
    let Bound { answers, offer } = bound;
    let elsewhere = resume
        .at
        .as_ref()
        .filter(|at| Some(at.saved) != state.saved);
    // An empty update is none.
    let update = Some(update).filter(|update| *update != Value::Object(Map::new()));
    let update = update.unwrap_or_default();
    let changes = !update.is_null() || !goto.is_empty();
    let answered = !answers.is_empty() || offer.is_some();
    if elsewhere.is_some() && answered {
        let reason = "an older checkpoint takes no answer; go on from it with null input first, \
                      then answer what it asks";
        return Verdict::Refuse(Refusal::InvalidInput {
            reason: reason.to_owned(),
        });
    }
    let at = resume.at.clone().filter(|_| !answered);
    let again = at.as_ref().is_some_and(|at| command::is_copy(state, at));
    let asks = state.open_questions().next().is_some();
    if at.is_some() && asks && state.profile == Profile::Default {
        // A branch would give the open questions up without a word, as new input would.
        return Verdict::Refuse(command::busy(state));
    }
    if changes || (at.is_some() && !again) {
        if state.is_busy() {
            return Verdict::Refuse(command::busy(state));
        }
        return Verdict::Append(RecordBody::Commanded {
            asked: Box::new(AskedCommand {
                command,
                run,
                answers,
                offer,
                update,
                goto,
                again,
                recursion_limit,
                terms,
            }),
            at: at.filter(|_| !again),
        });
    }
    if again {
        return command::replay(state, command, run, recursion_limit, terms);
    }
    let tasks = tasks_to_run(state, &answers);
    Verdict::Append(RecordBody::Resumed {
        command,
        run,
        answers,
        tasks,
        offer,
        recursion_limit,
        terms,
    })
}

/// Answers with the questions that they are for.
struct Bound {
    answers: BTreeMap<InterruptId, Value>,
    offer: Option<Value>,
}

/// Finds the questions that the answers are for.
fn bind(state: &ThreadState, resume: &Resume) -> Result<Bound, Refusal> {
    let langgraph = state.profile == Profile::Langgraph;
    let command_only = !resume.update.is_null() || !resume.goto.is_empty() || resume.at.is_some();
    let to_none = || Bound {
        answers: BTreeMap::new(),
        offer: None,
    };
    match &resume.answers {
        None if command_only => Ok(to_none()),
        None => Err(empty()),
        // LangGraph's null is no answer.
        Some(Answers::Plain(Value::Null)) if langgraph && command_only => Ok(to_none()),
        Some(Answers::Plain(Value::Null)) if langgraph => Err(empty()),
        // Nor is its empty object, which is a map of answers to nothing.
        Some(Answers::Plain(Value::Object(map))) if langgraph && map.is_empty() => Ok(to_none()),
        Some(Answers::Plain(_)) if langgraph && waits_for_several(state) => {
            Err(Refusal::Ambiguous {
                thread: state.thread.clone(),
                open: open_ids(state),
            })
        }
        Some(Answers::Plain(value)) => match the_one_open(state, &resume.command, value) {
            Ok(id) if langgraph && others_run(state, &id) => Ok(Bound {
                answers: BTreeMap::new(),
                offer: Some(value.clone()),
            }),
            Ok(id) => Ok(Bound {
                answers: BTreeMap::from([(id, value.clone())]),
                offer: None,
            }),
            // LangGraph gives it to whoever asks first, if anyone does.
            Err(Refusal::Ambiguous { thread, open }) => Err(Refusal::Ambiguous { thread, open }),
            Err(_) if langgraph && !state.is_busy() => Ok(Bound {
                answers: BTreeMap::new(),
                offer: Some(value.clone()),
            }),
            Err(refusal) => Err(refusal),
        },
        // LangGraph takes what is known and runs, even if that is nothing.
        Some(Answers::ById(answers)) if langgraph => {
            let is_open = |id: &InterruptId| state.open_questions().any(|(_, q)| q.id == *id);
            let known = answers.iter().filter(|(id, _)| is_open(id));
            Ok(Bound {
                answers: known
                    .map(|(id, value)| (id.clone(), value.clone()))
                    .collect(),
                offer: None,
            })
        }
        // It would begin a run that has nothing to do.
        Some(Answers::ById(answers)) if answers.is_empty() => Err(Refusal::Malformed {
            reason: "a resume by id answers no question; name at least one".to_owned(),
        }),
        Some(Answers::ById(answers)) => {
            for (id, value) in answers {
                check_open(state, id, value)?;
            }
            Ok(Bound {
                answers: answers.clone(),
                offer: None,
            })
        }
    }
}

/// Whether an answer to this question runs other tasks too, which may ask before it: LangGraph
/// gives a plain answer to whoever asks first.
fn others_run(state: &ThreadState, id: &InterruptId) -> bool {
    let answers = BTreeMap::from([(id.clone(), Value::Null)]);
    tasks_to_run(state, &answers).len() > 1
}

/// Whether LangGraph takes several questions for unanswered: it counts those of a subgraph that
/// failed after they were answered until the subgraph's task is done.
fn waits_for_several(state: &ThreadState) -> bool {
    let failed_inside = |task: &&TaskState| {
        let failed = matches!(task.progress, Progress::Failed { .. });
        failed && !task.child.is_empty() && task.open_questions().next().is_none()
    };
    let failed = state.tasks.iter().filter(failed_inside);
    let answered: usize = failed.map(|task| task.asked_last().count()).sum();
    answered > 0 && answered + state.open_questions().count() > 1
}

fn empty() -> Refusal {
    Refusal::InvalidInput {
        reason: "the command is empty; give an answer, an update or a target".to_owned(),
    }
}

/// The answered tasks, and those that failed or were cancelled and wait for no answer: the
/// superstep can only close with them. In the `langgraph` profile every unanswered task too.
fn tasks_to_run(state: &ThreadState, answers: &BTreeMap<InterruptId, Value>) -> Vec<TaskId> {
    state
        .tasks
        .iter()
        .filter(|task| runs_with(state.profile, task, answers))
        .map(|task| task.task.id.clone())
        .collect()
}

/// Whether a task runs in the round that these answers open.
pub(super) fn runs_with(
    profile: Profile,
    task: &TaskState,
    answers: &BTreeMap<InterruptId, Value>,
) -> bool {
    let answered = task.open_questions().any(|q| answers.contains_key(&q.id));
    let idle = match task.progress {
        Progress::Failed { .. } => true,
        Progress::Waiting => {
            profile == Profile::Langgraph || task.open_questions().next().is_none()
        }
        Progress::Open { .. } | Progress::Paused { .. } | Progress::Finished { .. } => false,
    };
    answered || idle
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
        Some(Some(expires_at)) if expires_at <= now && command::graph_decides(state) => {
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
