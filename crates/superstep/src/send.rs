//! A packet: a task for a node with an input of its own.

use serde::Serialize;
use serde_json::Value;
use superstep_graph::{NodeName, Send as Packet};

use crate::NodeError;

/// A task for a node, with its whole input.
///
/// The node reads the packet and not the state; its writes go to the state like any other's.
/// Several packets to one node make several tasks of the next superstep.
///
/// ```
/// use superstep::Send;
///
/// let sends: Vec<Send> = ["a", "b"].iter().map(|page| Send::to("fetch", page)).collect();
/// # assert_eq!(sends.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    node: NodeName,
    arg: Result<Value, String>,
}

impl Send {
    /// A packet for `node`.
    pub fn to(node: impl Into<NodeName>, input: impl Serialize) -> Self {
        Self {
            node: node.into(),
            arg: serde_json::to_value(input).map_err(|error| error.to_string()),
        }
    }

    pub(crate) fn into_packet(self) -> Result<Packet, NodeError> {
        match self.arg {
            Ok(arg) => Ok(Packet::new(self.node, arg)),
            Err(reason) => Err(NodeError::new(
                "InvalidSend",
                format!("the packet for node `{}` is no JSON: {reason}", self.node),
            )),
        }
    }
}
