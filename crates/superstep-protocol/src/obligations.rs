//! Obligations: what a thread still owes the world, at any time, from its state alone.
//!
//! They are all of what the state owes, not only the effects of the last record, so a lost
//! message, a lost event and a worker that died between append and publish are one case.
//! Performing them twice is one effect: work is a hint, events carry their ids.

use superstep_graph::TaskId;

use crate::{ids::Dispatch, state::ThreadState};

/// One thing that a thread owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obligation {
    /// The events of the record of this version must be in their stream.
    Events {
        /// The record.
        version: u64,
    },
    /// A worker of the graph must look at this dispatch.
    Work {
        /// The dispatch.
        dispatch: Dispatch,
        /// The tasks that are open in it; empty for a decision, which runs no node.
        tasks: Vec<TaskId>,
    },
}

/// What `state` owes: events first, in order, then work. Empty for a thread that waits or rests
/// and has told everything.
pub fn obligations(state: &ThreadState) -> Vec<Obligation> {
    let mut owed: Vec<Obligation> = state
        .untold
        .iter()
        .map(|version| Obligation::Events { version: *version })
        .collect();
    if state.deleted {
        return owed;
    }
    if let Some(decision) = &state.decision {
        owed.push(Obligation::Work {
            dispatch: decision.dispatch,
            tasks: Vec::new(),
        });
    }
    for dispatch in state.rounds.keys() {
        let tasks = state
            .round_tasks(*dispatch)
            .map(|task| task.task.id.clone())
            .collect();
        owed.push(Obligation::Work {
            dispatch: *dispatch,
            tasks,
        });
    }
    owed
}
