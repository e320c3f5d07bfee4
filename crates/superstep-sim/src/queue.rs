//! The queue as one worker process meets it: publishes fail or happen twice, deliveries come
//! late, out of order or to two workers, and answers to them get lost.
//!
//! Beneath is one memory queue for all processes. Publishing times of commands are made
//! virtual, as the memory queue reads the wall clock for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use superstep_protocol::{GraphId, RunId, ThreadId, UnixMillis};
use superstep_queue::{
    Acker, CommandMessage, Consumer, Delivery, DeliveryBody, Error, ErrorKind, EventFilter,
    EventMessage, EventsMade, Finding, Published, Queue, Subscription, WorkMessage, header,
    memory::{MemoryQueue, MemoryQueueSettings},
};
use superstep_wire::decode;

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    ledger::{Ledger, thread_of},
    mutant::{Mutant, without_nonce},
    plan::{Faults, Process, lock},
};

/// How often a waiting pull looks for leases that ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The queue that all processes share, and when its commands were published.
pub(crate) struct Broker {
    settings: MemoryQueueSettings,
    /// The streams, and how often they were lost and made anew.
    streams: Mutex<(MemoryQueue, u64)>,
    /// When a message was published, by the streams it was in and its id.
    published: Mutex<BTreeMap<(u64, String), UnixMillis>>,
    /// The ids of events that are in their stream.
    events: Mutex<BTreeSet<String>>,
    /// Rings when something may have become deliverable; who waited first is woken first, so
    /// that a seed always tells the same story.
    bell: Notify,
}

impl Broker {
    pub(crate) fn new(settings: MemoryQueueSettings) -> Self {
        Self {
            streams: Mutex::new((Self::made(&settings), 0)),
            settings,
            published: Mutex::default(),
            events: Mutex::default(),
            bell: Notify::new(),
        }
    }

    fn made(settings: &MemoryQueueSettings) -> MemoryQueue {
        MemoryQueue::new(settings.clone()).expect("the names are subjects")
    }

    /// The streams as they are now.
    pub(crate) fn queue(&self) -> MemoryQueue {
        lock(&self.streams).0.clone()
    }

    fn generation(&self) -> u64 {
        lock(&self.streams).1
    }

    /// All streams are lost with what is in them, and made anew.
    pub(crate) fn wipe(&self) {
        let mut streams = lock(&self.streams);
        *streams = (Self::made(&self.settings), streams.1 + 1);
        drop(streams);
        lock(&self.events).clear();
        self.bell.notify_waiters();
    }

    pub(crate) async fn publish(&self, command: &CommandMessage, now: UnixMillis) -> Published {
        let (queue, generation) = lock(&self.streams).clone();
        let published = queue.publish_command(command).await;
        let published = published.expect("the stream takes what a client sends");
        lock(&self.published)
            .entry((generation, published.id.clone()))
            .or_insert(now);
        self.bell.notify_waiters();
        published
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        self.queue().publish_work(work).await?;
        self.bell.notify_waiters();
        Ok(())
    }

    /// Publishes events, and says which of them their stream took: it knows ids.
    async fn publish_events(&self, events: &[EventMessage]) -> Result<Vec<EventMessage>, Error> {
        self.queue().publish_events(events).await?;
        let mut known = lock(&self.events);
        let new = events
            .iter()
            .filter(|event| known.insert(event.headers[header::MSG_ID].clone()));
        Ok(new.cloned().collect())
    }
}

/// The queue as one process meets it.
#[derive(Clone)]
pub(crate) struct FaultyQueue {
    pub(crate) broker: Arc<Broker>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) ledger: Arc<Ledger>,
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

    fn is(&self, mutant: Mutant) -> bool {
        self.faults.mutant == Some(mutant)
    }

    /// Whether `record` is the last one of its thread.
    fn is_head(&self, thread: &ThreadId, record: &str) -> bool {
        let state = self.ledger.state(thread);
        state.is_some_and(|state| state.head.to_string() == record)
    }

    /// An event as it goes out; a mistake drops it or changes its id.
    fn mistold(&self, event: &EventMessage) -> Option<EventMessage> {
        let mut event = event.clone();
        let told = decode::event(&event.body).expect("a worker made it");
        let Some(record) = told.record else {
            return Some(event);
        };
        if self.is(Mutant::EffectsOfTheHeadOnly) && !self.is_head(&event.thread, &record) {
            return None;
        }
        if self.is(Mutant::EventIdWithoutNonce) {
            let record = record.parse().expect("a worker made it");
            let id = without_nonce(&told.event_id, record);
            event.headers.insert(header::MSG_ID.to_owned(), id);
        }
        Some(event)
    }

    /// Whether work goes out; a mistake drops it.
    fn is_sent(&self, work: &WorkMessage) -> bool {
        if !self.is(Mutant::EffectsOfTheHeadOnly) {
            return true;
        }
        let work = decode::work(&work.body).expect("a worker made it");
        self.is_head(&work.thread_id.into(), &work.dispatch)
    }

    /// A consumer of the streams as they are; `graph` names whose work, commands otherwise.
    async fn consumer(&self, graph: Option<&GraphId>) -> Result<Box<dyn Consumer>, Error> {
        let (queue, generation) = lock(&self.broker.streams).clone();
        Ok(Box::new(FaultyConsumer {
            inner: consumer_of(&queue, graph).await?,
            graph: graph.cloned(),
            generation,
            on: self.clone(),
        }))
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    async fn setup(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        self.broker.queue().publish_command(command).await
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        if self.faults.chance(self.faults.odds().full) {
            return Err(Error::new(ErrorKind::Full, "the work stream is full"));
        }
        let odds = self.faults.odds();
        let twice = self.faults.chance(odds.twice);
        let vanishes = self.faults.chance(odds.vanishes);
        let late = if self.faults.chance(odds.late) {
            self.faults.ms(1..9000)
        } else {
            Duration::ZERO
        };
        let work = work.to_vec();
        self.change("publish_work", move |on| {
            let mut work = work.clone();
            async move {
                work.retain(|message| on.is_sent(message));
                for message in &work {
                    let body = String::from_utf8_lossy(&message.body).into_owned();
                    on.faults
                        .note(format!("w{} work {body}", on.process.number));
                }
                if twice {
                    work.extend(work.clone());
                }
                if vanishes {
                    on.faults.note("its stream forgets it");
                    return Ok(());
                }
                if late.is_zero() {
                    return on.broker.publish_work(&work).await;
                }
                on.faults
                    .note(format!("it comes {} ms later", late.as_millis()));
                tokio::spawn(async move {
                    sleep(late).await;
                    on.broker.publish_work(&work).await
                });
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
                let events: Vec<_> = events
                    .iter()
                    .filter_map(|event| on.mistold(event))
                    .collect();
                for event in &events {
                    let (kind, thread) = (&event.kind, &event.thread);
                    on.faults
                        .note(format!("w{} tells {kind} of {thread}", on.process.number));
                }
                let new = on.broker.publish_events(&events).await?;
                on.ledger.told(&new);
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
                on.ledger.replied(&body);
                on.broker.queue().reply(&subject, body).await
            }
        })
        .await
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        self.broker.queue().output(thread, run, body).await
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        self.consumer(None).await
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        self.consumer(Some(graph)).await
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        self.broker.queue().backlog(graph).await
    }

    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        self.broker.queue().events_made().await
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        self.broker.queue().events(filter).await
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        self.broker.queue().outputs(thread).await
    }

    async fn request(
        &self,
        command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        self.broker.queue().request(command, wait).await
    }

    fn body_bytes_max(&self) -> usize {
        self.broker.queue().body_bytes_max()
    }

    async fn check(&self) -> Vec<Finding> {
        self.broker.queue().check().await
    }
}

async fn consumer_of(
    queue: &MemoryQueue,
    graph: Option<&GraphId>,
) -> Result<Box<dyn Consumer>, Error> {
    match graph {
        Some(graph) => queue.work(graph).await,
        None => queue.commands().await,
    }
}

struct FaultyConsumer {
    inner: Box<dyn Consumer>,
    graph: Option<GraphId>,
    /// Which streams it reads.
    generation: u64,
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
            if self.generation != on.broker.generation() {
                let (queue, generation) = lock(&on.broker.streams).clone();
                self.inner = consumer_of(&queue, self.graph.as_ref()).await?;
                self.generation = generation;
            }
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
            on.faults.note(format!(
                "w{} gets {name} of {} attempt {}",
                on.process.number,
                subject_of(&delivery),
                delivery.attempt
            ));
            on.ledger.delivered(&name, delivery.attempt);
            deliveries.push(on.delivery(delivery, self.generation).await);
        }
        if deliveries.len() > 1 && on.faults.chance(100) {
            deliveries.reverse();
        }
        // Handed over, and lost on the way if the process dies here.
        if !deliveries.is_empty() {
            on.faults.reach(&on.process, "delivered").await;
        }
        Ok(deliveries)
    }

    fn ack_wait(&self) -> Duration {
        self.inner.ack_wait()
    }
}

impl FaultyQueue {
    async fn delivery(&self, mut delivery: Delivery, generation: u64) -> Delivery {
        let id = (generation, delivery.id.clone());
        if let Some(at) = lock(&self.broker.published).get(&id) {
            delivery.published_at = *at;
        }
        let odds = self.faults.odds();
        let work = matches!(delivery.kind, DeliveryBody::Work { .. });
        if work && self.faults.chance(odds.lease_lost) {
            let after = self.faults.ms(0..3000);
            self.faults.note("its lease will be lost");
            delivery.acker.nak(after).await.expect("memory answers");
        }
        let acked_early = work && self.is(Mutant::AckBeforeAppend);
        let acker = FaultyAcker {
            acked_early,
            inner: delivery.acker,
            kind: delivery.kind.clone(),
            headers: delivery.headers.clone(),
            id: delivery.id.clone(),
            body: delivery.body.clone(),
            on: self.clone(),
        };
        if acked_early {
            acker.see();
            let _ = acker.inner.ack().await;
        }
        Delivery {
            acker: Box::new(acker),
            ..delivery
        }
    }
}

struct FaultyAcker {
    acked_early: bool,
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
    /// An ack is about to happen: the invariants look.
    fn see(&self) {
        let (ledger, on) = (&self.on.ledger, &self.on);
        let name = number_of(&self.id);
        on.faults
            .note(format!("w{} acks {name}", on.process.number));
        ledger.acked(&self.kind, &self.headers, &self.id, &self.body);
    }

    /// An answer may be lost on its way; nobody is told.
    async fn answer(
        &self,
        label: &'static str,
        answer: impl Future<Output = Result<(), Error>> + Send,
    ) -> Result<(), Error> {
        let faults = &self.on.faults;
        if faults.chance(faults.odds().ack_lost) {
            faults.note(format!("w{} {label} is lost", self.on.process.number));
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
        if self.acked_early {
            return Ok(());
        }
        self.on.process.lives().await;
        self.see();
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
        self.on.process.lives().await;
        self.inner.in_progress().await
    }
}

/// The stream and number of a message, without what differs from run to run.
fn number_of(id: &str) -> String {
    let stream = id.split('-').next().unwrap_or_default();
    let number = id.rsplit(':').next().unwrap_or_default();
    format!("{stream}:{number}")
}

/// The thread that a message is about, or what else it names.
fn subject_of(delivery: &Delivery) -> String {
    match &delivery.kind {
        DeliveryBody::Work { .. } => {
            decode::work(&delivery.body).map_or_else(|e| e.to_string(), |work| work.thread_id)
        }
        DeliveryBody::Command { kind, target } => {
            let id = delivery.headers.get(header::MSG_ID);
            let id = &id.map_or("", String::as_str).into();
            let thread = thread_of(*kind, target, &delivery.body, id);
            format!("{thread} {} {id}", kind.as_str())
        }
        DeliveryBody::Unknown { subject } => subject.clone(),
    }
}
