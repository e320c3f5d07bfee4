//! Terms: how a thread decides, and what a run is given beside its input.
//!
//! Data only. A profile stands with the thread from its first record on; terms are those of one
//! run, and a resume or retry has its own.

use serde::{Deserialize, Serialize};
use superstep_graph::Breakpoints;

use crate::{record::is_default, streams::Streams};

/// Which way a thread decides where LangGraph's own behaviour is plainly unsafe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Refuses what would lose or misdeliver an answer.
    #[default]
    Default,
    /// Does what LangGraph 1.2.22 was recorded doing.
    Langgraph,
}

/// When a run writes what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Each superstep is a checkpoint of the history (LangGraph's `sync` and `async`).
    #[default]
    Sync,
    /// Each superstep is stored all the same, but the history shows the run's last one only.
    Exit,
}

/// What a run is given beside its input; a resume or retry has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Stops before these nodes, instead of where the graph says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_before: Option<Breakpoints>,
    /// Stops after these nodes, instead of where the graph says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_after: Option<Breakpoints>,
    /// When it writes what it did.
    #[serde(default, skip_serializing_if = "is_default")]
    pub durability: Durability,
    /// What it sends while it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streams: Streams,
    /// How many milliseconds the thread stays once it rests; as before if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl Terms {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
