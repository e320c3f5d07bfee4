//! Sleeps: a node that waits for a time, in its worker or without one.
//!
//! A short sleep is spent where the node runs. A longer one ends the task's round: the node's
//! future is dropped as by a question, the end of the sleep goes into the thread's log, and a
//! timer has the node run again. Sleeps are counted in the order of the calls, and the end of each
//! that is in the log stands: a node that runs again sleeps what is left of it, mostly nothing.
//!
//! The rule it keeps: ends are times of the store's clock. A worker's own clock measures only how
//! long something took.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use superstep_graph::TaskId;
use superstep_protocol::{TaskState, UnixMillis, sleep_name};
use tokio::time::Instant;
use tracing::debug;

use crate::{node::NodeContext, threads::Threads};

/// What tells tasks the time.
#[derive(Clone)]
pub(crate) struct Clock {
    pub(crate) threads: Threads,
    /// The longest pause that is spent in the worker.
    pub(crate) short_pause_max: Duration,
}

impl Clock {
    /// The store's time; the worker's if the store does not say.
    pub(crate) async fn now(&self) -> UnixMillis {
        match self.threads.log().now().await {
            Ok(now) => now,
            Err(error) => {
                debug!(%error, "the store's time is not known; going by this worker's");
                self.threads.world().now()
            }
        }
    }

    /// The clock of an attempt of a task whose sleeps have these ends; `woken` is the time that it
    /// was woken for.
    pub(crate) async fn sleeps(
        &self,
        task: &TaskId,
        ends: BTreeMap<String, UnixMillis>,
        woken: Option<UnixMillis>,
    ) -> Sleeps {
        let now = if ends.is_empty() {
            self.threads.world().now()
        } else {
            // What it was woken for is over, also if the store's clock has gone back since.
            self.now().await.max(woken.unwrap_or_default())
        };
        Sleeps {
            task: task.clone(),
            ends,
            now,
            began: Instant::now(),
            short: self.short_pause_max,
            begun: Mutex::default(),
        }
    }
}

/// So many milliseconds, at most as many as there are.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The ends of the sleeps of a task that are known, its own and those of calls that it is in.
pub(crate) fn known_ends(
    task: Option<&TaskState>,
    outer: &BTreeMap<String, UnixMillis>,
) -> BTreeMap<String, UnixMillis> {
    let mut ends = outer.clone();
    if let Some(task) = task {
        ends.extend(task.sleeps.iter().map(|(name, end)| (name.clone(), *end)));
    }
    ends
}

/// A sleep as the node asked for it.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// It is in the log.
    Recorded(UnixMillis),
    /// For so long, from then on.
    For(Duration, Instant),
    /// Until then.
    Until(UnixMillis),
}

#[derive(Debug, Default)]
struct Begun {
    next: usize,
    wishes: BTreeMap<usize, Wish>,
    parked: BTreeSet<usize>,
    /// Whether the task waits for those: the node is being dropped.
    parks: bool,
}

/// The sleeps of one attempt of a task.
#[derive(Debug)]
pub(crate) struct Sleeps {
    task: TaskId,
    /// The ends that are in the log.
    ends: BTreeMap<String, UnixMillis>,
    /// The time when the attempt began.
    now: UnixMillis,
    began: Instant,
    short: Duration,
    begun: Mutex<Begun>,
}

impl Sleeps {
    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sleeps of this attempt come after so many of the node whose failure is handled.
    pub(crate) fn after(self, slept: usize) -> Self {
        self.lock().next = slept;
        self
    }

    fn begin(&self, wish: Wish) -> usize {
        let mut begun = self.lock();
        let index = begun.next;
        begun.next += 1;
        let recorded = self.ends.get(&sleep_name(&self.task, index));
        let wish = recorded.map_or(wish, |end| Wish::Recorded(*end));
        begun.wishes.insert(index, wish);
        index
    }

    /// What is left of a sleep.
    fn rest(&self, index: usize) -> Duration {
        let Some(wish) = self.lock().wishes.get(&index).copied() else {
            return Duration::ZERO;
        };
        match wish {
            Wish::For(duration, begun) => duration.saturating_sub(begun.elapsed()),
            Wish::Recorded(end) | Wish::Until(end) => {
                Duration::from_millis(end.0.saturating_sub(self.now.0))
                    .saturating_sub(self.began.elapsed())
            }
        }
    }

    /// How many sleeps were begun, those of the node before its handler too.
    pub(crate) fn count(&self) -> usize {
        self.lock().next
    }

    /// Has the task wait without a worker if the node awaits a long sleep; answers whether it does.
    pub(crate) fn park(&self) -> bool {
        let mut begun = self.lock();
        begun.parks = !begun.parked.is_empty();
        begun.parks
    }

    /// The ends of all that was begun, if it is `now`, and the first one that the task waits for.
    pub(crate) fn ends(
        &self,
        now: UnixMillis,
    ) -> (BTreeMap<String, UnixMillis>, Option<UnixMillis>) {
        let begun = self.lock();
        let end = |wish: &Wish| match *wish {
            Wish::Recorded(end) | Wish::Until(end) => end,
            Wish::For(duration, begun) => {
                let end = now.plus_ms(millis(duration));
                UnixMillis(end.0.saturating_sub(millis(begun.elapsed())))
            }
        };
        let mut ends = self.ends.clone();
        for (index, wish) in &begun.wishes {
            ends.insert(sleep_name(&self.task, *index), end(wish));
        }
        let parked = begun.parked.iter();
        let parked = parked.filter(|_| begun.parks);
        let first = parked.filter_map(|index| begun.wishes.get(index)).map(end);
        (ends, first.min())
    }
}

/// A sleep; see [`NodeContext::sleep`].
#[must_use = "a node sleeps when this is awaited"]
pub struct Sleep {
    ctx: NodeContext,
    index: usize,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Sleep {
    pub(crate) fn of(ctx: NodeContext, duration: Duration) -> Self {
        let wish = Wish::For(duration, Instant::now());
        Self::begin(ctx, wish)
    }

    pub(crate) fn until(ctx: NodeContext, end: UnixMillis) -> Self {
        Self::begin(ctx, Wish::Until(end))
    }

    fn begin(ctx: NodeContext, wish: Wish) -> Self {
        let index = ctx.sleeps().begin(wish);
        Self {
            ctx,
            index,
            timer: None,
        }
    }
}

impl Drop for Sleep {
    /// A node that gave the sleep up waits for it no longer.
    fn drop(&mut self) {
        let mut begun = self.ctx.sleeps().lock();
        if !begun.parks {
            begun.parked.remove(&self.index);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let sleeps = this.ctx.sleeps();
        if this.timer.is_none() {
            let rest = sleeps.rest(this.index);
            if rest.is_zero() {
                return Poll::Ready(());
            }
            if rest > sleeps.short {
                // The runtime is about to drop the node.
                sleeps.lock().parked.insert(this.index);
                this.ctx.wake_runner();
                return Poll::Pending;
            }
            // A node that sleeps lives.
            this.ctx.lives_until(Instant::now() + rest);
            this.timer = Some(Box::pin(tokio::time::sleep(rest)));
        }
        match &mut this.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}
