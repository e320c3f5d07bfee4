//! What comes from outside a superstep: the input of a run, and updates of the state.
//!
//! Both need the graph's channels and so run on one of its workers, as pure functions of the
//! checkpoint. Neither runs a node.

use serde_json::{Value, json};

use crate::{
    apply::{Contribution, Step, apply_step},
    checkpoint::{Checkpoint, Delta},
    error::{InvalidUpdate, RouteError},
    graph::Graph,
    ids::{NodeName, START},
    reduce::kind,
    route::{UnknownTargets, command_writes, output_from_update, route},
    task::{Send, Target, Task, TaskPath, Write},
};

/// The key of an input that is a command; see [`command_input`].
const COMMAND: &str = "__command__";

/// An input that is a command: what a new thread is started with is then its update, as if the
/// start had returned the command.
pub fn command_input(update: &Value, goto: Vec<Target>) -> Value {
    let goto: Vec<Value> = goto
        .into_iter()
        .map(|target| match target {
            Target::Node(node) => json!({"node": node}),
            Target::Send(send) => json!({"send": send}),
        })
        .collect();
    json!({COMMAND: {"update": update, "goto": goto}})
}

/// The update and the targets of an input that is a command.
fn as_command(input: &Value) -> Option<(Value, Vec<Target>)> {
    let object = input.as_object().filter(|object| object.len() == 1)?;
    let command = object.get(COMMAND)?.as_object()?;
    let target = |target: &Value| {
        let node = target.get("node").and_then(Value::as_str);
        let send = target.get("send").cloned();
        node.map(Target::from).or_else(|| {
            let send: Send = serde_json::from_value(send?).ok()?;
            Some(Target::Send(send))
        })
    };
    let goto = command.get("goto")?.as_array()?;
    Some((
        command.get("update")?.clone(),
        goto.iter().filter_map(target).collect(),
    ))
}

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
    let mut writes = vec![Write::set(START, input.clone())];
    if let Some((update, _)) = as_command(input) {
        let unknown = UnknownTargets::Ignored;
        // Targets have nothing to go to yet; the update can only be wrong in its form.
        if let Ok(update) = command_writes(graph, update, Vec::new(), unknown) {
            writes.extend(update);
        }
    }
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
        writes: &writes,
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
    let mut output = output_from_update(graph, known)?;
    if let Some((update, goto)) = as_command(input) {
        output = output_from_update(graph, update)?;
        for command in &mut output.commands {
            command.goto.clone_from(&goto);
        }
    }
    let start = NodeName::new(START);
    let routed = route(graph, checkpoint, &start, output, UnknownTargets::Ignored);
    match routed.error {
        Some(error) => Err(error),
        None => Ok(routed.writes),
    }
}

/// One update of the state: the values, and the node it is made as.
pub type NodeUpdate = (Value, Option<NodeName>);

/// What updates made of the state.
#[derive(Clone, Debug, PartialEq)]
pub struct Updates {
    /// What changes.
    pub delta: Delta,
    /// Each update's node and writes, in order.
    pub made: Vec<(NodeName, Vec<Write>)>,
}

/// Updates the state as if each node had returned its values, all in one superstep; their edges
/// and paths decide what runs next, and what was pending is dropped.
///
/// Without a node it is the one that ran last, or the start on a fresh thread (LangGraph's
/// `bulk_update_state` in `pregel/main.py`).
///
/// # Errors
/// If a node is not clear or not there, the values are no update, or a path fails.
pub fn update_state(
    graph: &Graph,
    checkpoint: &Checkpoint,
    updates: Vec<NodeUpdate>,
) -> Result<Updates, RouteError> {
    let made = updates
        .into_iter()
        .map(|update| update_writes(graph, checkpoint, update))
        .collect::<Result<Vec<_>, _>>()?;
    // Writes are seen in the order of the list, as packets' are.
    let paths: Vec<TaskPath> = (0..).map(TaskPath::Push).take(made.len()).collect();
    let tasks: Vec<Contribution<'_>> = made
        .iter()
        .zip(&paths)
        .map(|((node, writes), path)| Contribution {
            node,
            path,
            triggers: &[],
            writes,
        })
        .collect();
    let (delta, _) = apply_step(graph, checkpoint, &tasks, Step::Passed)?;
    Ok(Updates { delta, made })
}

fn update_writes(
    graph: &Graph,
    checkpoint: &Checkpoint,
    (values, as_node): NodeUpdate,
) -> Result<(NodeName, Vec<Write>), RouteError> {
    let node = match as_node {
        Some(node) if graph.has_node(node.as_str()) => node,
        Some(node) => return Err(InvalidUpdate::UnknownNode { node }.into()),
        None => last_node(graph, checkpoint)?,
    };
    if node == START {
        let writes = start_writes(graph, checkpoint, &values)?;
        return Ok((node, writes));
    }
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
    match routed.error {
        Some(error) => Err(error),
        None => Ok((node, routed.writes)),
    }
}

/// Applies a command to the checkpoint as it stands: its update, and its targets beside what is
/// triggered already. No superstep passes.
///
/// # Errors
/// If the update is no object, or names a channel or target that is not there and `unknown` says
/// that this matters.
pub fn amend(
    graph: &Graph,
    checkpoint: &Checkpoint,
    update: Value,
    goto: Vec<Target>,
    unknown: UnknownTargets,
) -> Result<Delta, RouteError> {
    let writes = command_writes(graph, update, goto, unknown)?;
    in_place(graph, checkpoint, &writes)
}

/// Writes of no node's own, applied to the checkpoint as it stands.
fn in_place(graph: &Graph, checkpoint: &Checkpoint, writes: &[Write]) -> Result<Delta, RouteError> {
    let command = [Contribution {
        node: &NodeName::new(""),
        path: &TaskPath::Pull,
        triggers: &[],
        writes,
    }];
    let (delta, _) = apply_step(graph, checkpoint, &command, Step::Same)?;
    Ok(delta)
}

/// Whether updates from commands can be applied to the checkpoint together.
///
/// # Errors
/// As [`amend`].
pub fn may_be_amended(
    graph: &Graph,
    checkpoint: &Checkpoint,
    updates: impl IntoIterator<Item = Value>,
    unknown: UnknownTargets,
) -> Result<(), RouteError> {
    let mut writes = Vec::new();
    for update in updates {
        writes.extend(command_writes(graph, update, Vec::new(), unknown)?);
    }
    in_place(graph, checkpoint, &writes).map(|_| ())
}

/// What is pending is done as far as it is, and nothing comes of the rest.
///
/// # Errors
/// If the finished writes cannot be applied together.
pub fn clear(
    graph: &Graph,
    checkpoint: &Checkpoint,
    tasks: &[Contribution<'_>],
) -> Result<Delta, InvalidUpdate> {
    apply_step(graph, checkpoint, tasks, Step::Passed).map(|(delta, _)| delta)
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
