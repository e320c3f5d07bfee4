//! Walk: one look at a thread, from its head back, a snapshot's range at a time.
//!
//! It holds no more of a log than one range of records, from a snapshot to the next one, folds
//! it, and hands each step to the checks. What they make of it is theirs.

use std::collections::{BTreeMap, BTreeSet};

use superstep_checkpoint::{Inspect, StoredRecord, ThreadLog};
use superstep_protocol::{Record, ThreadId, ThreadState, fold};
use superstep_wire::record::{self, Decoded};

use super::{Check, Look, Wrong, blobs, chain, index, owner, rounds, snapshots, status, writes};
use crate::error::{Error, chain as told};

/// How many records are read at once.
const PAGE: usize = 64;

/// A look being taken.
pub(super) struct Walk<'a> {
    pub(super) log: &'a dyn ThreadLog,
    pub(super) thread: &'a ThreadId,
    pub(super) wrong: Vec<Wrong>,
    /// The blobs that records name.
    pub(super) named: BTreeSet<String>,
    /// The state at the head, once the newest range is folded.
    head: Option<ThreadState>,
    is_newest: bool,
}

impl Walk<'_> {
    pub(super) fn wrong(&mut self, check: Check, version: u64, subject: &str, detail: String) {
        let wrong = Wrong::new(check, self.thread, subject, detail);
        self.wrong.push(wrong.at(version));
    }
}

/// Looks at a thread once.
pub(super) async fn look(
    log: &dyn ThreadLog,
    inspect: &dyn Inspect,
    thread: &ThreadId,
) -> Result<Look, Error> {
    let failed = |source| Error::Log {
        thread: thread.clone(),
        source,
    };
    let before = log.head(thread).await;
    let mut walk = Walk {
        log,
        thread,
        wrong: Vec::new(),
        named: BTreeSet::new(),
        head: None,
        is_newest: true,
    };
    let walked = walk.records().await?;
    let rounds = match &walk.head {
        Some(state) => rounds::check(&walk, state).await?,
        None => Vec::new(),
    };
    let kept = inspect.kept(thread).await.map_err(failed)?;
    let after = log.head(thread).await;
    let Some(kept) = kept else {
        // Deleted, or a tombstone that went away, while it was looked at.
        return Ok(Look::default());
    };
    let is_still = match (before, after) {
        (Ok(before), Ok(after)) => before == after && before == kept.head,
        (Err(error), _) | (_, Err(error))
            if error.kind() != superstep_checkpoint::ErrorKind::Corrupt =>
        {
            return Err(failed(error));
        }
        _ => true,
    };
    if is_still {
        chain::whole(&mut walk, &walked, &kept);
        blobs::none_left_over(&mut walk, &kept);
        walk.wrong.extend(rounds);
        if let Some(state) = walk.head.take() {
            index::check(&mut walk.wrong, &state, &kept);
            owner::check(&mut walk.wrong, &state, &kept);
            walk.head = Some(state);
        }
    }
    Ok(Look {
        wrong: walk.wrong,
        records: walked.count,
        still: walk.head.filter(|_| is_still),
        is_watched: kept.watched.is_some(),
    })
}

/// How far a walk came.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) count: u64,
    pub(super) newest: Option<superstep_protocol::Head>,
    pub(super) oldest: u64,
    /// Whether it ended where a log may begin.
    pub(super) ends_well: bool,
}

impl Walk<'_> {
    async fn records(&mut self) -> Result<Walked, Error> {
        let mut walked = Walked::default();
        let mut range: Vec<StoredRecord> = Vec::new();
        loop {
            let before = range.last().map(|record| record.head.version);
            let page = self.log.history(self.thread, before, PAGE).await;
            let page = match page {
                Ok(page) => page,
                Err(error) if error.kind() == superstep_checkpoint::ErrorKind::Corrupt => {
                    let version = before.unwrap_or_default().saturating_sub(1);
                    self.wrong(Check::Chain, version, "readable", told(&error));
                    break;
                }
                Err(source) => {
                    return Err(Error::Log {
                        thread: self.thread.clone(),
                        source,
                    });
                }
            };
            let is_last = page.len() < PAGE;
            for record in page {
                walked.count += 1;
                walked.newest = walked.newest.or(Some(record.head));
                walked.oldest = record.head.version;
                if let Some(newer) = range.last() {
                    chain::dense(self, &record, &newer.clone());
                }
                let begins = record.is_snapshot();
                range.push(record.clone());
                if begins {
                    range.reverse();
                    self.range(&range).await?;
                    range = vec![record];
                }
            }
            if is_last {
                break;
            }
        }
        walked.ends_well = range.len() == 1 && range[0].is_snapshot();
        Ok(walked)
    }

    /// Folds a range: from a record with a snapshot up to the head, or to the next snapshot.
    async fn range(&mut self, stored: &[StoredRecord]) -> Result<(), Error> {
        let is_newest = std::mem::replace(&mut self.is_newest, false);
        let Some(records) = self.read(stored).await? else {
            return Ok(());
        };
        let mut state: Option<ThreadState> = None;
        let mut time = None;
        let last = records.len() - 1;
        for (at, mut record) in records.into_iter().enumerate() {
            let version = record.head.version;
            // The record at the end of an older range was looked at as the first of the next.
            let is_new = at < last || is_newest;
            if is_new {
                chain::names(self, &stored[at], stored[0].head.version, &record);
            }
            if time.is_some_and(|before| record.time < before) {
                let detail = format!("is of {} and follows one of {time:?}", record.time.0);
                self.wrong(Check::Chain, version, "time", detail);
            }
            time = Some(record.time);
            let snapshot = record.snapshot.take();
            let next = match (state.take(), snapshot) {
                (None, Some(snapshot)) => *snapshot,
                (None, None) => {
                    let detail = "is said to carry a snapshot and has none".to_owned();
                    self.wrong(Check::Snapshots, version, "snapshot", detail);
                    return Ok(());
                }
                (Some(before), snapshot) => {
                    // What a record did that cannot follow says nothing of what was lost.
                    if chain::answers(self, &before, &record) {
                        writes::check(self, &before, &record);
                    }
                    match fold(self.thread, Some(before), &record) {
                        Ok(after) => {
                            if let Some(snapshot) = snapshot {
                                snapshots::check(self, &snapshot, &after);
                            }
                            after
                        }
                        Err(error) => {
                            self.wrong(Check::Chain, version, "fold", error.to_string());
                            return Ok(());
                        }
                    }
                }
            };
            if is_new {
                status::check(self, &next);
            }
            state = Some(next);
        }
        if is_newest {
            self.head = state;
        }
        Ok(())
    }

    /// Decodes a range, with its values; `None` if a part of it cannot be read.
    async fn read(&mut self, stored: &[StoredRecord]) -> Result<Option<Vec<Record>>, Error> {
        let mut decoded: Vec<(u64, Decoded)> = Vec::with_capacity(stored.len());
        let mut is_whole = true;
        for one in stored {
            match record::decode(&one.bytes) {
                Ok(record) => decoded.push((one.head.version, record)),
                Err(error) => {
                    is_whole = false;
                    self.wrong(Check::Chain, one.head.version, "readable", told(&error));
                }
            }
        }
        let Some(values) = blobs::read(self, &decoded).await? else {
            return Ok(None);
        };
        let mut records = Vec::with_capacity(decoded.len());
        for (version, decoded) in decoded {
            match decoded.resolve::<bytes::Bytes>(&values) {
                Ok(record) => records.push(record),
                Err(error) => {
                    is_whole = false;
                    self.wrong(Check::Blobs, version, "value", told(&error));
                }
            }
        }
        Ok(Some(records).filter(|_| is_whole))
    }
}

/// Values out of line, by id.
pub(super) type Values = BTreeMap<String, bytes::Bytes>;
