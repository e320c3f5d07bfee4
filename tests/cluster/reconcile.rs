//! What the queue forgets and what the store forgets, while many threads are at it.
//!
//! All streams are deleted while a thousand threads run, so that nearly all of their messages are
//! lost; the store is set back to an older state under threads that run, wait and were just
//! answered. Nobody helps: what is there goes on by itself.
//!
//! The rule it keeps: every wait is bounded, by a time that says how long recovery may take.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::{eventually, eventually_async, servers::RedisServer};
use tempfile::TempDir;

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

const STREAMS: [&str; 3] = [
    "SUPERSTEP_default_WORK",
    "SUPERSTEP_default_EVENTS",
    "SUPERSTEP_default_COMMANDS",
];

/// How long everything may take after the last disturbance. On a quiet machine it is a fifth.
const RECOVERED: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_threads_outlive_all_streams() {
    const THREADS: usize = 1_000;
    const STEPS: u64 = 6;
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    for n in 0..THREADS {
        outside
            .publish(
                "superstep.default.start.steps",
                json!({"thread_id": format!("t-{n}"), "input": {"count": STEPS, "pause_ms": 200}}),
            )
            .await;
    }
    // What nobody has accepted goes with its stream, and its sender knows.
    eventually_async("all are accepted", SOON, async || {
        (store.count(None).await == THREADS).then_some(())
    })
    .await;
    let mut deleted = 0;
    for _ in 0..2 {
        for stream in STREAMS {
            deleted += usize::from(outside.jetstream().delete_stream(stream).await.is_ok());
        }
        cluster.noted("step", cluster.ledger().len() + 100).await;
    }
    assert!(deleted >= 3, "{deleted}");
    assert!(store.count(Some(ThreadStatus::Idle)).await < THREADS);
    eventually_async("all threads end", RECOVERED, async || {
        (store.count(Some(ThreadStatus::Idle)).await == THREADS).then_some(())
    })
    .await;
    for n in [0, 1, THREADS / 2, THREADS - 1] {
        let thread = format!("t-{n}");
        let values = store.rests(&thread, ThreadStatus::Idle).await;
        let seen: Vec<u64> = (0..STEPS).collect();
        assert_eq!(values["seen"], json!(seen), "{thread}");
        store.history(&thread).await;
    }
}

/// A copy of what the server would find if it were started anew now.
fn copy_of(server: &RedisServer) -> TempDir {
    let info = || server.command(&["INFO", "persistence"]).ok();
    eventually("the append-only file is written", SOON, || {
        let info = format!("{:?}", info()?);
        info.contains("aof_buffer_length:0").then_some(())
    });
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_tree(&server.data_dir(), copy.path());
    copy
}

/// Ends the server, puts an older copy in the place of its data, and starts it again.
fn step_back(server: &mut RedisServer, copy: &TempDir) {
    server.wipe().expect("Redis loses its last moments");
    copy_tree(copy.path(), &server.data_dir());
    server.restart().expect("Redis comes back");
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            fs::create_dir(&target).expect("the folder can be made");
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

/// Answers the open question of a thread until an answer is accepted, as a person does who is
/// asked once more.
async fn answer(outside: &Outside, store: &Store, thread: &str) {
    eventually_async("an answer is accepted or was", SOON, async || {
        if store.state(thread).await.status() != ThreadStatus::Interrupted {
            return (store.state(thread).await.status() == ThreadStatus::Idle).then_some(());
        }
        let subject = format!("superstep.default.resume.{thread}");
        let resume = json!({"resume": {"approved": true}});
        let told: Value = outside.ask(&subject, &[], resume).await;
        (told["outcome"] == "accepted").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_go_on_from_what_the_store_still_has() {
    const STEPS: u64 = 20;
    let mut cluster = Cluster::start();
    // Longer than from the answer to the step back: what is lost was not told to be durable.
    let settings = json!({"durable_after_ms": 10_000});
    let _a = cluster.worker_with("a", settings.clone()).await;
    let _b = cluster.worker_with("b", settings).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let start = async |graph: &str, thread: &str, input: Value| {
        let subject = format!("superstep.default.start.{graph}");
        let body = json!({"thread_id": thread, "input": input});
        outside.publish(&subject, body).await;
    };
    for thread in ["waits", "answered"] {
        start("email", thread, json!({"topic": "t"})).await;
        outside.event("interrupt", thread).await;
    }
    let running: Vec<String> = (0..10).map(|n| format!("r-{n}")).collect();
    for thread in &running {
        start("steps", thread, json!({"count": STEPS, "pause_ms": 100})).await;
    }
    cluster.noted("step", running.len() * 3).await;
    let copy = copy_of(&cluster.redis);

    // All of this is lost: supersteps, an answer, and that a question was asked.
    let resume = json!({"resume": {"approved": true}});
    let subject = "superstep.default.resume.answered";
    let told = outside.ask(subject, &[], resume).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    cluster.noted("step", running.len() * 4).await;
    step_back(&mut cluster.redis, &copy);

    for thread in &running {
        let values = store
            .rests_within(thread, ThreadStatus::Idle, RECOVERED)
            .await;
        let seen: Vec<u64> = (0..STEPS).collect();
        assert_eq!(values["seen"], json!(seen), "{thread}");
        store.history(thread).await;
    }
    // Accepted and not yet durable: the command is decided again by itself.
    store
        .rests_within("answered", ThreadStatus::Idle, RECOVERED)
        .await;
    answer(&outside, &store, "waits").await;
    store
        .rests_within("waits", ThreadStatus::Idle, RECOVERED)
        .await;
}
