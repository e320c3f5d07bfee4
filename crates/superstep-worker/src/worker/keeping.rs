//! Keeping: a delivery that is worked on stays this worker's, for as long as it is worked on.
//!
//! In-progress signals go out well within the lease, the work is claimed in the store with them, and
//! a thread that has moved on ends the work on it. The rule it keeps: all of it is liveness; whether
//! what the work brings counts is decided by the append alone.

use std::{sync::atomic::Ordering, time::Duration};

use superstep_protocol::{Dispatch, Head};
use superstep_queue::Acker;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::debug;

use super::cancels::Ear;
use crate::{threads::Threads, work::Holding};

/// Keeps a delivery in progress and claims what it is for, and cancels the work if its thread has
/// moved on without it. Beside each other: a store that does not answer must not cost the lease.
pub(super) async fn keep(
    threads: &Threads,
    acker: &dyn Acker,
    ack_wait: Duration,
    holding: &Holding,
    ear: Ear,
) {
    let every = ack_wait / 3;
    tokio::join!(
        stay_in_progress(threads, acker, every),
        keep_claimed(threads, every, holding),
        watch_over(threads, every, holding, ear)
    );
}

fn ticks(every: Duration) -> Interval {
    let mut tick = interval_at(Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

async fn stay_in_progress(threads: &Threads, acker: &dyn Acker, every: Duration) {
    let mut tick = ticks(every);
    loop {
        tick.tick().await;
        match acker.in_progress().await {
            Ok(()) => threads.health().kept(),
            Err(error) => debug!(%error, "in-progress was not sent"),
        }
    }
}

/// Claims what is worked on for as long as the delivery may live without a sign.
async fn keep_claimed(threads: &Threads, every: Duration, holding: &Holding) {
    let mut tick = ticks(every);
    loop {
        tick.tick().await;
        let Some(held) = holding.get() else {
            continue;
        };
        let (thread, dispatch) = (&held.thread, held.dispatch);
        let (owner, lease) = (holding.owner, holding.lease);
        let claimed = threads
            .log()
            .claim(thread, dispatch, &held.name, owner, lease);
        match claimed.await {
            Ok(_) => holding.claimed.store(true, Ordering::Relaxed),
            Err(error) => debug!(thread_id = %thread, %error, "a claim was not renewed"),
        }
    }
}

/// Gives up the claim, so that whoever gets the work next need not wait for its end. Lost, it
/// costs that wait.
pub(super) async fn give_up(threads: &Threads, holding: &Holding) {
    if let Some(held) = holding.get()
        && holding.claimed.load(Ordering::Relaxed)
    {
        let (thread, dispatch) = (&held.thread, held.dispatch);
        let given_up =
            threads
                .log()
                .claim(thread, dispatch, &held.name, holding.owner, Duration::ZERO);
        if let Err(error) = given_up.await {
            debug!(thread_id = %thread, %error, "a claim was not given up");
        }
    }
}

/// Looks at the thread now and then, and whenever a run of it is said to be cancelled.
async fn watch_over(threads: &Threads, every: Duration, holding: &Holding, mut ear: Ear) {
    let mut tick = ticks(every);
    let mut seen: Option<(Dispatch, Head)> = None;
    loop {
        let of = || holding.get().map(|held| held.thread);
        tokio::select! {
            biased;
            _ = tick.tick() => {}
            () = ear.hears(of) => {}
        }
        let Some(held) = holding.get() else {
            continue;
        };
        let (thread, dispatch) = (&held.thread, held.dispatch);
        let Ok(Some(last)) = threads.log().head(thread).await else {
            continue;
        };
        if last == dispatch || seen == Some((dispatch, last)) {
            continue;
        }
        let moved_on = match threads.load(thread).await {
            Ok(Some(now)) => !now.state.waits_for(dispatch),
            Ok(None) => true,
            Err(_) => continue,
        };
        seen = Some((dispatch, last));
        if moved_on {
            debug!(thread_id = %thread, %dispatch, "the thread does not wait for this work");
            held.stop.go();
        }
    }
}
