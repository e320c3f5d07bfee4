//! The world outside: a plain NATS client that publishes JSON and listens.
//!
//! It uses what the contract in `proto/README.md` says and nothing of superstep: subjects and
//! headers are written out. It hears every event from the moment that it connects.
//!
//! The rule it keeps: what it returns is what was on the wire; nothing is decoded but JSON.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, context::PublishErrorKind, publish::PublishAck};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use serde_json::Value;
use superstep_tests::eventually_async;
use tokio::task::JoinHandle;

use crate::SOON;

/// An event as it came.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Told {
    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }
}

/// A client that hears all events.
pub(crate) struct Outside {
    client: Client,
    context: jetstream::Context,
    heard: Arc<Mutex<Vec<Told>>>,
    listening: JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Outside {
    pub(crate) async fn connect(url: &str) -> Self {
        Self::connect_in(url, "default").await
    }

    /// As `connect`, hearing the events of this namespace.
    pub(crate) async fn connect_in(url: &str, namespace: &str) -> Self {
        let client = async_nats::connect(url).await.expect("NATS lets us in");
        let mut events = client
            .subscribe(format!("superstep.{namespace}.events.>"))
            .await
            .expect("events can be subscribed to");
        client.flush().await.expect("the server has heard of it");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listening = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                while let Some(message) = events.next().await {
                    let told = Told {
                        subject: message.subject.to_string(),
                        headers: message.headers.unwrap_or_default(),
                        body: serde_json::from_slice(&message.payload).expect("an event is JSON"),
                    };
                    heard
                        .lock()
                        .expect("no test panics while it holds this")
                        .push(told);
                }
            }
        });
        Self {
            context: jetstream::new(client.clone()),
            client,
            heard,
            listening,
        }
    }

    /// JetStream, for what an operator does to streams.
    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.context
    }

    /// Publishes a command and awaits its stream's ack.
    pub(crate) async fn publish(&self, subject: &str, body: impl ToString) -> PublishAck {
        self.publish_with(subject, &[], body.to_string().into_bytes())
            .await
    }

    /// Publishes with headers; again while the stream is not there yet or its server is away.
    pub(crate) async fn publish_with(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> PublishAck {
        eventually_async("the stream acks", SOON, async || {
            match self.try_publish(subject, headers, body.clone()).await {
                Ok(ack) => Some(ack),
                Err(PublishErrorKind::StreamNotFound | PublishErrorKind::TimedOut) => None,
                Err(kind) => panic!("publishing to {subject}: {kind:?}"),
            }
        })
        .await
    }

    /// Publishes once.
    pub(crate) async fn try_publish(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<PublishAck, PublishErrorKind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let sent = self
            .context
            .publish_with_headers(subject.to_owned(), map, body.into())
            .await;
        let acked = match sent {
            Ok(sent) => sent.await,
            Err(failed) => Err(failed),
        };
        acked.map_err(|failed| failed.kind())
    }

    /// Publishes a command and waits for its Reply.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Value {
        self.ask_bytes(subject, headers, body.to_string().into_bytes())
            .await
    }

    /// As `ask`, with a body that need not be text.
    pub(crate) async fn ask_bytes(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Value {
        let (_, reply) = self.ask_once(subject, headers, body).await;
        reply.await
    }

    /// As `ask`; nothing if the stream dropped the command as a duplicate.
    pub(crate) async fn try_ask(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Option<Value> {
        let body = body.to_string().into_bytes();
        let (ack, reply) = self.ask_once(subject, headers, body).await;
        if ack.duplicate {
            return None;
        }
        Some(reply.await)
    }

    async fn ask_once(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (PublishAck, impl Future<Output = Value>) {
        let inbox = self.client.new_inbox();
        let mut replies = self
            .client
            .subscribe(inbox.clone())
            .await
            .expect("an inbox");
        let mut headers = headers.to_vec();
        headers.push(("Superstep-Reply", &inbox));
        let ack = self.publish_with(subject, &headers, body).await;
        let subject = subject.to_owned();
        let reply = async move {
            let reply = tokio::time::timeout(SOON, replies.next()).await;
            let reply = reply
                .unwrap_or_else(|_| panic!("no reply to a command on {subject}"))
                .expect("the inbox stays open");
            serde_json::from_slice(&reply.payload).expect("a reply is JSON")
        };
        (ack, reply)
    }

    /// Every event of this kind of the thread so far, each id once, in the order of their coming.
    pub(crate) fn heard(&self, kind: &str, thread: &str) -> Vec<Told> {
        let heard = self
            .heard
            .lock()
            .expect("no test panics while it holds this");
        let mut found: Vec<Told> = Vec::new();
        for told in heard.iter() {
            let id = &told.body["event_id"];
            if told.body["kind"] == kind
                && told.body["thread_id"] == thread
                && !found.iter().any(|known| known.body["event_id"] == *id)
            {
                found.push(told.clone());
            }
        }
        found
    }

    /// Waits for the first event of this kind of the thread.
    pub(crate) async fn event(&self, kind: &str, thread: &str) -> Told {
        self.events(kind, thread, 1).await.remove(0)
    }

    /// Waits for so many events of this kind of the thread.
    pub(crate) async fn events(&self, kind: &str, thread: &str, count: usize) -> Vec<Told> {
        let what = format!("{count} events {kind} of thread {thread}");
        eventually_async(&what, SOON, async || {
            let found = self.heard(kind, thread);
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// Waits for an event of this kind of the thread, at most so long.
    pub(crate) async fn event_within(&self, kind: &str, thread: &str, within: Duration) -> Told {
        let what = format!("the event {kind} of thread {thread}");
        eventually_async(&what, within, async || self.heard(kind, thread).pop()).await
    }
}
