//! Live output: to subscribers of this queue through memory, to other processes through a
//! table that holds the last moments.
//!
//! It is not stored and waits for nobody: a row is written when the writer comes to it, a
//! process that writes faster than that drops rows, and a subscriber that is too slow misses
//! what made room. The rule it keeps: output never holds up a run.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use superstep_protocol::ThreadId;
use superstep_queue::{Error, Headers, Received, Subscription};
use tokio::sync::{broadcast, watch};

use super::{Shared, events::wait_for, wake::Topic};
use crate::{
    database::Database,
    failure::Failure,
    value::{bytes_at, content},
};

/// Output that a subscriber has not read yet; more is dropped for it, oldest first.
const BACKLOG_MAX: usize = 1024;
/// Rows that wait for the writer; more are not written.
const UNWRITTEN_MAX: usize = 1024;
/// Rows that are kept for other processes, which look every few dozen milliseconds.
const ROWS_MAX: i64 = 1024;

#[derive(Debug)]
pub(super) struct Outputs {
    /// Names this queue in its rows: its own subscribers have them from memory.
    origin: String,
    sender: broadcast::Sender<Received>,
    unwritten: Arc<AtomicUsize>,
}

impl Outputs {
    pub(super) fn new(origin: String) -> Self {
        Self {
            origin,
            sender: broadcast::Sender::new(BACKLOG_MAX),
            unwritten: Arc::default(),
        }
    }

    pub(super) fn send(
        &self,
        database: &Database,
        thread: &ThreadId,
        subject: String,
        body: Bytes,
    ) -> Result<(), Failure> {
        // Without subscribers here there is nobody to tell here.
        let _ = self.sender.send(Received {
            subject: subject.clone(),
            headers: Headers::new(),
            body: body.clone(),
        });
        if self.unwritten.fetch_add(1, Ordering::Relaxed) >= UNWRITTEN_MAX {
            self.unwritten.fetch_sub(1, Ordering::Relaxed);
            return Ok(());
        }
        let (origin, thread) = (self.origin.clone(), thread.clone());
        let unwritten = Arc::clone(&self.unwritten);
        database.write_unanswered(move |connection| {
            unwritten.fetch_sub(1, Ordering::Relaxed);
            put(connection, &origin, &thread, &subject, &body)
        })
    }
}

fn put(
    connection: &Connection,
    origin: &str,
    thread: &ThreadId,
    subject: &str,
    body: &Bytes,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO output (origin, thread, subject, body) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![origin, thread.as_str(), subject, content(body)])?;
    connection
        .prepare_cached("DELETE FROM output WHERE sequence <= ?1")?
        .execute([connection.last_insert_rowid() - ROWS_MAX])?;
    Ok(())
}

fn last_sequence(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection
        .prepare_cached("SELECT coalesce(max(sequence), 0) FROM output")?
        .query_row((), |row| row.get(0))?)
}

/// The output of other queues for `thread` after `seen`, and the last sequence looked at.
fn read_on(
    connection: &Connection,
    origin: &str,
    thread: &ThreadId,
    seen: i64,
) -> Result<(Vec<Received>, i64), Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT subject, body FROM output
         WHERE sequence > ?1 AND origin <> ?2 AND thread = ?3 ORDER BY sequence",
    )?;
    let mut rows = statement.query(params![seen, origin, thread.as_str()])?;
    let mut received = Vec::new();
    while let Some(row) = rows.next()? {
        received.push(Received {
            subject: row.get(0)?,
            headers: Headers::new(),
            body: bytes_at(row, 1)?,
        });
    }
    Ok((received, seen.max(last_sequence(connection)?)))
}

pub(super) struct OutputSubscription {
    shared: Weak<Shared>,
    here: broadcast::Receiver<Received>,
    bell: watch::Receiver<()>,
    thread: ThreadId,
    under: String,
    seen: i64,
    /// The bell rang and the table was not read since: kept here, as a dropped future would
    /// forget it.
    rung: bool,
    waiting: VecDeque<Received>,
}

impl OutputSubscription {
    pub(super) async fn open(
        shared: &Arc<Shared>,
        thread: ThreadId,
        under: String,
    ) -> Result<Self, Error> {
        Ok(Self {
            seen: shared.read(last_sequence).await?,
            shared: Arc::downgrade(shared),
            here: shared.outputs.sender.subscribe(),
            bell: shared.wake.bell(Topic::Others),
            thread,
            under,
            rung: false,
            waiting: VecDeque::new(),
        })
    }

    /// Reads what other processes wrote; `false` if the queue is gone.
    async fn read_others(&mut self) -> Result<bool, Error> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(false);
        };
        let origin = shared.outputs.origin.clone();
        let (thread, seen) = (self.thread.clone(), self.seen);
        let read = shared.read(move |connection| read_on(connection, &origin, &thread, seen));
        let (received, seen) = read.await?;
        self.waiting.extend(received);
        self.seen = seen;
        self.rung = false;
        Ok(true)
    }
}

#[async_trait]
impl Subscription for OutputSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        use broadcast::error::RecvError;
        loop {
            if let Some(output) = self.waiting.pop_front() {
                return Ok(Some(output));
            }
            if self.rung && !self.read_others().await? {
                return Ok(None);
            }
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                here = self.here.recv() => match here {
                    Ok(output) if output.subject.starts_with(&self.under) => {
                        return Ok(Some(output));
                    }
                    // Another thread's, or this subscriber was too slow.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(None),
                },
                lives = wait_for(&self.shared, &mut self.bell) => {
                    if !lives {
                        return Ok(None);
                    }
                    self.rung = true;
                }
            }
        }
    }
}
