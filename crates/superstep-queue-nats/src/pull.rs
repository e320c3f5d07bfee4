//! Pull requests: what is at hand at once, else the first message within a time.
//!
//! One request does both. With `no_wait` and an expiry a server (2.9 and later) answers with
//! what is at hand, up to the batch, and ends the request; with nothing at hand it waits for
//! the first message. So a short batch never waits out the expiry, and the server holds
//! nothing for us beyond what was asked for. Heartbeats tell a quiet consumer from one that is
//! gone. What to do when it is gone is left to the caller.
//!
//! Old servers (seen with 2.9.10) now and then never say that a short request is over. Without
//! heartbeats nothing tells that from a server that is gone, so it is asked again; only if that
//! brings no answer either is it taken to be silent.
//!
//! A pull whose future is dropped keeps its request here: the next pull goes on with it, so
//! that messages already on their way are not lost for the length of a lease. What such a
//! request brings beyond the next pull's bound is given back at once.

use std::{collections::VecDeque, fmt, time::Duration};

use async_nats::{Client, Message, StatusCode, Subscriber, jetstream::consumer::pull::BatchConfig};
use bytes::Bytes;
use futures_util::StreamExt;
use superstep_queue::{Error, ErrorKind};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{connect::Link, message::send};

/// A longer wait is several requests.
const EXPIRES_MAX: Duration = Duration::from_secs(30);
/// A shorter wait asks only for what is at hand.
const EXPIRES_MIN: Duration = Duration::from_millis(5);
/// How often a waiting request shows that it lives; it must be below half the expiry.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The answers that may be late by this, beyond two heartbeats or the expiry.
const ANSWER_SLACK: Duration = Duration::from_millis(1500);
/// How long a request that has brought something, or that is past its end and has no heartbeats,
/// may be silent before its end is taken for granted. Servers say the end at once; this guards
/// against one that does not.
const LINGER: Duration = Duration::from_millis(100);
/// The pause after a server said that it cannot deliver now.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// Why a pull ended without an answer.
pub(crate) enum PullError {
    /// The consumer or its stream is not there, or no longer as it was.
    Gone(String),
    /// Neither messages nor heartbeats came.
    Deaf,
    /// The request could not be made.
    Failed(Error),
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(said) => write!(f, "it is gone: {said}"),
            Self::Deaf => f.write_str("it is silent"),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

/// The pull requests of one consumer.
pub(crate) struct Puller {
    client: Client,
    link: Link,
    /// Where requests go.
    subject: String,
    /// How long a delivery that nobody has read yet may be taken for ours.
    lease: Option<Duration>,
    connections: watch::Receiver<u64>,
    inbox: Option<Inbox>,
    request: Option<Request>,
    requests: u64,
    /// Since when requests have ended without a word from the server.
    unanswered: Option<Instant>,
    ready: VecDeque<Message>,
    /// When somebody last waited here.
    touched: Instant,
}

struct Inbox {
    prefix: String,
    messages: Subscriber,
}

struct Request {
    token: String,
    left: usize,
    ends_at: Instant,
    has_heartbeat: bool,
    /// When it is over at the latest, if nothing more is heard.
    deaf_at: Instant,
}

impl Puller {
    pub(crate) fn new(
        client: Client,
        link: &Link,
        stream: &str,
        consumer: &str,
        lease: Option<Duration>,
    ) -> Self {
        Self {
            client,
            link: link.clone(),
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            lease,
            connections: link.connections(),
            inbox: None,
            request: None,
            requests: 0,
            unanswered: None,
            ready: VecDeque::new(),
            touched: Instant::now(),
        }
    }

    /// Up to `max` messages: those at hand, else the first that comes within `wait`.
    pub(crate) async fn pull(
        &mut self,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Message>, PullError> {
        let give_up = Instant::now() + wait;
        self.forget_stale();
        let mut asked = false;
        loop {
            let now = Instant::now();
            self.touched = now;
            let Some(request) = &self.request else {
                if !self.ready.is_empty() || (asked && now >= give_up) {
                    return Ok(self.take(max).await);
                }
                self.ask(max, give_up.saturating_duration_since(now))
                    .await?;
                asked = true;
                continue;
            };
            let until = if self.ready.is_empty() {
                request.deaf_at
            } else {
                now + LINGER
            };
            let inbox = self.inbox.as_mut().expect("a request has an inbox");
            tokio::select! {
                biased;
                message = inbox.messages.next() => match message {
                    Some(message) => self.receive(message, give_up).await?,
                    None => return Err(self.lost("the connection was closed")),
                },
                // A new connection: the server may know nothing of the request, or still know it.
                // A new inbox makes sure that it cannot bring anything beside the next one.
                Ok(()) = self.connections.changed() => {
                    self.request = None;
                    self.inbox = None;
                    self.unanswered = None;
                }
                () = sleep_until(until) => {
                    if !self.ready.is_empty() {
                        return Ok(self.take(max).await);
                    }
                    if request.has_heartbeat || self.is_deaf() {
                        self.reset();
                        return Err(PullError::Deaf);
                    }
                    self.request = None;
                }
            }
        }
    }

    /// A request without heartbeats ended without a word: whether the server has been silent for
    /// too long by now.
    fn is_deaf(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.unanswered.get_or_insert(now) + ANSWER_SLACK
    }

    /// Forgets everything that is on its way; unread deliveries come again after their lease.
    fn reset(&mut self) {
        self.inbox = None;
        self.request = None;
        self.unanswered = None;
        self.ready.clear();
    }

    /// Forgets what an earlier pull left if its leases may be over.
    fn forget_stale(&mut self) {
        let is_stale = |lease: Duration| self.touched.elapsed() > lease / 2;
        if self.lease.is_some_and(is_stale) {
            self.ready.clear();
            if self.request.take().is_some() {
                self.inbox = None;
            }
        }
    }

    /// Hands out what came, and gives back what is more than `max`.
    async fn take(&mut self, max: usize) -> Vec<Message> {
        while self.lease.is_some() && self.ready.len() > max {
            let excess = self.ready.pop_back();
            if let Some(reply) = excess.and_then(|message| message.reply) {
                // Lost, it costs the length of a lease.
                let _ = send(&self.client, reply, Bytes::from_static(b"-NAK")).await;
            }
        }
        let count = self.ready.len().min(max);
        self.ready.drain(..count).collect()
    }

    async fn ask(&mut self, batch: usize, wait: Duration) -> Result<(), PullError> {
        if self.inbox.is_none() {
            self.inbox = Some(self.open_inbox().await?);
        }
        let inbox = self.inbox.as_ref().expect("just opened");
        let expires = (wait >= EXPIRES_MIN).then(|| wait.min(EXPIRES_MAX));
        let heartbeat = expires.is_some_and(|expires| expires > HEARTBEAT * 2);
        let request = BatchConfig {
            batch,
            expires,
            no_wait: true,
            idle_heartbeat: if heartbeat { HEARTBEAT } else { Duration::ZERO },
            ..BatchConfig::default()
        };
        let body = serde_json::to_vec(&request).expect("a pull request is plain data");
        self.requests += 1;
        let token = format!("{}.{}", inbox.prefix, self.requests);
        let sent = self
            .client
            .publish_with_reply(self.subject.clone(), token.clone(), body.into());
        match timeout(ANSWER_SLACK, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => return Err(self.lost(&failed.to_string())),
            Err(_) => return Err(PullError::Deaf),
        }
        let now = Instant::now();
        let ends_at = now + expires.unwrap_or_default();
        let mut request = Request {
            token,
            left: batch,
            ends_at,
            has_heartbeat: heartbeat,
            deaf_at: ends_at,
        };
        request.heard(now);
        self.request = Some(request);
        Ok(())
    }

    async fn open_inbox(&self) -> Result<Inbox, PullError> {
        let prefix = self.client.new_inbox();
        let subscribed = self.client.subscribe(format!("{prefix}.*"));
        match timeout(ANSWER_SLACK, subscribed).await {
            Ok(Ok(messages)) => Ok(Inbox { prefix, messages }),
            Ok(Err(failed)) => Err(self.lost(&failed.to_string())),
            Err(_) => Err(PullError::Deaf),
        }
    }

    async fn receive(&mut self, message: Message, give_up: Instant) -> Result<(), PullError> {
        let now = Instant::now();
        self.unanswered = None;
        let Some(status) = message.status else {
            self.ready.push_back(message);
            if let Some(request) = &mut self.request {
                request.heard(now);
                request.left -= 1;
                if request.left == 0 {
                    self.request = None;
                }
            }
            return Ok(());
        };
        let Some(request) = &mut self.request else {
            return Ok(());
        };
        if message.subject.as_str() != request.token {
            // The end of an earlier request.
            return Ok(());
        }
        let said = message.description.unwrap_or_default();
        match status.as_u16() {
            100 => request.heard(now),
            404 | 408 => self.request = None,
            409 if said.contains("MaxAckPending") || said.contains("MaxWaiting") => {
                self.request = None;
                sleep(BUSY_PAUSE.min(give_up.saturating_duration_since(now))).await;
            }
            409 if said.contains("Batch Completed") || said.contains("MaxBytes") => {
                self.request = None;
            }
            _ => {
                self.request = None;
                if self.ready.is_empty() {
                    return Err(gone(status, &said));
                }
            }
        }
        Ok(())
    }

    fn lost(&self, why: &str) -> PullError {
        PullError::Failed(Error::new(
            ErrorKind::Unavailable,
            format!(
                "pulling from NATS at {} failed: {why}; retry",
                self.link.addresses
            ),
        ))
    }
}

impl Request {
    /// A sign of life.
    fn heard(&mut self, now: Instant) {
        self.deaf_at = if self.has_heartbeat {
            self.ends_at.min(now + HEARTBEAT * 2).max(now) + ANSWER_SLACK
        } else {
            self.ends_at.max(now) + LINGER
        };
    }
}

fn gone(status: StatusCode, said: &str) -> PullError {
    PullError::Gone(match status {
        StatusCode::NO_RESPONDERS => "nobody answers for it".to_owned(),
        _ => format!("{} {said}", status.as_u16()),
    })
}
