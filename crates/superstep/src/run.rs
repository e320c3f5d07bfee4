//! What a run came to, with its values as a type.

use serde_json::{Map, Value};
use superstep_protocol::{RunError, RunId, RunStatus};
use superstep_worker::{InterruptView, RunOutput as Output};

use crate::state::{State, StateError};

/// What a run came to: its values, the questions it stopped at, or why it failed.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a run that failed says so here"]
#[non_exhaustive]
pub struct RunOutput {
    /// The run; a resume begins a new one.
    pub run: RunId,
    /// The output channels' values.
    pub values: Map<String, Value>,
    /// Whether the run showed them: it wrote to the output, or went on with what was there.
    /// LangGraph's `invoke` gives `None` otherwise.
    pub shows: bool,
    /// The open questions, if it stopped at some.
    pub interrupts: Vec<InterruptView>,
    /// How it ended; a run that stops at a question ends in success.
    pub status: RunStatus,
    /// Why, if it ended in error.
    pub error: Option<RunError>,
}

impl RunOutput {
    /// The values as a state.
    ///
    /// # Errors
    /// If a value does not have the form of its field.
    pub fn state<S: State>(&self) -> Result<S, StateError> {
        S::from_channels(self.values.clone())
    }

    /// Whether it waits for an answer.
    pub fn is_interrupted(&self) -> bool {
        !self.interrupts.is_empty()
    }
}

impl From<Output> for RunOutput {
    fn from(output: Output) -> Self {
        Self {
            run: output.run,
            values: output.values,
            shows: output.shows,
            interrupts: output.interrupts,
            status: output.status,
            error: output.error,
        }
    }
}
