//! A hundred threads of five graphs, and the person who answers them.
//!
//! The person is a plain NATS client: it starts the threads, reads the interrupt events from their
//! stream and publishes answers, again until somebody replies. What it hears twice it answers
//! once.
//!
//! The rule it keeps: it knows what each thread must come to, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, Message};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::questions;
use tokio::task::JoinHandle;

use crate::SOON;
use crate::cluster::{Store, lines};

/// How many threads there are of each graph.
const EACH: usize = 20;

/// The graphs.
const GRAPHS: [&str; 5] = ["email", "multi", "pair", "spread", "steps"];

/// The supersteps of a thread of `steps`, and the items of one of `spread`.
const STEPS: u64 = 16;
const ITEMS: u64 = 6;

/// How long the person waits before it tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long it waits for a worker's reply: longer than commands wait for the disk.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

/// All threads, and the person, who answers until this value is dropped.
pub(super) struct Crowd {
    context: jetstream::Context,
    answering: JoinHandle<()>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

fn threads() -> impl Iterator<Item = (&'static str, String)> {
    (0..EACH).flat_map(|n| GRAPHS.map(|graph| (graph, format!("{graph}-{n}"))))
}

impl Crowd {
    /// Starts all threads at the servers with these addresses.
    pub(super) async fn start(urls: &str) -> Self {
        let urls: Vec<&str> = urls.split(',').collect();
        let client = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_secs(1))
            .connect(urls)
            .await
            .expect("NATS lets us in");
        let context = jetstream::new(client.clone());
        join_all(threads().map(|(graph, thread)| {
            let context = context.clone();
            let subject = format!("superstep.default.start.{graph}");
            let body = json!({"thread_id": thread, "input": input(graph)});
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", thread);
            publish(context, subject, headers, body)
        }))
        .await;
        let answering = tokio::spawn(answer_all(client));
        Self { context, answering }
    }

    /// JetStream, for a look at streams.
    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.context
    }

    /// Waits until every thread has ended, and demands that each came to what it must.
    pub(super) async fn ends_well(self, store: &Store, dir: &Path) {
        for (graph, thread) in threads() {
            let values = store.rests(&thread, ThreadStatus::Idle).await;
            check_values(graph, &thread, &values);
            store.history(&thread).await;
        }
        let mails = lines(dir, "outbox");
        let notes = lines(dir, "ledger");
        for (graph, thread) in threads() {
            match graph {
                // A mail may go out twice, and is then known again by its key.
                "email" => {
                    let keys: BTreeSet<String> = mails
                        .iter()
                        .map(|mail| serde_json::from_str(mail).expect("a mail is JSON"))
                        .filter(|mail: &Value| mail["thread_id"] == thread.as_str())
                        .map(|mail| mail["idempotency_key"].to_string())
                        .collect();
                    assert_eq!(keys.len(), 1, "the mails of {thread}: {keys:?}");
                }
                "steps" => {
                    for step in 0..STEPS {
                        let note = format!("step {thread} {step} ");
                        assert!(notes.iter().any(|n| n.starts_with(&note)), "{note}");
                    }
                }
                _ => {}
            }
        }
    }
}

fn input(graph: &str) -> Value {
    match graph {
        "email" => json!({"topic": "t"}),
        "multi" => json!({"draft": "d"}),
        "spread" => json!({"count": ITEMS, "pause_ms": 200}),
        "steps" => json!({"count": STEPS, "pause_ms": 400}),
        _ => json!({}),
    }
}

fn check_values(graph: &str, thread: &str, values: &Map<String, Value>) {
    let (name, expected) = match graph {
        "email" => ("status", json!("sent")),
        "multi" => ("final_draft", json!("f")),
        "pair" => ("said", json!(["left", "right"])),
        "spread" => ("sum", json!((0..ITEMS).map(|n| n * n).sum::<u64>())),
        _ => ("seen", json!((0..STEPS).collect::<Vec<_>>())),
    };
    assert_eq!(values[name], expected, "{thread}");
}

/// The answer to a question of a thread.
fn answer(thread: &str, question: &Value) -> Value {
    match thread.split('-').next().unwrap_or_default() {
        "email" => json!({"approved": true}),
        "multi" if question["value"]["message"] == "Review draft" => json!({"edited_draft": "e"}),
        "multi" => json!({"approved_draft": "f"}),
        _ => question["value"]["from"].clone(),
    }
}

/// Publishes until the stream has it.
async fn publish(context: jetstream::Context, subject: String, headers: HeaderMap, body: Value) {
    let attempts = async {
        loop {
            let body = body.to_string().into();
            let sent = context.publish_with_headers(subject.clone(), headers.clone(), body);
            if let Ok(ack) = sent.await
                && ack.await.is_ok()
            {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    let acked = tokio::time::timeout(SOON, attempts).await;
    assert!(acked.is_ok(), "no stream took a message on {subject}");
}

/// Reads questions and answers them, for as long as it is let. What was accepted is decided again
/// by the cluster if the store loses it; what was refused is answered anew when it is asked again.
async fn answer_all(client: Client) {
    let context = jetstream::new(client.clone());
    let mut accepted = BTreeSet::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let heard = questions(&context).await;
        if heard.is_empty() {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        // One that was asked again meanwhile is heard twice.
        let heard: BTreeMap<String, (Value, Message)> = heard
            .into_iter()
            .map(|message| {
                let body: Value =
                    serde_json::from_slice(&message.payload).expect("an event is JSON");
                let id = body["interrupt"]["interrupt_id"].as_str();
                let id = id.expect("a question has an id").to_owned();
                (id, (body, message))
            })
            .collect();
        let answers = heard.into_iter().map(async |(id, (body, message))| {
            let done = accepted.contains(&id) || {
                let tries = refused.get(&id).copied().unwrap_or_default();
                answer_one(&client, &body, &format!("answer-{id}-{tries}")).await
            };
            // One whose ack is lost comes again.
            drop(message.ack().await);
            (id, done)
        });
        for (id, done) in join_all(answers).await {
            if done {
                accepted.insert(id);
            } else {
                *refused.entry(id).or_default() += 1;
            }
        }
    }
}

/// Answers a question until a worker replies, for what a stream had taken may be lost with its
/// leader. Says whether it was accepted.
async fn answer_one(client: &Client, event: &Value, command: &str) -> bool {
    let thread = event["thread_id"].as_str().expect("it names its thread");
    let question = &event["interrupt"];
    let resume = json!({
        "resume": answer(thread, question),
        "interrupt_id": question["interrupt_id"],
    });
    let inbox = client.new_inbox();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", command);
    headers.insert("Superstep-Reply", inbox.as_str());
    let subject = format!("superstep.default.resume.{thread}");
    let mut replies = client.subscribe(inbox).await.expect("an inbox");
    let context = jetstream::new(client.clone());
    let answered = async {
        loop {
            let (subject, headers) = (subject.clone(), headers.clone());
            publish(context.clone(), subject, headers, resume.clone()).await;
            let reply = tokio::time::timeout(REPLY_WITHIN, replies.next());
            if let Ok(Some(reply)) = reply.await {
                return reply;
            }
        }
    };
    let reply = tokio::time::timeout(SOON, answered).await;
    let reply = reply.unwrap_or_else(|_| panic!("nobody replied to the answer of {thread}"));
    let reply: Value = serde_json::from_slice(&reply.payload).expect("a reply is JSON");
    reply["outcome"] == "accepted" || reply["refusal"]["kind"] == "already_answered"
}
