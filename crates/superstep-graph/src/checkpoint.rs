//! The checkpoint: channel values, versions and versions seen, and the difference between two.
//!
//! Everything here is data that a record can carry; nothing needs the graph. A delta is what
//! one superstep changed, so that a record costs what changed and not what there is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{ChannelName, Lineage, NodeName};

/// What made a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A run with new input; saved before the input is applied.
    Input,
    /// A superstep.
    Loop,
    /// A state update from outside.
    Update,
    /// A copy of an older checkpoint.
    Fork,
}

impl Source {
    /// The source as its one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Loop => "loop",
            Self::Update => "update",
            Self::Fork => "fork",
        }
    }
}

/// How one channel's content changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelChange {
    /// The content becomes this.
    Set(Value),
    /// The list grows by these; a channel without content begins as an empty list.
    Push(Vec<Value>),
    /// The content goes away.
    Remove,
    /// As `Set` (or `Push` of a list), with the value out of line in the store. Stands only in
    /// encoded records; it is resolved before a fold.
    Blob {
        /// The blob's id.
        id: String,
        /// Whether the blob holds items to push.
        push: bool,
    },
}

/// What one superstep changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Channels whose content changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<ChannelName, ChannelChange>,
    /// Untracked channels whose content changed: they live as long as the run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untracked: BTreeMap<ChannelName, ChannelChange>,
    /// Channels whose version changed, with the new version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<ChannelName, u64>,
    /// Versions that nodes have now seen, where that changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<NodeName, BTreeMap<ChannelName, u64>>,
}

/// The saved state of a thread after a superstep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The superstep's number: -1 for the first input, 0 for `__start__`, then 1, 2 ...
    pub step: i64,
    /// What made it.
    pub source: Source,
    /// What it descends from.
    pub lineage: Lineage,
    /// The content of channels that have some; see `channel.rs` for its form by kind.
    #[serde(default)]
    pub values: BTreeMap<ChannelName, Value>,
    /// Values of the run that are in no saved state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untracked: BTreeMap<ChannelName, Value>,
    /// The version of each channel that was ever written.
    #[serde(default)]
    pub versions: BTreeMap<ChannelName, u64>,
    /// The versions of its triggers that each node has seen.
    #[serde(default)]
    pub seen: BTreeMap<NodeName, BTreeMap<ChannelName, u64>>,
}

impl Delta {
    /// The value that a channel's change says as a whole: what is set, or the items pushed.
    pub fn value_written(&self, channel: &ChannelName) -> Option<Value> {
        match self.channels.get(channel)? {
            ChannelChange::Set(value) => Some(value.clone()),
            ChannelChange::Push(items) => Some(Value::Array(items.clone())),
            ChannelChange::Remove | ChannelChange::Blob { .. } => None,
        }
    }
}

impl Checkpoint {
    /// What a thread has before its first checkpoint: nothing, at step -2.
    pub fn empty(lineage: Lineage) -> Self {
        Self {
            step: -2,
            source: Source::Input,
            lineage,
            values: BTreeMap::new(),
            untracked: BTreeMap::new(),
            versions: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// The content of a channel.
    pub fn content(&self, channel: &str) -> Option<&Value> {
        self.values
            .get(channel)
            .or_else(|| self.untracked.get(channel))
    }

    /// Applies a delta. Unresolved blobs are a bug of the caller and change nothing.
    pub fn merge(&mut self, delta: &Delta) {
        for (channel, change) in &delta.channels {
            change.apply_to(&mut self.values, channel);
        }
        for (channel, change) in &delta.untracked {
            change.apply_to(&mut self.untracked, channel);
        }
        for (channel, version) in &delta.versions {
            self.versions.insert(channel.clone(), *version);
        }
        for (node, seen) in &delta.seen {
            self.seen.entry(node.clone()).or_default().extend(
                seen.iter()
                    .map(|(channel, version)| (channel.clone(), *version)),
            );
        }
    }
}

impl ChannelChange {
    fn apply_to(&self, values: &mut BTreeMap<ChannelName, Value>, channel: &ChannelName) {
        match self {
            Self::Set(value) => {
                values.insert(channel.clone(), value.clone());
            }
            Self::Push(items) => {
                let list = values
                    .entry(channel.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.extend(items.iter().cloned());
                }
            }
            Self::Remove => {
                values.remove(channel);
            }
            Self::Blob { .. } => debug_assert!(false, "a blob was not resolved before its fold"),
        }
    }
}

/// A checkpoint as it will be once a delta is merged, without copying it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) base: &'a Checkpoint,
    pub(crate) delta: &'a Delta,
}

impl<'a> View<'a> {
    /// The content of a channel; joined only where a list grew.
    pub(crate) fn content(&self, channel: &str) -> Option<std::borrow::Cow<'a, Value>> {
        use std::borrow::Cow;
        let change = self
            .delta
            .channels
            .get(channel)
            .or_else(|| self.delta.untracked.get(channel));
        match change {
            None => self.base.content(channel).map(Cow::Borrowed),
            Some(ChannelChange::Set(value)) => Some(Cow::Borrowed(value)),
            Some(ChannelChange::Push(items)) => {
                let mut list = match self.base.content(channel) {
                    Some(Value::Array(list)) => list.clone(),
                    _ => Vec::new(),
                };
                list.extend(items.iter().cloned());
                Some(Cow::Owned(Value::Array(list)))
            }
            Some(ChannelChange::Remove | ChannelChange::Blob { .. }) => None,
        }
    }

    pub(crate) fn version(&self, channel: &str) -> u64 {
        let new = self.delta.versions.get(channel);
        new.or_else(|| self.base.versions.get(channel))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn seen(&self, node: &str, channel: &str) -> u64 {
        let new = self.delta.seen.get(node).and_then(|seen| seen.get(channel));
        new.or_else(|| self.base.seen.get(node)?.get(channel))
            .copied()
            .unwrap_or(0)
    }
}
