//! Messages between the port's form and the client's, and the four answers to a delivery.
//!
//! A delivery's id, attempt and time stand in the subject that its ack goes to. Acks are
//! plain publishes: a lost one costs a redelivery, which the protocol expects, and a confirmed
//! one would cost a round trip for each message.

use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Subject, jetstream};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use superstep_protocol::UnixMillis;
use superstep_queue::{
    Acker, Delivery, DeliveryBody, Error, ErrorKind, Headers, Received,
    subject::{Subject as Parsed, Subjects},
};
use tokio::time::timeout;

/// How long a message may wait to be handed to the connection. It waits only while the
/// connection is down and what was sent before fills its buffer.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason of a term that is told to the server.
const REASON_CHARS_MAX: usize = 200;

/// Headers as the client has them.
pub(crate) fn headers_out(headers: &Headers) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let invalid = |why: String| {
            Error::new(
                ErrorKind::Invalid,
                format!("the header {name:?} cannot be sent: {why}; rename or encode it"),
            )
        };
        let value: HeaderValue = value.parse().map_err(|bad| invalid(format!("{bad}")))?;
        let name: HeaderName = name.parse().map_err(|bad| invalid(format!("{bad}")))?;
        map.insert(name, value);
    }
    Ok(map)
}

/// Headers as the port has them; of several values the first.
fn headers_in(headers: Option<&HeaderMap>) -> Headers {
    let Some(headers) = headers else {
        return Headers::new();
    };
    headers
        .iter()
        .filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string())))
        .collect()
}

/// A stored event or a live message, as a subscriber gets it.
pub(crate) fn received(message: &async_nats::Message) -> Received {
    Received {
        subject: message.subject.to_string(),
        headers: headers_in(message.headers.as_ref()),
        body: message.payload.clone(),
    }
}

/// A pulled message as a delivery; `None` if it carries no ack subject, which JetStream's
/// messages always do.
pub(crate) fn delivery(
    context: &jetstream::Context,
    subjects: &Subjects,
    message: async_nats::Message,
) -> Option<Delivery> {
    let reply = message.reply.clone()?;
    let message = jetstream::Message {
        message,
        context: context.clone(),
    };
    let info = message.info().ok()?;
    let subject = message.subject.as_str();
    let kind = match subjects.parse(subject) {
        Some(Parsed::Command { kind, target }) => DeliveryBody::Command { kind, target },
        Some(Parsed::Work { graph }) => DeliveryBody::Work { graph },
        Some(Parsed::Event { .. } | Parsed::Output { .. }) | None => DeliveryBody::Unknown {
            subject: subject.to_owned(),
        },
    };
    let published_ms = info.published.unix_timestamp_nanos() / 1_000_000;
    Some(Delivery {
        kind,
        id: message_id(info.stream, info.stream_sequence),
        published_at: UnixMillis(u64::try_from(published_ms).unwrap_or_default()),
        attempt: u64::try_from(info.delivered).unwrap_or(1),
        headers: headers_in(message.headers.as_ref()),
        body: message.payload.clone(),
        acker: Box::new(NatsAcker {
            client: context.client(),
            reply,
        }),
    })
}

/// The sequence of a pulled message in its stream.
pub(crate) fn sequence(context: &jetstream::Context, message: async_nats::Message) -> Option<u64> {
    let message = jetstream::Message {
        message,
        context: context.clone(),
    };
    message.info().ok().map(|info| info.stream_sequence)
}

/// What names a message in its stream.
pub(crate) fn message_id(stream: &str, sequence: u64) -> String {
    format!("{stream}:{sequence}")
}

/// Hands a core message to the connection.
pub(crate) async fn send(
    client: &Client,
    subject: impl Into<Subject>,
    body: Bytes,
) -> Result<(), Error> {
    let subject = subject.into();
    let failed = |why: String| {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "a message to {} was not sent: {why}; retry",
                subject.clone()
            ),
        )
    };
    match timeout(HAND_OVER_TIMEOUT, client.publish(subject.clone(), body)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("the connection to NATS is down".to_owned())),
    }
}

struct NatsAcker {
    client: Client,
    reply: Subject,
}

impl NatsAcker {
    async fn answer(&self, answer: impl Into<Bytes>) -> Result<(), Error> {
        send(&self.client, self.reply.clone(), answer.into()).await
    }
}

impl std::fmt::Debug for NatsAcker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NatsAcker({})", self.reply)
    }
}

#[async_trait]
impl Acker for NatsAcker {
    async fn ack(&self) -> Result<(), Error> {
        self.answer("+ACK").await
    }

    async fn nak(&self, delay: Duration) -> Result<(), Error> {
        if delay.is_zero() {
            return self.answer("-NAK").await;
        }
        let delay = json!({"delay": u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)});
        self.answer(format!("-NAK {delay}")).await
    }

    async fn term(&self, reason: &str) -> Result<(), Error> {
        // Before 2.11 a server would not read the word with something behind it.
        if self.client.is_server_compatible(2, 11, 0) {
            let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
            return self.answer(format!("+TERM {reason}")).await;
        }
        self.answer("+TERM").await
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.answer("+WPI").await
    }
}
