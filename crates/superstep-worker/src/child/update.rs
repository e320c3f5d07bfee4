//! Updates of a subgraph's state from outside, while its call waits.
//!
//! The place of the subgraph is the nodes from the outside in. At each level the update is asked
//! of the child as it would be of a thread; the innermost child applies it, the ones around it
//! note that a child of theirs was updated. Nothing runs.

use superstep_graph::{NodeName, TaskId};
use superstep_protocol::{
    Asked, CommandRef, Dispatch, Event, Record, RecordBody, Refusal, StateUpdate, ThreadState,
    Update,
};

use super::{child_task, log::Log};
use crate::{decisions, graphs::RunnableGraph};

/// The update that `dispatch` asks for, applied to the subgraph at `place`.
pub(crate) fn updated(
    graph: &RunnableGraph,
    state: &ThreadState,
    dispatch: Dispatch,
    updates: &[Update],
    place: &[NodeName],
    tasks_max: usize,
) -> Event {
    let decided = state.decided_on(dispatch);
    let asked = state.decision.as_ref().map(|decision| &decision.asked);
    let Some(Asked::Update { command, .. }) = asked else {
        let reason = "no update is asked for".to_owned();
        return refused(dispatch, reason);
    };
    let update = Inner {
        command,
        updates,
        tasks_max,
    };
    match update.apply(graph, &decided, place) {
        Ok((task, child)) => Event::ChildUpdated {
            dispatch,
            task,
            child,
        },
        Err(reason) => refused(dispatch, reason),
    }
}

fn refused(dispatch: Dispatch, reason: String) -> Event {
    Event::UpdateApplied {
        dispatch,
        superstep: Err(reason),
    }
}

struct Inner<'a> {
    command: &'a CommandRef,
    updates: &'a [Update],
    tasks_max: usize,
}

impl Inner<'_> {
    /// Updates the child at `place` of `state`; gives the task it belongs to and what was done.
    fn apply(
        &self,
        graph: &RunnableGraph,
        state: &ThreadState,
        place: &[NodeName],
    ) -> Result<(TaskId, Vec<Record>), String> {
        let Some((node, rest)) = place.split_first() else {
            return Err("the place of a subgraph names at least one node".to_owned());
        };
        let Some((task, subgraph)) = child_task(graph, state, node) else {
            return Err(format!(
                "no task of node `{node}` waits inside a subgraph; update a subgraph while it \
                 waits, or the state of its parent"
            ));
        };
        let id = task.task.id.clone();
        let mut log = Log::of(state, &id, subgraph.checkpointer).map_err(|e| e.to_string())?;
        let (first, more) = self.updates.split_first().expect("an update has values");
        let asked = Event::Update(Box::new(StateUpdate {
            command: self.command.clone(),
            update: first.clone(),
            more: more.to_vec(),
            subgraph: rest.to_vec(),
            at: None,
        }));
        let told = |refusal: Refusal| refusal.to_string();
        log.apply(&asked).map_err(told)?;
        let child = log.state().expect("an update was asked of it");
        let dispatch = child.head;
        let event = if rest.is_empty() {
            let (graph, updates) = (&subgraph.graph, self.updates);
            decisions::update_applied(graph, child, dispatch, updates, self.tasks_max)
        } else {
            let (task, child) = self.apply(&subgraph.graph, child, rest)?;
            Event::ChildUpdated {
                dispatch,
                task,
                child,
            }
        };
        log.apply(&event).map_err(told)?;
        let done = log.into_new();
        match done.last().map(|record| &record.body) {
            Some(RecordBody::Declined { refusal, .. }) => Err(refusal.to_string()),
            _ => Ok((id, done)),
        }
    }
}
