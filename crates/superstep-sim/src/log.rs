//! The thread log as one worker process meets it: refused, slow, its answers lost, its calls
//! landing late.
//!
//! Beneath is one memory log for all processes. After everything that changes it the checks
//! look at it; for tests in which it steps back, images of its last moments are kept.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_checkpoint::{
    Append, Appended, Claim, Claimed, Due, Error, ErrorKind, Finding, InterruptQuery, InterruptRow,
    Loaded, Page, PutProgress, PutResult, Registration, StoredRecord, ThreadLog, ThreadQuery,
    ThreadRow, Trimmed, Watched,
    memory::{Image, MemoryLog},
};
use superstep_graph::TaskId;
use superstep_protocol::{
    CommandId, Dispatch, GraphId, Head, Nonce, Obligation, ThreadId, UnixMillis, obligations,
};
use superstep_wire::{Outcome, decode};

use crate::{
    ledger::Ledger,
    mutant::{Mutant, SharedMaps},
    plan::{Faults, Process, lock},
};

/// How far back the store can step.
const STEP_BACK_MAX: Duration = Duration::from_secs(1);

/// The store that all processes share.
pub(crate) struct Store {
    pub(crate) log: MemoryLog,
    /// How long an append takes to be durable; zero if the store never steps back.
    pub(crate) durable_after: Duration,
    images: Mutex<VecDeque<(Duration, Image)>>,
    shared_maps: Mutex<SharedMaps>,
    faults: Arc<Faults>,
}

impl Store {
    pub(crate) fn new(faults: &Arc<Faults>, durable_after: Duration) -> Self {
        let world = Arc::clone(&faults.world);
        let log = MemoryLog::with_clock(Arc::new(move || world.store_now()));
        Self {
            log,
            durable_after,
            images: Mutex::default(),
            shared_maps: Mutex::default(),
            faults: Arc::clone(faults),
        }
    }

    /// Keeps an image of what is about to be changed.
    fn about_to_change(&self) {
        if self.durable_after.is_zero() {
            return;
        }
        let now = self.faults.world.elapsed();
        let mut images = lock(&self.images);
        images.push_back((now, self.log.image()));
        while images
            .front()
            .is_some_and(|(at, _)| *at + STEP_BACK_MAX < now)
        {
            images.pop_front();
        }
    }

    /// Forgets the last `changes` changes, of those that are young enough to be lost.
    pub(crate) fn step_back(&self, changes: usize) -> bool {
        let now = self.faults.world.elapsed();
        let mut images = lock(&self.images);
        images.retain(|(at, _)| *at + STEP_BACK_MAX >= now);
        let at = images.len().saturating_sub(changes);
        let Some((_, image)) = images.get(at) else {
            return false;
        };
        self.log.restore(image);
        images.truncate(at);
        self.faults.note("== the store steps back ==");
        true
    }
}

/// The store as one process meets it.
#[derive(Clone)]
pub(crate) struct FaultyLog {
    pub(crate) store: Arc<Store>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) process: Process,
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the store does not answer")
}

impl FaultyLog {
    /// A call that changes nothing, or whose late landing is not of interest.
    async fn call<T>(
        &self,
        label: &'static str,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let nothing = || std::future::ready(());
        self.faults
            .call(&self.process, label, unavailable, call, nothing)
            .await
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.faults.mutant == Some(mutant)
    }

    /// The checkpoint of the superstep that a thread is in.
    fn checkpoint(&self, thread: &ThreadId) -> Option<Head> {
        let state = self.ledger.state(thread)?;
        state.saved.map(|(head, _)| head)
    }

    /// The mistake of a thread that leaves the watch with the append that ends its work.
    async fn leave_watch_early(&self, thread: &ThreadId, head: Head) -> Result<(), Error> {
        let state = self.ledger.state_at(thread, head);
        let works = state.is_none_or(|state| {
            let mut owed = obligations(&state).into_iter();
            owed.any(|owed| matches!(owed, Obligation::Work { .. }))
        });
        if self.is(Mutant::UnwatchedBeforeTold)
            && !works
            && self.store.log.unwatch(thread, head).await?
        {
            self.ledger.unwatched(thread, head);
        }
        Ok(())
    }

    /// A call that changes the store.
    async fn change<T, F, Fut>(&self, label: &'static str, call: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let (now, later) = (self.clone(), self.clone());
        let again = call.clone();
        let first = async move {
            now.store.about_to_change();
            call(now.clone()).await
        };
        let late = move || async move {
            later.store.about_to_change();
            let _ = again(later.clone()).await;
        };
        self.faults
            .call(&self.process, label, unavailable, first, late)
            .await
    }
}

#[async_trait]
impl ThreadLog for FaultyLog {
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error> {
        let (thread, append) = (thread.clone(), append.clone());
        self.change("append", move |on| {
            let (thread, append) = (thread.clone(), append.clone());
            async move {
                let appended = on.store.log.append(&thread, &append).await?;
                let name = match &appended {
                    Appended::Done => "done",
                    Appended::Moved { .. } => "moved",
                    Appended::Decided { .. } => "decided",
                };
                let record = append.record.head.version;
                on.faults.note(format!(
                    "w{} append {thread} v{record}: {name}",
                    on.process.number
                ));
                let wins = on.is(Mutant::AppendWithoutCompare)
                    && matches!(appended, Appended::Moved { .. });
                if appended == Appended::Done || wins {
                    on.ledger.appended(&thread, append.after, &append.record);
                    on.leave_watch_early(&thread, append.record.head).await?;
                    return Ok(Appended::Done);
                }
                Ok(appended)
            }
        })
        .await
    }

    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error> {
        self.call("head", self.store.log.head(thread)).await
    }

    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        self.call("load", self.store.log.load(thread)).await
    }

    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        self.call("record", self.store.log.record(thread, version))
            .await
    }

    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error> {
        self.call("history", self.store.log.history(thread, before, limit))
            .await
    }

    async fn put_result(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> Result<PutResult, Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.change("put_result", move |on| {
            let (thread, task, result) = (thread.clone(), task.clone(), result.clone());
            async move {
                let log = &on.store.log;
                let mut put = log.put_result(&thread, round, &task, result.clone()).await;
                let is_open = matches!(
                    put,
                    Ok(PutResult::Stored { .. } | PutResult::Duplicate { .. })
                );
                if is_open && on.is(Mutant::MapByCheckpoint) {
                    let checkpoint = on.checkpoint(&thread);
                    let mut maps = lock(&on.store.shared_maps);
                    let (is_new, count) = maps.put(&thread, checkpoint, &task, result);
                    put = Ok(if is_new {
                        PutResult::Stored { count }
                    } else {
                        PutResult::Duplicate { count }
                    });
                }
                on.faults.note(format!(
                    "w{} put_result {thread} round v{}: {put:?}",
                    on.process.number, round.version
                ));
                put
            }
        })
        .await
    }

    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let mut results = self.results(thread, round).await?;
        results.retain(|task, _| tasks.contains(task));
        Ok(results)
    }

    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let results = self
            .call("results", self.store.log.results(thread, round))
            .await?;
        if self.is(Mutant::MapByCheckpoint) {
            let checkpoint = self.checkpoint(thread);
            return Ok(lock(&self.store.shared_maps).all(thread, checkpoint));
        }
        Ok(results)
    }

    async fn put_progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> Result<PutProgress, Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.change("put_progress", move |on| {
            let (thread, task, entry) = (thread.clone(), task.clone(), entry.clone());
            async move {
                let log = &on.store.log;
                let put = log.put_progress(&thread, round, &task, index, entry).await;
                let name = match &put {
                    Ok(PutProgress::Taken { .. }) => "Taken".to_owned(),
                    other => format!("{other:?}"),
                };
                on.faults.note(format!(
                    "w{} put_progress {thread} round v{} {index}: {name}",
                    on.process.number, round.version
                ));
                put
            }
        })
        .await
    }

    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error> {
        self.call("progress", self.store.log.progress(thread, round, task))
            .await
    }

    async fn claim(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        name: &str,
        owner: Nonce,
        lease: Duration,
    ) -> Result<Claimed, Error> {
        let (thread, name) = (thread.clone(), name.to_owned());
        self.change("claim", move |on| {
            let (thread, name) = (thread.clone(), name.clone());
            async move {
                let log = &on.store.log;
                log.claim(&thread, round, &name, owner, lease).await
            }
        })
        .await
    }

    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error> {
        self.call("claims", self.store.log.claims(thread, round))
            .await
    }

    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.change("count_attempt", move |on| {
            let (thread, task) = (thread.clone(), task.clone());
            async move { on.store.log.count_attempt(&thread, round, &task).await }
        })
        .await
    }

    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.change("forgive_attempt", move |on| {
            let (thread, task) = (thread.clone(), task.clone());
            async move { on.store.log.forgive_attempt(&thread, round, &task).await }
        })
        .await
    }

    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error> {
        let (thread, command) = (thread.clone(), command.clone());
        self.change("put_outcome", move |on| {
            let (thread, command, outcome) = (thread.clone(), command.clone(), outcome.clone());
            async move {
                let reply = decode::reply(&outcome).ok();
                let is_refusal = reply.is_some_and(|reply| reply.outcome == Outcome::Refused);
                if is_refusal && on.is(Mutant::RefusalsForgotten) {
                    return Ok(None);
                }
                on.store.log.put_outcome(&thread, &command, outcome).await
            }
        })
        .await
    }

    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        self.call("outcome", self.store.log.outcome(thread, command))
            .await
    }

    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error> {
        let (thread, id) = (thread.clone(), id.to_owned());
        self.change("put_blob", move |on| {
            let (thread, id, bytes) = (thread.clone(), id.clone(), bytes.clone());
            async move { on.store.log.put_blob(&thread, &id, bytes).await }
        })
        .await
    }

    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        self.call("blobs", self.store.log.blobs(thread, ids)).await
    }

    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error> {
        let thread = thread.clone();
        self.change("unwatch", move |on| {
            let thread = thread.clone();
            async move {
                let left = on.store.log.unwatch(&thread, head).await?;
                if left {
                    on.ledger.unwatched(&thread, head);
                }
                Ok(left)
            }
        })
        .await
    }

    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        if self.is(Mutant::NoReconciler) {
            return Ok(Vec::new());
        }
        self.call("watched", self.store.log.watched(from, until, limit))
            .await
    }

    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error> {
        self.call("due", self.store.log.due(now, limit)).await
    }

    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        self.call("threads", self.store.log.threads(query)).await
    }

    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        self.call("interrupts", self.store.log.interrupts(query))
            .await
    }

    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error> {
        self.call("trim", self.store.log.trim(thread, snapshot))
            .await
    }

    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error> {
        let thread = thread.clone();
        self.change("delete", move |on| {
            let (thread, tombstone) = (thread.clone(), tombstone.clone());
            async move {
                let deleted = on
                    .store
                    .log
                    .delete(&thread, after, tombstone.clone())
                    .await?;
                if deleted == Appended::Done {
                    on.ledger.appended(&thread, Some(after), &tombstone);
                }
                Ok(deleted)
            }
        })
        .await
    }

    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error> {
        // A worker that cannot register does not start, and who started it tries again.
        self.store.log.register(graph, about).await
    }

    async fn registrations(&self) -> Result<Vec<Registration>, Error> {
        self.call("registrations", self.store.log.registrations())
            .await
    }

    async fn now(&self) -> Result<UnixMillis, Error> {
        self.call("now", self.store.log.now()).await
    }

    fn durable_after(&self) -> Duration {
        if self.is(Mutant::CommandsAckedAtOnce) {
            return Duration::ZERO;
        }
        self.store.durable_after
    }

    async fn check(&self) -> Vec<Finding> {
        self.store.log.check().await
    }
}
