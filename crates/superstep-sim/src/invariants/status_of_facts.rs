//! A status says what the facts say, computed here once more from the tasks alone.
//!
//! The store's row of a thread is what lists show; it must be the state's own, and the state's
//! must follow from what is open, what is left and how the last run ended.

use superstep_checkpoint::{ThreadLog, ThreadQuery};
use superstep_protocol::{Progress, RunStatus, ThreadState, ThreadStatus};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step, at_once};

pub(super) struct StatusOfFacts;

fn of_facts(state: &ThreadState) -> ThreadStatus {
    let open =
        |progress: &Progress| matches!(progress, Progress::Open { .. } | Progress::Paused { .. });
    if state.decision.is_some() || state.tasks.iter().any(|task| open(&task.progress)) {
        return ThreadStatus::Busy;
    }
    if !state.queue.is_empty() && state.open_questions().next().is_none() {
        return ThreadStatus::Busy;
    }
    match state.run.as_ref().map(|run| run.status) {
        Some(RunStatus::Error | RunStatus::Timeout) => ThreadStatus::Error,
        _ if state.tasks.is_empty() => ThreadStatus::Idle,
        _ => ThreadStatus::Interrupted,
    }
}

fn appended(step: &Step<'_>, facts: &Facts) -> Result<(), String> {
    let (thread, state) = (step.thread, step.state);
    let query = ThreadQuery {
        status: None,
        graph: None,
        limit: 1000,
        after: None,
    };
    let rows = at_once(facts.log().threads(&query)).rows;
    let row = rows.into_iter().find(|(id, _)| id == thread);
    let row = row.map(|(_, row)| (row.status, row.graph, row.updated_at));
    let listed = (!state.deleted).then(|| (of_facts(state), state.graph.clone(), state.time));
    ensure(row == listed, || {
        format!("{thread}: is listed as {row:?} and is {listed:?}")
    })
}

impl Invariant for StatusOfFacts {
    fn name(&self) -> &'static str {
        "status of facts"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step, facts),
            _ => Ok(()),
        }
    }
}
