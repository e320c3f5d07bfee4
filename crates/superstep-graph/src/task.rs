//! Tasks, their writes, and what nodes return: plain data.
//!
//! A task is planned once, with its id, and every worker that runs it does the same work.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{ChannelName, Lineage, Namespace, NodeName, TaskId, digest};

/// Where a task comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPath {
    /// The node's triggers have new values.
    Pull,
    /// The so-many-th packet that was sent in the superstep before.
    Push(u64),
}

/// One node to be run in one superstep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Computed from what follows; see [`Task::id_of`].
    pub id: TaskId,
    /// The node to run.
    pub node: NodeName,
    /// Where it comes from.
    pub path: TaskPath,
    /// The channels that trigger the node, in order; empty for a packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<ChannelName>,
    /// The packet's argument, which is the task's whole input; `None` reads the state.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some")]
    pub packet: Option<Value>,
}

impl Task {
    /// The id of a task: a digest of what it is, so that a redone superstep has the same.
    pub fn id_of(
        lineage: &Lineage,
        ns: &Namespace,
        step: i64,
        node: &NodeName,
        path: &TaskPath,
    ) -> TaskId {
        let path = match path {
            TaskPath::Pull => "pull".to_owned(),
            TaskPath::Push(index) => format!("push:{index}"),
        };
        TaskId::new(digest(&[
            lineage.as_str(),
            ns.as_str(),
            &step.to_string(),
            node.as_str(),
            &path,
        ]))
    }
}

/// A value to be written to a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteValue {
    /// Folded in by the channel.
    Set(Value),
    /// Replaces a reducing channel's value.
    Overwrite(Value),
}

impl WriteValue {
    /// The value itself.
    pub fn value(&self) -> &Value {
        match self {
            Self::Set(value) | Self::Overwrite(value) => value,
        }
    }

    /// Whether it replaces what is there.
    pub fn is_overwrite(&self) -> bool {
        matches!(self, Self::Overwrite(_))
    }
}

/// What a finished task wants to put in a channel; pending until its superstep is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The channel.
    pub channel: ChannelName,
    /// The value.
    #[serde(flatten)]
    pub value: WriteValue,
}

impl Write {
    /// A plain write.
    pub fn set(channel: impl Into<ChannelName>, value: Value) -> Self {
        Self {
            channel: channel.into(),
            value: WriteValue::Set(value),
        }
    }
}

/// A packet: a task for `node` with `arg` as its whole input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    /// The node to run.
    pub node: NodeName,
    /// Its input.
    pub arg: Value,
}

impl Send {
    /// A packet for `node`.
    pub fn new(node: impl Into<NodeName>, arg: Value) -> Self {
        Self {
            node: node.into(),
            arg,
        }
    }
}

/// Where to go next.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A node, or the end.
    Node(NodeName),
    /// A packet.
    Send(Send),
}

impl From<&str> for Target {
    fn from(node: &str) -> Self {
        Self::Node(node.into())
    }
}

impl From<Send> for Target {
    fn from(send: Send) -> Self {
        Self::Send(send)
    }
}

/// A node's routing reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// The update, by channel, in order.
    pub update: Vec<Write>,
    /// Where to go, besides the static edges.
    pub goto: Vec<Target>,
    /// Whether it is for the parent graph of this subgraph.
    pub parent: bool,
}

/// What a node returned.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeOutput {
    /// Commands in order; a plain update is a command without a goto.
    pub commands: Vec<Command>,
    /// Keys that were returned but are no channel: paths still see them.
    pub extra: serde_json::Map<String, Value>,
}

impl NodeOutput {
    /// An output that updates nothing and goes nowhere but along the edges.
    pub fn none() -> Self {
        Self {
            commands: Vec::new(),
            extra: serde_json::Map::new(),
        }
    }

    /// An output of one command.
    pub fn command(command: Command) -> Self {
        Self {
            commands: vec![command],
            extra: serde_json::Map::new(),
        }
    }
}

/// An optional value in which null is a value and absent is absent.
pub mod some {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    /// Writes the value.
    ///
    /// # Errors
    /// If the serializer fails.
    pub fn serialize<S: Serializer>(value: &Option<Value>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    /// Reads a value that is there, null or not.
    ///
    /// # Errors
    /// If the deserializer fails.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(d).map(Some)
    }
}
