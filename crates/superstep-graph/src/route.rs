//! Route: what a node returned becomes writes, its edges and paths included.
//!
//! Runs on the worker that ran the node, right after it. A path sees the state with its own
//! node's writes reduced in, not those of its siblings (LangGraph's `attach_branch`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    channel::ChannelKind,
    checkpoint::{Checkpoint, Delta, View},
    compile::branch_to,
    error::{InvalidUpdate, RouteError},
    graph::{Branch, Graph, Node, Out},
    ids::{ChannelName, END, NodeName, SENDS, START},
    plan::Horizon,
    reduce::kind,
    task::{Command, NodeOutput, Send, Target, Write, WriteValue},
};

/// What a finished node writes. On a failing path, what it wrote before is kept: the writes
/// are part of the task's result together with the error, if `RouteError::keeps_writes`.
#[derive(Debug)]
pub struct Routed {
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// The failure of a path or route, if any.
    pub error: Option<RouteError>,
    /// A command for the parent graph, if any; nothing else of the output counts then.
    pub parent: Option<Command>,
}

/// Reads a plain update: an object of channels (null updates nothing). Keys that are no channel
/// are kept apart in `extra`, for paths.
///
/// # Errors
/// If `update` is neither.
pub fn output_from_update(graph: &Graph, update: Value) -> Result<NodeOutput, InvalidUpdate> {
    let mut output = NodeOutput::none();
    let mut command = Command::default();
    match update {
        Value::Null => {}
        Value::Object(object) => {
            for (key, value) in object {
                if graph.state.contains(key.as_str()) {
                    command.update.push(Write {
                        channel: key.into(),
                        value: unwrap(value),
                    });
                } else {
                    output.extra.insert(key, value);
                }
            }
        }
        other => {
            return Err(InvalidUpdate::NotAnObject {
                found: kind(&other),
            });
        }
    }
    output.commands.push(command);
    Ok(output)
}

/// `{"__overwrite__": v}` is LangGraph's JSON form of an overwrite.
fn unwrap(value: Value) -> WriteValue {
    match value {
        Value::Object(mut object) if object.len() == 1 => match object.remove("__overwrite__") {
            Some(value) => WriteValue::Overwrite(value),
            None => WriteValue::Set(Value::Object(object)),
        },
        value => WriteValue::Set(value),
    }
}

/// Whether an unknown target of a goto, or an unknown channel of its update, is ignored, as
/// LangGraph does, or an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownTargets {
    /// The task fails and says which.
    #[default]
    Refused,
    /// The goto leads nowhere, the value goes nowhere.
    Ignored,
}

/// Makes the writes of `node` from what it returned. Its paths do not see the values that the
/// engine supplies, as for an update from outside, which is in no superstep; see [`route_within`].
pub fn route(
    graph: &Graph,
    checkpoint: &Checkpoint,
    node: &NodeName,
    output: NodeOutput,
    unknown: UnknownTargets,
) -> Routed {
    let follow = Some((checkpoint, None));
    route_by(graph, node, output, unknown, follow)
}

/// As [`route`], for a task of the superstep at `horizon`: paths see the values that the engine
/// supplies, as the node did.
pub fn route_within(
    graph: &Graph,
    checkpoint: &Checkpoint,
    node: &NodeName,
    output: NodeOutput,
    unknown: UnknownTargets,
    horizon: Horizon,
) -> Routed {
    let follow = Some((checkpoint, Some(horizon)));
    route_by(graph, node, output, unknown, follow)
}

/// Makes the writes of the error handler of `node`: the edges of a node that failed are not
/// followed, so it leads where its own targets do.
pub fn route_handled(
    graph: &Graph,
    node: &NodeName,
    output: NodeOutput,
    unknown: UnknownTargets,
) -> Routed {
    route_by(graph, node, output, unknown, None)
}

/// `follow` is what the paths of the node read, if its edges are followed.
fn route_by(
    graph: &Graph,
    node: &NodeName,
    output: NodeOutput,
    unknown: UnknownTargets,
    follow: Option<(&Checkpoint, Option<Horizon>)>,
) -> Routed {
    let mut routed = Routed {
        writes: Vec::new(),
        error: None,
        parent: None,
    };
    let Some(spec) = graph.node(node.as_str()) else {
        routed.error = Some(RouteError::Update(InvalidUpdate::UnknownNode {
            node: node.clone(),
        }));
        return routed;
    };
    let mut commands = output.commands;
    if let Some(at) = commands.iter().position(|command| command.parent) {
        routed.parent = Some(commands.swap_remove(at));
        return routed;
    }
    let mut gotos = Vec::new();
    for mut command in commands {
        let is_known = |write: &Write| graph.state.contains(&write.channel);
        match command.update.iter().find(|write| !is_known(write)) {
            Some(unknown_write) if unknown == UnknownTargets::Refused => {
                let error = unknown_channel(graph, &unknown_write.channel);
                routed.error = Some(RouteError::Update(error));
                routed.writes.clear();
                return routed;
            }
            _ => command.update.retain(is_known),
        }
        routed.writes.extend(command.update);
        gotos.extend(command.goto);
    }
    let mut control = Vec::new();
    let result = targets_to_writes(graph, node, gotos, unknown, &mut control).and_then(|()| {
        let Some((checkpoint, horizon)) = follow else {
            return Ok(());
        };
        for out in &spec.edges {
            control.push(match out {
                Out::Trigger(channel) => Write::set(channel.clone(), Value::Null),
                Out::Join(channel) => Write::set(channel.clone(), json!(node)),
            });
        }
        if spec.branches.is_empty() {
            return Ok(());
        }
        let own = state_after(graph, checkpoint, &routed.writes, horizon)?;
        let state = Value::Object(output.extra.into_iter().chain(own).collect());
        follow_branches(graph, spec, &state, &mut control)
    });
    routed.writes.extend(control);
    routed.error = result.err();
    routed
}

/// What a command from outside writes: its update, then its targets, of no node's own.
pub(crate) fn command_writes(
    graph: &Graph,
    update: Value,
    goto: Vec<Target>,
    unknown: UnknownTargets,
) -> Result<Vec<Write>, RouteError> {
    let output = output_from_update(graph, update)?;
    if let Some(key) = output.extra.keys().next()
        && unknown == UnknownTargets::Refused
    {
        return Err(unknown_channel(graph, &key.as_str().into()).into());
    }
    let sender = NodeName::new("the command");
    let mut writes = Vec::new();
    targets_to_writes(graph, &sender, goto, unknown, &mut writes)?;
    let updates = output
        .commands
        .into_iter()
        .flat_map(|command| command.update);
    writes.extend(updates);
    Ok(writes)
}

fn unknown_channel(graph: &Graph, channel: &ChannelName) -> InvalidUpdate {
    let known: Vec<&str> = graph.state.iter().map(ChannelName::as_str).collect();
    InvalidUpdate::UnknownChannel {
        channel: channel.to_string(),
        known: known.join(", "),
    }
}

fn targets_to_writes(
    graph: &Graph,
    node: &NodeName,
    targets: Vec<Target>,
    unknown: UnknownTargets,
    control: &mut Vec<Write>,
) -> Result<(), RouteError> {
    for target in targets {
        match target {
            Target::Node(to) if to == END => {}
            Target::Send(send) if send.node == END => {
                return Err(InvalidUpdate::SendToEnd.into());
            }
            Target::Node(to) | Target::Send(Send { node: to, .. })
                if !graph.has_node(to.as_str()) && unknown == UnknownTargets::Refused =>
            {
                return Err(RouteError::UnknownTarget {
                    node: node.clone(),
                    target: to,
                });
            }
            Target::Node(to) => control.push(Write::set(branch_to(&to), Value::Null)),
            Target::Send(send) => control.push(Write::set(SENDS, json!(send))),
        }
    }
    Ok(())
}

fn follow_branches(
    graph: &Graph,
    spec: &Node,
    state: &Value,
    control: &mut Vec<Write>,
) -> Result<(), RouteError> {
    for branch in &spec.branches {
        let targets = (branch.path)(state).map_err(|reason| RouteError::Path {
            node: spec.spec.name.clone(),
            reason,
        })?;
        let targets = targets
            .into_iter()
            .map(|target| translate(&spec.spec.name, branch, target))
            .collect::<Result<Vec<_>, _>>()?;
        targets_to_writes(
            graph,
            &spec.spec.name,
            targets,
            UnknownTargets::Ignored,
            control,
        )?;
    }
    Ok(())
}

fn translate(node: &NodeName, branch: &Branch, target: Target) -> Result<Target, RouteError> {
    match (target, &branch.map) {
        (Target::Send(send), _) => Ok(Target::Send(send)),
        (Target::Node(result), Some(map)) => match map.get(result.as_str()) {
            Some(to) => Ok(Target::Node(to.clone())),
            None => Err(RouteError::UnmappedRoute {
                node: node.clone(),
                result: result.to_string(),
                known: map.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        },
        (Target::Node(to), None) if to == START || to.as_str().is_empty() => {
            Err(RouteError::InvalidRoute { node: node.clone() })
        }
        (target, None) => Ok(target),
    }
}

/// The state as it would be after a superstep with this node alone: its writes are reduced in,
/// and channels that live for one superstep are empty if it did not write them (LangGraph's
/// `local_read` in `pregel/_algo.py`).
fn state_after(
    graph: &Graph,
    checkpoint: &Checkpoint,
    writes: &[Write],
    horizon: Option<Horizon>,
) -> Result<Map<String, Value>, InvalidUpdate> {
    let mut by_channel: BTreeMap<&ChannelName, Vec<WriteValue>> = BTreeMap::new();
    for write in writes {
        by_channel
            .entry(&write.channel)
            .or_default()
            .push(write.value.clone());
    }
    let mut delta = Delta::default();
    for channel in &graph.state {
        let writes = by_channel.get(channel).map_or(&[][..], Vec::as_slice);
        let stored = checkpoint.content(channel.as_str());
        if let Some(change) = graph.channels[channel].update(channel, stored, writes)? {
            delta.channels.insert(channel.clone(), change);
        }
    }
    let view = View {
        base: checkpoint,
        delta: &delta,
    };
    let mut state = Map::new();
    for channel in &graph.state {
        let value = match (&graph.channels[channel], horizon) {
            (ChannelKind::Managed(managed), Some(horizon)) => Some(horizon.supply(*managed)),
            (kind, _) => kind.read(view.content(channel.as_str()).as_deref()),
        };
        if let Some(value) = value {
            state.insert(channel.to_string(), value);
        }
    }
    Ok(state)
}
