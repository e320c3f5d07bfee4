//! Dying on purpose: the process aborts when it reaches a named point for the so-manieth time.
//!
//! Points lie around the calls of the two ports and in nodes, where a worker can be seen from
//! outside: the log and the queue are wrapped, and nothing in the worker itself knows of it. A
//! work message can be lost in the same way, to make work for the reconciler.
//!
//! The rule it keeps: an abort is an abort. Nothing is flushed, answered or handed back.

mod log;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use superstep_checkpoint::ThreadLog;
use superstep_queue::Queue;

use log::DyingLog;
use queue::DyingQueue;

/// Where a worker is to die.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DieAt {
    /// The point; nowhere if it is empty.
    point: String,
    /// At which time of coming there, from 1.
    time: u64,
    /// Which publish of work is lost on its way, from 1; none if 0.
    lose_work: u64,
}

/// Counts how often the point was reached.
#[derive(Debug)]
pub(crate) struct Dying {
    told: DieAt,
    came: AtomicU64,
    published: AtomicU64,
}

impl Dying {
    pub(crate) fn new(told: DieAt) -> Arc<Self> {
        Arc::new(Self {
            told,
            came: AtomicU64::new(0),
            published: AtomicU64::new(0),
        })
    }

    /// Does not return if this is where the process is to die.
    pub(crate) fn at(&self, point: &str) {
        if self.is_at(point) {
            std::process::abort();
        }
    }

    /// Whether this is where the process is to die; its caller sees to that.
    fn is_at(&self, point: &str) -> bool {
        point == self.told.point
            && self.came.fetch_add(1, Ordering::Relaxed) + 1 == self.told.time.max(1)
    }

    /// Whether a publish of work is lost.
    fn loses_work(&self) -> bool {
        self.published.fetch_add(1, Ordering::Relaxed) + 1 == self.told.lose_work
    }

    pub(crate) fn log(self: &Arc<Self>, inner: Arc<dyn ThreadLog>) -> Arc<dyn ThreadLog> {
        Arc::new(DyingLog::new(inner, Arc::clone(self)))
    }

    pub(crate) fn queue(self: &Arc<Self>, inner: Arc<dyn Queue>) -> Arc<dyn Queue> {
        Arc::new(DyingQueue::new(inner, Arc::clone(self)))
    }
}
