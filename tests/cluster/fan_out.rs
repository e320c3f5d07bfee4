//! Fan-out: the tasks of one superstep spread over workers, some of which die.
//!
//! Each task leaves a line in the ledger when it begins, so the test sees how far the round is.
//!
//! The rule it keeps: a task may run twice, its writes are applied once, in the order of the sends.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;

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
