//! A namespace of a measurement's own, made for it and taken away with it.
//!
//! Connecting is left to the adapters, and what runs there to `workers` and `drive`. The rule it
//! keeps: the namespace's name is drawn anew each time, so that nothing that was there before is
//! ever in it.

use std::sync::Arc;

use superstep::connect::{Cluster, ConnectError, ConnectSettings};
use superstep_checkpoint::{Inspect, ThreadLog};
use superstep_checkpoint_redis::RedisLog;
use superstep_protocol::ThreadId;
use superstep_queue::{Queue, subject::Subjects};
use superstep_queue_nats::NatsQueue;
use superstep_worker::{Step, SystemWorld, Verifier, World as _};

use super::{drive::thread, verdict::Tally};
use crate::exit::Failure;

/// Up to so many threads are all verified; of more, so many are picked.
const VERIFIED_MAX: u64 = 1_000;

/// A namespace, connected to.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// How it is reached, by this process and others.
    pub(crate) settings: ConnectSettings,
    pub(crate) cluster: Cluster,
    log: Arc<RedisLog>,
    queue: Arc<NatsQueue>,
}

impl Place {
    /// Draws a namespace on the servers that `settings` name, and connects.
    pub(crate) async fn open(settings: &ConnectSettings) -> Result<Self, Failure> {
        let namespace = format!("bench-{:012x}", SystemWorld.nonce().0 & 0xffff_ffff_ffff);
        Self::join(ConnectSettings {
            namespace: Some(namespace),
            ..settings.clone()
        })
        .await
    }

    /// Connects to the namespace that `settings` name.
    pub(crate) async fn join(settings: ConnectSettings) -> Result<Self, Failure> {
        let cluster = settings.check();
        let cluster = cluster.map_err(|mistakes| Failure::usage(mistakes.to_string()))?;
        let (queue, log) = tokio::join!(
            Box::pin(NatsQueue::connect(cluster.nats.clone())),
            Box::pin(RedisLog::connect(cluster.redis.clone()))
        );
        Ok(Self {
            settings,
            cluster,
            log: Arc::new(log?),
            queue: Arc::new(queue?),
        })
    }

    /// The threads.
    pub(crate) fn log(&self) -> Arc<dyn ThreadLog> {
        Arc::clone(&self.log) as Arc<dyn ThreadLog>
    }

    /// The messages.
    pub(crate) fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue) as Arc<dyn Queue>
    }

    /// The names of the messages.
    pub(crate) fn subjects(&self) -> &Subjects {
        &self.cluster.subjects
    }

    /// Waits until what was handed to the connection has left this process.
    pub(crate) async fn flush(&self) -> Result<(), Failure> {
        Ok(self.queue.flush().await?)
    }

    /// Reads threads to their last record and notes in `tally` what is wrong; answers how many
    /// were read.
    pub(crate) async fn verify(&self, runs: u64, tally: &mut Tally) -> Result<u64, Failure> {
        let inspect = Arc::clone(&self.log) as Arc<dyn Inspect>;
        verify(&Verifier::new(self.log(), inspect), runs, tally).await
    }

    /// Removes the namespace: its streams and all its keys.
    pub(crate) async fn remove(self) -> Result<(), Failure> {
        let (streams, keys) = tokio::join!(
            self.queue.remove_namespace(),
            Box::pin(self.log.remove_namespace())
        );
        streams?;
        Ok(keys?)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::usage(superstep_worker::chain(&error))
    }
}

async fn verify(verifier: &Verifier, runs: u64, tally: &mut Tally) -> Result<u64, Failure> {
    let mut wrong = Vec::new();
    let note = |step: Step| {
        if let Step::Wrong(found) = step {
            wrong.push(format!(
                "{} {}: {}: {}",
                found.check, found.thread_id, found.subject, found.detail
            ));
        }
    };
    let threads = if runs <= VERIFIED_MAX {
        let all = Box::pin(verifier.all(note)).await?;
        if all.threads != runs {
            let why = format!("the store holds {} threads of {runs} runs", all.threads);
            tally.wrong(None, &why);
        }
        all.threads
    } else {
        let mut note = note;
        let mut threads = 0;
        for pick in 0..VERIFIED_MAX {
            let id: ThreadId = thread(pick * runs / VERIFIED_MAX);
            threads += Box::pin(verifier.one(&id, &mut note)).await?.threads;
        }
        threads
    };
    for why in wrong {
        tally.wrong(None, &why);
    }
    Ok(threads)
}
