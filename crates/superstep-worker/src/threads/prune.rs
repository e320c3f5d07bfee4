//! Pruning: how much of a thread's history is kept, and what is never taken from it.
//!
//! A hint, done after an append that wrote a snapshot: one that is lost, or that fails, is made up
//! by the next. What is removed is decided here from the head's state and a few reads; that it is
//! removed in one step, with the values that nothing else names, is the store's.
//!
//! The rule it keeps: the log begins with a snapshot that was on disk long before, and one more
//! like it follows; nothing goes that the thread needs to tell its events, to announce its open
//! questions, or to undo the run under way.

use std::time::Duration;

use superstep_checkpoint::{StoredRecord, Trimmed};
use superstep_protocol::{Head, Record, ThreadId, ThreadState, UnixMillis};
use superstep_wire::record;
use tracing::debug;

use super::{Thread, Threads};
use crate::{
    error::{Error, chain},
    settings::Retention,
};

impl Threads {
    /// Removes what need not be kept of a thread, if `last`, its last record, carries a snapshot.
    pub(crate) async fn prune(&self, thread: &Thread, last: &Record) {
        let state = &*thread.state;
        let is_due = last.snapshot.is_some() && last.head == state.head && !state.deleted;
        if !is_due || self.retention == Retention::Whole {
            return;
        }
        match self
            .try_prune(state, thread.told, self.log.durable_after())
            .await
        {
            Ok(0) => {}
            Ok(removed) => debug!(thread_id = %state.thread, removed, "pruned"),
            Err(error) => debug!(
                thread_id = %state.thread, error = chain(&error), "not pruned; again later"
            ),
        }
    }

    /// Answers how many records were removed. What is older than `durable_after` is on disk.
    async fn try_prune(
        &self,
        state: &ThreadState,
        told: u64,
        durable_after: Duration,
    ) -> Result<u64, Error> {
        let id = &state.thread;
        let now = self.log.now().await.map_err(Error::Store)?;
        let asked = match self.retention {
            Retention::Whole => None,
            Retention::Last(checkpoints) => self.last_checkpoints(state, checkpoints).await?,
            Retention::For(age) => {
                let since = UnixMillis(now.0.saturating_sub(millis(age)));
                self.first_since(state, since).await?
            }
        };
        let Some(asked) = asked else { return Ok(0) };
        let keep = asked.min(first_needed(state, told));
        let mut after = keep + 1;
        // The log goes on to begin with the snapshot before the newest one that is on disk.
        loop {
            let Some(snapshot) = self.snapshot_before(id, after).await? else {
                return Ok(0);
            };
            let safe = time_of(id, &snapshot)?.plus_ms(millis(durable_after));
            after = snapshot.head.version;
            if safe <= now {
                break;
            }
        }
        match self.snapshot_before(id, after).await? {
            Some(first) => self.trim(id, first.head).await,
            None => Ok(0),
        }
    }

    async fn trim(&self, id: &ThreadId, first: Head) -> Result<u64, Error> {
        let trimmed = self.log.trim(id, first).await;
        match trimmed.map_err(|source| failed(id, source))? {
            Trimmed::Removed(removed) => Ok(removed),
            // Somebody else was first, or the store stepped back.
            Trimmed::NotASnapshot => Ok(0),
        }
    }

    /// The snapshot that the last record before `after` builds on.
    async fn snapshot_before(
        &self,
        id: &ThreadId,
        after: u64,
    ) -> Result<Option<StoredRecord>, Error> {
        let Some(last) = self.stored(id, after.saturating_sub(1)).await? else {
            return Ok(None);
        };
        if last.is_snapshot() {
            return Ok(Some(last));
        }
        self.stored(id, last.snapshot).await
    }

    async fn stored(&self, id: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        if version == 0 {
            return Ok(None);
        }
        let found = self.log.record(id, version).await;
        found.map_err(|source| failed(id, source))
    }

    /// The record of the oldest of so many checkpoints and its parent; `None` if there are not as
    /// many, or so few more that it is not worth looking.
    async fn last_checkpoints(
        &self,
        state: &ThreadState,
        checkpoints: u64,
    ) -> Result<Option<u64>, Error> {
        const PAGE: usize = 64;
        let id = &state.thread;
        // As each checkpoint is a record at least, one read tells of most threads that are short
        // enough: those that keep many are not walked through at each snapshot.
        let enough = checkpoints.saturating_add(checkpoints / 4);
        let Some(first) = state.head.version.checked_sub(enough) else {
            return Ok(None);
        };
        if self.stored(id, first).await?.is_none() {
            return Ok(None);
        }
        let (mut before, mut met) = (None, 0);
        loop {
            let page = self.log.history(id, before, PAGE).await;
            let page = page.map_err(|source| failed(id, source))?;
            for stored in &page {
                let version = stored.head.version;
                let is_checkpoint = decoded(id, stored)?.is_checkpoint();
                met += u64::from(is_checkpoint && !state.is_hidden(version));
                if met > checkpoints {
                    return Ok(Some(version));
                }
            }
            before = page.last().map(|record| record.head.version);
            if page.len() < PAGE {
                return Ok(None);
            }
        }
    }

    /// The first record that is not older than `since`; the head if all are. Records are of times
    /// that never go back, so a few reads find it.
    async fn first_since(
        &self,
        state: &ThreadState,
        since: UnixMillis,
    ) -> Result<Option<u64>, Error> {
        let id = &state.thread;
        let (mut older, mut first) = (0, state.head.version);
        while older + 1 < first {
            let middle = older + (first - older) / 2;
            match self.stored(id, middle).await? {
                Some(stored) if time_of(id, &stored)? >= since => first = middle,
                // One that is gone was older.
                Some(_) | None => older = middle,
            }
        }
        Ok(Some(first))
    }
}

/// The first record that the thread itself needs, whatever was asked for.
fn first_needed(state: &ThreadState, told: u64) -> u64 {
    let head = state.head.version;
    let saved = state.saved.map_or(head, |(saved, _)| saved.version);
    let events = state.untold.iter().copied().find(|version| *version > told);
    // What announces them again is the record that asked.
    let questions = state.open_questions().map(|(_, question)| {
        let asked_again = question.asked_again.unwrap_or(question.opened_by);
        asked_again.min(question.opened_by)
    });
    let undone = state.run.as_ref().filter(|_| state.is_running());
    let undone = undone.map(|run| run.since);
    let rounds = state.rounds.keys().map(|round| round.version);
    let decision = state.decision.iter().map(|d| d.dispatch.version);
    questions
        .chain(rounds)
        .chain(decision)
        .chain(events)
        .chain(undone)
        .chain([saved, head])
        .min()
        .unwrap_or_default()
}

fn decoded(id: &ThreadId, stored: &StoredRecord) -> Result<record::Decoded, Error> {
    record::decode(&stored.bytes).map_err(|source| Error::Record {
        thread: id.clone(),
        version: stored.head.version,
        source,
    })
}

fn time_of(id: &ThreadId, stored: &StoredRecord) -> Result<UnixMillis, Error> {
    Ok(decoded(id, stored)?.time())
}

fn failed(id: &ThreadId, source: superstep_checkpoint::Error) -> Error {
    Error::Log {
        thread: id.clone(),
        source,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
