//! The queue itself: the port's calls, each handed to the module that knows how.
//!
//! All handles of one queue share one connection. The calls keep no state between them, so a
//! queue can be used from any number of tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client,
    connection::State,
    jetstream::{self, context::ContextBuilder, stream},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use superstep_protocol::{GraphId, RunId, ThreadId, UnixMillis};
use superstep_queue::{
    CommandMessage, Consumer, Error, ErrorKind, EventFilter, EventMessage, EventsMade, Finding,
    Published, Queue, RUN_CANCELLED, Subscription, WorkMessage, header, subject::Subjects,
};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    backlog::Backlogs,
    config::{StreamRole, commands_consumer, work_consumer},
    connect::{Link, connect},
    consume::NatsConsumer,
    doctor, message,
    publish::{IN_FLIGHT_MAX, Outgoing},
    settings::NatsSettings,
    streams::{ensure_stream, stream_info},
    subscribe::{CoreSubscription, EventSubscription},
};

/// What headers and framing may take of the server's largest payload.
const HEADERS_BYTES_MAX: usize = 8 * 1024;
/// How long live output may wait for a connection that is busy; then it is dropped.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(100);

/// A queue on NATS JetStream. Clones share the connection.
#[derive(Clone, Debug)]
pub struct NatsQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) context: jetstream::Context,
    pub(crate) link: Link,
    pub(crate) settings: NatsSettings,
    pub(crate) subjects: Subjects,
    pub(crate) in_flight: Semaphore,
    pub(crate) backlogs: Backlogs,
    /// When this queue made the events stream, in milliseconds; 0 if it did not.
    made_events: AtomicU64,
    /// Which streams this queue has found or made.
    seen: [AtomicBool; StreamRole::ALL.len()],
}

impl NatsQueue {
    /// Connects. Streams are neither made nor looked at before [`Queue::setup`].
    ///
    /// # Errors
    /// `Unavailable` if no server can be reached in time, `Denied` for credentials and TLS,
    /// `Invalid` for settings that cannot be.
    pub async fn connect(settings: NatsSettings) -> Result<Self, Error> {
        let subjects = Subjects::new(&settings.prefix, &settings.namespace)?;
        let (client, link) = connect(&settings).await?;
        let context = ContextBuilder::new()
            .timeout(settings.request_timeout)
            .ack_timeout(settings.request_timeout)
            // The bound is ours; this one would be held by acks that nobody awaits any more.
            .max_ack_inflight(IN_FLIGHT_MAX * 8)
            .build(client.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                context,
                link,
                settings,
                subjects,
                in_flight: Semaphore::new(IN_FLIGHT_MAX),
                backlogs: Backlogs::default(),
                made_events: AtomicU64::new(0),
                seen: Default::default(),
            }),
        })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Waits until everything that was handed to the connection has been written to it. To be
    /// called before the process exits: acks and replies are not awaited otherwise.
    pub async fn flush(&self) -> Result<(), Error> {
        let flushed = timeout(
            self.shared.settings.request_timeout,
            self.shared.client.flush(),
        );
        let why = match flushed.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => failed.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        let addresses = &self.shared.link.addresses;
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the connection to NATS at {addresses} was not flushed: {why}"),
        ))
    }
}

impl Shared {
    /// Makes or checks every stream.
    pub(crate) async fn setup(&self) -> Result<(), Error> {
        for role in StreamRole::ALL {
            self.ensure(role).await?;
        }
        Ok(())
    }

    /// Makes or checks one stream.
    pub(crate) async fn ensure(&self, role: StreamRole) -> Result<stream::Info, Error> {
        let wanted = role.wanted(&self.settings, &self.subjects, self.counts_bytes());
        let seen = &self.seen[role as usize];
        let was_there = seen.load(Ordering::Relaxed);
        let (info, made) = ensure_stream(&self.context, role, &wanted, was_there)
            .await
            .map_err(|failed| self.explained(failed))?;
        if made && matches!(role, StreamRole::Events) {
            let at = info.created.unix_timestamp_nanos() / 1_000_000;
            let at = u64::try_from(at).unwrap_or_default();
            self.made_events.store(at, Ordering::Relaxed);
        }
        seen.store(true, Ordering::Relaxed);
        Ok(info)
    }

    /// The reason behind a silence, where one is known: a server does not answer what it
    /// forbids, nor what it has not.
    pub(crate) fn explained(&self, failed: Error) -> Error {
        if failed.kind() != ErrorKind::Unavailable {
            return failed;
        }
        let addresses = &self.link.addresses;
        let said = ["$JS.", "_INBOX."]
            .into_iter()
            .find_map(|subject| self.link.violation(subject));
        if let Some(said) = said {
            let message = format!("NATS at {addresses} forbids it ({said}); allow it to this user");
            return Error::new(ErrorKind::Denied, message).with_source(failed);
        }
        let is_connected = self.client.connection_state() == State::Connected;
        if is_connected && !self.client.server_info().jetstream {
            let message =
                format!("JetStream is not enabled on NATS at {addresses}; start it with `-js`");
            return Error::new(ErrorKind::Denied, message).with_source(failed);
        }
        failed
    }

    /// Whether the server can be trusted to refuse what is beyond a stream's bytes.
    pub(crate) fn counts_bytes(&self) -> bool {
        self.client.is_server_compatible(2, 10, 5)
    }

    pub(crate) fn body_bytes_max(&self) -> usize {
        let max_payload = self.client.max_payload();
        max_payload
            .saturating_sub(HEADERS_BYTES_MAX)
            .max(max_payload / 2)
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        let subject = self.subjects.command(command.kind, &command.target)?;
        let repeatable = command.headers.contains_key(header::MSG_ID);
        let outgoing = Outgoing::new(self, subject, &command.headers, &command.body, repeatable)?;
        let ack = self.publish(vec![outgoing]).await?.remove(0);
        Ok(Published {
            id: message::message_id(&ack.stream, ack.sequence),
            duplicate: ack.duplicate,
        })
    }

    /// Subscribes to core messages; the server has heard of it when this returns.
    async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber, Error> {
        let asked = async {
            let subscriber = self.client.subscribe(subject).await?;
            // A server works off a connection in order. That nobody answers on a new inbox is
            // an answer too, and one that comes after the subscription was taken.
            let _ = self
                .client
                .request(self.client.new_inbox(), Bytes::new())
                .await;
            Ok::<_, async_nats::SubscribeError>(subscriber)
        };
        let why = match timeout(self.settings.request_timeout, asked).await {
            Ok(Ok(subscriber)) => return Ok(subscriber),
            Ok(Err(failed)) => failed.to_string(),
            Err(_) => "the server did not answer in time".to_owned(),
        };
        let addresses = &self.link.addresses;
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("subscribing at NATS at {addresses} failed: {why}; retry"),
        ))
    }
}

#[async_trait]
impl Queue for NatsQueue {
    async fn setup(&self) -> Result<(), Error> {
        self.shared.setup().await
    }

    async fn publish_command(&self, command: &CommandMessage) -> Result<Published, Error> {
        self.shared.publish_command(command).await
    }

    async fn publish_work(&self, work: &[WorkMessage]) -> Result<(), Error> {
        let outgoing: Result<Vec<_>, Error> = work
            .iter()
            .map(|message| {
                let subject = self.shared.subjects.work(&message.graph)?;
                Outgoing::new(&self.shared, subject, &message.headers, &message.body, true)
            })
            .collect();
        self.shared.publish(outgoing?).await.map(drop)
    }

    async fn publish_events(&self, events: &[EventMessage]) -> Result<(), Error> {
        let outgoing: Result<Vec<_>, Error> = events
            .iter()
            .map(|event| {
                let graph = event.graph.as_ref();
                let subject = self
                    .shared
                    .subjects
                    .event(&event.kind, graph, &event.thread)?;
                // Subscribers know an event again by its id, so it may be stored twice.
                Outgoing::new(&self.shared, subject, &event.headers, &event.body, true)
            })
            .collect();
        self.shared.publish(outgoing?).await.map(drop)
    }

    async fn reply(&self, subject: &str, body: Bytes) -> Result<(), Error> {
        self.shared.subjects.check_reply(subject)?;
        self.shared.check_size(body.len())?;
        message::send(&self.shared.client, subject.to_owned(), body).await
    }

    async fn output(&self, thread: &ThreadId, run: &RunId, body: Bytes) -> Result<(), Error> {
        let subject = self.shared.subjects.output(thread, run)?;
        self.shared.check_size(body.len())?;
        if self.shared.client.connection_state() != State::Connected {
            return Ok(());
        }
        // A busy connection must not slow a node down: output that cannot go now is dropped.
        let _ = timeout(OUTPUT_PATIENCE, self.shared.client.publish(subject, body)).await;
        Ok(())
    }

    async fn commands(&self) -> Result<Box<dyn Consumer>, Error> {
        let wanted = commands_consumer(&self.shared.settings);
        let consumer = NatsConsumer::open(&self.shared, StreamRole::Commands, wanted).await?;
        Ok(Box::new(consumer))
    }

    async fn work(&self, graph: &GraphId) -> Result<Box<dyn Consumer>, Error> {
        let wanted = work_consumer(&self.shared.settings, &self.shared.subjects, graph)?;
        let consumer = NatsConsumer::open(&self.shared, StreamRole::Work, wanted).await?;
        Ok(Box::new(consumer))
    }

    async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        self.shared.backlog(graph).await
    }

    async fn events_made(&self) -> Result<Option<EventsMade>, Error> {
        let name = StreamRole::Events.stream(&self.shared.subjects);
        let found = stream_info(&self.shared.context, &name).await?;
        let created = match found {
            Some(info) => info.created,
            None => self.shared.ensure(StreamRole::Events).await?.created,
        };
        let at = u64::try_from(created.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        Ok(Some(EventsMade {
            at: UnixMillis(at),
            here: self.shared.made_events.load(Ordering::Relaxed) == at,
        }))
    }

    async fn events(&self, filter: &EventFilter) -> Result<Box<dyn Subscription>, Error> {
        Ok(Box::new(
            EventSubscription::open(&self.shared, filter).await?,
        ))
    }

    /// Listened to beside the stream, which takes the events as well: no consumer, no read.
    async fn cancellations(&self) -> Result<Box<dyn Subscription>, Error> {
        let pattern = self.shared.subjects.events_of(&EventFilter {
            kind: Some(RUN_CANCELLED.to_owned()),
            ..EventFilter::default()
        })?;
        let subscriber = self.shared.subscribe(pattern).await?;
        Ok(Box::new(CoreSubscription(subscriber)))
    }

    async fn outputs(&self, thread: &ThreadId) -> Result<Box<dyn Subscription>, Error> {
        let pattern = self.shared.subjects.outputs_of(thread)?;
        let subscriber = self.shared.subscribe(pattern).await?;
        Ok(Box::new(CoreSubscription(subscriber)))
    }

    async fn request(
        &self,
        mut command: CommandMessage,
        wait: Duration,
    ) -> Result<(Published, Option<Bytes>), Error> {
        let inbox = self.shared.client.new_inbox();
        let mut outcome = self.shared.subscribe(inbox.clone()).await?;
        command.headers.insert(header::REPLY.to_owned(), inbox);
        let published = self.shared.publish_command(&command).await?;
        let outcome = timeout(wait, outcome.next()).await.ok().flatten();
        Ok((published, outcome.map(|message| message.payload)))
    }

    fn body_bytes_max(&self) -> usize {
        self.shared.body_bytes_max()
    }

    async fn check(&self) -> Vec<Finding> {
        doctor::check(&self.shared).await
    }
}
