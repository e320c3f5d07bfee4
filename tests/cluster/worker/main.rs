//! The worker that the cluster tests run: the real worker code with graphs made to be disturbed.
//!
//! It holds the guide's graphs and those of `graphs`, whose nodes note what they do in a file and
//! wait for files, so that a test knows where a worker stands when it kills it. Waits and bounds
//! are settings, as a test cannot wait out the defaults. Everything else is as in the `superstep`
//! binary: the same worker, log and queue, SIGTERM drains, exit code 6 after handing back. Called
//! with the argument `worker`, it is that binary's command line with these graphs.
//!
//! The rule it keeps: nothing here does what the library does; it only connects and configures.

mod dying;
mod graphs;
mod mixed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use superstep_checkpoint::ThreadLog;
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_queue::{Queue, subject::Subjects};
use superstep_queue_nats::{NatsQueue, NatsSettings};
use superstep_worker::{Drained, Graphs, Limits, SystemWorld, Worker, WorkerSettings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use dying::{DieAt, Dying};

/// What a test tells the worker, as JSON in the first argument.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    name: String,
    nats: String,
    redis: String,
    dir: PathBuf,
    #[serde(default = "default_namespace")]
    namespace: String,
    /// 0 for the queue's own default.
    #[serde(default = "default_ack_wait")]
    ack_wait_ms: u64,
    #[serde(default = "default_durable_after")]
    durable_after_ms: u64,
    #[serde(default = "default_hold_back")]
    hold_back_ms: u64,
    #[serde(default = "default_drain_timeout")]
    drain_timeout_ms: u64,
    #[serde(default = "default_concurrency")]
    concurrency: usize,
    duplicate_window_ms: Option<u64>,
    work_messages_max: Option<u64>,
    command_messages_max: Option<u64>,
    state_bytes_max: Option<usize>,
    /// Copies of each stream.
    replicas: Option<usize>,
    run_ahead_supersteps: Option<u32>,
    short_pause_max_ms: Option<u64>,
    /// Where it aborts.
    #[serde(default)]
    die_at: DieAt,
    /// The version of the graph `long`, and what it does with threads of others.
    #[serde(default = "default_version")]
    version: String,
    #[serde(default)]
    versions: String,
    register_every_ms: Option<u64>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_version() -> String {
    "1".to_owned()
}

fn default_ack_wait() -> u64 {
    1_000
}

fn default_durable_after() -> u64 {
    300
}

fn default_hold_back() -> u64 {
    5_000
}

fn default_drain_timeout() -> u64 {
    10_000
}

fn default_concurrency() -> usize {
    32
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        let name = std::env::var("SUPERSTEP_TEST_WORKER").context("the worker's name")?;
        let graphs = graphs::graphs(
            &name,
            &std::env::current_dir()?,
            &Dying::new(DieAt::default()),
        );
        return Ok(superstep_cli::main(graphs));
    }
    work()
}

#[tokio::main]
async fn work() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let told = std::env::args().nth(1).context("settings as JSON")?;
    let told: Told = serde_json::from_str(&told).context("the settings cannot be read")?;

    let dying = Dying::new(told.die_at.clone());
    let log = RedisLog::connect(RedisSettings {
        namespace: told.namespace.clone(),
        durable_after: Some(Duration::from_millis(told.durable_after_ms)),
        ..RedisSettings::new(&told.redis)
    })
    .await?;
    let queue = NatsQueue::connect(nats_settings(&told)).await?;
    let subjects = Subjects::new("superstep", &told.namespace)?;
    let mut graphs = Graphs::new();
    for graph in superstep_guide::graphs() {
        graphs.add(graph);
    }
    for graph in graphs::graphs(&told.name, &told.dir, &dying) {
        graphs.add(graph);
    }
    graphs.add(graphs::long(
        &told.name,
        &told.dir,
        (&told.version, &told.versions),
        &dying,
    ));
    let (log, used): (Arc<dyn ThreadLog>, Arc<dyn Queue>) =
        (Arc::new(log), Arc::new(queue.clone()));
    let worker = Worker::new(
        graphs,
        dying.log(log),
        dying.queue(used),
        subjects,
        Arc::new(SystemWorld),
        worker_settings(&told),
    );

    let shutdown = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        token.cancel();
    });
    let drained = worker.run(shutdown).await?;
    queue.flush().await?;
    Ok(match drained {
        Drained::Clean => ExitCode::SUCCESS,
        Drained::HandedBack { .. } => ExitCode::from(6),
    })
}

fn nats_settings(told: &Told) -> NatsSettings {
    let defaults = NatsSettings::default();
    NatsSettings {
        urls: told.nats.split(',').map(str::to_owned).collect(),
        namespace: told.namespace.clone(),
        replicas: told.replicas.unwrap_or(defaults.replicas),
        ack_wait: match told.ack_wait_ms {
            0 => defaults.ack_wait,
            lease => Duration::from_millis(lease),
        },
        // Above twice the time until a record is durable, as the setting asks for.
        command_ack_wait: Duration::from_millis(told.durable_after_ms * 2 + 1_000),
        duplicate_window: told
            .duplicate_window_ms
            .map_or(defaults.duplicate_window, Duration::from_millis),
        work_messages_max: told.work_messages_max.unwrap_or(defaults.work_messages_max),
        command_messages_max: told
            .command_messages_max
            .unwrap_or(defaults.command_messages_max),
        ..defaults
    }
}

fn worker_settings(told: &Told) -> WorkerSettings {
    let (limits, defaults) = (Limits::default(), WorkerSettings::default());
    WorkerSettings {
        concurrency: told.concurrency,
        drain_timeout: Duration::from_millis(told.drain_timeout_ms),
        hold_back: Duration::from_millis(told.hold_back_ms),
        register_every: told.register_every_ms.map_or_else(
            || WorkerSettings::default().register_every,
            Duration::from_millis,
        ),
        limits: Limits {
            state_bytes_max: told.state_bytes_max.unwrap_or(limits.state_bytes_max),
            ..limits
        },
        run_ahead_supersteps: told
            .run_ahead_supersteps
            .unwrap_or(defaults.run_ahead_supersteps),
        short_pause_max: told
            .short_pause_max_ms
            .map_or(defaults.short_pause_max, Duration::from_millis),
        ..defaults
    }
}
