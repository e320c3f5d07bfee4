//! Each timer has one effect, and none before its time.
//!
//! A task is woken while it pauses, and not before the time that it pauses for; a run that was
//! delayed does not begin before its time; a sleep keeps its end however often its node runs, unless
//! its run is taken back, and a task is not applied before the ends of its sleeps. Time is the store's, the latest that it
//! ever showed.

use superstep_checkpoint::ThreadLog;
use superstep_graph::{START, Source};
use superstep_protocol::{QueuedRun, RecordBody, TaskState, UnixMillis};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step, at_once};

#[derive(Default)]
pub(super) struct TimersOnce {
    latest: UnixMillis,
}

/// Whether a record takes a run back.
fn restores(body: &RecordBody) -> bool {
    match body {
        RecordBody::Displaced(displaced) => displaced.restores.is_some(),
        RecordBody::Cancelled { restores, .. } => restores.is_some(),
        _ => false,
    }
}

impl TimersOnce {
    fn appended(&self, step: &Step<'_>) -> Result<(), String> {
        let (thread, head) = (step.thread, step.record.head);
        let Some(before) = step.before.map(|before| &before.state) else {
            return Ok(());
        };
        let now = self.latest.max(step.record.time);
        match &step.record.body {
            RecordBody::Woken { tasks, .. } => {
                for id in tasks {
                    let until = before.task(id).and_then(TaskState::paused_until);
                    ensure(until.is_some_and(|until| until <= now), || {
                        format!("{thread}: {head} wakes {id} at {now:?}, which waits for {until:?}")
                    })?;
                }
            }
            RecordBody::Started { run, .. } => {
                let waited = before.queue.iter().find(|queued| queued.run == *run);
                let ready = waited.map(QueuedRun::ready_at);
                ensure(ready.is_none_or(|ready| ready <= now), || {
                    format!("{thread}: {head} begins {run} at {now:?}, which waits for {ready:?}")
                })?;
            }
            RecordBody::Committed(committed) if committed.source == Source::Loop => {
                let ran = before.tasks.iter().filter(|task| task.task.node != START);
                let mut ends = ran.flat_map(|task| &task.sleeps);
                let early = ends.find(|(_, end)| **end > now);
                ensure(early.is_none(), || {
                    format!("{thread}: {head} applies at {now:?} what sleeps: {early:?}")
                })?;
            }
            _ => {}
        }
        if restores(&step.record.body) {
            // What slept never ran.
            return Ok(());
        }
        for task in &step.state.tasks {
            let known = before.task(&task.task.id);
            let mut kept = known.iter().flat_map(|known| &known.sleeps);
            let moved = kept.find(|(name, end)| task.sleeps.get(*name) != Some(*end));
            ensure(moved.is_none(), || {
                let id = &task.task.id;
                format!("{thread}: at {head} a sleep of {id} that was to end at {moved:?} does not")
            })?;
        }
        Ok(())
    }
}

impl Invariant for TimersOnce {
    fn name(&self) -> &'static str {
        "timers once"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        self.latest = self.latest.max(at_once(facts.log().now()));
        match seen {
            Seen::Appended(step) => self.appended(step),
            _ => Ok(()),
        }
    }
}
