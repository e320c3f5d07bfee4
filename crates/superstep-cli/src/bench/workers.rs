//! The workers of a measurement: in this process, or processes of the same binary.
//!
//! A worker has a connection of its own to each server, as workers have. One in a process of its
//! own is told by the environment where the servers are, and drains when its standard input ends:
//! also when whoever started it is gone without a word.
//!
//! The rule it keeps: all workers of a measurement drain before its namespace is taken away.

use std::{
    io,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use superstep::connect::ConnectSettings;
use superstep_worker::{
    Drained, Error, Graphs, RunnableGraph, SystemWorld, Worker, WorkerSettings,
};
use tokio::{io::AsyncReadExt as _, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{parts::Part, place::Place};
use crate::exit::{Exit, Failure};

/// How long until a worker has registered its graph.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a worker may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(40);
/// How often is looked whether it came or went.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The subcommand of a worker in a process of its own.
pub(crate) const SUBCOMMAND: &str = "bench-worker";

/// How many workers there are, and how they work.
#[derive(Clone, Debug)]
pub(crate) struct Crew {
    /// In this process.
    pub(crate) in_process: usize,
    /// In processes of their own.
    pub(crate) processes: usize,
    pub(crate) settings: WorkerSettings,
}

/// Workers at work.
pub(crate) struct Workers {
    shutdown: CancellationToken,
    here: Vec<(Place, JoinHandle<Result<Drained, Error>>)>,
    elsewhere: Vec<Child>,
}

impl Workers {
    /// Starts them, and waits until the graph is registered.
    pub(crate) async fn start(
        place: &Place,
        graph: &RunnableGraph,
        crew: &Crew,
    ) -> Result<Self, Failure> {
        place.queue().setup().await?;
        let mut workers = Self {
            shutdown: CancellationToken::new(),
            here: Vec::new(),
            elsewhere: Vec::new(),
        };
        for _ in 0..crew.processes {
            let child = spawn(place, crew).map_err(|error| {
                Failure::failed(format!("a worker process cannot be started: {error}"))
            })?;
            workers.elsewhere.push(child);
        }
        for _ in 0..crew.in_process {
            let own = Place::join(place.settings.clone()).await?;
            let worker = worker(&own, graph.clone(), crew.settings.clone());
            let running = tokio::spawn(worker.run(workers.shutdown.clone()));
            workers.here.push((own, running));
        }
        workers.ready(place).await?;
        Ok(workers)
    }

    async fn ready(&mut self, place: &Place) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        while place.log().registrations().await?.is_empty() {
            let gone = self
                .elsewhere
                .iter_mut()
                .any(|child| !matches!(child.try_wait(), Ok(None)));
            if gone || self.here.iter().any(|(_, running)| running.is_finished()) {
                return Err(Failure::failed("a worker ended as soon as it was started")
                    .with_hint("see why with --log info"));
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Exit::TimedOut,
                    format!("no worker was ready within {READY_WITHIN:?}"),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The processes that they run in.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let children = self.elsewhere.iter();
        children
            .map(|child| Part::new("worker", child.id()))
            .collect()
    }

    /// Drains them.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        for child in &mut self.elsewhere {
            drop(child.stdin.take());
        }
        for (place, running) in std::mem::take(&mut self.here) {
            let ended = running.await;
            ended.map_err(|error| Failure::failed(format!("a worker broke: {error}")))??;
            place.flush().await?;
        }
        let deadline = Instant::now() + GONE_WITHIN;
        for mut child in std::mem::take(&mut self.elsewhere) {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if matches!(child.try_wait(), Ok(None)) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::failed("a worker process did not end when told to"));
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for child in &mut self.elsewhere {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn worker(place: &Place, graph: RunnableGraph, settings: WorkerSettings) -> Worker {
    let mut graphs = Graphs::new();
    graphs.add(graph);
    Worker::new(
        graphs,
        place.log(),
        place.queue(),
        place.subjects().clone(),
        Arc::new(SystemWorld),
        settings,
    )
}

fn spawn(place: &Place, crew: &Crew) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    for name in crate::settings::names() {
        command.env_remove(crate::settings::variable(name));
    }
    command
        .envs(variables(&place.settings))
        .arg(SUBCOMMAND)
        .args(["--concurrency", &crew.settings.concurrency.to_string()])
        .args([
            "--run-ahead",
            &crew.settings.run_ahead_supersteps.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        // What the keyboard sends to this process is not for the worker: it is told to go in turn.
        command.process_group(0);
    }
    command.spawn()
}

/// Works on the graphs until standard input ends: what runs in a worker's own process.
pub(crate) async fn work_until_input_ends(
    settings: ConnectSettings,
    graphs: Graphs,
    worker: WorkerSettings,
) -> Result<Exit, Failure> {
    let place = Place::join(settings).await?;
    let worker = Worker::new(
        graphs,
        place.log(),
        place.queue(),
        place.subjects().clone(),
        Arc::new(SystemWorld),
        worker,
    );
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        let mut nothing = [0];
        // Nothing is ever written there: a read ends when the other side is gone.
        while matches!(tokio::io::stdin().read(&mut nothing).await, Ok(1..)) {}
        told.cancel();
    });
    worker.run(shutdown).await?;
    place.flush().await?;
    Ok(Exit::Done)
}

/// The settings as the environment of another process of this binary says them.
fn variables(settings: &ConnectSettings) -> Vec<(String, String)> {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map(|path| path.to_string_lossy().into_owned())
    };
    let all = [
        ("nats_url", settings.nats_url.clone()),
        ("nats_credentials", path(&settings.nats_credentials)),
        ("nats_user", settings.nats_user.clone()),
        ("nats_password", settings.nats_password.clone()),
        ("nats_token", settings.nats_token.clone()),
        ("nats_nkey", settings.nats_nkey.clone()),
        ("nats_ca", path(&settings.nats_ca)),
        ("nats_cert", path(&settings.nats_cert)),
        ("nats_key", path(&settings.nats_key)),
        (
            "nats_replicas",
            settings.nats_replicas.map(|n| n.to_string()),
        ),
        ("redis_url", settings.redis_url.clone()),
        ("redis_user", settings.redis_user.clone()),
        ("redis_password", settings.redis_password.clone()),
        ("redis_ca", path(&settings.redis_ca)),
        ("redis_cert", path(&settings.redis_cert)),
        ("redis_key", path(&settings.redis_key)),
        ("namespace", settings.namespace.clone()),
        ("prefix", settings.prefix.clone()),
        (
            "connect_timeout_ms",
            settings.connect_timeout_ms.map(|ms| ms.to_string()),
        ),
    ];
    debug_assert_eq!(
        all.each_ref().map(|(name, _)| *name),
        ConnectSettings::NAMES
    );
    all.into_iter()
        .filter_map(|(name, value)| Some((crate::settings::variable(name), value?)))
        .collect()
}
