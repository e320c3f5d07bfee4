//! Contract: the maps beside the log: results of rounds, outcomes of commands, blobs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use superstep_graph::TaskId;
use tokio::task::JoinSet;

use super::build::{Log, command, grow, head, must, next, next_with, start_round, thread};
use crate::{Append, ErrorKind, IndexChange, PutResult};

fn task(id: &str) -> TaskId {
    TaskId::from(id)
}

/// Whoever puts the last result of a round learns so from the count.
pub async fn results_are_counted_as_they_are_put(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    for (count, id) in (1..).zip(["a", "b", "c"]) {
        let put = log.put_result(&t, round, &task(id), Bytes::from(id)).await;
        assert_eq!(put.unwrap(), PutResult::Stored { count });
    }
    let expected: BTreeMap<_, _> = ["a", "b", "c"].map(|id| (task(id), Bytes::from(id))).into();
    assert_eq!(log.results(&t, round).await.unwrap(), expected);
}

/// A part of a round is read alone: what is named and there.
pub async fn results_of_some_tasks_are_read_alone(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    for id in ["a", "b", "c"] {
        let put = log.put_result(&t, round, &task(id), Bytes::from(id)).await;
        put.unwrap();
    }
    let of = async |names: &[&str]| {
        let tasks: Vec<TaskId> = names.iter().map(|name| task(name)).collect();
        let results = log.results_of(&t, round, &tasks).await.unwrap();
        results.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of(&["c", "missing"]).await, [(task("c"), Bytes::from("c"))]);
    assert_eq!(of(&["a", "b", "c"]).await.len(), 3);
    assert_eq!(of(&[]).await, []);
    let other = log.results_of(&t, head(1, 9), &[task("a")]).await;
    assert!(other.unwrap().is_empty(), "another round");
}

/// A task has one result in a round: the first.
pub async fn a_second_result_of_a_task_is_refused(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let put = log
        .put_result(&t, round, &task("a"), Bytes::from("first"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let put = log
        .put_result(&t, round, &task("b"), Bytes::from("other"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 2 });
    let put = log
        .put_result(&t, round, &task("a"), Bytes::from("second"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Duplicate { count: 2 });
    let results = log.results(&t, round).await.unwrap();
    assert_eq!(results[&task("a")], Bytes::from("first"));
}

/// Before its round opens and after it ended, a result is refused and not stored.
pub async fn a_result_needs_an_open_round(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    // Not a round at all: another nonce, another version.
    for other in [head(1, 9), head(2, 1)] {
        let put = log
            .put_result(&t, other, &task("a"), Bytes::from("r"))
            .await;
        assert_eq!(put.unwrap(), PutResult::RoundOver, "{other}");
        assert!(log.results(&t, other).await.unwrap().is_empty());
    }
    let put = log
        .put_result(&t, round, &task("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let index = IndexChange {
        rounds_closed: vec![round],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(round), 2, index)).await;
    for id in ["a", "b"] {
        let put = log
            .put_result(&t, round, &task(id), Bytes::from("late"))
            .await;
        assert_eq!(put.unwrap(), PutResult::RoundOver, "{id}");
    }
    let left = log.results(&t, round).await.unwrap();
    assert!(!left.contains_key("b"), "a late result was stored");
    assert_ne!(left.get("a"), Some(&Bytes::from("late")));
}

/// A result makes no thread.
pub async fn a_result_for_an_unknown_thread_is_refused(log: Log) {
    let t = thread("nobody");
    let put = log
        .put_result(&t, head(1, 1), &task("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::UnknownThread);
    assert_eq!(log.head(&t).await.unwrap(), None);
    assert!(log.results(&t, head(1, 1)).await.unwrap().is_empty());
}

/// After a resume the same tasks run in a new round; the old round's results stay in it.
pub async fn results_of_different_rounds_do_not_mix(log: Log) {
    let t = thread("t");
    let first = start_round(&log, &t).await;
    let put = log
        .put_result(&t, first, &task("a"), Bytes::from("asks"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let second = head(2, 2);
    let index = IndexChange {
        rounds_closed: vec![first],
        rounds_opened: vec![second],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(first), 2, index)).await;
    assert!(log.results(&t, second).await.unwrap().is_empty());
    let put = log
        .put_result(&t, second, &task("a"), Bytes::from("writes"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let results = log.results(&t, second).await.unwrap();
    assert_eq!(results, [(task("a"), Bytes::from("writes"))].into());
    // Another thread's round of the same name is another round.
    let u = thread("u");
    let same = start_round(&log, &u).await;
    assert_eq!(same, first);
    assert!(log.results(&u, same).await.unwrap().is_empty());
}

/// An append opens a round and leaves the others as they are.
pub async fn several_rounds_may_be_open_at_once(log: Log) {
    let t = thread("t");
    let first = start_round(&log, &t).await;
    let second = head(2, 2);
    let index = IndexChange {
        rounds_opened: vec![second],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(first), 2, index)).await;
    for round in [first, second] {
        let put = log
            .put_result(&t, round, &task("a"), Bytes::from("r"))
            .await;
        assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    }
    let index = IndexChange {
        rounds_closed: vec![first],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(second), 3, index)).await;
    let put = log
        .put_result(&t, first, &task("b"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::RoundOver);
    let put = log
        .put_result(&t, second, &task("b"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 2 });
}

/// Of many tasks finishing at once each count is told once, so exactly one closes the round.
pub async fn racing_results_are_counted_once_each(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let (log, t) = (Log::clone(&log), t.clone());
        tasks.spawn(async move {
            let id = task(&format!("task-{n}"));
            log.put_result(&t, round, &id, Bytes::from("r")).await
        });
    }
    let mut counts = BTreeSet::new();
    for answer in tasks.join_all().await {
        match answer.unwrap() {
            PutResult::Stored { count } => assert!(counts.insert(count), "{count} told twice"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, (1..=64).collect());
    assert_eq!(log.results(&t, round).await.unwrap().len(), 64);
}

/// Of many workers running one task one result is kept.
pub async fn racing_results_of_one_task_store_one(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let mut tasks = JoinSet::new();
    for n in 0..32 {
        let (log, t) = (Log::clone(&log), t.clone());
        tasks.spawn(async move {
            let mine = Bytes::from(format!("by {n}"));
            let put = log.put_result(&t, round, &task("a"), mine.clone()).await;
            (mine, put.unwrap())
        });
    }
    let mut stored = Vec::new();
    for (mine, answer) in tasks.join_all().await {
        match answer {
            PutResult::Stored { count: 1 } => stored.push(mine),
            answer => assert_eq!(answer, PutResult::Duplicate { count: 1 }),
        }
    }
    assert_eq!(stored.len(), 1);
    let results = log.results(&t, round).await.unwrap();
    assert_eq!(results[&task("a")], stored[0]);
}

/// The first outcome stays, and each later put is told it; for unknown threads too.
pub async fn an_outcome_is_kept_if_absent(log: Log) {
    let t = thread("nobody");
    let c = command("c");
    assert_eq!(log.outcome(&t, &c).await.unwrap(), None);
    let put = log.put_outcome(&t, &c, Bytes::from("refused")).await;
    assert_eq!(put.unwrap(), None);
    let kept = Some(Bytes::from("refused"));
    for again in ["accepted", "refused"] {
        let put = log.put_outcome(&t, &c, Bytes::from(again)).await;
        assert_eq!(put.unwrap(), kept);
    }
    assert_eq!(log.outcome(&t, &c).await.unwrap(), kept);
    assert_eq!(log.head(&t).await.unwrap(), None);
    // The thread may still come to be.
    grow(&log, &t, 2).await;
    assert_eq!(log.outcome(&t, &c).await.unwrap(), kept);
}

/// One command id on two threads is two commands.
pub async fn outcomes_of_threads_do_not_mix(log: Log) {
    let c = command("c");
    for id in ["t", "u"] {
        let put = log.put_outcome(&thread(id), &c, Bytes::from(id)).await;
        assert_eq!(put.unwrap(), None);
    }
    let kept = log.outcome(&thread("t"), &c).await.unwrap();
    assert_eq!(kept, Some(Bytes::from("t")));
    let kept = log.outcome(&thread("v"), &c).await.unwrap();
    assert_eq!(kept, None);
}

/// Of many workers refusing one command one outcome is kept, and all others are told it.
pub async fn racing_outcomes_keep_one(log: Log) {
    let t = thread("t");
    let mut tasks = JoinSet::new();
    for n in 0..32 {
        let (log, t) = (Log::clone(&log), t.clone());
        tasks.spawn(async move {
            let mine = Bytes::from(format!("by {n}"));
            let put = log.put_outcome(&t, &command("c"), mine.clone()).await;
            (mine, put.unwrap())
        });
    }
    let answers = tasks.join_all().await;
    let kept: Vec<_> = answers.iter().filter(|(_, told)| told.is_none()).collect();
    assert_eq!(kept.len(), 1);
    for (_, told) in answers.iter().filter(|(_, told)| told.is_some()) {
        assert_eq!(told.as_ref(), Some(&kept[0].0));
    }
}

/// Blobs are read as they were put, in the order of the ids, also twice.
pub async fn blobs_come_back_in_the_order_asked(log: Log) {
    let t = thread("t");
    for id in ["a", "b", "c"] {
        log.put_blob(&t, id, Bytes::from(id)).await.unwrap();
    }
    let ids = ["c", "a", "c"].map(str::to_owned);
    let blobs = log.blobs(&t, &ids).await.unwrap();
    assert_eq!(blobs, ["c", "a", "c"].map(Bytes::from));
    assert!(log.blobs(&t, &[]).await.unwrap().is_empty());
    // A record that refers to them changes nothing about reading them.
    let append = Append {
        blobs: vec!["a".to_owned(), "b".to_owned()],
        ..next(None, 1)
    };
    must(&log, &t, &append).await;
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), blobs);
}

/// One missing value makes the state unreadable, and that is said.
pub async fn a_missing_blob_is_corrupt(log: Log) {
    let t = thread("t");
    log.put_blob(&t, "a", Bytes::from("a")).await.unwrap();
    let ids = ["a", "b"].map(str::to_owned);
    let error = log.blobs(&t, &ids).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains('b'), "{error}");
}

/// A put never skips the write because something is there, before or after its record.
pub async fn a_blob_put_again_is_written(log: Log) {
    let t = thread("t");
    let ids = ["a".to_owned()];
    log.put_blob(&t, "a", Bytes::from("1")).await.unwrap();
    log.put_blob(&t, "a", Bytes::from("2")).await.unwrap();
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("2")]);
    let append = Append {
        blobs: ids.to_vec(),
        ..next(None, 1)
    };
    must(&log, &t, &append).await;
    log.put_blob(&t, "a", Bytes::from("3")).await.unwrap();
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("3")]);
}

/// A blob belongs to its thread.
pub async fn blobs_of_threads_do_not_mix(log: Log) {
    let ids = ["a".to_owned()];
    log.put_blob(&thread("t"), "a", Bytes::from("t"))
        .await
        .unwrap();
    let error = log.blobs(&thread("u"), &ids).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
