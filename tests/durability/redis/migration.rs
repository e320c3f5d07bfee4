//! A slot moves to another master while a thread in it is written to.
//!
//! A script that named only some of its keys would find them on one master and make the others
//! anew, empty: records without index entries. The move goes key by key, as operators' tools do it.

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use superstep_checkpoint::{Appended, ErrorKind, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::{Head, ThreadStatus, UnixMillis};
use superstep_tests::servers::{RedisCluster, RedisServer, Reply};

use super::{SOON, chain, grow, listed, next, thread};

fn text(node: &RedisServer, command: &[&str]) -> String {
    match node.command(command).unwrap() {
        Reply::Text(text) => text,
        Reply::Integer(number) => number.to_string(),
        other => panic!("{command:?} answered {other:?}"),
    }
}

fn keys_in(node: &RedisServer, slot: &str) -> Vec<String> {
    let keys = node.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]);
    let Reply::List(keys) = keys.unwrap() else {
        panic!("a node lists the keys of a slot");
    };
    keys.iter()
        .filter_map(|key| key.text().map(str::to_owned))
        .collect()
}

/// Appends to one thread, watching it, until told to stop.
async fn write(log: Arc<RedisLog>, stop: Arc<AtomicBool>) -> Vec<Head> {
    let mut written: Vec<Head> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut append = next(written.last().copied(), 7, 10);
        append.index.watched = Some(true);
        let answer = loop {
            match log.append(&thread("t"), &append).await {
                Ok(answer) => break answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        };
        assert_eq!(answer, Appended::Done);
        written.push(append.record.head);
    }
    written
}

async fn at_least(log: &RedisLog, version: u64) {
    let there = superstep_tests::eventually_async("the writer goes on", SOON, async || {
        let head = log.head(&thread("t")).await.ok().flatten();
        head.filter(|head| head.version >= version)
    });
    there.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_slot_keeps_log_and_indexes_together() {
    let cluster = RedisCluster::start().unwrap();
    let mut settings = RedisSettings::new(&cluster.urls().join(","));
    settings.cluster = true;
    settings.shards = 1;
    settings.response_timeout = Duration::from_secs(2);
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    // Enough keys for the writer to meet the slot while some of them are here and some there.
    for n in 0..100 {
        grow(&log, &thread(&format!("other-{n}")), 1).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(Arc::clone(&log), Arc::clone(&stop)));
    at_least(&log, 20).await;

    let nodes = cluster.nodes();
    let slot = text(
        &nodes[0],
        &["CLUSTER", "KEYSLOT", "superstep:{default:0}:w"],
    );
    let from = nodes
        .iter()
        .position(|node| !keys_in(node, &slot).is_empty());
    let from = &nodes[from.unwrap()];
    let to = nodes
        .iter()
        .find(|node| node.port() != from.port())
        .unwrap();
    let (from_id, to_id) = (
        text(from, &["CLUSTER", "MYID"]),
        text(to, &["CLUSTER", "MYID"]),
    );
    text(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    text(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let mut moved = 0;
    while let Some(key) = keys_in(from, &slot).first() {
        let port = to.port().to_string();
        let answer = text(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert!(answer == "OK" || answer == "NOKEY", "{key}: {answer}");
        moved += 1;
    }
    assert!(
        moved >= 4,
        "log, watch, graphs and list are keys of their own"
    );
    for node in [to, from] {
        text(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    let so_far = log.head(&thread("t")).await.unwrap().unwrap().version;
    at_least(&log, so_far + 20).await;
    stop.store(true, Ordering::Relaxed);

    let written = writer.await.unwrap();
    assert_eq!(chain(&log, &thread("t")).await, written);
    let threads = listed(&log).await;
    assert_eq!(threads.len(), 101);
    assert_eq!(threads[0], ("t".to_owned(), ThreadStatus::Busy));
    let watched = log
        .watched(UnixMillis(0), UnixMillis(u64::MAX), 10)
        .await
        .unwrap();
    assert_eq!(watched.len(), 1);
    assert_eq!(Some(&watched[0].head), written.last());
    assert!(
        keys_in(from, &slot).is_empty(),
        "nothing was made anew behind the move"
    );
}
