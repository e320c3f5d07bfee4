//! The port of tools that look into a store: `verify` and the like, never a worker.
//!
//! It pages through all logs without the indexes, tells what the store keeps beside the records
//! of a thread, finds entries that belong to nothing, and can replace a thread's index entries
//! by what its records say. What they should say is left to the caller: records are bytes here.
//!
//! The rule it keeps: nothing here touches a record, and what changes an entry compares the
//! thread's head, or that the entry still belongs to nothing, in the same atomic step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use async_trait::async_trait;
use superstep_graph::InterruptId;
use superstep_protocol::{Dispatch, Head, ThreadId, UnixMillis};

use crate::{Error, Page, ThreadRow};

/// What a store keeps of one thread, its records counted and not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The head, as appends compare it.
    pub head: Option<Head>,
    /// How many records there are.
    pub records: u64,
    /// The version of the oldest one; 0 if there is none.
    pub oldest: u64,
    /// How many bytes the records take.
    pub record_bytes: u64,
    /// Whether all of it goes away in time, as a tombstone does.
    pub expires: bool,
    /// The row that it is listed by.
    pub row: Option<ThreadRow>,
    /// The head of its watch entry.
    pub watched: Option<Head>,
    /// Its open questions, and when they opened.
    pub interrupts: BTreeMap<InterruptId, UnixMillis>,
    /// Its timers.
    pub due: BTreeMap<String, UnixMillis>,
    /// Its open rounds.
    pub rounds: BTreeSet<Dispatch>,
    /// The values out of line that stay for good.
    pub blobs: BTreeSet<String>,
    /// Where the store writes an entry twice and the two differ, in words; empty in a store
    /// that writes each once.
    pub torn: Vec<String>,
}

/// What a thread's index entries should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reindex {
    /// The row; `None` for a tombstone, which is in no list.
    pub row: Option<ThreadRow>,
    /// Whether it is watched; an entry that is there keeps its head and time.
    pub watched: bool,
    /// Its open questions, and when they opened.
    pub interrupts: BTreeMap<InterruptId, UnixMillis>,
    /// Its timers.
    pub due: BTreeMap<String, UnixMillis>,
    /// Its open rounds. The results of others go away in time.
    pub rounds: BTreeSet<Dispatch>,
}

/// What kind of entry belongs to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StrayKind {
    /// In a list of threads.
    Row,
    /// In the watch index.
    Watch,
    /// A timer.
    Timer,
    /// An open question.
    Question,
    /// Questions and timers as their thread has them.
    Entries,
    /// Results of a round that is not open, without a time to live.
    Results,
    /// Progress of a round that is not open, without a time to live.
    Progress,
    /// A value out of line that stays for good, of a thread that does not know it.
    Blob,
}

impl StrayKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Row,
        Self::Watch,
        Self::Timer,
        Self::Question,
        Self::Entries,
        Self::Results,
        Self::Progress,
        Self::Blob,
    ];

    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Row => "list entry",
            Self::Watch => "watch entry",
            Self::Timer => "timer",
            Self::Question => "open question",
            Self::Entries => "questions and timers",
            Self::Results => "results of a round",
            Self::Progress => "progress of a round",
            Self::Blob => "value out of line",
        }
    }
}

impl fmt::Display for StrayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry that belongs to nothing: its thread has no log, or does not have the entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stray {
    /// What it is.
    pub kind: StrayKind,
    /// The thread that it names.
    pub thread: ThreadId,
    /// Its name within the thread: a timer's, a question's id, a round, a blob's id; in a store
    /// with many lists, the list. Empty where there is one a thread.
    pub name: String,
}

/// A store that tools can look into.
///
/// These calls may read everything there is: they are for a person who asks, not for workers.
/// A page has about `limit` rows, maybe none, and is the last if it names no next one.
#[async_trait]
pub trait Inspect: Send + Sync + 'static {
    /// A page of all threads that have a log, tombstones too, found without the indexes and in
    /// no order. A thread that is there all the time comes at least once.
    async fn logs(&self, after: Option<&str>, limit: usize) -> Result<Page<ThreadId>, Error>;

    /// What is kept of a thread; `None` if it has no log. Not one moment: what looks wrong while
    /// the thread moves has to be read again.
    async fn kept(&self, thread: &ThreadId) -> Result<Option<Kept>, Error>;

    /// A page of the entries that belong to nothing.
    async fn strays(&self, after: Option<&str>, limit: usize) -> Result<Page<Stray>, Error>;

    /// Whether an entry (still) belongs to nothing.
    async fn is_stray(&self, stray: &Stray) -> Result<bool, Error>;

    /// Removes an entry if it still belongs to nothing, and answers whether it did. Results,
    /// progress and blobs get the time to live that they should have had.
    async fn remove_stray(&self, stray: &Stray) -> Result<bool, Error>;

    /// Replaces all index entries of a thread by `truth`, if its head is exactly `head`; answers
    /// whether it was. Records, results and blobs stay as they are.
    async fn reindex(&self, thread: &ThreadId, head: Head, truth: &Reindex) -> Result<bool, Error>;
}
