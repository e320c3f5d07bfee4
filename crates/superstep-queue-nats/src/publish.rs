//! Publishing to streams: pipelined, every ack awaited, a bounded number in flight.
//!
//! Messages go out in order, a window at a time; what got no answer goes out again a few times
//! unless that could store it twice. A stream that is gone is made anew. What the stream
//! refuses is told at once: the caller knows whether a refused message is owed or forgotten.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, join_all, select},
};
use superstep_queue::{Error, ErrorKind, Headers};
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::{error, message::headers_out, queue::Shared};

/// How long an ack may be late after the connection was made anew.
const LATE_ACK: Duration = Duration::from_millis(500);
/// Messages of one call that are in flight at once.
const WINDOW: usize = 128;
/// Messages of this connection that are in flight at once, over all calls. More would starve
/// consumers of the same connection.
pub(crate) const IN_FLIGHT_MAX: usize = 4 * WINDOW;
/// The pauses before what got no answer is sent again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// A message on its way to a stream.
pub(crate) struct Outgoing {
    subject: String,
    headers: HeaderMap,
    body: Bytes,
    /// Whether it may be stored twice, or the stream would know it again.
    pub(crate) repeatable: bool,
    ack: Option<PublishAck>,
}

/// Why a message got no ack.
enum Failure {
    /// It was not stored.
    NotStored(Error),
    /// It may be stored.
    Unknown(Error),
    /// The stream said no.
    Refused(Error),
}

impl Outgoing {
    pub(crate) fn new(
        shared: &Shared,
        subject: String,
        headers: &Headers,
        body: &Bytes,
        repeatable: bool,
    ) -> Result<Self, Error> {
        shared.check_size(body.len())?;
        Ok(Self {
            subject,
            headers: headers_out(headers)?,
            body: body.clone(),
            repeatable,
            ack: None,
        })
    }
}

impl Shared {
    /// Publishes all messages and returns their acks, in order.
    pub(crate) async fn publish(
        &self,
        mut messages: Vec<Outgoing>,
    ) -> Result<Vec<PublishAck>, Error> {
        let mut pauses = PAUSES.iter();
        while let Err(failure) = self.publish_missing(&mut messages).await {
            let (failed, may_repeat) = match failure {
                Failure::Refused(failed) => return Err(failed),
                Failure::NotStored(failed) => (failed, true),
                Failure::Unknown(failed) => {
                    let unacked = messages.iter().filter(|message| message.ack.is_none());
                    let may_repeat = unacked.into_iter().all(|message| message.repeatable);
                    (failed, may_repeat)
                }
            };
            let Some(pause) = pauses.next().filter(|_| may_repeat) else {
                return Err(failed);
            };
            debug!(error = %failed, "publishing again");
            sleep(*pause).await;
        }
        let acks = messages.into_iter().map(|message| message.ack);
        Ok(acks
            .map(|ack| ack.expect("every message was acked"))
            .collect())
    }

    /// Publishes what has no ack yet; on several failures returns the gravest.
    async fn publish_missing(&self, messages: &mut [Outgoing]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.settings.request_timeout;
        let connected = self.link.connected(&self.client, deadline).await;
        connected.map_err(Failure::NotStored)?;
        let mut missing: Vec<&mut Outgoing> = messages
            .iter_mut()
            .filter(|message| message.ack.is_none())
            .collect();
        for window in missing.chunks_mut(WINDOW) {
            match self.publish_window(window).await {
                Err(Failure::NotStored(failed)) => {
                    // The stream may be gone; with it made anew the next attempt succeeds.
                    self.setup().await.map_err(|error| match error.kind() {
                        ErrorKind::Unavailable => Failure::NotStored(failed),
                        _ => Failure::Refused(error),
                    })?;
                    return Err(Failure::NotStored(Error::new(
                        ErrorKind::Unavailable,
                        "the stream was gone and was made anew; retry",
                    )));
                }
                // Where somebody else listens to the subject, as to events, the server does not
                // say that no stream does: the ack just never comes.
                Err(Failure::Unknown(failed)) => {
                    return Err(match self.setup().await {
                        Err(error) if error.kind() != ErrorKind::Unavailable => {
                            Failure::Refused(error)
                        }
                        _ => Failure::Unknown(failed),
                    });
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Sends a window of messages in order, then awaits their acks.
    async fn publish_window(&self, window: &mut [&mut Outgoing]) -> Result<(), Failure> {
        let count = u32::try_from(window.len()).expect("a window is small");
        let permits = self.in_flight.acquire_many(count).await;
        let _permits = permits.expect("the semaphore is never closed");
        let mut connections = self.link.connections();
        let mut sent: Vec<Result<PublishAckFuture, PublishError>> = Vec::new();
        for message in window.iter() {
            let publish = PublishMessage::build()
                .headers(message.headers.clone())
                .payload(message.body.clone());
            let subject = message.subject.clone();
            sent.push(self.context.send_publish(subject, publish).await);
        }
        // What a server took before its connection was lost is not acked on the next one.
        let lost = async move {
            let _ = connections.changed().await;
            sleep(LATE_ACK).await;
        };
        let lost = lost.boxed().shared();
        let acked = sent.into_iter().map(|sent| {
            let lost = lost.clone();
            async move {
                match select(sent?.into_future(), lost).await {
                    Either::Left((acked, _)) => acked,
                    Either::Right(_) => Err(PublishError::new(PublishErrorKind::BrokenPipe)),
                }
            }
        });
        // All at once: each has a timeout of its own.
        let acked = join_all(acked).await;
        let mut gravest: Result<(), Failure> = Ok(());
        for (message, acked) in window.iter_mut().zip(acked) {
            match acked {
                Ok(ack) => message.ack = Some(ack),
                Err(failed) => {
                    let failure = self.failure(&message.subject, failed);
                    gravest = Err(match gravest {
                        Err(known) => graver(known, failure),
                        Ok(()) => failure,
                    });
                }
            }
        }
        gravest
    }

    fn failure(&self, subject: &str, failed: PublishError) -> Failure {
        let kind = failed.kind();
        let error = error::publishing(subject, failed);
        match kind {
            PublishErrorKind::StreamNotFound => Failure::NotStored(error),
            PublishErrorKind::TimedOut => match self.link.violation(subject) {
                Some(said) => Failure::Refused(Error::new(
                    ErrorKind::Denied,
                    format!("NATS forbids the publish ({said}); allow it to this user"),
                )),
                None => Failure::Unknown(error),
            },
            _ if error.kind() == ErrorKind::Unavailable => Failure::Unknown(error),
            _ => Failure::Refused(error),
        }
    }

    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let max = self.body_bytes_max();
        if bytes <= max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the body has {bytes} bytes, NATS at {} takes {max}; send less, or raise its \
                 max_payload",
                self.link.addresses
            ),
        ))
    }
}

fn graver(one: Failure, other: Failure) -> Failure {
    match (one, other) {
        (refused @ Failure::Refused(_), _) | (_, refused @ Failure::Refused(_)) => refused,
        (unknown @ Failure::Unknown(_), _) | (_, unknown @ Failure::Unknown(_)) => unknown,
        (one, _) => one,
    }
}
