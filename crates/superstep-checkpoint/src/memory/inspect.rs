//! Looking into the in-memory log, and damaging it on purpose.
//!
//! Here each entry lies in its thread, so nothing can be torn and nothing is a stray: what tests
//! of `verify` need to find, [`MemoryLog::tamper`] makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_graph::InterruptId;
use superstep_protocol::{Dispatch, Head, ThreadId, UnixMillis};

use super::{
    MemoryLog,
    state::{Blob, Expiry, Round, Thread, after},
};
use crate::{
    ENDED_ROUND_TTL, Error, Inspect, Kept, Page, Reindex, StoredRecord, Stray, StrayKind,
    ThreadRow, page_rows,
};

/// What a log holds of one thread, for a test to spoil.
#[derive(Clone, Debug, Default)]
pub struct Tampered {
    /// Its records. Without any the thread is gone, and what is left of the rest belongs to
    /// nothing.
    pub records: BTreeMap<u64, StoredRecord>,
    /// Its row.
    pub row: Option<ThreadRow>,
    /// The head of its watch entry.
    pub watched: Option<Head>,
    /// Its open questions.
    pub interrupts: BTreeMap<InterruptId, UnixMillis>,
    /// Its timers.
    pub due: BTreeMap<String, UnixMillis>,
    /// Its open rounds.
    pub rounds: BTreeSet<Dispatch>,
    /// Its values out of line.
    pub blobs: BTreeMap<String, Bytes>,
    /// Entries that belong to nothing.
    pub strays: Vec<Stray>,
}

impl MemoryLog {
    /// Lets a test change what the log holds of `thread` as no caller of the port could.
    pub fn tamper(&self, thread: &ThreadId, change: impl FnOnce(&mut Tampered)) {
        let (mut state, now) = self.at_now();
        let found = state.threads.remove(thread).unwrap_or_default();
        let all_blobs = std::mem::take(&mut state.blobs);
        let (mine, others) = all_blobs
            .into_iter()
            .partition(|((owner, _), _)| owner == thread);
        state.blobs = others;
        let mine: BTreeMap<(ThreadId, String), Blob> = mine;
        let mut held = Tampered {
            records: found.records,
            row: found.row,
            watched: found.watched.map(|(head, _)| head),
            interrupts: found.interrupts,
            due: found.due,
            rounds: open(&found.rounds),
            blobs: mine
                .into_iter()
                .map(|((_, id), blob)| (id, blob.bytes))
                .collect(),
            strays: Vec::new(),
        };
        change(&mut held);
        let stray = |kind, name: &str| Stray {
            kind,
            thread: thread.clone(),
            name: name.to_owned(),
        };
        if held.records.is_empty() {
            let strays = &mut held.strays;
            strays.extend(held.row.iter().map(|_| stray(StrayKind::Row, "")));
            strays.extend(held.watched.iter().map(|_| stray(StrayKind::Watch, "")));
            let names = held.due.keys();
            strays.extend(names.map(|name| stray(StrayKind::Timer, name)));
            let ids = held.interrupts.keys();
            strays.extend(ids.map(|id| stray(StrayKind::Question, id.as_str())));
            strays.extend(held.blobs.keys().map(|id| stray(StrayKind::Blob, id)));
        } else {
            let mut rounds = found.rounds;
            rounds.retain(|round, at| at.ended || held.rounds.contains(round));
            for round in held.rounds {
                rounds.entry(round).or_default().ended = false;
            }
            let changed = Thread {
                records: held.records,
                row: held.row,
                watched: held.watched.map(|head| (head, now)),
                interrupts: held.interrupts,
                due: held.due,
                rounds,
                expires: found.expires,
            };
            state.threads.insert(thread.clone(), changed);
            for (id, bytes) in held.blobs {
                let blob = Blob {
                    bytes,
                    expires: None,
                    named: u64::MAX,
                };
                state.blobs.insert((thread.clone(), id), blob);
            }
        }
        state.strays.extend(held.strays);
    }
}

fn open(rounds: &BTreeMap<Dispatch, Round>) -> BTreeSet<Dispatch> {
    let open = rounds.iter().filter(|(_, round)| !round.ended);
    open.map(|(round, _)| *round).collect()
}

#[async_trait]
impl Inspect for MemoryLog {
    async fn logs(&self, after: Option<&str>, limit: usize) -> Result<Page<ThreadId>, Error> {
        let (state, _) = self.at_now();
        let from = after.map_or(Bound::Unbounded, |after| {
            Bound::Excluded(ThreadId::new(after))
        });
        let limit = page_rows(limit);
        let behind = state.threads.range((from, Bound::Unbounded));
        let rows: Vec<_> = behind.take(limit).map(|(id, _)| id.clone()).collect();
        let next = rows.last().filter(|_| rows.len() == limit);
        Ok(Page {
            next: next.map(ToString::to_string),
            rows,
        })
    }

    async fn kept(&self, thread: &ThreadId) -> Result<Option<Kept>, Error> {
        let (state, _) = self.at_now();
        let Some(found) = state.threads.get(thread) else {
            return Ok(None);
        };
        let blobs = state
            .blobs
            .iter()
            .filter(|((owner, _), blob)| owner == thread && blob.expires.is_none());
        let sizes = found
            .records
            .values()
            .map(|record| record.bytes.len() as u64);
        Ok(Some(Kept {
            head: Some(found.head()),
            records: found.records.len() as u64,
            oldest: found.records.keys().next().copied().unwrap_or(0),
            record_bytes: sizes.sum(),
            expires: found.expires.is_some(),
            row: found.row.clone(),
            watched: found.watched.map(|(head, _)| head),
            interrupts: found.interrupts.clone(),
            due: found.due.clone(),
            rounds: open(&found.rounds),
            blobs: blobs.map(|((_, id), _)| id.clone()).collect(),
            torn: Vec::new(),
        }))
    }

    async fn strays(&self, _: Option<&str>, _: usize) -> Result<Page<Stray>, Error> {
        let (state, _) = self.at_now();
        Ok(Page {
            rows: state.strays.iter().cloned().collect(),
            next: None,
        })
    }

    async fn is_stray(&self, stray: &Stray) -> Result<bool, Error> {
        Ok(self.at_now().0.strays.contains(stray))
    }

    async fn remove_stray(&self, stray: &Stray) -> Result<bool, Error> {
        Ok(self.at_now().0.strays.remove(stray))
    }

    async fn reindex(&self, thread: &ThreadId, head: Head, truth: &Reindex) -> Result<bool, Error> {
        let (mut state, now) = self.at_now();
        let Some(found) = state.threads.get_mut(thread) else {
            return Ok(false);
        };
        if found.head() != head {
            return Ok(false);
        }
        found.row.clone_from(&truth.row);
        found.watched = match found.watched {
            _ if !truth.watched => None,
            None => Some((head, now)),
            there => there,
        };
        found.interrupts.clone_from(&truth.interrupts);
        found.due.clone_from(&truth.due);
        let mut ended = Vec::new();
        for (round, at) in &mut found.rounds {
            if !at.ended && !truth.rounds.contains(round) {
                at.ended = true;
                ended.push(*round);
            }
        }
        for round in &truth.rounds {
            found.rounds.entry(*round).or_default().ended = false;
        }
        for round in ended {
            let expires = after(now, ENDED_ROUND_TTL);
            state.expire_at(expires, Expiry::Round(thread.clone(), round));
        }
        Ok(true)
    }
}
