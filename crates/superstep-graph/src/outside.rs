//! What comes from outside a superstep: the input of a run, and updates of the state.
//!
//! Both need the graph's channels and so run on one of its workers, as pure functions of the
//! checkpoint. Neither runs a node.

use serde_json::Value;

use crate::{
    apply::{Contribution, Step, apply_step},
    checkpoint::{Checkpoint, Delta},
    error::{InvalidUpdate, RouteError},
    graph::Graph,
    ids::{NodeName, START},
    reduce::kind,
    route::{UnknownTargets, output_from_update, route},
    task::{Task, TaskPath, Write},
};

/// Takes a run's input: what was planned and did not finish is given up, and `__start__` is
/// triggered. The input itself enters the channels when `__start__` runs.
///
/// # Errors
/// If the input is not an object.
pub fn take_input(
    graph: &Graph,
    checkpoint: &Checkpoint,
    pending: &[Task],
    input: &Value,
) -> Result<Delta, InvalidUpdate> {
    if !input.is_object() {
        return Err(InvalidUpdate::NotAnObject { found: kind(input) });
    }
    let write = [Write::set(START, input.clone())];
    let path = TaskPath::Pull;
    let source = NodeName::new("");
    let mut given_up: Vec<Contribution<'_>> = pending
        .iter()
        .map(|task| Contribution::of(task, &[]))
        .collect();
    given_up.push(Contribution {
        node: &source,
        path: &path,
        triggers: &[],
        writes: &write,
    });
    // Without anything pending no superstep passed, and channels that live for one keep.
    let step = if pending.is_empty() {
        Step::Same
    } else {
        Step::Passed
    };
    apply_step(graph, checkpoint, &given_up, step).map(|(delta, _)| delta)
}

/// What `__start__` writes: the input's channels, then its edges and paths.
///
/// Keys that are no input channel are dropped, as LangGraph does; a worker that wants them
/// refused checks before the run starts.
///
/// # Errors
/// If a path of the start fails.
pub fn start_writes(
    graph: &Graph,
    checkpoint: &Checkpoint,
    input: &Value,
) -> Result<Vec<Write>, RouteError> {
    let known = match input {
        Value::Object(object) => Value::Object(
            object
                .iter()
                .filter(|(key, _)| graph.input.contains(key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        ),
        other => other.clone(),
    };
    let output = output_from_update(graph, known)?;
    let start = NodeName::new(START);
    let routed = route(graph, checkpoint, &start, output, UnknownTargets::Ignored);
    match routed.error {
        Some(error) => Err(error),
        None => Ok(routed.writes),
    }
}

/// Updates the state as if `as_node` had returned `values`; its edges and paths decide what
/// runs next, and what was pending is dropped.
///
/// Without `as_node` it is the node that ran last, or the start on a fresh thread
/// (LangGraph's `bulk_update_state` in `pregel/main.py`).
///
/// # Errors
/// If the node is not clear or not there, the values are no update, or a path fails.
pub fn update_state(
    graph: &Graph,
    checkpoint: &Checkpoint,
    values: Value,
    as_node: Option<&NodeName>,
) -> Result<(NodeName, Delta), RouteError> {
    let node = match as_node {
        Some(node) if graph.has_node(node.as_str()) => node.clone(),
        Some(node) => return Err(InvalidUpdate::UnknownNode { node: node.clone() }.into()),
        None => last_node(graph, checkpoint)?,
    };
    let writes = if node == START {
        start_writes(graph, checkpoint, &values)?
    } else {
        let output = output_from_update(graph, values)?;
        if let Some(key) = output.extra.keys().next() {
            let known: Vec<String> = graph.state.iter().map(ToString::to_string).collect();
            return Err(InvalidUpdate::UnknownChannel {
                channel: key.clone(),
                known: known.join(", "),
            }
            .into());
        }
        let routed = route(graph, checkpoint, &node, output, UnknownTargets::Ignored);
        if let Some(error) = routed.error {
            return Err(error);
        }
        routed.writes
    };
    let path = TaskPath::Pull;
    let update = [Contribution {
        node: &node,
        path: &path,
        triggers: &[],
        writes: &writes,
    }];
    let (delta, _) = apply_step(graph, checkpoint, &update, Step::Passed)?;
    Ok((node, delta))
}

fn last_node(graph: &Graph, checkpoint: &Checkpoint) -> Result<NodeName, InvalidUpdate> {
    let mut seen: Vec<(u64, &NodeName)> = checkpoint
        .seen
        .iter()
        .filter(|(node, _)| graph.has_node(node.as_str()))
        .flat_map(|(node, seen)| seen.values().map(move |version| (*version, node)))
        .collect();
    seen.sort();
    match seen.as_slice() {
        [] => Ok(NodeName::new(START)),
        [.., (before, _), (last, _)] if before == last => Err(InvalidUpdate::AmbiguousNode),
        [.., (_, node)] => Ok((*node).clone()),
    }
}
