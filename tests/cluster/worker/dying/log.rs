//! The log with points to die at around the calls that change something.
//!
//! `before append` and `after append` are of any record, `append started` and `appended started` of
//! those of a kind; `close` and `closed` of the append that ends a round with stored results. The
//! rule it keeps: every call is handed on as it is, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use superstep_checkpoint::{
    Append, Appended, Claim, Claimed, Due, Error, Finding, InterruptQuery, InterruptRow, Loaded,
    Page, PutProgress, PutResult, Registration, StoredRecord, ThreadLog, ThreadQuery, ThreadRow,
    Trimmed, Watched,
};
use superstep_graph::TaskId;
use superstep_protocol::{CommandId, Dispatch, GraphId, Head, Nonce, ThreadId, UnixMillis};

use super::Dying;

/// The name of the claim that a reconciler makes on a thread.
const RECONCILING: &str = "@reconcile";

pub(super) struct DyingLog {
    inner: Arc<dyn ThreadLog>,
    dying: Arc<Dying>,
    /// Rounds that results were stored for.
    rounds: Mutex<BTreeSet<Dispatch>>,
}

impl DyingLog {
    pub(super) fn new(inner: Arc<dyn ThreadLog>, dying: Arc<Dying>) -> Self {
        Self {
            inner,
            dying,
            rounds: Mutex::default(),
        }
    }

    fn rounds(&self) -> std::sync::MutexGuard<'_, BTreeSet<Dispatch>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What kind of record this is.
fn kind(record: &StoredRecord) -> String {
    let record: Value = serde_json::from_slice(&record.bytes).unwrap_or_default();
    let body = &record["body"];
    let kind = body["kind"].as_str().map(str::to_owned);
    kind.or_else(|| body.as_object()?.keys().next().cloned())
        .unwrap_or_default()
}

#[async_trait]
impl ThreadLog for DyingLog {
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error> {
        let kind = kind(&append.record);
        let closes = {
            let rounds = self.rounds();
            let closed = &append.index.rounds_closed;
            closed.iter().any(|round| rounds.contains(round))
        };
        self.dying.at("before append");
        self.dying.at(&format!("append {kind}"));
        if closes {
            self.dying.at("close");
        }
        let appended = self.inner.append(thread, append).await;
        if matches!(appended, Ok(Appended::Done)) {
            self.dying.at("after append");
            self.dying.at(&format!("appended {kind}"));
            if closes {
                self.dying.at("closed");
            }
        }
        appended
    }

    async fn put_result(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> Result<PutResult, Error> {
        self.dying.at("before put_result");
        self.rounds().insert(round);
        let put = self.inner.put_result(thread, round, task, result).await;
        self.dying.at("after put_result");
        put
    }

    async fn claim(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        name: &str,
        owner: Nonce,
        lease: Duration,
    ) -> Result<Claimed, Error> {
        let claimed = self.inner.claim(thread, round, name, owner, lease).await;
        if matches!(claimed, Ok(Claimed::Mine)) && !lease.is_zero() {
            self.dying.at(match name {
                RECONCILING => "reconciling",
                _ => "claimed",
            });
        }
        claimed
    }

    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error> {
        self.dying.at("before outcome");
        let put = self.inner.put_outcome(thread, command, outcome).await;
        self.dying.at("after outcome");
        put
    }

    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error> {
        self.inner.head(thread).await
    }

    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        self.inner.load(thread).await
    }

    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        self.inner.record(thread, version).await
    }

    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error> {
        self.inner.history(thread, before, limit).await
    }

    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        self.inner.results_of(thread, round, tasks).await
    }

    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        self.inner.results(thread, round).await
    }

    async fn put_progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> Result<PutProgress, Error> {
        self.inner
            .put_progress(thread, round, task, index, entry)
            .await
    }

    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error> {
        self.inner.progress(thread, round, task).await
    }

    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error> {
        self.inner.claims(thread, round).await
    }

    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error> {
        self.inner.count_attempt(thread, round, task).await
    }

    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error> {
        self.inner.forgive_attempt(thread, round, task).await
    }

    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        self.inner.outcome(thread, command).await
    }

    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error> {
        self.inner.put_blob(thread, id, bytes).await
    }

    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        self.inner.blobs(thread, ids).await
    }

    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error> {
        self.inner.unwatch(thread, head).await
    }

    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        self.inner.watched(from, until, limit).await
    }

    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error> {
        self.inner.due(now, limit).await
    }

    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        self.inner.threads(query).await
    }

    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        self.inner.interrupts(query).await
    }

    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error> {
        self.inner.trim(thread, snapshot).await
    }

    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error> {
        self.inner.delete(thread, after, tombstone).await
    }

    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error> {
        self.inner.register(graph, about).await
    }

    async fn registrations(&self) -> Result<Vec<Registration>, Error> {
        self.inner.registrations().await
    }

    async fn now(&self) -> Result<UnixMillis, Error> {
        self.inner.now().await
    }

    async fn wait_durable(&self) -> Result<bool, Error> {
        self.inner.wait_durable().await
    }

    fn durable_after(&self) -> Duration {
        self.inner.durable_after()
    }

    async fn check(&self) -> Vec<Finding> {
        self.inner.check().await
    }
}
