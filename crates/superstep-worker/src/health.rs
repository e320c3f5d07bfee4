//! Health: what the worker's loops last managed, and what that says to a probe.
//!
//! The loops touch a shared [`Health`] as they go; a [`Snapshot`] of it is plain data, and
//! [`verdict`] is a pure function of one. How probes are asked (HTTP, files) is left to the
//! composition root, and so is what becomes of the measures that pass through here.
//!
//! The rule it keeps: liveness is proven by progress. A connection that is open proves nothing;
//! a pull that the server answered does, with or without messages, and so does a signal that kept
//! a delivery. A worker with all slots in long nodes is alive, one that pulls into silence is not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use superstep_protocol::{EventData, GraphName, RecordBody, TaskResult, UnixMillis};
use superstep_queue::Delivery;
use tokio::time::Instant;

use crate::meter::{self, Measure, Meter};

mod verdict;

pub use verdict::{HealthSettings, Probe, Verdict, verdict};

/// How far a worker has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It reaches for its servers.
    #[default]
    Connecting,
    /// It has reached them, and verifies the streams.
    Connected,
    /// The streams are as they should be; it registers its graphs and opens its consumers.
    StreamsVerified,
    /// It pulls.
    Working,
    /// It was told to go: it pulls no more and finishes what it holds.
    Draining,
}

/// What a loop that pulls is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for a free slot.
    Waiting,
    /// It pulls.
    Pulling,
}

/// What is known of one loop that pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopFacts {
    /// What it is doing.
    pub doing: Doing,
    /// Since when, over however many pulls.
    pub since: Instant,
    /// When a pull last succeeded, an empty one too.
    pub pulled: Option<Instant>,
    /// When a pull last failed.
    pub failed: Option<Instant>,
    /// The lease of what it pulls.
    pub ack_wait: Duration,
}

/// What is known of one loop that looks after threads again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookFacts {
    /// When it last came on: it began a look, or was done with a thread in it.
    pub came_on: Instant,
    /// How long it waits between two looks, more or less.
    pub every: Duration,
}

/// What is known of a worker at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// How far it has come.
    pub stage: Stage,
    /// Since when.
    pub since: Instant,
    /// Its loops, by consumer: `commands`, or a graph with its version.
    pub loops: BTreeMap<Arc<str>, LoopFacts>,
    /// Its loops that look after threads: `timers` and `reconciler`.
    pub looks: BTreeMap<&'static str, LookFacts>,
    /// When a delivery was last kept in progress.
    pub kept: Option<Instant>,
    /// When the store last answered.
    pub store_answered: Option<Instant>,
    /// When the store last was unavailable or full.
    pub store_failed: Option<Instant>,
    /// When a record was last appended.
    pub appended: Option<Instant>,
    /// How many slots for work there are.
    pub slots: usize,
    /// How many of them are used.
    pub slots_used: usize,
}

/// What a worker's loops touch. A clone is the same one.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    facts: Mutex<Snapshot>,
    meter: Option<Arc<dyn Meter>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(None)
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// The health of a worker that has not begun; what it measures goes to `meter`.
    pub fn new(meter: Option<Arc<dyn Meter>>) -> Self {
        let facts = Mutex::new(Snapshot {
            stage: Stage::default(),
            since: Instant::now(),
            loops: BTreeMap::new(),
            looks: BTreeMap::new(),
            kept: None,
            store_answered: None,
            store_failed: None,
            appended: None,
            slots: 0,
            slots_used: 0,
        });
        Self {
            shared: Arc::new(Shared { facts, meter }),
        }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.facts().clone()
    }

    /// The worker has come so far. It never goes back.
    pub fn reached(&self, stage: Stage) {
        let mut facts = self.facts();
        if facts.stage < stage {
            facts.stage = stage;
            facts.since = Instant::now();
        }
    }

    /// The loop of this name that looks after threads came on.
    pub(crate) fn looks(&self, name: &'static str, every: Duration) {
        let came_on = Instant::now();
        let looks = LookFacts { came_on, every };
        self.facts().looks.insert(name, looks);
    }

    /// A timer was fired so long after it became due.
    pub(crate) fn fired(&self, late: Duration) {
        self.measure(|| Measure::TimerFired { late });
    }

    /// What a thread owed was performed on behalf of somebody else, after it had stood still for
    /// so long.
    pub(crate) fn reconciled(&self, stood: Duration) {
        self.measure(|| Measure::Reconciled { stood });
    }

    /// There are so many slots for work.
    pub(crate) fn slots(&self, slots: usize) {
        self.facts().slots = slots;
    }

    /// The loop of `consumer` waits for a slot, or pulls.
    pub(crate) fn does(&self, consumer: &Arc<str>, doing: Doing, ack_wait: Duration) {
        let (mut facts, since) = (self.facts(), Instant::now());
        match facts.loops.get_mut(consumer) {
            Some(known) if known.doing == doing => {}
            Some(known) => (known.doing, known.since) = (doing, since),
            None => {
                let new = LoopFacts {
                    doing,
                    since,
                    pulled: None,
                    failed: None,
                    ack_wait,
                };
                facts.loops.insert(Arc::clone(consumer), new);
            }
        }
    }

    /// A pull of `consumer` was answered with these.
    pub(crate) fn pulled(&self, consumer: &Arc<str>, deliveries: &[Delivery], now: UnixMillis) {
        if let Some(known) = self.facts().loops.get_mut(consumer) {
            known.pulled = Some(Instant::now());
        }
        for delivery in deliveries {
            self.measure(|| {
                if delivery.attempt > 1 {
                    Measure::Redelivered { consumer }
                } else {
                    let after = now.0.saturating_sub(delivery.published_at.0);
                    Measure::PickedUp {
                        consumer,
                        after: Duration::from_millis(after),
                    }
                }
            });
        }
    }

    /// A pull of `consumer` failed.
    pub(crate) fn pull_failed(&self, consumer: &Arc<str>) {
        if let Some(known) = self.facts().loops.get_mut(consumer) {
            known.failed = Some(Instant::now());
        }
    }

    /// A slot is used for as long as what this returns lives.
    pub(crate) fn use_slot(&self) -> UsedSlot {
        self.facts().slots_used += 1;
        UsedSlot(self.clone())
    }

    /// A delivery was kept in progress.
    pub(crate) fn kept(&self) {
        self.facts().kept = Some(Instant::now());
    }

    /// The store was called, and answered or was unavailable.
    pub(crate) fn store_called(&self, call: &'static str, began: Instant, ok: bool) {
        let now = Instant::now();
        {
            let mut facts = self.facts();
            let at = if ok {
                &mut facts.store_answered
            } else {
                &mut facts.store_failed
            };
            *at = Some(now);
        }
        let took = now.saturating_duration_since(began);
        self.measure(|| Measure::StoreCall { call, ok, took });
    }

    /// A record was appended to a thread of `graph`.
    pub(crate) fn appended(&self, graph: &GraphName, record: &RecordBody) {
        self.facts().appended = Some(Instant::now());
        if let Some(measure) = Measure::of_record(graph.as_str(), record) {
            self.measure(|| measure);
        }
    }

    /// An append was refused because the thread had moved on.
    pub(crate) fn conflicted(&self) {
        self.measure(|| Measure::AppendConflict);
    }

    /// A command was decided.
    pub(crate) fn decided(&self, kind: &'static str, outcome: &str) {
        self.measure(|| Measure::Command { kind, outcome });
    }

    /// An event of a record that was just appended.
    pub(crate) fn told(&self, graph: &GraphName, event: &EventData) {
        if let Some(measure) = Measure::of_event(graph.as_str(), event) {
            self.measure(|| measure);
        }
    }

    /// A task of `graph` ended, or was told to stop, which says nothing.
    pub(crate) fn task_ended(
        &self,
        graph: &GraphName,
        node: &str,
        began: Instant,
        result: Option<&TaskResult>,
    ) {
        let Some(result) = result else { return };
        self.measure(|| Measure::Task {
            graph: graph.as_str(),
            node,
            ended: meter::ended(result),
            took: began.elapsed(),
        });
    }

    fn measure<'a>(&self, measure: impl FnOnce() -> Measure<'a>) {
        if let Some(meter) = &self.shared.meter {
            meter.measure(measure());
        }
    }

    fn facts(&self) -> MutexGuard<'_, Snapshot> {
        let facts = self.shared.facts.lock();
        facts.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot in use.
pub(crate) struct UsedSlot(Health);

impl Drop for UsedSlot {
    fn drop(&mut self) {
        self.0.facts().slots_used -= 1;
    }
}

#[cfg(test)]
mod tests;
