//! Decisions: what a worker of the graph brings back for a dispatch, as an event to decide on.
//!
//! Pure. It joins what `compute` makes of a state with the dispatch that asked for it, for the
//! engine, whose state is a thread's, and for a child, whose state is that of a subgraph's call.
//! What becomes of the event is the protocol's business.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::TaskId;
use superstep_protocol::{Closing, Dispatch, Event, TaskResult, ThreadState, Update, close_with};

use crate::{compute, graphs::RunnableGraph};

/// A run's input, taken.
pub(crate) fn input_taken(
    graph: &RunnableGraph,
    state: &ThreadState,
    dispatch: Dispatch,
    input: &Value,
    tasks_max: usize,
) -> Event {
    let state = state.decided_on(dispatch);
    Event::InputTaken {
        dispatch,
        superstep: compute::input(graph, &state, input, tasks_max),
    }
}

/// Updates of the state, applied in one superstep.
pub(crate) fn update_applied(
    graph: &RunnableGraph,
    state: &ThreadState,
    dispatch: Dispatch,
    updates: &[Update],
    tasks_max: usize,
) -> Event {
    let on = state.decided_on(dispatch);
    let mut superstep = compute::update(graph, &on, updates, tasks_max);
    if let (Ok(updated), true) = (&mut superstep, on.saved != state.saved) {
        // Only of the last checkpoint do tasks wait that it could be made for.
        updated.tasks.clear();
    }
    Event::UpdateApplied {
        dispatch,
        superstep,
    }
}

/// The end of a round: the next checkpoint if the superstep is complete.
pub(crate) fn round_ended(
    graph: &RunnableGraph,
    state: &ThreadState,
    dispatch: Dispatch,
    results: &BTreeMap<TaskId, TaskResult>,
    tasks_max: usize,
) -> Event {
    let superstep = match close_with(state, dispatch, results) {
        Closing::Apply(writes) => Some(compute::superstep(graph, state, &writes, tasks_max)),
        Closing::Late | Closing::Incomplete(_) | Closing::Park => None,
    };
    Event::RoundEnded {
        dispatch,
        results: results.clone(),
        superstep,
    }
}
