//! Stopping: how the tasks of a dispatch learn that they are to end, and when they are dropped.
//!
//! Nodes are told first. Where the thread went on without them (it was cancelled, or another run took
//! its place) they have a grace to clean up; where the worker drains, what is left of the drain. Who
//! decides that a thread went on is left to whoever watches over it.
//!
//! The rule it keeps: a task that is stopped has no result. What a node makes of the grace is its own
//! affair and never reaches the thread.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How the tasks of one dispatch are stopped.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// What nodes see.
    told: CancellationToken,
    /// The thread went on without these tasks.
    gone: CancellationToken,
    /// Nodes are dropped at once.
    now: CancellationToken,
    grace: Duration,
}

impl Stop {
    /// Nodes are told when `draining` is, dropped when `stopping` is.
    pub(crate) fn of_worker(
        draining: &CancellationToken,
        stopping: &CancellationToken,
        grace: Duration,
    ) -> Self {
        Self {
            told: draining.child_token(),
            gone: CancellationToken::new(),
            now: stopping.child_token(),
            grace,
        }
    }

    /// Nodes are told when `gone` is, and dropped after the grace.
    pub(crate) fn of_thread(gone: CancellationToken, grace: Duration) -> Self {
        Self {
            told: gone.clone(),
            gone,
            now: CancellationToken::new(),
            grace,
        }
    }

    /// What nodes see.
    pub(crate) fn told(&self) -> &CancellationToken {
        &self.told
    }

    /// The thread went on without these tasks.
    pub(crate) fn go(&self) {
        self.gone.cancel();
        self.told.cancel();
    }

    /// Whether the thread went on without these tasks: none of them is begun any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until nothing more is to be begun.
    pub(crate) async fn ends(&self) {
        tokio::select! {
            biased;
            () = self.now.cancelled() => {}
            () = self.gone.cancelled() => {}
        }
    }

    /// Waits until a node is to be dropped.
    pub(crate) async fn is_over(&self) {
        let graced = async {
            self.gone.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::select! {
            biased;
            () = self.now.cancelled() => {}
            () = graced => {}
        }
    }
}
