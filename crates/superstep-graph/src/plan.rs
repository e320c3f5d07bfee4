//! Plan: which tasks a checkpoint triggers, and what each is given to read.
//!
//! The plan leaves no choice to the executor: ids and order are fixed here. The rules are those
//! of `prepare_next_tasks` in LangGraph's `pregel/_algo.py`.

use serde_json::{Map, Value};

use crate::{
    channel::{ChannelKind, Managed},
    checkpoint::{Checkpoint, Delta, Source, View},
    graph::{Graph, Node},
    ids::{ChannelName, Lineage, Namespace, NodeName, SENDS, START},
    task::{Task, TaskPath},
};

/// A checkpoint as it will be, and where it stands: what a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The checkpoint before.
    pub base: &'a Checkpoint,
    /// What changes in it.
    pub delta: &'a Delta,
    /// What will have made the new checkpoint.
    pub source: Source,
    /// The new checkpoint's step; its tasks run in the next one.
    pub step: i64,
    /// The new checkpoint's lineage.
    pub lineage: &'a Lineage,
    /// The graph's place.
    pub ns: &'a Namespace,
}

/// The tasks that a checkpoint triggers: packets first, then nodes by name, or in definition
/// order after an update or a fork. Packets to nodes that the graph does not have are dropped.
pub fn plan(graph: &Graph, planned: &Planned<'_>) -> Vec<Task> {
    let view = View {
        base: planned.base,
        delta: planned.delta,
    };
    let mut tasks = Vec::new();
    let sends = view.content(SENDS);
    for (index, send) in sends
        .iter()
        .filter_map(|s| s.as_array())
        .flatten()
        .enumerate()
    {
        let node = send.get("node").and_then(Value::as_str).unwrap_or_default();
        if let Some(node) = graph.node(node).filter(|node| node.spec.name != START) {
            let packet = send.get("arg").cloned().unwrap_or(Value::Null);
            tasks.push(task(
                planned,
                node,
                TaskPath::Push(index as u64),
                Vec::new(),
                Some(packet),
            ));
        }
    }
    let mut pulled: Vec<&Node> = graph
        .nodes
        .iter()
        .filter(|node| is_triggered(graph, &view, node))
        .collect();
    if matches!(planned.source, Source::Input | Source::Loop) {
        pulled.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    }
    for node in pulled {
        tasks.push(task(
            planned,
            node,
            TaskPath::Pull,
            node.triggers.clone(),
            None,
        ));
    }
    tasks
}

fn is_triggered(graph: &Graph, view: &View<'_>, node: &Node) -> bool {
    node.triggers.iter().any(|channel| {
        view.version(channel.as_str()) > view.seen(node.spec.name.as_str(), channel.as_str())
            && graph.channels[channel].available(view.content(channel.as_str()).as_deref())
    })
}

fn task(
    planned: &Planned<'_>,
    node: &Node,
    path: TaskPath,
    triggers: Vec<ChannelName>,
    packet: Option<Value>,
) -> Task {
    let name = node.spec.name.clone();
    let id = Task::id_of(planned.lineage, planned.ns, planned.step + 1, &name, &path);
    Task {
        id,
        node: name,
        path,
        triggers,
        packet,
    }
}

/// How far a run may go, for the values that the engine supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The superstep that runs.
    pub step: i64,
    /// The superstep that may not run any more.
    pub stop: i64,
}

impl Horizon {
    /// The value of a channel that the engine supplies.
    pub(crate) fn supply(self, managed: Managed) -> Value {
        match managed {
            Managed::RemainingSteps => Value::from(self.stop.saturating_sub(self.step)),
            Managed::IsLastStep => Value::from(self.step == self.stop.saturating_sub(1)),
        }
    }
}

/// What a task reads: its packet, or an object of the channels of the state that are available.
/// `__start__` reads the run's input, for `start_writes`.
pub fn input_of(graph: &Graph, checkpoint: &Checkpoint, task: &Task, horizon: Horizon) -> Value {
    if let Some(packet) = &task.packet {
        return packet.clone();
    }
    if task.node == START {
        return checkpoint.content(START).cloned().unwrap_or_default();
    }
    let reads = graph
        .node(task.node.as_str())
        .and_then(|node| node.spec.reads.as_ref());
    let channels = reads.unwrap_or(&graph.state);
    Value::Object(read(graph, checkpoint, channels, Some(horizon)))
}

/// The values of the state's channels that are available: what a result or a snapshot shows.
pub fn read_state(graph: &Graph, checkpoint: &Checkpoint) -> Value {
    Value::Object(read(graph, checkpoint, &graph.state, None))
}

/// The values of the output channels that are available.
pub fn read_output(graph: &Graph, checkpoint: &Checkpoint) -> Value {
    Value::Object(read(graph, checkpoint, &graph.output, None))
}

pub(crate) fn read<'a>(
    graph: &Graph,
    checkpoint: &Checkpoint,
    channels: impl IntoIterator<Item = &'a ChannelName>,
    horizon: Option<Horizon>,
) -> Map<String, Value> {
    let mut object = Map::new();
    for channel in channels {
        let value = match (graph.channels.get(channel), horizon) {
            (Some(ChannelKind::Managed(managed)), Some(horizon)) => Some(horizon.supply(*managed)),
            (Some(kind), _) => kind.read(checkpoint.content(channel.as_str())),
            (None, _) => None,
        };
        if let Some(value) = value {
            object.insert(channel.to_string(), value);
        }
    }
    object
}

/// The nodes of `tasks` in the order that lists show: packets, `__start__`, definition order.
pub fn listing_order(graph: &Graph, tasks: &[Task]) -> Vec<NodeName> {
    let mut ordered: Vec<&Task> = tasks.iter().collect();
    ordered.sort_by_key(|task| match task.path {
        TaskPath::Push(index) => (0, index, 0),
        TaskPath::Pull => (1, 0, graph.definition_order(&task.node)),
    });
    ordered.into_iter().map(|task| task.node.clone()).collect()
}
