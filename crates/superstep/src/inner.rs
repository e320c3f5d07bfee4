//! A subgraph of a thread whose call waits: look at it, update it.
//!
//! A handle like the thread's own, that holds no state. What waits inside a subgraph belongs to
//! the thread's task, so that running it goes through the thread.

use serde_json::Value;
use superstep_graph::NodeName;
use superstep_protocol::Update;
use superstep_worker::{CheckpointView, StateView, UpdateOptions};

use crate::{error::Error, state::IntoInput, thread::Thread};

/// A subgraph of a [`Thread`], inside which a task waits; see [`Thread::subgraph`].
#[derive(Clone, Debug)]
pub struct WaitingSubgraph {
    thread: Thread,
    place: Vec<NodeName>,
}

impl WaitingSubgraph {
    pub(crate) fn new(thread: Thread, place: Vec<NodeName>) -> Self {
        Self { thread, place }
    }

    /// Its state as it is now; `None` if there is no such thread.
    ///
    /// # Errors
    /// `Refused` if no task waits inside it; or if the store fails.
    pub async fn state(&self) -> Result<Option<StateView>, Error> {
        let (local, thread) = (self.thread.local(), self.thread.id());
        Ok(local.state_inside(thread, &self.place, false).await?)
    }

    /// Its checkpoints in the call that waits, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn history(&self, limit: usize) -> Result<Vec<CheckpointView>, Error> {
        let (local, thread) = (self.thread.local(), self.thread.id());
        let history = local.history_inside(thread, &self.place, limit).await?;
        Ok(history.unwrap_or_default())
    }

    /// Updates its state as if `as_node` had returned `values`, without running anything; `None`
    /// is the node that ran last. The thread goes on from there once it is continued.
    ///
    /// # Errors
    /// As [`state`](Self::state), and as [`Thread::update_state`].
    pub async fn update_state(
        &self,
        values: impl IntoInput,
        as_node: Option<&str>,
    ) -> Result<StateView, Error> {
        let values: Value = values.into_input()?;
        let as_node = as_node.map(Into::into);
        let options = UpdateOptions {
            subgraph: self.place.clone(),
            ..UpdateOptions::default()
        };
        let (local, thread) = (self.thread.local(), self.thread.id());
        let updates = vec![Update { values, as_node }];
        Ok(Box::pin(local.update_with(thread, None, updates, options)).await?)
    }
}
