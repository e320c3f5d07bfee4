//! Append, then publish, then ack: nothing is acked, told or forgotten whose effect is not in the
//! store.
//!
//! A command is acked when its outcome is kept, work when its dispatch is closed, handed on or its
//! result kept. An event is told of a record that was appended. A thread leaves the watch when
//! all it owes is done, and a record may call an event told only once it is in its stream.

use superstep_checkpoint::ThreadLog;
use superstep_protocol::{CommandId, Dispatch, Head, Obligation, ThreadId, obligations};
use superstep_wire::{Event, Work};

use super::{Invariant, ensure};
use crate::ledger::{Chain, Facts, Seen, Step, at_once};

pub(super) struct TruthFirst;

fn appended(step: &Step<'_>, facts: &Facts) -> Result<(), String> {
    let Some(before) = step.before else {
        return Ok(());
    };
    let claimed = before.events.iter().filter(|(v, _)| *v <= step.record.told);
    for (version, id) in claimed {
        ensure(facts.told.contains_key(id), || {
            format!(
                "{}: {} says that event {id} of v{version} was told, and it was not",
                step.thread, step.record.head
            )
        })?;
    }
    Ok(())
}

fn all_told(thread: &ThreadId, chain: &Chain, facts: &Facts) -> Result<(), String> {
    let untold = facts.untold(chain);
    ensure(untold.is_empty(), || {
        format!("{thread}: never told: {untold:?}")
    })
}

fn unwatched(thread: &ThreadId, head: Head, facts: &Facts) -> Result<(), String> {
    let Some(chain) = facts.chain(thread, head) else {
        return Err(format!("{thread}: unwatched by {head}, which is in no log"));
    };
    let owed = obligations(&chain.state);
    let works = owed
        .iter()
        .any(|owed| matches!(owed, Obligation::Work { .. }));
    ensure(!works, || {
        format!("{thread}: unwatched at {head}, and owes {owed:?}")
    })?;
    all_told(thread, &chain, facts)
}

fn command_acked(thread: &ThreadId, id: &CommandId, facts: &Facts) -> Result<(), String> {
    // A refusal that was told is done with; a store that steps back may forget that it was.
    let forgotten = facts.lenient.steps_back && facts.refusal_is_told(thread, id);
    let kept = at_once(facts.log().outcome(thread, id)).is_some();
    ensure(kept || forgotten, || {
        format!("{thread}: {id} is acked without an outcome")
    })
}

fn work_acked(work: &Work, facts: &Facts) -> Result<(), String> {
    if facts.lenient.full || facts.lenient.steps_back {
        return Ok(());
    }
    let thread = &ThreadId::new(work.thread_id.as_str());
    let dispatch: Dispatch = work.dispatch.parse().expect("a worker made it");
    let Some(chain) = facts.current(thread) else {
        return Ok(());
    };
    let state = &chain.state;
    if state.incarnation != *work.incarnation || !state.waits_for(dispatch) {
        return Ok(());
    }
    let results = at_once(facts.log().results(thread, dispatch));
    let there = |task: &String| {
        let mut open = state.round_tasks(dispatch);
        open.all(|open| open.task.id.as_str() != task) || results.contains_key(task.as_str())
    };
    ensure(
        !work.tasks.is_empty() && work.tasks.iter().all(there),
        || format!("{thread}: work of {dispatch} is acked and not done"),
    )
}

fn told(event: &Event, facts: &Facts) -> Result<(), String> {
    let Some(record) = &event.record else {
        return Ok(());
    };
    let thread = ThreadId::new(event.thread_id.as_str());
    let head: Head = record.parse().expect("a worker made it");
    ensure(facts.chain(&thread, head).is_some(), || {
        format!(
            "{thread}: event {} is of {head}, which nobody appended",
            event.event_id
        )
    })
}

impl Invariant for TruthFirst {
    fn name(&self) -> &'static str {
        "truth first"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step, facts),
            Seen::Unwatched { thread, head } => unwatched(thread, *head, facts),
            Seen::CommandAcked { thread, id } => command_acked(thread, id, facts),
            Seen::WorkAcked { work } => work_acked(work, facts),
            Seen::Told { event } => told(event, facts),
            Seen::ThreadRests { thread } => match facts.current(thread) {
                Some(chain) => all_told(thread, &chain, facts),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
