//! Start, cancel, update and retry: commands that name a thread and carry no answer.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::{Source, TaskId};

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
    Verdict::Append(started(start))
}

/// A start of a thread that exists. It is refused while a run is under way and, but for the
/// `langgraph` profile, while questions are open: new input would discard them without a word.
pub(super) fn start(state: &ThreadState, start: &Start) -> Verdict {
    if start.graph.name != state.graph.name {
        return Verdict::Refuse(Refusal::WrongGraph {
            thread: state.thread.clone(),
            graph: state.graph.name.clone(),
        });
    }
    let questions = state.open_questions().next().is_some();
    if state.is_busy() || (questions && state.profile == Profile::Default) {
        return Verdict::Refuse(busy(state));
    }
    if !start.input.is_null() {
        return Verdict::Append(started(start));
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

fn started(start: &Start) -> RecordBody {
    RecordBody::Started {
        command: start.command.clone(),
        run: start.run.clone(),
        graph: start.graph.clone(),
        profile: start.profile,
        input: start.input.clone(),
        recursion_limit: start.recursion_limit,
        config: start.config.clone(),
        metadata: start.metadata.clone(),
        terms: start.terms.clone(),
        at: start.at.clone(),
    }
}

pub(super) fn busy(state: &ThreadState) -> Refusal {
    Refusal::Busy {
        thread: state.thread.clone(),
        status: state.status(),
        run: state
            .run
            .as_ref()
            .map_or_else(|| RunId::new("-"), |run| run.id.clone()),
    }
}

/// Why nothing goes on from the last checkpoint, if that is so.
pub(super) fn spoiled(state: &ThreadState) -> Option<Refusal> {
    let reason = state.spoiled.clone()?;
    Some(Refusal::InvalidUpdate { reason })
}

/// Whether an update or command waits for a worker of the graph to apply it.
pub(super) fn graph_decides(state: &ThreadState) -> bool {
    let asked = state.decision.as_ref().map(|decision| &decision.asked);
    matches!(asked, Some(Asked::Update { .. } | Asked::Command(_)))
}

/// A cancel ends what runs and gives up what waits; finished supersteps stay.
pub(super) fn cancel(state: &ThreadState, command: &CommandRef, reason: Option<String>) -> Verdict {
    if graph_decides(state) {
        // The update was accepted and will be told of; what it leaves is what is cancelled.
        return Verdict::Wait;
    }
    let waits = state.open_questions().next().is_some();
    if !state.is_busy() && !waits {
        return Verdict::Refuse(Refusal::NothingToCancel {
            thread: state.thread.clone(),
            status: state.status(),
        });
    }
    Verdict::Append(RecordBody::Cancelled {
        command: command.clone(),
        reason,
    })
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
