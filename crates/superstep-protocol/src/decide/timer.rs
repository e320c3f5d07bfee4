//! Timers: what a time that came calls for.
//!
//! The name of the timer says what it is about; whether its time has come, and for whom, is read
//! from the state alone. A timer that fires again, late, or for what is long over calls for
//! nothing, so it does not matter how many workers fire it.

use superstep_graph::TaskId;

use super::{Nothing, Verdict, answer, queue};
use crate::{
    ids::UnixMillis,
    pause::Timer,
    record::{CommandRef, RecordBody},
    state::{TaskState, ThreadState},
};

pub(super) fn due(state: &ThreadState, name: &str, now: UnixMillis) -> Verdict {
    match Timer::of_name(name) {
        Some(Timer::Interrupt(interrupt)) => answer::deadline(state, &interrupt, now),
        Some(Timer::Task(task)) => wake(state, &task, now),
        Some(Timer::Start(run)) => queue::start_due(state, &run, now),
        Some(Timer::Expire) => expire(state, now),
        // A newer version's: it is for a worker of that one.
        None => Verdict::Nothing(Nothing::Late),
    }
}

/// Every task whose time has come goes on with the one that was named: one record, one round.
fn wake(state: &ThreadState, named: &TaskId, now: UnixMillis) -> Verdict {
    let Some(until) = state.task(named).and_then(TaskState::paused_until) else {
        return Verdict::Nothing(Nothing::Late);
    };
    if until > now {
        return Verdict::Nothing(Nothing::NotDue);
    }
    if state.decision.is_some() {
        // What is decided may take the task away.
        return Verdict::Wait;
    }
    let Some(run) = &state.run else {
        return Verdict::Nothing(Nothing::Late);
    };
    let due = state.paused().filter(|(_, until)| *until <= now);
    Verdict::Append(RecordBody::Woken {
        run: run.id.clone(),
        tasks: due.map(|(task, _)| task.task.id.clone()).collect(),
    })
}

/// The thread has rested for its time: it is deleted, as if somebody had asked for it then.
fn expire(state: &ThreadState, now: UnixMillis) -> Verdict {
    match state.expires_at() {
        None => Verdict::Nothing(Nothing::Late),
        Some(at) if at > now => Verdict::Nothing(Nothing::NotDue),
        Some(at) => Verdict::Append(RecordBody::Deleted {
            command: CommandRef {
                id: format!("expire:{}", state.head).into(),
                sent_at: at,
                sender: None,
                trace: None,
                tracestate: None,
            },
        }),
    }
}
