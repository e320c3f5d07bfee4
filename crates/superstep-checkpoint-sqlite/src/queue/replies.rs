//! Outcomes of commands on their way back to who asked.
//!
//! Who asks in this process is answered through a channel. Who asks in another process is
//! answered through a row that it takes; a row that nobody takes is swept. Only inboxes of
//! this queue are kept: nobody can listen on another subject here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use superstep_protocol::UnixMillis;
use superstep_queue::Error;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{Shared, wake::Topic};
use crate::{
    failure::Failure,
    value::{bytes_at, content, millis},
};

/// How an inbox's subject begins.
const INBOX: &str = "_INBOX.sqlite.";
/// How long a reply waits to be taken: beyond any patience of who asks for one that is there.
const KEPT_MS: i64 = 60_000;

/// Whether a process that shares the file may listen on `subject`.
pub(super) fn is_inbox(subject: &str) -> bool {
    subject.starts_with(INBOX)
}

/// Keeps a reply for another process; the first one counts.
pub(super) fn put(
    connection: &Connection,
    subject: &str,
    body: &Bytes,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO replies (subject, sent_at, body) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![subject, millis(now), content(body)])?;
    Ok(())
}

pub(super) fn sweep(connection: &Connection, now: UnixMillis) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM replies WHERE sent_at <= ?1")?
        .execute([millis(now).saturating_sub(KEPT_MS)])?;
    Ok(())
}

fn find(connection: &Connection, subject: &str) -> Result<Option<Bytes>, Failure> {
    let found = connection
        .prepare_cached("SELECT body FROM replies WHERE subject = ?1")?
        .query_row([subject], |row| Ok(bytes_at(row, 0)))
        .optional()?;
    found.transpose()
}

/// Who waits for a reply in this process, by subject.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    open: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
}

impl Inboxes {
    /// Answers who waits on `subject`; `false` if that is nobody of this queue.
    pub(super) fn answer(&self, subject: &str, body: &Bytes) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = open.remove(subject);
        // The asker may have gone away meanwhile; a reply is not stored.
        waiting.is_some_and(|waiting| waiting.send(body.clone()).is_ok())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_empty()
    }
}

/// An inbox of one request; closed when dropped, so that an abandoned wait leaves nothing.
pub(super) struct Inbox {
    shared: Arc<Shared>,
    subject: String,
    answered: oneshot::Receiver<Bytes>,
    bell: watch::Receiver<()>,
}

impl Inbox {
    pub(super) fn open(shared: &Arc<Shared>) -> Self {
        let subject = format!("{INBOX}{}", shared.database.unique_name());
        let (answer, answered) = oneshot::channel();
        let inboxes = &shared.inboxes.open;
        let mut open = inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(subject.clone(), answer);
        Self {
            shared: Arc::clone(shared),
            subject,
            answered,
            bell: shared.wake.bell(Topic::Others),
        }
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Waits for the reply, at most `wait`.
    pub(super) async fn wait(&mut self, wait: Duration) -> Result<Option<Bytes>, Error> {
        let give_up = Instant::now() + wait;
        loop {
            self.bell.mark_unchanged();
            let subject = self.subject.clone();
            let find = self
                .shared
                .read(move |connection| find(connection, &subject));
            if let Some(body) = find.await? {
                return Ok(Some(body));
            }
            if Instant::now() >= give_up {
                return Ok(self.answered.try_recv().ok());
            }
            tokio::select! {
                answered = &mut self.answered => return Ok(answered.ok()),
                () = self.shared.wake.wait(&mut self.bell, give_up) => {}
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let inboxes = &self.shared.inboxes.open;
        let mut open = inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.subject);
    }
}
