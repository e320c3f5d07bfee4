//! JetStream with nothing of the queue around it: the least that a message costs here.
//!
//! For measuring only. A stream of the work's kind, one durable consumer, publishes whose acks are
//! awaited, messages that are acked without waiting: what a worker cannot do without, on the same
//! connection and client. What is put in the messages is left to whoever measures.
//!
//! The rule it keeps: it lives in a stream of its own, beside those of the namespace, and
//! [`NatsQueue::remove_namespace`] takes it away with them.

use async_nats::{
    Client,
    jetstream::{
        self, AckKind, Context,
        consumer::{PullConsumer, pull},
        stream,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use serde_json::json;
use superstep_queue::{Error, ErrorKind, subject::Subjects};

use crate::{
    NatsQueue, NatsSettings, config::StreamRole, connect::connect, error, publish::IN_FLIGHT_MAX,
};

/// The stream's name is that of the work with this behind it.
const SUFFIX: &str = "_BARE";
/// Messages that are asked for at once.
const BATCH: usize = 200;

/// A work queue without a queue around it.
#[derive(Clone, Debug)]
pub struct BareQueue {
    client: Client,
    context: Context,
    consumer: PullConsumer,
    subject: String,
}

/// The messages of a [`BareQueue`], as they come.
pub struct BareMessages(pull::Stream);

impl std::fmt::Debug for BareMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareMessages").finish_non_exhaustive()
    }
}

/// One message.
#[derive(Debug)]
pub struct BareMessage(jetstream::Message);

impl BareQueue {
    /// Connects and makes the stream and its consumer.
    ///
    /// # Errors
    /// As [`NatsQueue::connect`], or if the server refuses the stream.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, Error> {
        let subjects = Subjects::new(&settings.prefix, &settings.namespace)?;
        let (client, _) = connect(settings).await?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(settings.request_timeout)
            .ack_timeout(settings.request_timeout)
            .max_ack_inflight(IN_FLIGHT_MAX * 8)
            .build(client.clone());
        let subject = format!("{}.{}.bare", subjects.prefix(), subjects.namespace());
        let work = StreamRole::Work.wanted(settings, &subjects, false);
        let config = stream::Config {
            name: name(&subjects),
            subjects: vec![subject.clone()],
            description: Some("superstep: a measurement".to_owned()),
            ..work
        };
        let stream = context.create_stream(config).await;
        let stream = stream.map_err(|failed| refused("making a stream to measure with", failed))?;
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some("bare".to_owned()),
                max_ack_pending: 100_000,
                ..pull::Config::default()
            })
            .await
            .map_err(|failed| refused("making a consumer to measure with", failed))?;
        Ok(Self {
            client,
            context,
            consumer,
            subject,
        })
    }

    /// Publishes all of them, one behind the other, and awaits their acks.
    ///
    /// # Errors
    /// If one of them was not acked.
    pub async fn publish(&self, bodies: Vec<Bytes>) -> Result<(), Error> {
        let mut acks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let sent = self.context.publish(self.subject.clone(), body).await;
            acks.push(sent.map_err(|failed| error::publishing(&self.subject, failed))?);
        }
        let acked = join_all(acks.into_iter().map(IntoFuture::into_future)).await;
        for ack in acked {
            ack.map_err(|failed| error::publishing(&self.subject, failed))?;
        }
        Ok(())
    }

    /// The messages, fetched ahead.
    ///
    /// # Errors
    /// If they cannot be asked for.
    pub async fn messages(&self) -> Result<BareMessages, Error> {
        let messages = self.consumer.stream().max_messages_per_batch(BATCH);
        let messages = messages.messages().await;
        messages
            .map(BareMessages)
            .map_err(|failed| refused("pulling to measure", failed))
    }

    /// Waits until the acks have left this process.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let flushed = self.client.flush().await;
        flushed.map_err(|failed| refused("flushing the connection", failed))
    }
}

impl BareMessages {
    /// The next message; `None` if there will be no more.
    ///
    /// # Errors
    /// If the server says that it cannot go on.
    pub async fn next(&mut self) -> Result<Option<BareMessage>, Error> {
        match self.0.next().await {
            Some(Ok(message)) => Ok(Some(BareMessage(message))),
            Some(Err(failed)) => Err(refused("pulling to measure", failed)),
            None => Ok(None),
        }
    }
}

impl BareMessage {
    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.0.payload
    }

    /// Acks it, without waiting for the server to hear of it.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn ack(&self) -> Result<(), Error> {
        let acked = self.0.ack_with(AckKind::Ack).await;
        acked.map_err(|failed| {
            Error::new(
                ErrorKind::Unavailable,
                format!("an ack was not sent: {failed}"),
            )
        })
    }
}

impl NatsQueue {
    /// Deletes every stream of this prefix and namespace with all that it holds: for namespaces
    /// that were made to be measured or tested in, when nobody works in them any more.
    ///
    /// # Errors
    /// If a stream is there and cannot be deleted.
    pub async fn remove_namespace(&self) -> Result<(), Error> {
        let subjects = &self.shared().subjects;
        let streams = StreamRole::ALL.map(|role| role.stream(subjects));
        for stream in streams.into_iter().chain([name(subjects)]) {
            delete(&self.shared().context, &stream).await?;
        }
        Ok(())
    }
}

async fn delete(context: &Context, stream: &str) -> Result<(), Error> {
    use async_nats::jetstream::{ErrorCode, response::Response, stream::DeleteStatus};
    let what = format!("deleting the stream {stream}");
    let answer: Response<DeleteStatus> = context
        .request(format!("STREAM.DELETE.{stream}"), &json!({}))
        .await
        .map_err(|failed| error::requesting(&what, failed))?;
    match answer {
        Response::Ok(_) => Ok(()),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(()),
        Response::Err { error } => Err(error::refused(&what, &error)),
    }
}

fn name(subjects: &Subjects) -> String {
    format!("{}{SUFFIX}", StreamRole::Work.stream(subjects))
}

fn refused(what: &str, failed: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{what} failed: {failed}")).with_source(failed)
}
