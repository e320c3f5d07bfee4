//! How the store's indexes change with a record: a pure difference of two states.
//!
//! Indexes are exact because they change in the append's own atomic step, and because the
//! compare on the head guarantees that the state before was the one this difference is from.

use std::collections::{BTreeMap, BTreeSet};

use superstep_checkpoint::{IndexChange, InterruptRow, Reindex, ThreadRow};
use superstep_graph::InterruptId;
use superstep_protocol::{Dispatch, ThreadState, UnixMillis, obligations, timers};

/// What the indexes say of a state; taken before a fold changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexed {
    row: Option<ThreadRow>,
    open: BTreeMap<InterruptId, UnixMillis>,
    due: BTreeMap<String, UnixMillis>,
    rounds: BTreeSet<Dispatch>,
}

impl Indexed {
    pub(crate) fn of(state: &ThreadState) -> Self {
        let row = ThreadRow {
            status: state.status(),
            graph: state.graph.clone(),
            created_at: state.created_at,
            updated_at: state.time,
        };
        let open = state
            .open_questions()
            .map(|(_, question)| (question.id.clone(), question.opened_at));
        Self {
            row: (!state.deleted).then_some(row),
            open: open.collect(),
            due: timers(state),
            rounds: state.rounds.keys().copied().collect(),
        }
    }

    /// All of it, as a store's entries should be; whether it is watched is told apart.
    pub(crate) fn entries(self, watched: bool) -> Reindex {
        Reindex {
            row: self.row,
            watched,
            interrupts: self.open,
            due: self.due,
            rounds: self.rounds,
        }
    }

    /// The change from `self` to `after`.
    pub(crate) fn change_to(&self, after: &ThreadState) -> IndexChange {
        let new = Self::of(after);
        let opened = new
            .open
            .iter()
            .filter(|(id, _)| !self.open.contains_key(*id));
        let closed = self.open.keys().filter(|id| !new.open.contains_key(*id));
        let due_set = new
            .due
            .iter()
            .filter(|(name, at)| self.due.get(*name) != Some(at));
        let due_removed = self.due.keys().filter(|name| !new.due.contains_key(*name));
        IndexChange {
            watched: Some(!obligations(after).is_empty()),
            opened: opened
                .map(|(id, at)| InterruptRow {
                    id: id.clone(),
                    opened_at: *at,
                })
                .collect(),
            closed: closed.cloned().collect(),
            due_set: due_set.map(|(name, at)| (name.clone(), *at)).collect(),
            due_removed: due_removed.cloned().collect(),
            rounds_opened: new.rounds.difference(&self.rounds).copied().collect(),
            rounds_closed: self.rounds.difference(&new.rounds).copied().collect(),
            row: new.row,
        }
    }
}
