//! No thread is without an owner or a reason.
//!
//! One that owes work is watched, by the very append that made it so. One that rests says why:
//! its tasks wait for answers, or were cancelled, or failed with an error that a person can read;
//! or nothing is left of them. In the end no thread is at work.

use superstep_checkpoint::ThreadLog;
use superstep_protocol::{Progress, RunStatus, ThreadId, ThreadState, UnixMillis, obligations};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step, at_once};

pub(super) struct OwnerOrReason;

fn reason(state: &ThreadState) -> Result<(), String> {
    let (thread, head) = (&state.thread, state.head);
    if state.deleted {
        return Ok(());
    }
    for task in &state.tasks {
        if let Progress::Open { dispatch } = &task.progress {
            ensure(state.rounds.contains_key(dispatch), || {
                format!(
                    "{thread}: at {head} task {} is in a round that is over",
                    task.task.id
                )
            })?;
        }
    }
    for round in state.rounds.keys() {
        ensure(state.round_tasks(*round).next().is_some(), || {
            format!("{thread}: at {head} the round {round} has no task")
        })?;
    }
    if state.is_busy() {
        return Ok(());
    }
    let Some(run) = &state.run else {
        return Ok(());
    };
    let is_over = !matches!(run.status, RunStatus::Pending | RunStatus::Running);
    ensure(is_over, || {
        format!("{thread}: rests at {head}, and its run is {}", run.status)
    })?;
    let failed = matches!(run.status, RunStatus::Error | RunStatus::Timeout);
    ensure(!failed || run.error.is_some(), || {
        format!("{thread}: failed at {head} and nobody can read why")
    })?;
    let unfinished = state.unfinished().next().is_some();
    ensure(unfinished || state.tasks.is_empty(), || {
        format!("{thread}: rests at {head}, and all of its tasks are finished")
    })
}

fn watched(step: &Step<'_>, facts: &Facts) -> Result<(), String> {
    // What a tombstone owes, its event, is told by whoever wrote it.
    let owes = !step.state.deleted && !obligations(step.state).is_empty();
    let watched = at_once(
        facts
            .log()
            .watched(UnixMillis(0), UnixMillis(u64::MAX), 1000),
    );
    let watched = watched.iter().any(|entry| entry.thread == *step.thread);
    ensure(watched || !owes, || {
        format!(
            "{}: owes something at {} and is not watched",
            step.thread, step.record.head
        )
    })
}

fn rests(thread: &ThreadId, facts: &Facts) -> Result<(), String> {
    let Some(chain) = facts.current(thread) else {
        return Ok(());
    };
    ensure(!chain.state.is_busy(), || {
        format!("{thread}: is busy, and nothing happens")
    })?;
    let watched = at_once(
        facts
            .log()
            .watched(UnixMillis(0), UnixMillis(u64::MAX), 1000),
    );
    ensure(watched.iter().all(|entry| entry.thread != *thread), || {
        format!("{thread}: rests and is watched")
    })
}

impl Invariant for OwnerOrReason {
    fn name(&self) -> &'static str {
        "owner or reason"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => reason(step.state).and_then(|()| watched(step, facts)),
            Seen::ThreadRests { thread } => rests(thread, facts),
            _ => Ok(()),
        }
    }
}
