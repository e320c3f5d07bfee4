//! Every pattern of the guide on the cluster: each path a person can take through it.
//!
//! Two workers share the threads, so the one that asks is rarely known to be the one that goes on.
//! What the patterns mean is tested in the guide's own crate; here it is that worker processes,
//! the wire and the store come to the same.
//!
//! The rule it keeps: inputs, questions and answers are written as JSON, as a script would.

use futures_util::future::join_all;
use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_worker::StateView;

use crate::cluster::{Cluster, Store};
use crate::outside::Outside;

/// One way through a pattern.
struct Path {
    thread: &'static str,
    graph: &'static str,
    input: Value,
    /// What is asked, as far as it is known before, and what is answered.
    dialogue: Vec<(Value, Value)>,
    /// What the state holds in the end, as far as it matters.
    end: Value,
    mails: Vec<&'static str>,
}

impl Path {
    fn new(thread: &'static str, graph: &'static str, input: Value, end: Value) -> Self {
        Self {
            thread,
            graph,
            input,
            dialogue: Vec::new(),
            end,
            mails: Vec::new(),
        }
    }

    fn asks(mut self, question: Value, answer: Value) -> Self {
        self.dialogue.push((question, answer));
        self
    }

    fn mails(mut self, body: &'static str) -> Self {
        self.mails.push(body);
        self
    }
}

fn paths() -> Vec<Path> {
    let draft = json!({"draft": "Dear Ada"});
    let review = json!({"message": "Review this draft", "draft": "Dear Ada"});
    let topic = json!({"topic": "a delay"});
    let approve = json!({"message": "Approve email?"});
    let call = json!({"id": "call-1", "name": "add", "args": {"a": 2, "b": 3}});
    let calling = json!({"messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]});
    let tools = json!({"message": "Approve these tool calls?", "tools": ["add"]});
    let data = json!({"data": {"sales": 7}});
    let edit = json!({"message": "Edit report if needed"});
    let low = json!({"message": "Low confidence, review?"});
    let local = "[Written by the local writer, as no model is configured. The task was: ";
    let written = |task: &str| format!("{local}{task}]");
    let mail: &'static str = written("Write email about: a delay").leak();
    let report = written("Write a short report on this data: {\"sales\":7}");
    vec![
        Path::new(
            "basic-yes",
            "basic",
            draft.clone(),
            json!({"status": "approved"}),
        )
        .asks(review.clone(), json!({"approved": true})),
        Path::new(
            "basic-no",
            "basic",
            draft.clone(),
            json!({"status": "rejected"}),
        )
        .asks(review, json!({"approved": false})),
        Path::new(
            "email-yes",
            "email",
            topic.clone(),
            json!({"status": "sent", "draft": mail}),
        )
        .asks(approve.clone(), json!({"approved": true}))
        .mails(mail),
        Path::new(
            "email-unsaid",
            "email",
            topic.clone(),
            json!({"status": "sent"}),
        )
        .asks(approve.clone(), json!({}))
        .mails(mail),
        Path::new(
            "email-edit",
            "email",
            topic.clone(),
            json!({"status": "sent", "draft": "No."}),
        )
        .asks(approve.clone(), json!({"edited_draft": "No."}))
        .mails("No."),
        Path::new(
            "email-no",
            "email",
            topic,
            json!({"status": "rejected", "draft": mail}),
        )
        .asks(approve, json!({"approved": false})),
        Path::new(
            "tools-yes",
            "tools",
            calling.clone(),
            json!({"messages": [{}, {"content": "5", "role": "tool", "tool_call_id": "call-1"}]}),
        )
        .asks(tools.clone(), json!({"approved": true})),
        Path::new(
            "tools-no",
            "tools",
            calling,
            json!({"messages": [{}, {"content": "Tool use denied"}]}),
        )
        .asks(tools, json!({"approved": false})),
        Path::new(
            "report-edit",
            "report",
            data.clone(),
            json!({"report": "Seven."}),
        )
        .asks(edit.clone(), json!({"edited_report": "Seven."})),
        Path::new("report-keep", "report", data, json!({"report": report})).asks(edit, json!({})),
        Path::new(
            "multi",
            "multi",
            draft,
            json!({"final_draft": "Hello, Ada"}),
        )
        .asks(
            json!({"message": "Review draft", "draft": "Dear Ada"}),
            json!({"edited_draft": "Hi Ada"}),
        )
        .asks(
            json!({"message": "Final approval", "draft": "Hi Ada"}),
            json!({"approved_draft": "Hello, Ada"}),
        ),
        Path::new(
            "conditional-sure",
            "conditional",
            json!({"confidence": 0.9}),
            json!({"status": "approved"}),
        ),
        Path::new(
            "conditional-yes",
            "conditional",
            json!({"confidence": 0.5}),
            json!({"status": "approved"}),
        )
        .asks(low.clone(), json!({"proceed": true})),
        Path::new(
            "conditional-no",
            "conditional",
            json!({"confidence": 0.5}),
            json!({"status": "rejected"}),
        )
        .asks(low, json!({"proceed": false})),
        Path::new(
            "fanout",
            "fanout",
            json!({"count": 12}),
            json!({"results": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "total": 66}),
        ),
    ]
}

/// Whether `whole` has everything that `part` has: objects by member, lists by place.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| holds(w, p))
        }
        (whole, part) => whole == part,
    }
}

#[track_caller]
fn assert_holds(what: &str, whole: &Value, part: &Value) {
    assert!(holds(whole, part), "{what}: {whole} does not hold {part}");
}

async fn walk(cluster: &Cluster, outside: &Outside, store: &Store, path: &Path) {
    let thread = path.thread;
    let started = outside
        .ask(
            &format!("superstep.default.start.{}", path.graph),
            &[],
            json!({"thread_id": thread, "input": path.input}),
        )
        .await;
    assert_eq!(started["outcome"], "accepted", "{started}");
    for (index, (question, answer)) in path.dialogue.iter().enumerate() {
        let asked = outside.events("interrupt", thread, index + 1).await;
        let asked = &asked[index].body["interrupt"];
        assert_holds(thread, &asked["value"], question);

        // The seventh pattern: what a thread waits for can be seen in its state.
        store.rests(thread, ThreadStatus::Interrupted).await;
        let view = StateView::of(&store.state(thread).await, None);
        assert_eq!(view.next.len(), 1, "{thread} waits in one node");
        assert_eq!(asked["node"], view.next[0].as_str());
        assert_eq!(view.interrupts.len(), 1, "{thread} asks one thing");
        assert_eq!(view.interrupts[0].value, asked["value"]);

        let resumed = outside
            .ask(
                &format!("superstep.default.resume.{thread}"),
                &[("Superstep-Sender", "ann")],
                json!({"resume": answer, "interrupt_id": asked["interrupt_id"]}),
            )
            .await;
        assert_eq!(resumed["outcome"], "accepted", "{resumed}");
    }
    let completed = outside.event("run_completed", thread).await;
    assert_holds(thread, &completed.body["values"], &path.end);

    let values = store.rests(thread, ThreadStatus::Idle).await;
    assert_holds(thread, &Value::Object(values), &path.end);
    store.history(thread).await;
    let mails = cluster.outbox(thread);
    let bodies: Vec<&str> = mails
        .iter()
        .filter_map(|mail| mail["body"].as_str())
        .collect();
    assert_eq!(bodies, path.mails, "the mails of {thread}");
    assert_eq!(
        outside.heard("interrupt", thread).len(),
        path.dialogue.len(),
        "{thread} asked no more than was expected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pattern_ends_as_its_person_decides() {
    let cluster = Cluster::start();
    let _a = cluster.worker("a").await;
    let _b = cluster.worker("b").await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let paths = paths();
    join_all(
        paths
            .iter()
            .map(|path| walk(&cluster, &outside, &store, path)),
    )
    .await;
}
