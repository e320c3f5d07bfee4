//! Views of what waits inside a subgraph, for whoever holds the thread's graph.
//!
//! Pure. Where a subgraph's progress lies is `child`'s to know; who may look is the callers'.

use superstep_graph::NodeName;
use superstep_protocol::{Refusal, ThreadState};

use crate::{
    child,
    graphs::RunnableGraph,
    view::{CheckpointView, StateView},
};

/// The state of the subgraph at `place`, nodes from the outside in; the thread's own if that is
/// empty. With the states of its own subgraphs if `subgraphs`.
pub(crate) fn state(
    graph: &RunnableGraph,
    state: &ThreadState,
    place: &[NodeName],
    subgraphs: bool,
) -> Result<StateView, Refusal> {
    let shown = |graph: &RunnableGraph, state: &ThreadState| {
        if subgraphs {
            StateView::with_subgraphs(state, graph)
        } else {
            StateView::of(state, Some(graph.topology()))
        }
    };
    if place.is_empty() {
        return Ok(shown(graph, state));
    }
    match child::at_place(graph, state, place) {
        Some((graph, inner)) => Ok(shown(graph, &inner)),
        None => Err(nothing_waits(state, place)),
    }
}

/// The checkpoints of the subgraph at `place` in the call that waits, newest first.
pub(crate) fn history(
    graph: &RunnableGraph,
    state: &ThreadState,
    place: &[NodeName],
    limit: usize,
) -> Result<Vec<CheckpointView>, Refusal> {
    let found = child::history(graph, state, place);
    let mut history = found.ok_or_else(|| nothing_waits(state, place))?;
    history.truncate(limit);
    Ok(history)
}

fn nothing_waits(state: &ThreadState, place: &[NodeName]) -> Refusal {
    let place: Vec<&str> = place.iter().map(NodeName::as_str).collect();
    Refusal::InvalidInput {
        reason: format!(
            "no task of thread `{}` waits inside the subgraph `{}`; look at it while it waits",
            state.thread,
            place.join("/")
        ),
    }
}
