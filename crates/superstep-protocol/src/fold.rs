//! Fold: what a record means.
//!
//! A pure function of the state and the record; every reader of a log computes the same state.
//! It decides nothing and refuses nothing but a log that is not one: a gap, or a record that
//! cannot follow. Whether a record may be appended is `decide`'s business.

use serde_json::Value;
use superstep_graph::{Checkpoint, InterruptId, Lineage, Source, TaskId};

use crate::{
    ids::{CommandId, Dispatch, Head, RunId, ThreadId},
    record::{
        Amended, Base, CommandRef, Committed, Parked, Raised, Record, RecordBody, RunError,
        TaskResult, Terms, Then,
    },
    state::{
        Answer, Asked, AskedCommand, CLOSED_QUESTIONS_MAX, Closed, Decision, NEVER_OPENED,
        Progress, Question, Run, TaskState, ThreadState, value_digest,
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
            }
            | RecordBody::Created {
                command,
                graph,
                profile,
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
                offer: None,
                kept: std::collections::BTreeMap::new(),
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
        RecordBody::Committed(committed) => !matches!(committed.then, Then::Run),
        RecordBody::Amended(amended) => amended.tasks.is_empty(),
        RecordBody::UpdateAsked { .. } | RecordBody::Created { .. } => false,
        RecordBody::Started { .. }
        | RecordBody::Interrupted(_)
        | RecordBody::Failed(_)
        | RecordBody::Resumed { .. }
        | RecordBody::Retried { .. }
        | RecordBody::Commanded { .. }
        | RecordBody::ChildUpdated { .. }
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
            terms,
            at,
            ..
        } => {
            give_up_questions(state, "new input");
            drop_rounds(state);
            state.graph = graph.clone();
            state.metadata.extend(metadata.clone());
            state.checkpoint.untracked.clear();
            state.offer = None;
            state.applied.push(command.id.clone());
            let asked = Asked::Input {
                input: input.clone(),
            };
            decide_on(state, head, asked, at.clone());
            let step = at
                .as_ref()
                .map_or(state.checkpoint.step, |at| at.checkpoint.step);
            let settings = (*recursion_limit, config.clone(), terms.clone());
            begin_run(state, run, command, step, settings);
        }
        // All there is of it was made above.
        RecordBody::Created { .. } => {}
        RecordBody::Committed(committed) => commit(state, record, committed),
        RecordBody::Amended(amended) => amend(state, record, amended),
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
            offer,
            recursion_limit,
            terms,
        } => {
            forget_untracked(state);
            for (id, value) in answers {
                answer(state, record, command, id, value.clone());
            }
            state.applied.push(command.id.clone());
            state.offer.clone_from(offer);
            continue_run(state, run, command, *recursion_limit, terms);
            open_round(state, head, run, tasks);
            close_or_end(state, head);
        }
        RecordBody::Retried {
            command,
            run,
            tasks,
            again,
            recursion_limit,
            terms,
        } => {
            forget_untracked(state);
            state.applied.push(command.id.clone());
            state.offer = None;
            if *again {
                begin_again(state);
            }
            continue_run(state, run, command, *recursion_limit, terms);
            open_round(state, head, run, tasks);
            close_or_end(state, head);
        }
        RecordBody::Commanded {
            command,
            run,
            answers,
            offer,
            update,
            goto,
            at,
            again,
            recursion_limit,
            terms,
        } => {
            state.applied.push(command.id.clone());
            let asked = Asked::Command(Box::new(AskedCommand {
                command: command.clone(),
                run: run.clone(),
                answers: answers.clone(),
                offer: offer.clone(),
                update: update.clone(),
                goto: goto.clone(),
                again: *again,
                recursion_limit: *recursion_limit,
                terms: terms.clone(),
            }));
            decide_on(state, head, asked, at.clone());
        }
        RecordBody::UpdateAsked {
            command,
            values,
            as_node,
            more,
            at,
            subgraph,
        } => {
            // Part of the lineage of what it leads to: after an update questions are new ones.
            state.applied.push(command.id.clone());
            let asked = Asked::Update {
                command: command.clone(),
                values: values.clone(),
                as_node: as_node.clone(),
                more: more.clone(),
                subgraph: subgraph.clone(),
            };
            decide_on(state, head, asked, at.clone());
        }
        RecordBody::ChildUpdated {
            closes,
            task,
            child,
        } => {
            if let Some(at) = state.tasks.iter().position(|known| known.task.id == *task) {
                give_up_task_questions(state, at, "the state of its subgraph was updated");
                extend_log(&mut state.tasks[at].child, child);
            }
            close(state, *closes);
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
            state.kept.clear();
            state.offer = None;
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

/// Asks a worker of the graph to decide.
fn decide_on(state: &mut ThreadState, dispatch: Dispatch, asked: Asked, at: Option<Box<Base>>) {
    state.decision = Some(Decision {
        dispatch,
        asked,
        at,
    });
}

/// The decision that this dispatch asked for, which is made now.
fn take_decision(state: &mut ThreadState, dispatch: Dispatch) -> Option<Decision> {
    let mine = |decision: &mut Decision| decision.dispatch == dispatch;
    state.decision.take_if(mine)
}

/// A command applied to the checkpoint as it stands: its answers, then what it changes and the
/// tasks that it adds. No step passes, and what other tasks did stays.
fn amend(state: &mut ThreadState, record: &Record, amended: &Amended) {
    let asked = take_decision(state, amended.closes);
    if let Some(Asked::Command(asked)) = asked.map(|decision| decision.asked) {
        forget_untracked(state);
        if asked.again {
            begin_again(state);
        }
        for (id, value) in &asked.answers {
            answer(state, record, &asked.command, id, value.clone());
        }
        state.offer = asked.offer;
        let (run, command) = (&asked.run, &asked.command);
        continue_run(state, run, command, asked.recursion_limit, &asked.terms);
    }
    state.checkpoint.merge(&amended.delta);
    let mut before = std::mem::take(&mut state.tasks);
    for task in &amended.tasks {
        let known = before.iter().position(|known| known.task.id == task.id);
        state.tasks.push(match known {
            Some(at) => before.swap_remove(at),
            None => TaskState {
                added: true,
                ..TaskState::planned(task.clone())
            },
        });
    }
    open_round(state, record.head, &amended.run, &amended.round);
    close_or_end(state, record.head);
}

/// The superstep's tasks are as they were planned: nothing of them ran, nobody was asked.
fn begin_again(state: &mut ThreadState) {
    give_up_questions(state, "its superstep runs again from the start");
    for task in &mut state.tasks {
        *task = TaskState {
            added: task.added,
            ..TaskState::planned(task.task.clone())
        };
    }
}

/// A run that found no task to run applies what is finished; without that it is over.
fn close_or_end(state: &mut ThreadState, head: Head) {
    if state.is_busy() {
        return;
    }
    if !state.tasks.is_empty() && state.unfinished().next().is_none() {
        decide_on(state, head, Asked::Close, None);
    } else {
        set_status(state, RunStatus::Success);
    }
}

/// Adds records to a log; those that were there under the same versions are gone.
fn extend_log(log: &mut Vec<Record>, new: &[Record]) {
    if let Some(first) = new.first() {
        log.retain(|record| record.head.version < first.head.version);
        log.extend_from_slice(new);
    }
}

fn commit(state: &mut ThreadState, record: &Record, committed: &Committed) {
    let mut run = state.rounds.get(&committed.closes).cloned();
    let decision = take_decision(state, committed.closes);
    if let Some(Decision { asked, at, .. }) = decision {
        if let Some(base) = at {
            state.checkpoint = base.checkpoint;
            state.saved = Some(base.saved);
        }
        // A copy of a checkpoint begins the run that was asked for; an input has begun its own.
        if let Asked::Command(asked) = asked {
            let limit = asked.recursion_limit;
            continue_run(state, &asked.run, &asked.command, limit, &asked.terms);
            run = Some(asked.run);
        }
    }
    close(state, committed.closes);
    drop_rounds(state);
    state.offer = None;
    for (node, kept) in &committed.kept {
        state.kept.insert(node.clone(), kept.clone());
    }
    if let Some(run) = &mut state.run {
        run.shows |= committed.output;
    }
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
        .map(|task| TaskState::planned(task.clone()))
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
        Then::Complete | Then::Break => set_status(state, RunStatus::Success),
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
        extend_log(&mut state.tasks[at].child, result.child());
        match result {
            TaskResult::Finished {
                writes,
                handled,
                keeps,
            } => {
                give_up_task_questions(state, at, "its task finished without it");
                if handled.is_some() {
                    state.tasks[at].error.clone_from(handled);
                }
                state.tasks[at].progress = Progress::Finished {
                    writes: writes.clone(),
                    handled: handled.clone(),
                    keeps: keeps.clone(),
                };
            }
            // The node itself returned and only a path of it failed: LangGraph keeps its writes
            // and does not run it again, and so do we.
            TaskResult::Failed {
                writes: Some(writes),
                ..
            } => {
                give_up_task_questions(state, at, "its task finished without it");
                state.tasks[at].progress = Progress::Finished {
                    writes: writes.clone(),
                    handled: None,
                    keeps: None,
                };
            }
            TaskResult::Failed {
                error,
                writes: None,
                took,
                ..
            } => {
                take_offered(state, at, record, took);
                state.tasks[at].progress = Progress::Failed {
                    error: error.clone(),
                };
            }
            TaskResult::Interrupted { raised, took, .. } => {
                take_offered(state, at, record, took);
                state.tasks[at].progress = Progress::Waiting;
                raise(state, at, record, raised);
            }
        }
    }
    close(state, parked.closes);
}

/// The answer that was offered to whoever asks first went to these questions: it is replayed to
/// them like any other.
fn take_offered(state: &mut ThreadState, at: usize, record: &Record, took: &[(usize, Value)]) {
    let Some(run) = state.run.as_ref().filter(|_| !took.is_empty()) else {
        return;
    };
    let (command, sender) = (run.command.id.clone(), run.command.sender.clone());
    let task = &mut state.tasks[at];
    for (index, value) in took {
        task.questions.retain(|question| question.index != *index);
        task.questions.push(Question {
            id: InterruptId::of(&task.task.id, *index),
            index: *index,
            payload: Value::Null,
            opened_at: record.time,
            opened_by: NEVER_OPENED,
            expires_at: None,
            answer: Some(Answer {
                value: value.clone(),
                at: record.time,
                command: command.clone(),
                sender: sender.clone(),
            }),
        });
    }
    task.questions.sort_by_key(|question| question.index);
    state.offer = None;
}

/// Opens the questions that are new, keeps those that are asked again, and gives up those that
/// the node no longer asks.
fn raise(state: &mut ThreadState, at: usize, record: &Record, raised: &[Raised]) {
    let task = state.tasks[at].task.id.clone();
    let id_of = |raised: &Raised| match &raised.id {
        Some(id) => id.clone(),
        None => InterruptId::of(&task, raised.index),
    };
    let asked: Vec<InterruptId> = raised.iter().map(id_of).collect();
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

/// What a run is given: how many supersteps it may take, values that nodes may read, and terms.
type Settings = (u32, serde_json::Map<String, Value>, Terms);

/// Begins a run on a checkpoint of `step`.
fn begin_run(
    state: &mut ThreadState,
    id: &RunId,
    command: &CommandRef,
    step: i64,
    (recursion_limit, config, terms): Settings,
) {
    state.run = Some(Run {
        id: id.clone(),
        status: RunStatus::Pending,
        stop: step + 1 + i64::from(recursion_limit) + 1,
        recursion_limit,
        config,
        error: None,
        command: command.clone(),
        terms,
        shows: false,
    });
}

/// A resume or retry begins a new run with the values of the one before.
fn continue_run(
    state: &mut ThreadState,
    id: &RunId,
    command: &CommandRef,
    recursion_limit: Option<u32>,
    terms: &Terms,
) {
    let (limit, config) = match state.run.take() {
        Some(run) => (run.recursion_limit, run.config),
        None => (crate::decide::RECURSION_LIMIT, serde_json::Map::new()),
    };
    let settings = (recursion_limit.unwrap_or(limit), config, terms.clone());
    let step = state.checkpoint.step;
    begin_run(state, id, command, step, settings);
    if let Some(run) = &mut state.run {
        run.status = RunStatus::Running;
        run.shows = true;
    }
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
