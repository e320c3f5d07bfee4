//! What a node does to the outside world happens once per idempotency key, and each applied task
//! did it.
//!
//! A node may run many times; whoever keys what it does by the key of its task sees one effect,
//! the same whenever it is repeated, also when the superstep was lost and done again. In the end
//! the key of every applied task is among those that were charged.

use serde_json::Value;
use superstep_protocol::ThreadId;

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen};

pub(super) struct EffectsOnce;

fn rests(thread: &ThreadId, facts: &Facts) -> Result<(), String> {
    let Some(chain) = facts.current(thread) else {
        return Ok(());
    };
    let log = chain
        .state
        .checkpoint
        .values
        .get("log")
        .and_then(Value::as_array);
    let keys = log
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["key"].as_str());
    let mut keys: Vec<&str> = keys.collect();
    for key in &keys {
        ensure(facts.charged.contains_key(*key), || {
            format!("{thread}: a task with the key {key} was applied and never ran")
        })?;
    }
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    ensure(keys.len() == all, || {
        format!("{thread}: two applied tasks share a key")
    })
}

impl Invariant for EffectsOnce {
    fn name(&self) -> &'static str {
        "effects once"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Charged { key, what } => {
                let first = facts.charged.get(*key);
                ensure(first.is_none_or(|first| first == *what), || {
                    format!("the key {key} is charged for {first:?} and for {what}")
                })
            }
            Seen::ThreadRests { thread } => rests(thread, facts),
            _ => Ok(()),
        }
    }
}
