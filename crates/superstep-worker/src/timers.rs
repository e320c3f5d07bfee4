//! Timers: every worker looks for what is due, and fires it.
//!
//! There is no leader and no claim: whoever sees a timer that is due decides on its thread, and of
//! all that do, the append's compare lets one have its way; the others find the thread moved on.
//! The append itself takes the timer from the store's index and enters the thread into the watch
//! index, so a worker that dies right after it leaves nothing that the reconciler does not see.
//!
//! The rule it keeps: what is due is due by the store's clock. A worker's own clock only says when
//! to look again, a little off its neighbours' so that they do not all look at once.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use superstep_checkpoint::Due;
use superstep_protocol::{Event, ThreadId, Timer, UnixMillis};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    effects::{Effects, Publish},
    engine::{Accepted, Engine},
    error::{Error, chain},
    movers::{self, Turn},
    registry::Registry,
    stream::{OutputSink, Stream},
};

/// How many timers one look takes; more are taken at once after.
const PAGE: usize = 256;
/// How many timers one look may take if those before lead nowhere.
const PAGE_MAX: usize = 8192;
/// How many timers one worker fires at once.
const AT_ONCE: usize = 16;

/// What the loop is called in measures and verdicts.
const LOOP: &str = "timers";

/// What fires timers.
#[derive(Clone)]
pub(crate) struct Timers {
    pub(crate) engine: Engine,
    pub(crate) effects: Effects,
    pub(crate) registry: Registry,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
    /// How long it waits between two looks, more or less.
    pub(crate) every: Duration,
}

/// What firing a timer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fired {
    /// It did something.
    Done,
    /// There was nothing to do: somebody was first.
    Nothing,
    /// It is to be looked at again.
    Later,
}

impl Timers {
    /// Fires what is due until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut page = PAGE;
        let mut idle: BTreeSet<(ThreadId, String)> = BTreeSet::new();
        let health = self.engine.threads.health().clone();
        loop {
            health.looks(LOOP, self.every);
            let looked = self.look(page, &mut idle).await;
            let pause = match looked {
                Ok(Looked { full, moved }) => {
                    page = if moved {
                        PAGE
                    } else {
                        (2 * page).min(PAGE_MAX)
                    };
                    page = if full { page } else { PAGE };
                    (!(full && moved)).then(|| self.pause())
                }
                Err(error) => {
                    debug!(error = chain(&error), "timers could not be read");
                    Some(self.pause())
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause.unwrap_or_default()) => {}
            }
        }
    }

    /// From half to one and a half of the time between two looks.
    fn pause(&self) -> Duration {
        let [high, low, ..] = self.engine.threads.world().nonce().0.to_be_bytes();
        let part = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
        self.every / 2 + self.every.mul_f64(part)
    }

    /// Fires up to `page` timers that are due.
    async fn look(
        &self,
        page: usize,
        idle: &mut BTreeSet<(ThreadId, String)>,
    ) -> Result<Looked, Error> {
        let log = self.engine.threads.log();
        let now = log.now().await.map_err(Error::Store)?;
        let mut due = log.due(now, page).await.map_err(Error::Store)?;
        let full = due.len() >= page;
        // Workers that look at the same moment begin at different places.
        let nonce = self.engine.threads.world().nonce().0;
        let first = usize::try_from(nonce % due.len().max(1) as u64).unwrap_or(0);
        due.rotate_left(first);
        let met = std::mem::take(idle);
        let fired = futures_util::stream::iter(due)
            .map(|due| async {
                let again = met.contains(&(due.thread.clone(), due.name.clone()));
                let fired = self.fire(&due, now, again).await;
                self.engine.threads.health().looks(LOOP, self.every);
                (due, fired)
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut moved = false;
        for (due, fired) in fired {
            moved |= fired == Fired::Done;
            if fired == Fired::Nothing {
                idle.insert((due.thread, due.name));
            }
        }
        Ok(Looked { full, moved })
    }

    async fn fire(&self, due: &Due, now: UnixMillis, again: bool) -> Fired {
        let span = info_span!("timer", thread_id = %due.thread, name = due.name);
        async {
            let fired = self.try_fire(due, now, again).await;
            fired.unwrap_or_else(|error| {
                warn!(
                    error = chain(&error),
                    "a timer could not be fired; again soon"
                );
                Fired::Later
            })
        }
        .instrument(span)
        .await
    }

    async fn try_fire(&self, due: &Due, now: UnixMillis, again: bool) -> Result<Fired, Error> {
        let event = Event::TimerDue {
            name: due.name.clone(),
        };
        if matches!(Timer::of_name(&due.name), Some(Timer::Start(_)))
            && let Some(thread) = self.engine.threads.load(&due.thread).await?
            && !thread.state.is_busy()
            && !thread.state.holds_starts()
        {
            // Once it is taken over, or cannot be, the thread asks for the run by itself.
            let (engine, registry) = (&self.engine, &self.registry);
            let at = (now, true);
            let turn = movers::before_next(engine, &self.effects, registry, &thread.state, at);
            if matches!(Box::pin(turn).await?, Turn::Moves) {
                return Ok(Fired::Done);
            }
        }
        let accepted = self.engine.accept_at(&due.thread, &event, now);
        Ok(match Box::pin(accepted).await? {
            Accepted::Appended(appended) => {
                let (mut thread, record) = *appended;
                debug!(kind = record.body.kind(), "fired");
                let late = Duration::from_millis(now.0.saturating_sub(due.at.0));
                self.engine.threads.health().fired(late);
                let publish = Publish::Of(record.head);
                self.effects
                    .perform(&mut thread, Some(&record), publish)
                    .await?;
                if !thread.state.is_busy() {
                    Stream::of(self.sink.as_ref(), &thread.state).end();
                }
                Fired::Done
            }
            // Mostly somebody was first. If it is still there when it is looked at again, whoever
            // fired it may have died before it did what that called for.
            Accepted::Nothing
            | Accepted::Known(_)
            | Accepted::Refused(_)
            | Accepted::Decided(_) => {
                if again && let Some(mut thread) = self.engine.threads.load(&due.thread).await? {
                    self.effects
                        .perform(&mut thread, None, Publish::All)
                        .await?;
                }
                Fired::Nothing
            }
            Accepted::Wait => Fired::Later,
        })
    }
}

/// What a look came to.
struct Looked {
    /// Whether there may be more that is due.
    full: bool,
    /// Whether a timer did something.
    moved: bool,
}

#[cfg(test)]
mod tests;
