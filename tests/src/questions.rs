//! The questions of a cluster as a person hears them: from the events stream, by a plain client.
//!
//! The consumer is durable, so nothing asked between two looks is missed, and it is made again if
//! the stream was. The rule it keeps: what is not acked is heard again, after five seconds.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt as _;

/// How long one look may take: a request may have died with its server, and nobody would say so.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// What has been asked since the last look; nothing if nobody tells.
pub async fn questions(context: &jetstream::Context) -> Vec<Message> {
    let heard = tokio::time::timeout(LOOK_WITHIN, look(context)).await;
    heard.ok().flatten().unwrap_or_default()
}

async fn look(context: &jetstream::Context) -> Option<Vec<Message>> {
    let stream = context.get_stream("SUPERSTEP_default_EVENTS").await.ok()?;
    let wanted = pull::Config {
        durable_name: Some("person".to_owned()),
        filter_subject: "superstep.default.events.interrupt.>".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(5),
        ..pull::Config::default()
    };
    let consumer: PullConsumer = stream.get_or_create_consumer("person", wanted).await.ok()?;
    let mut messages = consumer.fetch().max_messages(50).messages().await.ok()?;
    let mut heard = Vec::new();
    while let Some(Ok(message)) = messages.next().await {
        heard.push(message);
    }
    Some(heard)
}
