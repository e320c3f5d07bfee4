//! The indexes say what the fold of the log says, after every append and in the end.
//!
//! They change in the append's own step, so there is no moment at which they may lag: which
//! questions are open, what is due and when, what is watched, and since which head.

use std::collections::{BTreeMap, BTreeSet};

use superstep_checkpoint::{InterruptQuery, ThreadLog};
use superstep_protocol::{ThreadId, ThreadState, UnixMillis, obligations, timers};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, at_once};

pub(super) struct IndexesTrue;

fn lists(thread: &ThreadId, state: &ThreadState, facts: &Facts) -> Result<(), String> {
    let query = InterruptQuery {
        thread: Some(thread.clone()),
        limit: 1000,
        after: None,
    };
    let rows = at_once(facts.log().interrupts(&query)).rows;
    let open: BTreeSet<_> = rows.into_iter().map(|(_, row)| row.id).collect();
    let asked: BTreeSet<_> = state.open_questions().map(|(_, q)| q.id.clone()).collect();
    ensure(open == asked, || {
        format!("{thread}: the index has {open:?} open, the state {asked:?}")
    })?;
    let due = at_once(facts.log().due(UnixMillis(u64::MAX), 10_000));
    let due = due.into_iter().filter(|due| due.thread == *thread);
    let due: BTreeMap<_, _> = due.map(|due| (due.name, due.at)).collect();
    let timers = timers(state);
    ensure(due == timers, || {
        format!("{thread}: the index has {due:?} due, the state {timers:?}")
    })
}

impl Invariant for IndexesTrue {
    fn name(&self) -> &'static str {
        "indexes true"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => {
                lists(step.thread, step.state, facts)?;
                let watched = at_once(facts.log().watched(
                    UnixMillis(0),
                    UnixMillis(u64::MAX),
                    1000,
                ));
                let watched = watched.iter().find(|entry| entry.thread == *step.thread);
                let owes = !step.state.deleted && !obligations(step.state).is_empty();
                ensure(
                    watched.map(|entry| entry.head) == owes.then_some(step.state.head),
                    || format!("{}: watched {watched:?}, and owes is {owes}", step.thread),
                )
            }
            Seen::ThreadRests { thread } => match facts.current(thread) {
                Some(chain) => lists(thread, &chain.state, facts),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
