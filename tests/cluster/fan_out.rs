//! Fan-out: the tasks of one superstep spread over workers, some of which die.
//!
//! Each task leaves a line in the ledger when it begins, so the test sees how far the round is.
//!
//! The rule it keeps: a task may run twice, its writes are applied once, in the order of the sends.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;

use crate::SOON;
use crate::cluster::Cluster;

/// Which workers noted something.
fn workers(lines: &[String]) -> BTreeSet<&str> {
    lines
        .iter()
        .filter_map(|line| line.rsplit(' ').next())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_survives_a_worker_killed_half_way() {
    let cluster = Cluster::start();
    let settings = json!({"concurrency": 4});
    let mut a = cluster.worker_with("a", settings.clone()).await;
    let _b = cluster.worker_with("b", settings.clone()).await;
    let _c = cluster.worker_with("c", settings).await;
    let outside = cluster.outside().await;
    let started = outside
        .ask(
            "superstep.default.start.spread",
            &[],
            json!({"thread_id": "wide", "input": {"count": 200, "pause_ms": 50}}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");

    let half = cluster.noted("item", 80).await;
    a.kill();
    assert!(half.len() < 180, "the worker dies half way: {}", half.len());
    let completed = outside.event("run_completed", "wide").await;

    let results: Vec<Value> = (0..200_u64).map(|n| json!(n * n)).collect();
    assert_eq!(completed.body["values"]["results"], Value::Array(results));
    assert_eq!(
        completed.body["values"]["sum"],
        json!((0..200_u64).map(|n| n * n).sum::<u64>())
    );
    let store = cluster.store().await;
    store.rests("wide", ThreadStatus::Idle).await;
    // Input, plan, two hundred items as one superstep, the sum.
    assert_eq!(store.history("wide").await.len(), 5);
    let ledger = cluster.noted("item", 200).await;
    assert_eq!(
        workers(&ledger),
        BTreeSet::from(["a", "b", "c"]),
        "all took part"
    );
    // What runs twice is at most what the dead worker held.
    assert!(ledger.len() <= 204, "{} tasks ran", ledger.len());
    let items: BTreeSet<&str> = ledger
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(items.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_survive_a_killed_worker() {
    const SENDS: u64 = 10_000;
    let cluster = Cluster::start();
    let mut a = cluster.worker("a").await;
    let mut b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let started = outside
        .ask(
            "superstep.default.start.spread",
            &[],
            json!({"thread_id": "wide", "input": {"count": SENDS, "pause_ms": 10}}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");

    let begun = cluster.noted("item", 2_000).await;
    a.kill();
    assert!(
        begun.len() < 8_000,
        "the worker dies half way: {}",
        begun.len()
    );
    let store = cluster.store().await;
    let values = store
        .rests_within("wide", ThreadStatus::Idle, 4 * SOON)
        .await;
    let results: Vec<Value> = (0..SENDS).map(|n| json!(n * n)).collect();
    assert_eq!(values["results"], Value::Array(results));
    assert_eq!(store.history("wide").await.len(), 5);
    // The dead worker held 32 messages of 40 tasks. What it had brought of them does not run again;
    // what it was in does, and what was under way.
    let ran = cluster.ledger().len() as u64;
    assert!(ran <= SENDS + 640, "{ran} tasks ran");
    let peak = b.memory_peak_bytes();
    assert!(peak < 256 << 20, "the worker took {peak} bytes");
    b.stop();
}
