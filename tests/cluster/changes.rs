//! Threads that a service changes: it goes on elsewhere, from before, as far as it says.
//!
//! Each test sends by a bare NATS client what the contract has for it: breakpoints of a run, a
//! resume with an update and a goto, a start from an older checkpoint, updates of several nodes.
//! What is malformed or cannot be accepted is in `bad_commands`.
//!
//! The rule it keeps: what the sender is told is what the thread's log says.

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;

use crate::SOON;
use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

const START_GATE: &str = "superstep.default.start.gate";
const RESUME: &str = "superstep.default.resume.t";
const UPDATE: &str = "superstep.default.update.t";

/// Starts graph `gate` on thread `t` so that it stops before `hold`.
async fn stopped(outside: &Outside, store: &Store) {
    let start = json!({
        "thread_id": "t",
        "input": {"by": []},
        "interrupt_before": ["hold"],
    });
    let told = outside.ask(START_GATE, &[], start).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    outside.event("run_stopped", "t").await;
    store.rests("t", ThreadStatus::Interrupted).await;
}

/// The nodes that wrote, without the worker that ran them, in the order of their names.
fn wrote(values: &serde_json::Map<String, Value>) -> Vec<String> {
    let by = values["by"].as_array().expect("a list");
    let name = |by: &Value| {
        by.as_str()
            .and_then(|by| by.split(':').next())
            .map(str::to_owned)
    };
    let mut names: Vec<String> = by.iter().filter_map(name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_updates_and_goes_to_another_node() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    stopped(&outside, &store).await;
    assert_eq!(cluster.ledger(), ["before t a"], "it stopped before `hold`");
    assert!(outside.heard("interrupt", "t").is_empty());

    cluster.write("open.t", "");
    let command = json!({
        "update": {"by": ["patched"]},
        "goto": "after",
        "interrupt_after": "*",
        "run_id": "run-2",
    });
    let told = outside.ask(RESUME, &[], &command).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    assert_eq!(told["run_id"], "run-2");
    // Both nodes ran in one superstep, behind which the run stops as it was told.
    let ended = outside.events("run_stopped", "t", 2).await.remove(1);
    assert_eq!(ended.body["run_id"], "run-2");
    let values = store.rests("t", ThreadStatus::Interrupted).await;
    assert_eq!(wrote(&values), ["after", "before", "hold", "patched"]);

    let told = outside.ask(RESUME, &[], r#"{"goto": []}"#).await;
    assert_eq!(told["refusal"]["kind"], "invalid_input", "{told}");
    let start = json!({"thread_id": "t"});
    let told = outside.ask(START_GATE, &[], start).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(
        wrote(&values),
        ["after", "after", "before", "hold", "patched"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goto_that_is_sent_twice_is_done_once() {
    let cluster = Cluster::start();
    let window = json!({"duplicate_window_ms": 100});
    let _a = cluster.worker_with("a", window).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    stopped(&outside, &store).await;
    cluster.write("open.t", "");
    let packet = json!({"goto": {"node": "after", "input": null}});
    let headers = [("Nats-Msg-Id", "goto-1")];
    let first = outside.ask(RESUME, &headers, &packet).await;
    assert_eq!(first["outcome"], "accepted", "{first}");
    outside.event("run_completed", "t").await;
    let head = store.state("t").await.head;
    let again = eventually_async("the stream takes the id again", SOON, async || {
        outside.try_ask(RESUME, &headers, &packet).await
    });
    assert_eq!(again.await, first);
    assert_eq!(store.state("t").await.head, head, "it left no record");
    assert_eq!(cluster.noted("after t", 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goto_to_no_node_is_declined_and_told() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    stopped(&outside, &store).await;
    let before = store.checkpoints("t").await;
    let headers = [("Nats-Msg-Id", "goto-1"), ("Superstep-Sender", "ann")];
    let command = json!({"goto": "nowhere", "update": {"by": ["lost"]}});
    // It is accepted before a worker of the graph has looked at it.
    let told = outside.ask(RESUME, &headers, command).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    let event = outside.event("resume_refused", "t").await;
    assert_eq!(event.body["command_id"], "goto-1");
    assert_eq!(event.body["sender"], "ann");
    let refusal = &event.body["refusal"];
    assert_eq!(refusal["kind"], "invalid_update", "{refusal}");
    let message = refusal["message"].as_str().unwrap_or_default();
    assert!(message.contains("nowhere"), "{message}");

    store.rests("t", ThreadStatus::Interrupted).await;
    assert_eq!(store.checkpoints("t").await, before, "nothing changed");
    cluster.write("open.t", "");
    let told = outside
        .ask(RESUME, &[], r#"{"update": {"by": ["kept"]}}"#)
        .await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(wrote(&values), ["after", "before", "hold", "kept"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_starts_from_an_older_checkpoint() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let start = "superstep.default.start.steps";
    let input = json!({"thread_id": "t", "input": {"count": 3}});
    outside.ask(start, &[], input).await;
    outside.event("run_completed", "t").await;
    let line = store.history("t").await;
    let second = line.iter().find(|view| view.step == 1).expect("it ran");
    assert_eq!(second.values["seen"], json!([0]));

    let again = json!({
        "thread_id": "t",
        "checkpoint_id": second.checkpoint_id,
        "run_id": "run-2",
    });
    let told = outside.ask(start, &[], again).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    let ended = outside.events("run_completed", "t", 2).await.remove(1);
    assert_eq!(ended.body["run_id"], "run-2");
    assert_eq!(ended.body["values"]["seen"], json!([0, 1, 2]));
    let branched = store.checkpoints("t").await;
    let ids = |views: &[superstep_worker::CheckpointView]| -> Vec<String> {
        let ids = views.iter().map(|view| view.checkpoint_id.clone());
        ids.collect()
    };
    let mut old = ids(&line);
    old.reverse();
    assert!(ids(&branched).ends_with(&old), "nothing that was is lost");
    assert!(branched.len() > line.len());
    let first = &branched[branched.len() - line.len() - 1];
    assert_eq!(
        first.parent_checkpoint_id.as_ref(),
        Some(&second.checkpoint_id)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_several_nodes_makes_a_thread() {
    let cluster = Cluster::start();
    let _a = cluster.worker_with("a", json!({"hold_back_ms": 100})).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let update = json!({
        "graph": "pair",
        "updates": [
            {"values": {"said": ["l"]}, "as_node": "left"},
            {"values": {"said": ["r"]}, "as_node": "right"},
        ],
    });
    let told = outside.ask(UPDATE, &[], &update).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    let event = outside.event("state_updated", "t").await;
    assert_eq!(event.body["graph"], "pair");
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["said"], json!(["l", "r"]));
    let made = store.checkpoints("t").await;
    assert_eq!(made.len(), 1, "one superstep");

    let at = json!({
        "values": {"said": ["more"]},
        "as_node": "left",
        "checkpoint_id": made[0].checkpoint_id,
    });
    let told = outside.ask(UPDATE, &[], at).await;
    assert_eq!(told["outcome"], "accepted", "{told}");
    outside.events("state_updated", "t", 2).await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["said"], json!(["l", "r", "more"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_waits_for_the_thread_that_it_names() {
    let cluster = Cluster::start();
    let patient = json!({"hold_back_ms": 60_000});
    let _a = cluster.worker_with("a", patient).await;
    let outside = cluster.outside().await;
    let update = json!({"graph": "gate", "values": {"by": ["early"]}, "as_node": "before"});
    // It names a graph that could make the thread, and all the same waits for its start.
    let (told, ()) = futures_util::future::join(outside.ask(UPDATE, &[], update), async {
        let start = json!({"thread_id": "t", "input": {"by": []}});
        outside.publish(START_GATE, start).await;
    })
    .await;
    assert_eq!(told["refusal"]["kind"], "busy", "{told}");
    cluster.write("open.t", "");
    outside.event("run_completed", "t").await;
}
