//! Contract: what `load`, `record`, `history` and `trim` show, also while others write.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use superstep_protocol::{Head, ThreadId};

use super::build::{Log, grow, head, must, next, record, thread};
use crate::{Append, StoredRecord, Trimmed};

/// Appends a record that builds on the snapshot at `snapshot`.
async fn must_on(log: &Log, thread: &ThreadId, after: Head, snapshot: u64) -> Head {
    let version = after.version + 1;
    let append = Append {
        record: record(head(version, version), snapshot),
        ..next(Some(after), version)
    };
    must(log, thread, &append).await
}

/// A log of 9 records with snapshots at 1, 4 and 7.
async fn with_snapshots(log: &Log, thread: &ThreadId) -> Head {
    let mut at = grow(log, thread, 3).await;
    for snapshot in [4, 4, 4, 7, 7, 7] {
        at = must_on(log, thread, at, snapshot).await;
    }
    at
}

fn versions(records: &[StoredRecord]) -> Vec<u64> {
    records.iter().map(|record| record.head.version).collect()
}

/// A thread without a log is no error anywhere.
pub async fn an_unknown_thread_reads_as_nothing(log: Log) {
    let t = thread("nobody");
    assert_eq!(log.head(&t).await.unwrap(), None);
    assert_eq!(log.load(&t).await.unwrap(), None);
    assert_eq!(log.record(&t, 1).await.unwrap(), None);
    assert_eq!(log.history(&t, None, 10).await.unwrap(), []);
    assert!(log.results(&t, head(1, 1)).await.unwrap().is_empty());
    assert!(!log.unwatch(&t, head(1, 1)).await.unwrap());
    let trimmed = log.trim(&t, head(1, 1)).await.unwrap();
    assert_eq!(trimmed, Trimmed::NotASnapshot);
    assert_eq!(
        log.blobs(&t, &[]).await.unwrap(),
        Vec::<bytes::Bytes>::new()
    );
}

/// A cold reader gets the records from the last snapshot to the head, in order, as appended.
pub async fn load_begins_with_the_last_snapshot(log: Log) {
    let t = thread("t");
    let now = with_snapshots(&log, &t).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(loaded.head(), now);
    let expected: Vec<_> = (7..=9).map(|v| record(head(v, v), 7)).collect();
    assert_eq!(loaded.records, expected);
}

/// A record that carries a snapshot is all that a cold reader needs.
pub async fn load_of_a_snapshot_head_is_one_record(log: Log) {
    let t = thread("t");
    let at = grow(&log, &t, 4).await;
    must_on(&log, &t, at, 5).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(versions(&loaded.records), [5]);
}

/// A reader between the two reads of another's trim must not see half a range.
pub async fn load_is_consistent_while_writers_append_and_trim(log: Log) {
    let t = thread("t");
    let mut at = grow(&log, &t, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (log, t, stop) = (Log::clone(&log), t.clone(), Arc::clone(&stop));
        async move {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) || reads == 0 {
                let loaded = log.load(&t).await.unwrap().unwrap();
                let first = &loaded.records[0];
                let last = loaded.records.last().unwrap();
                assert!(first.is_snapshot(), "begins with {}", first.head);
                assert_eq!(last.snapshot, first.head.version);
                let range: Vec<_> = (first.head.version..=last.head.version).collect();
                assert_eq!(versions(&loaded.records), range);
                reads += 1;
            }
        }
    });
    for turn in 1..=30 {
        let snapshot = turn * 3;
        at = must_on(&log, &t, at, snapshot - 1).await;
        at = must_on(&log, &t, at, snapshot).await;
        let trimmed = log.trim(&t, at).await.unwrap();
        assert!(matches!(trimmed, Trimmed::Removed(_)), "{trimmed:?}");
        at = must_on(&log, &t, at, snapshot).await;
    }
    stop.store(true, Ordering::Relaxed);
    reader.await.unwrap();
}

/// Any record is read by its version; none that is not there.
pub async fn a_record_is_read_by_its_version(log: Log) {
    let t = thread("t");
    with_snapshots(&log, &t).await;
    let read = log.record(&t, 5).await.unwrap();
    assert_eq!(read, Some(record(head(5, 5), 4)));
    for version in [0, 10, u64::MAX] {
        assert_eq!(log.record(&t, version).await.unwrap(), None, "{version}");
    }
    assert_eq!(log.record(&thread("u"), 5).await.unwrap(), None);
}

/// History goes newest first, strictly before `before`, at most `limit`.
pub async fn history_goes_newest_first_within_before_and_limit(log: Log) {
    let t = thread("t");
    with_snapshots(&log, &t).await;
    for (before, limit, expected) in [
        (None, 100, vec![9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (None, 2, vec![9, 8]),
        (Some(9), 2, vec![8, 7]),
        (Some(3), 100, vec![2, 1]),
        (Some(1), 100, vec![]),
        (Some(0), 100, vec![]),
        (Some(1_000), 1, vec![9]),
        (Some(u64::MAX), 1, vec![9]),
        (None, 0, vec![]),
    ] {
        let read = log.history(&t, before, limit).await.unwrap();
        assert_eq!(versions(&read), expected, "before {before:?} limit {limit}");
    }
    let read = log.history(&t, None, usize::MAX).await.unwrap();
    assert_eq!(read.len(), 9);
    assert_eq!(read[4], record(head(5, 5), 4));
}

/// After a trim, history is what is left.
pub async fn history_ends_where_the_log_was_trimmed(log: Log) {
    let t = thread("t");
    with_snapshots(&log, &t).await;
    log.trim(&t, head(4, 4)).await.unwrap();
    let read = log.history(&t, None, 100).await.unwrap();
    assert_eq!(versions(&read), [9, 8, 7, 6, 5, 4]);
    let read = log.history(&t, Some(6), 100).await.unwrap();
    assert_eq!(versions(&read), [5, 4]);
    assert_eq!(log.history(&t, Some(4), 100).await.unwrap(), []);
    assert_eq!(log.record(&t, 3).await.unwrap(), None);
}

/// A trim removes the records before its snapshot and tells how many; again, none are left.
pub async fn trim_removes_what_is_before_the_snapshot(log: Log) {
    let t = thread("t");
    let now = with_snapshots(&log, &t).await;
    let other = thread("other");
    grow(&log, &other, 3).await;
    for (snapshot, removed) in [(4, 3), (4, 0), (7, 3)] {
        let trimmed = log.trim(&t, head(snapshot, snapshot)).await.unwrap();
        assert_eq!(trimmed, Trimmed::Removed(removed));
    }
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(versions(&loaded.records), [7, 8, 9]);
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
    assert_eq!(log.history(&other, None, 10).await.unwrap().len(), 3);
}

/// A trim compares the record that it is told of.
pub async fn trim_refuses_what_is_not_a_snapshot(log: Log) {
    let t = thread("t");
    with_snapshots(&log, &t).await;
    log.trim(&t, head(4, 4)).await.unwrap();
    // Another nonce; no snapshot; trimmed already; not there yet.
    for refused in [head(7, 8), head(8, 8), head(1, 1), head(10, 10)] {
        let trimmed = log.trim(&t, refused).await.unwrap();
        assert_eq!(trimmed, Trimmed::NotASnapshot, "{refused}");
    }
    assert_eq!(log.history(&t, None, 100).await.unwrap().len(), 6);
}

/// A trimmed log is a log: appends go on, and a lost answer is still settled.
pub async fn an_append_goes_on_after_a_trim(log: Log) {
    let t = thread("t");
    let at = with_snapshots(&log, &t).await;
    log.trim(&t, head(7, 7)).await.unwrap();
    let append = Append {
        record: record(head(10, 10), 7),
        ..next(Some(at), 10)
    };
    must(&log, &t, &append).await;
    must(&log, &t, &append).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(versions(&loaded.records), [7, 8, 9, 10]);
}
