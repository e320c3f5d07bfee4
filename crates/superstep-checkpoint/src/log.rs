//! The port: what a store of threads must do.
//!
//! A thread is an append-only log of records with dense versions from 1. The one essential
//! operation is [`ThreadLog::append`]: one atomic step that succeeds only if the head is
//! exactly the one that the writer decided on, and that changes the indexes in the same step.
//! Beside the log lie maps that are set-if-absent (task results and progress by round, outcomes
//! of commands, blobs). The log knows no rule of the protocol: records are bytes here.
//!
//! Every call is one round trip, or a bounded number of pages. None retries by itself a call
//! whose effect is unknown, except `append`, which is safe to send again as it is: it answers
//! `Appended` if the version holds the very nonce.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_graph::{InterruptId, TaskId};
use superstep_protocol::{
    CommandId, Dispatch, GraphId, GraphName, Head, Nonce, ThreadId, ThreadStatus, UnixMillis,
};

use crate::{Error, ErrorKind};

/// A record as the log stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record's version and nonce.
    pub head: Head,
    /// The version of the record with a full snapshot that this one builds on; its own version
    /// if it carries one itself. A cold reader reads from there to the head.
    pub snapshot: u64,
    /// The encoded record; see `superstep-wire`.
    pub bytes: Bytes,
}

impl StoredRecord {
    /// Checks that this record can follow `after`.
    ///
    /// # Errors
    /// `Invalid` if there is a gap between their versions, or if the record names a snapshot
    /// that is not before it or itself.
    pub fn validate_after(&self, after: Option<Head>) -> Result<(), Error> {
        let version = after.map_or(0, |head| head.version).checked_add(1);
        if version != Some(self.head.version) {
            let after = after.map_or_else(|| "no record".to_owned(), |head| head.to_string());
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "record {} cannot follow {after}: versions are dense from 1; this is a bug in the caller",
                    self.head
                ),
            ));
        }
        if self.snapshot == 0 || self.snapshot > self.head.version {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "record {} cannot build on a snapshot at version {}; this is a bug in the caller",
                    self.head, self.snapshot
                ),
            ));
        }
        Ok(())
    }

    /// Whether the record carries a full snapshot itself.
    pub fn is_snapshot(&self) -> bool {
        self.snapshot == self.head.version
    }
}

/// How an append changes the indexes. All of it happens in the append's atomic step, so the
/// indexes are exact. It is a difference: the compare on the head guarantees what was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexChange {
    /// The row of the thread list after the append. Always present for a first record;
    /// `None` later means that the row does not change.
    pub row: Option<ThreadRow>,
    /// Whether the thread is in the watch index afterwards: it owes the world something.
    /// `Some(true)` enters it with the record's head, or moves its entry to the new head.
    pub watched: Option<bool>,
    /// Questions that this append opens.
    pub opened: Vec<InterruptRow>,
    /// Questions that this append closes. Unknown ids are ignored.
    pub closed: Vec<InterruptId>,
    /// Timers that this append sets, by name within the thread; an existing one is moved.
    pub due_set: BTreeMap<String, UnixMillis>,
    /// Timers that this append removes. Unknown names are ignored.
    pub due_removed: Vec<String>,
    /// Rounds that this append opens: results and progress may be put for them from now on.
    pub rounds_opened: Vec<Dispatch>,
    /// Rounds that this append ends: further puts are refused, and their results and progress go
    /// away after the log's retention of ended rounds.
    pub rounds_closed: Vec<Dispatch>,
}

/// One conditional append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The head that the writer decided on; `None` if the thread must not have a log.
    pub after: Option<Head>,
    /// The record; its version must be `after.version + 1`, or 1.
    pub record: StoredRecord,
    /// The index changes of the same atomic step.
    pub index: IndexChange,
    /// The outcome of the command that this append accepts, kept in the same step. If the
    /// command already has an outcome, nothing is appended.
    pub outcome: Option<(CommandId, Bytes)>,
    /// Blobs that the record refers to; their time to live is lifted in the same step. Putting
    /// them first is the caller's part: one that is missing is met when it is read.
    pub blobs: Vec<String>,
}

impl Append {
    /// Checks what can be checked without the log; every implementation does so first.
    ///
    /// # Errors
    /// `Invalid` as [`StoredRecord::validate_after`] says, or if a first record comes without
    /// the row that its thread is listed by.
    pub fn validate(&self) -> Result<(), Error> {
        self.record.validate_after(self.after)?;
        if self.after.is_none() && self.index.row.is_none() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "first record {} has no row for the thread list; this is a bug in the caller",
                    self.record.head
                ),
            ));
        }
        Ok(())
    }
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The record is in the log; also the answer when the very same append is sent again.
    Done,
    /// The thread has moved on, or is not there, or is there already; nothing was changed.
    Moved {
        /// The head as it is; `None` if the thread has no log.
        head: Option<Head>,
    },
    /// The command already has this outcome; nothing was changed.
    Decided {
        /// The outcome that was kept first.
        outcome: Bytes,
    },
}

/// What became of a task's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutResult {
    /// Stored; so many results of the round are there now.
    Stored {
        /// The number of results of the round, this one included.
        count: u64,
    },
    /// The task already has a result in this round; it was not changed.
    Duplicate {
        /// The number of results of the round.
        count: u64,
    },
    /// The round is not, or no longer, among the thread's open ones; nothing was stored.
    RoundOver,
    /// There is no such thread; nothing was stored.
    UnknownThread,
}

/// What became of an entry of a task's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutProgress {
    /// Stored by this very call.
    Stored,
    /// The task already has an entry of that index in this round; it was not changed. Also the
    /// answer to the same bytes put again: who puts cannot tell its own lost answer from another
    /// worker on the same task, so it reads on from what is there.
    Taken {
        /// The entry that is there.
        bytes: Bytes,
    },
    /// The round is not, or no longer, among the thread's open ones; nothing was stored.
    RoundOver,
    /// There is no such thread; nothing was stored.
    UnknownThread,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the caller's, until its lease is over or it is claimed again.
    Mine,
    /// Somebody else's claim lives.
    Held {
        /// For how long it does, unless it is renewed.
        rest: Duration,
    },
}

/// A living claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub owner: Nonce,
    /// How long it lives, unless it is renewed.
    pub rest: Duration,
}

/// A thread as a cold reader needs it: the records from the last snapshot to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Never empty; in version order; the first carries a full snapshot, the last is the head.
    pub records: Vec<StoredRecord>,
}

impl Loaded {
    /// The thread's head at the time of the read.
    ///
    /// # Panics
    /// If `records` is empty, which an implementation never returns.
    pub fn head(&self) -> Head {
        self.records
            .last()
            .expect("a loaded thread has at least one record")
            .head
    }
}

/// A thread as it stands in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    /// Its status.
    pub status: ThreadStatus,
    /// Its graph.
    pub graph: GraphId,
    /// When its first record was appended.
    pub created_at: UnixMillis,
    /// When its last record was appended.
    pub updated_at: UnixMillis,
}

/// An open question as it stands in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptRow {
    /// The question.
    pub id: InterruptId,
    /// When it opened.
    pub opened_at: UnixMillis,
}

/// Which threads a list wants. Lists are ordered by `updated_at`, newest first, then by thread
/// id; `after` is the cursor that the page before gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadQuery {
    /// Only threads of this status.
    pub status: Option<ThreadStatus>,
    /// Only threads of this graph.
    pub graph: Option<GraphName>,
    /// At most so many, 1 to [`PAGE_ROWS_MAX`](crate::PAGE_ROWS_MAX); what is out of that range
    /// is brought into it, and the cursor goes on from there.
    pub limit: usize,
    /// Where the page before ended; opaque.
    pub after: Option<String>,
}

/// Which open questions a list wants. Ordered by `opened_at`, oldest first, then by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptQuery {
    /// Only questions of this thread.
    pub thread: Option<ThreadId>,
    /// At most so many, 1 to [`PAGE_ROWS_MAX`](crate::PAGE_ROWS_MAX); what is out of that range
    /// is brought into it, and the cursor goes on from there.
    pub limit: usize,
    /// Where the page before ended; opaque.
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows in the list's order.
    pub rows: Vec<T>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// A watched thread: it owes the world something since the append of `head`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The thread.
    pub thread: ThreadId,
    /// Its graph, as its row says.
    pub graph: GraphId,
    /// The head of the append that entered it or last moved its entry.
    pub head: Head,
    /// When that append was, by the store's clock.
    pub since: UnixMillis,
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The thread.
    pub thread: ThreadId,
    /// The timer's name within the thread.
    pub name: String,
    /// When it became due.
    pub at: UnixMillis,
}

/// Which part of a log a trim removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// So many records were removed.
    Removed(u64),
    /// The record named as the snapshot is not in the log, or carries none; nothing was changed.
    NotASnapshot,
}

/// What a worker says it can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The graph and version.
    pub graph: GraphId,
    /// The graph's description for deciders and people, as JSON bytes (schemas, topology hash).
    pub about: Bytes,
    /// When a worker last renewed it.
    pub renewed_at: UnixMillis,
}

/// A finding of a store about itself, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was looked at, such as `maxmemory-policy`.
    pub subject: String,
    /// What was found, and what to do if it is not ok.
    pub detail: String,
}

/// A store of thread logs.
///
/// # Cancel safety
/// A call that is dropped may or may not have happened; nothing is ever half done.
#[async_trait]
pub trait ThreadLog: Send + Sync + 'static {
    /// Appends one record if the head is exactly `append.after`, changing the indexes, the open
    /// rounds and the command's outcome in the same atomic step.
    ///
    /// The checks come in this order: the same append again answers `Done` if the log holds
    /// that version with that nonce, even if records follow it; a command that already has an
    /// outcome answers `Decided`; any other head answers `Moved`. A stale head never changes
    /// anything.
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error>;

    /// The thread's head; `None` if it has no log.
    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error>;

    /// The records from the last snapshot to the head; `None` if the thread has no log.
    /// Consistent: a range that does not begin with its snapshot is read again.
    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error>;

    /// The record of that version, if it is (still) in the log.
    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error>;

    /// Records older than `before` (from the head if `None`), newest first, at most `limit`.
    /// Ends where the log was trimmed. Empty if the thread has no log.
    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error>;

    /// Puts the result of `task` into the map of its round, if absent and if the round is open.
    async fn put_result(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> Result<PutResult, Error>;

    /// The results of these tasks of a round, of those that have one.
    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error>;

    /// The results of a round, by task. Empty if there are none (any more).
    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error>;

    /// Puts entry `index` of what `task` has done so far in its round, if absent and if the round
    /// is open. A map of its own: the results of the round and their count are not touched. It
    /// lives as long as they do.
    async fn put_progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> Result<PutProgress, Error>;

    /// What `task` has done so far in its round: its entries from index 0 up to the first that is
    /// missing, in order. Empty if there are none (any more).
    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error>;

    /// Claims `name` of a round for `owner`: set if nobody has it, renewed if `owner` has, and not
    /// touched if it is another's and lives. A lease of zero gives up one's own.
    ///
    /// A claim is a hint that somebody is at work, and no data: it needs no open round, not even a
    /// thread, and goes by itself. Leases are counted by the store's clock and are at most
    /// [`CLAIM_LEASE_MAX`](crate::CLAIM_LEASE_MAX); a claim that would live longer was made by a
    /// clock that is gone, and counts as dead.
    async fn claim(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        name: &str,
        owner: Nonce,
        lease: Duration,
    ) -> Result<Claimed, Error>;

    /// The living claims of a round, by name.
    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error>;

    /// Counts an attempt at `task` in its round, and answers how many were counted, this one
    /// included; `None` if the round is not among the thread's open ones, and nothing was
    /// counted. The count lives as long as the round's results.
    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error>;

    /// Takes back one counted attempt at `task`, if there is one: whoever made it lived to say
    /// so. Nothing happens in a round that is over.
    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error>;

    /// Keeps the outcome of a command, if absent. Answers the one kept before, if any. Works
    /// for threads that have no log. Outcomes have a time to live, at least
    /// [`OUTCOME_TTL`](crate::OUTCOME_TTL).
    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error>;

    /// The outcome that was kept for a command, if any.
    async fn outcome(&self, thread: &ThreadId, command: &CommandId)
    -> Result<Option<Bytes>, Error>;

    /// Stores a value that is too large for a record, with a time to live of
    /// [`BLOB_TTL`](crate::BLOB_TTL) that the append of its record lifts. Always written, also
    /// if it is there: a clean-up may be about to remove the one that is. A blob whose time to
    /// live was lifted stays so.
    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error>;

    /// The blobs of `ids`, in their order.
    ///
    /// # Errors
    /// `Corrupt` if one is missing.
    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error>;

    /// Removes the thread from the watch index if its entry is of exactly `head`. Answers
    /// whether it did.
    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error>;

    /// Watched threads whose entry is not older than `from` and not newer than `until`, oldest
    /// first, at most `limit`.
    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error>;

    /// Timers due at `now`, earliest first, at most `limit`.
    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error>;

    /// A page of the thread list.
    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error>;

    /// A page of the open questions.
    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error>;

    /// Removes the records before `snapshot`, if the log holds that very record and it carries
    /// a full snapshot. Blobs that no append since the one of `snapshot` has named are given
    /// [`BLOB_TTL`](crate::BLOB_TTL) in the same atomic step, and are not removed at once: who has
    /// put one of them again and is about to append its record lifts that time, as ever.
    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error>;

    /// Replaces the whole thread (records, rounds with results and progress, blobs, index entries) by one
    /// tombstone record, if the head is exactly `after`; `tombstone` has version
    /// `after.version + 1`. The same delete again answers `Done`. Outcomes of commands stay for
    /// their time: a start that is delivered again must not bring the thread back.
    ///
    /// The tombstone has a time to live of [`TOMBSTONE_TTL`](crate::TOMBSTONE_TTL), in which
    /// `head`, `load`, `record` and `history` show it as the thread's only record; after it the
    /// thread is unknown. It is in no list, and an append after it goes on from its version and
    /// lifts that time; the first such append carries a row.
    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error>;

    /// Says that a worker can run a graph; renewed well within
    /// [`REGISTRATION_TTL`](crate::REGISTRATION_TTL).
    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error>;

    /// Every graph that was ever registered and not forgotten, with when it was last renewed.
    async fn registrations(&self) -> Result<Vec<Registration>, Error>;

    /// The store's clock.
    async fn now(&self) -> Result<UnixMillis, Error>;

    /// Waits until everything that was appended before this call is durable, where the store can
    /// tell; `false` at once where it cannot: then `durable_after` counts. After a step back what
    /// is durable need not be what was appended, so a caller looks for its record afterwards.
    async fn wait_durable(&self) -> Result<bool, Error> {
        Ok(self.durable_after().is_zero())
    }

    /// How long after its append a record is taken to be on disk. Zero if an answered append
    /// is durable.
    fn durable_after(&self) -> Duration;

    /// What the store finds about itself: reachable, version, settings that the guarantees need.
    async fn check(&self) -> Vec<Finding>;
}
