//! The typed log: records in, states out.
//!
//! It encodes and decodes, folds, chooses when a record carries a snapshot, keeps the indexes'
//! difference beside each append, and sends an append whose answer was lost again, the very
//! same one. It decides nothing: what to append comes from the protocol.

mod past;
mod prune;
mod wide;

pub(crate) use past::Fate;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use superstep_checkpoint::{Append, Appended, ErrorKind, StoredRecord, ThreadLog};
use superstep_protocol::{
    Base, CommandId, Head, Record, RecordBody, Refusal, RunError, ThreadId, ThreadState,
    UnixMillis, checkpoint_id, fold, version_of_checkpoint,
};
use superstep_wire::record::{self, Decoded};
use tracing::debug;

use crate::{
    clock::SharedWorld,
    error::Error,
    graphs::Graphs,
    health::Health,
    index::Indexed,
    settings::{Limits, Retention},
    trace::{self, Tracer, Traces},
    view::{Before, CheckpointView},
};

/// A thread as this process last read or wrote it.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its state; shared where several tasks of one superstep are worked on.
    pub state: Arc<ThreadState>,
    /// Events of records up to this version are known to be in their stream.
    pub(crate) told: u64,
    snapshot: u64,
    bytes_since: usize,
    snapshot_bytes: usize,
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in the log.
    Done(Box<(Thread, Record)>),
    /// The thread has moved on.
    Moved,
    /// The command was decided before.
    Decided(Bytes),
    /// The record or the state would be over its bound.
    TooLarge(RunError),
}

/// The threads of one store.
#[derive(Clone)]
pub struct Threads {
    log: Arc<dyn ThreadLog>,
    world: SharedWorld,
    limits: Limits,
    retry: Duration,
    wide: wide::Wide,
    health: Health,
    traces: Option<Traces>,
    retention: Retention,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Threads {
    /// The threads of `log`; a call that fails for want of the store is tried again for `retry`.
    pub fn new(
        log: Arc<dyn ThreadLog>,
        world: SharedWorld,
        limits: Limits,
        retry: Duration,
    ) -> Self {
        Self {
            log,
            world,
            limits,
            retry,
            wide: wide::Wide::default(),
            health: Health::default(),
            traces: None,
            retention: Retention::default(),
        }
    }

    /// Touches this health, in the place of one that nobody looks at.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Tells this tracer what becomes of runs.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Arc<dyn Tracer>) -> Self {
        self.traces = Some(Traces::new(tracer));
        self
    }

    /// What tells of runs, if anything does.
    pub(crate) fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// Keeps so much of each thread's history, in the place of all of it.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// What is told of the calls.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The store.
    pub fn log(&self) -> &Arc<dyn ThreadLog> {
        &self.log
    }

    /// The clock and the nonces.
    pub fn world(&self) -> &SharedWorld {
        &self.world
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads a thread; `None` if it has no log. A tombstone is a thread that is `deleted`.
    ///
    /// # Errors
    /// If the store fails for too long, or the log is not readable.
    pub async fn load(&self, thread: &ThreadId) -> Result<Option<Thread>, Error> {
        let loaded = self
            .retrying_as("load", thread, || self.log.load(thread))
            .await?;
        let Some(loaded) = loaded else {
            return Ok(None);
        };
        let sizes: Vec<usize> = loaded
            .records
            .iter()
            .map(|record| record.bytes.len())
            .collect();
        let first = loaded
            .records
            .first()
            .map_or(0, |record| record.head.version);
        let records = self.decode(thread, loaded.records).await?;
        let mut state: Option<ThreadState> = None;
        for mut record in records {
            state = Some(match (state, record.snapshot.take()) {
                (None, Some(snapshot)) => *snapshot,
                (None, None) => {
                    return Err(Error::NoSnapshot {
                        thread: thread.clone(),
                        version: first,
                    });
                }
                (before, _) => fold(thread, before, &record)?,
            });
        }
        let Some(state) = state else { return Ok(None) };
        Ok(Some(Thread {
            told: 0,
            snapshot: first,
            snapshot_bytes: sizes.first().copied().unwrap_or(0),
            bytes_since: sizes.iter().skip(1).sum(),
            state: Arc::new(state),
        }))
    }

    async fn decode(
        &self,
        thread: &ThreadId,
        stored: Vec<StoredRecord>,
    ) -> Result<Vec<Record>, Error> {
        let unreadable = |version: u64| {
            let thread = thread.clone();
            move |source| Error::Record {
                thread,
                version,
                source,
            }
        };
        let mut decoded: Vec<(u64, Decoded)> = Vec::with_capacity(stored.len());
        for record in &stored {
            let version = record.head.version;
            decoded.push((
                version,
                record::decode(&record.bytes).map_err(unreadable(version))?,
            ));
        }
        let mut ids: Vec<String> = decoded.iter().flat_map(|(_, d)| d.blob_ids()).collect();
        ids.sort();
        ids.dedup();
        let blobs = if ids.is_empty() {
            BTreeMap::new()
        } else {
            let found = self
                .retrying(thread, || self.log.blobs(thread, &ids))
                .await?;
            ids.into_iter().zip(found).collect()
        };
        decoded
            .into_iter()
            .map(|(version, decoded)| decoded.resolve(&blobs).map_err(unreadable(version)))
            .collect()
    }

    /// Appends `body` behind `before` (`None`: to a thread without a log), with the outcome of
    /// the command that it accepts. The same append is sent again while its answer is lost.
    pub(crate) async fn append(
        &self,
        thread: &ThreadId,
        before: Option<Thread>,
        body: RecordBody,
        outcome: Option<(CommandId, OutcomeBytes)>,
    ) -> Result<Outcome, Error> {
        let after = before.as_ref().map(|before| before.state.head);
        let head = Head {
            version: after.map_or(0, |head| head.version) + 1,
            nonce: self.world.nonce(),
        };
        let earliest = before
            .as_ref()
            .map_or(UnixMillis(0), |before| before.state.time);
        let mut record = Record {
            head,
            time: self.world.now().max(earliest),
            told: before.as_ref().map_or(0, |before| before.told),
            body,
            snapshot: None,
        };
        let indexed = before
            .as_ref()
            .map(|b| Indexed::of(&b.state))
            .unwrap_or_default();
        let (told, snapshot, bytes_since, snapshot_bytes, state) = match before {
            Some(b) => (
                b.told,
                b.snapshot,
                b.bytes_since,
                b.snapshot_bytes,
                Some(Arc::unwrap_or_clone(b.state)),
            ),
            None => (0, 0, 0, 0, None),
        };
        let traced = self.traces.as_ref().zip(state.as_ref());
        let traced = traced.and_then(|(traces, state)| Some((traces, trace::Before::of(state)?)));
        let state = fold(thread, state, &record)?;
        let mut snapshot_due = snapshot == 0
            || head.version - snapshot >= self.limits.snapshot_every
            || bytes_since > snapshot_bytes.max(64 << 10)
            || matches!(record.body, RecordBody::Deleted { .. });
        let encoded = loop {
            if snapshot_due {
                record.snapshot = Some(Box::new(state.clone()));
            }
            let encoded = record::encode(record.clone(), self.limits.inline_bytes_max);
            let before = if snapshot_due {
                0
            } else {
                bytes_since + snapshot_bytes
            };
            match self.too_large(&encoded, before) {
                None => break encoded,
                // What lies in the log is an upper bound of the state; a snapshot measures it.
                Some(_) if !snapshot_due => snapshot_due = true,
                Some(error) => return Ok(Outcome::TooLarge(error)),
            }
        };
        let written = Thread {
            told,
            snapshot: if snapshot_due { head.version } else { snapshot },
            bytes_since: if snapshot_due {
                0
            } else {
                bytes_since + encoded.bytes.len()
            },
            snapshot_bytes: if snapshot_due {
                encoded.bytes.len()
            } else {
                snapshot_bytes
            },
            state: Arc::new(state),
        };
        let append = Append {
            after,
            record: StoredRecord {
                head,
                snapshot: written.snapshot,
                bytes: Bytes::from(encoded.bytes),
            },
            index: indexed.change_to(&written.state),
            outcome: outcome.map(|(command, bytes)| (command, bytes(head, &written.state))),
            blobs: encoded.blobs.keys().cloned().collect(),
        };
        for (id, bytes) in encoded.blobs {
            let bytes = Bytes::from(bytes);
            self.retrying(thread, || self.log.put_blob(thread, &id, bytes.clone()))
                .await?;
        }
        let appended = if let RecordBody::Deleted { .. } = record.body {
            let tombstone = append.record.clone();
            let after = after.unwrap_or(head);
            self.retrying(thread, || self.log.delete(thread, after, tombstone.clone()))
                .await?
        } else {
            self.retrying_as("append", thread, || self.log.append(thread, &append))
                .await?
        };
        Ok(match appended {
            Appended::Done => {
                debug!(thread_id = %thread, record = %head, kind = record.body.kind(), "appended");
                self.health
                    .appended(&written.state.graph.name, &record.body);
                if let Some((traces, before)) = traced {
                    traces.appended(&before, &record, &written.state);
                }
                Outcome::Done(Box::new((written, record)))
            }
            Appended::Moved { .. } => {
                self.health.conflicted();
                Outcome::Moved
            }
            Appended::Decided { outcome } => Outcome::Decided(outcome),
        })
    }

    fn too_large(&self, encoded: &record::Encoded, bytes_before: usize) -> Option<RunError> {
        let blobs: usize = encoded.blobs.values().map(Vec::len).sum();
        let (what, bytes, bytes_max, setting) =
            if encoded.bytes.len() > self.limits.record_bytes_max {
                let bytes_max = self.limits.record_bytes_max;
                (
                    "superstep's record",
                    encoded.bytes.len(),
                    bytes_max,
                    "record_bytes_max",
                )
            } else if bytes_before + encoded.bytes.len() + blobs > self.limits.state_bytes_max {
                let bytes = bytes_before + encoded.bytes.len() + blobs;
                (
                    "thread's state",
                    bytes,
                    self.limits.state_bytes_max,
                    "state_bytes_max",
                )
            } else {
                return None;
            };
        Some(RunError {
            kind: "StateTooLarge".to_owned(),
            message: format!(
                "the {what} would take {bytes} bytes and may take {bytes_max}; keep large data \
                 elsewhere and a reference in the state, or raise `{setting}`"
            ),
            node: None,
            task: None,
        })
    }

    /// Tries a call again, with growing pauses, while the store is unavailable or full.
    pub(crate) async fn retrying<T, F, Fut>(&self, thread: &ThreadId, call: F) -> Result<T, Error>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, superstep_checkpoint::Error>>,
    {
        self.retrying_as("other", thread, call).await
    }

    /// As `retrying`; `name` is what is told of the call.
    async fn retrying_as<T, F, Fut>(
        &self,
        name: &'static str,
        thread: &ThreadId,
        call: F,
    ) -> Result<T, Error>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, superstep_checkpoint::Error>>,
    {
        let deadline = tokio::time::Instant::now() + self.retry;
        let mut pause = Duration::from_millis(20);
        loop {
            let called = self.noted(name, call()).await;
            match called {
                Ok(value) => return Ok(value),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full)
                        && tokio::time::Instant::now() + pause < deadline =>
                {
                    debug!(thread_id = %thread, %error, "trying the store again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(source) => {
                    return Err(Error::Log {
                        thread: thread.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Awaits one call to the store, and tells what came of it.
    pub(crate) async fn noted<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, superstep_checkpoint::Error>>,
    ) -> Result<T, superstep_checkpoint::Error> {
        let began = tokio::time::Instant::now();
        let called = call.await;
        let ok = called.as_ref().err().is_none_or(|error| {
            // What the store refuses, it has answered.
            !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full)
        });
        self.health.store_called(name, began, ok);
        called
    }

    /// The checkpoint of this id, if it is one of the thread's and still in the log; with what
    /// commands changed in it since, if `amended`.
    ///
    /// # Errors
    /// If the store fails for too long, or the log is not readable.
    pub async fn base(
        &self,
        thread: &ThreadId,
        checkpoint: &str,
        amended: bool,
    ) -> Result<Option<Base>, Error> {
        let Some((version, _)) = version_of_checkpoint(checkpoint) else {
            return Ok(None);
        };
        // What commands changed in it came after it, before the next checkpoint.
        let mut ahead = 16;
        loop {
            let mut found = None;
            let (mut last, mut is_left) = (0, false);
            let show = |record: &Record, _: Option<Before>, state: &ThreadState| {
                last = record.head.version;
                let saved = state.saved.filter(|(head, _)| head.version == version);
                match saved.filter(|saved| checkpoint_id(saved.0, saved.1) == checkpoint) {
                    Some(saved) if amended || last == version => {
                        found = Some(Base {
                            saved,
                            checkpoint: state.checkpoint.clone(),
                            tasks: state.tasks.iter().map(|task| task.task.clone()).collect(),
                        });
                    }
                    Some(_) => {}
                    None => is_left |= last > version,
                }
            };
            self.replay(thread, Some(version + 1 + ahead), show, 1, Some(version))
                .await?;
            if found.is_none() || !amended || is_left || last < version + ahead {
                return Ok(found);
            }
            ahead *= 4;
        }
    }

    /// The record and the state after it, at `version`, if it is still in the log.
    pub(crate) async fn at(
        &self,
        thread: &ThreadId,
        version: u64,
    ) -> Result<Option<(Record, ThreadState)>, Error> {
        let mut found = None;
        self.replay(
            thread,
            Some(version + 1),
            |record, _, state| {
                if record.head.version == version {
                    found = Some((record.clone(), state.clone()));
                }
            },
            1,
            None,
        )
        .await?;
        Ok(found)
    }

    /// The checkpoints of a thread, newest first, at most `limit`, older than record `before`.
    ///
    /// # Errors
    /// If the store fails for too long, or the log is not readable.
    pub async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, Error> {
        self.history_of(thread, before, limit, &Graphs::new()).await
    }

    /// As [`history`](Self::history); where `graphs` has the thread's graph, values are what its
    /// nodes read and tasks are in the order of its nodes.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn history_of(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
        graphs: &Graphs,
    ) -> Result<Vec<CheckpointView>, Error> {
        let mut hidden = match before {
            Some(_) => self.load(thread).await?.map(|now| now.state.hidden.clone()),
            None => None,
        };
        loop {
            let spans = hidden.clone().unwrap_or_default();
            let more: u64 = spans.iter().map(|(first, last)| last - first + 1).sum();
            let limit_all = limit.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
            let (mut views, last) = self.checkpoints(thread, before, limit_all, graphs).await?;
            if hidden.is_none() && !last.is_empty() {
                // Those that were rolled back are to be looked past.
                hidden = Some(last);
                continue;
            }
            let is_hidden = |version| {
                let mut spans = spans.iter();
                spans.any(|(first, last)| (*first..=*last).contains(&version))
            };
            views.retain(|view| !is_hidden(view.version));
            views.truncate(limit);
            return Ok(views);
        }
    }

    /// As [`history_of`](Self::history_of), those too that were rolled back; with the spans of
    /// versions that were, as of the last record that is read.
    async fn checkpoints(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
        graphs: &Graphs,
    ) -> Result<(Vec<CheckpointView>, Vec<(u64, u64)>), Error> {
        let mut views: Vec<CheckpointView> = Vec::new();
        let mut hidden = Vec::new();
        let mut spoiled = None;
        self.replay(
            thread,
            before,
            |record, before, state| {
                let graph = graphs.get(&state.graph).map(|graph| graph.topology());
                CheckpointView::observe(&mut views, record, before, state, graph);
                spoiled.clone_from(&state.spoiled);
                hidden.clone_from(&state.hidden);
            },
            limit,
            None,
        )
        .await?;
        if let Some(reason) = spoiled {
            return Err(Error::Refused(Refusal::InvalidUpdate { reason }));
        }
        views.reverse();
        views.truncate(limit);
        Ok((views, hidden))
    }

    /// Folds the log forward from a snapshot far enough back to meet `checkpoints` checkpoints
    /// before version `before`, and record `down_to`, showing each record with the state after it.
    async fn replay(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        mut show: impl FnMut(&Record, Option<Before>, &ThreadState),
        checkpoints: usize,
        down_to: Option<u64>,
    ) -> Result<(), Error> {
        const PAGE: usize = 64;
        let mut stored: Vec<StoredRecord> = Vec::new();
        let mut at = before;
        let mut committed = 0;
        loop {
            let page = self
                .retrying(thread, || self.log.history(thread, at, PAGE))
                .await?;
            let last = page.len() < PAGE;
            at = page.last().map(|record| record.head.version);
            let mut enough = false;
            for record in page {
                let decoded = record::decode(&record.bytes).map_err(|source| Error::Record {
                    thread: thread.clone(),
                    version: record.head.version,
                    source,
                })?;
                committed += usize::from(decoded.is_checkpoint());
                let begins = record.snapshot == record.head.version;
                stored.push(record);
                // One more checkpoint than asked for is met, so that the oldest one that is
                // shown has its parent.
                let is_deep = down_to.is_none_or(|version| {
                    stored
                        .last()
                        .is_some_and(|record| record.head.version <= version)
                });
                if committed > checkpoints && begins && is_deep {
                    enough = true;
                    break;
                }
            }
            if enough || last {
                break;
            }
        }
        stored.reverse();
        let mut state: Option<ThreadState> = None;
        for mut record in self.decode(thread, stored).await? {
            let before = state.as_ref().map(|before| Before::of(before, &record));
            let next = match (state.take(), record.snapshot.take()) {
                (None, Some(snapshot)) => *snapshot,
                // Before the oldest snapshot nothing can be folded: the log was trimmed there.
                (None, None) => continue,
                (before, _) => fold(thread, before, &record)?,
            };
            show(&record, before, state.insert(next));
        }
        Ok(())
    }
}

/// Makes the outcome's bytes once the record that accepts the command has its name.
pub(crate) type OutcomeBytes = Box<dyn FnOnce(Head, &ThreadState) -> Bytes + Send>;
