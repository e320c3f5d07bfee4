//! Pulling: a consumer is asked for as much as there are free slots, and no more.
//!
//! What a delivery is and how it is answered is left to whoever handles it; a slot goes with it. The
//! rule it keeps: a worker holds a slot before it pulls, so what it has pulled is worked on at once.

use std::{sync::Arc, time::Duration};

use superstep_queue::{Consumer, Delivery};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    error::chain,
    health::{Doing, UsedSlot},
    threads::Threads,
};

/// The pause after a failed pull.
const PULL_PAUSE: Duration = Duration::from_millis(500);
/// How long a busy graph's pull waits for more.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// How many messages one pull may bring.
const PULL_MAX: usize = 256;

/// How a consumer is pulled.
pub(super) struct Pulling {
    /// What it is called in measures and verdicts.
    pub(super) name: Arc<str>,
    pub(super) is_work: bool,
    pub(super) threads: Threads,
    pub(super) slots: Arc<Semaphore>,
    pub(super) held: TaskTracker,
    pub(super) wait: Duration,
    pub(super) shutdown: CancellationToken,
}

/// Pulls while there are free slots, and hands each delivery to its own task.
pub(super) async fn pull<H, F>(mut consumer: Box<dyn Consumer>, pulling: Pulling, handler: H)
where
    H: Fn(Held) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Pulling {
        name,
        is_work,
        threads,
        slots,
        held,
        wait,
        shutdown,
    } = pulling;
    let ack_wait = consumer.ack_wait();
    let health = threads.health();
    let mut busy = false;
    while !shutdown.is_cancelled() {
        let first = if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            slot
        } else {
            health.does(&name, Doing::Waiting, ack_wait);
            let slot = tokio::select! {
                biased;
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = shutdown.cancelled() => return,
            };
            let Ok(slot) = slot else { return };
            slot
        };
        // A quiet graph waits with one slot and leaves the others to the busy ones; one that
        // just filled what it asked for takes all that are free, but does not wait with them.
        let mut free = vec![first];
        while busy && free.len() < PULL_MAX {
            match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => free.push(slot),
                Err(_) => break,
            }
        }
        let max = free.len();
        health.does(&name, Doing::Pulling, ack_wait);
        let pulled = tokio::select! {
            biased;
            pulled = consumer.pull(max, if busy { BUSY_WAIT } else { wait }) => pulled,
            // The server forgets a pull that nobody listens to; what it hands over in this very
            // moment comes again after its lease.
            () = shutdown.cancelled() => return,
        };
        match pulled {
            Ok(deliveries) => {
                health.pulled(&name, &deliveries, threads.world().now());
                busy = deliveries.len() == max || (busy && !deliveries.is_empty());
                for delivery in deliveries {
                    let Some(slot) = free.pop() else { break };
                    held.spawn(handler(Held {
                        delivery,
                        ack_wait,
                        _slot: slot,
                        _used: is_work.then(|| health.use_slot()),
                    }));
                }
            }
            Err(error) => {
                health.pull_failed(&name);
                warn!(error = chain(&error), "cannot pull; trying again");
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(PULL_PAUSE) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

/// A delivery with the slot it is worked on in.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    pub(super) ack_wait: Duration,
    pub(super) _slot: OwnedSemaphorePermit,
    pub(super) _used: Option<UsedSlot>,
}
