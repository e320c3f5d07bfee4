//! Runs beside each other: which start begins at once, which waits, and which ends another run.
//!
//! A thread works on one run at a time. What waits begins when the thread comes to rest, first
//! come, first served, and, but for the `langgraph` profile, not while questions are open. A run
//! that is known by its id is not begun again.

use super::{Cancel, Event, Nothing, Start, Verdict, command};
use crate::{
    ids::{Dispatch, RunId, UnixMillis},
    queue::{Displaced, QUEUED_RUNS_MAX, QueuedRun, Restored, Strategy},
    record::RecordBody,
    refusal::Refusal,
    state::ThreadState,
};

/// A start of a thread that has no log, or whose log is a tombstone.
pub(super) fn start_new(start: &Start, now: UnixMillis) -> Verdict {
    match command::start_new(start) {
        Verdict::Append(_) if start.not_before.is_some_and(|at| at > now) => {
            Verdict::Append(RecordBody::Enqueued(Box::new(QueuedRun::of(start, now))))
        }
        verdict => verdict,
    }
}

/// A start of a thread that exists.
pub(super) fn start(state: &ThreadState, start: &Start, now: UnixMillis) -> Verdict {
    if let Some(record) = state.begun(&start.run) {
        return Verdict::Known(record);
    }
    if start.graph.name != state.graph.name {
        return Verdict::Refuse(Refusal::WrongGraph {
            thread: state.thread.clone(),
            graph: state.graph.name.clone(),
        });
    }
    if state.moving().is_some() {
        return Verdict::Wait;
    }
    // One whose time has come goes first, also if nobody has begun it yet.
    let overtakes = state.next_queued(now.max(state.time)).is_some();
    let held = state.is_busy() || state.holds_starts() || overtakes;
    let delayed = start.not_before.is_some_and(|at| at > now);
    match start.strategy {
        Strategy::Reject if held || !state.queue.is_empty() => {
            Verdict::Refuse(command::busy(state))
        }
        Strategy::Reject | Strategy::Enqueue if held || delayed => enqueue(state, start, now),
        Strategy::Interrupt | Strategy::Rollback if held || !state.queue.is_empty() => {
            displace(state, start, now)
        }
        Strategy::Interrupt | Strategy::Rollback if delayed => enqueue(state, start, now),
        Strategy::Reject | Strategy::Enqueue | Strategy::Interrupt | Strategy::Rollback => {
            command::begin(state, start)
        }
    }
}

fn enqueue(state: &ThreadState, start: &Start, now: UnixMillis) -> Verdict {
    let queued = state.queue.len();
    if queued >= QUEUED_RUNS_MAX {
        return Verdict::Refuse(Refusal::QueueFull {
            thread: state.thread.clone(),
            queued,
        });
    }
    Verdict::Append(RecordBody::Enqueued(Box::new(QueuedRun::of(start, now))))
}

/// The start ends what is not over, and comes next.
fn displace(state: &ThreadState, start: &Start, now: UnixMillis) -> Verdict {
    if command::graph_decides(state) {
        // The update was accepted and will be told of; what it leaves is what is displaced.
        return Verdict::Wait;
    }
    let rolls_back = start.strategy == Strategy::Rollback;
    let restores = match restores(state, rolls_back, start.before.as_deref()) {
        Ok(restores) => restores,
        Err(OtherRun) => return Verdict::Wait,
    };
    let run = state.run.as_ref().filter(|_| is_open(state));
    Verdict::Append(RecordBody::Displaced(Box::new(Displaced {
        start: QueuedRun::of(start, now),
        run: run.map(|run| run.id.clone()),
        queued: queued(state),
        restores,
    })))
}

/// A cancel ends what runs and gives up what waits, and empties the queue; or one of these runs.
/// Finished supersteps stay, unless the run is rolled back.
pub(super) fn cancel(state: &ThreadState, cancel: &Cancel) -> Verdict {
    let nothing = || {
        Verdict::Refuse(Refusal::NothingToCancel {
            thread: state.thread.clone(),
            status: state.status(),
        })
    };
    let cancelled = |spares, queued, restores| {
        Verdict::Append(RecordBody::Cancelled {
            command: cancel.command.clone(),
            reason: cancel.reason.clone(),
            spares,
            queued,
            restores,
        })
    };
    if let Some(run) = &cancel.run {
        if state.queue.iter().any(|queued| queued.run == *run) {
            return cancelled(true, vec![run.clone()], None);
        }
        if !is_of(state, run) {
            return match state.begun(run) {
                Some(_) => nothing(),
                None => Verdict::Refuse(Refusal::UnknownRun {
                    thread: state.thread.clone(),
                    run: run.clone(),
                }),
            };
        }
    }
    if command::graph_decides(state) {
        // The update was accepted and will be told of; what it leaves is what is cancelled.
        return Verdict::Wait;
    }
    let queued = match cancel.run {
        Some(_) => Vec::new(),
        None => queued(state),
    };
    if !is_open(state) && queued.is_empty() {
        return nothing();
    }
    match restores(state, cancel.rollback, cancel.before.as_deref()) {
        Ok(restores) => cancelled(!is_open(state), queued, restores),
        Err(OtherRun) => Verdict::Wait,
    }
}

/// Whether something of the last run is left: it is under way, or waits for answers.
fn is_open(state: &ThreadState) -> bool {
    state.is_running() || state.open_questions().next().is_some()
}

fn is_of(state: &ThreadState, run: &RunId) -> bool {
    state.run.as_ref().is_some_and(|last| last.id == *run)
        || state.rounds.values().any(|open| open == run)
}

fn queued(state: &ThreadState) -> Vec<RunId> {
    let queue = state.queue.iter();
    queue.map(|queued| queued.run.clone()).collect()
}

/// The version of the record before the run that an event rolls back, if it rolls one back: the
/// event has to bring what the thread was after it.
pub fn rolls_back(state: &ThreadState, event: &Event) -> Option<u64> {
    let rolls_back = match event {
        Event::Start(start) => {
            start.strategy == Strategy::Rollback && state.begun(&start.run).is_none()
        }
        Event::Cancel(cancel) => cancel.rollback,
        _ => false,
    };
    let run = state.run.as_ref().filter(|_| state.is_running());
    run.filter(|_| rolls_back && !state.deleted)
        .map(|run| run.since)
}

/// The state that was brought is not the one before the run under way.
struct OtherRun;

/// What the run under way is rolled back to, if it is to be. Whoever asks looks at the thread
/// again if it brought the state before another run.
fn restores(
    state: &ThreadState,
    rolls_back: bool,
    before: Option<&Restored>,
) -> Result<Option<Box<Restored>>, OtherRun> {
    let run = state.run.as_ref().filter(|_| state.is_running());
    match run.filter(|_| rolls_back) {
        None => Ok(None),
        Some(run) => match before {
            Some(before) if before.version == run.since => Ok(Some(Box::new(before.clone()))),
            _ => Err(OtherRun),
        },
    }
}

/// A worker begins the next run of the queue.
pub(super) fn next_run(
    state: &ThreadState,
    dispatch: Dispatch,
    refusal: Option<&Refusal>,
    now: UnixMillis,
) -> Verdict {
    if !state.begins_next() || !state.waits_for(dispatch) {
        return Verdict::Nothing(Nothing::Late);
    }
    let next = state.next_queued(now.max(state.time));
    match next.zip(refusal) {
        Some((next, refusal)) => declined(next, dispatch, refusal.clone()),
        None => begin_next(state, dispatch, now),
    }
}

/// A run of the queue that cannot begin.
fn declined(next: &QueuedRun, closes: Dispatch, refusal: Refusal) -> Verdict {
    Verdict::Append(RecordBody::Declined {
        closes,
        command: next.command.clone(),
        refusal,
        spoils: false,
        resume: false,
        queued: Some(next.run.clone()),
    })
}

/// The time of a run of the queue has come.
pub(super) fn start_due(state: &ThreadState, run: &RunId, now: UnixMillis) -> Verdict {
    let Some(queued) = state.queue.iter().find(|queued| queued.run == *run) else {
        return Verdict::Nothing(Nothing::Late);
    };
    if state.is_busy() || state.holds_starts() {
        // It begins when the thread comes to rest.
        return Verdict::Nothing(Nothing::Late);
    }
    if queued.ready_at() > now {
        return Verdict::Nothing(Nothing::NotDue);
    }
    begin_next(state, state.head, now)
}

/// The first of the queue begins as it would have on a thread at rest, or is told why not.
fn begin_next(state: &ThreadState, closes: Dispatch, now: UnixMillis) -> Verdict {
    let Some(next) = state.next_queued(now.max(state.time)) else {
        return Verdict::Nothing(Nothing::Late);
    };
    let mut rests = state.clone();
    rests.decision = None;
    match command::begin(&rests, &next.start()) {
        Verdict::Refuse(refusal) => declined(next, closes, refusal),
        verdict => verdict,
    }
}
