//! Apply: the writes of a superstep's tasks become a delta, all at once.
//!
//! The order in which reducers see writes is fixed (named nodes by name, then packets by
//! index), so any order of arrival gives the same checkpoint. The steps are those of
//! `apply_writes` in LangGraph's `pregel/_algo.py`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    channel::ChannelKind,
    checkpoint::{ChannelChange, Checkpoint, Delta, View},
    error::InvalidUpdate,
    graph::Graph,
    ids::{ChannelName, NodeName},
    task::{Task, TaskPath, Write, WriteValue},
};

/// What one task brings to its superstep.
#[derive(Clone, Copy, Debug)]
pub struct Contribution<'a> {
    /// The node that ran.
    pub node: &'a NodeName,
    /// Where the task came from: decides the order of writes.
    pub path: &'a TaskPath,
    /// What triggered it; these channels are marked as seen, and consumed.
    pub triggers: &'a [ChannelName],
    /// What it wrote.
    pub writes: &'a [Write],
}

impl<'a> Contribution<'a> {
    /// What `task` brings with `writes`.
    pub fn of(task: &'a Task, writes: &'a [Write]) -> Self {
        Self {
            node: &task.node,
            path: &task.path,
            triggers: &task.triggers,
            writes,
        }
    }
}

/// Whether channels are told that a superstep passed. An in-place command leaves them alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Passed,
    Same,
}

/// Folds what the tasks of one superstep wrote into the channels.
///
/// # Errors
/// The first write, in write order by channel, that its channel refuses. Nothing is applied.
pub fn apply(
    graph: &Graph,
    checkpoint: &Checkpoint,
    tasks: &[Contribution<'_>],
) -> Result<Delta, InvalidUpdate> {
    let step = if tasks.is_empty() {
        Step::Same
    } else {
        Step::Passed
    };
    apply_step(graph, checkpoint, tasks, step).map(|(delta, _)| delta)
}

/// As [`apply`]; also gives the channels that are available and were updated.
pub(crate) fn apply_step(
    graph: &Graph,
    checkpoint: &Checkpoint,
    tasks: &[Contribution<'_>],
    step: Step,
) -> Result<(Delta, BTreeSet<ChannelName>), InvalidUpdate> {
    let mut tasks: Vec<&Contribution<'_>> = tasks.iter().collect();
    tasks.sort_by(|a, b| write_order(a).cmp(&write_order(b)));

    let mut delta = Delta::default();
    for task in &tasks {
        for channel in task.triggers {
            if let Some(version) = checkpoint.versions.get(channel) {
                let before = checkpoint
                    .seen
                    .get(task.node)
                    .and_then(|seen| seen.get(channel));
                if before != Some(version) {
                    let seen = delta.seen.entry(task.node.clone()).or_default();
                    seen.insert(channel.clone(), *version);
                }
            }
        }
    }
    let next_version = checkpoint.versions.values().max().copied().unwrap_or(0) + 1;
    let mut board = Board {
        graph,
        checkpoint,
        delta,
        next_version,
    };

    let read: BTreeSet<&ChannelName> = tasks.iter().flat_map(|task| task.triggers).collect();
    for channel in read {
        if let Some(kind) = graph.channels.get(channel) {
            let change = kind.consume(board.content(channel).as_deref());
            board.change(channel, kind, change);
        }
    }

    let mut writes: BTreeMap<&ChannelName, Vec<WriteValue>> = BTreeMap::new();
    for write in tasks.iter().flat_map(|task| task.writes) {
        // A write to a channel that is not (or no longer) in the graph has no one to read it.
        if graph.channels.contains_key(&write.channel) {
            writes
                .entry(&write.channel)
                .or_default()
                .push(write.value.clone());
        }
    }
    let mut updated = BTreeSet::new();
    for (channel, values) in &writes {
        let kind = &graph.channels[*channel];
        let change = kind.update(channel, board.content(channel).as_deref(), values)?;
        if board.change(channel, kind, change) {
            updated.insert((*channel).clone());
        }
    }

    if step == Step::Passed {
        for (channel, kind) in graph.channels.iter().filter(|(_, kind)| kind.fades()) {
            // Asked first: the content of a list that just grew would be copied to be looked at.
            if updated.contains(channel) {
                continue;
            }
            let content = board.content(channel);
            if !kind.available(content.as_deref()) {
                continue;
            }
            let change = kind.update(channel, content.as_deref(), &[])?;
            if board.change(channel, kind, change) {
                updated.insert(channel.clone());
            }
        }
        if updated.is_disjoint(&graph.triggering) {
            for (channel, kind) in graph.channels.iter().filter(|(_, kind)| kind.finishes()) {
                let change = kind.finish(board.content(channel).as_deref());
                if board.change(channel, kind, change) {
                    updated.insert(channel.clone());
                }
            }
        }
    }
    Ok((board.delta, updated))
}

fn write_order<'a>(task: &Contribution<'a>) -> (u8, &'a str, u64) {
    match task.path {
        TaskPath::Pull => (0, task.node.as_str(), 0),
        TaskPath::Push(index) => (1, "", *index),
    }
}

/// The delta while it is being made.
struct Board<'a> {
    graph: &'a Graph,
    checkpoint: &'a Checkpoint,
    delta: Delta,
    next_version: u64,
}

impl Board<'_> {
    fn content(&self, channel: &ChannelName) -> Option<std::borrow::Cow<'_, serde_json::Value>> {
        View {
            base: self.checkpoint,
            delta: &self.delta,
        }
        .content(channel.as_str())
    }

    /// Notes a change and the new version; answers whether the channel is available after it.
    fn change(
        &mut self,
        channel: &ChannelName,
        kind: &ChannelKind,
        change: Option<ChannelChange>,
    ) -> bool {
        let Some(change) = change else { return false };
        debug_assert!(
            self.graph.channels.contains_key(channel),
            "only channels of the graph change"
        );
        self.delta
            .versions
            .insert(channel.clone(), self.next_version);
        let changes = if matches!(kind, ChannelKind::Untracked) {
            &mut self.delta.untracked
        } else {
            &mut self.delta.channels
        };
        let available = match &change {
            ChannelChange::Remove => kind.available(None),
            ChannelChange::Set(value) => kind.available(Some(value)),
            ChannelChange::Push(_) | ChannelChange::Blob { .. } => true,
        };
        // A channel that was consumed in this very step has a change already; the later one
        // was computed from the content after it and replaces it.
        changes.insert(channel.clone(), change);
        available
    }
}
