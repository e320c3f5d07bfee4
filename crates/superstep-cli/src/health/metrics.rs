//! Metrics: what a worker measured, as text for Prometheus.
//!
//! Counters and histograms are filled as things happen, gauges when somebody asks. Names and
//! meanings are public: `docs/operations.md` lists them, and a test holds the two together.
//!
//! The rule it keeps: labels have few values. They name graphs with their nodes, kinds and
//! outcomes; no thread, no run, and nothing that a sender chose.

use std::{
    fmt,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use superstep_checkpoint::{InterruptQuery, PAGE_ROWS_MAX, ThreadLog};
use superstep_worker::{Measure, Meter, Snapshot, Verdict};
use tokio::time::Instant;
use tracing::debug;

/// The form of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a count of the store's open questions is told again before it is made anew.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How long that count may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// Tasks take from milliseconds to many minutes.
const TASK_SECONDS: [f64; 13] = [
    0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
];
/// What is late is so by less than a second, or by as long as something was away.
const LATE_SECONDS: [f64; 10] = [0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
/// Messages wait for milliseconds, or for as long as there are too few workers.
const WAIT_SECONDS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0,
];
/// Calls to the store take fractions of milliseconds.
const STORE_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGraph {
    graph: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRunEnd {
    graph: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInterrupt {
    graph: String,
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTask {
    graph: String,
    node: String,
    ended: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfConsumer {
    consumer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCommand {
    kind: &'static str,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCall {
    call: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLook {
    name: &'static str,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;
type Level<T> = Gauge<T>;

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    runs_begun: Family<OfGraph, Counter>,
    runs_ended: Family<OfRunEnd, Counter>,
    interrupts: Family<OfInterrupt, Counter>,
    supersteps: Family<OfGraph, Counter>,
    task_seconds: Seconds<OfTask>,
    schedule_to_start_seconds: Seconds<OfConsumer>,
    redeliveries: Family<OfConsumer, Counter>,
    append_conflicts: Counter,
    commands: Family<OfCommand, Counter>,
    store_call_seconds: Seconds<OfCall>,
    reconciled_threads: Counter,
    stalled_seconds: Histogram,
    timer_late_seconds: Histogram,
    look_age_seconds: Family<OfLook, Gauge<f64, AtomicU64>>,
    slots: Level<i64>,
    slots_used: Level<i64>,
    ready: Level<i64>,
    live: Level<i64>,
    open_interrupts: Level<i64>,
    oldest_interrupt_seconds: Gauge<f64, AtomicU64>,
    counted: Mutex<Option<Instant>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Everything at zero.
    pub(super) fn new() -> Self {
        let task: fn() -> Histogram = || Histogram::new(TASK_SECONDS);
        let wait: fn() -> Histogram = || Histogram::new(WAIT_SECONDS);
        let store: fn() -> Histogram = || Histogram::new(STORE_SECONDS);
        let mut metrics = Self {
            registry: Registry::default(),
            runs_begun: Family::default(),
            runs_ended: Family::default(),
            interrupts: Family::default(),
            supersteps: Family::default(),
            task_seconds: Family::new_with_constructor(task),
            schedule_to_start_seconds: Family::new_with_constructor(wait),
            redeliveries: Family::default(),
            append_conflicts: Counter::default(),
            commands: Family::default(),
            store_call_seconds: Family::new_with_constructor(store),
            reconciled_threads: Counter::default(),
            stalled_seconds: Histogram::new(LATE_SECONDS),
            timer_late_seconds: Histogram::new(LATE_SECONDS),
            look_age_seconds: Family::default(),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
            ready: Gauge::default(),
            live: Gauge::default(),
            open_interrupts: Gauge::default(),
            oldest_interrupt_seconds: Gauge::default(),
            counted: Mutex::default(),
        };
        let mut registry = Registry::with_prefix("superstep");
        macro_rules! register {
            ($($name:ident: $help:literal,)*) => {
                $(registry.register(stringify!($name), $help, metrics.$name.clone());)*
            };
        }
        register! {
            runs_begun: "Runs that began, with input or again",
            runs_ended: "Runs that ended, by how; stopped is to wait for answers",
            interrupts: "Questions that were opened, answered or given up at their deadline",
            supersteps: "Checkpoints that were appended",
            task_seconds: "How long tasks took, with all their attempts",
            schedule_to_start_seconds: "How long messages waited before they were first picked up",
            redeliveries: "Messages that were handed over again",
            append_conflicts: "Appends that were refused because the thread had moved on",
            commands: "Commands that were decided, by outcome or kind of refusal",
            store_call_seconds: "How long calls to the store took",
            reconciled_threads: "Threads whose obligations were performed for somebody else",
            stalled_seconds: "How long those threads had stood still",
            timer_late_seconds: "How long after they became due timers were fired",
            look_age_seconds: "Time since a loop that looks after threads came on",
            slots: "Deliveries of work that can be held at once",
            slots_used: "Deliveries of work that are held",
            ready: "Whether the readiness probe says yes",
            live: "Whether the liveness probe says yes",
            open_interrupts: "Open questions of the namespace, at most 1000",
            oldest_interrupt_seconds: "Age of the oldest open question of the namespace",
        }
        metrics.registry = registry;
        metrics
    }

    /// Sets what is known from looking at a worker.
    pub(super) fn look_at(&self, facts: &Snapshot, verdict: &Verdict) {
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.slots.set(level(facts.slots));
        self.slots_used.set(level(facts.slots_used));
        for (name, known) in &facts.looks {
            let age = known.came_on.elapsed().as_secs_f64();
            let age_of = self.look_age_seconds.get_or_create(&OfLook { name });
            age_of.set(age);
        }
        self.ready.set(i64::from(verdict.readiness.is_ok()));
        self.live.set(i64::from(verdict.liveness.is_ok()));
    }

    /// Counts the open questions, if the last count is old; one page of the list, as it is
    /// ordered by age and an operator needs no more than `1000 or above`.
    pub(super) async fn count_questions(&self, log: &dyn ThreadLog) {
        {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            if counted.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
                return;
            }
            *counted = Some(Instant::now());
        }
        let query = InterruptQuery {
            thread: None,
            limit: PAGE_ROWS_MAX,
            after: None,
        };
        let asked = async { tokio::try_join!(log.interrupts(&query), log.now()) };
        match tokio::time::timeout(COUNT_TIMEOUT, asked).await {
            Ok(Ok((page, now))) => {
                let count = i64::try_from(page.rows.len()).unwrap_or(i64::MAX);
                self.open_interrupts.set(count);
                let oldest = page.rows.first().map_or(Duration::ZERO, |(_, row)| {
                    Duration::from_millis(now.0.saturating_sub(row.opened_at.0))
                });
                self.oldest_interrupt_seconds.set(oldest.as_secs_f64());
            }
            Ok(Err(error)) => debug!(%error, "open questions were not counted"),
            Err(_) => debug!("open questions were not counted in time"),
        }
    }

    /// All of it as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("text can be written");
        text
    }
}

impl Meter for Metrics {
    fn measure(&self, measure: Measure<'_>) {
        let of_graph = |graph: &str| OfGraph {
            graph: graph.to_owned(),
        };
        let of_consumer = |consumer: &str| OfConsumer {
            consumer: consumer.to_owned(),
        };
        match measure {
            Measure::RunBegun { graph } => {
                self.runs_begun.get_or_create(&of_graph(graph)).inc();
            }
            Measure::RunEnded { graph, status } => {
                let graph = graph.to_owned();
                let labels = OfRunEnd { graph, status };
                self.runs_ended.get_or_create(&labels).inc();
            }
            Measure::Interrupt { graph, what } => {
                let graph = graph.to_owned();
                let labels = OfInterrupt { graph, what };
                self.interrupts.get_or_create(&labels).inc();
            }
            Measure::Superstep { graph } => {
                self.supersteps.get_or_create(&of_graph(graph)).inc();
            }
            Measure::Task {
                graph,
                node,
                ended,
                took,
            } => {
                let labels = OfTask {
                    graph: graph.to_owned(),
                    node: node.to_owned(),
                    ended,
                };
                let seconds = self.task_seconds.get_or_create(&labels);
                seconds.observe(took.as_secs_f64());
            }
            Measure::PickedUp { consumer, after } => {
                let waits = &self.schedule_to_start_seconds;
                let seconds = waits.get_or_create(&of_consumer(consumer));
                seconds.observe(after.as_secs_f64());
            }
            Measure::Redelivered { consumer } => {
                let labels = of_consumer(consumer);
                self.redeliveries.get_or_create(&labels).inc();
            }
            Measure::AppendConflict => {
                self.append_conflicts.inc();
            }
            Measure::Command { kind, outcome } => {
                let outcome = outcome.to_owned();
                let labels = OfCommand { kind, outcome };
                self.commands.get_or_create(&labels).inc();
            }
            Measure::StoreCall { call, ok, took } => {
                let result = if ok { "answered" } else { "unavailable" };
                let labels = OfCall { call, result };
                let seconds = self.store_call_seconds.get_or_create(&labels);
                seconds.observe(took.as_secs_f64());
            }
            Measure::Reconciled { stood } => {
                self.reconciled_threads.inc();
                self.stalled_seconds.observe(stood.as_secs_f64());
            }
            Measure::TimerFired { late } => {
                self.timer_late_seconds.observe(late.as_secs_f64());
            }
            _ => {}
        }
    }
}
