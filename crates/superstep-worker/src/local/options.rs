//! What embedded runs and updates are given, and what a run came to.
//!
//! Plain data with defaults; what it means is the protocol's.

use serde_json::{Map, Value};
use superstep_graph::{Breakpoints, NodeName};
use superstep_protocol::{Answers, Durability, Goto, RunError, RunId, RunStatus, Streams, Terms};

use crate::{settings::WorkerSettings, view::InterruptView};

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutput {
    /// The run.
    pub run: RunId,
    /// The output channels' values.
    pub values: Map<String, Value>,
    /// Whether the run showed them: it wrote to the output, or went on with what was there.
    /// LangGraph's `invoke` gives `None` otherwise.
    pub shows: bool,
    /// The open questions, if the run stopped at some.
    pub interrupts: Vec<InterruptView>,
    /// How the run ended; a run that stops at a question ends in success.
    pub status: RunStatus,
    /// Why, if it ended in error.
    pub error: Option<RunError>,
}

/// Options of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunOptions {
    /// The run's id; a new one otherwise.
    pub run: Option<RunId>,
    /// How many supersteps it may take; 25 otherwise.
    pub recursion_limit: Option<u32>,
    /// Values that nodes may read.
    pub config: Map<String, Value>,
    /// Kept with the thread.
    pub metadata: Map<String, Value>,
    /// Stops before these nodes, instead of where the graph says.
    pub interrupt_before: Option<Breakpoints>,
    /// Stops after these nodes, instead of where the graph says.
    pub interrupt_after: Option<Breakpoints>,
    /// When the run writes what it did.
    pub durability: Durability,
    /// The checkpoint to go on from, by its id; the last one otherwise.
    pub checkpoint: Option<String>,
    /// What it sends while it runs; otherwise what its nodes emit.
    pub streams: Streams,
}

impl RunOptions {
    pub(super) fn terms(&self, settings: &WorkerSettings) -> Terms {
        Terms {
            interrupt_before: self.interrupt_before.clone(),
            interrupt_after: self.interrupt_after.clone(),
            durability: self.durability,
            streams: self.streams.clone(),
            ttl_ms: settings.ended_ttl_ms(),
        }
    }
}

/// What a run goes on with: answers, and what is changed before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GoOn {
    /// The answers, if any.
    pub answers: Option<Answers>,
    /// An update of the checkpoint as it stands; null for none.
    pub update: Value,
    /// Where to go from it, beside what waits.
    pub goto: Vec<Goto>,
}

/// What to update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateOptions {
    /// The checkpoint to update, by its id; the last one otherwise.
    pub checkpoint: Option<String>,
    /// The subgraph of a waiting task to update: nodes from the outside in.
    pub subgraph: Vec<NodeName>,
}
