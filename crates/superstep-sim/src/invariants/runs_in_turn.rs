//! One run of a thread at a time, first come, first served, each once.
//!
//! A run begins only while no other one is under way or waits for answers. Of those that wait, the
//! one whose time came first begins. One that waits ends its wait once: it begins, is declined,
//! cancelled or displaced; and in the end none waits.

use superstep_protocol::{RecordBody, ThreadId};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Fate, Seen, Step, fates};

pub(super) struct RunsInTurn;

fn appended(step: &Step<'_>) -> Result<(), String> {
    let (thread, head) = (step.thread, step.record.head);
    for (run, fate) in fates(step.record) {
        let before = step.before.and_then(|before| before.runs.get(run));
        let follows = match fate {
            Fate::Queued => before.is_none(),
            Fate::Begun => matches!(before, None | Some(Fate::Queued)),
            Fate::Ended => before == Some(&Fate::Queued),
        };
        ensure(follows, || {
            format!("{thread}: at {head} the run {run} is {fate:?} after {before:?}")
        })?;
    }
    let RecordBody::Started { run, discards, .. } = &step.record.body else {
        return Ok(());
    };
    let mut open = step.state.rounds.values();
    ensure(open.all(|open| open == run), || {
        format!("{thread}: {head} begins {run} beside another run")
    })?;
    let Some(before) = step.before.map(|before| &before.state) else {
        return Ok(());
    };
    ensure(!before.is_running() && discards.is_empty(), || {
        format!("{thread}: {head} begins {run}, and another run is not over")
    })?;
    let now = step.record.time;
    let first = before.next_queued(now).map(|first| &first.run);
    ensure(first.is_none_or(|first| first == run), || {
        format!("{thread}: {head} begins {run}, and it is the turn of {first:?}")
    })
}

fn rests(thread: &ThreadId, facts: &Facts) -> Result<(), String> {
    let Some(chain) = facts.current(thread) else {
        return Ok(());
    };
    let waits = chain.runs.iter().find(|(_, fate)| **fate == Fate::Queued);
    ensure(waits.is_none() && chain.state.queue.is_empty(), || {
        format!("{thread}: rests, and a run waits for its turn: {waits:?}")
    })
}

impl Invariant for RunsInTurn {
    fn name(&self) -> &'static str {
        "runs in turn"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step),
            Seen::ThreadRests { thread } => rests(thread, facts),
            _ => Ok(()),
        }
    }
}
