//! The thread log in a SQLite file: the port, as changes and reads of the file.
//!
//! An append is one change of the writer, so its compare and all that it changes are one
//! transaction, shared with whatever else has queued up. An answered append is on disk.
//! It leaves the queries to its modules and the transactions to [`Database`].

mod append;
mod claims;
mod inspect;
mod lists;
mod maps;
mod read;
mod sweep;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use superstep_checkpoint::{
    Append, Appended, Claim, Claimed, Due, Error, Finding, InterruptQuery, InterruptRow, Loaded,
    Page, PutProgress, PutResult, Registration, StoredRecord, ThreadLog, ThreadQuery, ThreadRow,
    Trimmed, Watched,
};
use superstep_graph::TaskId;
use superstep_protocol::{CommandId, Dispatch, GraphId, Head, Nonce, ThreadId, UnixMillis};

use crate::{database::Database, failure::Failure, sweeps::Sweeps};

/// A thread log in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteLog {
    database: Arc<Database>,
    sweeps: Arc<Sweeps>,
}

impl SqliteLog {
    /// The log in an open file.
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            sweeps: Arc::new(Sweeps::every(sweep::PERIOD_MS)),
        }
    }

    /// The log in the file at `path`, which is made if it is not there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Ok(Self::new(Database::open(path)?))
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection, UnixMillis) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let now = self.database.now();
        let sweep = self.sweeps.is_due(now);
        let changed = self.database.write(move |connection| {
            if sweep {
                sweep::sweep(connection, now)?;
            }
            change(connection, now)
        });
        let told = |failure: Failure| failure.into_log_error(self.database.path());
        changed.await.map_err(told)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, UnixMillis) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let now = self.database.now();
        let read = self.database.read(move |connection| read(connection, now));
        let told = |failure: Failure| failure.into_log_error(self.database.path());
        read.await.map_err(told)
    }
}

#[async_trait]
impl ThreadLog for SqliteLog {
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error> {
        append.validate()?;
        let (thread, append) = (thread.clone(), append.clone());
        self.write(move |connection, now| append::append(connection, &thread, &append, now))
            .await
    }

    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| read::head(connection, &thread, now))
            .await
    }

    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| read::load(connection, &thread, now))
            .await
    }

    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| read::record(connection, &thread, version, now))
            .await
    }

    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| read::history(connection, &thread, before, limit, now))
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
        self.write(move |connection, now| {
            maps::put_result(connection, &thread, round, &task, &result, now)
        })
        .await
    }

    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let (thread, tasks) = (thread.clone(), tasks.to_vec());
        self.read(move |connection, now| {
            maps::results(connection, (&thread, round), Some(&tasks), now)
        })
        .await
    }

    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| maps::results(connection, (&thread, round), None, now))
            .await
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
        self.write(move |connection, now| {
            maps::put_progress(connection, &thread, round, (&task, index), &entry, now)
        })
        .await
    }

    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.read(move |connection, now| maps::progress(connection, &thread, round, &task, now))
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
        self.write(move |connection, now| {
            claims::claim(connection, (&thread, round, &name), owner, lease, now)
        })
        .await
    }

    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| claims::claims(connection, &thread, round, now))
            .await
    }

    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.write(move |connection, _| claims::count_attempt(connection, &thread, round, &task))
            .await
    }

    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error> {
        let (thread, task) = (thread.clone(), task.clone());
        self.write(move |connection, _| claims::forgive_attempt(connection, &thread, round, &task))
            .await
    }

    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error> {
        let (thread, command) = (thread.clone(), command.clone());
        self.write(move |connection, now| {
            maps::put_outcome(connection, &thread, &command, &outcome, now)
        })
        .await
    }

    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        let (thread, command) = (thread.clone(), command.clone());
        self.read(move |connection, now| maps::outcome(connection, &thread, &command, now))
            .await
    }

    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error> {
        let (thread, id) = (thread.clone(), id.to_owned());
        self.write(move |connection, now| maps::put_blob(connection, &thread, &id, &bytes, now))
            .await
    }

    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        let (thread, ids) = (thread.clone(), ids.to_vec());
        self.read(move |connection, now| maps::blobs(connection, &thread, &ids, now))
            .await
    }

    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error> {
        let thread = thread.clone();
        self.write(move |connection, _| append::unwatch(connection, &thread, head))
            .await
    }

    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        self.read(move |connection, _| lists::watched(connection, from, until, limit))
            .await
    }

    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error> {
        self.read(move |connection, _| lists::due(connection, now, limit))
            .await
    }

    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        let query = query.clone();
        self.read(move |connection, _| lists::threads(connection, &query))
            .await
    }

    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        let query = query.clone();
        self.read(move |connection, _| lists::interrupts(connection, &query))
            .await
    }

    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error> {
        let thread = thread.clone();
        self.write(move |connection, now| append::trim(connection, &thread, snapshot, now))
            .await
    }

    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error> {
        tombstone.validate_after(Some(after))?;
        let thread = thread.clone();
        self.write(move |connection, now| {
            append::delete(connection, &thread, after, &tombstone, now)
        })
        .await
    }

    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error> {
        let graph = graph.clone();
        self.write(move |connection, now| lists::register(connection, &graph, &about, now))
            .await
    }

    async fn registrations(&self) -> Result<Vec<Registration>, Error> {
        self.read(|connection, _| lists::registrations(connection))
            .await
    }

    async fn now(&self) -> Result<UnixMillis, Error> {
        Ok(self.database.now())
    }

    fn durable_after(&self) -> Duration {
        Duration::ZERO
    }

    async fn check(&self) -> Vec<Finding> {
        let subject = format!("store {}", self.database.path().display());
        match self.read(|connection, _| read::check(connection)).await {
            Ok((ok, detail)) => vec![Finding {
                ok,
                subject,
                detail,
            }],
            Err(error) => vec![Finding {
                ok: false,
                subject,
                detail: error.to_string(),
            }],
        }
    }
}
