//! Events in their table, bounded in number and age, and those who follow them.
//!
//! A subscription reads on from the sequence that it has seen; one that reads too slowly
//! misses what made room meanwhile, as on a server. Nothing is lost when its future is
//! dropped: it moves on only with what it gives.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, params, params_from_iter};
use superstep_protocol::UnixMillis;
use superstep_queue::{Error, EventFilter, EventMessage, Received, Subscription, header};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    stream::{headers_at, headers_text, length, remember, seen},
    wake::{POLL, Topic},
};
use crate::{
    failure::Failure,
    value::{Parameters, bytes_at, content, int, millis},
};

/// The name of the stream among the remembered ids.
const STREAM: &str = "events";
/// Events read at once.
const READ_MAX: usize = 100;

/// Stores events under their subjects, but those whose ids were seen within the window.
pub(super) fn publish(
    connection: &Connection,
    events: &[(String, EventMessage)],
    bound: usize,
    window: Duration,
    now: UnixMillis,
) -> Result<(), Failure> {
    for (subject, event) in events {
        let id = event.headers.get(header::MSG_ID);
        if let Some(id) = id
            && seen(connection, STREAM, id, window, now)?.is_some()
        {
            continue;
        }
        connection
            .prepare_cached(
                "INSERT INTO events (kind, graph, thread, subject, published_at, headers, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                event.kind,
                event.graph.as_ref().map(AsRef::<str>::as_ref),
                event.thread.as_str(),
                subject,
                millis(now),
                headers_text(&event.headers),
                content(&event.body),
            ])?;
        let sequence = connection.last_insert_rowid();
        if let Some(id) = id {
            remember(connection, STREAM, id, sequence, now)?;
        }
        connection
            .prepare_cached("DELETE FROM events WHERE sequence <= ?1")?
            .execute([sequence.saturating_sub(int(bound as u64))])?;
    }
    Ok(())
}

/// Removes events that are too old. They are in the order of their age, but for what a clock
/// that was set back makes of it, so the first one that is young enough ends the search.
pub(super) fn sweep(
    connection: &Connection,
    now: UnixMillis,
    age_max: Duration,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "DELETE FROM events WHERE sequence < coalesce(
                 (SELECT sequence FROM events WHERE published_at > ?1 ORDER BY sequence LIMIT 1),
                 (SELECT max(sequence) + 1 FROM events))",
        )?
        .execute([millis(now).saturating_sub(length(age_max))])?;
    Ok(())
}

/// The events after `seen` that the filter wants, and the last sequence that was looked at.
fn read_on(
    connection: &Connection,
    filter: &EventFilter,
    seen: i64,
) -> Result<(Vec<Received>, i64), Failure> {
    let mut sql =
        "SELECT sequence, subject, headers, body FROM events WHERE sequence > ?".to_owned();
    let mut parameters: Parameters = vec![seen.into()];
    let graph = filter.graph.as_ref().map(ToString::to_string);
    let thread = filter.thread.as_ref().map(ToString::to_string);
    for (condition, wanted) in [
        (" AND kind = ?", filter.kind.clone()),
        (" AND graph = ?", graph),
        (" AND thread = ?", thread),
    ] {
        if let Some(wanted) = wanted {
            sql.push_str(condition);
            parameters.push(wanted.into());
        }
    }
    sql.push_str(" ORDER BY sequence LIMIT ?");
    parameters.push(int(READ_MAX as u64).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut received = Vec::new();
    let mut last = seen;
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        received.push(Received {
            subject: row.get(1)?,
            headers: headers_at(row, 2)?,
            body: bytes_at(row, 3)?,
        });
    }
    if received.len() < READ_MAX {
        // All that there is was looked at: what the filter passed over needs no second look.
        last = last.max(last_sequence(connection)?);
    }
    Ok((received, last))
}

fn last_sequence(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection
        .prepare_cached("SELECT coalesce(max(sequence), 0) FROM events")?
        .query_row((), |row| row.get(0))?)
}

pub(super) struct EventSubscription {
    shared: Weak<Shared>,
    bell: watch::Receiver<()>,
    filter: EventFilter,
    seen: i64,
    waiting: VecDeque<Received>,
}

impl EventSubscription {
    pub(super) async fn open(shared: &Arc<Shared>, filter: EventFilter) -> Result<Self, Error> {
        let seen = if filter.from_start {
            0
        } else {
            shared.read(last_sequence).await?
        };
        Ok(Self {
            shared: Arc::downgrade(shared),
            bell: shared.wake.bell(Topic::Events),
            filter,
            seen,
            waiting: VecDeque::new(),
        })
    }
}

#[async_trait]
impl Subscription for EventSubscription {
    async fn next(&mut self) -> Result<Option<Received>, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            self.bell.mark_unchanged();
            {
                let Some(shared) = self.shared.upgrade() else {
                    return Ok(None);
                };
                let (filter, seen) = (self.filter.clone(), self.seen);
                let read = shared.read(move |connection| read_on(connection, &filter, seen));
                let (received, seen) = read.await?;
                self.waiting.extend(received);
                self.seen = seen;
            }
            if self.waiting.is_empty() && !wait_for(&self.shared, &mut self.bell).await {
                return Ok(None);
            }
        }
    }
}

/// Waits for the bell without keeping the queue; `false` if the queue is gone.
pub(super) async fn wait_for(shared: &Weak<Shared>, bell: &mut watch::Receiver<()>) -> bool {
    loop {
        // First of all: who is called again and again for other reasons looks, too.
        match shared.upgrade() {
            Some(shared) => shared.wake.look_after_others(),
            None => return false,
        }
        tokio::select! {
            rung = bell.changed() => return rung.is_ok(),
            () = sleep_until(Instant::now() + POLL) => {}
        }
    }
}
