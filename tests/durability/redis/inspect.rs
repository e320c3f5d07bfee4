//! Looking into a real store that another program has damaged: each kind of stray is found, and
//! removed only while it is one; an entry that is written twice is compared.

use bytes::Bytes;
use superstep_checkpoint::{
    IndexChange, Inspect, InterruptRow, Reindex, Stray, StrayKind, ThreadLog as _,
};
use superstep_checkpoint_redis::RedisLog;
use superstep_graph::TaskId;
use superstep_protocol::{ThreadId, ThreadStatus, UnixMillis};
use superstep_tests::servers::RedisServer;

use super::{keys, log_on, must, next, row, thread};

async fn strays(log: &RedisLog) -> Vec<Stray> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = log.strays(after.as_deref(), 3).await.unwrap();
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            found.sort();
            found.dedup();
            return found;
        }
    }
}

/// The key of that end; tests have one thread each.
fn key(server: &RedisServer, end: &str) -> String {
    let found = keys(server, "").into_iter().find(|key| key.ends_with(end));
    found.unwrap_or_else(|| panic!("no key ends with {end}"))
}

fn everything() -> IndexChange {
    IndexChange {
        row: Some(row(ThreadStatus::Busy, 1)),
        watched: Some(true),
        opened: vec![InterruptRow {
            id: "q1".into(),
            opened_at: UnixMillis(5),
        }],
        due_set: [("t\0:1".to_owned(), UnixMillis(70))].into(),
        rounds_opened: vec![super::head(1, 1)],
        ..IndexChange::default()
    }
}

#[tokio::test]
async fn every_kind_of_stray_is_found_and_removed() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut append = next(None, 1, 3);
    append.index = everything();
    append.blobs = vec!["b".to_owned()];
    log.put_blob(&t, "b", Bytes::from("x")).await.unwrap();
    let round = must(&log, &t, &append).await;
    let task = TaskId::new("a");
    log.put_result(&t, round, &task, Bytes::from("r"))
        .await
        .unwrap();
    log.put_progress(&t, round, &task, 0, Bytes::from("p"))
        .await
        .unwrap();
    assert!(strays(&log).await.is_empty());

    // As if the thread's hash and its list of blobs had been deleted by hand.
    server.command(&["DEL", &key(&server, "}:t:t")]).unwrap();
    server.command(&["DEL", &key(&server, "}:bi:t")]).unwrap();
    // A timer of a thread that has none any more.
    let found = strays(&log).await;
    let kinds: Vec<StrayKind> = found.iter().map(|stray| stray.kind).collect();
    let expected = [
        StrayKind::Row,
        StrayKind::Watch,
        StrayKind::Entries,
        StrayKind::Results,
        StrayKind::Progress,
        StrayKind::Blob,
    ];
    assert_eq!(kinds, expected);
    for stray in &found {
        assert!(log.remove_stray(stray).await.unwrap(), "{stray:?}");
        assert!(!log.is_stray(stray).await.unwrap(), "{stray:?}");
    }
    // Without the thread's own entries, those of the shard's indexes belong to nothing either.
    let left = strays(&log).await;
    let kinds: Vec<StrayKind> = left.iter().map(|stray| stray.kind).collect();
    assert_eq!(kinds, [StrayKind::Timer, StrayKind::Question]);
    for stray in &left {
        assert!(log.remove_stray(stray).await.unwrap(), "{stray:?}");
    }
    assert!(strays(&log).await.is_empty());
    assert!(log.due(UnixMillis(99), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_entry_that_belongs_again_is_not_removed() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut append = next(None, 1, 3);
    append.index = everything();
    let head = must(&log, &t, &append).await;
    for (kind, name) in [
        (StrayKind::Row, "2:letter"),
        (StrayKind::Watch, ""),
        (StrayKind::Timer, "t\0:1"),
        (StrayKind::Question, "q1"),
        (StrayKind::Entries, ""),
        (StrayKind::Results, &head.to_string()),
        (StrayKind::Progress, &head.to_string()),
        (StrayKind::Blob, "none"),
    ] {
        let stray = Stray {
            kind,
            thread: t.clone(),
            name: name.to_owned(),
        };
        assert!(!log.remove_stray(&stray).await.unwrap(), "{stray:?}");
    }
    let kept = log.kept(&t).await.unwrap().unwrap();
    assert!(kept.torn.is_empty() && kept.due.len() == 1, "{kept:?}");
}

#[tokio::test]
async fn entries_that_are_torn_are_told_and_mended() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t: ThreadId = thread("t");
    let mut append = next(None, 1, 3);
    append.index = everything();
    let head = must(&log, &t, &append).await;
    for end in ["}:w", "}:d", "}:q", "}:l:2:letter"] {
        server.command(&["DEL", &key(&server, end)]).unwrap();
    }
    let kept = log.kept(&t).await.unwrap().unwrap();
    assert_eq!(kept.torn.len(), 4, "{kept:?}");
    let truth = Reindex {
        row: kept.row.clone(),
        watched: true,
        interrupts: kept.interrupts.clone(),
        due: kept.due.clone(),
        rounds: kept.rounds.clone(),
    };
    assert!(log.reindex(&t, head, &truth).await.unwrap());
    let mended = log.kept(&t).await.unwrap().unwrap();
    assert!(mended.torn.is_empty(), "{mended:?}");
    assert_eq!(mended.due, kept.due);
    assert_eq!(
        log.watched(UnixMillis(0), UnixMillis(u64::MAX >> 12), 9)
            .await
            .unwrap()
            .len(),
        1
    );
}
