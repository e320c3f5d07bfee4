//! Commands that cannot be accepted, a row each: what is said, and that nothing is changed.
//!
//! Every row is published as bytes. Its sender is told by the reply, everybody by an event, and
//! both name the same kind.
//!
//! The rule it keeps: a refusal names its reason and its data, and the threads that were there
//! are as they were and can still be answered.

use futures_util::future::join_all;
use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;

use crate::cluster::Cluster;
use crate::outside::Outside;

/// A command and why it is refused.
struct Row {
    /// The end of its subject.
    subject: &'static str,
    body: Vec<u8>,
    /// The thread that it concerns; empty where the command did not get as far as naming one.
    thread: &'static str,
    kind: &'static str,
    /// What the message says.
    says: &'static str,
    data: Value,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "rows give texts and JSON values as they stand"
)]
fn row(
    subject: &'static str,
    body: impl ToString,
    (thread, kind): (&'static str, &'static str),
    says: &'static str,
    data: Value,
) -> Row {
    Row {
        subject,
        body: body.to_string().into_bytes(),
        thread,
        kind,
        says,
        data,
    }
}

/// `waits` asks something, `ended` has ended, `runs` is in a node, `pair` asks two things.
fn rows() -> Vec<Row> {
    let yes = json!({"resume": {"approved": true}});
    let nobody = "00000000000000000000000000000000";
    let named = json!({"resume": 1, "interrupt_id": nobody});
    let null = Value::Null;
    let large = json!({"input": {"draft": "x".repeat(1_000_000)}});
    let waits = "waits";
    let mut rows = vec![
        // Resumes.
        row(
            "resume.nobody",
            &yes,
            ("nobody", "unknown_thread"),
            "does not exist",
            null.clone(),
        ),
        row(
            "resume.ended",
            &yes,
            ("ended", "not_waiting"),
            "waits for no answer",
            json!({"status": "idle"}),
        ),
        row(
            "resume.runs",
            &yes,
            ("runs", "not_waiting"),
            "waits for no answer",
            json!({"status": "busy"}),
        ),
        row(
            "resume.waits",
            &named,
            (waits, "unknown_interrupt"),
            nobody,
            json!({"interrupt_id": nobody}),
        ),
        row(
            "resume.pair",
            json!({"resume": "yes"}),
            ("pair", "ambiguous"),
            "name the one",
            null.clone(),
        ),
        row(
            "resume.waits",
            r#"{"resume": {"approved": tr"#,
            (waits, "malformed"),
            "line 1",
            json!({"line": 1}),
        ),
        row(
            "resume.waits",
            r#"{"resme": true}"#,
            (waits, "malformed"),
            "resme",
            null.clone(),
        ),
        row(
            "resume.waits",
            r#"{"resume": 1, "more": 2}"#,
            (waits, "malformed"),
            "more",
            null.clone(),
        ),
        row(
            "resume.waits",
            r#"{"interrupt_id": "x"}"#,
            (waits, "malformed"),
            "resume",
            null.clone(),
        ),
        row(
            "resume.waits",
            r#"{"resume": 1, "interrupt_id": 7}"#,
            (waits, "malformed"),
            "interrupt_id",
            json!({"field": "interrupt_id"}),
        ),
        row(
            "resume.waits",
            "[1]",
            (waits, "malformed"),
            "object",
            null.clone(),
        ),
        row("resume.waits", "", (waits, "malformed"), "", null.clone()),
        row(
            "resume.waits",
            r#"{"resume": 1, "key": "k"}"#,
            (waits, "unsupported"),
            "by its id",
            null.clone(),
        ),
        // Starts.
        row(
            "start.no-such-graph",
            json!({"thread_id": "n-1", "input": {}}),
            ("n-1", "unknown_graph"),
            "basic@1",
            json!({"graph": "no-such-graph"}),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-2", "input": {"draft": 5}}),
            ("n-2", "invalid_input"),
            "/draft",
            null.clone(),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-3", "input": {}}),
            ("n-3", "invalid_input"),
            "draft",
            null.clone(),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-4", "input": "text"}),
            ("n-4", "invalid_input"),
            "object",
            null.clone(),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-5"}),
            ("n-5", "invalid_input"),
            "needs an input",
            null.clone(),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-6", "input": {"draft": "d"}, "config": {"recursion_limit": 1_000_000}}),
            ("n-6", "invalid_input"),
            "recursion_limit",
            null.clone(),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-7", "input": {"draft": "d"}, "graph_version": "9"}),
            ("n-7", "unknown_graph"),
            "basic@9",
            json!({"graph": "basic@9"}),
        ),
        row(
            "start.basic",
            json!({"thread_id": "n-8", "input": {"draft": "d"}, "multitask_strategy": "queue"}),
            ("", "malformed"),
            "`enqueue`, `reject`, `interrupt` or `rollback`",
            json!({"field": "multitask_strategy"}),
        ),
        row(
            "start.basic",
            json!({"thread_id": waits, "input": {"draft": "d"}, "multitask_strategy": "reject"}),
            (waits, "busy"),
            "not over",
            json!({"status": "interrupted"}),
        ),
        row(
            "start.email",
            json!({"thread_id": waits, "input": {"topic": "t"}}),
            (waits, "wrong_graph"),
            "basic",
            json!({"graph": "basic"}),
        ),
        row(
            "start.basic",
            "{\"thread_id\": ",
            ("", "malformed"),
            "line 1",
            null.clone(),
        ),
        row(
            "start.basic",
            large,
            ("", "too_large"),
            "983040",
            json!({"bytes_max": 983_040}),
        ),
        // The others.
        row(
            "cancel.ended",
            "",
            ("ended", "nothing_to_cancel"),
            "nothing to cancel",
            json!({"status": "idle"}),
        ),
        row(
            "cancel.nobody",
            "{}",
            ("nobody", "unknown_thread"),
            "does not exist",
            null.clone(),
        ),
        row(
            "cancel.waits",
            r#"{"reasn": "x"}"#,
            (waits, "malformed"),
            "reasn",
            null.clone(),
        ),
        row(
            "retry.ended",
            "",
            ("ended", "nothing_to_retry"),
            "nothing to retry",
            json!({"status": "idle"}),
        ),
        row(
            "retry.runs",
            "",
            ("runs", "busy"),
            "not over",
            json!({"status": "busy"}),
        ),
        row(
            "update.runs",
            json!({"values": {"by": ["x"]}}),
            ("runs", "busy"),
            "not over",
            json!({"status": "busy"}),
        ),
        row(
            "update.nobody",
            json!({"values": {}}),
            ("nobody", "unknown_thread"),
            "does not exist",
            null.clone(),
        ),
    ];
    rows.extend(rows_of_changes());
    let no_text = row("resume.waits", "", (waits, "malformed"), "unicode", null);
    rows.push(Row {
        body: b"{\"resume\": \"\xff\xfe\"}".to_vec(),
        ..no_text
    });
    rows
}

/// Commands that go on from a checkpoint, change what waits, or stop where they say.
fn rows_of_changes() -> Vec<Row> {
    let field = |name: &str| json!({"field": name});
    let waits = "waits";
    let elsewhere = "01957f2e-6a3b-7c1d-8e4f-0123456789ab";
    vec![
        row(
            "resume.waits",
            "{}",
            (waits, "invalid_input"),
            "the command is empty",
            Value::Null,
        ),
        row(
            "resume.waits",
            r#"{"goto": {"node": "ask"}}"#,
            (waits, "malformed"),
            "a node's name",
            field("goto"),
        ),
        row(
            "resume.waits",
            r#"{"goto": ["ask", 7]}"#,
            (waits, "malformed"),
            "a node's name",
            field("goto"),
        ),
        row(
            "resume.waits",
            r#"{"resume": 1, "interrupt_before": "ask"}"#,
            (waits, "malformed"),
            "a list of names",
            field("interrupt_before"),
        ),
        row(
            "resume.waits",
            r#"{"resume": 1, "config": {"configurable": {"a": 1}}}"#,
            (waits, "malformed"),
            "belongs to a start",
            field("config.configurable"),
        ),
        row(
            "resume.waits",
            json!({"resume": 1, "config": {"recursion_limit": 1_000_000}}),
            (waits, "invalid_input"),
            "recursion_limit",
            Value::Null,
        ),
        row(
            "resume.ended",
            json!({"checkpoint_id": elsewhere}),
            ("ended", "invalid_input"),
            elsewhere,
            Value::Null,
        ),
        row(
            "resume.runs",
            r#"{"goto": "after"}"#,
            ("runs", "busy"),
            "not over",
            json!({"status": "busy"}),
        ),
        row(
            "resume.nobody",
            r#"{"goto": "after", "graph": "gate"}"#,
            ("nobody", "unknown_thread"),
            "does not exist",
            Value::Null,
        ),
        row(
            "start.steps",
            json!({"thread_id": "ended", "checkpoint_id": elsewhere}),
            ("ended", "invalid_input"),
            "take one from its history",
            Value::Null,
        ),
        row(
            "start.steps",
            json!({"thread_id": "n-9", "checkpoint_id": elsewhere}),
            ("n-9", "unknown_thread"),
            "does not exist",
            Value::Null,
        ),
        row(
            "start.steps",
            json!({"thread_id": "n-10", "input": {"count": 1}, "durability": "never"}),
            ("", "malformed"),
            "`exit`",
            field("durability"),
        ),
        row(
            "update.ended",
            json!({"values": {}, "graph": "gate"}),
            ("ended", "wrong_graph"),
            "steps",
            json!({"graph": "steps"}),
        ),
        row(
            "update.nobody",
            json!({"values": {}, "graph": "nothing"}),
            ("nobody", "unknown_graph"),
            "nothing",
            json!({"graph": "nothing"}),
        ),
        row(
            "update.ended",
            r#"{"values": {}, "updates": [{"values": {}}]}"#,
            ("ended", "malformed"),
            "either one update or a list",
            field("updates"),
        ),
        row(
            "retry.ended",
            r#"{"config": {"recursion_limit": 0}}"#,
            ("ended", "malformed"),
            "at least 1",
            field("config.recursion_limit"),
        ),
    ]
}

async fn check(outside: &Outside, row: &Row) {
    let shown = String::from_utf8_lossy(&row.body[..row.body.len().min(80)]).into_owned();
    let what = format!("{} {shown}", row.subject);
    let subject = format!("superstep.default.{}", row.subject);
    let reply = outside.ask_bytes(&subject, &[], row.body.clone()).await;
    assert_eq!(reply["outcome"], "refused", "{what}: {reply}");
    let refusal = &reply["refusal"];
    assert_eq!(refusal["kind"], row.kind, "{what}: {reply}");
    let message = refusal["message"].as_str().unwrap_or_default();
    assert!(message.contains(row.says), "{what}: {message}");
    for (key, value) in row.data.as_object().into_iter().flatten() {
        assert_eq!(refusal["data"][key], *value, "{what}: {reply}");
    }

    let thread = reply["thread_id"].as_str().unwrap_or_default();
    if !row.thread.is_empty() {
        assert_eq!(thread, row.thread, "{what}");
    }
    let (command, _) = row.subject.split_once('.').unwrap_or_default();
    let kind = format!("{command}_refused");
    let told = superstep_tests::eventually_async(&what, crate::SOON, async || {
        let mut heard = outside.heard(&kind, thread);
        heard.retain(|told| told.body["command_id"] == reply["command_id"]);
        heard.pop()
    })
    .await;
    assert_eq!(told.body["refusal"], *refusal, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_accepted_changes_nothing() {
    let cluster = Cluster::start();
    let _a = cluster.worker_with("a", json!({"hold_back_ms": 300})).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let started = [
        ("basic", "waits", json!({"draft": "d"})),
        ("steps", "ended", json!({"count": 1})),
        ("gate", "runs", json!({"by": []})),
        ("pair", "pair", json!({"said": []})),
    ];
    for (graph, thread, input) in started {
        let start = json!({"thread_id": thread, "input": input});
        outside
            .publish(&format!("superstep.default.start.{graph}"), start)
            .await;
    }
    store.rests("waits", ThreadStatus::Interrupted).await;
    store.rests("pair", ThreadStatus::Interrupted).await;
    store.rests("ended", ThreadStatus::Idle).await;
    cluster.noted("hold runs", 1).await;
    let heads = async || {
        let mut heads = Vec::new();
        for thread in ["waits", "ended", "runs", "pair"] {
            heads.push(store.state(thread).await.head);
        }
        heads
    };
    let before = heads().await;

    let rows = rows();
    join_all(rows.iter().map(|row| check(&outside, row))).await;

    assert_eq!(heads().await, before, "no refusal leaves a record");
    for row in &rows {
        if !row.thread.is_empty() && !["waits", "ended", "runs", "pair"].contains(&row.thread) {
            assert!(
                !store.is_there(row.thread).await,
                "{} was not made",
                row.thread
            );
        }
    }
    let yes = json!({"resume": {"approved": true}});
    let answered = outside
        .ask("superstep.default.resume.waits", &[], yes)
        .await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside.event("run_completed", "waits").await;
    cluster.write("open.runs", "");
    outside.event("run_completed", "runs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_questions_are_answered_by_their_ids() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let start = json!({"thread_id": "t", "input": {"said": []}});
    outside.publish("superstep.default.start.pair", start).await;
    let asked = outside.events("interrupt", "t", 2).await;
    let answers: Value = asked
        .iter()
        .map(|told| {
            let question = &told.body["interrupt"];
            let id = question["interrupt_id"].as_str().unwrap_or_default();
            (id.to_owned(), question["value"]["from"].clone())
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let answered = outside
        .ask(
            "superstep.default.resume.t",
            &[],
            json!({"resume": answers}),
        )
        .await;
    assert_eq!(answered["outcome"], "accepted", "{answered}");
    outside.event("run_completed", "t").await;
    let values = store.rests("t", ThreadStatus::Idle).await;
    assert_eq!(
        values["said"],
        json!(["left", "right"]),
        "in the order of the tasks"
    );
    store.history("t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_may_come_before_its_graph() {
    let cluster = Cluster::start();
    let first = cluster.worker("a").await;
    let outside = cluster.outside().await;
    // The streams are there, a worker is not: the command waits in its stream.
    drop(first);
    let start = json!({"thread_id": "t", "input": {"draft": "d"}});
    outside
        .publish("superstep.default.start.basic", start)
        .await;
    let _b = cluster.worker("b").await;
    outside.event("interrupt", "t").await;
}
