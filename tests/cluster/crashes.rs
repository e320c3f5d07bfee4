//! A worker dies or freezes in the middle of a node; another one goes on.
//!
//! The node waits for a file, so the test knows where the worker stands. What dies at other lines
//! (between append and publish, before the ack) is tested over the faulty store and queue.
//!
//! The rule it keeps: a node runs at least once, its writes count once.

use serde_json::json;
use superstep_protocol::ThreadStatus;
use superstep_tests::Program;

use crate::cluster::Cluster;
use crate::outside::Outside;

/// Starts a run of `gate` and waits until worker `a` is in its node `hold`.
async fn held_by_a(cluster: &Cluster, outside: &Outside, thread: &str) {
    let started = outside
        .ask(
            "superstep.default.start.gate",
            &[],
            json!({"thread_id": thread, "input": {"by": []}}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    let held = cluster.noted(&format!("hold {thread}"), 1).await;
    assert_eq!(held, [format!("hold {thread} a")]);
}

async fn one_worker() -> (Cluster, Outside, Program) {
    let cluster = Cluster::start();
    let a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    (cluster, outside, a)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_worker_is_killed_runs_again() {
    let (cluster, outside, mut a) = one_worker().await;
    held_by_a(&cluster, &outside, "t").await;
    let _b = cluster.worker("b").await;
    a.kill();

    let held = cluster.noted("hold t", 2).await;
    assert_eq!(held, ["hold t a", "hold t b"]);
    cluster.write("open.t", "");
    outside.event("run_completed", "t").await;

    let store = cluster.store().await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["by"], json!(["before:a", "hold:b", "after:b"]));
    assert_eq!(store.history("t").await.len(), 5);
    assert_eq!(cluster.ledger().len(), 4, "only the running node ran again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_changes_nothing_once_thawed() {
    let (cluster, outside, mut a) = one_worker().await;
    held_by_a(&cluster, &outside, "t").await;
    a.freeze();
    let _b = cluster.worker("b").await;
    let held = cluster.noted("hold t", 2).await;
    assert_eq!(held, ["hold t a", "hold t b"]);

    // Both nodes may go on now, but one of their workers stands still.
    cluster.write("open.t", "");
    outside.event("run_completed", "t").await;
    let store = cluster.store().await;
    let before = store.state("t").await.head;
    a.thaw();

    // It is well again, and what it had in hand is gone: the next run shows both.
    cluster.write("open.u", "");
    for thread in ["u", "v"] {
        cluster.write(&format!("open.{thread}"), "");
        outside
            .publish(
                "superstep.default.start.gate",
                json!({"thread_id": thread, "input": {"by": []}}),
            )
            .await;
        outside.event("run_completed", thread).await;
    }
    a.stop();
    assert_eq!(a.ended().and_then(|status| status.code()), Some(0));
    assert_eq!(
        store.state("t").await.head,
        before,
        "the late append was refused"
    );
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["by"], json!(["before:a", "hold:b", "after:b"]));
    assert_eq!(outside.heard("run_completed", "t").len(), 1);
    store.history("t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_node_of_a_living_worker_runs_once() {
    let (cluster, outside, _a) = one_worker().await;
    let _b = cluster.worker("b").await;
    let started = outside
        .ask(
            "superstep.default.start.steps",
            &[],
            // Three times as long as a delivery may go unanswered.
            json!({"thread_id": "slow", "input": {"count": 1, "pause_ms": 3000}}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    outside.event("run_completed", "slow").await;
    assert_eq!(
        cluster.ledger().len(),
        1,
        "in-progress kept it: {:?}",
        cluster.ledger()
    );
}
