//! Settings of a worker: plain values with units and defaults.
//!
//! Components (log, queue, graphs, world) are passed beside them. Each bound says why it has
//! its default.

use std::{num::NonZeroUsize, time::Duration};

use superstep_protocol::Profile;

/// Bounds on what threads may hold. The same for every worker of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a command, in bytes. Default 1 MiB less 64 KiB: a NATS server's
    /// default payload, with room for headers.
    pub command_bytes_max: usize,
    /// The largest state of a thread as JSON, in bytes. Default 16 MiB: it is read whole by a
    /// cold worker.
    pub state_bytes_max: usize,
    /// The largest record, out-of-line values apart, in bytes. Default 8 MiB.
    pub record_bytes_max: usize,
    /// Channel values over this many bytes are stored out of line. Default 64 KiB.
    pub inline_bytes_max: usize,
    /// The most tasks in one superstep. Default 10,000.
    pub tasks_max: usize,
    /// The largest recursion limit that a start may ask for. Default 10,000.
    pub recursion_limit_max: u32,
    /// A record with a full snapshot comes at least every so many records. Default 32: a cold
    /// reader folds fewer records than that.
    pub snapshot_every: u64,
    /// Values in a `run_completed` event over this many bytes are left out, and the event says
    /// so. Default 256 KiB.
    pub event_values_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_bytes_max: (1 << 20) - (64 << 10),
            state_bytes_max: 16 << 20,
            record_bytes_max: 8 << 20,
            inline_bytes_max: 64 << 10,
            tasks_max: 10_000,
            recursion_limit_max: 10_000,
            snapshot_every: 32,
            event_values_bytes_max: 256 << 10,
        }
    }
}

/// How much of a thread's history is kept.
///
/// A thread is pruned as it goes on, up to a snapshot, so a little more than that stays (two or
/// three times [`Limits::snapshot_every`] records); what stands still is not touched. What the
/// thread needs itself always stays: its state, open questions, events that are not told yet, and
/// what the run under way would be rolled back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    #[default]
    Whole,
    /// The last so many checkpoints.
    Last(u64),
    /// What is not older than this, and the last checkpoint.
    For(Duration),
}

/// Settings of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// How many deliveries are worked on at once. Default 32: nodes mostly wait for others.
    pub concurrency: usize,
    /// How many tasks of one superstep run at once; the others wait for their turn, in task
    /// order. Default as many as there are. With 1, tasks run one after the other, and those
    /// that fail, or that error handlers take over, end last.
    pub tasks_at_once: Option<NonZeroUsize>,
    /// How long one attempt of a node may take. Default 10 minutes.
    pub task_timeout: Duration,
    /// How long a node may go on that was told to stop because its thread was cancelled, or because
    /// another run took its place; then it is dropped. Default 5 s: time to stop a model or close a
    /// connection.
    pub cancel_grace: Duration,
    /// The longest pause that a worker spends on a task: of a node that sleeps, or between two
    /// attempts. Longer ones are timers, and hold no worker. Default 5 s.
    pub short_pause_max: Duration,
    /// How often a worker looks for timers that are due, more or less. Default 500 ms.
    pub timers_every: Duration,
    /// How long a pull waits for messages. Default 5 s; a worker that drains stops waiting at
    /// once.
    pub pull_wait: Duration,
    /// How long a drain may take before what is still held is handed back. Default 25 s: under
    /// the 30 s that Kubernetes gives by default.
    pub drain_timeout: Duration,
    /// How long a command is held back whose thread or graph is not there yet. Default 5 s: a
    /// start may still be on its way.
    pub hold_back: Duration,
    /// How many supersteps a worker goes on with a thread before it publishes the next work
    /// for anyone; 0 publishes each. Default 100.
    pub run_ahead_supersteps: u32,
    /// For how long a worker goes on with a thread in that way. Default 1 s.
    pub run_ahead_time: Duration,
    /// For how long a call to the store is tried again before the delivery is handed back.
    /// Default 30 s.
    pub store_retry: Duration,
    /// How often a task is begun in its round, by whichever workers, before it counts as what kills
    /// them and fails unrun. A worker that hands a task back alive is not counted. Default 5.
    pub attempts_max: u64,
    /// How long a thread that owes something stands still before any worker looks after it.
    /// Default none: the lease of work and a second, so that a redelivery comes first.
    pub reconcile_after: Option<Duration>,
    /// How often a worker looks for such threads, more or less. Default 1 s.
    pub reconcile_every: Duration,
    /// How often a registration of graphs is renewed. Default 10 s.
    pub register_every: Duration,
    /// How long a loop may be without a sign of progress before the worker counts as deaf and
    /// fails its liveness probe. Default 30 s: six pulls that wait their whole time; at least
    /// twice `pull_wait`.
    pub deaf_after: Duration,
    /// Whether a worker refuses to start with a graph that a live worker registered under the same
    /// name and version with another topology. Default no: it warns.
    pub strict_topology: bool,
    /// How much of a thread's history is kept. Default all of it.
    pub retention: Retention,
    /// How long a thread stays once it has ended, with a result or an error; then it is deleted
    /// as a whole. Said to a thread as it starts. One that runs, or waits for an answer, a time or
    /// its turn, stays. Default for good.
    pub ended_ttl: Option<Duration>,
    /// How new threads decide.
    pub profile: Profile,
    /// The bounds.
    pub limits: Limits,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 32,
            tasks_at_once: None,
            task_timeout: Duration::from_secs(600),
            cancel_grace: Duration::from_secs(5),
            short_pause_max: Duration::from_secs(5),
            timers_every: Duration::from_millis(500),
            pull_wait: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(25),
            hold_back: Duration::from_secs(5),
            run_ahead_supersteps: 100,
            run_ahead_time: Duration::from_secs(1),
            store_retry: Duration::from_secs(30),
            attempts_max: 5,
            reconcile_after: None,
            reconcile_every: Duration::from_secs(1),
            register_every: Duration::from_secs(10),
            deaf_after: Duration::from_secs(30),
            strict_topology: false,
            retention: Retention::Whole,
            ended_ttl: None,
            profile: Profile::Default,
            limits: Limits::default(),
        }
    }
}

impl WorkerSettings {
    pub(crate) fn ended_ttl_ms(&self) -> Option<u64> {
        let ttl = self.ended_ttl?;
        Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }
}
