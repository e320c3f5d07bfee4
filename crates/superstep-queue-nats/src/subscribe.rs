//! Subscriptions to stored events and to live output.
//!
//! A subscription to events reads through a consumer of its own that the server forgets soon
//! after the reader is gone. The place to read from is kept here: whatever happens to the
//! consumer, the connection or the stream, reading goes on after the last event that was
//! handed out, and from the first event of a stream that was made anew.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{
    Message, Subscriber,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, pull},
        stream,
    },
};
use async_trait::async_trait;
use futures_util::StreamExt;
use superstep_queue::{Error, ErrorKind, EventFilter, Received, Subscription};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    config::StreamRole,
    message::{received, sequence},
    pull::{PullError, Puller},
    queue::Shared,
    streams::create_consumer,
};

/// Events fetched at once; they need no lease, so reading ahead harms nobody.
const BATCH: usize = 256;
const WAIT: Duration = Duration::from_secs(30);
/// How long the server keeps the consumer of a reader that is silent.
const INACTIVE: Duration = Duration::from_secs(60);
/// The pause between attempts to go on while the servers do not answer.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct EventSubscription {
    shared: Arc<Shared>,
    filter: String,
    /// When the stream was made that `next` counts in, in nanoseconds since the epoch.
    made_at: i128,
    /// The first sequence that was not handed out.
    next: u64,
    puller: Option<Puller>,
    fetched: VecDeque<Message>,
}

impl EventSubscription {
    pub(crate) async fn open(shared: &Arc<Shared>, filter: &EventFilter) -> Result<Self, Error> {
        let pattern = shared.subjects.events_of(filter)?;
        let stream = shared.ensure(StreamRole::Events).await?;
        let next = if filter.from_start {
            1
        } else {
            stream.state.last_sequence + 1
        };
        let mut subscription = Self {
            shared: Arc::clone(shared),
            filter: pattern,
            made_at: made_at(&stream),
            next,
            puller: None,
            fetched: VecDeque::new(),
        };
        subscription.puller = Some(subscription.attach().await?);
        Ok(subscription)
    }

    /// A consumer of its own, from `next` on.
    async fn attach(&self) -> Result<Puller, Error> {
        let stream = StreamRole::Events.stream(&self.shared.subjects);
        let inbox = self.shared.client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let config = pull::Config {
            name: Some(format!("reader-{unique}")),
            description: Some("superstep: a reader of events".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.next,
            },
            ack_policy: AckPolicy::None,
            filter_subject: self.filter.clone(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let made = create_consumer(&self.shared.context, &stream, &config).await?;
        let client = self.shared.client.clone();
        Ok(Puller::new(
            client,
            &self.shared.link,
            &stream,
            &made.name,
            None,
        ))
    }

    /// Goes on after the consumer or more was lost.
    async fn attach_again(&mut self) -> Result<Puller, Error> {
        let stream = self.shared.ensure(StreamRole::Events).await?;
        let found = made_at(&stream);
        if found != self.made_at {
            warn!("the stream of events was made anew; reading it from its start");
            self.made_at = found;
            self.next = 1;
        }
        self.attach().await
    }
}

fn made_at(stream: &stream::Info) -> i128 {
    stream.created.unix_timestamp_nanos()
}

#[async_trait]
impl Subscription for EventSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        loop {
            while let Some(message) = self.fetched.pop_front() {
                let event = received(&message);
                match sequence(&self.shared.context, message) {
                    Some(sequence) if sequence >= self.next => {
                        self.next = sequence + 1;
                        return Ok(Some(event));
                    }
                    // Handed out before the consumer was made anew.
                    _ => {}
                }
            }
            let Some(puller) = &mut self.puller else {
                match self.attach_again().await {
                    Ok(puller) => self.puller = Some(puller),
                    Err(failed) if failed.kind() == ErrorKind::Unavailable => {
                        debug!(error = %failed, "cannot read events now");
                        sleep(PAUSE).await;
                    }
                    Err(failed) => return Err(failed),
                }
                continue;
            };
            match puller.pull(BATCH, WAIT).await {
                Ok(messages) => self.fetched.extend(messages),
                Err(why) => {
                    debug!(%why, "the reader of events lost its consumer");
                    self.puller = None;
                    if matches!(why, PullError::Failed(_)) {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Live messages of core NATS.
pub(crate) struct CoreSubscription(pub(crate) Subscriber);

#[async_trait]
impl Subscription for CoreSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        Ok(self.0.next().await.map(|message| received(&message)))
    }
}
