//! Threads of this process that sleep: they are waited for, or taken up when their time comes.
//!
//! The same timers as a worker's, without a loop of their own: a call that runs a thread waits for
//! it, and `keep_time` takes up those that nobody waits for, also what another process left asleep.
//!
//! The rule it keeps: what is due is due by the store's clock; this process's only measures naps.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt as _;
use superstep_protocol::{Event, ThreadId, timers};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Local;
use crate::{
    engine::Accepted,
    error::{Error, chain},
    threads::Thread,
    turns::Turn,
};

/// How long a thread that sleeps is left alone at most.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is done about a thread that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleeping {
    /// It is waited for.
    Awaited,
    /// It is left to its timer.
    Left,
}

impl Local {
    /// Takes up every thread whose timer is due, now and from now on: for a process whose threads
    /// may sleep while nobody waits for them. It never returns; drop it to stop. What it took up is
    /// dropped with it, and taken up again by the next one.
    pub async fn keep_time(&self) {
        const PAGE: usize = 256;
        loop {
            match self.due(PAGE).await {
                Ok(due) => {
                    let each = due.into_iter().map(|thread| async move {
                        if let Err(error) = self.take_up(&thread).await {
                            warn!(thread_id = %thread, error = chain(&error), "a timer could not be fired");
                        }
                    });
                    let at_once = self.settings.concurrency.max(1);
                    let mut each = futures_util::stream::iter(each).buffer_unordered(at_once);
                    while each.next().await.is_some() {}
                }
                Err(error) => debug!(error = chain(&error), "timers could not be read"),
            }
            tokio::time::sleep(self.settings.timers_every).await;
        }
    }

    /// Finishes what a process that went away left running or sleeping on this thread, if
    /// anything: a thread that sleeps is waited for.
    ///
    /// # Errors
    /// If the store fails, or the thread's graph is not held.
    pub async fn finish(&self, thread: &ThreadId) -> Result<(), Error> {
        let turn = self.turns.take(thread).await;
        self.go_on_in(&turn, thread, Sleeping::Awaited).await
    }

    pub(super) async fn finish_in(&self, turn: &Turn, thread: &ThreadId) -> Result<(), Error> {
        self.go_on_in(turn, thread, Sleeping::Left).await
    }

    pub(super) async fn go_on_in(
        &self,
        turn: &Turn,
        thread: &ThreadId,
        sleeping: Sleeping,
    ) -> Result<(), Error> {
        match self.engine.threads.load(thread).await? {
            Some(found) if found.state.is_busy() => {
                let left = found.state.head.version;
                let drove = self.drive(found, turn, left, sleeping).await;
                drove.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    async fn take_up(&self, thread: &ThreadId) -> Result<(), Error> {
        let turn = self.turns.take(thread).await;
        if let Some(found) = self.engine.threads.load(thread).await? {
            self.fire(&found).await?;
        }
        self.go_on_in(&turn, thread, Sleeping::Left).await
    }

    /// Threads with a timer that is due.
    async fn due(&self, limit: usize) -> Result<BTreeSet<ThreadId>, Error> {
        let log = self.engine.threads.log();
        let now = log.now().await.map_err(Error::Store)?;
        let due = log.due(now, limit).await.map_err(Error::Store)?;
        Ok(due.into_iter().map(|due| due.thread).collect())
    }

    /// Fires the first timer of a thread that is due; `None` if none is.
    pub(super) async fn fire(&self, thread: &Thread) -> Result<Option<Thread>, Error> {
        let now = self
            .engine
            .threads
            .log()
            .now()
            .await
            .map_err(Error::Store)?;
        let timers = timers(&thread.state);
        let Some((name, _)) = timers.into_iter().find(|(_, at)| *at <= now) else {
            return Ok(None);
        };
        let (id, event) = (&thread.state.thread, Event::TimerDue { name });
        match Box::pin(self.engine.accept_at(id, &event, now)).await? {
            Accepted::Appended(done) => Ok(Some(done.0)),
            _ => self.engine.threads.load(id).await,
        }
    }

    /// Waits until a thread that sleeps is to be looked at again.
    pub(super) async fn nap(
        &self,
        thread: &Thread,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let now = self
            .engine
            .threads
            .log()
            .now()
            .await
            .map_err(Error::Store)?;
        let timers = timers(&thread.state);
        let first = timers.values().min().copied().unwrap_or(now);
        let rest = Duration::from_millis(first.0.saturating_sub(now.0));
        // Another process on the same store may change it, and its clock may be set.
        let rest = rest.clamp(Duration::from_millis(1), LOOK_AGAIN);
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(rest) => {}
        }
        Ok(())
    }
}
