//! Contract: delete, the tombstone that it leaves, and who may bring a thread back.

use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{Head, ThreadId, UnixMillis};

use super::build::{
    EARLIER, LATER, Log, any_interrupt, any_thread, command, grow, head, interrupt, must, next,
    next_with, record, thread,
};
use crate::{Append, Appended, ErrorKind, IndexChange, PutResult, StoredRecord};

/// The tombstone that follows `after`: a snapshot of nothing.
fn tombstone(after: Head, nonce: u64) -> StoredRecord {
    let version = after.version + 1;
    record(head(version, nonce), version)
}

/// Deletes the thread, demands `Done`, and gives the tombstone's head.
pub(super) async fn must_delete(log: &Log, thread: &ThreadId, after: Head) -> Head {
    let tombstone = tombstone(after, 666);
    let head = tombstone.head;
    let answer = log.delete(thread, after, tombstone).await.unwrap();
    assert_eq!(answer, Appended::Done);
    head
}

/// An append after a tombstone: it carries a row and a snapshot, as a first record does.
fn again(tombstone: Head, nonce: u64) -> Append {
    let mut append = next(None, nonce);
    let version = tombstone.version + 1;
    append.after = Some(tombstone);
    append.record = record(head(version, nonce), version);
    append
}

/// The tombstone is the thread's only record, so whoever decides next sees it.
pub async fn delete_leaves_a_tombstone(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 3).await;
    let grave = must_delete(&log, &t, now).await;
    assert_eq!(grave, head(4, 666));
    assert_eq!(log.head(&t).await.unwrap(), Some(grave));
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(loaded.records, [tombstone(now, 666)]);
    let history = log.history(&t, None, 10).await.unwrap();
    assert_eq!(history, loaded.records);
    let read = log.record(&t, 4).await.unwrap();
    assert_eq!(read.as_ref(), Some(&loaded.records[0]));
    assert_eq!(log.record(&t, 3).await.unwrap(), None);
}

/// A deleted thread is in no list, is not watched, and no timer of it is due.
pub async fn delete_takes_the_thread_off_every_list(log: Log) {
    let index = IndexChange {
        watched: Some(true),
        opened: vec![interrupt("q1", 1), interrupt("q2", 2)],
        due_set: [("a".into(), UnixMillis(1)), ("b".into(), LATER)].into(),
        ..IndexChange::default()
    };
    for id in ["t", "u"] {
        must(&log, &thread(id), &next_with(None, 1, index.clone())).await;
    }
    must_delete(&log, &thread("t"), head(1, 1)).await;
    let threads = log.threads(&any_thread(10)).await.unwrap().rows;
    let ids: Vec<_> = threads.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["u"]);
    let open = log.interrupts(&any_interrupt(10)).await.unwrap().rows;
    assert!(open.iter().all(|(id, _)| id == "u"), "{open:?}");
    assert_eq!(open.len(), 2);
    let watched = log.watched(EARLIER, LATER, 10).await.unwrap();
    assert!(watched.iter().all(|entry| entry.thread == "u"));
    assert_eq!(watched.len(), 1);
    let due = log.due(LATER, 10).await.unwrap();
    assert!(due.iter().all(|entry| entry.thread == "u"), "{due:?}");
    assert_eq!(due.len(), 2);
}

/// What lay beside the log goes with it.
pub async fn delete_removes_results_and_blobs(log: Log) {
    let t = thread("t");
    let round = head(1, 1);
    let start = Append {
        blobs: vec!["kept".to_owned()],
        ..next_with(
            None,
            1,
            IndexChange {
                rounds_opened: vec![round],
                ..IndexChange::default()
            },
        )
    };
    for id in ["kept", "loose"] {
        log.put_blob(&t, id, Bytes::from("b")).await.unwrap();
    }
    must(&log, &t, &start).await;
    let put = log
        .put_result(&t, round, &TaskId::from("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    must_delete(&log, &t, round).await;
    assert!(log.results(&t, round).await.unwrap().is_empty());
    for id in ["kept", "loose"] {
        let error = log.blobs(&t, &[id.to_owned()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{id}");
    }
}

/// A delete that was decided on an older head deletes nothing.
pub async fn delete_compares_the_head(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 3).await;
    for stale in [head(2, 2), head(3, 99), head(7, 7)] {
        let answer = log.delete(&t, stale, tombstone(stale, 666)).await.unwrap();
        assert_eq!(answer, Appended::Moved { head: Some(now) }, "{stale}");
    }
    assert_eq!(log.history(&t, None, 10).await.unwrap().len(), 3);
    let nobody = thread("nobody");
    let answer = log.delete(&nobody, now, tombstone(now, 666)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: None });
    assert_eq!(log.head(&nobody).await.unwrap(), None);
}

/// A delete whose answer was lost is settled like an append.
pub async fn the_same_delete_again_is_done(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    let grave = must_delete(&log, &t, now).await;
    assert_eq!(must_delete(&log, &t, now).await, grave);
    // Another delete of the same head is not this one.
    let answer = log.delete(&t, now, tombstone(now, 667)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(grave) });
}

/// A tombstone is a record like any other: its version follows the head.
pub async fn a_tombstone_gap_is_an_invalid_call(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    for version in [2, 4] {
        let record = record(head(version, 666), version);
        let error = log.delete(&t, now, record).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{version}");
    }
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
}

/// Late writers of the old thread and starts that do not know of the delete are refused.
pub async fn only_an_append_after_the_tombstone_recreates(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    let late = next(Some(now), 3);
    let grave = must_delete(&log, &t, now).await;
    let moved = Appended::Moved { head: Some(grave) };
    assert_eq!(log.append(&t, &late).await.unwrap(), moved);
    assert_eq!(log.append(&t, &next(None, 1)).await.unwrap(), moved);
    let forged = again(head(grave.version, 1), 9);
    assert_eq!(log.append(&t, &forged).await.unwrap(), moved);
    assert_eq!(log.threads(&any_thread(10)).await.unwrap().rows, []);

    let born = must(&log, &t, &again(grave, 10)).await;
    assert_eq!(born, head(grave.version + 1, 10));
    assert_eq!(log.threads(&any_thread(10)).await.unwrap().rows.len(), 1);
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(loaded.records.len(), 1, "a cold reader sees the new thread");
    assert_eq!(loaded.head(), born);
    let history = log.history(&t, None, 10).await.unwrap();
    let heads: Vec<_> = history.iter().map(|record| record.head).collect();
    assert_eq!(heads, [born, grave], "the chain goes on from the tombstone");
}

/// A task that outlived its thread stores nothing.
pub async fn a_late_result_after_a_delete_is_refused(log: Log) {
    let t = thread("t");
    let round = super::build::start_round(&log, &t).await;
    let grave = must_delete(&log, &t, round).await;
    let a = TaskId::from("a");
    let put = log.put_result(&t, round, &a, Bytes::from("late")).await;
    let put = put.unwrap();
    assert!(
        matches!(put, PutResult::RoundOver | PutResult::UnknownThread),
        "{put:?}"
    );
    must(&log, &t, &again(grave, 10)).await;
    let put = log.put_result(&t, round, &a, Bytes::from("late")).await;
    assert_eq!(put.unwrap(), PutResult::RoundOver);
    assert!(log.results(&t, round).await.unwrap().is_empty());
}

/// The old thread's writers do not fit the new one of the same name.
pub async fn a_late_append_after_a_recreation_is_refused(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    let first = next(None, 1);
    let late = next(Some(now), 3);
    let grave = must_delete(&log, &t, now).await;
    let born = must(&log, &t, &again(grave, 10)).await;
    let moved = Appended::Moved { head: Some(born) };
    for late in [first, late] {
        assert_eq!(log.append(&t, &late).await.unwrap(), moved);
    }
    let answer = log.delete(&t, now, tombstone(now, 667)).await.unwrap();
    assert_eq!(answer, moved);
}

/// A start that is delivered again after the delete finds that it was decided.
pub async fn outcomes_outlive_a_delete(log: Log) {
    let t = thread("t");
    let start = Append {
        outcome: Some((command("start"), Bytes::from("accepted"))),
        ..next(None, 1)
    };
    let now = must(&log, &t, &start).await;
    let grave = must_delete(&log, &t, now).await;
    let kept = log.outcome(&t, &command("start")).await.unwrap();
    assert_eq!(kept, Some(Bytes::from("accepted")));
    let restart = Append {
        outcome: Some((command("start"), Bytes::from("accepted again"))),
        ..again(grave, 10)
    };
    let answer = log.append(&t, &restart).await.unwrap();
    let outcome = Bytes::from("accepted");
    assert_eq!(answer, Appended::Decided { outcome });
    assert_eq!(log.head(&t).await.unwrap(), Some(grave));
}

/// A delete competes for the next version like any append.
pub async fn a_delete_races_an_append_to_one_winner(log: Log) {
    for turn in 0..16 {
        let t = thread(&format!("t{turn}"));
        let now = grow(&log, &t, 1).await;
        let append = next(Some(now), 9);
        let grave = tombstone(now, 666);
        let (appended, deleted) = {
            let appending = tokio::spawn({
                let (log, t, append) = (Log::clone(&log), t.clone(), append.clone());
                async move { log.append(&t, &append).await.unwrap() }
            });
            let deleted = log.delete(&t, now, grave.clone()).await.unwrap();
            (appending.await.unwrap(), deleted)
        };
        let (winner, loser) = match (&appended, &deleted) {
            (Appended::Done, loser) => (append.record.head, loser),
            (loser, Appended::Done) => (grave.head, loser),
            both => panic!("nobody won: {both:?}"),
        };
        assert_eq!(*loser, Appended::Moved { head: Some(winner) });
        assert_eq!(log.head(&t).await.unwrap(), Some(winner));
    }
}
