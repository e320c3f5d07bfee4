//! A store of one thread: what the real ones promise, in a page.
//!
//! It appends by exact head and answers a repeated append as it did the first; results by round
//! and outcomes of commands are set-if-absent; a result is refused unless its round is open. It
//! can be copied, which is how it steps back.

use std::collections::BTreeMap;

use superstep_graph::TaskId;
use superstep_protocol::{
    CommandId, Dispatch, Head, Record, TaskResult, ThreadId, ThreadState, fold,
};

/// Everything that the store holds of the thread; it steps back as a whole.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) log: Vec<Record>,
    pub(crate) state: Option<ThreadState>,
    results: BTreeMap<Dispatch, BTreeMap<TaskId, TaskResult>>,
    pub(crate) outcomes: BTreeMap<CommandId, String>,
}

/// What became of an append.
pub(crate) enum Appended {
    Done,
    Moved,
    Decided,
}

#[derive(Clone)]
pub(crate) struct Append {
    pub(crate) after: Option<Head>,
    pub(crate) record: Record,
    pub(crate) command: Option<CommandId>,
}

impl Store {
    pub(crate) fn append(&mut self, thread: &ThreadId, append: &Append) -> Appended {
        if self
            .log
            .iter()
            .any(|record| record.head == append.record.head)
        {
            return Appended::Done;
        }
        if let Some(command) = &append.command
            && self.outcomes.contains_key(command)
        {
            return Appended::Decided;
        }
        if self.state.as_ref().map(|state| state.head) != append.after {
            return Appended::Moved;
        }
        let state = fold(thread, self.state.take(), &append.record).expect("the log folds");
        self.results
            .retain(|round, _| state.rounds.contains_key(round));
        self.state = Some(state);
        self.log.push(append.record.clone());
        if let Some(command) = &append.command {
            self.outcomes.insert(command.clone(), "accepted".to_owned());
        }
        Appended::Done
    }

    /// The results that a round has.
    pub(crate) fn brought(&self, round: Dispatch) -> BTreeMap<TaskId, TaskResult> {
        self.results.get(&round).cloned().unwrap_or_default()
    }

    /// Puts a result if its round is open and it has none; the results that are there.
    pub(crate) fn put(
        &mut self,
        round: Dispatch,
        task: &TaskId,
        result: TaskResult,
    ) -> Option<BTreeMap<TaskId, TaskResult>> {
        self.state
            .as_ref()
            .filter(|state| state.rounds.contains_key(&round))?;
        let map = self.results.entry(round).or_default();
        map.entry(task.clone()).or_insert(result);
        Some(map.clone())
    }
}
