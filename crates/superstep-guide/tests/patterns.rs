//! Every pattern through the facade: approved, rejected and edited, in memory and on SQLite.
//!
//! On SQLite each step is a process of its own as far as the store can tell: the app is opened
//! anew. Answers that a pattern does not take are tried too.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::Path;

use serde_json::{Value, json};
use superstep::{Embedded, RunOutput, RunStatus};
use superstep_guide::{graphs_with, outbox::Outbox, writer::Writer};

/// A thread of a pattern, on one of the stores.
struct Walk {
    folder: tempfile::TempDir,
    memory: Option<Embedded>,
    graph: &'static str,
}

impl Walk {
    async fn begin(graph: &'static str, on_sqlite: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = None;
        if !on_sqlite {
            let app = Embedded::memory().graphs(graphs(folder.path()));
            memory = Some(app.build().await.unwrap());
        }
        Self {
            folder,
            memory,
            graph,
        }
    }

    async fn thread(&self) -> superstep::Thread {
        let app = if let Some(app) = &self.memory {
            app.clone()
        } else {
            let app = Embedded::sqlite(self.folder.path().join("data"));
            let app = app.graphs(graphs(self.folder.path()));
            app.build().await.unwrap()
        };
        app.thread("1").graph(self.graph)
    }

    async fn start(&self, input: &Value) -> RunOutput {
        self.thread().await.invoke(input.clone()).await.unwrap()
    }

    /// Answers the open question after looking that it is the expected one.
    async fn answer(&self, question: &Value, answer: &Value) -> RunOutput {
        let thread = self.thread().await;
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!(state.next.len(), 1, "one node waits");
        assert_eq!(state.interrupts.len(), 1);
        assert_eq!(state.interrupts[0].value, *question);
        thread
            .answer(&state.interrupts[0].id, answer)
            .await
            .unwrap()
    }

    fn mails(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("outbox.jsonl"));
        let lines = text.unwrap_or_default();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn graphs(folder: &Path) -> Vec<superstep::RunnableGraph> {
    graphs_with(&Writer::local(), &Outbox::at(folder.join("outbox.jsonl")))
}

/// Runs a pattern with an input, the questions it should ask, and an answer to each, on both
/// stores; what it comes to must hold `expected`. Gives the walks.
async fn walk(
    graph: &'static str,
    input: Value,
    dialogue: &[(Value, Value)],
    expected: Value,
) -> Vec<Walk> {
    let mut walks = Vec::new();
    for on_sqlite in [false, true] {
        let walk = Walk::begin(graph, on_sqlite).await;
        let mut run = walk.start(&input).await;
        for (question, answer) in dialogue {
            assert!(run.is_interrupted(), "{graph} on {input}: {run:?}");
            run = walk.answer(question, answer).await;
        }
        assert!(!run.is_interrupted(), "{graph}: {run:?}");
        assert_eq!((run.status, &run.error), (RunStatus::Success, &None));
        for (channel, value) in expected.as_object().unwrap() {
            assert_eq!(run.values.get(channel), Some(value), "{graph}: `{channel}`");
        }
        let state = walk.thread().await.state().await.unwrap().unwrap();
        assert!(state.next.is_empty() && state.interrupts.is_empty());
        walks.push(walk);
    }
    walks
}

/// The draft of the local writer, as the state shows it.
fn local_draft(task: &str) -> String {
    format!("[Written by the local writer, as no model is configured. The task was: {task}]")
}

#[tokio::test]
async fn basic_is_approved_or_rejected() {
    let question = json!({"message": "Review this draft", "draft": "Dear Ada"});
    for (approved, status) in [(true, "approved"), (false, "rejected")] {
        let dialogue = [(question.clone(), json!({"approved": approved}))];
        let expected = json!({"draft": "Dear Ada", "status": status});
        walk("basic", json!({"draft": "Dear Ada"}), &dialogue, expected).await;
    }
}

#[tokio::test]
async fn an_email_is_sent_once_as_it_was_approved() {
    let draft = local_draft("Write email about: tea");
    let question = json!({"message": "Approve email?", "draft": draft});
    let rows = [
        (json!({}), draft.as_str()),
        (json!({"approved": true}), &draft),
        (json!({"approved": true, "edited_draft": null}), &draft),
        (json!({"edited_draft": ""}), &draft),
        (json!({"edited_draft": "More tea."}), "More tea."),
        (
            json!({"approved": true, "edited_draft": "More tea."}),
            "More tea.",
        ),
    ];
    for (answer, sent) in rows {
        let dialogue = [(question.clone(), answer)];
        let expected = json!({"status": "sent", "draft": sent});
        for walk in walk("email", json!({"topic": "tea"}), &dialogue, expected).await {
            let mails = walk.mails();
            assert_eq!(mails.len(), 1, "{mails:?}");
            assert_eq!(mails[0]["body"], sent);
            assert_eq!(mails[0]["thread_id"], "1");
            assert_eq!(mails[0]["idempotency_key"].as_str().unwrap().len(), 32);
        }
    }
}

#[tokio::test]
async fn a_rejected_email_is_not_sent() {
    let draft = local_draft("Write email about: tea");
    let question = json!({"message": "Approve email?", "draft": draft});
    let dialogue = [(
        question,
        json!({"approved": false, "edited_draft": "no matter"}),
    )];
    let expected = json!({"status": "rejected", "draft": draft});
    for walk in walk("email", json!({"topic": "tea"}), &dialogue, expected).await {
        assert!(walk.mails().is_empty());
    }
}

#[tokio::test]
async fn tools_run_only_when_they_are_approved() {
    let call = |id: &str, name: &str, args: Value| json!({"id": id, "name": name, "args": args});
    let message = json!({"role": "assistant", "content": "", "type": "ai", "tool_calls": [
        call("1", "add", json!({"a": 2, "b": 0.5})),
        call("2", "count_words", json!({"text": "one two three"})),
        call("3", "format_disk", json!({})),
    ]});
    let question = json!({
        "message": "Approve these tool calls?",
        "tools": ["add", "count_words", "format_disk"],
    });
    let result =
        |id: &str, content: &str| json!({"role": "tool", "content": content, "tool_call_id": id});
    let unknown = "there is no tool format_disk; there are add and count_words";
    let approved = json!({"messages": [
        message, result("1", "2.5"), result("2", "3"), result("3", unknown),
    ]});
    let denied = json!({"messages": [
        message, {"role": "assistant", "content": "Tool use denied"},
    ]});
    let input = json!({"messages": [message]});
    for (answer, expected) in [(true, approved), (false, denied)] {
        let dialogue = [(question.clone(), json!({"approved": answer}))];
        walk("tools", input.clone(), &dialogue, expected).await;
    }
}

#[tokio::test]
async fn without_tool_calls_nobody_is_asked() {
    for messages in [json!([]), json!([{"role": "user", "content": "hello"}])] {
        let input = json!({"messages": messages});
        walk("tools", input.clone(), &[], input).await;
    }
}

#[tokio::test]
async fn a_report_is_kept_or_edited() {
    let rows = [
        (json!("seven sales"), "seven sales"),
        (json!({"sales": 7}), "{\"sales\":7}"),
    ];
    for (data, shown) in rows {
        let report = local_draft(&format!("Write a short report on this data: {shown}"));
        let question = json!({"message": "Edit report if needed", "report": report});
        for (answer, expected) in [
            (json!({}), report.as_str()),
            (json!({"edited_report": "Seven."}), "Seven."),
        ] {
            let dialogue = [(question.clone(), answer)];
            let expected = json!({"report": expected, "data": data});
            walk("report", json!({"data": data}), &dialogue, expected).await;
        }
    }
}

#[tokio::test]
async fn two_questions_follow_each_other() {
    let dialogue = [
        (
            json!({"message": "Review draft", "draft": "a"}),
            json!({"edited_draft": "b"}),
        ),
        (
            json!({"message": "Final approval", "draft": "b"}),
            json!({"approved_draft": "c"}),
        ),
    ];
    let expected = json!({"draft": "a", "final_draft": "c"});
    walk("multi", json!({"draft": "a"}), &dialogue, expected).await;
}

#[tokio::test]
async fn only_low_confidence_asks() {
    let question = json!({"message": "Low confidence, review?"});
    for (proceed, status) in [(true, "approved"), (false, "rejected")] {
        let dialogue = [(question.clone(), json!({"proceed": proceed}))];
        let expected = json!({"status": status});
        walk(
            "conditional",
            json!({"confidence": 0.79}),
            &dialogue,
            expected,
        )
        .await;
    }
    for confidence in [0.8, 1.0] {
        let expected = json!({"status": "approved"});
        walk(
            "conditional",
            json!({"confidence": confidence}),
            &[],
            expected,
        )
        .await;
    }
}

#[tokio::test]
async fn a_fan_out_collects_in_order() {
    let numbers: Vec<u64> = (0..200).collect();
    let expected = json!({"results": numbers, "total": 19_900});
    walk(
        "fanout",
        json!({"count": 200, "sleep_ms": 1}),
        &[],
        expected,
    )
    .await;
    walk("fanout", json!({"count": 0}), &[], json!({"results": []})).await;
}

#[tokio::test]
async fn answers_of_another_form_fail_with_a_reason() {
    let rows = [
        (
            "basic",
            json!({"draft": "a"}),
            json!({"approved": "yes"}),
            "expected a boolean",
        ),
        (
            "basic",
            json!({"draft": "a"}),
            json!({}),
            "missing field `approved`",
        ),
        (
            "basic",
            json!({"draft": "a"}),
            json!(true),
            "expected struct Approval",
        ),
        (
            "email",
            json!({"topic": "a"}),
            json!({"aproved": false}),
            "unknown field `aproved`",
        ),
        (
            "multi",
            json!({"draft": "a"}),
            json!({"edited_draft": 7}),
            "expected a string",
        ),
        (
            "conditional",
            json!({"confidence": 0}),
            json!({"proceed": 1}),
            "expected a boolean",
        ),
    ];
    for (graph, input, answer, words) in rows {
        let walk = Walk::begin(graph, false).await;
        let asked = walk.start(&input).await;
        let failed = walk.answer(&asked.interrupts[0].value, &answer).await;
        let error = failed.error.unwrap();
        assert_eq!(error.kind, "InvalidAnswer", "{graph}: {error:?}");
        assert!(error.message.contains(words), "{graph}: {error:?}");
        assert!(walk.mails().is_empty());
    }
}

#[tokio::test]
async fn inputs_that_do_not_fit_are_refused() {
    for (graph, input) in [
        ("basic", json!({})),
        ("basic", json!({"draft": 7})),
        ("email", json!({"topics": "tea"})),
        ("conditional", json!({"confidence": "high"})),
        ("fanout", json!({"count": -1})),
        ("tools", json!({"messages": [{"tool_calls": [{}]}]})),
    ] {
        let walk = Walk::begin(graph, false).await;
        let error = walk.thread().await.invoke(input.clone()).await.unwrap_err();
        let kind = error.refusal().map(superstep::Refusal::kind);
        assert_eq!(kind, Some("invalid_input"), "{graph} on {input}");
    }
}

#[test]
fn every_graph_has_a_name_and_says_what_it_is_for() {
    let graphs = superstep_guide::graphs();
    let names: Vec<&str> = graphs
        .iter()
        .map(|graph| graph.id().name.as_str())
        .collect();
    let expected = [
        "basic",
        "conditional",
        "email",
        "fanout",
        "multi",
        "report",
        "tools",
    ];
    assert_eq!(names, expected);
    assert!(graphs.iter().all(|graph| !graph.description().is_empty()));
    let warned: Vec<&str> = graphs
        .iter()
        .filter(|graph| !graph.topology().warnings().is_empty())
        .map(|graph| graph.id().name.as_str())
        .collect();
    assert_eq!(warned, ["fanout"], "only packets reach its worker");
}

#[tokio::test]
async fn a_mail_that_cannot_be_written_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::at(folder.path().join("no/such/folder.jsonl"));
    let graph = superstep_guide::email::graph(&Writer::local(), &outbox);
    let app = Embedded::memory().graph(graph).build().await.unwrap();
    let thread = app.thread("1");
    let _ = thread.invoke(json!({"topic": "tea"})).await.unwrap();
    let failed = thread.resume(json!({})).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!(error.kind, "OutboxFailed");
    assert!(error.message.contains("SUPERSTEP_OUTBOX"), "{error:?}");
    // Mended, the thread goes on where it failed: nobody is asked again.
    std::fs::create_dir_all(folder.path().join("no/such")).unwrap();
    let done = thread.retry().await.unwrap();
    assert_eq!(done.values["status"], "sent");
}
