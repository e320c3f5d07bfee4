//! Durable consumers of commands and of work.
//!
//! Each pull is one request; a consumer that is found gone or deaf is made anew, with its
//! stream if need be, within the same pull. Nothing here decides what a delivery means.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::pull;
use async_trait::async_trait;
use superstep_queue::{Consumer, Delivery, Error, ErrorKind};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    config::StreamRole,
    message,
    pull::{PullError, Puller},
    queue::Shared,
    streams::ensure_consumer,
};

pub(crate) struct NatsConsumer {
    shared: Arc<Shared>,
    role: StreamRole,
    wanted: pull::Config,
    ack_wait: Duration,
    puller: Puller,
}

impl NatsConsumer {
    /// Makes or checks the consumer and its stream.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        role: StreamRole,
        wanted: pull::Config,
    ) -> Result<Self, Error> {
        let ack_wait = attach(shared, role, &wanted).await?;
        let stream = role.stream(&shared.subjects);
        let name = wanted.durable_name.as_deref().unwrap_or_default();
        let client = shared.client.clone();
        let puller = Puller::new(client, &shared.link, &stream, name, Some(ack_wait));
        Ok(Self {
            shared: Arc::clone(shared),
            role,
            wanted,
            ack_wait,
            puller,
        })
    }

    fn deliveries(&self, messages: Vec<async_nats::Message>) -> Vec<Delivery> {
        messages
            .into_iter()
            .filter_map(|message| {
                let delivery =
                    message::delivery(&self.shared.context, &self.shared.subjects, message);
                if delivery.is_none() {
                    warn!("a message without a JetStream ack subject came to a pull; ignored");
                }
                delivery
            })
            .collect()
    }

    /// Makes anew what is gone.
    async fn recover(&mut self, why: &PullError) -> Result<(), Error> {
        let name = self.wanted.durable_name.as_deref().unwrap_or_default();
        warn!(
            consumer = name,
            %why,
            "a consumer does not answer; checking it"
        );
        self.shared
            .link
            .connected(&self.shared.client, Instant::now())
            .await?;
        self.ack_wait = attach(&self.shared, self.role, &self.wanted).await?;
        Ok(())
    }
}

/// Makes or checks stream and consumer, and returns the lease that the consumer has.
async fn attach(
    shared: &Shared,
    role: StreamRole,
    wanted: &pull::Config,
) -> Result<Duration, Error> {
    shared.ensure(role).await?;
    let stream = role.stream(&shared.subjects);
    let found = ensure_consumer(&shared.context, &stream, wanted)
        .await
        .map_err(|failed| shared.explained(failed))?;
    if found.config.ack_wait != wanted.ack_wait {
        warn!(
            consumer = found.name,
            found = ?found.config.ack_wait,
            wanted = ?wanted.ack_wait,
            "the consumer has another ack_wait than the settings; it is used as it is, and made \
             anew with the settings' once it is removed"
        );
    }
    Ok(found.config.ack_wait)
}

#[async_trait]
impl Consumer for NatsConsumer {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let give_up = Instant::now() + wait;
        let mut recovered = false;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match self.puller.pull(max, left).await {
                Ok(messages) => return Ok(self.deliveries(messages)),
                Err(PullError::Failed(failed)) => return Err(failed),
                Err(why) if recovered => {
                    let name = self.wanted.durable_name.as_deref().unwrap_or_default();
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("the consumer {name} does not answer ({why}); retry"),
                    ));
                }
                Err(why) => {
                    self.recover(&why).await?;
                    recovered = true;
                }
            }
        }
    }

    fn ack_wait(&self) -> Duration {
        self.ack_wait
    }
}
