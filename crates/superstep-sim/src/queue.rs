//! The queue as one worker process meets it: publishes fail or happen twice, deliveries come
//! late, out of order or to two workers, and answers to them get lost.
//!
//! Beneath is one memory queue for all processes. Publishing times of commands are made
//! virtual, as the memory queue reads the wall clock for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_protocol::{GraphId, RunId, ThreadId, UnixMillis};
use superstep_queue::{
    Acker, CommandMessage, Consumer, Delivery, DeliveryBody, Error, ErrorKind, EventFilter,
    EventMessage, EventsMade, Finding, Published, Queue, Subscription, WorkMessage,
    memory::MemoryQueue,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    check::Check,
    plan::{Faults, Process, lock},
};

/// How often a waiting pull looks for leases that ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The queue that all processes share, and when its commands were published.
pub(crate) struct Broker {
    pub(crate) queue: MemoryQueue,
    published: Mutex<BTreeMap<String, UnixMillis>>,
    /// Rings when something may have become deliverable; who waited first is woken first, so
    /// that a seed always tells the same story.
    bell: Notify,
}

impl Broker {
    pub(crate) fn new(queue: MemoryQueue) -> Self {
        Self {
            queue,
            published: Mutex::default(),
            bell: Notify::new(),
        }
    }

    pub(crate) async fn publish(&self, command: &CommandMessage, now: UnixMillis) -> Published {
        let published = self.queue.publish_command(command).await.unwrap();
        lock(&self.published)
            .entry(published.id.clone())
            .or_insert(now);
        self.bell.notify_waiters();
        published
    }
}

/// The queue as one process meets it.
#[derive(Clone)]
pub(crate) struct FaultyQueue {
    pub(crate) broker: Arc<Broker>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) check: Arc<Check>,
    pub(crate) process: Process,
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the queue does not answer")
}

impl FaultyQueue {
    async fn change<T, F, Fut>(&self, label: &'static str, call: F) -> Result<T, Error>
    where
        F: Fn(Self) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let (now, later) = (self.clone(), self.clone());
        let again = call.clone();
        let late = move || async move {
            let _ = again(later).await;
        };
        self.faults
            .call(&self.process, label, unavailable, call(now), late)
            .await
    }

    fn consumer(&self, inner: Box<dyn Consumer>) -> Box<dyn Consumer> {
        Box::new(FaultyConsumer {
            inner,
            on: self.clone(),
        })
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn setup(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        self.broker.queue.publish_command(command).await
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        if self.faults.chance(self.faults.odds().full) {
            return Err(Error::new(ErrorKind::Full, "the work stream is full"));
        }
        let twice = self.faults.chance(self.faults.odds().twice);
        let work = work.to_vec();
        self.change("publish_work", move |on| {
            let mut work = work.clone();
            async move {
                for message in &work {
                    let body = String::from_utf8_lossy(&message.body).into_owned();
                    on.faults
                        .note(&format!("w{} work {body}", on.process.number));
                }
                if twice {
                    work.extend(work.clone());
                }
                on.broker.queue.publish_work(&work).await?;
                on.broker.bell.notify_waiters();
                Ok(())
            }
        })
        .await
    }

    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error> {
        let events = events.to_vec();
        self.change("publish_events", move |on| {
            let events = events.clone();
            async move {
                on.broker.queue.publish_events(&events).await?;
                on.check.told(&events);
                Ok(())
            }
        })
        .await
    }

    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error> {
        let subject = subject.to_owned();
        self.change("reply", move |on| {
            let (subject, body) = (subject.clone(), body.clone());
            async move {
                on.check.replied(&body);
                on.broker.queue.reply(&subject, body).await
            }
        })
        .await
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        self.broker.queue.output(thread, run, body).await
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        let inner = self.broker.queue.commands().await?;
        Ok(self.consumer(inner))
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        let inner = self.broker.queue.work(graph).await?;
        Ok(self.consumer(inner))
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        self.broker.queue.backlog(graph).await
    }

    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        self.broker.queue.events_made().await
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        self.broker.queue.events(filter).await
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        self.broker.queue.outputs(thread).await
    }

    async fn request(
        &self,
        command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        self.broker.queue.request(command, wait).await
    }

    fn body_bytes_max(&self) -> usize {
        self.broker.queue.body_bytes_max()
    }

    async fn check(&self) -> Vec<Finding> {
        self.broker.queue.check().await
    }
}

struct FaultyConsumer {
    inner: Box<dyn Consumer>,
    on: FaultyQueue,
}

#[async_trait]
impl Consumer for FaultyConsumer {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let on = self.on.clone();
        on.faults.reach(&on.process, "pull").await;
        let give_up = Instant::now() + wait;
        let pulled = loop {
            let bell = on.broker.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            let pulled = self.inner.pull(max, Duration::ZERO).await?;
            if !pulled.is_empty() || Instant::now() >= give_up {
                break pulled;
            }
            tokio::select! {
                biased;
                () = &mut bell => {}
                () = sleep_until(give_up.min(Instant::now() + LOOK_EVERY)) => {}
            }
        };
        let mut deliveries = Vec::with_capacity(pulled.len());
        for delivery in pulled {
            let name = number_of(&delivery.id);
            on.faults.note(&format!(
                "w{} gets {name} attempt {}",
                on.process.number, delivery.attempt
            ));
            on.check.handed_over(&name, delivery.attempt);
            deliveries.push(on.delivery(delivery).await);
        }
        if deliveries.len() > 1 && on.faults.chance(100) {
            deliveries.reverse();
        }
        // Handed over, and lost on the way if the process dies here.
        on.faults.reach(&on.process, "delivered").await;
        Ok(deliveries)
    }

    fn ack_wait(&self) -> Duration {
        self.inner.ack_wait()
    }
}

impl FaultyQueue {
    async fn delivery(&self, mut delivery: Delivery) -> Delivery {
        if let Some(at) = lock(&self.broker.published).get(&delivery.id) {
            delivery.published_at = *at;
        }
        let odds = self.faults.odds();
        let work = matches!(delivery.kind, DeliveryBody::Work { .. });
        if work && self.faults.chance(odds.lease_lost) {
            let after = self.faults.ms(0..3000);
            self.faults.note("its lease will be lost");
            delivery.acker.nak(after).await.unwrap();
        }
        let acker = FaultyAcker {
            inner: delivery.acker,
            kind: delivery.kind.clone(),
            headers: delivery.headers.clone(),
            id: delivery.id.clone(),
            body: delivery.body.clone(),
            on: self.clone(),
        };
        Delivery {
            acker: Box::new(acker),
            ..delivery
        }
    }
}

struct FaultyAcker {
    inner: Box<dyn Acker>,
    kind: DeliveryBody,
    headers: BTreeMap<String, String>,
    id: String,
    body: Bytes,
    on: FaultyQueue,
}

impl std::fmt::Debug for FaultyAcker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl FaultyAcker {
    /// An answer may be lost on its way; nobody is told.
    async fn answer(
        &self,
        label: &'static str,
        answer: impl Future<Output = Result<(), Error>> + Send,
    ) -> Result<(), Error> {
        let faults = &self.on.faults;
        if faults.chance(faults.odds().ack_lost) {
            faults.note(&format!("w{} {label} is lost", self.on.process.number));
            return Ok(());
        }
        faults
            .call(&self.on.process, label, unavailable, answer, || {
                std::future::ready(())
            })
            .await
    }
}

#[async_trait]
impl Acker for FaultyAcker {
    async fn ack(&self) -> Result<(), Error> {
        let name = number_of(&self.id);
        self.on
            .faults
            .note(&format!("w{} acks {name}", self.on.process.number));
        self.on
            .check
            .acked(&self.kind, &self.headers, &self.id, &self.body);
        self.answer("ack", self.inner.ack()).await
    }

    async fn nak(&self, delay: Duration) -> Result<(), Error> {
        let answered = self.answer("nak", self.inner.nak(delay)).await;
        let broker = Arc::clone(&self.on.broker);
        tokio::spawn(async move {
            sleep(delay).await;
            broker.bell.notify_waiters();
        });
        answered
    }

    async fn term(&self, reason: &str) -> Result<(), Error> {
        self.answer("term", self.inner.term(reason)).await
    }

    async fn in_progress(&self) -> Result<(), Error> {
        // Leases are lost on purpose only where a test says so.
        if self.on.process.is_dead() {
            return std::future::pending().await;
        }
        self.inner.in_progress().await
    }
}

/// The stream and number of a message, without what differs from run to run.
fn number_of(id: &str) -> String {
    let stream = id.split('-').next().unwrap_or_default();
    let number = id.rsplit(':').next().unwrap_or_default();
    format!("{stream}:{number}")
}
