//! Drain: what a worker does when it is told to go (SIGTERM).
//!
//! It stops pulling at once, finishes the superstep that it is in, hands everything else to the
//! others, and ends with a code that says which: 0 finished, 6 handed back.
//!
//! The rule it keeps: no run fails for a drain, and the others have the work within seconds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::Program;

use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

/// How soon another worker must have what a drained one gave up.
const TAKEN_OVER: Duration = Duration::from_secs(2);

async fn start(outside: &Outside, graph: &str, thread: &str, input: Value) {
    let started = outside
        .ask(
            &format!("superstep.default.start.{graph}"),
            &[],
            json!({"thread_id": thread, "input": input}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
}

/// Waits until the worker is gone, and returns its exit code.
async fn gone(worker: &mut Program, within: Duration) -> Option<i32> {
    superstep_tests::eventually_async("the worker is gone", within, async || worker.ended())
        .await
        .code()
}

async fn ends_by(store: &Store, thread: &str, by: Value) {
    let values = store
        .rests_within(thread, ThreadStatus::Idle, TAKEN_OVER)
        .await;
    assert_eq!(values["by"], by);
    assert_eq!(store.history(thread).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_is_gone_at_once() {
    let cluster = Cluster::start();
    let mut a = cluster.worker("a").await;
    a.terminate();
    assert_eq!(gone(&mut a, TAKEN_OVER).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_finishes_its_superstep() {
    let cluster = Cluster::start();
    let mut a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    start(&outside, "gate", "t", json!({"by": []})).await;
    cluster.noted("hold t", 1).await;
    let _b = cluster.worker("b").await;

    a.terminate();
    // What comes now is not for the worker that goes.
    start(&outside, "steps", "new", json!({"count": 3})).await;
    outside
        .event_within("run_completed", "new", TAKEN_OVER)
        .await;
    let ledger = cluster.ledger();
    assert!(
        ["step new 0 b", "step new 1 b", "step new 2 b"]
            .iter()
            .all(|line| ledger.iter().any(|noted| noted == line)),
        "{ledger:?}"
    );

    cluster.write("open.t", "");
    ends_by(&store, "t", json!(["before:a", "hold:a", "after:b"])).await;
    assert_eq!(gone(&mut a, TAKEN_OVER).await, Some(0));
    assert_eq!(
        cluster.noted("hold t", 1).await,
        ["hold t a"],
        "nothing ran twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_out_of_time_hands_back() {
    let cluster = Cluster::start();
    // A delivery that is only given up, not handed back, would come a minute later.
    let settings = json!({"drain_timeout_ms": 500, "ack_wait_ms": 60_000});
    let mut a = cluster.worker_with("a", settings.clone()).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    start(&outside, "gate", "t", json!({"by": []})).await;
    cluster.noted("hold t", 1).await;
    let _b = cluster.worker_with("b", settings).await;

    a.terminate();
    let told = Instant::now();
    assert_eq!(
        gone(&mut a, Duration::from_secs(4)).await,
        Some(6),
        "{}",
        a.tail()
    );
    let held = cluster.noted("hold t", 2).await;
    assert_eq!(held, ["hold t a", "hold t b"]);
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    cluster.write("open.t", "");
    ends_by(&store, "t", json!(["before:a", "hold:b", "after:b"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_fails_while_workers_are_replaced() {
    let cluster = Cluster::start();
    let mut old = cluster.worker("old-0").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let threads: Vec<String> = (0..12).map(|n| format!("load-{n}")).collect();
    for thread in &threads {
        start(
            &outside,
            "steps",
            thread,
            json!({"count": 20, "pause_ms": 100}),
        )
        .await;
    }
    for round in 1..=3 {
        let new = cluster.worker(&format!("old-{round}")).await;
        old.terminate();
        assert_eq!(gone(&mut old, TAKEN_OVER).await, Some(0));
        old = new;
    }
    let seen: Vec<u64> = (0..20).collect();
    for thread in &threads {
        let values = store.rests(thread, ThreadStatus::Idle).await;
        assert_eq!(values["seen"], json!(seen), "{thread}");
        assert_eq!(store.history(thread).await.len(), 22);
        assert_eq!(outside.heard("run_failed", thread).len(), 0);
    }
    assert_eq!(
        cluster.noted("step", 240).await.len(),
        240,
        "nothing ran twice"
    );
}
