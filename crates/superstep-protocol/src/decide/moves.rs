//! Moves: whether a thread goes over to another version of its graph.
//!
//! Which version is wanted is for the caller to say, who knows what workers registered; whether
//! it can take the thread, for a worker of it. Here stands only when either may be asked.
//!
//! The rule it keeps: a move for the sake of a command is asked for at rest only, so no command
//! takes running nodes from workers that are alive.

use std::collections::BTreeMap;

use superstep_graph::{Delta, TaskId};

use super::{Nothing, Verdict};
use crate::{
    ids::{Dispatch, GraphId},
    record::{CommandRef, RecordBody, TaskResult},
    refusal::Refusal,
    state::{Progress, ThreadState},
};

/// A thread that is to go over to another version of its graph.
#[derive(Clone, Debug, PartialEq)]
pub struct AskMove {
    /// The version.
    pub to: GraphId,
    /// Its topology, as it was registered.
    pub topology: Option<String>,
    /// The command that waits for it, if one does.
    pub command: Option<CommandRef>,
    /// What tasks of open rounds ended with so far, if that is known.
    pub results: BTreeMap<TaskId, TaskResult>,
}

/// What a version makes of a thread that it takes over.
#[derive(Clone, Debug, PartialEq)]
pub struct Migrated {
    /// The version.
    pub graph: GraphId,
    /// Its topology.
    pub topology: Option<String>,
    /// What its migration changed.
    pub delta: Delta,
}

pub(super) fn ask(state: &ThreadState, ask: &AskMove) -> Verdict {
    let late = Verdict::Nothing(Nothing::Late);
    let pending = state.decision.as_ref().zip(state.moving());
    match pending {
        _ if ask.to.name != state.graph.name => late,
        Some((_, pending)) if pending.to == ask.to => Verdict::Wait,
        Some((decision, _)) if ask.to == state.graph => Verdict::Append(RecordBody::MoveDeclined {
            closes: decision.dispatch,
            refusal: None,
        }),
        None if ask.to == state.graph => late,
        // A command whose thread another one set to work in between has its own say then.
        None if ask.command.is_some() && state.is_busy() => late,
        _ => Verdict::Append(RecordBody::MoveAsked {
            to: ask.to.clone(),
            topology: ask.topology.clone(),
            command: ask.command.clone(),
            results: parked(state, &ask.results),
        }),
    }
}

/// The results that need no second run of their nodes. One task at least stays open, so that the round
/// ends as ever.
fn parked(
    state: &ThreadState,
    results: &BTreeMap<TaskId, TaskResult>,
) -> BTreeMap<TaskId, TaskResult> {
    let is_open = |id: &TaskId| {
        let task = state.task(id);
        task.is_some_and(|task| matches!(task.progress, Progress::Open { .. }))
    };
    let mut done: BTreeMap<TaskId, TaskResult> = results
        .iter()
        .filter(|(id, result)| is_open(id) && matches!(result, TaskResult::Finished { .. }))
        .map(|(id, result)| (id.clone(), result.clone()))
        .collect();
    let open = state
        .unfinished()
        .filter(|task| matches!(task.progress, Progress::Open { .. }))
        .count();
    if done.len() == open {
        done.pop_last();
    }
    done
}

pub(super) fn made(
    state: &ThreadState,
    dispatch: Dispatch,
    made: &Result<Migrated, Refusal>,
) -> Verdict {
    let asked = state.decision.as_ref().zip(state.moving());
    let Some((_, asked)) = asked.filter(|(decision, _)| decision.dispatch == dispatch) else {
        return Verdict::Nothing(Nothing::Late);
    };
    match made {
        Ok(migrated) if migrated.graph == asked.to => Verdict::Append(RecordBody::Moved {
            closes: dispatch,
            graph: migrated.graph.clone(),
            topology: migrated.topology.clone(),
            delta: migrated.delta.clone(),
        }),
        // It was not this version that was asked.
        Ok(_) => Verdict::Nothing(Nothing::Late),
        Err(refusal) => Verdict::Append(RecordBody::MoveDeclined {
            closes: dispatch,
            refusal: Some(refusal.clone()),
        }),
    }
}
