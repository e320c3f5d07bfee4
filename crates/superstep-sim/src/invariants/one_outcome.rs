//! The outcome of a command is told once: two tellings never differ, and what was told is so.
//!
//! A command is in the log at most once. In the end every command that was sent has an outcome
//! that is kept: accepted, and then its record is in the log; or refused, and then it is not, and
//! the refusal is on the events stream too.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_checkpoint::ThreadLog;
use superstep_protocol::{CommandId, RunId, ThreadId};
use superstep_wire::{Outcome, Reply, decode};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Fate, Seen, Step, at_once, command_of, fates};

#[derive(Default)]
pub(super) struct OneOutcome {
    told: BTreeMap<(String, String), Value>,
}

impl OneOutcome {
    fn replied(&mut self, reply: &Reply, said: &Value, facts: &Facts) -> Result<(), String> {
        if facts.lenient.steps_back {
            // What the store forgot is decided again.
            return Ok(());
        }
        let thread = reply.thread_id.clone().unwrap_or_default();
        let key = (thread, reply.command_id.clone());
        let first = self.told.entry(key).or_insert_with(|| said.clone());
        ensure(first == said, || {
            format!("two outcomes are told: {first}, then {said}")
        })
    }
}

fn appended(step: &Step<'_>) -> Result<(), String> {
    let (Some(before), Some(id)) = (step.before, command_of(step.record)) else {
        return Ok(());
    };
    let first = before.commands.get(id);
    // A run that had waited begins under the command that asked for it.
    let waited = |run: &RunId| before.runs.get(run) == Some(&Fate::Queued);
    let mut begun = fates(step.record).into_iter();
    let waited = begun.any(|(run, fate)| fate == Fate::Begun && waited(run));
    ensure(first.is_none() || waited, || {
        format!(
            "{}: {id} is in {first:?} and again in {}",
            step.thread, step.record.head
        )
    })
}

fn rests(thread: &ThreadId, id: &CommandId, facts: &Facts) -> Result<(), String> {
    let lenient = facts.lenient;
    let Some(outcome) = at_once(facts.log().outcome(thread, id)) else {
        // It was told and is done with; that it was is forgotten, as nothing came of it. Or it
        // is gone with its stream: its sender saw no acceptance.
        let forgotten = lenient.steps_back && facts.refusal_is_told(thread, id);
        return ensure(forgotten || lenient.forgets, || {
            format!("{thread}: {id} never got an outcome")
        });
    };
    let reply = decode::reply(&outcome).expect("outcomes can be read");
    let chain = facts.current(thread);
    let in_log = chain
        .as_ref()
        .and_then(|chain| chain.commands.get(id).copied());
    let said = reply
        .record
        .as_ref()
        .map(|record| record.parse().expect("a head"));
    match reply.outcome {
        Outcome::Accepted => {
            // A start of a run that was asked for before is told of the record that it made.
            let mut others = chain.iter().flat_map(|chain| chain.commands.values());
            let known = in_log.is_none() && others.any(|record| Some(*record) == said);
            ensure(known || (in_log.is_some() && said == in_log), || {
                format!("{thread}: {id} is accepted as {said:?}, in the log {in_log:?}")
            })
        }
        Outcome::Unknown => Err(format!("{thread}: {id} has an outcome that nobody knows")),
        Outcome::Refused => {
            ensure(in_log.is_none(), || {
                format!("{thread}: {id} is refused and in the log as {in_log:?}")
            })?;
            ensure(facts.refusal_is_told(thread, id) || lenient.forgets, || {
                format!("{thread}: the refusal of {id} is in no event")
            })
        }
    }
}

impl Invariant for OneOutcome {
    fn name(&self) -> &'static str {
        "one outcome"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step),
            Seen::Replied { reply, said } => self.replied(reply, said, facts),
            Seen::CommandRests { thread, id } => rests(thread, id, facts),
            _ => Ok(()),
        }
    }
}
