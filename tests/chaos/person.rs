//! The world outside: a plain NATS client that starts threads and answers what they ask.
//!
//! It sends each command with an id of its own until somebody replies: a stream that was emptied
//! took commands with it that nobody had decided. Questions it reads from the events stream, and
//! what it hears twice it answers under the same id. Some answers go out twice under two ids, and
//! some before there is a question; those are sent once.
//!
//! The rule it keeps: it never looks into the store, and an answer always names its question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use superstep_tests::questions;
use tokio::task::JoinHandle;

use crate::draw::Draw;
use crate::site::Site;
use crate::threads::Thread;

/// After how long without a reply a command is sent again.
const AGAIN_AFTER: Duration = Duration::from_secs(4);
/// How often the person looks whether something is to be sent.
const BEAT: Duration = Duration::from_millis(50);

/// A command that nobody has replied to.
#[derive(Clone, Debug)]
struct Pending {
    subject: String,
    body: Value,
    due: Instant,
    /// Whether it is sent until there is a reply.
    again: bool,
}

/// What the person has in mind.
#[derive(Debug, Default)]
struct Book {
    pending: BTreeMap<String, Pending>,
    /// Commands that were replied to.
    done: BTreeSet<String>,
    sent: usize,
    replies: BTreeMap<String, usize>,
}

impl Book {
    fn add(&mut self, id: String, command: Pending) {
        if !self.done.contains(&id) {
            self.pending.entry(id).or_insert(command);
        }
    }
}

/// The client; it stops with its value.
pub(crate) struct Person {
    book: Arc<Mutex<Book>>,
    busy: Vec<JoinHandle<()>>,
}

impl Drop for Person {
    fn drop(&mut self) {
        for task in &self.busy {
            task.abort();
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Person {
    /// Begins the threads, one after the other over this time, and answers from then on.
    pub(crate) fn begin(site: &Site, threads: Vec<Thread>, over: Duration, mut draw: Draw) -> Self {
        let mut book = Book::default();
        let now = Instant::now();
        let over = u64::try_from(over.as_millis()).expect("a short time");
        for thread in &threads {
            let due = now + Duration::from_millis(draw.below(over));
            for run in 0..thread.runs {
                let start = Pending {
                    subject: format!("superstep.default.start.{}", thread.graph),
                    body: json!({"thread_id": thread.id, "input": thread.input}),
                    due,
                    again: true,
                };
                book.add(format!("start-{}-{run}", thread.id), start);
            }
            if thread.early {
                let early = Pending {
                    subject: format!("superstep.default.resume.{}", thread.id),
                    body: json!({"resume": "early"}),
                    due,
                    again: false,
                };
                book.add(format!("early-{}", thread.id), early);
            }
        }
        let book = Arc::new(Mutex::new(book));
        let url = site.nats.url();
        let threads = threads.into_iter().map(|t| (t.id.clone(), t)).collect();
        let busy = tokio::spawn(live(url, Arc::clone(&book), threads));
        Self {
            book,
            busy: vec![busy],
        }
    }

    /// What was sent, and what was replied.
    pub(crate) fn counts(&self) -> String {
        let book = lock(&self.book);
        format!(
            "commands sent {}, without a reply {}, replies {:?}",
            book.sent,
            book.pending.len(),
            book.replies
        )
    }
}

async fn live(url: String, book: Arc<Mutex<Book>>, threads: BTreeMap<String, Thread>) {
    let client = async_nats::ConnectOptions::new()
        .ping_interval(Duration::from_secs(1))
        .retry_on_initial_connect()
        .connect(url)
        .await
        .expect("the address is one");
    let context = jetstream::new(client.clone());
    let inbox = client.new_inbox();
    tokio::join!(
        hear_replies(client.clone(), inbox.clone(), &book),
        send(context.clone(), inbox, &book),
        hear_questions(context, &book, &threads)
    );
}

async fn hear_replies(client: Client, inbox: String, book: &Mutex<Book>) {
    let mut replies = client.subscribe(inbox).await.expect("an inbox");
    while let Some(reply) = replies.next().await {
        let reply: Value = serde_json::from_slice(&reply.payload).expect("a reply is JSON");
        let id = reply["command_id"].as_str().unwrap_or_default().to_owned();
        let kind = reply["refusal"]["kind"].as_str();
        let kind = kind.or_else(|| reply["outcome"].as_str());
        let kind = kind.unwrap_or_default();
        let what = format!("{}: {kind}", id.split('-').next().unwrap_or_default());
        let mut book = lock(book);
        *book.replies.entry(what).or_default() += 1;
        book.pending.remove(&id);
        book.done.insert(id);
    }
}

async fn send(context: jetstream::Context, inbox: String, book: &Mutex<Book>) {
    loop {
        let now = Instant::now();
        let due: Vec<(String, Pending)> = {
            let mut book = lock(book);
            let mut due = Vec::new();
            for (id, pending) in &mut book.pending {
                if pending.due <= now {
                    due.push((id.clone(), pending.clone()));
                    pending.due = now + AGAIN_AFTER;
                }
            }
            for (id, _) in due.iter().filter(|(_, pending)| !pending.again) {
                book.pending.remove(id);
            }
            book.sent += due.len();
            due
        };
        for (id, pending) in due {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            headers.insert("Superstep-Reply", inbox.as_str());
            let body = pending.body.to_string().into();
            // Whether the stream has it shows in the reply to the command.
            let sent = context.publish_with_headers(pending.subject, headers, body);
            drop(sent.await);
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn hear_questions(
    context: jetstream::Context,
    book: &Mutex<Book>,
    threads: &BTreeMap<String, Thread>,
) {
    loop {
        let heard = questions(&context).await;
        if heard.is_empty() {
            tokio::time::sleep(BEAT).await;
        }
        for message in heard {
            let event: Value = serde_json::from_slice(&message.payload).expect("an event is JSON");
            let thread = event["thread_id"].as_str().unwrap_or_default();
            let thread = &threads[thread];
            let question = &event["interrupt"];
            let id = question["interrupt_id"].as_str().expect("a question's id");
            let answer = Pending {
                subject: format!("superstep.default.resume.{}", thread.id),
                body: json!({"resume": thread.answer(question), "interrupt_id": id}),
                due: Instant::now(),
                again: true,
            };
            {
                let mut book = lock(book);
                if thread.twice {
                    book.add(format!("second-{id}"), answer.clone());
                }
                book.add(format!("answer-{id}"), answer);
            }
            // One whose ack is lost comes again, and is known.
            drop(message.ack().await);
        }
    }
}
