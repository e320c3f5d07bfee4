//! The end of a round or of a decision task: what workers of the graph bring back.
//!
//! A result counts only for its dispatching record; anything else is late and changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::{ChannelChange, Delta, NodeName, Source, Task, TaskId, Write, WriteValue};

use super::{Nothing, Stop, Superstep, Updated, Verdict, answer};
use crate::{
    ids::Dispatch,
    record::{
        Amended, CommandRef, Committed, Parked, Profile, Record, RecordBody, RunError, TaskResult,
        Then, Trace, TracedWrite,
    },
    refusal::Refusal,
    state::{Asked, Progress, TaskState, ThreadState, is_internal},
};

/// What a worker has to compute before it can say that a round ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Closing<'a> {
    /// The state no longer waits for the round.
    Late,
    /// These tasks have no result yet.
    Incomplete(Vec<TaskId>),
    /// Every task of the superstep is finished: apply these writes, in plan order, and plan.
    Apply(Vec<(&'a Task, &'a [Write])>),
    /// The superstep is not complete; nothing is to be computed.
    Park,
}

/// Says what closing `dispatch` with `results` needs of the graph. For the dispatch of a retry
/// that only applies parked writes, `results` is empty.
pub fn close_with<'a>(
    state: &'a ThreadState,
    dispatch: Dispatch,
    results: &'a BTreeMap<TaskId, TaskResult>,
) -> Closing<'a> {
    let closes = state.decision.as_ref().is_some_and(|decision| {
        decision.dispatch == dispatch && matches!(decision.asked, Asked::Close)
    });
    // The dispatch of an input or an update is answered by what a worker made of that alone:
    // to end it as a round would lose what was asked.
    if !closes && !state.rounds.contains_key(&dispatch) {
        return Closing::Late;
    }
    let missing: Vec<TaskId> = state
        .round_tasks(dispatch)
        .filter(|task| !results.contains_key(&task.task.id))
        .map(|task| task.task.id.clone())
        .collect();
    if !missing.is_empty() {
        return Closing::Incomplete(missing);
    }
    // Another round of this run failed: the run ends in that error, as it would have if the
    // rounds had been one. What finished is parked; a retry goes on from there.
    if failed_before(state).is_some() {
        return Closing::Park;
    }
    let mut writes = Vec::with_capacity(state.tasks.len());
    for task in &state.tasks {
        let finished = match &task.progress {
            Progress::Finished { writes, .. } => Some(writes.as_slice()),
            Progress::Open { dispatch: open } if *open == dispatch => {
                match results.get(&task.task.id) {
                    Some(TaskResult::Finished { writes, .. }) => Some(writes.as_slice()),
                    _ => None,
                }
            }
            Progress::Open { .. }
            | Progress::Waiting
            | Progress::Paused { .. }
            | Progress::Failed { .. } => None,
        };
        match finished {
            Some(finished) => writes.push((&task.task, finished)),
            None => return Closing::Park,
        }
    }
    Closing::Apply(writes)
}

/// The error of a round of the current run that ended before, if one did.
fn failed_before(state: &ThreadState) -> Option<&RunError> {
    state.run.as_ref().and_then(|run| run.error.as_ref())
}

pub(super) fn ended(
    state: &ThreadState,
    dispatch: Dispatch,
    results: &BTreeMap<TaskId, TaskResult>,
    superstep: Option<&Result<Superstep, RunError>>,
) -> Verdict {
    let mine = || -> BTreeMap<TaskId, TaskResult> {
        state
            .round_tasks(dispatch)
            .filter_map(|task| {
                let id = &task.task.id;
                results.get(id).map(|result| (id.clone(), result.clone()))
            })
            .collect()
    };
    match (close_with(state, dispatch, results), superstep) {
        (Closing::Late, _) => Verdict::Nothing(Nothing::Late),
        (Closing::Incomplete(missing), _) => Verdict::Nothing(Nothing::Incomplete { missing }),
        (Closing::Apply(writes), Some(Ok(superstep))) => {
            let traces = writes
                .iter()
                .map(|(task, writes)| Trace {
                    handled: handled(state, results, &task.id),
                    ..trace(&task.id, writes, &superstep.delta)
                })
                .collect();
            let mut committed = committed(state, dispatch, superstep, Source::Loop);
            committed.traces = traces;
            committed.kept = kept(state, results);
            Verdict::Append(RecordBody::Committed(Box::new(committed)))
        }
        (Closing::Apply(_), Some(Err(error))) => Verdict::Append(RecordBody::Failed(Parked {
            closes: dispatch,
            run: state.run_of(dispatch),
            results: mine(),
            error: Some(error.clone()),
        })),
        // The caller looked at another state than this one; it decides again.
        (Closing::Apply(_), None) => Verdict::Nothing(Nothing::Incomplete {
            missing: Vec::new(),
        }),
        (Closing::Park, _) => {
            let results = mine();
            let error =
                state
                    .round_tasks(dispatch)
                    .find_map(|task| match results.get(&task.task.id) {
                        Some(TaskResult::Failed { error, .. }) => Some(error.clone()),
                        _ => None,
                    });
            let last = state.rounds.keys().all(|round| *round == dispatch);
            let error = error.or_else(|| failed_before(state).filter(|_| last).cloned());
            let parked = Parked {
                closes: dispatch,
                run: state.run_of(dispatch),
                results,
                error,
            };
            Verdict::Append(if parked.error.is_some() {
                RecordBody::Failed(parked)
            } else if only_waits(state, &parked.results) {
                RecordBody::Paused(parked)
            } else {
                RecordBody::Interrupted(parked)
            })
        }
    }
}

/// Whether a round that ends so asks nobody anything, and leaves tasks that wait for a time.
fn only_waits(state: &ThreadState, results: &BTreeMap<TaskId, TaskResult>) -> bool {
    let asks = |result: &TaskResult| {
        matches!(result, TaskResult::Interrupted { .. }) || !result.raised().is_empty()
    };
    let pauses = |result: &TaskResult| matches!(result, TaskResult::Paused(_));
    // Those of a run that has failed do not wait for their time any more.
    failed_before(state).is_none()
        && !results.values().any(asks)
        && (results.values().any(pauses) || state.is_paused())
}

/// How the node of a finished task failed, if an error handler wrote in its place.
fn handled(
    state: &ThreadState,
    results: &BTreeMap<TaskId, TaskResult>,
    task: &TaskId,
) -> Option<RunError> {
    if let Some(TaskResult::Finished { handled, .. }) = results.get(task) {
        return handled.clone();
    }
    match state.task(task).map(|task| &task.progress) {
        Some(Progress::Finished { handled, .. }) => handled.clone(),
        _ => None,
    }
}

/// The states of subgraphs that outlive their calls, as the superstep's tasks leave them.
fn kept(
    state: &ThreadState,
    results: &BTreeMap<TaskId, TaskResult>,
) -> BTreeMap<NodeName, Box<ThreadState>> {
    let of = |task: &TaskState| {
        let ((Some(TaskResult::Finished { keeps, .. }), _)
        | (None, Progress::Finished { keeps, .. })) = (results.get(&task.task.id), &task.progress)
        else {
            return None;
        };
        Some((task.task.node.clone(), keeps.clone()?))
    };
    state.tasks.iter().filter_map(of).collect()
}

fn committed(
    state: &ThreadState,
    closes: Dispatch,
    superstep: &Superstep,
    source: Source,
) -> Committed {
    let step = state.next_step();
    let may_go_on = state.run.as_ref().is_none_or(|run| step < run.stop);
    let then = match superstep.stop {
        Stop::After if !superstep.tasks.is_empty() => Then::Break,
        Stop::After => Then::Complete,
        _ if !may_go_on => {
            let limit = state.run.as_ref().map_or(0, |run| run.recursion_limit);
            Then::Fail(RunError {
                kind: "GraphRecursionError".to_owned(),
                message: format!(
                    "the recursion limit of {limit} supersteps was reached without coming to \
                     the end; raise `recursion_limit`, or give the loop a way out"
                ),
                node: None,
                task: None,
            })
        }
        _ if superstep.tasks.is_empty() => Then::Complete,
        Stop::Before => Then::Break,
        Stop::No => Then::Run,
    };
    Committed {
        source,
        step,
        lineage: superstep.lineage.clone(),
        delta: superstep.delta.clone(),
        tasks: superstep.tasks.clone(),
        then,
        closes,
        run: state.run_of(closes),
        as_node: None,
        traces: Vec::new(),
        output: superstep.output,
        kept: BTreeMap::new(),
    }
}

pub(super) fn input_taken(
    state: &ThreadState,
    dispatch: Dispatch,
    superstep: &Result<Superstep, RunError>,
) -> Verdict {
    match state
        .decision
        .as_ref()
        .filter(|decision| decision.dispatch == dispatch)
    {
        Some(decision) if matches!(decision.asked, Asked::Input { .. }) => {
            Verdict::Append(match superstep {
                Ok(superstep) => {
                    let state = state.decided_on(dispatch);
                    let committed = committed(&state, dispatch, superstep, Source::Input);
                    RecordBody::Committed(Box::new(committed))
                }
                Err(error) => RecordBody::Failed(Parked {
                    closes: dispatch,
                    run: state.run_of(dispatch),
                    results: BTreeMap::new(),
                    error: Some(error.clone()),
                }),
            })
        }
        _ => Verdict::Nothing(Nothing::Late),
    }
}

/// A run was prepared: the command is applied to the checkpoint as it stands, or to a copy of an
/// older one.
pub(super) fn command_applied(
    state: &ThreadState,
    dispatch: Dispatch,
    superstep: &Result<Superstep, String>,
) -> Verdict {
    let Some(decision) = state.decision.as_ref().filter(|d| d.dispatch == dispatch) else {
        return Verdict::Nothing(Nothing::Late);
    };
    let Asked::Command(asked) = &decision.asked else {
        return Verdict::Nothing(Nothing::Late);
    };
    let superstep = match superstep {
        Ok(superstep) => superstep,
        Err(reason) => {
            let spoils = decision.at.is_none() && state.profile == Profile::Langgraph;
            return Verdict::Append(declined(dispatch, &asked.command, reason, Some(spoils)));
        }
    };
    if decision.at.is_some() {
        let state = state.decided_on(dispatch);
        let mut copy = committed(&state, dispatch, superstep, Source::Fork);
        copy.run = Some(asked.run.clone());
        // It is a copy: no superstep passed that could be one too many, or be stopped at.
        copy.then = if copy.tasks.is_empty() {
            Then::Complete
        } else {
            Then::Run
        };
        return Verdict::Append(RecordBody::Committed(Box::new(copy)));
    }
    let runs = |task: &Task| match state.task(&task.id) {
        Some(known) if !asked.again => answer::runs_with(state.profile, known, &asked.answers),
        _ => true,
    };
    let round = superstep.tasks.iter().filter(|task| runs(task));
    Verdict::Append(RecordBody::Amended(Box::new(Amended {
        closes: dispatch,
        run: asked.run.clone(),
        delta: superstep.delta.clone(),
        round: round.map(|task| task.id.clone()).collect(),
        tasks: superstep.tasks.clone(),
    })))
}

pub(super) fn child_updated(
    state: &ThreadState,
    dispatch: Dispatch,
    task: &TaskId,
    child: &[Record],
) -> Verdict {
    if !state.waits_for(dispatch) || state.task(task).is_none() {
        return Verdict::Nothing(Nothing::Late);
    }
    Verdict::Append(RecordBody::ChildUpdated {
        closes: dispatch,
        task: task.clone(),
        child: child.to_vec(),
    })
}

fn declined(
    closes: Dispatch,
    command: &CommandRef,
    reason: &str,
    resume: Option<bool>,
) -> RecordBody {
    RecordBody::Declined {
        closes,
        command: command.clone(),
        refusal: Refusal::InvalidUpdate {
            reason: reason.to_owned(),
        },
        spoils: resume == Some(true),
        resume: resume.is_some(),
        queued: None,
    }
}

pub(super) fn update_applied(
    state: &ThreadState,
    dispatch: Dispatch,
    updated: &Result<Box<Updated>, String>,
) -> Verdict {
    let Some(decision) = state.decision.as_ref().filter(|d| d.dispatch == dispatch) else {
        return Verdict::Nothing(Nothing::Late);
    };
    let Asked::Update { command, .. } = &decision.asked else {
        return Verdict::Nothing(Nothing::Late);
    };
    let updated = match updated {
        Ok(updated) => updated,
        Err(reason) => return Verdict::Append(declined(dispatch, command, reason, None)),
    };
    let superstep = &updated.superstep;
    let traces = updated
        .tasks
        .iter()
        .map(|(task, writes)| trace(task, writes, &superstep.delta));
    Verdict::Append(RecordBody::Committed(Box::new(Committed {
        source: updated.source,
        step: state.decided_on(dispatch).step_of(updated.source),
        // An update is a new place to be: what is asked after it is asked anew.
        lineage: superstep.lineage.clone(),
        delta: superstep.delta.clone(),
        tasks: superstep.tasks.clone(),
        then: Then::Wait,
        closes: dispatch,
        run: None,
        as_node: Some(updated.as_node.clone()),
        traces: traces.collect(),
        output: superstep.output,
        kept: BTreeMap::new(),
    })))
}

/// What a task wrote to the state, without repeating what the delta holds anyway.
fn trace(task: &TaskId, writes: &[Write], delta: &Delta) -> Trace {
    let wrote = writes
        .iter()
        .filter(|write| !is_internal(write.channel.as_str()))
        .map(|write| {
            let change = delta.channels.get(&write.channel);
            if change.is_some_and(|change| says_the_same(change, &write.value)) {
                TracedWrite::AsDelta(write.channel.clone())
            } else {
                TracedWrite::Value(write.clone())
            }
        })
        .collect();
    Trace {
        task: task.clone(),
        wrote,
        handled: None,
    }
}

fn says_the_same(change: &ChannelChange, write: &WriteValue) -> bool {
    match (change, write) {
        (ChannelChange::Set(set), WriteValue::Set(written)) => set == written,
        (ChannelChange::Push(items), WriteValue::Set(Value::Array(written))) => items == written,
        _ => false,
    }
}
