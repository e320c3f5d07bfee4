//! Looking at threads: how they stand, now and at earlier checkpoints, and inside subgraphs.
//!
//! It reads and appends nothing; a thread that is deleted is none.

use superstep_graph::NodeName;
use superstep_protocol::{ThreadId, ThreadStatus};

use super::Local;
use crate::{
    error::Error,
    inside,
    shown::can_be_shown,
    threads::Thread,
    view::{CheckpointView, StateView},
};

impl Local {
    /// The thread as it is now; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails. In the `langgraph` profile `Refused` if a superstep failed because its
    /// writes cannot be applied together: LangGraph has no state to show then. By default that is
    /// the state before them.
    pub async fn state(&self, thread: &ThreadId) -> Result<Option<StateView>, Error> {
        let found = self.engine.threads.load(thread).await?;
        let Some(thread) = found.filter(|thread| !thread.state.deleted) else {
            return Ok(None);
        };
        let graph = self.engine.graphs.get(&thread.state.graph);
        can_be_shown(&thread.state, graph.map(|graph| graph.topology())).map_err(Error::Refused)?;
        Ok(Some(self.view(&thread)))
    }

    /// The subgraph at `place`, nodes from the outside in, as it is now; the thread itself if no
    /// place is given. With `subgraphs`, tasks have the states of theirs. `None` if there is no
    /// such thread.
    ///
    /// # Errors
    /// If the store fails; `Refused` if no task waits inside that subgraph.
    pub async fn state_inside(
        &self,
        thread: &ThreadId,
        place: &[NodeName],
        subgraphs: bool,
    ) -> Result<Option<StateView>, Error> {
        let found = self.engine.threads.load(thread).await?;
        let found = found.filter(|thread| !thread.state.deleted);
        let view = found.map(|thread| self.view_at(&thread, place, subgraphs));
        view.transpose()
    }

    /// The checkpoints of the subgraph at `place` in the call that waits, newest first; `None` if
    /// there is no such thread.
    ///
    /// # Errors
    /// As [`state_inside`](Self::state_inside).
    pub async fn history_inside(
        &self,
        thread: &ThreadId,
        place: &[NodeName],
        limit: usize,
    ) -> Result<Option<Vec<CheckpointView>>, Error> {
        let found = self.engine.threads.load(thread).await?;
        let Some(thread) = found.filter(|thread| !thread.state.deleted) else {
            return Ok(None);
        };
        let graph = self.engine.graph_of(&thread)?;
        let history = inside::history(&graph, &thread.state, place, limit);
        history.map(Some).map_err(Error::Refused)
    }

    pub(super) fn view_at(
        &self,
        thread: &Thread,
        place: &[NodeName],
        subgraphs: bool,
    ) -> Result<StateView, Error> {
        if place.is_empty() && !subgraphs {
            return Ok(self.view(thread));
        }
        let graph = self.engine.graph_of(thread)?;
        inside::state(&graph, &thread.state, place, subgraphs).map_err(Error::Refused)
    }

    /// The thread as its history shows it at a checkpoint; `None` if there is no such thread.
    ///
    /// # Errors
    /// `Refused` if the thread has no such checkpoint; or if the store fails.
    pub async fn state_at(
        &self,
        thread: &ThreadId,
        checkpoint: &str,
    ) -> Result<Option<StateView>, Error> {
        let (threads, graphs) = (&self.engine.threads, &self.engine.graphs);
        threads.state_at(thread, checkpoint, graphs).await
    }

    /// How the thread stands; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn status(&self, thread: &ThreadId) -> Result<Option<ThreadStatus>, Error> {
        let found = self.engine.threads.load(thread).await?;
        Ok(found
            .filter(|thread| !thread.state.deleted)
            .map(|thread| thread.state.status()))
    }

    /// The thread's checkpoints, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(
        &self,
        thread: &ThreadId,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, Error> {
        let (threads, graphs) = (&self.engine.threads, &self.engine.graphs);
        threads.history_of(thread, None, limit, graphs).await
    }

    pub(super) fn view(&self, thread: &Thread) -> StateView {
        let graph = self.engine.graphs.get(&thread.state.graph);
        StateView::of(&thread.state, graph.map(|graph| graph.topology()))
    }
}
