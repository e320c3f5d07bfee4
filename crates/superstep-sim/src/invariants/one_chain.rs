//! A thread's records form one chain, and nothing is changed once appended.
//!
//! Every record follows the head that its writer decided on, which must be in the log right below
//! it; versions are dense; a snapshot is the fold of what is before it; and what was once read
//! under a head is what is read there for ever.

use std::collections::HashMap;

use bytes::Bytes;
use superstep_checkpoint::ThreadLog;
use superstep_protocol::{Head, ThreadId, ThreadState, fold};

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step, at_once};

#[derive(Default)]
pub(super) struct OneChain {
    bytes: HashMap<(ThreadId, Head), Bytes>,
}

impl OneChain {
    fn appended(&mut self, step: &Step<'_>, facts: &Facts) -> Result<(), String> {
        let (thread, head) = (step.thread, step.record.head);
        let before = step.after.map_or(0, |after| after.version);
        ensure(head.version == before + 1, || {
            format!("{thread}: {head} follows v{before}")
        })?;
        let there = at_once(facts.log().record(thread, head.version));
        ensure(there.as_ref() == Some(step.stored), || {
            format!("{thread}: {head} was appended, and the log has {there:?} there")
        })?;
        if let Some(after) = step.after {
            let below = at_once(facts.log().record(thread, after.version));
            // A deleted thread keeps its tombstone alone.
            let below = below.map(|below| below.head);
            ensure(below.is_none() || below == Some(after), || {
                format!("{thread}: {head} was decided on {after}, and follows {below:?}")
            })?;
        }
        let bytes = &step.stored.bytes;
        let kept = self
            .bytes
            .entry((thread.clone(), head))
            .or_insert_with(|| bytes.clone());
        ensure(kept == bytes, || format!("{thread}: {head} is two records"))?;
        ensure(
            step.snapshot.is_none_or(|snapshot| snapshot == step.state),
            || format!("{thread}: the snapshot in {head} is not the fold"),
        )
    }

    fn rests(&self, thread: &ThreadId, facts: &Facts) -> Result<(), String> {
        let mut stored = at_once(facts.log().history(thread, None, 10_000));
        let Some(chain) = facts.current(thread) else {
            return Err(format!("{thread}: has no log, or one that nobody wrote"));
        };
        stored.reverse();
        let versions: Vec<u64> = stored.iter().map(|record| record.head.version).collect();
        let first = versions[0];
        let dense = first..first + versions.len() as u64;
        ensure(versions.iter().copied().eq(dense), || {
            format!("{thread}: versions are not dense: {versions:?}")
        })?;
        let mut state: Option<ThreadState> = None;
        for stored in &stored {
            let kept = self.bytes.get(&(thread.clone(), stored.head));
            ensure(kept == Some(&stored.bytes), || {
                format!(
                    "{thread}: {} was changed after it was appended",
                    stored.head
                )
            })?;
            let mut record = facts.read(thread, stored);
            let snapshot = record.snapshot.take();
            state = match state {
                None if record.head.version > 1 => snapshot.map(|snapshot| *snapshot),
                state => Some(fold(thread, state, &record).map_err(|error| error.to_string())?),
            };
        }
        ensure(state.as_ref() == Some(&chain.state), || {
            format!("{thread}: its log folds to another state than was decided on")
        })
    }
}

impl Invariant for OneChain {
    fn name(&self) -> &'static str {
        "one chain"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => self.appended(step, facts),
            Seen::Broken(what) => Err(what.clone()),
            Seen::ThreadRests { thread } => self.rests(thread, facts),
            _ => Ok(()),
        }
    }
}
