//! Moves: what a version of a graph makes of a thread that it is to take over.
//!
//! Pure. The version can take the thread if it has every node that waits, inside subgraphs too,
//! and every way that parked writes go; its migration, if it has one, makes the values its own.
//!
//! The rule it keeps: a thread that cannot be taken whole is not taken at all.

use serde_json::{Map, Value};
use superstep_graph::{ChannelChange, Delta, NodeName, SENDS, START, Write};
use superstep_protocol::{Dispatch, Event, Migrated, Progress, Refusal, ThreadState, is_internal};

use crate::{
    child,
    error::{ERROR_CHARS_MAX, shortened},
    graphs::RunnableGraph,
    panics::caught,
    versions::VersionPolicy,
};

/// What `graph` says to taking the thread over.
pub(crate) fn made(graph: &RunnableGraph, state: &ThreadState, dispatch: Dispatch) -> Event {
    Event::MoveMade {
        dispatch,
        moved: take(graph, state),
    }
}

fn take(graph: &RunnableGraph, state: &ThreadState) -> Result<Migrated, Refusal> {
    if let Some(node) = missing(graph, state) {
        return Err(Refusal::MissingNode {
            thread: state.thread.clone(),
            node,
            from: state.graph.clone(),
            to: graph.id().clone(),
        });
    }
    let delta = migrate(graph, state).map_err(|reason| Refusal::MigrationFailed {
        thread: state.thread.clone(),
        from: state.graph.clone(),
        to: graph.id().clone(),
        reason: shortened(reason, ERROR_CHARS_MAX),
    })?;
    Ok(Migrated {
        graph: graph.id().clone(),
        topology: Some(graph.topology_hash()),
        delta,
    })
}

/// The first node that the thread waits at, or goes to from a finished one, and the graph does
/// not have.
fn missing(graph: &RunnableGraph, state: &ThreadState) -> Option<NodeName> {
    let topology = graph.topology();
    let is_there = |node: &str| node == START || topology.has_node(node);
    for task in &state.tasks {
        let node = &task.task.node;
        if let Progress::Finished { writes, .. } = &task.progress {
            // A write to a channel that is not there is passed over: the way would be lost.
            if let Some(node) = writes.iter().find_map(|write| packet_to(write, &is_there)) {
                return Some(node);
            }
            let mut ways = writes.iter().map(|write| write.channel.as_str());
            let lost = |way: &&str| is_internal(way) && topology.channel(way).is_none();
            if let Some(way) = ways.find(lost) {
                return Some(target_of(way).unwrap_or_else(|| node.clone()));
            }
            continue;
        }
        if !is_there(node.as_str()) {
            return Some(node.clone());
        }
        if let Some((graph, child)) = child::child_of(graph, state, task)
            && let Some(inside) = missing(graph, &child)
        {
            return Some(NodeName::new(format!("{node}|{inside}")));
        }
    }
    None
}

/// The node of a packet that is sent where nothing is.
fn packet_to(write: &Write, is_there: &impl Fn(&str) -> bool) -> Option<NodeName> {
    let packet = write.value.value();
    let node = packet.get("node").filter(|_| write.channel == *SENDS)?;
    let node = node.as_str().filter(|node| !is_there(node))?;
    Some(NodeName::new(node))
}

/// The node that a channel of a graph's routing leads to.
fn target_of(channel: &str) -> Option<NodeName> {
    let to = channel.strip_prefix("branch:to:");
    let join = || channel.strip_prefix("join:")?.rsplit_once(':');
    to.or_else(|| join().map(|(_, to)| to)).map(NodeName::new)
}

/// What the graph's migration changes of the values that are stored.
fn migrate(graph: &RunnableGraph, state: &ThreadState) -> Result<Delta, String> {
    let VersionPolicy::Migrate(migration) = graph.versions() else {
        return Ok(Delta::default());
    };
    let stored = &state.checkpoint.values;
    let before: Map<String, Value> = stored
        .iter()
        .filter(|(channel, _)| !is_internal(channel.as_str()))
        .map(|(channel, value)| (channel.to_string(), value.clone()))
        .collect();
    let after = caught(|| migration.migrate(state.graph.version.as_str(), before.clone()))
        .unwrap_or_else(|message| Err(format!("the migration panicked: {message}")))?;
    let channels = graph.topology().state_channels();
    if let Some(unknown) = after
        .keys()
        .find(|key| !channels.contains(key.as_str()) && !before.contains_key(*key))
    {
        return Err(format!(
            "the migration gives a value for `{unknown}`, which is no channel of {}",
            graph.id()
        ));
    }
    let mut delta = Delta::default();
    for gone in before.keys().filter(|key| !after.contains_key(*key)) {
        let removed = ChannelChange::Remove;
        delta.channels.insert(gone.as_str().into(), removed);
    }
    for (channel, value) in after {
        if before.get(&channel) != Some(&value) {
            let set = ChannelChange::Set(value);
            delta.channels.insert(channel.into(), set);
        }
    }
    Ok(delta)
}
