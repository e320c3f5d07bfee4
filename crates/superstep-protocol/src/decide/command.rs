//! Start, update and retry: commands that name a thread and carry no answer.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::{InterruptId, Source, TaskId};

use super::{Start, StateUpdate, Verdict};
use crate::{
    ids::RunId,
    record::{AskedCommand, Base, CommandRef, Profile, RecordBody, Terms},
    refusal::Refusal,
    state::{Asked, Progress, ThreadState},
};

/// A start of a thread that has no log, or whose log is a tombstone.
pub(super) fn start_new(start: &Start) -> Verdict {
    if start.input.is_null() {
        let reason = "a new thread needs an input; send an object of the state's channels";
        return Verdict::Refuse(Refusal::InvalidInput {
            reason: reason.to_owned(),
        });
    }
    Verdict::Append(started(start, Vec::new()))
}

/// A start of a thread that rests: nothing of another run is in its way.
pub(super) fn begin(state: &ThreadState, start: &Start) -> Verdict {
    if !start.input.is_null() {
        return Verdict::Append(started(start, open_ids(state)));
    }
    let (limit, terms) = (Some(start.recursion_limit), &start.terms);
    let Some(at) = &start.at else {
        return retry(state, &start.command, &start.run, limit, terms);
    };
    if is_copy(state, at) {
        return replay(
            state,
            start.command.clone(),
            start.run.clone(),
            limit,
            terms.clone(),
        );
    }
    Verdict::Append(RecordBody::Commanded {
        asked: Box::new(AskedCommand {
            command: start.command.clone(),
            run: start.run.clone(),
            answers: BTreeMap::new(),
            offer: None,
            update: Value::Null,
            goto: Vec::new(),
            again: false,
            recursion_limit: limit,
            terms: terms.clone(),
        }),
        at: Some(at.clone()),
    })
}

/// Whether a checkpoint to go on from is a branch of its own already: the last one, made by an
/// update or as a copy.
pub(super) fn is_copy(state: &ThreadState, at: &Base) -> bool {
    let made = matches!(at.checkpoint.source, Source::Update | Source::Fork);
    made && Some(at.saved) == state.saved
}

/// The last checkpoint's tasks run as if they never had.
pub(super) fn replay(
    state: &ThreadState,
    command: CommandRef,
    run: RunId,
    recursion_limit: Option<u32>,
    terms: Terms,
) -> Verdict {
    if state.is_busy() {
        return Verdict::Refuse(busy(state));
    }
    Verdict::Append(RecordBody::Retried {
        command,
        run,
        tasks: state
            .tasks
            .iter()
            .map(|task| task.task.id.clone())
            .collect(),
        again: true,
        recursion_limit,
        terms,
    })
}

fn open_ids(state: &ThreadState) -> Vec<InterruptId> {
    let open = state.open_questions();
    open.map(|(_, question)| question.id.clone()).collect()
}

fn started(start: &Start, discards: Vec<InterruptId>) -> RecordBody {
    RecordBody::Started {
        command: start.command.clone(),
        run: start.run.clone(),
        graph: start.graph.clone(),
        topology: start.topology.clone(),
        profile: start.profile,
        input: start.input.clone(),
        recursion_limit: start.recursion_limit,
        config: start.config.clone(),
        metadata: start.metadata.clone(),
        terms: start.terms.clone(),
        at: start.at.clone(),
        discards,
    }
}

pub(super) fn busy(state: &ThreadState) -> Refusal {
    Refusal::Busy {
        thread: state.thread.clone(),
        status: state.status(),
        run: match (&state.run, state.queue.first()) {
            (_, Some(queued)) if !state.is_running() && !state.holds_starts() => queued.run.clone(),
            (Some(run), _) => run.id.clone(),
            (None, _) => RunId::new("-"),
        },
    }
}

/// Why nothing goes on from the last checkpoint, if that is so.
pub(super) fn spoiled(state: &ThreadState) -> Option<Refusal> {
    let reason = state.spoiled.clone()?;
    Some(Refusal::InvalidUpdate { reason })
}

/// Whether an update or command waits for a worker of the graph to apply it, or the thread for
/// one of another version to take it over.
pub(super) fn graph_decides(state: &ThreadState) -> bool {
    let asked = state.decision.as_ref().map(|decision| &decision.asked);
    matches!(
        asked,
        Some(Asked::Update { .. } | Asked::Command(_) | Asked::Move(_))
    )
}

/// An update of the state is decided by a worker of the graph; it is refused while tasks run.
pub(super) fn update(state: &ThreadState, update: &StateUpdate) -> Verdict {
    match &state.decision {
        Some(_) if graph_decides(state) => Verdict::Wait,
        None if !state.is_busy() => Verdict::Append(RecordBody::UpdateAsked {
            command: update.command.clone(),
            values: update.update.values.clone(),
            as_node: update.update.as_node.clone(),
            more: update.more.clone(),
            at: update.at.clone(),
            subgraph: update.subgraph.clone(),
        }),
        _ => Verdict::Refuse(busy(state)),
    }
}

/// A retry runs again what failed or was cancelled. Open questions stay open and their tasks
/// stay parked; in the `langgraph` profile those tasks run and ask again.
pub(super) fn retry(
    state: &ThreadState,
    command: &CommandRef,
    run: &RunId,
    recursion_limit: Option<u32>,
    terms: &Terms,
) -> Verdict {
    if state.moving().is_some() {
        return Verdict::Wait;
    }
    if state.is_busy() {
        return Verdict::Refuse(busy(state));
    }
    if let Some(refusal) = spoiled(state) {
        return Verdict::Refuse(refusal);
    }
    let tasks: Vec<TaskId> = state
        .tasks
        .iter()
        .filter(|task| match task.progress {
            Progress::Failed { .. } => true,
            Progress::Waiting => {
                state.profile == Profile::Langgraph || task.open_questions().next().is_none()
            }
            Progress::Open { .. } | Progress::Paused { .. } | Progress::Finished { .. } => false,
        })
        .map(|task| task.task.id.clone())
        .collect();
    let unapplied = !state.tasks.is_empty() && state.unfinished().next().is_none();
    // LangGraph begins a run that has nothing to do, and ends it.
    let idle = state.tasks.is_empty() && state.profile == Profile::Langgraph;
    if tasks.is_empty() && !unapplied && !idle {
        return Verdict::Refuse(Refusal::NothingToRetry {
            thread: state.thread.clone(),
            status: state.status(),
        });
    }
    Verdict::Append(RecordBody::Retried {
        command: command.clone(),
        run: run.clone(),
        tasks,
        again: false,
        recursion_limit,
        terms: terms.clone(),
    })
}
