//! Short ways to build what the contract tests append, and to append it.
//!
//! Everything is computed from a version and a nonce, so a test reads as the sequence of
//! heads that it is about.

use std::sync::Arc;

use bytes::Bytes;
use superstep_protocol::{CommandId, GraphId, Head, Nonce, ThreadId, ThreadStatus, UnixMillis};

use crate::{
    Append, Appended, IndexChange, InterruptQuery, InterruptRow, StoredRecord, ThreadLog,
    ThreadQuery, ThreadRow,
};

pub(super) type Log = Arc<dyn ThreadLog>;

pub(super) fn thread(id: &str) -> ThreadId {
    ThreadId::from(id)
}

pub(super) fn command(id: &str) -> CommandId {
    CommandId::from(id)
}

pub(super) fn head(version: u64, nonce: u64) -> Head {
    Head {
        version,
        nonce: Nonce(nonce),
    }
}

pub(super) fn graph(name: &str, version: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: version.into(),
    }
}

pub(super) fn row(status: ThreadStatus, graph_name: &str, updated_at: u64) -> ThreadRow {
    ThreadRow {
        status,
        graph: graph(graph_name, "1"),
        created_at: UnixMillis(1_000),
        updated_at: UnixMillis(updated_at),
    }
}

pub(super) fn interrupt(id: &str, opened_at: u64) -> InterruptRow {
    InterruptRow {
        id: id.into(),
        opened_at: UnixMillis(opened_at),
    }
}

/// A record that builds on the snapshot at version `snapshot`.
pub(super) fn record(head: Head, snapshot: u64) -> StoredRecord {
    StoredRecord {
        head,
        snapshot,
        bytes: Bytes::from(format!(r#"{{"record":"{head}"}}"#)),
    }
}

/// The record that would follow `after`, on the snapshot at version 1; the first one comes
/// with a row.
pub(super) fn next(after: Option<Head>, nonce: u64) -> Append {
    let version = after.map_or(1, |after| after.version + 1);
    Append {
        after,
        record: record(head(version, nonce), 1),
        index: IndexChange {
            row: after
                .is_none()
                .then(|| row(ThreadStatus::Busy, "letter", 1_000)),
            ..IndexChange::default()
        },
        outcome: None,
        blobs: Vec::new(),
    }
}

/// As [`next`], with index changes; a first record keeps its row unless `index` has one.
pub(super) fn next_with(after: Option<Head>, nonce: u64, index: IndexChange) -> Append {
    let mut append = next(after, nonce);
    let row = index.row.clone().or(append.index.row);
    append.index = IndexChange { row, ..index };
    append
}

/// Appends, demands `Done`, and gives the new head.
#[track_caller]
pub(super) fn done(append: &Append, answer: &Appended) -> Head {
    assert_eq!(*answer, Appended::Done, "append of {}", append.record.head);
    append.record.head
}

/// Appends, demands `Done`, and gives the new head.
pub(super) async fn must(log: &Log, thread: &ThreadId, append: &Append) -> Head {
    let answer = log.append(thread, append).await.unwrap();
    done(append, &answer)
}

/// Appends records with nonces 1, 2, 3 ... until the log has `length`; gives the head.
pub(super) async fn grow(log: &Log, thread: &ThreadId, length: u64) -> Head {
    let mut after = None;
    for nonce in 1..=length {
        after = Some(must(log, thread, &next(after, nonce)).await);
    }
    after.expect("a log of at least one record")
}

/// A first append that opens the round of its own record.
pub(super) async fn start_round(log: &Log, thread: &ThreadId) -> Head {
    let round = head(1, 1);
    let index = IndexChange {
        rounds_opened: vec![round],
        ..IndexChange::default()
    };
    must(log, thread, &next_with(None, 1, index)).await
}

/// Every row of a list, read in pages of `limit`.
pub(super) async fn all_threads(log: &Log, query: &ThreadQuery) -> Vec<(ThreadId, ThreadRow)> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    loop {
        let page = log.threads(&query).await.unwrap();
        assert!(page.rows.len() <= query.limit, "a page over its limit");
        assert!(
            page.next.is_none() || !page.rows.is_empty(),
            "an empty page with a cursor never ends"
        );
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

/// Every open question of a list, read in pages of `limit`.
pub(super) async fn all_interrupts(
    log: &Log,
    query: &InterruptQuery,
) -> Vec<(ThreadId, InterruptRow)> {
    let mut query = query.clone();
    let mut rows = Vec::new();
    loop {
        let page = log.interrupts(&query).await.unwrap();
        assert!(page.rows.len() <= query.limit, "a page over its limit");
        assert!(
            page.next.is_none() || !page.rows.is_empty(),
            "an empty page with a cursor never ends"
        );
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

/// All threads, in pages of `limit`.
pub(super) fn any_thread(limit: usize) -> ThreadQuery {
    ThreadQuery {
        status: None,
        graph: None,
        limit,
        after: None,
    }
}

/// All open questions, in pages of `limit`.
pub(super) fn any_interrupt(limit: usize) -> InterruptQuery {
    InterruptQuery {
        thread: None,
        limit,
        after: None,
    }
}

/// A time before every append of a test.
pub(super) const EARLIER: UnixMillis = UnixMillis(0);

/// A time after every append of a test.
pub(super) const LATER: UnixMillis = UnixMillis(32_000_000_000_000);
