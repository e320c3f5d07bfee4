//! Fold: what a record means.
//!
//! A pure function of the state and the record; every reader of a log computes the same state.
//! It decides nothing and refuses nothing but a log that is not one: a gap, or a record that
//! cannot follow. Whether a record may be appended is `decide`'s business.

use superstep_graph::{Checkpoint, InterruptId, Lineage, Source, TaskId};

use crate::{
    ids::{CommandId, Dispatch, Head, RunId, ThreadId},
    record::{
        CommandRef, Committed, Parked, Raised, Record, RecordBody, RunError, TaskResult, Then,
    },
    state::{
        Answer, Asked, CLOSED_QUESTIONS_MAX, Closed, Decision, Progress, Question, Run, TaskState,
        ThreadState, value_digest,
    },
    status::RunStatus,
};

/// A log that no writer of this protocol made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread `{thread}` has a corrupt log: record {record} ({kind}) cannot follow {before}")]
pub struct FoldError {
    /// The thread.
    pub thread: ThreadId,
    /// The record.
    pub record: Head,
    /// Its kind.
    pub kind: &'static str,
    /// The head that it was to follow.
    pub before: String,
}

/// The state after one more record.
///
/// # Errors
/// If the record's version does not follow the head's, or a thread does not begin with a start.
pub fn fold(
    thread: &ThreadId,
    state: Option<ThreadState>,
    record: &Record,
) -> Result<ThreadState, FoldError> {
    let error = |before: String| FoldError {
        thread: thread.clone(),
        record: record.head,
        kind: record.body.kind(),
        before,
    };
    let expected = state.as_ref().map_or(1, |state| state.head.version + 1);
    if record.head.version != expected {
        return Err(error(state.map_or_else(
            || "nothing".to_owned(),
            |state| state.head.to_string(),
        )));
    }
    let fresh = state.as_ref().is_none_or(|state| state.deleted);
    let mut state = match (&record.body, state) {
        (
            RecordBody::Started {
                command,
                graph,
                profile,
                ..
            },
            state,
        ) if fresh => {
            let untold = state.map(|state| state.untold).unwrap_or_default();
            ThreadState {
                thread: thread.clone(),
                head: record.head,
                time: record.time,
                created_at: record.time,
                incarnation: command.id.clone(),
                graph: graph.clone(),
                profile: *profile,
                metadata: serde_json::Map::new(),
                checkpoint: Checkpoint::empty(Lineage::root(command.id.as_str())),
                saved: None,
                tasks: Vec::new(),
                decision: None,
                rounds: std::collections::BTreeMap::new(),
                run: None,
                applied: Vec::new(),
                untold,
                closed: Vec::new(),
                deleted: false,
            }
        }
        (_, Some(state)) if !state.deleted => state,
        (_, state) => {
            return Err(error(state.map_or("nothing", |_| "a tombstone").to_owned()));
        }
    };
    state.head = record.head;
    state.time = record.time;
    state.untold.retain(|version| *version > record.told);
    if makes_events(&record.body) {
        state.untold.insert(record.head.version);
    }
    apply_body(&mut state, record);
    Ok(state)
}

/// Whether a record makes events; see `events`.
pub(crate) fn makes_events(body: &RecordBody) -> bool {
    match body {
        RecordBody::Committed(committed) => {
            matches!(committed.then, Then::Complete | Then::Wait | Then::Fail(_))
        }
        RecordBody::UpdateAsked { .. } => false,
        RecordBody::Started { .. }
        | RecordBody::Interrupted(_)
        | RecordBody::Failed(_)
        | RecordBody::Resumed { .. }
        | RecordBody::Retried { .. }
        | RecordBody::Declined { .. }
        | RecordBody::Cancelled { .. }
        | RecordBody::DeadlinePassed { .. }
        | RecordBody::Deleted { .. } => true,
    }
}

fn apply_body(state: &mut ThreadState, record: &Record) {
    let head = record.head;
    match &record.body {
        RecordBody::Started {
            command,
            run,
            graph,
            input,
            recursion_limit,
            config,
            metadata,
            ..
        } => {
            give_up_questions(state, "new input");
            drop_rounds(state);
            state.graph = graph.clone();
            state.metadata.extend(metadata.clone());
            state.checkpoint.untracked.clear();
            state.applied.push(command.id.clone());
            let asked = Asked::Input {
                input: input.clone(),
            };
            state.decision = Some(Decision {
                dispatch: head,
                asked,
            });
            begin_run(state, run, command, *recursion_limit, config.clone());
        }
        RecordBody::Committed(committed) => commit(state, record, committed),
        RecordBody::Interrupted(parked) => {
            park(state, record, parked);
            end_run(state, RunStatus::Success);
        }
        RecordBody::Failed(parked) => {
            park(state, record, parked);
            if let Some(run) = &mut state.run {
                run.error.clone_from(&parked.error);
            }
            // A deadline that passed while this round ran is what ended the run.
            let timeout = state
                .run
                .as_ref()
                .is_some_and(|run| run.status == RunStatus::Timeout);
            if !timeout {
                end_run(state, RunStatus::Error);
            }
        }
        RecordBody::Resumed {
            command,
            run,
            answers,
            tasks,
        } => {
            forget_untracked(state);
            for (id, value) in answers {
                answer(state, record, command, id, value.clone());
            }
            state.applied.push(command.id.clone());
            continue_run(state, run, command);
            open_round(state, head, run, tasks);
        }
        RecordBody::Retried {
            command,
            run,
            tasks,
        } => {
            forget_untracked(state);
            state.applied.push(command.id.clone());
            continue_run(state, run, command);
            if tasks.is_empty() {
                state.decision = Some(Decision {
                    dispatch: head,
                    asked: Asked::Close,
                });
            }
            open_round(state, head, run, tasks);
        }
        RecordBody::UpdateAsked {
            command,
            values,
            as_node,
        } => {
            // Part of the lineage of what it leads to: after an update questions are new ones.
            state.applied.push(command.id.clone());
            let (command, values, as_node) = (command.clone(), values.clone(), as_node.clone());
            let asked = Asked::Update {
                command,
                values,
                as_node,
            };
            state.decision = Some(Decision {
                dispatch: head,
                asked,
            });
        }
        RecordBody::Declined {
            closes, command, ..
        } => {
            // It changed nothing, so it leaves no trace in the lineage either.
            if state.waits_for(*closes) && state.applied.last() == Some(&command.id) {
                state.applied.pop();
            }
            close(state, *closes);
        }
        RecordBody::Cancelled { command, .. } => {
            give_up_questions(state, "cancelled");
            drop_rounds(state);
            state.applied.push(command.id.clone());
            if let Some(run) = &mut state.run
                && matches!(
                    run.status,
                    RunStatus::Pending | RunStatus::Running | RunStatus::Success
                )
            {
                run.status = RunStatus::Interrupted;
            }
        }
        RecordBody::DeadlinePassed { interrupt } => expire(state, interrupt),
        RecordBody::Deleted { .. } => {
            give_up_questions(state, "deleted");
            drop_rounds(state);
            state.tasks.clear();
            let untold = std::mem::take(&mut state.untold);
            state.checkpoint = Checkpoint::empty(state.checkpoint.lineage.clone());
            state.saved = None;
            state.run = None;
            state.applied.clear();
            state.closed.clear();
            state.metadata.clear();
            state.untold = untold
                .into_iter()
                .filter(|version| *version == head.version)
                .collect();
            state.deleted = true;
        }
    }
}

fn commit(state: &mut ThreadState, record: &Record, committed: &Committed) {
    let run = state.rounds.get(&committed.closes).cloned();
    close(state, committed.closes);
    drop_rounds(state);
    let why = match committed.source {
        Source::Update => "the state was updated",
        Source::Input | Source::Loop | Source::Fork => "its task finished without it",
    };
    give_up_questions(state, why);
    state.checkpoint.merge(&committed.delta);
    state.checkpoint.step = committed.step;
    state.checkpoint.source = committed.source;
    state.checkpoint.lineage = committed.lineage.clone();
    state.saved = Some((record.head, record.time));
    state.applied.clear();
    state.tasks = committed
        .tasks
        .iter()
        .map(|task| TaskState {
            task: task.clone(),
            progress: Progress::Waiting,
            error: None,
            questions: Vec::new(),
        })
        .collect();
    let run = run.or_else(|| state.run.as_ref().map(|run| run.id.clone()));
    match &committed.then {
        Then::Run => {
            let tasks: Vec<TaskId> = state
                .tasks
                .iter()
                .map(|task| task.task.id.clone())
                .collect();
            if let Some(run) = &run {
                open_round(state, record.head, run, &tasks);
            }
            if let Some(run) = &mut state.run {
                run.status = RunStatus::Running;
            }
        }
        Then::Complete => set_status(state, RunStatus::Success),
        Then::Wait => {
            // An update ends no run, but a thread that failed and was mended waits again.
            if let Some(run) = &mut state.run
                && matches!(run.status, RunStatus::Error | RunStatus::Timeout)
            {
                run.status = RunStatus::Interrupted;
            }
        }
        Then::Fail(error) => {
            if let Some(run) = &mut state.run {
                run.error = Some(error.clone());
            }
            set_status(state, RunStatus::Error);
        }
    }
}

fn park(state: &mut ThreadState, record: &Record, parked: &Parked) {
    for (id, result) in &parked.results {
        let Some(at) = state.tasks.iter().position(|task| task.task.id == *id) else {
            continue;
        };
        if let TaskResult::Failed { error, .. } = result {
            state.tasks[at].error = Some(error.clone());
        }
        match result {
            // Of the second kind the node itself returned and only a path of it failed: LangGraph
            // keeps its writes and does not run it again, and so do we.
            TaskResult::Finished { writes }
            | TaskResult::Failed {
                writes: Some(writes),
                ..
            } => {
                give_up_task_questions(state, at, "its task finished without it");
                state.tasks[at].progress = Progress::Finished {
                    writes: writes.clone(),
                };
            }
            TaskResult::Failed {
                error,
                writes: None,
            } => {
                state.tasks[at].progress = Progress::Failed {
                    error: error.clone(),
                };
            }
            TaskResult::Interrupted { raised } => {
                state.tasks[at].progress = Progress::Waiting;
                raise(state, at, record, raised);
            }
        }
    }
    close(state, parked.closes);
}

/// Opens the questions that are new, keeps those that are asked again, and gives up those that
/// the node no longer asks.
fn raise(state: &mut ThreadState, at: usize, record: &Record, raised: &[Raised]) {
    let task = &state.tasks[at];
    let asked_no_more: Vec<InterruptId> = task
        .open_questions()
        .filter(|question| raised.iter().all(|raised| raised.index != question.index))
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
    for raised in raised {
        if task
            .questions
            .iter()
            .any(|question| question.index == raised.index)
        {
            continue;
        }
        task.questions.push(Question {
            id: InterruptId::of(&task.task.id, raised.index),
            index: raised.index,
            payload: raised.payload.clone(),
            opened_at: record.time,
            opened_by: record.head.version,
            expires_at: raised.expires_at,
            answer: None,
        });
    }
    task.questions.sort_by_key(|question| question.index);
}

fn answer(
    state: &mut ThreadState,
    record: &Record,
    command: &CommandRef,
    id: &InterruptId,
    value: serde_json::Value,
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

fn expire(state: &mut ThreadState, interrupt: &InterruptId) {
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
    if let Some(run) = &mut state.run {
        run.error = Some(error);
        run.status = RunStatus::Timeout;
    }
}

/// Untracked values live as long as their run: one that goes on after it stopped reads them as
/// absent. While another round of the thread is open the run has not stopped.
fn forget_untracked(state: &mut ThreadState) {
    if state.rounds.is_empty() {
        state.checkpoint.untracked.clear();
    }
}

fn begin_run(
    state: &mut ThreadState,
    id: &RunId,
    command: &CommandRef,
    recursion_limit: u32,
    config: serde_json::Map<String, serde_json::Value>,
) {
    state.run = Some(Run {
        id: id.clone(),
        status: RunStatus::Pending,
        stop: stop_of(state, recursion_limit),
        recursion_limit,
        config,
        error: None,
        command: command.clone(),
    });
}

/// A resume or retry begins a new run with the settings of the one before.
fn continue_run(state: &mut ThreadState, id: &RunId, command: &CommandRef) {
    let (limit, config) = match state.run.take() {
        Some(run) => (run.recursion_limit, run.config),
        None => (crate::decide::RECURSION_LIMIT, serde_json::Map::new()),
    };
    begin_run(state, id, command, limit, config);
    set_status(state, RunStatus::Running);
}

fn stop_of(state: &ThreadState, recursion_limit: u32) -> i64 {
    state.checkpoint.step + 1 + i64::from(recursion_limit) + 1
}

fn set_status(state: &mut ThreadState, status: RunStatus) {
    if let Some(run) = &mut state.run {
        run.status = status;
    }
}

/// Ends the run, unless another round of the thread is still open: then that one's end does.
fn end_run(state: &mut ThreadState, status: RunStatus) {
    if state.rounds.is_empty() {
        set_status(state, status);
    }
}

fn open_round(state: &mut ThreadState, dispatch: Dispatch, run: &RunId, tasks: &[TaskId]) {
    if tasks.is_empty() {
        return;
    }
    for task in &mut state.tasks {
        if tasks.contains(&task.task.id) {
            task.progress = Progress::Open { dispatch };
        }
    }
    state.rounds.insert(dispatch, run.clone());
    drop_empty_rounds(state);
}

/// A task that moved to a new round, or that a deadline ended, leaves its old one; a round that
/// is left without tasks has nothing to wait for.
fn drop_empty_rounds(state: &mut ThreadState) {
    let rounds: Vec<Dispatch> = state.rounds.keys().copied().collect();
    for round in rounds {
        if state.round_tasks(round).next().is_none() {
            state.rounds.remove(&round);
        }
    }
}

/// Ends one dispatch: a round, or a decision.
fn close(state: &mut ThreadState, dispatch: Dispatch) {
    state.rounds.remove(&dispatch);
    if state
        .decision
        .as_ref()
        .is_some_and(|decision| decision.dispatch == dispatch)
    {
        state.decision = None;
    }
}

/// Ends every round and decision; tasks that were open wait.
fn drop_rounds(state: &mut ThreadState) {
    state.rounds.clear();
    state.decision = None;
    for task in &mut state.tasks {
        if matches!(task.progress, Progress::Open { .. }) {
            task.progress = Progress::Waiting;
        }
    }
}

fn give_up_questions(state: &mut ThreadState, why: &str) {
    for at in 0..state.tasks.len() {
        give_up_task_questions(state, at, why);
    }
}

fn give_up_task_questions(state: &mut ThreadState, at: usize, why: &str) {
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

fn remember(state: &mut ThreadState, id: InterruptId, how: Closed) {
    state.closed.push((id, how));
    if state.closed.len() > CLOSED_QUESTIONS_MAX {
        state.closed.remove(0);
    }
}
