//! Start, cancel, update and retry: commands that name a thread and carry no answer.

use superstep_graph::{NodeName, TaskId};

use super::{Start, Verdict};
use crate::{
    ids::RunId,
    record::{CommandRef, Profile, RecordBody},
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
    if start.input.is_null() {
        return retry(state, &start.command, &start.run);
    }
    Verdict::Append(started(start))
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

/// Whether an update waits for a worker of the graph to apply it.
pub(super) fn update_asked(state: &ThreadState) -> bool {
    state
        .decision
        .as_ref()
        .is_some_and(|decision| matches!(decision.asked, Asked::Update { .. }))
}

/// A cancel ends what runs and gives up what waits; finished supersteps stay.
pub(super) fn cancel(state: &ThreadState, command: &CommandRef, reason: Option<String>) -> Verdict {
    if update_asked(state) {
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
pub(super) fn update(
    state: &ThreadState,
    command: &CommandRef,
    values: &serde_json::Value,
    as_node: Option<NodeName>,
) -> Verdict {
    match &state.decision {
        Some(_) if update_asked(state) => Verdict::Wait,
        None if state.rounds.is_empty() => Verdict::Append(RecordBody::UpdateAsked {
            command: command.clone(),
            values: values.clone(),
            as_node,
        }),
        _ => Verdict::Refuse(busy(state)),
    }
}

/// A retry runs again what failed or was cancelled. Open questions stay open and their tasks
/// stay parked; in the `langgraph` profile those tasks run and ask again.
pub(super) fn retry(state: &ThreadState, command: &CommandRef, run: &RunId) -> Verdict {
    if state.is_busy() {
        return Verdict::Refuse(busy(state));
    }
    let tasks: Vec<TaskId> = state
        .tasks
        .iter()
        .filter(|task| match task.progress {
            Progress::Failed { .. } => true,
            Progress::Waiting => {
                state.profile == Profile::Langgraph || task.open_questions().next().is_none()
            }
            Progress::Open { .. } | Progress::Finished { .. } => false,
        })
        .map(|task| task.task.id.clone())
        .collect();
    let unapplied = !state.tasks.is_empty()
        && state
            .tasks
            .iter()
            .all(|task| matches!(task.progress, Progress::Finished { .. }));
    if tasks.is_empty() && !unapplied {
        return Verdict::Refuse(Refusal::NothingToRetry {
            thread: state.thread.clone(),
            status: state.status(),
        });
    }
    Verdict::Append(RecordBody::Retried {
        command: command.clone(),
        run: run.clone(),
        tasks,
    })
}
