//! Opening: the servers of a cluster, or the folder of an embedded store.
//!
//! Both servers are tried at once, so that one message names all that is wrong. Making streams
//! is left to whoever works with them. The rule it keeps: a connection comes with the subjects
//! that it is for, so that no two parts of a process disagree on them.

use std::{fmt, path::Path, sync::Arc};

use superstep_checkpoint::{Inspect, ThreadLog};
use superstep_checkpoint_redis::RedisLog;
use superstep_checkpoint_sqlite::{
    DataDir, DataDirError, Database, Role, SqliteLog, SqliteQueue, SqliteQueueSettings,
};
use superstep_queue::{Queue, subject::Subjects};
use superstep_queue_nats::NatsQueue;
use superstep_worker::{Client, ErrorKind, chain};

use super::{Cluster, ConnectSettings, Mistakes};

/// A store and a queue, ready to be used.
#[derive(Clone)]
pub struct Connected {
    /// The threads.
    pub log: Arc<dyn ThreadLog>,
    /// The same store, for tools that look into it.
    pub inspect: Arc<dyn Inspect>,
    /// The messages.
    pub queue: Arc<dyn Queue>,
    /// The names of the messages.
    pub subjects: Subjects,
    nats: Option<Arc<NatsQueue>>,
    /// Held for as long as any clone lives.
    folder: Option<Arc<DataDir>>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("subjects", &self.subjects)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Connected {
    /// A client over both.
    pub fn client(&self) -> Client {
        Client::new(
            Arc::clone(&self.log),
            Arc::clone(&self.queue),
            self.subjects.clone(),
        )
    }

    /// Waits until what was handed to the connection has left this process: acks are not
    /// awaited otherwise. To be called before the process ends.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn flush(&self) -> Result<(), superstep_queue::Error> {
        match &self.nats {
            Some(nats) => nats.flush().await,
            None => Ok(()),
        }
    }
}

/// A server that could not be used.
#[derive(Debug)]
pub struct ServerFailure {
    /// `NATS` or `Redis`.
    pub server: &'static str,
    /// Why, with what to do.
    pub error: superstep_worker::Error,
}

/// Why nothing could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Settings are wrong.
    #[error(transparent)]
    Settings(#[from] Mistakes),
    /// Servers could not be reached, or refuse us.
    #[error("{}", told(.0))]
    Servers(Vec<ServerFailure>),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] DataDirError),
    /// The store in the data folder cannot be used.
    #[error("the store in the data folder cannot be used")]
    Store(#[source] superstep_checkpoint::Error),
}

impl ConnectError {
    /// What the caller should do: mend something before trying again, if any part needs it.
    pub fn kind(&self) -> ErrorKind {
        let kinds = match self {
            Self::Settings(_) | Self::Folder(_) => return ErrorKind::Invalid,
            Self::Store(error) => return store_kind(error),
            Self::Servers(failures) => failures.iter().map(|failure| failure.error.kind()),
        };
        kinds
            .reduce(|first, next| match (first, next) {
                (ErrorKind::Retry, next) => next,
                (first, _) => first,
            })
            .unwrap_or(ErrorKind::Retry)
    }
}

fn store_kind(error: &superstep_checkpoint::Error) -> ErrorKind {
    match error.kind() {
        superstep_checkpoint::ErrorKind::Unavailable | superstep_checkpoint::ErrorKind::Full => {
            ErrorKind::Retry
        }
        superstep_checkpoint::ErrorKind::Denied | superstep_checkpoint::ErrorKind::Invalid => {
            ErrorKind::Invalid
        }
        superstep_checkpoint::ErrorKind::Corrupt => ErrorKind::Corrupt,
    }
}

fn told(failures: &[ServerFailure]) -> String {
    let whys: Vec<String> = failures
        .iter()
        .map(|failure| {
            let cause = std::error::Error::source(&failure.error);
            cause.map_or_else(|| failure.error.to_string(), chain)
        })
        .collect();
    match whys.as_slice() {
        [one] => one.clone(),
        several => format!(
            "{} servers cannot be used:\n  {}",
            several.len(),
            several.join("\n  ")
        ),
    }
}

/// Connects to NATS and Redis.
///
/// # Errors
/// `Settings` with every mistake, or `Servers` with every server that fails, each within its
/// time to connect.
pub async fn connect_cluster(settings: &ConnectSettings) -> Result<Connected, ConnectError> {
    let cluster = settings.check()?;
    let (queue, log) = tokio::join!(
        Box::pin(NatsQueue::connect(cluster.nats)),
        Box::pin(RedisLog::connect(cluster.redis))
    );
    let subjects = cluster.subjects;
    match (queue, log) {
        (Ok(queue), Ok(log)) => {
            let (queue, log) = (Arc::new(queue), Arc::new(log));
            Ok(Connected {
                inspect: Arc::clone(&log) as Arc<dyn Inspect>,
                log,
                queue: Arc::clone(&queue) as Arc<dyn Queue>,
                subjects,
                nats: Some(queue),
                folder: None,
            })
        }
        (queue, log) => {
            let queue = queue.err().map(of_nats);
            let log = log.err().map(of_redis);
            Err(ConnectError::Servers(
                queue.into_iter().chain(log).collect(),
            ))
        }
    }
}

/// Connects to NATS alone.
///
/// # Errors
/// `Servers` if it cannot be reached, or refuses us.
pub async fn connect_queue(cluster: &Cluster) -> Result<Arc<dyn Queue>, ConnectError> {
    let queue = NatsQueue::connect(cluster.nats.clone()).await;
    let queue = queue.map_err(|error| ConnectError::Servers(vec![of_nats(error)]))?;
    Ok(Arc::new(queue))
}

/// Connects to Redis alone.
///
/// # Errors
/// `Servers` if it cannot be reached, or refuses us.
pub async fn connect_log(cluster: &Cluster) -> Result<Arc<dyn ThreadLog>, ConnectError> {
    let (log, _) = connect_store(cluster).await?;
    Ok(log)
}

/// Connects to Redis alone, for tools that look into it: both ports of one store.
///
/// # Errors
/// `Servers` if it cannot be reached, or refuses us.
pub async fn connect_store(
    cluster: &Cluster,
) -> Result<(Arc<dyn ThreadLog>, Arc<dyn Inspect>), ConnectError> {
    let log = RedisLog::connect(cluster.redis.clone()).await;
    let log = Arc::new(log.map_err(|error| ConnectError::Servers(vec![of_redis(error)]))?);
    Ok((Arc::clone(&log) as Arc<dyn ThreadLog>, log))
}

fn of_nats(error: superstep_queue::Error) -> ServerFailure {
    ServerFailure {
        server: "NATS",
        error: superstep_worker::Error::Queue(error),
    }
}

fn of_redis(error: superstep_checkpoint::Error) -> ServerFailure {
    ServerFailure {
        server: "Redis",
        error: superstep_worker::Error::Store(error),
    }
}

/// What a process does with an embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedAccess {
    /// It runs nodes: the folder is made if it is not there, and locked.
    Worker,
    /// It reads, and sends commands to the worker.
    Client,
}

/// Opens the embedded store in `folder`. What a worker that is gone held is handed over at
/// once to the one that opens it next.
///
/// # Errors
/// `Folder` if it is locked, empty or cannot be used; `Store` if what it holds cannot be used;
/// `Settings` if the names are wrong.
pub async fn open_embedded(
    folder: &Path,
    access: EmbeddedAccess,
    settings: &ConnectSettings,
) -> Result<Connected, ConnectError> {
    let subjects = ConnectSettings {
        prefix: settings.prefix.clone(),
        namespace: settings.namespace.clone(),
        ..ConnectSettings::default()
    }
    .check()?
    .subjects;
    let role = match access {
        EmbeddedAccess::Worker => Role::Worker,
        EmbeddedAccess::Client => Role::Client,
    };
    let folder = DataDir::open(folder, role)?;
    let database = Database::open(folder.file()).map_err(ConnectError::Store)?;
    let names = SqliteQueueSettings {
        prefix: subjects.prefix().to_owned(),
        namespace: subjects.namespace().to_owned(),
        ..SqliteQueueSettings::default()
    };
    let failed = |error| {
        ConnectError::Servers(vec![ServerFailure {
            server: "the queue in the data folder",
            error: superstep_worker::Error::Queue(error),
        }])
    };
    let queue = SqliteQueue::new(Arc::clone(&database), names).map_err(failed)?;
    if access == EmbeddedAccess::Worker {
        queue.end_leases().await.map_err(failed)?;
    }
    let log = Arc::new(SqliteLog::new(database));
    Ok(Connected {
        inspect: Arc::clone(&log) as Arc<dyn Inspect>,
        log,
        queue: Arc::new(queue),
        subjects,
        nats: None,
        folder: Some(Arc::new(folder)),
    })
}
