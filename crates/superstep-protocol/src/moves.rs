//! Moves: threads that go over to another version of their graph, as data.
//!
//! What is remembered while workers of that version are asked, and after they could not take the
//! thread. `decide` says when they may be asked, `fold` what the answer leaves.

use serde::{Deserialize, Serialize};
use superstep_graph::TaskId;

use crate::{
    ids::{CommandId, Dispatch, GraphId},
    record::CommandRef,
    refusal::Refusal,
    state::{Asked, Decision, ThreadState},
};

/// A thread that is to go on under another version of its graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// That version.
    pub to: GraphId,
    /// Its topology as it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The command that waits for it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRef>,
    /// The tasks that ran when it was asked for: they run again afterwards, wherever that is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reopen: Vec<TaskId>,
    /// What waited for a worker of the graph before: it waits again afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<Decision>>,
}

/// A version that could not take the thread over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// The version.
    pub to: GraphId,
    /// Its topology as it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The command that waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    /// Why it could not.
    pub refusal: Refusal,
}

impl ThreadState {
    /// The version of the graph whose workers see to a dispatch: the thread's, unless another one
    /// is to take the thread over, or the next run of the queue is of another.
    pub fn graph_for(&self, dispatch: Dispatch) -> &GraphId {
        match &self.decision {
            Some(Decision {
                dispatch: asked,
                asked: Asked::Move(moving),
                ..
            }) if *asked == dispatch => &moving.to,
            Some(Decision {
                dispatch: asked,
                asked: Asked::Next,
                ..
            }) if *asked == dispatch => {
                let next = self.next_queued(self.time);
                next.map_or(&self.graph, |next| &next.graph)
            }
            _ => &self.graph,
        }
    }

    /// The move that waits for a worker of another version, if one does.
    pub fn moving(&self) -> Option<&Move> {
        match self.decision.as_ref().map(|decision| &decision.asked) {
            Some(Asked::Move(asked)) => Some(asked),
            _ => None,
        }
    }
}
