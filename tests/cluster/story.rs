//! The story that superstep is for: a worker asks and dies, a person answers, another worker ends it.
//!
//! On each pair of servers that are supported, with the workers of the `superstep` binary itself. The person has a NATS client and nothing else.

use serde_json::json;
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;
use superstep_tests::servers::ServerBinary;

use crate::SOON;
use crate::cluster::Cluster;
use crate::outside::Told;

/// The story on these servers.
async fn tell(nats: ServerBinary, redis: ServerBinary) {
    let cluster = Cluster::on(nats, redis);
    let mut a = cluster.superstep("a").await;
    let outside = cluster.outside().await;

    outside
        .publish(
            "superstep.default.start.email",
            json!({"thread_id": "order-42", "input": {"topic": "a delay"}}),
        )
        .await;
    let asked = outside.event("interrupt", "order-42").await;
    a.kill();
    check_question(&asked);

    let mut b = cluster.superstep("b").await;
    let resume_subject = asked.body["interrupt"]["resume_subject"].as_str();
    outside
        .publish(
            resume_subject.expect("the event says where to answer"),
            json!({"resume": {"approved": true}}),
        )
        .await;
    let completed = outside.event("run_completed", "order-42").await;
    assert_eq!(completed.body["values"]["status"], "sent");

    let store = cluster.store().await;
    let values = store.rests("order-42", ThreadStatus::Idle).await;
    let history = store.history("order-42").await;
    let next: Vec<String> = history
        .iter()
        .map(|c| {
            c.next
                .iter()
                .map(superstep_graph::NodeName::as_str)
                .collect()
        })
        .collect();
    assert_eq!(
        next,
        ["__start__", "draft_email", "review_email", "send_email", ""],
        "every superstep is there once"
    );
    let mails = cluster.outbox("order-42");
    assert_eq!(mails.len(), 1, "one mail went out: {mails:?}");
    assert_eq!(
        mails[0]["body"], values["draft"],
        "what was approved was sent"
    );
    assert_eq!(
        asked.body["interrupt"]["value"]["draft"], values["draft"],
        "the draft that was asked about was not written anew"
    );
    for (kind, count) in [
        ("run_started", 1),
        ("interrupt", 1),
        ("resume_accepted", 1),
        ("run_completed", 1),
    ] {
        assert_eq!(outside.heard(kind, "order-42").len(), count, "{kind}");
    }

    b.terminate();
    let ended = eventually_async("the worker ends", SOON, async || b.ended()).await;
    assert_eq!(ended.code(), Some(0), "it had nothing left to hand back");
}

/// The interrupt event is what the contract says.
#[track_caller]
fn check_question(asked: &Told) {
    let body = &asked.body;
    assert_eq!(
        asked.subject,
        "superstep.default.events.interrupt.email.order-42"
    );
    let value = |field: &str| body[field].as_str().unwrap_or("absent").to_owned();
    for (header, expected) in [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-type", "superstep.interrupt".to_owned()),
        (
            "ce-source",
            "/superstep/default/threads/order-42".to_owned(),
        ),
        ("content-type", "application/json".to_owned()),
        ("ce-id", value("event_id")),
        ("Nats-Msg-Id", value("event_id")),
        ("ce-time", value("time")),
    ] {
        assert_eq!(asked.header(header), expected, "{header}");
    }
    for (field, expected) in [
        ("graph", "email"),
        ("graph_version", "1"),
        ("kind", "interrupt"),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
    for field in ["run_id", "checkpoint_id", "record"] {
        assert!(body[field].is_string(), "{field} is there: {body}");
    }
    let question = &body["interrupt"];
    assert_eq!(question["node"], "review_email");
    assert_eq!(question["index"], 0);
    assert_eq!(question["value"]["message"], "Approve email?");
    assert_eq!(
        question["resume_subject"],
        "superstep.default.resume.order-42"
    );
    let id = question["interrupt_id"].as_str().unwrap_or_default();
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_finishes_what_a_killed_one_asked() {
    tell(ServerBinary::Nats, ServerBinary::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_holds_on_a_current_nats() {
    if ServerBinary::NatsModern.available_to("the_story_holds_on_a_current_nats") {
        tell(ServerBinary::NatsModern, ServerBinary::Redis).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_holds_on_the_oldest_redis() {
    if ServerBinary::Redis62.available_to("the_story_holds_on_the_oldest_redis") {
        tell(ServerBinary::Nats, ServerBinary::Redis62).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_holds_on_valkey() {
    if ServerBinary::Valkey.available_to("the_story_holds_on_valkey") {
        tell(ServerBinary::NatsModern, ServerBinary::Valkey).await;
    }
}
