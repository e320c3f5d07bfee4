//! Moves: a thread goes over to another version of its graph, or stays.
//!
//! Part of the fold: data in, data out. Asking ends the open rounds, so that nothing of the old
//! version's workers counts any more, and remembers what was open; the answer opens it again.
//!
//! The rule it keeps: a move is no step. Lineage, task ids, questions, answers and parked writes
//! are the same before and after it, so people and keys outside never see it.

use std::collections::BTreeMap;

use superstep_graph::{Delta, TaskId};

use super::{
    finish,
    runs::{decide_on, open_round, take_decision},
};
use crate::{
    ids::{Dispatch, GraphId, Head},
    moves::{Move, Stays},
    record::{CommandRef, TaskResult},
    refusal::Refusal,
    state::{Asked, Progress, ThreadState},
};

/// Asks workers of another version whether they can take the thread over.
pub(super) fn ask(
    state: &mut ThreadState,
    head: Head,
    (to, topology): (GraphId, Option<String>),
    command: Option<CommandRef>,
    results: &BTreeMap<TaskId, TaskResult>,
) {
    for (id, result) in results {
        if let Some(at) = state.tasks.iter().position(|task| task.task.id == *id) {
            finish(state, at, result);
        }
    }
    let mut reopen = Vec::new();
    for task in &mut state.tasks {
        if matches!(task.progress, Progress::Open { .. }) {
            task.progress = Progress::Waiting;
            reopen.push(task.task.id.clone());
        }
    }
    state.rounds.clear();
    let kept = match state.decision.take() {
        None => None,
        // It was on its way to a version that is no longer wanted.
        Some(decision) => match decision.asked {
            Asked::Move(before) => {
                reopen.extend(before.reopen);
                before.kept
            }
            _ => Some(Box::new(decision)),
        },
    };
    let asked = Asked::Move(Box::new(Move {
        to,
        topology,
        command,
        reopen,
        kept,
    }));
    decide_on(state, head, asked, None);
}

/// The thread goes on under the version that was asked.
pub(super) fn go(
    state: &mut ThreadState,
    head: Head,
    closes: Dispatch,
    (graph, topology): (&GraphId, &Option<String>),
    delta: &Delta,
) {
    // Runs that wait for the version that is left were to go on with what stands there.
    for queued in &mut state.queue {
        if queued.graph == state.graph {
            queued.graph = graph.clone();
            queued.topology.clone_from(topology);
        }
    }
    state.graph = graph.clone();
    state.topology.clone_from(topology);
    state.stays = None;
    state.checkpoint.merge(delta);
    open_again(state, head, closes);
}

/// The thread stays under its version.
pub(super) fn stay(
    state: &mut ThreadState,
    head: Head,
    closes: Dispatch,
    refusal: Option<Refusal>,
) {
    if let Some(asked) = open_again(state, head, closes) {
        state.stays = refusal.map(|refusal| {
            Box::new(Stays {
                to: asked.to,
                topology: asked.topology,
                command: asked.command.map(|command| command.id),
                refusal,
            })
        });
    }
}

/// What was open when the move was asked for is open again, under this record.
fn open_again(state: &mut ThreadState, head: Head, closes: Dispatch) -> Option<Move> {
    let Asked::Move(asked) = take_decision(state, closes)?.asked else {
        return None;
    };
    if let Some(kept) = &asked.kept {
        decide_on(state, head, kept.asked.clone(), kept.at.clone());
    }
    if let Some(run) = state.run.as_ref().map(|run| run.id.clone()) {
        open_round(state, head, &run, &asked.reopen);
    }
    Some(*asked)
}
