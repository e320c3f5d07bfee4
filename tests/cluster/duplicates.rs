//! The same thing twice, two things at once, and things in the wrong order.
//!
//! Networks repeat, people click twice, two people answer at the same time, and a resume may be
//! decided before the start that it follows. Whatever the order, each sender is told what became
//! of its command.
//!
//! The rule it keeps: exactly one is accepted, and a refusal changes nothing.

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::Cluster;
use crate::outside::Outside;

const START_BASIC: &str = "superstep.default.start.basic";

/// A cluster whose stream forgets message ids at once, so that the thread must remember them.
async fn forgetful() -> (Cluster, Outside, Program) {
    let cluster = Cluster::start();
    let worker = cluster
        .worker_with("a", json!({"duplicate_window_ms": 100}))
        .await;
    let outside = cluster.outside().await;
    (cluster, outside, worker)
}

fn basic(thread: &str) -> Value {
    json!({"thread_id": thread, "input": {"draft": "d"}})
}

/// Starts `graph` and returns the question that it asks.
async fn asked(outside: &Outside, graph: &str, thread: &str, input: Value) -> Value {
    let subject = format!("superstep.default.start.{graph}");
    let started = outside
        .ask(&subject, &[], json!({"thread_id": thread, "input": input}))
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    let event = outside.event("interrupt", thread).await;
    event.body["interrupt"].clone()
}

/// Publishes the same command until its stream has forgotten that it had it, and returns what the
/// thread says to it.
async fn repeated(outside: &Outside, subject: &str, id: &str, body: &Value) -> Value {
    let headers = [("Nats-Msg-Id", id)];
    eventually_async("the stream takes the id again", SOON, async || {
        let bytes = body.to_string().into_bytes();
        let ack = outside.publish_with(subject, &headers, bytes).await;
        (!ack.duplicate).then_some(())
    })
    .await;
    // That one went without a subject for its reply; the next is the same command once more.
    eventually_async("the stream takes the id again", SOON, async || {
        outside.try_ask(subject, &headers, body).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_command_again_has_the_same_outcome() {
    let (cluster, outside, _a) = forgetful().await;
    let start = basic("t");
    let first = outside
        .ask(START_BASIC, &[("Nats-Msg-Id", "s-1")], &start)
        .await;
    assert_eq!(first["outcome"], "accepted", "{first}");
    let question = outside.event("interrupt", "t").await.body["interrupt"].clone();
    assert_eq!(repeated(&outside, START_BASIC, "s-1", &start).await, first);

    let resume = json!({"resume": {"approved": true}, "interrupt_id": question["interrupt_id"]});
    let subject = "superstep.default.resume.t";
    let answered = outside
        .ask(subject, &[("Nats-Msg-Id", "r-1")], &resume)
        .await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside.event("run_completed", "t").await;
    assert_eq!(repeated(&outside, subject, "r-1", &resume).await, answered);
    // A refusal is remembered too, though what it was refused for is over.
    let busy = json!({
        "thread_id": "u",
        "input": {"draft": "d"},
        "multitask_strategy": "reject",
    });
    asked(&outside, "basic", "u", json!({"draft": "d"})).await;
    let refused = outside
        .ask(START_BASIC, &[("Nats-Msg-Id", "s-2")], &busy)
        .await;
    assert_eq!(refused["refusal"]["kind"], "busy", "{refused}");
    let cancelled = outside.ask("superstep.default.cancel.u", &[], "").await;
    assert_eq!(cancelled["outcome"], "accepted", "{cancelled}");
    assert_eq!(repeated(&outside, START_BASIC, "s-2", &busy).await, refused);

    let store = cluster.store().await;
    assert_eq!(store.history("t").await.len(), 3, "one run of one node");
    for (kind, thread, count) in [
        ("run_started", "t", 1),
        ("interrupt", "t", 1),
        ("resume_accepted", "t", 1),
        ("run_completed", "t", 1),
        ("run_started", "u", 1),
        ("start_refused", "u", 1),
    ] {
        assert_eq!(
            outside.heard(kind, thread).len(),
            count,
            "{kind} of {thread}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_drops_a_repeated_start() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let headers = [("Nats-Msg-Id", "s-1")];
    let body = basic("t").to_string().into_bytes();
    let first = outside
        .publish_with(START_BASIC, &headers, body.clone())
        .await;
    let second = outside.publish_with(START_BASIC, &headers, body).await;
    assert!(!first.duplicate && second.duplicate);
    assert_eq!(first.sequence, second.sequence);
    outside.event("interrupt", "t").await;
    assert_eq!(cluster.store().await.history("t").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_start_of_a_waiting_thread_is_refused() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let mut start = basic("t");
    start["multitask_strategy"] = json!("reject");
    let (one, other) = join(
        outside.ask(START_BASIC, &[("Nats-Msg-Id", "s-1")], &start),
        outside.ask(START_BASIC, &[("Nats-Msg-Id", "s-2")], &start),
    )
    .await;
    let (accepted, refused) = match one["outcome"].as_str() {
        Some("accepted") => (one, other),
        _ => (other, one),
    };
    assert_eq!(accepted["outcome"], "accepted", "{accepted}");
    assert_eq!(refused["refusal"]["kind"], "busy", "{refused}");
    assert_eq!(refused["refusal"]["data"]["run_id"], accepted["run_id"]);
    outside.event("interrupt", "t").await;
    let event = outside.event("start_refused", "t").await;
    assert_eq!(event.body["refusal"], refused["refusal"]);
    assert_eq!(event.body["command_id"], refused["command_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_answers_at_once_one_is_accepted() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let ann = cluster.outside().await;
    let bob = cluster.outside().await;
    let store = cluster.store().await;
    let threads: Vec<String> = (0..10).map(|n| format!("t-{n}")).collect();
    let races = threads.iter().map(async |thread| {
        let question = asked(&ann, "basic", thread, json!({"draft": "d"})).await;
        let subject = question["resume_subject"].as_str().unwrap_or_default();
        let id = &question["interrupt_id"];
        let yes = json!({"resume": {"approved": true}, "interrupt_id": id});
        let no = json!({"resume": {"approved": false}, "interrupt_id": id});
        let (from_ann, from_bob) = join(
            ann.ask(subject, &[("Superstep-Sender", "ann")], &yes),
            bob.ask(subject, &[("Superstep-Sender", "bob")], &no),
        )
        .await;
        let (winner, status, accepted, refused) = match from_ann["outcome"].as_str() {
            Some("accepted") => ("ann", "approved", from_ann, from_bob),
            _ => ("bob", "rejected", from_bob, from_ann),
        };
        assert_eq!(accepted["outcome"], "accepted", "{accepted}");
        let refusal = &refused["refusal"];
        assert_eq!(refusal["kind"], "already_answered", "{refused}");
        assert_eq!(refusal["data"]["interrupt_id"], *id);
        assert_eq!(refusal["data"]["answered_by"], winner);
        assert_eq!(refusal["data"]["command_id"], accepted["command_id"]);
        assert_eq!(refusal["data"]["same_value"], false);

        ann.event("run_completed", thread).await;
        let told = ann.event("resume_refused", thread).await;
        assert_eq!(told.body["refusal"], *refusal);
        let values = store.rests(thread, ThreadStatus::Idle).await;
        assert_eq!(values["status"], status, "the accepted answer counts");
        assert_eq!(store.history(thread).await.len(), 3);
    });
    join_all(races).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_click_answers_one_question() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let first = asked(&outside, "multi", "t", json!({"draft": "d"})).await;
    assert_eq!(first["value"]["message"], "Review draft");
    // Two plain answers, as a page without superstep's ids would send them.
    let click = json!({"resume": {"edited_draft": "e"}});
    let (one, other) = join(
        outside.ask("superstep.default.resume.t", &[], &click),
        outside.ask("superstep.default.resume.t", &[], &click),
    )
    .await;
    let outcomes = [&one, &other];
    let accepted = outcomes
        .iter()
        .filter(|o| o["outcome"] == "accepted")
        .count();
    assert_eq!(accepted, 1, "{one} {other}");

    let second = outside.events("interrupt", "t", 2).await[1].body["interrupt"].clone();
    assert_eq!(
        second["value"],
        json!({"message": "Final approval", "draft": "e"})
    );
    let store = cluster.store().await;
    store.rests("t", ThreadStatus::Interrupted).await;
    let answer = json!({"resume": {"approved_draft": "f"}, "interrupt_id": second["interrupt_id"]});
    let answered = outside.ask("superstep.default.resume.t", &[], answer).await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(values["final_draft"], "f");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_its_start_waits_for_it() {
    // The id of a question is a function of the start's id, so another cluster tells it.
    let start = [("Nats-Msg-Id", "s-1")];
    let oracle = Cluster::start();
    let _o = oracle.worker("o").await;
    let outside = oracle.outside().await;
    outside.ask(START_BASIC, &start, basic("t")).await;
    let question = outside.event("interrupt", "t").await.body["interrupt"].clone();

    let cluster = Cluster::start();
    let worker = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let answer = json!({"resume": {"approved": true}, "interrupt_id": question["interrupt_id"]});
    let answering = outside.ask("superstep.default.resume.t", &[], answer);
    let starting = async {
        // The worker has looked at the answer and put it back before the start is sent.
        eventually_async("the answer is held back", SOON, async || {
            let mut stream = outside
                .jetstream()
                .get_stream("SUPERSTEP_default_COMMANDS")
                .await
                .ok()?;
            let waiting = stream.info().await.ok()?.state.messages == 1;
            let consumer: Result<async_nats::jetstream::consumer::PullConsumer, _> =
                stream.get_consumer("workers").await;
            let info = consumer.ok()?.info().await.ok()?.clone();
            (waiting && info.num_redelivered > 0).then_some(())
        })
        .await;
        outside.ask(START_BASIC, &start, basic("t")).await
    };
    let (answered, started) = join(answering, starting).await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    assert_eq!(
        answered["outcome"],
        "accepted",
        "{answered}: {}",
        worker.tail()
    );
    outside.event("run_completed", "t").await;
    assert_eq!(outside.heard("resume_refused", "t").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_answer_before_its_question_is_refused() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let outside = cluster.outside().await;
    let (answered, started) = join(
        outside.ask(
            "superstep.default.resume.t",
            &[],
            json!({"resume": {"approved": true}}),
        ),
        outside.ask(START_BASIC, &[], basic("t")),
    )
    .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    let kind = answered["refusal"]["kind"].as_str().unwrap_or_default();
    assert!(
        ["stale", "not_waiting"].contains(&kind),
        "nobody can have meant a question that was not asked: {answered}"
    );
    outside.event("interrupt", "t").await;
    let store = cluster.store().await;
    store.rests("t", ThreadStatus::Interrupted).await;
}
