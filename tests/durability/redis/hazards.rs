//! The traps of the protocol that are the store's to close, by a store that really steps back.
//!
//! Stepping back is made by putting an older copy of the append-only file in the place of the
//! newer one: what a failover to a late replica, or the loss of a last second, does to a log.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use superstep_checkpoint::{
    Append, Appended, IndexChange, InterruptQuery, InterruptRow, PutProgress, PutResult,
    ThreadLog as _,
};
use superstep_graph::TaskId;
use superstep_protocol::{ThreadStatus, UnixMillis};
use superstep_tests::servers::{RedisServer, Reply};
use tempfile::TempDir;

use super::{SOON, chain, grow, head, keys, listed, log_on, must, next, row, thread};

/// A copy of what the server has on its disk, once everything answered is there.
fn copy_of(server: &RedisServer) -> TempDir {
    superstep_tests::eventually("the append-only file is written", SOON, || {
        let Ok(Reply::Text(info)) = server.command(&["INFO", "persistence"]) else {
            return None;
        };
        info.contains("aof_buffer_length:0\r\n").then_some(())
    });
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&server.data_dir(), copy.path());
    copy
}

/// Ends the server, puts an older copy in the place of its data, and starts it again.
fn step_back(server: &mut RedisServer, copy: &TempDir) {
    server.wipe().unwrap();
    copy_tree(copy.path(), &server.data_dir());
    server.restart().unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn ttl(server: &RedisServer, key: &str) -> i64 {
    match server.command(&["PTTL", key]).unwrap() {
        Reply::Integer(ms) => ms,
        other => panic!("PTTL answered {other:?}"),
    }
}

#[tokio::test]
async fn a_ghost_cannot_append_after_a_step_back() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let old = grow(&log, &t, 7).await;
    let copy = copy_of(&server);
    let mut ghost = old;
    for version in 8..=10 {
        ghost = must(&log, &t, &next(Some(ghost), version, 10)).await;
    }
    step_back(&mut server, &copy);

    let moved = Appended::Moved { head: Some(old) };
    let late = next(Some(ghost), 11, 10);
    assert_eq!(log.append(&t, &late).await.unwrap(), moved);
    assert_eq!(chain(&log, &t).await.last(), Some(&old));
    // Another writer goes on from what is there; the lost record of that version stays lost.
    let again = must(&log, &t, &next(Some(old), 88, 10)).await;
    let moved = Appended::Moved { head: Some(again) };
    let lost = next(Some(old), 8, 10);
    assert_eq!(log.append(&t, &lost).await.unwrap(), moved);
    assert_eq!(chain(&log, &t).await.len(), 8);
}

#[tokio::test]
async fn indexes_step_back_together_with_the_log() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let question = InterruptRow {
        id: "q".into(),
        opened_at: UnixMillis(5),
    };
    let mut waits = next(None, 1, 10);
    waits.index = IndexChange {
        row: Some(row(ThreadStatus::Interrupted, 1)),
        watched: Some(true),
        opened: vec![question.clone()],
        due_set: BTreeMap::from([("q".to_owned(), UnixMillis(6))]),
        rounds_opened: vec![head(1, 1)],
        ..IndexChange::default()
    };
    let old = must(&log, &t, &waits).await;
    let copy = copy_of(&server);
    let mut ends = next(Some(old), 2, 10);
    ends.index = IndexChange {
        row: Some(row(ThreadStatus::Idle, 2)),
        watched: Some(false),
        closed: vec!["q".into()],
        due_removed: vec!["q".to_owned()],
        rounds_closed: vec![head(1, 1)],
        ..IndexChange::default()
    };
    must(&log, &t, &ends).await;
    assert_eq!(listed(&log).await, [("t".to_owned(), ThreadStatus::Idle)]);
    step_back(&mut server, &copy);

    assert_eq!(log.head(&t).await.unwrap(), Some(old));
    assert_eq!(
        listed(&log).await,
        [("t".to_owned(), ThreadStatus::Interrupted)]
    );
    let watched = log
        .watched(UnixMillis(0), UnixMillis(u64::MAX), 10)
        .await
        .unwrap();
    assert_eq!(watched.len(), 1);
    assert_eq!(watched[0].head, old);
    let due = log.due(UnixMillis(6), 10).await.unwrap();
    assert_eq!((due.len(), due[0].name.as_str()), (1, "q"));
    let query = InterruptQuery {
        thread: None,
        limit: 10,
        after: None,
    };
    let open = log.interrupts(&query).await.unwrap().rows;
    assert_eq!(open, [(t.clone(), question)]);
    let put = log
        .put_result(&t, old, &TaskId::new("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
}

#[tokio::test]
async fn a_result_of_a_lost_round_is_refused() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let (t, a) = (thread("t"), TaskId::new("a"));
    let old = grow(&log, &t, 4).await;
    let copy = copy_of(&server);
    let mut resumed = next(Some(old), 5, 10);
    resumed.index.rounds_opened = vec![resumed.record.head];
    let lost_round = must(&log, &t, &resumed).await;
    step_back(&mut server, &copy);

    let put = log
        .put_result(&t, lost_round, &a, Bytes::from("on a lost answer"))
        .await;
    assert_eq!(put.unwrap(), PutResult::RoundOver);
    // The same version resumed again is another round: the task's old result is not in it.
    let mut again = next(Some(old), 55, 10);
    again.index.rounds_opened = vec![again.record.head];
    let round = must(&log, &t, &again).await;
    let put = log
        .put_result(&t, lost_round, &a, Bytes::from("on a lost answer"))
        .await;
    assert_eq!(put.unwrap(), PutResult::RoundOver);
    assert!(log.results(&t, round).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_ended_rounds_results_expire_and_an_open_ones_do_not() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let (t, a) = (thread("t"), TaskId::new("a"));
    let mut opens = next(None, 1, 10);
    opens.index.rounds_opened = vec![head(1, 1)];
    let round = must(&log, &t, &opens).await;
    let put = log.put_result(&t, round, &a, Bytes::from("r")).await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let entry = Bytes::from("entry");
    let put = log.put_progress(&t, round, &a, 0, entry).await;
    assert_eq!(put.unwrap(), PutProgress::Stored);
    let results = &keys(&server, "}:r:")[0];
    let progress = &keys(&server, "}:p:")[0];
    assert_eq!(ttl(&server, results), -1);
    assert_eq!(ttl(&server, progress), -1);
    let mut closes = next(Some(round), 2, 10);
    closes.index.rounds_closed = vec![round];
    must(&log, &t, &closes).await;
    assert!(ttl(&server, results) > 0);
    assert!(ttl(&server, progress) > 0);
    let put = log
        .put_result(&t, round, &TaskId::new("b"), Bytes::new())
        .await;
    assert_eq!(put.unwrap(), PutResult::RoundOver);
}

#[tokio::test]
async fn a_late_append_does_not_bring_a_deleted_thread_back() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut starts = next(None, 1, 10);
    starts.index.watched = Some(true);
    starts.index.rounds_opened = vec![head(1, 1)];
    starts.index.opened = vec![InterruptRow {
        id: "q".into(),
        opened_at: UnixMillis(5),
    }];
    starts.blobs = vec!["b".to_owned()];
    log.put_blob(&t, "b", Bytes::from("v")).await.unwrap();
    let now = must(&log, &t, &starts).await;
    let put = log
        .put_result(&t, now, &TaskId::new("a"), Bytes::from("r"))
        .await;
    put.unwrap();
    let late = next(Some(now), 2, 10);
    let mut grave = next(Some(now), 3, 0).record;
    grave.snapshot = grave.head.version;
    let deleted = log.delete(&t, now, grave.clone()).await.unwrap();
    assert_eq!(deleted, Appended::Done);

    // One key of it is left, for its time, and what the namespace and shard have.
    let left = keys(&server, "}:");
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left[0].ends_with("}:g") && left[1].ends_with("}:t:t"),
        "{left:?}"
    );
    assert!(ttl(&server, &left[1]) > 0);
    let moved = Appended::Moved {
        head: Some(grave.head),
    };
    assert_eq!(log.append(&t, &late).await.unwrap(), moved);
    server.command(&["PEXPIRE", &left[1], "0"]).unwrap();
    for stale in [late, next(Some(grave.head), 4, 10)] {
        let moved = Appended::Moved { head: None };
        assert_eq!(log.append(&t, &stale).await.unwrap(), moved);
    }
    assert_eq!(log.load(&t).await.unwrap(), None);
}

#[tokio::test]
async fn an_append_after_a_tombstone_lifts_its_time() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let now = grow(&log, &t, 1).await;
    let mut grave = next(Some(now), 3, 0).record;
    grave.snapshot = grave.head.version;
    log.delete(&t, now, grave.clone()).await.unwrap();
    let mut again = next(Some(grave.head), 4, 10);
    again.record.snapshot = 3;
    must(&log, &t, &again).await;
    assert_eq!(ttl(&server, &keys(&server, "}:t:")[0]), -1);
}

#[tokio::test]
async fn a_blobs_time_is_lifted_by_its_record_for_good() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    log.put_blob(&t, "orphan", Bytes::from("1")).await.unwrap();
    log.put_blob(&t, "shared", Bytes::from("2")).await.unwrap();
    let (index, blobs) = (&keys(&server, "}:bi:")[0], keys(&server, "}:b:"));
    let [orphan, shared] = &blobs[..] else {
        panic!("two blobs: {blobs:?}");
    };
    for key in [index, orphan, shared] {
        assert!(ttl(&server, key) > 0, "{key}");
    }
    let append = Append {
        blobs: vec!["shared".to_owned()],
        ..next(None, 1, 10)
    };
    must(&log, &t, &append).await;
    // A second writer of the same value neither skips the write nor gives it a time again.
    log.put_blob(&t, "shared", Bytes::from("3")).await.unwrap();
    assert_eq!(ttl(&server, shared), -1);
    assert_eq!(ttl(&server, index), -1);
    assert!(ttl(&server, orphan) > 0);
    let read = log.blobs(&t, &["shared".to_owned()]).await.unwrap();
    assert_eq!(read, [Bytes::from("3")]);
}

#[tokio::test]
async fn outcomes_are_kept_for_their_time() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let put = log
        .put_outcome(&t, &"refused".into(), Bytes::from("no"))
        .await;
    assert_eq!(put.unwrap(), None);
    let mut accepts = next(None, 1, 10);
    accepts.outcome = Some(("accepted".into(), Bytes::from("yes")));
    must(&log, &t, &accepts).await;
    let outcomes = keys(&server, "}:o:");
    assert_eq!(outcomes.len(), 2);
    for key in outcomes {
        let day_ms = 24 * 60 * 60 * 1_000;
        assert!((day_ms - 60_000..=day_ms).contains(&ttl(&server, &key)));
    }
}
