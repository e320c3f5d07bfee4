//! Questions: how they open, take their answers, and are given up.
//!
//! Part of the fold: data in, data out. A question that ends is remembered with how it ended, so
//! that a late answer is told what became of it.

use serde_json::Value;
use superstep_graph::InterruptId;

use super::runs::{drop_empty_rounds, end_pauses};
use crate::{
    ids::CommandId,
    record::{CommandRef, Raised, Record, RunError},
    state::{
        Answer, CLOSED_QUESTIONS_MAX, Closed, NEVER_OPENED, Progress, Question, TaskState,
        ThreadState, value_digest,
    },
    status::RunStatus,
};

/// The superstep's tasks are as they were planned: nothing of them ran, nobody was asked.
pub(super) fn begin_again(state: &mut ThreadState) {
    give_up_questions(state, "its superstep runs again from the start");
    for task in &mut state.tasks {
        *task = TaskState {
            added: task.added,
            ..TaskState::planned(task.task.clone())
        };
    }
}

/// The answer that was offered to whoever asks first went to these questions: it is replayed to
/// them like any other.
pub(super) fn take_offered(
    state: &mut ThreadState,
    at: usize,
    record: &Record,
    took: &[(usize, Value)],
) {
    let Some(run) = state.run.clone().filter(|_| !took.is_empty()) else {
        return;
    };
    let (command, sender) = (run.command.id.clone(), run.command.sender.clone());
    for (index, value) in took {
        let task = &mut state.tasks[at];
        let asked = task
            .questions
            .iter()
            .find(|question| question.index == *index);
        if let Some(asked) = asked.map(|question| question.id.clone()) {
            let by = run.command.clone();
            answer(state, record, &by, &asked, value.clone());
            continue;
        }
        task.questions.push(Question {
            id: InterruptId::of(&task.task.id, *index),
            index: *index,
            payload: Value::Null,
            opened_at: record.time,
            opened_by: NEVER_OPENED,
            asked_again: None,
            expires_at: None,
            answer: Some(Answer {
                value: value.clone(),
                at: record.time,
                command: command.clone(),
                sender: sender.clone(),
            }),
        });
    }
    state.tasks[at]
        .questions
        .sort_by_key(|question| question.index);
    state.offer = None;
}

/// Opens the questions that are new, keeps those that are asked again, and gives up those that
/// the node no longer asks.
pub(super) fn raise(state: &mut ThreadState, at: usize, record: &Record, raised: &[Raised]) {
    let task = state.tasks[at].task.id.clone();
    let asked: Vec<InterruptId> = raised.iter().map(|raised| raised.id_for(&task)).collect();
    let asked_no_more: Vec<InterruptId> = state.tasks[at]
        .open_questions()
        .filter(|question| !asked.contains(&question.id))
        .map(|question| question.id.clone())
        .collect();
    for id in asked_no_more {
        remember(
            state,
            id.clone(),
            Closed::GivenUp {
                why: "no longer asked".to_owned(),
            },
        );
        state.tasks[at]
            .questions
            .retain(|question| question.id != id);
    }
    let task = &mut state.tasks[at];
    for (raised, id) in raised.iter().zip(asked) {
        let known = task.questions.iter_mut().find(|known| known.id == id);
        if let Some(known) = known {
            if known.answer.is_none() {
                known.asked_again = Some(record.head.version);
            }
            // Asked again in other words: those are what people are to see.
            if known.answer.is_none() && known.payload != raised.payload {
                known.payload = raised.payload.clone();
                known.opened_by = record.head.version;
            }
            continue;
        }
        task.questions.push(Question {
            id,
            index: raised.index,
            payload: raised.payload.clone(),
            opened_at: record.time,
            opened_by: record.head.version,
            asked_again: None,
            expires_at: raised.expires_at,
            answer: None,
        });
    }
    task.questions.sort_by_key(|question| question.index);
}

pub(super) fn answer(
    state: &mut ThreadState,
    record: &Record,
    command: &CommandRef,
    id: &InterruptId,
    value: Value,
) {
    let closed = Closed::Answered {
        at: record.time,
        command: command.id.clone(),
        sender: command.sender.clone(),
        value: value_digest(&value),
    };
    let question = state
        .tasks
        .iter_mut()
        .flat_map(|task| &mut task.questions)
        .find(|q| q.id == *id);
    if let Some(question) = question {
        question.answer = Some(Answer {
            value,
            at: record.time,
            command: command.id.clone(),
            sender: command.sender.clone(),
        });
    }
    remember(state, id.clone(), closed);
}

pub(super) fn expire(state: &mut ThreadState, interrupt: &InterruptId) {
    remember(state, interrupt.clone(), Closed::Expired);
    state
        .applied
        .push(CommandId::new(format!("deadline:{interrupt}")));
    let mut error = RunError {
        kind: "InterruptExpired".to_owned(),
        message: format!("interrupt {interrupt} was not answered in time"),
        node: None,
        task: None,
    };
    let asks = |task: &TaskState| task.questions.iter().any(|q| q.id == *interrupt);
    if let Some(task) = state.tasks.iter_mut().find(|task| asks(task)) {
        task.questions.retain(|question| question.id != *interrupt);
        error.node = Some(task.task.node.clone());
        error.task = Some(task.task.id.clone());
        task.error = Some(error.clone());
        task.progress = Progress::Failed {
            error: error.clone(),
        };
    }
    drop_empty_rounds(state);
    end_pauses(state);
    if let Some(run) = &mut state.run {
        run.error = Some(error);
        run.status = RunStatus::Timeout;
    }
}

pub(super) fn give_up_questions(state: &mut ThreadState, why: &str) {
    for at in 0..state.tasks.len() {
        give_up_task_questions(state, at, why);
    }
}

pub(super) fn give_up_task_questions(state: &mut ThreadState, at: usize, why: &str) {
    let open: Vec<InterruptId> = state.tasks[at]
        .open_questions()
        .map(|question| question.id.clone())
        .collect();
    for id in open {
        state.tasks[at]
            .questions
            .retain(|question| question.id != id);
        remember(
            state,
            id,
            Closed::GivenUp {
                why: why.to_owned(),
            },
        );
    }
}

pub(super) fn remember(state: &mut ThreadState, id: InterruptId, how: Closed) {
    state.closed.push((id, how));
    if state.closed.len() > CLOSED_QUESTIONS_MAX {
        state.closed.remove(0);
    }
}
