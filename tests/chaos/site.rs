//! The servers, the workers, and the ways between them.
//!
//! Each worker has a way of its own to either server. Workers are restarted under the same name and
//! write to the same log.
//!
//! The rule it keeps: `heal` makes everything whole again, whatever state it is in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use superstep_checkpoint::ThreadLog;
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_tests::servers::{NatsServer, RedisServer};
use superstep_tests::{Program, Proxy, example_binary};
use superstep_worker::{Limits, SystemWorld, Threads};
use tempfile::TempDir;

/// How many workers there are.
pub(crate) const WORKERS: usize = 5;
/// The lease of work.
const ACK_WAIT_MS: u64 = 1_000;
/// A process that just ended again is not started at once.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// For how long a reader of the store waits for it.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// A worker with its ways.
pub(crate) struct Worker {
    name: String,
    dir: PathBuf,
    program: Option<Program>,
    started: Instant,
    pub(crate) to_nats: Proxy,
    pub(crate) to_redis: Proxy,
}

impl Worker {
    /// Starts the process again.
    pub(crate) fn start(&mut self) {
        let told = json!({
            "name": self.name,
            "dir": self.dir,
            "nats": format!("nats://127.0.0.1:{}", self.to_nats.port()),
            "redis": format!("redis://127.0.0.1:{}/", self.to_redis.port()),
            "ack_wait_ms": ACK_WAIT_MS,
            "short_pause_max_ms": 200,
        });
        let path = example_binary("superstep-test-worker").expect("the worker builds");
        let mut command = Command::new(path);
        command
            .arg(told.to_string())
            .current_dir(&self.dir)
            .env("SUPERSTEP_OUTBOX", self.dir.join("outbox"))
            .env("RUST_LOG", "info,superstep_worker=debug");
        let log = self.dir.join(format!("{}.log", self.name));
        let name = format!("worker {}", self.name);
        self.started = Instant::now();
        self.program = Some(Program::spawn(&name, command, &log).expect("the worker starts"));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(program) = &mut self.program {
            program.kill();
        }
    }

    pub(crate) fn freeze(&self) {
        if let Some(program) = &self.program {
            program.freeze();
        }
    }

    pub(crate) fn thaw(&self) {
        if let Some(program) = &self.program {
            program.thaw();
        }
    }

    /// Starts the process if it is not there, as a supervisor does. Says whether it did.
    pub(crate) fn keep_up(&mut self) -> bool {
        let ended = self.program.as_mut().is_none_or(|p| p.ended().is_some());
        let restarts = ended && self.started.elapsed() > RESTART_AFTER;
        if restarts {
            self.start();
        }
        restarts
    }
}

/// All of it.
pub(crate) struct Site {
    pub(crate) workers: Vec<Worker>,
    pub(crate) nats: NatsServer,
    pub(crate) redis: RedisServer,
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let nats = NatsServer::start().expect("a private NATS");
        let redis = RedisServer::start().expect("a private Redis");
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("superstep-chaos-").tempdir();
        let dir = dir.expect("a temporary folder");
        let mut workers = Vec::new();
        for n in 0..WORKERS {
            let mut worker = Worker {
                name: format!("w{n}"),
                dir: dir.path().to_owned(),
                program: None,
                started: Instant::now(),
                to_nats: Proxy::to(nats.port()).await.expect("a proxy"),
                to_redis: Proxy::to(redis.port()).await.expect("a proxy"),
            };
            worker.start();
            workers.push(worker);
        }
        Self {
            workers,
            nats,
            redis,
            path: dir.path().to_owned(),
            dir: Some(dir),
        }
    }

    /// The folder of logs, ledger and outbox.
    pub(crate) fn dir(&self) -> &Path {
        &self.path
    }

    pub(crate) fn logs(&self) -> String {
        self.path.display().to_string()
    }

    /// Leaves the folder on the disk, for a person to look at.
    pub(crate) fn keep(&mut self) -> PathBuf {
        if let Some(dir) = self.dir.take() {
            let kept = dir.keep();
            // Beside the workers' logs: what the servers said.
            drop(std::fs::write(kept.join("nats.log"), self.nats.log()));
            drop(std::fs::write(kept.join("redis.log"), self.redis.log()));
            drop(copy(&self.redis.data_dir(), &kept.join("redis")));
        }
        self.path.clone()
    }

    /// Ends every fault: servers answer, ways are open, workers run.
    pub(crate) fn heal(&mut self) {
        for worker in &mut self.workers {
            worker.to_nats.mend();
            worker.to_redis.mend();
            worker.thaw();
            worker.keep_up();
        }
    }

    /// Reads threads from the store itself.
    pub(crate) async fn store(&self) -> (Arc<dyn ThreadLog>, Threads) {
        let log = RedisLog::connect(RedisSettings::new(&self.redis.url())).await;
        let log: Arc<dyn ThreadLog> = Arc::new(log.expect("the log can be read"));
        let world = Arc::new(SystemWorld);
        let threads = Threads::new(Arc::clone(&log), world, Limits::default(), READ_WITHIN);
        (log, threads)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
