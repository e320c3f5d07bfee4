//! Looking into the subgraphs of a thread's tasks, while their calls wait.
//!
//! Pure. A child's state is the fold of its log, as a thread's is; what views make of it is theirs.

use superstep_graph::NodeName;
use superstep_protocol::{Progress, TaskState, ThreadState, fold};

use super::{log::Log, subgraph_of};
use crate::{
    graphs::{Checkpointer, RunnableGraph, Subgraph},
    view::{Before, CheckpointView},
};

/// The first task of `node` whose call has begun and is not over, with its subgraph.
pub(super) fn child_task<'a>(
    graph: &'a RunnableGraph,
    state: &'a ThreadState,
    node: &NodeName,
) -> Option<(&'a TaskState, &'a Subgraph)> {
    let subgraph = subgraph_of(graph, node)?;
    let waits = |task: &&TaskState| {
        let over = matches!(task.progress, Progress::Finished { .. });
        task.task.node == *node && !over && !task.child.is_empty()
    };
    let task = state.tasks.iter().find(waits)?;
    Some((task, subgraph))
}

/// The state of a task's subgraph, with its graph; `None` if its call has not begun.
pub(crate) fn child_of<'a>(
    graph: &'a RunnableGraph,
    state: &ThreadState,
    task: &TaskState,
) -> Option<(&'a RunnableGraph, ThreadState)> {
    if task.child.is_empty() {
        return None;
    }
    let subgraph = subgraph_of(graph, &task.task.node)?;
    let log = Log::of(state, &task.task.id, subgraph.checkpointer).ok()?;
    Some((&subgraph.graph, log.into_state()?))
}

/// The graph and the state of the subgraph at `place`, nodes from the outside in.
pub(crate) fn at_place<'a>(
    graph: &'a RunnableGraph,
    state: &ThreadState,
    place: &[NodeName],
) -> Option<(&'a RunnableGraph, ThreadState)> {
    let (node, rest) = place.split_first()?;
    let (task, _) = child_task(graph, state, node)?;
    let (graph, child) = child_of(graph, state, task)?;
    if rest.is_empty() {
        Some((graph, child))
    } else {
        at_place(graph, &child, rest)
    }
}

/// The checkpoints of the subgraph at `place` in its present call, newest first.
pub(crate) fn history(
    graph: &RunnableGraph,
    state: &ThreadState,
    place: &[NodeName],
) -> Option<Vec<CheckpointView>> {
    let (node, rest) = place.split_first()?;
    let (task, subgraph) = child_task(graph, state, node)?;
    if !rest.is_empty() {
        let (graph, child) = child_of(graph, state, task)?;
        return history(graph, &child, rest);
    }
    let kept = match subgraph.checkpointer {
        Checkpointer::Own => state.kept.get(node).map(|kept| (**kept).clone()),
        Checkpointer::Inherit | Checkpointer::None => None,
    };
    let mut views = Vec::new();
    let mut child = kept;
    for record in &task.child {
        let before = child.as_ref().map(|before| Before::of(before, record));
        let next = fold(&state.thread, child.take(), record).ok()?;
        let topology = subgraph.graph.topology();
        CheckpointView::observe(&mut views, record, before, &next, Some(topology));
        child = Some(next);
    }
    views.reverse();
    Some(views)
}
