//! The queue with points to die at: as a message is handed over, around publishes, before acks.
//!
//! The rule it keeps: every call is handed on as it is, once; only the one publish of work that is
//! to be lost is not, and of one that dies in its middle the first message goes out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use superstep_protocol::{GraphId, RunId, ThreadId};
use superstep_queue::{
    Acker, CommandMessage, Consumer, Delivery, DeliveryBody, Error, EventFilter, EventMessage,
    EventsMade, Finding, Published, Queue, Subscription, WorkMessage,
};

use super::Dying;

pub(super) struct DyingQueue {
    inner: Arc<dyn Queue>,
    dying: Arc<Dying>,
}

impl DyingQueue {
    pub(super) fn new(inner: Arc<dyn Queue>, dying: Arc<Dying>) -> Self {
        Self { inner, dying }
    }

    fn consumer(&self, inner: Box<dyn Consumer>) -> Box<dyn Consumer> {
        Box::new(DyingConsumer {
            inner,
            dying: Arc::clone(&self.dying),
        })
    }
}

#[async_trait]
impl Queue for DyingQueue {
    async fn setup(&self) -> Result<(), Error> {
        self.inner.setup().await
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        self.inner.publish_command(command).await
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        if work.is_empty() {
            return Ok(());
        }
        if self.dying.loses_work() {
            return Ok(());
        }
        self.dying.at("before work");
        if let [first, _, ..] = work
            && self.dying.is_at("first of several works")
        {
            let published = self.inner.publish_work(std::slice::from_ref(first)).await;
            published.expect("the first work message goes out");
            std::process::abort();
        }
        let published = self.inner.publish_work(work).await;
        self.dying.at("after work");
        published
    }

    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error> {
        self.dying.at("before events");
        let published = self.inner.publish_events(events).await;
        self.dying.at("after events");
        published
    }

    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error> {
        self.dying.at("before reply");
        let replied = self.inner.reply(subject, body).await;
        self.dying.at("after reply");
        replied
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        self.inner.output(thread, run, body).await
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        Ok(self.consumer(self.inner.commands().await?))
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        Ok(self.consumer(self.inner.work(graph).await?))
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        self.inner.backlog(graph).await
    }

    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        self.inner.events_made().await
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        self.inner.events(filter).await
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        self.inner.outputs(thread).await
    }

    async fn request(
        &self,
        command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        self.inner.request(command, wait).await
    }

    fn body_bytes_max(&self) -> usize {
        self.inner.body_bytes_max()
    }

    async fn check(&self) -> Vec<Finding> {
        self.inner.check().await
    }
}

struct DyingConsumer {
    inner: Box<dyn Consumer>,
    dying: Arc<Dying>,
}

#[async_trait]
impl Consumer for DyingConsumer {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let mut pulled = self.inner.pull(max, wait).await?;
        for delivery in &mut pulled {
            let is_work = matches!(delivery.kind, DeliveryBody::Work { .. });
            let (came, ack) = if is_work {
                ("work handed over", "before ack of work")
            } else {
                ("command handed over", "before ack of command")
            };
            self.dying.at(came);
            let none = Box::new(Unanswered);
            delivery.acker = Box::new(DyingAcker {
                inner: std::mem::replace(&mut delivery.acker, none),
                dying: Arc::clone(&self.dying),
                ack,
            });
        }
        Ok(pulled)
    }

    fn ack_wait(&self) -> Duration {
        self.inner.ack_wait()
    }
}

/// Stands in for the acker that is being wrapped.
#[derive(Debug)]
struct Unanswered;

#[async_trait]
impl Acker for Unanswered {
    async fn ack(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn nak(&self, _: Duration) -> Result<(), Error> {
        Ok(())
    }
    async fn term(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
    async fn in_progress(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Debug)]
struct DyingAcker {
    inner: Box<dyn Acker>,
    dying: Arc<Dying>,
    ack: &'static str,
}

#[async_trait]
impl Acker for DyingAcker {
    async fn ack(&self) -> Result<(), Error> {
        self.dying.at(self.ack);
        self.inner.ack().await
    }

    async fn nak(&self, delay: Duration) -> Result<(), Error> {
        self.inner.nak(delay).await
    }

    async fn term(&self, reason: &str) -> Result<(), Error> {
        self.inner.term(reason).await
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.inner.in_progress().await
    }
}
