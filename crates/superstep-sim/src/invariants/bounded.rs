//! Everything is bounded: records, tasks, what a thread remembers, how often a message comes.
//!
//! The bounds are those of the settings that worlds run with, and of the protocol itself; the one
//! on deliveries is the simulator's own, far above what faults alone can bring about.

use superstep_protocol::CLOSED_QUESTIONS_MAX;

use super::{Invariant, ensure};
use crate::{
    ledger::{Facts, Seen, Step},
    rig::settings,
};

/// How often a message may be handed over; a command that came early is, many times.
const ATTEMPTS_MAX: u64 = 150;

/// How often a node may be begun that its worker dies of: the bound on attempts, and again for each
/// time that the round is opened anew or its counts are lost with the store's last moments.
const DEATHS_MAX: usize = 40;

pub(super) struct Bounded;

fn appended(step: &Step<'_>) -> Result<(), String> {
    let (thread, head, state) = (step.thread, step.record.head, step.state);
    let limits = settings().limits;
    let bytes = step.stored.bytes.len();
    ensure(bytes <= limits.record_bytes_max, || {
        format!("{thread}: {head} has {bytes} bytes")
    })?;
    let tasks = state.tasks.len();
    ensure(tasks <= limits.tasks_max, || {
        format!("{thread}: {head} has {tasks} tasks")
    })?;
    let closed = state.closed.len();
    ensure(closed <= CLOSED_QUESTIONS_MAX, || {
        format!("{thread}: {head} remembers {closed} questions")
    })?;
    let behind = head.version - step.stored.snapshot;
    ensure(behind <= limits.snapshot_every, || {
        format!("{thread}: {head} builds on a snapshot {behind} records back")
    })
}

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn look(&mut self, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step),
            Seen::BegunDeadly { key, times } => ensure(*times != DEATHS_MAX, || {
                format!("what kills its worker was begun {times} times, as {key}")
            }),
            Seen::Delivered { name, attempt } => ensure(*attempt != ATTEMPTS_MAX, || {
                format!("{name} is handed over {attempt} times")
            }),
            _ => Ok(()),
        }
    }
}
