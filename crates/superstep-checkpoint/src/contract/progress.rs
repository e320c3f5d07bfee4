//! Contract: what tasks have done so far in their round.
//!
//! Like the results of a round: set if absent, only while the round is open, and gone with the
//! round. Unlike them a task has any number of entries, in order, and nobody counts them.

use std::collections::BTreeMap;

use bytes::Bytes;
use superstep_graph::TaskId;
use tokio::task::JoinSet;

use super::{
    build::{Log, head, must, next_with, start_round, thread},
    clock::{MOMENT, ManualClock},
    delete::must_delete,
};
use crate::{ENDED_ROUND_TTL, IndexChange, PutProgress, PutResult};

fn task(id: &str) -> TaskId {
    TaskId::from(id)
}

fn taken(by: &str) -> PutProgress {
    PutProgress::Taken {
        bytes: Bytes::copy_from_slice(by.as_bytes()),
    }
}

/// Entries are read from index 0 on, as far as they go, in order of their index, not as text.
pub async fn progress_is_read_in_order_of_index(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let a = task("a");
    assert!(log.progress(&t, round, &a).await.unwrap().is_empty());
    let mut expected = Vec::new();
    for index in 0..12 {
        let entry = Bytes::from(format!("entry {index}"));
        let put = log.put_progress(&t, round, &a, index, entry.clone()).await;
        assert_eq!(put.unwrap(), PutProgress::Stored);
        expected.push(entry);
    }
    assert_eq!(log.progress(&t, round, &a).await.unwrap(), expected);
    // What comes after a gap is not read until the gap is filled.
    for (index, entry) in [(13, "beyond"), (12, "between")] {
        assert_eq!(log.progress(&t, round, &a).await.unwrap(), expected);
        let put = log
            .put_progress(&t, round, &a, index, Bytes::from(entry))
            .await;
        assert_eq!(put.unwrap(), PutProgress::Stored);
    }
    expected.extend(["between", "beyond"].map(Bytes::from));
    assert_eq!(log.progress(&t, round, &a).await.unwrap(), expected);
}

/// Whoever comes second is told what the first put, also if it is the same.
pub async fn the_first_entry_of_an_index_stays(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let put = async |entry: &str| {
        let entry = Bytes::copy_from_slice(entry.as_bytes());
        let put = log.put_progress(&t, round, &task("a"), 0, entry).await;
        put.unwrap()
    };
    assert_eq!(put("first").await, PutProgress::Stored);
    assert_eq!(put("second").await, taken("first"));
    assert_eq!(put("first").await, taken("first"));
    assert_eq!(put("").await, taken("first"));
    let progress = log.progress(&t, round, &task("a")).await.unwrap();
    assert_eq!(progress, [Bytes::from("first")]);
}

/// One index of two tasks, of two rounds and of two threads is as many entries; so is that of a
/// task that is named like an index.
pub async fn progress_belongs_to_its_task_and_round(log: Log) {
    let (t, u) = (thread("t"), thread("u"));
    let round = start_round(&log, &t).await;
    start_round(&log, &u).await;
    let second = head(2, 2);
    let index = IndexChange {
        rounds_opened: vec![second],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(round), 2, index)).await;
    let places = [
        (&t, round, "a"),
        (&t, round, "1:a"),
        (&t, round, ""),
        (&t, second, "a"),
        (&u, round, "a"),
    ];
    let entry = |n: usize| Bytes::from(format!("entry of place {n}"));
    for (n, (thread, round, name)) in places.iter().enumerate() {
        let task = task(name);
        let put = log.put_progress(thread, *round, &task, 0, entry(n)).await;
        assert_eq!(put.unwrap(), PutProgress::Stored, "{n}");
    }
    for (n, (thread, round, name)) in places.iter().enumerate() {
        let progress = log.progress(thread, *round, &task(name)).await.unwrap();
        assert_eq!(progress, [entry(n)], "{n}");
    }
}

/// Progress makes no round look finished, and results are no progress.
pub async fn progress_counts_as_no_result(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    for index in 0..3 {
        let entry = Bytes::from("entry");
        let put = log.put_progress(&t, round, &task("a"), index, entry).await;
        assert_eq!(put.unwrap(), PutProgress::Stored);
    }
    assert!(log.results(&t, round).await.unwrap().is_empty());
    let put = log
        .put_result(&t, round, &task("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let results = log.results(&t, round).await.unwrap();
    assert_eq!(
        results,
        BTreeMap::from([(task("a"), Bytes::from("r"))]),
        "only the result"
    );
    let progress = log.progress(&t, round, &task("a")).await.unwrap();
    assert_eq!(progress.len(), 3);
}

/// Before its round opens and after it ended, an entry is refused and not stored.
pub async fn progress_needs_an_open_round(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let put = async |round, index| {
        let entry = Bytes::from("entry");
        let put = log.put_progress(&t, round, &task("a"), index, entry).await;
        put.unwrap()
    };
    for other in [head(1, 9), head(2, 1)] {
        assert_eq!(put(other, 0).await, PutProgress::RoundOver, "{other}");
        let progress = log.progress(&t, other, &task("a")).await.unwrap();
        assert!(progress.is_empty(), "{other}");
    }
    assert_eq!(put(round, 0).await, PutProgress::Stored);
    let index = IndexChange {
        rounds_closed: vec![round],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(round), 2, index)).await;
    for index in [0, 1] {
        assert_eq!(put(round, index).await, PutProgress::RoundOver, "{index}");
    }
    let left = log.progress(&t, round, &task("a")).await.unwrap();
    assert!(left.len() < 2, "a late entry was stored");
}

/// Progress makes no thread.
pub async fn progress_of_an_unknown_thread_is_refused(log: Log) {
    let t = thread("nobody");
    let entry = Bytes::from("entry");
    let put = log.put_progress(&t, head(1, 1), &task("a"), 0, entry).await;
    assert_eq!(put.unwrap(), PutProgress::UnknownThread);
    assert_eq!(log.head(&t).await.unwrap(), None);
    let progress = log.progress(&t, head(1, 1), &task("a")).await.unwrap();
    assert!(progress.is_empty());
}

/// Of many workers on one task one goes ahead, and all others are told what it did.
pub async fn racing_entries_of_one_index_store_one(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let mut tasks = JoinSet::new();
    for n in 0..32 {
        let (log, t) = (Log::clone(&log), t.clone());
        tasks.spawn(async move {
            let mine = Bytes::from(format!("by {n}"));
            let a = task("a");
            let put = log.put_progress(&t, round, &a, 0, mine.clone()).await;
            (mine, put.unwrap())
        });
    }
    let (mut stored, mut told) = (Vec::new(), Vec::new());
    for (mine, answer) in tasks.join_all().await {
        match answer {
            PutProgress::Stored => stored.push(mine),
            PutProgress::Taken { bytes } => told.push(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stored.len(), 1);
    assert!(told.iter().all(|bytes| *bytes == stored[0]), "{told:?}");
    assert_eq!(log.progress(&t, round, &task("a")).await.unwrap(), stored);
}

/// A deleted thread has no progress, and takes none.
pub async fn delete_removes_progress(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let put = async |index| {
        let entry = Bytes::from("entry");
        let put = log.put_progress(&t, round, &task("a"), index, entry).await;
        put.unwrap()
    };
    assert_eq!(put(0).await, PutProgress::Stored);
    must_delete(&log, &t, round).await;
    for index in [0, 1] {
        assert_eq!(put(index).await, PutProgress::RoundOver, "{index}");
    }
    let progress = log.progress(&t, round, &task("a")).await.unwrap();
    assert!(progress.is_empty());
}

/// Progress stays while its round is open, however long, and goes when the round's results do.
pub async fn progress_lives_as_long_as_results(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let entry = Bytes::from("entry");
    let put = log
        .put_progress(&t, round, &task("a"), 0, entry.clone())
        .await;
    assert_eq!(put.unwrap(), PutProgress::Stored);
    clock.advance(ENDED_ROUND_TTL * 1_000);
    let progress = log.progress(&t, round, &task("a")).await.unwrap();
    assert_eq!(progress, [entry]);
    let index = IndexChange {
        rounds_closed: vec![round],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(round), 2, index)).await;
    clock.advance(ENDED_ROUND_TTL + MOMENT);
    let progress = log.progress(&t, round, &task("a")).await.unwrap();
    assert!(progress.is_empty());
}
