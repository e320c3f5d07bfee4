//! The queue of runs: how it fills, empties and gets its turn, and what a rollback brings back.
//!
//! Part of the fold: data in, data out. A thread that comes to rest with a run whose time has
//! come asks for it at once, under the record that brought it to rest.

use super::{
    questions::give_up_questions,
    runs::{decide_on, drop_rounds},
};
use crate::{
    ids::{Head, RunId},
    queue::{BEGUN_RUNS_MAX, HIDDEN_SPANS_MAX, Restored},
    record::RecordBody,
    state::{Asked, TaskState, ThreadState},
    status::RunStatus,
};

/// What was asked of the queue is asked anew after each record, if it still is to be.
pub(super) fn ask_no_next(state: &mut ThreadState) {
    if state.begins_next() {
        state.decision = None;
    }
}

/// Asks for the next run of the queue, if the thread rests and one may begin.
pub(super) fn ask_next(state: &mut ThreadState) {
    let rests = !state.deleted && !state.is_busy() && !state.holds_starts();
    if rests && state.next_queued(state.time).is_some() {
        decide_on(state, state.head, Asked::Next, None);
    }
}

/// Takes note of a run that a record begins, queues or declines.
pub(super) fn note_run(state: &mut ThreadState, head: Head, body: &RecordBody) {
    let run = match body {
        RecordBody::Started { run, .. }
        | RecordBody::Resumed { run, .. }
        | RecordBody::Retried { run, .. }
        | RecordBody::Declined {
            queued: Some(run), ..
        } => run,
        RecordBody::Commanded { asked, .. } => &asked.run,
        RecordBody::Enqueued(queued) => {
            state.queue.push(queued.as_ref().clone());
            return remember(state, &queued.run, head);
        }
        RecordBody::Displaced(displaced) => {
            state.queue = vec![displaced.start.clone()];
            return remember(state, &displaced.start.run, head);
        }
        _ => return,
    };
    state.queue.retain(|queued| queued.run != *run);
    remember(state, run, head);
}

/// The record that accepted a run is the first that says it.
fn remember(state: &mut ThreadState, run: &RunId, head: Head) {
    if state.begun(run).is_none() {
        state.begun.push((run.clone(), head));
    }
    if state.begun.len() > BEGUN_RUNS_MAX {
        state.begun.remove(0);
    }
}

/// Ends what runs and gives up what waits.
pub(super) fn end_open(state: &mut ThreadState, why: &str, restores: Option<&Restored>) {
    give_up_questions(state, why);
    drop_rounds(state);
    if let Some(run) = &mut state.run
        && matches!(
            run.status,
            RunStatus::Pending | RunStatus::Running | RunStatus::Success
        )
    {
        run.status = RunStatus::Interrupted;
    }
    if let Some(restores) = restores {
        restore(state, restores);
    }
}

/// The thread is as it was before the run; what that saved is not shown in the history.
fn restore(state: &mut ThreadState, restored: &Restored) {
    if let Some(graph) = &restored.graph {
        state.graph = graph.clone();
        state.topology.clone_from(&restored.topology);
        state.stays = None;
    }
    state.checkpoint = restored.checkpoint.clone();
    state.saved = restored.saved;
    let tasks = restored.tasks.iter().cloned();
    state.tasks = tasks.map(TaskState::planned).collect();
    state.kept.clone_from(&restored.kept);
    state.applied.clear();
    state.offer = None;
    state.commanded.clear();
    state.spoiled = None;
    state.amended = false;
    state.dropped.clear();
    let (first, last) = (restored.version + 1, state.head.version);
    match state.hidden.last_mut() {
        Some(before) if before.1 + 1 >= first => {
            *before = (before.0.min(first), last);
        }
        _ => state.hidden.push((first, last)),
    }
    if state.hidden.len() > HIDDEN_SPANS_MAX {
        state.hidden.remove(0);
    }
}
