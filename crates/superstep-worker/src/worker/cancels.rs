//! Cancels that are heard: whoever works on a thread that was cancelled looks at it at once.
//!
//! The events of cancelled runs are listened to as they go by, whoever published them. The rule it
//! keeps: hearing is liveness only. What is not heard is found by the look that comes anyway, and what
//! is heard makes a worker read the thread, not believe the event.

use std::{sync::Arc, time::Duration};

use superstep_protocol::ThreadId;
use superstep_queue::Queue;
use superstep_wire::decode;
use tokio::sync::broadcast;
use tracing::debug;

/// How many cancels may wait for one that is busy; beyond that it looks once for all of them.
const HEARD_MAX: usize = 256;
/// The pause before listening again.
const PAUSE: Duration = Duration::from_secs(1);

/// Threads of which a run was cancelled, for whoever works on one of them.
#[derive(Clone, Debug)]
pub(crate) struct Cancels {
    heard: broadcast::Sender<ThreadId>,
}

impl Default for Cancels {
    fn default() -> Self {
        Self {
            heard: broadcast::Sender::new(HEARD_MAX),
        }
    }
}

impl Cancels {
    /// Hears of all that come from now on.
    pub(super) fn ear(&self) -> Ear {
        Ear(self.heard.subscribe())
    }

    /// Listens until it is dropped.
    pub(super) async fn listen(self, queue: Arc<dyn Queue>) {
        loop {
            match queue.cancellations().await {
                Ok(mut cancellations) => loop {
                    match cancellations.next().await {
                        Ok(Some(received)) => {
                            if let Ok(event) = decode::event(&received.body) {
                                // Nobody may be at work.
                                let _ = self.heard.send(event.thread_id.into());
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            debug!(%error, "cancels are not heard of");
                            break;
                        }
                    }
                },
                Err(error) => debug!(%error, "cancels are not heard of"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One that hears.
pub(super) struct Ear(broadcast::Receiver<ThreadId>);

impl Ear {
    /// Waits for the next cancel of the thread that `of` names at that time, or until some were
    /// missed.
    pub(super) async fn hears(&mut self, of: impl Fn() -> Option<ThreadId>) {
        loop {
            match self.0.recv().await {
                Ok(thread) if of().is_some_and(|of| of == thread) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
