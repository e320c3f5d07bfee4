//! Pulling from a lane, and the four answers to what was pulled.
//!
//! A pull takes what is deliverable at once, else waits for the lane's bell, for another
//! process, or for the end of a lease. It leaves to [`stream`] what is deliverable.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use superstep_queue::{Acker, Consumer, Delivery, DeliveryBody, Error, subject::Subject};
use tokio::{sync::watch, time::Instant};

use super::{
    Shared,
    stream::{self, Lease},
    wake::Topic,
};
use crate::value::later;

pub(super) struct SqliteConsumer {
    shared: Arc<Shared>,
    bell: watch::Receiver<()>,
    lane: String,
    ack_wait: Duration,
}

impl SqliteConsumer {
    pub(super) fn new(shared: Arc<Shared>, lane: String, ack_wait: Duration) -> Self {
        Self {
            bell: shared.wake.bell(Topic::Lane(lane.clone())),
            shared,
            lane,
            ack_wait,
        }
    }

    fn delivery(&self, lease: Lease) -> Delivery {
        Delivery {
            kind: self.shared.kind_of(&lease.subject),
            id: lease.id,
            published_at: lease.published_at,
            attempt: lease.attempt,
            headers: lease.headers,
            body: lease.body,
            acker: Box::new(SqliteAcker {
                shared: Arc::clone(&self.shared),
                lane: self.lane.clone(),
                sequence: lease.sequence,
                attempt: lease.attempt,
                ack_wait: self.ack_wait,
            }),
        }
    }
}

impl Shared {
    fn kind_of(&self, subject: &str) -> DeliveryBody {
        match self.subjects.parse(subject) {
            Some(Subject::Command { kind, target }) => DeliveryBody::Command { kind, target },
            Some(Subject::Work { graph }) => DeliveryBody::Work { graph },
            Some(Subject::Event { .. } | Subject::Output { .. }) | None => DeliveryBody::Unknown {
                subject: subject.to_owned(),
            },
        }
    }
}

#[async_trait]
impl Consumer for SqliteConsumer {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let give_up = Instant::now() + wait;
        loop {
            self.bell.mark_unchanged();
            let (lane, ack_wait) = (self.lane.clone(), self.ack_wait);
            let taken = self.shared.write_unsynced(move |connection, now| {
                stream::take(connection, &lane, max, ack_wait, now)
            });
            let (leases, next) = taken.await?;
            if !leases.is_empty() || Instant::now() >= give_up {
                return Ok(leases.into_iter().map(|l| self.delivery(l)).collect());
            }
            let until = next.map_or(give_up, |next| {
                // One more, as the clock's milliseconds are whole ones.
                let ms = (next.0 + 1).saturating_sub(self.shared.database.now().0);
                give_up.min(Instant::now() + Duration::from_millis(ms))
            });
            self.shared.wake.wait(&mut self.bell, until).await;
        }
    }

    fn ack_wait(&self) -> Duration {
        self.ack_wait
    }
}

#[derive(Debug)]
struct SqliteAcker {
    shared: Arc<Shared>,
    lane: String,
    sequence: u64,
    attempt: u64,
    ack_wait: Duration,
}

impl SqliteAcker {
    async fn deliver_after(&self, delay: Duration) -> Result<(), Error> {
        let (sequence, attempt) = (self.sequence, self.attempt);
        self.shared
            .write_unsynced(move |connection, now| {
                stream::deliver_at(connection, sequence, attempt, later(now, delay))
            })
            .await
    }
}

#[async_trait]
impl Acker for SqliteAcker {
    async fn ack(&self) -> Result<(), Error> {
        let sequence = self.sequence;
        self.shared
            .write_unsynced(move |connection, _| stream::remove(connection, sequence))
            .await
    }

    async fn nak(&self, delay: Duration) -> Result<(), Error> {
        self.deliver_after(delay).await?;
        self.shared.wake.ring(&Topic::Lane(self.lane.clone()));
        Ok(())
    }

    async fn term(&self, _reason: &str) -> Result<(), Error> {
        self.ack().await
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.deliver_after(self.ack_wait).await
    }
}
