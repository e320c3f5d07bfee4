//! Runs, rounds and decisions: how they begin and end.
//!
//! Part of the fold: data in, data out. A run is over once none of its dispatches is open.

use serde_json::Value;
use superstep_graph::TaskId;

use crate::{
    ids::{Dispatch, Head, RunId},
    pause::{Pause, Paused},
    record::{Base, CommandRef, Terms},
    state::{Asked, Decision, Progress, Run, ThreadState},
    status::RunStatus,
};

/// Asks a worker of the graph to decide.
pub(super) fn decide_on(
    state: &mut ThreadState,
    dispatch: Dispatch,
    asked: Asked,
    at: Option<Box<Base>>,
) {
    state.decision = Some(Decision {
        dispatch,
        asked,
        at,
    });
}

/// The decision that this dispatch asked for, which is made now.
pub(super) fn take_decision(state: &mut ThreadState, dispatch: Dispatch) -> Option<Decision> {
    let mine = |decision: &mut Decision| decision.dispatch == dispatch;
    state.decision.take_if(mine)
}

/// A run that found no task to run applies what is finished; without that it is over.
pub(super) fn close_or_end(state: &mut ThreadState, head: Head) {
    if state.is_busy() {
        return;
    }
    if !state.tasks.is_empty() && state.unfinished().next().is_none() {
        decide_on(state, head, Asked::Close, None);
    } else {
        set_status(state, RunStatus::Success);
    }
}

/// Untracked values live as long as their run: one that goes on after it stopped reads them as
/// absent. While another round of the thread is open the run has not stopped.
pub(super) fn forget_untracked(state: &mut ThreadState) {
    if state.rounds.is_empty() && !state.is_paused() {
        state.checkpoint.untracked.clear();
    }
}

/// What a run is given: how many supersteps it may take, values that nodes may read, and terms.
pub(super) type Settings = (u32, serde_json::Map<String, Value>, Terms);

/// Begins a run on a checkpoint of `step`.
pub(super) fn begin_run(
    state: &mut ThreadState,
    id: &RunId,
    command: &CommandRef,
    step: i64,
    (recursion_limit, config, terms): Settings,
) {
    // Rounds of a run before that are open are part of what a rollback undoes.
    let is_open = !state.rounds.is_empty() || state.is_paused();
    let open = state.run.as_ref().filter(|_| is_open);
    state.ttl_ms = terms.ttl_ms.or(state.ttl_ms);
    let since = open.map_or(state.head.version - 1, |run| run.since);
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
        since,
        origin: None,
    });
}

/// A resume or retry begins a new run with the values of the one before.
pub(super) fn continue_run(
    state: &mut ThreadState,
    id: &RunId,
    command: &CommandRef,
    recursion_limit: Option<u32>,
    terms: &Terms,
) {
    let origin = state.run.as_ref().map(|run| Box::new(run.origin()));
    let (limit, config) = match &state.run {
        Some(run) => (run.recursion_limit, run.config.clone()),
        None => (crate::decide::RECURSION_LIMIT, serde_json::Map::new()),
    };
    let settings = (recursion_limit.unwrap_or(limit), config, terms.clone());
    let step = state.checkpoint.step;
    begin_run(state, id, command, step, settings);
    if let Some(run) = &mut state.run {
        run.status = RunStatus::Running;
        run.shows = true;
        run.origin = origin;
    }
}

pub(super) fn set_status(state: &mut ThreadState, status: RunStatus) {
    if let Some(run) = &mut state.run {
        run.status = status;
    }
}

/// Ends the run, unless another round of the thread is still open or a task waits for a time: then
/// the end of that does.
pub(super) fn end_run(state: &mut ThreadState, status: RunStatus) {
    if state.rounds.is_empty() && !state.is_paused() {
        set_status(state, status);
    }
}

/// A task waits for a time, unless its run has failed meanwhile: then it waits for a retry.
pub(super) fn pause(state: &mut ThreadState, at: usize, paused: &Paused) {
    let failed = state.run.as_ref().is_some_and(|run| run.error.is_some());
    let task = &mut state.tasks[at];
    let sleeps = paused.sleeps.iter();
    task.sleeps
        .extend(sleeps.map(|(name, end)| (name.clone(), *end)));
    task.attempts = paused.attempts;
    task.tried_since = paused.since;
    if let Pause::Retry { error } = &paused.why {
        task.error = Some(error.clone());
    }
    task.progress = if failed {
        Progress::Waiting
    } else {
        Progress::Paused {
            until: paused.until,
        }
    };
}

/// Nothing goes on by itself any more: tasks that waited for a time wait for a command.
pub(super) fn end_pauses(state: &mut ThreadState) {
    for task in &mut state.tasks {
        if matches!(task.progress, Progress::Paused { .. }) {
            task.progress = Progress::Waiting;
        }
    }
}

/// A command has these tasks run: attempts from before it do not count.
pub(super) fn count_anew(state: &mut ThreadState, tasks: &[TaskId]) {
    for task in &mut state.tasks {
        if tasks.contains(&task.task.id) {
            task.attempts = 0;
            task.tried_since = None;
        }
    }
}

pub(super) fn open_round(
    state: &mut ThreadState,
    dispatch: Dispatch,
    run: &RunId,
    tasks: &[TaskId],
) {
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
pub(super) fn drop_empty_rounds(state: &mut ThreadState) {
    let rounds: Vec<Dispatch> = state.rounds.keys().copied().collect();
    for round in rounds {
        if state.round_tasks(round).next().is_none() {
            state.rounds.remove(&round);
        }
    }
}

/// Ends one dispatch: a round, or a decision.
pub(super) fn close(state: &mut ThreadState, dispatch: Dispatch) {
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
pub(super) fn drop_rounds(state: &mut ThreadState) {
    state.rounds.clear();
    state.decision = None;
    for task in &mut state.tasks {
        if matches!(task.progress, Progress::Open { .. }) {
            task.progress = Progress::Waiting;
        }
    }
    end_pauses(state);
}
