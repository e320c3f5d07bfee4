//! The reconciler: what threads owe the world is performed again where nothing moves.
//!
//! Every worker runs one, without a leader. It looks at watched threads that stand still and
//! performs all that they owe, so a lost message, a lost event, a stream that was deleted, a store
//! that stepped back and a worker that died between append and publish are one case. Doing so once
//! too often changes nothing, but costs; so it leaves alone what explains itself: a living claim
//! (a node that runs for long), and a backlog (its turn has not come). Whoever acts leases the
//! thread's entry in the store first, for as long as it has stood still by then: workers do not
//! act beside each other, and the pauses double without anybody remembering them.
//!
//! A thread whose version of its graph has no workers any more is taken over by one that has, if
//! that version's policy says so; nothing else is decided or appended here. The rule it keeps: it
//! works from the watch index, so what rests or waits for a person costs it nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use superstep_checkpoint::{CLAIM_LEASE_MAX, Claimed, InterruptQuery, PAGE_ROWS_MAX, Watched};
use superstep_protocol::{
    CommandId, Dispatch, GraphId, Head, Nonce, Obligation, ThreadId, ThreadState, UnixMillis,
    obligations,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    effects::{Effects, Publish},
    engine::Engine,
    error::{Error, chain},
    movers,
    registry::Registry,
    versions::{Version, is_stranded},
};

/// The name of the lease on a thread's entry: no task is named so.
pub(crate) const RECONCILING: &str = "@reconcile";
/// What the loop is called in measures and verdicts.
const LOOP: &str = "reconciler";
/// How many entries are read at once.
const PAGE: usize = 512;
/// Later than any time of an entry.
const EVER: UnixMillis = UnixMillis(i64::MAX.unsigned_abs());
/// How many entries one look goes through; the next one goes on from there.
const LOOK_MAX: usize = 16 * PAGE;
/// How many threads are acted on at once.
const AT_ONCE: usize = 16;
/// The shortest time for which a thread with a reason is left alone.
const REST_MIN: Duration = Duration::from_secs(1);
/// For how long a thread is taken to have stood still that was entered by a clock ahead of ours:
/// nobody knows, and it is acted on no more often than that.
const AGE_AHEAD: Duration = CLAIM_LEASE_MAX;
/// For how long a page of open questions may take to be announced.
const ANNOUNCE_LEASE: Duration = Duration::from_secs(30);
/// How many threads' reasons one worker remembers. Beyond that it asks again.
const RESTING_MAX: usize = 100_000;

/// Why a thread is left alone: nothing is to be done for it at this head for a while.
struct Resting {
    head: Head,
    until: Instant,
    /// Whether it was stranded then.
    stranded: bool,
}

/// Looks after watched threads.
pub(crate) struct Reconciler {
    engine: Engine,
    effects: Effects,
    registry: Registry,
    /// How long a thread may stand still.
    after: Duration,
    every: Duration,
    owner: Nonce,
    /// Threads that are left alone for a while, for a reason that was found.
    resting: Mutex<HashMap<ThreadId, Resting>>,
    /// The events stream as it was last seen.
    events_made: Option<UnixMillis>,
    /// Where the next look begins.
    from: UnixMillis,
    /// The same, of entries from a clock that was ahead.
    from_ahead: UnixMillis,
}

impl Reconciler {
    pub(crate) fn new(
        engine: Engine,
        effects: Effects,
        registry: Registry,
        after: Duration,
        every: Duration,
    ) -> Self {
        Self {
            owner: effects.threads.world().nonce(),
            engine,
            effects,
            registry,
            after,
            every,
            resting: Mutex::default(),
            events_made: None,
            from: UnixMillis(0),
            from_ahead: UnixMillis(0),
        }
    }

    /// Looks again and again until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.came_on();
            let looked = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                looked = self.look() => looked,
            };
            if let Err(error) = looked {
                debug!(
                    error = chain(&error),
                    "watched threads could not be looked after"
                );
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(self.pause()) => {}
            }
        }
    }

    fn came_on(&self) {
        self.effects.threads.health().looks(LOOP, self.every);
    }

    /// A pause of three to five quarters of the usual: workers that began together drift apart.
    fn pause(&self) -> Duration {
        let Nonce(draw) = self.effects.threads.world().nonce();
        let part = u32::try_from(draw % 512).unwrap_or_default();
        self.every * 3 / 4 + self.every * part / 1024
    }

    /// One look. Answers how many threads were acted on.
    pub(crate) async fn look(&mut self) -> Result<usize, Error> {
        self.look_at_streams().await?;
        let now = self.effects.threads.log().now().await;
        let now = now.map_err(Error::Store)?;
        let until = UnixMillis(now.0.saturating_sub(millis(self.after)));
        let mut backlogs = HashMap::new();
        let (mut acted, next) = self.look_in(self.from, until, now, &mut backlogs).await?;
        self.from = next.unwrap_or_default();
        // Entered by a clock that was ahead of this one, of the store's master before it.
        let from = self.from_ahead.max(now.plus_ms(millis(self.after)));
        let (more, next) = self.look_in(from, EVER, now, &mut backlogs).await?;
        self.from_ahead = next.unwrap_or_default();
        acted += more;
        if acted > 0 {
            info!(acted, "performed again what threads owe that stood still");
        }
        Ok(acted)
    }

    /// Looks at what was entered in this time. Answers how many threads were acted on, and where
    /// to go on if that is not all.
    async fn look_in(
        &self,
        mut from: UnixMillis,
        until: UnixMillis,
        now: UnixMillis,
        backlogs: &mut HashMap<GraphId, Option<Duration>>,
    ) -> Result<(usize, Option<UnixMillis>), Error> {
        let log = self.effects.threads.log();
        let (mut looked, mut acted, mut limit) = (0, 0, PAGE);
        loop {
            let page = log
                .watched(from, until, limit)
                .await
                .map_err(Error::Store)?;
            self.came_on();
            let full = page.len() == limit;
            looked += page.len();
            let last = page.last().map(|entry| entry.since);
            acted += self.look_at(page, now, backlogs).await?;
            match last.filter(|_| full) {
                None => return Ok((acted, None)),
                // More of one moment than a page holds: nothing is passed over for it.
                Some(last) if last == from => limit *= 2,
                Some(last) => {
                    from = last;
                    limit = PAGE;
                }
            }
            if looked >= LOOK_MAX {
                return Ok((acted, Some(from)));
            }
        }
    }

    async fn look_at(
        &self,
        page: Vec<Watched>,
        now: UnixMillis,
        backlogs: &mut HashMap<GraphId, Option<Duration>>,
    ) -> Result<usize, Error> {
        let versions = if page.is_empty() {
            Vec::new()
        } else {
            let threads = &self.effects.threads;
            self.registry.versions(threads, false).await?
        };
        let mut still = Vec::new();
        for entry in page {
            let age = if entry.since > now {
                AGE_AHEAD
            } else {
                Duration::from_millis(now.0 - entry.since.0)
            };
            // Nobody pulls the work of its version, so no backlog explains the wait.
            if is_stranded(&versions, &entry.graph) {
                if !self.rests(&entry, true) {
                    still.push((entry, age, true));
                }
                continue;
            }
            let waited = if let Some(waited) = backlogs.get(&entry.graph) {
                *waited
            } else {
                let waited = self.effects.queue.backlog(&entry.graph).await?;
                backlogs.insert(entry.graph.clone(), waited);
                waited
            };
            // Older work waits, or as old: the thread's own may be in the queue behind it.
            let has_its_turn = waited.is_none_or(|waited| waited + self.after < age);
            if has_its_turn && !self.rests(&entry, false) {
                still.push((entry, age, false));
            }
        }
        let versions = &versions;
        let act = |(entry, age, stranded)| async move {
            let acted = self.act(&entry, age, versions, stranded).await;
            self.came_on();
            match acted {
                Ok(acted) => usize::from(acted),
                Err(error) => {
                    debug!(thread_id = %entry.thread, error = chain(&error), "left for the next look");
                    0
                }
            }
        };
        let acted = futures_util::stream::iter(still).map(act);
        Ok(acted
            .buffer_unordered(AT_ONCE)
            .fold(0, |sum, acted| async move { sum + acted })
            .await)
    }

    /// Performs what a thread owes that has stood still for `age`, unless there is a reason to
    /// leave it alone.
    async fn act(
        &self,
        entry: &Watched,
        age: Duration,
        versions: &[Version],
        stranded: bool,
    ) -> Result<bool, Error> {
        let threads = &self.effects.threads;
        let id = &entry.thread;
        let Some(mut thread) = threads.load(id).await? else {
            return Ok(false);
        };
        if thread.state.head != entry.head {
            return Ok(false);
        }
        if let Some(rest) = self.at_work(&thread.state).await? {
            self.leave(entry, rest, stranded);
            return Ok(false);
        }
        if movers::see_to(&self.engine, &self.effects, versions, &thread.state).await? {
            return Ok(true);
        }
        let lease = age.clamp(self.after, CLAIM_LEASE_MAX.max(self.after));
        let claimed = threads
            .log()
            .claim(id, entry.head, RECONCILING, self.owner, lease);
        if let Claimed::Held { rest } = claimed.await.map_err(Error::Store)? {
            self.leave(entry, rest, stranded);
            return Ok(false);
        }
        self.leave(entry, lease, stranded);
        debug!(thread_id = %id, head = %entry.head, ?age, "a thread stands still");
        self.effects
            .perform(&mut thread, None, Publish::All)
            .await?;
        threads.health().reconciled(age);
        Ok(true)
    }

    /// For how long somebody's claim on any of the thread's work lives.
    async fn at_work(&self, state: &ThreadState) -> Result<Option<Duration>, Error> {
        let work = obligations(state)
            .into_iter()
            .filter_map(|owed| match owed {
                Obligation::Work { dispatch, .. } => Some(dispatch),
                Obligation::Events { .. } => None,
            });
        let dispatches: BTreeSet<Dispatch> = work.collect();
        let mut rest = None;
        for dispatch in dispatches {
            let log = self.effects.threads.log();
            let claims = log.claims(&state.thread, dispatch).await;
            let claims = claims.map_err(Error::Store)?;
            let work = claims.iter().filter(|(name, _)| *name != RECONCILING);
            rest = rest.max(work.map(|(_, claim)| claim.rest).max());
        }
        Ok(rest)
    }

    fn rests(&self, entry: &Watched, stranded: bool) -> bool {
        let resting = self.resting();
        let found = resting.get(&entry.thread);
        found.is_some_and(|found| {
            let same = found.head == entry.head && found.stranded == stranded;
            same && found.until > Instant::now()
        })
    }

    fn leave(&self, entry: &Watched, rest: Duration, stranded: bool) {
        let until = Instant::now() + rest.max(REST_MIN);
        let mut resting = self.resting();
        if resting.len() >= RESTING_MAX {
            resting.retain(|_, found| found.until > Instant::now());
        }
        if resting.len() < RESTING_MAX {
            let found = Resting {
                head: entry.head,
                until,
                stranded,
            };
            resting.insert(entry.thread.clone(), found);
        }
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, HashMap<ThreadId, Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the open questions again if the events stream was made anew: whoever waits for
    /// them there would never hear of them.
    async fn look_at_streams(&mut self) -> Result<(), Error> {
        let Some(made) = self.effects.queue.events_made().await? else {
            return Ok(());
        };
        let anew = match self.events_made {
            Some(known) => known != made.at,
            None => made.here,
        };
        if anew {
            let Some(announced) = self.announce(made.at).await? else {
                // Another worker is at it; whether it comes to the end is looked at again.
                return Ok(());
            };
            if announced > 0 {
                warn!(
                    announced,
                    "the events stream is new; open questions were announced again"
                );
            }
        }
        self.events_made = Some(made.at);
        Ok(())
    }

    /// Publishes the events of all open questions; by one worker at a time until one came to the
    /// end. `None` while another is at it, which may die.
    async fn announce(&self, made: UnixMillis) -> Result<Option<usize>, Error> {
        let log = Arc::clone(self.effects.threads.log());
        let stream = Head {
            version: made.0,
            nonce: Nonce(0),
        };
        let nobody = ThreadId::from("@events");
        let done = CommandId::from(format!("announced-{}", made.0));
        if log
            .outcome(&nobody, &done)
            .await
            .map_err(Error::Store)?
            .is_some()
        {
            return Ok(Some(0));
        }
        let claim = || log.claim(&nobody, stream, RECONCILING, self.owner, ANNOUNCE_LEASE);
        if claim().await.map_err(Error::Store)? != Claimed::Mine {
            return Ok(None);
        }
        let mut query = InterruptQuery {
            thread: None,
            limit: PAGE_ROWS_MAX,
            after: None,
        };
        let mut announced = 0;
        loop {
            let page = log.interrupts(&query).await.map_err(Error::Store)?;
            let asking: BTreeSet<ThreadId> = page.rows.into_iter().map(|(id, _)| id).collect();
            for id in asking {
                if let Some(thread) = self.effects.threads.load(&id).await? {
                    announced += self.effects.announce(&thread).await?;
                }
            }
            if page.next.is_none() {
                let at_end = log.put_outcome(&nobody, &done, Bytes::new());
                at_end.await.map_err(Error::Store)?;
                return Ok(Some(announced));
            }
            query.after = page.next;
            // Lost to a longer pause: whoever took over announces all of them.
            if claim().await.map_err(Error::Store)? != Claimed::Mine {
                return Ok(None);
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
