//! Bounds that are reached while runs go on: full streams, a full Redis, a state too large, and a
//! record that cannot be read.
//!
//! What can wait, waits and goes on once there is room; what cannot, fails with a reason that a
//! person can act on; what concerns one thread leaves the others alone.
//!
//! The rule it keeps: nothing that was acknowledged is lost.

use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;
use superstep_tests::servers::Reply;

use crate::SOON;
use crate::cluster::Cluster;

/// Sends Redis a command that must succeed.
fn redis(cluster: &Cluster, command: &[&str]) -> Reply {
    let reply = cluster.redis.command(command).expect("Redis replies");
    assert!(!matches!(reply, Reply::Error(_)), "{command:?}: {reply:?}");
    reply
}

/// Waits until Redis has refused something for want of memory.
async fn refused_for_memory(cluster: &Cluster) {
    eventually_async("Redis refuses a write", SOON, async || {
        let reply = redis(cluster, &["INFO", "errorstats"]);
        reply.text()?.contains("errorstat_OOM").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_wider_than_its_stream_ends() {
    let cluster = Cluster::start();
    let settings = json!({"work_messages_max": 10, "concurrency": 4});
    let mut a = cluster.worker_with("a", settings.clone()).await;
    let _b = cluster.worker_with("b", settings).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let input = json!({"count": 60, "pause_ms": 60});
    let start = json!({"thread_id": "t", "input": input});
    outside
        .publish("superstep.default.start.spread", start)
        .await;
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    let results: Vec<Value> = (0..60_u64).map(|n| json!(n * n)).collect();
    assert_eq!(values["results"], json!(results));
    assert_eq!(store.history("t").await.len(), 5);
    // What fitted before the stream was full may have gone out twice, and no more than that.
    let ran = cluster.ledger().len();
    assert!((60..=80).contains(&ran), "{ran} tasks ran");
    assert_eq!(a.ended(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_of_commands_tells_its_publisher() {
    let cluster = Cluster::start();
    let settings = json!({"command_messages_max": 40});
    let first = cluster.worker_with("a", settings.clone()).await;
    let outside = cluster.outside().await;
    drop(first);
    let start = |n: usize| json!({"thread_id": format!("t-{n}"), "input": {"draft": "d"}});
    let subject = "superstep.default.start.basic";
    let mut taken = 0;
    let refused = loop {
        let body = start(taken).to_string().into_bytes();
        match outside.try_publish(subject, &[], body).await {
            Ok(_) => taken += 1,
            Err(kind) => break kind,
        }
        assert!(taken < 1_000, "the stream has a bound");
    };
    assert_eq!(
        refused,
        PublishErrorKind::Other,
        "the stream itself said no"
    );
    assert_eq!(taken, 40, "so many fitted");

    let _b = cluster.worker_with("b", settings).await;
    for n in 0..taken {
        outside.event("interrupt", &format!("t-{n}")).await;
    }
    // There is room again as soon as the records of those are durable.
    eventually_async("the stream takes commands again", SOON, async || {
        let body = start(taken).to_string().into_bytes();
        outside.try_publish(subject, &[], body).await.ok()
    })
    .await;
    outside.event("interrupt", &format!("t-{taken}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_while_redis_is_full() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let start = |thread: &str| json!({"thread_id": thread, "input": {"by": []}});
    let subject = "superstep.default.start.gate";
    outside.publish(subject, start("under-way")).await;
    cluster.noted("hold under-way", 1).await;
    let before = store.state("under-way").await.head;

    redis(&cluster, &["CONFIG", "SET", "maxmemory", "1"]);
    outside.publish(subject, start("new")).await;
    cluster.write("open.under-way", "");
    cluster.write("open.new", "");
    refused_for_memory(&cluster).await;
    assert_eq!(store.state("under-way").await.head, before);
    assert!(!store.is_there("new").await);

    redis(&cluster, &["CONFIG", "SET", "maxmemory", "0"]);
    for thread in ["under-way", "new"] {
        outside.event("run_completed", thread).await;
        let values = store.rests(thread, ThreadStatus::Idle).await;
        assert_eq!(values["by"], json!(["before:a", "hold:a", "after:a"]));
        assert_eq!(store.history(thread).await.len(), 5);
    }
    assert_eq!(cluster.ledger().len(), 6, "no node ran again for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_too_large_fails_its_run_and_can_be_retried() {
    let cluster = Cluster::start();
    let settings = json!({"state_bytes_max": 100_000});
    let _a = cluster.worker_with("a", settings).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    cluster.write("bytes", "200000");
    let start = json!({"thread_id": "t", "input": {"note": "kept"}});
    outside.publish("superstep.default.start.fill", start).await;
    let failed = outside.event("run_failed", "t").await;
    let error = &failed.body["error"];
    assert_eq!(error["kind"], "StateTooLarge", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    for part in ["100000", "state_bytes_max"] {
        assert!(message.contains(part), "{message}");
    }
    let values = store.rests("t", ThreadStatus::Error).await;
    assert_eq!(values.get("note"), Some(&json!("kept")));
    assert_eq!(
        values.get("filling"),
        None,
        "nothing of the superstep is kept"
    );

    cluster.write("bytes", "10");
    let retried = outside.ask("superstep.default.retry.t", &[], "").await;
    assert_eq!(retried["outcome"], "accepted", "{retried}");
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["filling"], "xxxxxxxxxx");
    store.history("t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_with_a_broken_record_stands_still_alone() {
    let cluster = Cluster::start();
    let a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let subject = "superstep.default.start.basic";
    for thread in ["broken", "well"] {
        let start = json!({"thread_id": thread, "input": {"draft": "d"}});
        outside.publish(subject, start).await;
        outside.event("interrupt", thread).await;
    }
    let version = store.state("broken").await.head.version.to_string();
    let keys = redis(&cluster, &["KEYS", "*:t:broken"]);
    let Reply::List(keys) = keys else {
        panic!("no list of keys: {keys:?}");
    };
    let key = keys[0].text().expect("the thread's key").to_owned();
    let kept = redis(&cluster, &["HGET", &key, &version]);
    let kept = kept.text().expect("the last record").to_owned();
    let cut = &kept[..kept.len() / 2];
    redis(&cluster, &["HSET", &key, &version, cut]);

    let yes = json!({"resume": {"approved": true}});
    outside
        .publish("superstep.default.resume.broken", &yes)
        .await;
    eventually_async("the worker says so", SOON, async || {
        let log = a.log();
        log.lines()
            .any(|line| line.contains("ERROR") && line.contains("broken"))
            .then_some(())
    })
    .await;
    let answered = outside
        .ask("superstep.default.resume.well", &[], &yes)
        .await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside
        .event_within("run_completed", "well", Duration::from_secs(10))
        .await;

    // A person mends it; the thread is as it was and goes on.
    redis(&cluster, &["HSET", &key, &version, &kept]);
    let answered = outside
        .ask("superstep.default.resume.broken", &[], &yes)
        .await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside.event("run_completed", "broken").await;
    store.history("broken").await;
}
