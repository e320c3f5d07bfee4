//! Asking a server whether what it answered is on its disk.
//!
//! Redis 7.2 and Valkey tell with WAITAOF. It holds up its connection until the next sync, so it has
//! one of its own, and those who ask meanwhile share the next answer. Servers that do not have the
//! command, keep no append-only file or permit too little are left to `durable_after`, and so is
//! whatever a failover can take away: Clusters, Sentinels, several addresses.
//!
//! The rule it keeps: a yes is said only of what was appended before it was asked for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, RedisError, RedisResult, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::sync::Mutex;

use crate::link::text_of;

/// How long the key lives that is written to have something to wait for.
const MARK_TTL_MS: u64 = 60_000;

/// A server that may tell what is on its disk.
#[derive(Debug)]
pub(crate) struct Durable {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// How many have asked so far.
    asked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Those who asked up to here have their answer.
    told: u64,
    /// Whether the server has said that it does not know the command.
    is_old: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("told", &self.told)
            .field("is_old", &self.is_old)
            .finish_non_exhaustive()
    }
}

impl Durable {
    pub(crate) fn new(
        client: Client,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> Self {
        Self {
            client,
            connect_timeout,
            response_timeout,
            asked: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Waits until everything that was answered before this call is on disk, and on that of a
    /// replica if there is one that keeps up; `false` if the server cannot tell. An error if it is
    /// not on disk `within` this.
    pub(crate) async fn wait(&self, mark: &str, within: Duration) -> RedisResult<bool> {
        let mine = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut state = self.state.lock().await;
        if state.is_old {
            return Ok(false);
        }
        if state.told >= mine {
            return Ok(true);
        }
        let covers = self.asked.load(Ordering::Acquire);
        let mut connection = match state.connection.take() {
            Some(connection) => connection,
            None => self.connect(within).await?,
        };
        match ask(&mut connection, mark, within).await {
            Ok(is_on_disk) => {
                state.connection = Some(connection);
                if is_on_disk {
                    state.told = covers;
                }
                Ok(is_on_disk)
            }
            Err(error) if says_no(&error) => {
                state.is_old = error.to_string().contains("unknown command");
                tracing::debug!(%error, "redis does not tell what is on its disk");
                state.connection = Some(connection);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self, within: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout + within));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    mark: &str,
    within: Duration,
) -> RedisResult<bool> {
    // WAITAOF waits for what its own connection wrote, so something is written: it comes after
    // every append that was answered before.
    let mut set = redis::cmd("SET");
    set.arg(mark).arg(1).arg("PX").arg(MARK_TTL_MS);
    send(connection, &set).await?;
    let role = send(connection, &redis::cmd("ROLE")).await?;
    let mut wait = redis::cmd("WAITAOF");
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    wait.arg(1).arg(u8::from(has_replica(&role))).arg(within);
    match send(connection, &wait).await? {
        // After the time is up a replica may be missing: it may keep no append-only file.
        Value::Array(counts) if matches!(counts.first(), Some(Value::Int(1..))) => Ok(true),
        Value::Array(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        _ => Ok(false),
    }
}

async fn send(connection: &mut MultiplexedConnection, cmd: &redis::Cmd) -> RedisResult<Value> {
    let answer = connection.req_packed_command(cmd).await;
    answer.and_then(Value::extract_error)
}

/// Whether a master says that replicas are connected to it.
fn has_replica(role: &Value) -> bool {
    let Value::Array(parts) = role else {
        return false;
    };
    let is_master = parts.first().is_some_and(|part| text_of(part) == "master");
    is_master && matches!(parts.get(2), Some(Value::Array(replicas)) if !replicas.is_empty())
}

/// Whether the server has answered, and the answer is that it does not tell.
fn says_no(error: &RedisError) -> bool {
    let said = error.to_string();
    ["unknown command", "WAITAOF", "NOPERM", "OOM"]
        .iter()
        .any(|words| said.contains(words))
}
