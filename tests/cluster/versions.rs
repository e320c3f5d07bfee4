//! Versions: workers of a newer version replace those of an older one, under load.
//!
//! A thread that runs or waits while that happens ends as its graph's policy says, and none fails
//! or is lost. The graph `long` notes which version ran which of its nodes, in the order of
//! supersteps, so the log itself shows who did what.
//!
//! The rule it keeps: workers are replaced as an operator does, one by one, by SIGTERM.

use std::time::Duration;

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

/// How many threads a rolling update goes on under; every fourth one asks.
const THREADS: usize = 200;

fn thread(number: usize) -> String {
    format!("t{number}")
}

fn asks(number: usize) -> bool {
    number.is_multiple_of(4)
}

fn settings(version: &str, policy: &str) -> Value {
    json!({"version": version, "versions": policy, "register_every_ms": 500})
}

async fn begin(outside: &Outside, numbers: impl Iterator<Item = usize>) {
    for number in numbers {
        let input = json!({"asks": asks(number), "pause_ms": 5, "by": []});
        let body = json!({"thread_id": thread(number), "input": input});
        outside.publish("superstep.default.start.long", body).await;
    }
}

/// Terminates a worker and waits until it has drained.
async fn drained(worker: &mut Program) {
    worker.terminate();
    let ended = eventually_async("the worker is gone", SOON, async || worker.ended()).await;
    assert_eq!(ended.code(), Some(0), "{}", worker.tail());
}

async fn answer(outside: &Outside, store: &Store, thread: &str) -> Value {
    let state = store.state(thread).await;
    let (_, question) = state.open_questions().next().expect("it asks");
    let body = json!({"interrupt_id": question.id, "resume": "yes"});
    let subject = format!("superstep.default.resume.{thread}");
    outside.ask(&subject, &[], body).await
}

/// Who ran the three nodes of a thread that has ended.
async fn by(store: &Store, thread: &str) -> Vec<String> {
    let values = store.rests(thread, ThreadStatus::Idle).await;
    let by = values["by"].as_array().expect("a list").clone();
    let by: Vec<String> = by
        .iter()
        .filter_map(|by| by.as_str().map(str::to_owned))
        .collect();
    let nodes: Vec<&str> = by
        .iter()
        .filter_map(|by| Some(by.split_once(':')?.0))
        .collect();
    assert_eq!(
        nodes,
        ["first", "second", "third"],
        "{thread}: each was applied once"
    );
    by
}

/// Workers of version 1 are replaced by those of version 2 while threads begin, run and wait;
/// then all questions are answered. `keep` leaves one of version 1. Who ran what, by thread.
async fn rolled(policy: &str, keep: bool) -> (Cluster, Vec<Vec<String>>) {
    let cluster = Cluster::start();
    let mut old = cluster.worker_with("a", settings("1", policy)).await;
    let mut old_too = cluster.worker_with("b", settings("1", policy)).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    begin(&outside, 0..THREADS / 2).await;
    cluster.noted("first", THREADS / 10).await;
    let _new = cluster.worker_with("c", settings("2", policy)).await;
    begin(&outside, THREADS / 2..THREADS * 3 / 4).await;
    drained(&mut old).await;
    let _new_too = cluster.worker_with("d", settings("2", policy)).await;
    if !keep {
        drained(&mut old_too).await;
    }
    begin(&outside, THREADS * 3 / 4..THREADS).await;
    for number in (0..THREADS).filter(|number| asks(*number)) {
        store
            .rests(&thread(number), ThreadStatus::Interrupted)
            .await;
        let reply = answer(&outside, &store, &thread(number)).await;
        assert_eq!(reply["outcome"], "accepted", "{reply}");
    }
    let mut ended = Vec::with_capacity(THREADS);
    for number in 0..THREADS {
        ended.push(by(&store, &thread(number)).await);
    }
    drop((old, old_too));
    (cluster, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pinned_threads_end_where_they_began() {
    let (_cluster, ended) = rolled("pinned", true).await;
    let mut versions = std::collections::BTreeSet::new();
    for by in ended {
        let version = |by: &String| by.rsplit_once(':').map(|(_, v)| v.to_owned());
        let ran: std::collections::BTreeSet<_> = by.iter().filter_map(version).collect();
        assert_eq!(ran.len(), 1, "{by:?}");
        versions.extend(ran);
    }
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["v1", "v2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_version_takes_all_threads_over() {
    let (cluster, ended) = rolled("latest", false).await;
    let moved = ended
        .iter()
        .filter(|by| by[0].ends_with("v1") && by[2].ends_with("v2"));
    assert!(moved.count() > 0, "some began on the old version");
    let store = cluster.store().await;
    for number in (0..THREADS).filter(|number| asks(*number)) {
        let state = store.state(&thread(number)).await;
        assert_eq!(state.graph.to_string(), "long@2", "{number}");
        store.history(&thread(number)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_goes_before_all_else_of_the_new_version() {
    let (cluster, ended) = rolled("migrate", false).await;
    let store = cluster.store().await;
    let mut moved = 0;
    for (number, by) in ended.iter().enumerate() {
        let values = store.state(&thread(number)).await.visible_values();
        let went = by[0].ends_with("v1") && by[2].ends_with("v2");
        let expected = if went { json!(["1"]) } else { Value::Null };
        let migrated = values.get("moves").cloned().unwrap_or_default();
        // One that was moved before its first node ran was migrated too, and nobody can see it; one
        // that was moved when its last result was stored has no node left for the new version.
        let unseen = by[0].ends_with("v2") || (by[2].ends_with("v1") && migrated == json!(["1"]));
        assert!(
            migrated == expected || unseen,
            "{number}: {migrated} {by:?}"
        );
        moved += usize::from(went);
    }
    assert!(moved > 0, "some began on the old version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_leaves_its_question_open() {
    let cluster = Cluster::start();
    let mut old = cluster.worker_with("a", settings("2", "latest")).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    begin(&outside, 0..1).await;
    store.rests("t0", ThreadStatus::Interrupted).await;
    drained(&mut old).await;
    let _new = cluster.worker_with("b", settings("3", "latest")).await;
    let reply = answer(&outside, &store, "t0").await;
    assert_eq!(reply["refusal"]["kind"], "missing_node", "{reply}");
    assert_eq!(reply["refusal"]["data"]["node"], "ask", "{reply}");
    let refused = outside
        .event_within("resume_refused", "t0", Duration::from_secs(5))
        .await;
    assert_eq!(refused.body["refusal"]["kind"], "missing_node");
    let state = store.state("t0").await;
    assert_eq!(state.open_questions().count(), 1);
    assert_eq!(state.status(), ThreadStatus::Interrupted);
    // A worker that has the node is back: the same question takes its answer.
    let _old = cluster.worker_with("c", settings("2", "latest")).await;
    let reply = answer(&outside, &store, "t0").await;
    assert_eq!(reply["outcome"], "accepted", "{reply}");
    assert_eq!(
        by(&store, "t0").await,
        ["first:v2", "second:v2", "third:v2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_without_a_worker_waits_for_one_that_knows_it() {
    let cluster = Cluster::start();
    let mut old = cluster.worker_with("a", settings("1", "pinned")).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    begin(&outside, 0..1).await;
    store.rests("t0", ThreadStatus::Interrupted).await;
    drained(&mut old).await;
    let _new = cluster.worker_with("b", settings("2", "pinned")).await;
    let reply = answer(&outside, &store, "t0").await;
    assert_eq!(reply["outcome"], "accepted", "{reply}");
    // What the new version is asked next, it does: the thread was not merely slow.
    begin(&outside, 1..2).await;
    assert_eq!(by(&store, "t1").await[0], "first:v2");
    assert_eq!(store.state("t0").await.status(), ThreadStatus::Busy);
    let _old = cluster.worker_with("c", settings("1", "pinned")).await;
    assert_eq!(
        by(&store, "t0").await,
        ["first:v1", "second:v1", "third:v1"]
    );
}
