//! Commands and work in their tables: stored, leased, put off, removed.
//!
//! Each function is part of one change of the writer. A lane is what one durable consumer
//! reads: all commands, or the work of one graph version. The rule it keeps: a message leaves
//! only by ack or term, and a message under a lease is handed to nobody else until it ends.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use superstep_checkpoint::ErrorKind;
use superstep_protocol::UnixMillis;
use superstep_queue::{Headers, Published, header};

use crate::{
    failure::Failure,
    value::{bytes_at, content, int, later, millis, millis_at, u64_at},
};

/// The lane of all commands: they have one consumer.
pub(super) const COMMANDS_LANE: &str = "commands";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamName {
    Commands,
    Work,
}

impl StreamName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Work => "work",
        }
    }
}

/// A message to store.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) stream: StreamName,
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

impl Incoming {
    pub(super) fn lane(&self) -> &str {
        match self.stream {
            StreamName::Commands => COMMANDS_LANE,
            StreamName::Work => &self.subject,
        }
    }
}

/// How many messages the streams hold, and how long they remember ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) commands: usize,
    pub(super) work: usize,
    pub(super) window: Duration,
}

/// A message handed over.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) sequence: u64,
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) published_at: UnixMillis,
    pub(super) attempt: u64,
}

/// Stores a message, or finds that it is there already.
pub(super) fn publish(
    connection: &Connection,
    message: &Incoming,
    bounds: &Bounds,
    now: UnixMillis,
) -> Result<Published, Failure> {
    let stream = message.stream.as_str();
    let id = message.headers.get(header::MSG_ID);
    if let Some(id) = id
        && let Some(sequence) = seen(connection, stream, id, bounds.window, now)?
    {
        return Ok(Published {
            id: format!("{stream}:{sequence}"),
            duplicate: true,
        });
    }
    let bound = match message.stream {
        StreamName::Commands => bounds.commands,
        StreamName::Work => bounds.work,
    };
    let held = connection
        .prepare_cached("SELECT messages FROM streams WHERE stream = ?1")?
        .query_row([stream], |row| Ok(u64_at(row, 0)))??;
    if held >= bound as u64 {
        return Err(Failure::new(
            ErrorKind::Full,
            format!(
                "the {stream} stream holds {held} messages, its bound; wait until some are done, \
                 or raise the bound"
            ),
        ));
    }
    connection
        .prepare_cached(
            "INSERT INTO messages (stream, lane, subject, published_at, headers, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            stream,
            message.lane(),
            message.subject,
            millis(now),
            headers_text(&message.headers),
            content(&message.body),
        ])?;
    let sequence = connection.last_insert_rowid();
    connection
        .prepare_cached("UPDATE streams SET messages = messages + 1 WHERE stream = ?1")?
        .execute([stream])?;
    if let Some(id) = id {
        remember(connection, stream, id, sequence, now)?;
    }
    Ok(Published {
        id: format!("{stream}:{sequence}"),
        duplicate: false,
    })
}

/// Leases up to `max` messages of `lane` for `ack_wait`, oldest first; with none, says when
/// one that is under a lease or put off will be deliverable.
pub(super) fn take(
    connection: &Connection,
    lane: &str,
    max: usize,
    ack_wait: Duration,
    now: UnixMillis,
) -> Result<(Vec<Lease>, Option<UnixMillis>), Failure> {
    connection
        .prepare_cached(
            "UPDATE messages SET deliver_at = NULL WHERE lane = ?1 AND deliver_at <= ?2",
        )?
        .execute(params![lane, millis(now)])?;
    let mut leases = Vec::new();
    {
        let mut statement = connection.prepare_cached(
            "SELECT sequence, stream, subject, published_at, attempts + 1, headers, body
             FROM messages WHERE lane = ?1 AND deliver_at IS NULL ORDER BY sequence LIMIT ?2",
        )?;
        let mut rows = statement.query(params![lane, int(max as u64)])?;
        while let Some(row) = rows.next()? {
            leases.push(lease_at(row)?);
        }
    }
    if leases.is_empty() {
        let next: Option<i64> = connection
            .prepare_cached(
                "SELECT min(deliver_at) FROM messages
                 WHERE lane = ?1 AND deliver_at IS NOT NULL",
            )?
            .query_row([lane], |row| row.get(0))?;
        let next = next.map(|at| UnixMillis(u64::try_from(at).unwrap_or_default()));
        return Ok((leases, next));
    }
    let until = millis(later(now, ack_wait));
    let mut statement = connection
        .prepare_cached("UPDATE messages SET attempts = ?2, deliver_at = ?3 WHERE sequence = ?1")?;
    for lease in &leases {
        statement.execute(params![int(lease.sequence), int(lease.attempt), until])?;
    }
    Ok((leases, None))
}

/// For how long the oldest message of `lane` has waited that nobody holds.
pub(super) fn waited(
    connection: &Connection,
    lane: &str,
    now: UnixMillis,
) -> Result<Option<Duration>, Failure> {
    let published_at = connection
        .prepare_cached(
            "SELECT published_at FROM messages
             WHERE lane = ?1 AND deliver_at IS NULL ORDER BY sequence LIMIT 1",
        )?
        .query_row([lane], |row| Ok(millis_at(row, 0)))
        .optional()?
        .transpose()?;
    let waited = published_at.map(|at| now.0.saturating_sub(at.0));
    Ok(waited.map(Duration::from_millis))
}

/// Makes a leased message deliverable at `at`, if its lease of that `attempt` stands: a late
/// nak or in-progress of a lease that ended must not touch the next one's. Gives its lane.
pub(super) fn deliver_at(
    connection: &Connection,
    sequence: u64,
    attempt: u64,
    at: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE messages SET deliver_at = ?3 WHERE sequence = ?1 AND attempts = ?2",
        )?
        .execute(params![int(sequence), int(attempt), millis(at)])?;
    Ok(())
}

/// Forgets a message for good, whoever holds it.
pub(super) fn remove(connection: &Connection, sequence: u64) -> Result<(), Failure> {
    let removed = connection
        .prepare_cached("DELETE FROM messages WHERE sequence = ?1 RETURNING stream")?
        .query_row([int(sequence)], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(stream) = removed {
        connection
            .prepare_cached("UPDATE streams SET messages = messages - 1 WHERE stream = ?1")?
            .execute([stream])?;
    }
    Ok(())
}

/// Makes every message deliverable.
pub(super) fn end_leases(connection: &Connection) -> Result<(), Failure> {
    connection.execute(
        "UPDATE messages SET deliver_at = NULL WHERE deliver_at IS NOT NULL",
        (),
    )?;
    Ok(())
}

/// The sequence that a message of this id was stored under, within the window.
pub(super) fn seen(
    connection: &Connection,
    stream: &str,
    id: &str,
    window: Duration,
    now: UnixMillis,
) -> Result<Option<u64>, Failure> {
    let found = connection
        .prepare_cached(
            "SELECT sequence FROM message_ids WHERE stream = ?1 AND id = ?2 AND seen_at > ?3",
        )?
        .query_row(params![stream, id, millis(now) - length(window)], |row| {
            Ok(u64_at(row, 0))
        })
        .optional()?;
    found.transpose()
}

/// Remembers the id of a message; the caller has asked [`seen`] first.
pub(super) fn remember(
    connection: &Connection,
    stream: &str,
    id: &str,
    sequence: i64,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO message_ids (stream, id, sequence, seen_at)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![stream, id, sequence, millis(now)])?;
    Ok(())
}

/// Forgets ids that are out of the window.
pub(super) fn sweep(
    connection: &Connection,
    now: UnixMillis,
    window: Duration,
) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM message_ids WHERE seen_at <= ?1")?
        .execute([millis(now) - length(window)])?;
    Ok(())
}

/// How many commands, works and events are held.
pub(super) fn counts(connection: &Connection) -> Result<[u64; 3], Failure> {
    let count = |sql: &str| connection.query_row(sql, (), |row| Ok(u64_at(row, 0)))?;
    Ok([
        count("SELECT messages FROM streams WHERE stream = 'commands'")?,
        count("SELECT messages FROM streams WHERE stream = 'work'")?,
        count("SELECT count(*) FROM events")?,
    ])
}

/// A length of time as SQLite holds it.
pub(super) fn length(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn headers_text(headers: &Headers) -> String {
    serde_json::to_string(headers).expect("a map of text is JSON")
}

pub(super) fn headers_at(row: &Row<'_>, column: usize) -> Result<Headers, Failure> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::corrupt(format!(
            "the headers of a message are no map of text ({error}); restore the file from a backup"
        ))
    })
}

fn lease_at(row: &Row<'_>) -> Result<Lease, Failure> {
    let sequence = u64_at(row, 0)?;
    let stream: String = row.get(1)?;
    Ok(Lease {
        sequence,
        id: format!("{stream}:{sequence}"),
        subject: row.get(2)?,
        published_at: millis_at(row, 3)?,
        attempt: u64_at(row, 4)?,
        headers: headers_at(row, 5)?,
        body: bytes_at(row, 6)?,
    })
}
