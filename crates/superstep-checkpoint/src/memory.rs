//! The thread log in memory: for tests, the simulator, and a first run without any file.
//!
//! It is also the model that other logs are compared with, so it prefers the plainest code:
//! everything is one value under one mutex, lists are scans, and nothing awaits while it is
//! locked. Time comes from a clock that is handed in, so a simulator can drive it; times to
//! live are kept lazily, by that clock, whenever the log is used.
//!
//! It leaves durability to others: what it holds is gone with the process.

mod inspect;
mod state;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{CommandId, Dispatch, GraphId, Head, Nonce, ThreadId, UnixMillis};

pub use self::inspect::Tampered;
use self::state::State;
use crate::{
    Append, Appended, Claim, Claimed, Due, Error, Finding, InterruptQuery, InterruptRow, Loaded,
    Page, PutProgress, PutResult, Registration, StoredRecord, ThreadLog, ThreadQuery, ThreadRow,
    Trimmed, Watched,
};

/// What tells a log the time.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// The system's wall clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    })
}

/// A thread log in memory.
pub struct MemoryLog {
    state: Mutex<State>,
    clock: Clock,
}

/// All that a [`MemoryLog`] held at one moment.
#[derive(Clone)]
pub struct Image(State);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").finish_non_exhaustive()
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(system_clock())
    }

    /// An empty log on a clock of the caller's.
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            state: Mutex::default(),
            clock,
        }
    }

    /// What the log holds now. With [`restore`](Self::restore) a test makes the store step back,
    /// as a server does that loses its last second.
    pub fn image(&self) -> Image {
        Image(self.at_now().0.clone())
    }

    /// Forgets everything since `image` was taken.
    pub fn restore(&self, image: &Image) {
        *self.at_now().0 = image.0.clone();
    }

    /// The state, rid of what has outlived its time. A panic while it was locked can only be
    /// a bug found by a test; the state is used on as it is.
    fn at_now(&self) -> (MutexGuard<'_, State>, UnixMillis) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        state.expire(now);
        (state, now)
    }
}

#[async_trait]
impl ThreadLog for MemoryLog {
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error> {
        append.validate()?;
        let (mut state, now) = self.at_now();
        Ok(state.append(thread, append, now))
    }

    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error> {
        Ok(self.at_now().0.head(thread))
    }

    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        self.at_now().0.load(thread)
    }

    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        Ok(self.at_now().0.record(thread, version).cloned())
    }

    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error> {
        Ok(self.at_now().0.history(thread, before, limit))
    }

    async fn put_result(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> Result<PutResult, Error> {
        Ok(self.at_now().0.put_result(thread, round, task, result))
    }

    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let mut results = self.at_now().0.results(thread, round);
        results.retain(|task, _| tasks.contains(task));
        Ok(results)
    }

    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        Ok(self.at_now().0.results(thread, round))
    }

    async fn put_progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> Result<PutProgress, Error> {
        let (mut state, _) = self.at_now();
        Ok(state.put_progress(thread, round, task, index, entry))
    }

    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error> {
        Ok(self.at_now().0.progress(thread, round, task))
    }

    async fn claim(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        name: &str,
        owner: Nonce,
        lease: Duration,
    ) -> Result<Claimed, Error> {
        let (mut state, now) = self.at_now();
        Ok(state.claim((thread, round, name), owner, lease, now))
    }

    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error> {
        let (state, now) = self.at_now();
        Ok(state.claims(thread, round, now))
    }

    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error> {
        Ok(self.at_now().0.count_attempt(thread, round, task))
    }

    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error> {
        self.at_now().0.forgive_attempt(thread, round, task);
        Ok(())
    }

    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error> {
        let (mut state, now) = self.at_now();
        Ok(state.put_outcome(thread, command, outcome, now))
    }

    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        Ok(self.at_now().0.outcome(thread, command))
    }

    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error> {
        let (mut state, now) = self.at_now();
        state.put_blob(thread, id, bytes, now);
        Ok(())
    }

    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        self.at_now().0.blobs(thread, ids)
    }

    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error> {
        Ok(self.at_now().0.unwatch(thread, head))
    }

    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        Ok(self.at_now().0.watched(from, until, limit))
    }

    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error> {
        Ok(self.at_now().0.due(now, limit))
    }

    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        self.at_now().0.threads(query)
    }

    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        self.at_now().0.interrupts(query)
    }

    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error> {
        let (mut state, now) = self.at_now();
        Ok(state.trim(thread, snapshot, now))
    }

    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error> {
        tombstone.validate_after(Some(after))?;
        let (mut state, now) = self.at_now();
        Ok(state.delete(thread, after, tombstone, now))
    }

    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error> {
        let (mut state, now) = self.at_now();
        state.register(graph, about, now);
        Ok(())
    }

    async fn registrations(&self) -> Result<Vec<Registration>, Error> {
        Ok(self.at_now().0.registrations())
    }

    async fn now(&self) -> Result<UnixMillis, Error> {
        Ok((self.clock)())
    }

    fn durable_after(&self) -> Duration {
        Duration::ZERO
    }

    async fn check(&self) -> Vec<Finding> {
        vec![Finding {
            ok: true,
            subject: "thread log".to_owned(),
            detail: "in memory: it is gone when the process ends".to_owned(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        sync::Arc,
    };

    use super::{Clock, MemoryLog};
    use crate::ThreadLog;

    fn make_log() -> Ready<Arc<dyn ThreadLog>> {
        ready(Arc::new(MemoryLog::new()))
    }

    fn make_log_on(clock: Clock) -> Ready<Arc<dyn ThreadLog>> {
        ready(Arc::new(MemoryLog::with_clock(clock)))
    }

    #[tokio::test]
    async fn a_restored_image_forgets_what_came_after() {
        let log = MemoryLog::new();
        let (thread, command) = ("t".into(), "c".into());
        let before = log.image();
        log.put_outcome(&thread, &command, "kept".into())
            .await
            .unwrap();
        let after = log.image();
        log.restore(&before);
        assert_eq!(log.outcome(&thread, &command).await.unwrap(), None);
        log.restore(&after);
        let kept = log.outcome(&thread, &command).await.unwrap();
        assert_eq!(kept.as_deref(), Some(&b"kept"[..]));
    }

    crate::contract_tests!(make_log);
    crate::contract_clock_tests!(make_log_on);

    fn make_both() -> Ready<crate::contract::Inspected<()>> {
        let log = Arc::new(MemoryLog::new());
        ready(crate::contract::Inspected::new(log, ()))
    }

    crate::contract_inspect_tests!(make_both);
}
