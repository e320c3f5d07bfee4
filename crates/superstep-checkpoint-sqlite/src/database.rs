//! The file, open: one OS thread that writes, a few connections that read.
//!
//! SQLite has one writer at a time, so all changes of this process go through one connection
//! on a thread of its own. What has queued up while it was busy goes into one transaction: one
//! sync to disk answers them all. Each change is its own savepoint, so one that fails takes
//! nothing with it, and no answer is given before the commit. A change that may be lost with
//! the power asks for no sync; everything is in one log, so whatever is durable has all that
//! was answered before it on disk as well.
//!
//! Reads run on other connections, on the runtime's blocking threads. It leaves to others
//! what is written and read. The rule it keeps: an answered durable change stays, and a caller
//! that went away leaves nothing half done.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use superstep_checkpoint::{
    Error, ErrorKind,
    memory::{Clock, system_clock},
};
use superstep_protocol::UnixMillis;
use tokio::{
    sync::{Semaphore, oneshot},
    task,
};

use crate::{
    failure::Failure,
    schema::{open_reader, open_writer},
};

/// Connections that read at once.
const READERS_MAX: usize = 4;
/// Changes that may share a commit: bounds how long the first of them waits for the others.
const BATCH_MAX: usize = 128;

/// One open store file.
pub struct Database {
    path: PathBuf,
    clock: Clock,
    /// `None` only while it is dropped.
    changes: Option<mpsc::Sender<Box<dyn Change>>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    /// Names this opening of the file; no other has it.
    token: String,
    numbers: AtomicU64,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the file at `path`, making it if it is not there.
    ///
    /// # Errors
    /// `Denied` if it cannot be opened or written, `Corrupt` if it is no store of ours or a
    /// newer one, `Unavailable` if another process keeps it locked.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, Error> {
        Self::open_with_clock(path, system_clock())
    }

    /// As [`open`](Self::open), on a clock of the caller's.
    pub fn open_with_clock(path: impl Into<PathBuf>, clock: Clock) -> Result<Arc<Self>, Error> {
        let path = path.into();
        let told = |failure: Failure| failure.into_log_error(&path);
        let connection = open_writer(&path).map_err(told)?;
        let token = connection
            .query_row("SELECT lower(hex(randomblob(8)))", (), |row| row.get(0))
            .map_err(|error| told(error.into()))?;
        let (changes, queued) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("superstep-sqlite".to_owned())
            .spawn(move || write_until_closed(&connection, &queued))
            .map_err(|error| {
                let why = "the store's writer could not be started; free some memory";
                Error::new(ErrorKind::Unavailable, why).with_source(error)
            })?;
        Ok(Arc::new(Self {
            readers: Arc::new(Readers {
                path: path.clone(),
                idle: Mutex::default(),
                free: Arc::new(Semaphore::new(READERS_MAX)),
            }),
            path,
            clock,
            changes: Some(changes),
            writer: Some(writer),
            token,
            numbers: AtomicU64::new(0),
        }))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time by this store's clock.
    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    /// A name that no process has for anything else in this file.
    pub(crate) fn unique_name(&self) -> String {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.token)
    }

    /// Makes one change: all of it, durable when this returns, or on an error nothing.
    ///
    /// # Cancel safety
    /// Dropped, the change may still be made, whole.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let answered = self.ask(Durable::Yes, change)?;
        answered.await.map_err(|_| stopped())?
    }

    /// As [`write`](Self::write), but the machine's sudden end may take the change back: not
    /// the process's end, and never a change that a later durable one was answered after.
    pub(crate) async fn write_unsynced<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let answered = self.ask(Durable::No, change)?;
        answered.await.map_err(|_| stopped())?
    }

    /// Queues a change that nobody waits for; what becomes of it is not told.
    pub(crate) fn write_unanswered(
        &self,
        change: impl FnOnce(&Connection) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        self.ask(Durable::No, change).map(drop)
    }

    fn ask<T: Send + 'static>(
        &self,
        durable: Durable,
        change: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, Failure>>, Failure> {
        let (answer, answered) = oneshot::channel();
        let asked = Box::new(Asked {
            durable,
            change: Some(change),
            outcome: None,
            answer,
        });
        let changes = self.changes.as_ref().ok_or_else(stopped)?;
        changes.send(asked).map_err(|_| stopped())?;
        Ok(answered)
    }

    /// Reads one consistent state: everything that `read` queries is of one moment.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let readers = Arc::clone(&self.readers);
        let turn = Arc::clone(&readers.free)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let reading = task::spawn_blocking(move || {
            let _turn = turn;
            readers.with_connection(read)
        });
        reading.await.map_err(|error| {
            let why = format!("a read did not end: {error}; this is a bug in the store");
            Failure::new(ErrorKind::Unavailable, why)
        })?
    }
}

impl Drop for Database {
    /// Waits for the changes that were asked for, so that the file is closed afterwards.
    fn drop(&mut self) {
        self.changes.take();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told so already.
            let _ = writer.join();
        }
    }
}

/// Connections for reads, opened as they are needed.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    fn with_connection<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = idle().pop();
        let connection = match reused {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        connection.execute_batch("BEGIN")?;
        let outcome = read(&connection);
        connection.execute_batch("COMMIT")?;
        // One that failed on the way here is closed instead.
        idle().push(connection);
        outcome
    }
}

fn stopped() -> Failure {
    let why = "the store's writer has stopped; open the store again";
    Failure::new(ErrorKind::Unavailable, why)
}

/// Whether a change must be on disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// A queued change.
trait Change: Send {
    fn durable(&self) -> Durable;
    /// Makes it, in a savepoint of the batch's transaction.
    fn make(&mut self, connection: &Connection) -> Result<(), Failure>;
    /// Tells the caller what became of it, once it is known what became of the batch.
    fn tell(self: Box<Self>, committed: Result<(), Failure>);
}

struct Asked<T, F> {
    durable: Durable,
    change: Option<F>,
    outcome: Option<Result<T, Failure>>,
    answer: oneshot::Sender<Result<T, Failure>>,
}

impl<T, F> Change for Asked<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Failure> + Send,
{
    fn durable(&self) -> Durable {
        self.durable
    }

    fn make(&mut self, connection: &Connection) -> Result<(), Failure> {
        let Some(change) = self.change.take() else {
            return Ok(());
        };
        let outcome = change(connection);
        let made = outcome.as_ref().map(|_| ()).map_err(Failure::clone);
        self.outcome = Some(outcome);
        made
    }

    fn tell(self: Box<Self>, committed: Result<(), Failure>) {
        let Self {
            outcome, answer, ..
        } = *self;
        let made = || outcome.expect("every change of a batch that was committed was made");
        // The caller may have gone away.
        let _ = answer.send(committed.and_then(|()| made()));
    }
}

/// Makes what is queued, as many at once as are there, until the database is dropped.
fn write_until_closed(connection: &Connection, queued: &mpsc::Receiver<Box<dyn Change>>) {
    let mut synced = Durable::Yes;
    while let Ok(first) = queued.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queued.try_recv()
        {
            batch.push(next);
        }
        let committed = sync_as_asked(connection, &batch, &mut synced)
            .and_then(|()| commit(connection, &mut batch));
        if committed.is_err() && !connection.is_autocommit() {
            // If this fails too, the next BEGIN says so.
            let _ = connection.execute_batch("ROLLBACK");
        }
        for change in batch {
            change.tell(committed.clone());
        }
    }
}

/// Has the next commit synced to disk if any of its changes asks for it. A commit that is not
/// synced is on disk with the next one that is.
fn sync_as_asked(
    connection: &Connection,
    batch: &[Box<dyn Change>],
    synced: &mut Durable,
) -> Result<(), Failure> {
    let (wanted, level) = if batch.iter().any(|c| c.durable() == Durable::Yes) {
        (Durable::Yes, "full")
    } else {
        (Durable::No, "normal")
    };
    if *synced != wanted {
        connection.pragma_update(None, "synchronous", level)?;
        *synced = wanted;
    }
    Ok(())
}

/// Makes the changes of a batch in one transaction; on an error none of them is made.
fn commit(connection: &Connection, batch: &mut [Box<dyn Change>]) -> Result<(), Failure> {
    let run = |sql| connection.prepare_cached(sql)?.execute(());
    run("BEGIN IMMEDIATE")?;
    for change in batch {
        run("SAVEPOINT change")?;
        if let Err(failure) = change.make(connection) {
            // A full disk can end the whole transaction; then the batch fails with it.
            if connection.is_autocommit() {
                return Err(failure);
            }
            run("ROLLBACK TO change")?;
        }
        run("RELEASE change")?;
    }
    run("COMMIT")?;
    Ok(())
}
