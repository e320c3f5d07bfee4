//! What can be wrong with writes and routes at run time.
//!
//! The names are LangGraph's (`langgraph/errors.py`), because that is what people search for.

use crate::ids::{ChannelName, NodeName};

/// Writes that a superstep cannot apply (LangGraph's `InvalidUpdateError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpdate {
    /// Two tasks wrote a channel that keeps one value.
    #[error(
        "channel `{channel}` got several values in one superstep but keeps one; give it a \
         reducer, or let only one parallel node write it"
    )]
    SeveralWrites {
        /// The channel.
        channel: ChannelName,
    },
    /// Two tasks overwrote a reducing channel.
    #[error("channel `{channel}` was overwritten twice in one superstep; overwrite it once")]
    SeveralOverwrites {
        /// The channel.
        channel: ChannelName,
    },
    /// A reducer refused a write.
    #[error("channel `{channel}` cannot take the write: {reason} (reducer `{reducer}`)")]
    Reducer {
        /// The channel.
        channel: ChannelName,
        /// The reducer's name.
        reducer: String,
        /// What the reducer says.
        reason: String,
    },
    /// A value that the engine supplies was written.
    #[error("channel `{channel}` is supplied by the engine and cannot be written; leave it out")]
    ReadOnly {
        /// The channel.
        channel: ChannelName,
    },
    /// A join got a name that it does not wait for.
    #[error("join `{channel}` does not wait for `{name}`")]
    NotAwaited {
        /// The join's channel.
        channel: ChannelName,
        /// The name that was written.
        name: String,
    },
    /// A node's output or an update is not an object.
    #[error(
        "an input or update must be an object of channels, not {found}; give {{\"<channel>\": ..}}"
    )]
    NotAnObject {
        /// The JSON kind that was found.
        found: &'static str,
    },
    /// An update names a channel that the graph does not have.
    #[error("the graph has no channel `{channel}`; its channels are {known}")]
    UnknownChannel {
        /// The key.
        channel: String,
        /// The channels there are.
        known: String,
    },
    /// A state update names a node that is not in the graph.
    #[error("the graph has no node `{node}` to update the state as; name one of its nodes")]
    UnknownNode {
        /// The node.
        node: NodeName,
    },
    /// A state update names no node, and several ran last.
    #[error("it is not clear which node the update is from; name one with `as_node`")]
    AmbiguousNode,
    /// What commands said of the checkpoint cannot be applied.
    #[error("a command spoiled the checkpoint: {reason}; go on with new input, or from another")]
    Spoiled {
        /// Why not.
        reason: String,
    },
    /// A packet was sent to the end.
    #[error("a send cannot go to `__end__`; send to a node, or return no send")]
    SendToEnd,
}

/// A node's output that leads nowhere it may lead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A path's result is not in its map.
    #[error(
        "the path of `{node}` gave `{result}`, which is not in its map; add it to the map or \
         return one of {known}"
    )]
    UnmappedRoute {
        /// The node whose path it is.
        node: NodeName,
        /// What the path gave.
        result: String,
        /// The results in the map.
        known: String,
    },
    /// A path gave no target, or the start.
    #[error("the path of `{node}` gave no node to go to; return a node's name, END, or a send")]
    InvalidRoute {
        /// The node whose path it is.
        node: NodeName,
    },
    /// A target is not in the graph.
    #[error("`{node}` goes to `{target}`, which is not in the graph; go to a node, or to END")]
    UnknownTarget {
        /// The node that goes there.
        node: NodeName,
        /// The target.
        target: NodeName,
    },
    /// A path failed.
    #[error("the path of `{node}` failed: {reason}; a path must not fail, correct it")]
    Path {
        /// The node whose path it is.
        node: NodeName,
        /// What it says.
        reason: String,
    },
    /// What the node wrote cannot be applied.
    #[error(transparent)]
    Update(#[from] InvalidUpdate),
}

impl RouteError {
    /// Whether the node itself was done when this was met: its writes are kept with the error
    /// and it does not run again. LangGraph treats every failure of a path so. Otherwise what
    /// the node returned names something that is not there, and it runs again once that is
    /// mended.
    pub fn keeps_writes(&self) -> bool {
        match self {
            Self::UnknownTarget { .. } => false,
            Self::Update(error) => !matches!(
                error,
                InvalidUpdate::UnknownChannel { .. } | InvalidUpdate::UnknownNode { .. }
            ),
            Self::UnmappedRoute { .. } | Self::InvalidRoute { .. } | Self::Path { .. } => true,
        }
    }

    /// LangGraph's name of the error, for records and clients.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnmappedRoute { .. } => "UnmappedRoute",
            Self::InvalidRoute { .. } => "InvalidRoute",
            Self::UnknownTarget { .. } => "UnknownTarget",
            Self::Path { .. } => "PathError",
            Self::Update(_) => "InvalidUpdateError",
        }
    }
}
