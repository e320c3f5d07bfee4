//! Verify: whether what a store holds keeps the invariants, as far as a store can show them.
//!
//! Every thread is read from its head back, a snapshot's range at a time, folded, and compared
//! with what the store keeps beside its records; then what belongs to no thread is looked for.
//! One file a check. It is safe beside workers that run: what looks wrong is read again, and only
//! what stays wrong while the thread stands still counts.
//!
//! The rule it keeps: nothing of a log is ever changed. Mending is rebuilding hints (index
//! entries, times to live) from the records, by a compare on the head.

mod blobs;
mod chain;
mod index;
mod owner;
mod rounds;
mod snapshots;
mod status;
mod strays;
#[cfg(test)]
mod tests;
mod walk;
mod writes;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use superstep_checkpoint::{Inspect, ThreadLog};
use superstep_protocol::{ThreadId, ThreadState};

use crate::error::Error;

/// How many threads a page of them has at most.
const PAGE: usize = 256;
/// How many threads are read at once.
const AT_ONCE: usize = 8;
/// How often something has to be seen to count.
const SEEN_MIN: usize = 3;
/// How long to wait before the second look; longer before each further one.
const PAUSE: Duration = Duration::from_millis(60);

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The records form one chain.
    Chain,
    /// Snapshots equal the fold of what was before them.
    Snapshots,
    /// Every value out of line is there, and none is left over.
    Blobs,
    /// Each task of a superstep wrote once, and an open round holds results of its tasks only.
    Writes,
    /// Statuses say what is the case.
    Status,
    /// Index entries say what the records say.
    Index,
    /// Whoever owes something is watched, or has a timer.
    Owner,
    /// Nothing belongs to no thread.
    Strays,
}

impl Check {
    /// The check in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Snapshots => "snapshots",
            Self::Blobs => "blobs",
            Self::Writes => "writes",
            Self::Status => "status",
            Self::Index => "index",
            Self::Owner => "owner",
            Self::Strays => "strays",
        }
    }

    /// What it means that the check fails.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Chain => "history is missing or not superstep's; restore the store from a backup",
            Self::Snapshots => {
                "a reader that begins at the snapshot sees another thread than its history tells"
            }
            Self::Blobs => "a value of the state is gone, or takes space that nothing names",
            Self::Writes => "a task's writes were lost, or applied more than once",
            Self::Status => "what clients are told of the thread is not what is the case",
            Self::Index => "lists, questions or timers show what is not so; repair rebuilds them",
            Self::Owner => "nobody would go on with the thread if its message were lost",
            Self::Strays => "an entry of no thread takes space and shows up in lists",
        }
    }

    /// Whether it is about hints, which can be rebuilt from the records.
    pub fn is_hint(self) -> bool {
        matches!(self, Self::Index | Self::Owner | Self::Strays)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// The check that fails.
    pub check: Check,
    /// The thread.
    pub thread_id: ThreadId,
    /// The record, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// What it is about, the same words at every look.
    pub subject: String,
    /// What was found, and what should be there.
    pub detail: String,
    /// What it means.
    pub meaning: &'static str,
    /// Whether it was mended.
    pub repaired: bool,
}

impl Wrong {
    fn new(check: Check, thread: &ThreadId, subject: impl Into<String>, detail: String) -> Self {
        Self {
            check,
            thread_id: thread.clone(),
            record: None,
            subject: subject.into(),
            detail,
            meaning: check.meaning(),
            repaired: false,
        }
    }

    fn at(mut self, version: u64) -> Self {
        self.record = Some(version);
        self
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.check, &self.subject, self.record) == (other.check, &other.subject, other.record)
    }
}

/// How a verification goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many threads were looked at.
    Checked(u64),
    /// Something is wrong.
    Wrong(Wrong),
}

/// What a verification came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The threads that were looked at.
    pub threads: u64,
    /// Their records.
    pub records: u64,
    /// What was wrong.
    pub wrong: u64,
    /// How much of it was mended.
    pub repaired: u64,
}

/// Verifies one store.
#[derive(Clone)]
pub struct Verifier {
    log: Arc<dyn ThreadLog>,
    inspect: Arc<dyn Inspect>,
    repair: bool,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("repair", &self.repair)
            .finish_non_exhaustive()
    }
}

/// What one look at a thread saw.
#[derive(Debug, Default)]
struct Look {
    wrong: Vec<Wrong>,
    records: u64,
    /// The state at the head, if the log can be folded and the thread stood still.
    still: Option<ThreadState>,
    /// Whether it is watched.
    is_watched: bool,
}

impl Verifier {
    /// A verifier of the store behind both ports.
    pub fn new(log: Arc<dyn ThreadLog>, inspect: Arc<dyn Inspect>) -> Self {
        Self {
            log,
            inspect,
            repair: false,
        }
    }

    /// Rebuilds the hints that are wrong.
    #[must_use]
    pub fn with_repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Verifies every thread, then what belongs to none, telling `step` as it goes.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn all(&self, mut step: impl FnMut(Step)) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut after = None;
        loop {
            let page = self.inspect.logs(after.as_deref(), PAGE).await;
            let page = page.map_err(Error::Store)?;
            let threads = page.rows.iter().map(|thread| self.thread_wrongs(thread));
            let mut looks = stream::iter(threads).buffer_unordered(AT_ONCE);
            while let Some(look) = looks.next().await {
                let (records, wrongs) = look?;
                summary.threads += 1;
                summary.records += records;
                for wrong in wrongs {
                    summary.tell(wrong, &mut step);
                }
            }
            step(Step::Checked(summary.threads));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        strays::check(self, |wrong| summary.tell(wrong, &mut step)).await?;
        Ok(summary)
    }

    /// Verifies one thread.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn one(
        &self,
        thread: &ThreadId,
        mut step: impl FnMut(Step),
    ) -> Result<Summary, Error> {
        let mut summary = Summary {
            threads: 1,
            ..Summary::default()
        };
        let (records, wrongs) = self.thread_wrongs(thread).await?;
        summary.records = records;
        for wrong in wrongs {
            summary.tell(wrong, &mut step);
        }
        Ok(summary)
    }

    /// The number of a thread's records, and what is wrong with it however often it is read.
    async fn thread_wrongs(&self, thread: &ThreadId) -> Result<(u64, Vec<Wrong>), Error> {
        let first = walk::look(&*self.log, &*self.inspect, thread).await?;
        let records = first.records;
        let mut suspects = first.wrong;
        let mut last = None;
        for look in 1..SEEN_MIN {
            if suspects.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE * u32::try_from(look).unwrap_or(1)).await;
            let again = walk::look(&*self.log, &*self.inspect, thread).await?;
            suspects.retain(|suspect| again.wrong.iter().any(|wrong| wrong.is_same(suspect)));
            last = Some(again);
        }
        let hints = suspects.iter().any(|wrong| wrong.check.is_hint());
        if let Some(Look {
            still: Some(state),
            is_watched,
            ..
        }) = last
            && hints
            && self.repair
        {
            let truth = index::truth(&state, is_watched);
            if truth.watched && suspects.iter().any(|wrong| wrong.check == Check::Owner) {
                // An entry that is there keeps its head, so one with a wrong one goes first.
                let mut without = truth.clone();
                without.watched = false;
                let left = self.inspect.reindex(thread, state.head, &without).await;
                left.map_err(Error::Store)?;
            }
            let mended = self.inspect.reindex(thread, state.head, &truth).await;
            if mended.map_err(Error::Store)? {
                let after = walk::look(&*self.log, &*self.inspect, thread).await?;
                for wrong in suspects.iter_mut().filter(|wrong| wrong.check.is_hint()) {
                    wrong.repaired = !after.wrong.iter().any(|other| other.is_same(wrong));
                }
            }
        }
        Ok((records, suspects))
    }
}

impl Summary {
    fn tell(&mut self, wrong: Wrong, step: &mut impl FnMut(Step)) {
        self.wrong += 1;
        self.repaired += u64::from(wrong.repaired);
        step(Step::Wrong(wrong));
    }
}
