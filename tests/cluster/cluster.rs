//! The fixture: servers of the test's own, worker processes, and what they left behind.
//!
//! A thread is read through the worker crate's own reader on the log in Redis, which is the truth;
//! what nodes did to the world outside is read from the ledger in the test's folder.
//!
//! The rule it keeps: a test starts each worker by itself and owns it, so that it says which one
//! dies when; a worker that is not dropped before its servers is a mistake that shows in its log.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use superstep_checkpoint::{ThreadLog, ThreadQuery};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::{ThreadId, ThreadState, ThreadStatus};
use superstep_tests::servers::{NatsOptions, NatsServer, RedisOptions, RedisServer, ServerBinary};
use superstep_tests::{Program, eventually_async, example_binary, worker_binary};
use superstep_worker::{CheckpointView, Limits, SystemWorld, Threads};
use tempfile::TempDir;

use crate::SOON;
use crate::outside::Outside;

/// Servers and a folder of one test.
pub(crate) struct Cluster {
    pub(crate) nats: NatsServer,
    pub(crate) redis: RedisServer,
    dir: TempDir,
}

impl Cluster {
    /// The servers that the machine has: the oldest NATS that is supported, and Redis 7.
    pub(crate) fn start() -> Self {
        Self::on(ServerBinary::Nats, ServerBinary::Redis)
    }

    /// The servers of these programs.
    pub(crate) fn on(nats: ServerBinary, redis: ServerBinary) -> Self {
        let nats = NatsOptions {
            binary: nats,
            ..NatsOptions::default()
        };
        let redis = RedisOptions {
            binary: redis,
            ..RedisOptions::default()
        };
        Self::with(nats, redis)
    }

    /// Servers with these options.
    pub(crate) fn with(nats: NatsOptions, redis: RedisOptions) -> Self {
        Self {
            nats: NatsServer::start_with(nats).expect("a private NATS"),
            redis: RedisServer::start_with(redis).expect("a private Redis"),
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Starts a worker and waits until it works.
    pub(crate) async fn worker(&self, name: &str) -> Program {
        self.worker_with(name, json!({})).await
    }

    /// Starts a worker with other settings than the defaults, and waits until it works.
    pub(crate) async fn worker_with(&self, name: &str, settings: Value) -> Program {
        let mut worker = self.launch(name, settings);
        works(&mut worker).await;
        worker
    }

    /// Starts a worker and returns at once.
    pub(crate) fn launch(&self, name: &str, settings: Value) -> Program {
        let mut told = json!({"nats": self.nats.url(), "redis": self.redis.url()});
        merge(&mut told, settings);
        launch(self.dir.path(), name, told)
    }

    /// Starts the `superstep` binary's own worker, told by its environment, and returns at once.
    pub(crate) fn launch_superstep(&self, name: &str, environment: &[(&str, &str)]) -> Program {
        let path = worker_binary("superstep").expect("the binary builds");
        self.launch_program(path, name, environment)
    }

    /// As `launch_superstep`, with the graphs of the tests in the place of the guide's.
    pub(crate) fn launch_own(&self, name: &str, environment: &[(&str, &str)]) -> Program {
        let path = example_binary("superstep-test-worker").expect("the worker builds");
        self.launch_program(path, name, environment)
    }

    fn launch_program(&self, path: PathBuf, name: &str, environment: &[(&str, &str)]) -> Program {
        let mut command = Command::new(path);
        command
            .arg("worker")
            .env("SUPERSTEP_TEST_WORKER", name)
            .current_dir(self.dir.path())
            .env("SUPERSTEP_NATS_URL", self.nats.url())
            .env("SUPERSTEP_REDIS_URL", self.redis.url())
            .env("SUPERSTEP_OUTBOX", self.dir.path().join("outbox"))
            .envs(environment.iter().copied());
        let log = self.dir.path().join(format!("{name}.log"));
        Program::spawn(&format!("worker {name}"), command, &log).expect("the worker starts")
    }

    /// Starts the `superstep` binary's own worker and waits until it works.
    pub(crate) async fn superstep(&self, name: &str) -> Program {
        let mut worker = self.launch_superstep(name, &[]);
        works(&mut worker).await;
        worker
    }

    /// Makes a file that nodes wait for or read.
    pub(crate) fn write(&self, file: &str, text: &str) {
        // Made whole under another name first: a node must not read half of it.
        let draft = self.dir.path().join(format!(".{file}"));
        std::fs::write(&draft, text).expect("the folder can be written");
        std::fs::rename(&draft, self.dir.path().join(file)).expect("the file can be named");
    }

    /// What nodes noted, a line each: what they did, and the worker.
    pub(crate) fn ledger(&self) -> Vec<String> {
        lines(self.dir.path(), "ledger")
    }

    /// The mails that the graph `email` has sent for a thread.
    pub(crate) fn outbox(&self, thread: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("outbox")).unwrap_or_default();
        let mails = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a mail is JSON"));
        mails
            .filter(|mail: &Value| mail["thread_id"] == thread)
            .collect()
    }

    /// Waits until so many lines of the ledger begin with `prefix`, and returns those there are.
    pub(crate) async fn noted(&self, prefix: &str, count: usize) -> Vec<String> {
        let what = format!("{count} notes of `{prefix}`");
        eventually_async(&what, SOON, async || {
            let mut lines = self.ledger();
            lines.retain(|line| line.starts_with(prefix));
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// A client of NATS that knows nothing of superstep.
    pub(crate) async fn outside(&self) -> Outside {
        Outside::connect(&self.nats.url()).await
    }

    /// The log in Redis.
    pub(crate) async fn store(&self) -> Store {
        Store::connect(&self.redis.url()).await
    }
}

/// Starts a worker that is told where its servers are, and returns at once.
pub(crate) fn launch(dir: &Path, name: &str, mut told: Value) -> Program {
    merge(&mut told, json!({"name": name, "dir": dir}));
    let path = example_binary("superstep-test-worker").expect("the worker builds");
    let mut command = Command::new(path);
    command
        .arg(told.to_string())
        .current_dir(dir)
        .env("SUPERSTEP_OUTBOX", dir.join("outbox"))
        .env("RUST_LOG", "info");
    let log = dir.join(format!("{name}.log"));
    Program::spawn(&format!("worker {name}"), command, &log).expect("the worker starts")
}

/// The lines of a file that nodes write, those that are there.
pub(crate) fn lines(dir: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until the worker pulls.
pub(crate) async fn works(worker: &mut Program) {
    eventually_async("the worker works", SOON, async || {
        let ended = worker.ended();
        assert!(
            ended.is_none(),
            "the worker ended at its start ({ended:?}):\n{}",
            worker.tail()
        );
        worker.log().contains(" working graphs").then_some(())
    })
    .await;
}

/// Adds the members of `changes`.
fn merge(into: &mut Value, changes: Value) {
    if let (Value::Object(into), Value::Object(changes)) = (into, changes) {
        into.extend(changes);
    }
}

/// Reads threads from Redis.
pub(crate) struct Store {
    log: Arc<dyn ThreadLog>,
    threads: Threads,
}

impl Store {
    pub(crate) async fn connect(url: &str) -> Self {
        Self::connect_in(url, "default").await
    }

    /// As `connect`, of the threads of this namespace.
    pub(crate) async fn connect_in(url: &str, namespace: &str) -> Self {
        let settings = RedisSettings {
            namespace: namespace.to_owned(),
            ..RedisSettings::new(url)
        };
        let log = RedisLog::connect(settings).await;
        let log: Arc<dyn ThreadLog> = Arc::new(log.expect("the log can be read"));
        let world = Arc::new(SystemWorld);
        let threads = Threads::new(Arc::clone(&log), world, Limits::default(), SOON);
        Self { log, threads }
    }

    /// The thread's state now.
    pub(crate) async fn state(&self, thread: &str) -> ThreadState {
        let loaded = self.threads.load(&ThreadId::new(thread)).await;
        loaded
            .expect("the thread can be read")
            .unwrap_or_else(|| panic!("there is no thread {thread}"))
            .state
            .as_ref()
            .clone()
    }

    /// How many threads have this status, or any.
    pub(crate) async fn count(&self, status: Option<ThreadStatus>) -> usize {
        let mut query = ThreadQuery {
            status,
            graph: None,
            limit: 1_000,
            after: None,
        };
        let mut count = 0;
        loop {
            // A store that is being restarted is asked again.
            let Ok(page) = self.log.threads(&query).await else {
                return 0;
            };
            count += page.rows.len();
            if page.next.is_none() {
                return count;
            }
            query.after = page.next;
        }
    }

    /// Whether the thread has a log.
    pub(crate) async fn is_there(&self, thread: &str) -> bool {
        let head = self.log.head(&ThreadId::new(thread)).await;
        head.expect("the head can be read").is_some()
    }

    /// Waits until the thread rests with this status, and returns its values.
    pub(crate) async fn rests(&self, thread: &str, status: ThreadStatus) -> Map<String, Value> {
        self.rests_within(thread, status, SOON).await
    }

    /// As `rests`, with another deadline.
    pub(crate) async fn rests_within(
        &self,
        thread: &str,
        status: ThreadStatus,
        within: Duration,
    ) -> Map<String, Value> {
        let what = format!("thread {thread} is {status}");
        eventually_async(&what, within, async || {
            // A store that is being restarted is asked again.
            let loaded = self.threads.load(&ThreadId::new(thread)).await;
            let state = loaded.ok()??.state;
            (state.status() == status).then(|| state.visible_values())
        })
        .await
    }

    /// The checkpoints as they are, newest first; branches stand among each other.
    pub(crate) async fn checkpoints(&self, thread: &str) -> Vec<CheckpointView> {
        let id = ThreadId::new(thread);
        let history = self.threads.history(&id, None, 10_000).await;
        history.expect("the history can be read")
    }

    /// The checkpoints, oldest first, after checking that the records are one chain and that
    /// every superstep is there once with its parent.
    pub(crate) async fn history(&self, thread: &str) -> Vec<CheckpointView> {
        let id = ThreadId::new(thread);
        let records = self.log.history(&id, None, 10_000).await;
        let mut versions: Vec<u64> = records
            .expect("the log can be read")
            .iter()
            .map(|record| record.head.version)
            .collect();
        versions.reverse();
        let dense: Vec<u64> = (1..=versions.len() as u64).collect();
        assert_eq!(versions, dense, "the records of {thread} are one chain");

        let history = self.threads.history(&id, None, 10_000).await;
        let mut history = history.expect("the history can be read");
        history.reverse();
        for (index, checkpoint) in history.iter().enumerate() {
            let step = i64::try_from(index).expect("a short history") - 1;
            assert_eq!(
                checkpoint.step, step,
                "every superstep of {thread} is there once"
            );
            let parent = index.checked_sub(1).map(|before| &history[before]);
            assert_eq!(
                checkpoint.parent_checkpoint_id.as_ref(),
                parent.map(|parent| &parent.checkpoint_id),
                "the parent of superstep {step} of {thread}"
            );
        }
        history
    }
}
