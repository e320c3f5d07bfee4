//! What reads a thread: head, load, record, history; and the check of the file.
//!
//! Every query asks for the thread's row too: a tombstone that has outlived its time is not
//! there, whether it was swept or not.

use rusqlite::{Connection, OptionalExtension, Row, params};
use superstep_checkpoint::{Loaded, StoredRecord};
use superstep_protocol::{Head, ThreadId, UnixMillis};

use crate::{
    failure::Failure,
    value::{bytes_at, head_at, int, millis, u64_at},
};

pub(super) fn head(
    connection: &Connection,
    thread: &ThreadId,
    now: UnixMillis,
) -> Result<Option<Head>, Failure> {
    let found = connection
        .prepare_cached(
            "SELECT version, nonce FROM threads
             WHERE thread = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        )?
        .query_row(params![thread.as_str(), millis(now)], |row| {
            Ok(head_at(row, 0))
        })
        .optional()?;
    found.transpose()
}

pub(super) fn load(
    connection: &Connection,
    thread: &ThreadId,
    now: UnixMillis,
) -> Result<Option<Loaded>, Failure> {
    let records = records(
        connection,
        "SELECT r.version, r.nonce, r.snapshot, r.record
         FROM threads t
         JOIN records head ON head.thread = t.thread AND head.version = t.version
         JOIN records r ON r.thread = t.thread AND r.version >= head.snapshot
         WHERE t.thread = ?1 AND (t.expires_at IS NULL OR t.expires_at > ?2)
         ORDER BY r.version",
        params![thread.as_str(), millis(now)],
    )?;
    match (records.first(), records.last()) {
        (Some(first), Some(last)) if first.head.version == last.snapshot => {
            Ok(Some(Loaded { records }))
        }
        (Some(_), Some(last)) => Err(Failure::corrupt(format!(
            "thread `{thread}` builds on a snapshot at version {} that is not in its log",
            last.snapshot
        ))),
        _ => Ok(None),
    }
}

pub(super) fn record(
    connection: &Connection,
    thread: &ThreadId,
    version: u64,
    now: UnixMillis,
) -> Result<Option<StoredRecord>, Failure> {
    let found = records(
        connection,
        "SELECT r.version, r.nonce, r.snapshot, r.record
         FROM threads t JOIN records r ON r.thread = t.thread AND r.version = ?3
         WHERE t.thread = ?1 AND (t.expires_at IS NULL OR t.expires_at > ?2)",
        params![thread.as_str(), millis(now), int(version)],
    )?;
    Ok(found.into_iter().next())
}

pub(super) fn history(
    connection: &Connection,
    thread: &ThreadId,
    before: Option<u64>,
    limit: usize,
    now: UnixMillis,
) -> Result<Vec<StoredRecord>, Failure> {
    records(
        connection,
        "SELECT r.version, r.nonce, r.snapshot, r.record
         FROM threads t JOIN records r ON r.thread = t.thread AND r.version < ?3
         WHERE t.thread = ?1 AND (t.expires_at IS NULL OR t.expires_at > ?2)
         ORDER BY r.version DESC LIMIT ?4",
        params![
            thread.as_str(),
            millis(now),
            int(before.unwrap_or(u64::MAX)),
            int(limit as u64),
        ],
    )
}

/// Whether the file is whole, and what was looked at.
pub(super) fn check(connection: &Connection) -> Result<(bool, String), Failure> {
    let ask = |pragma: &str| -> Result<String, Failure> {
        let sql = format!("PRAGMA {pragma}");
        let answer = connection.query_row(&sql, (), |row| row.get::<_, String>(0))?;
        Ok(answer)
    };
    let journal = ask("journal_mode")?;
    if journal != "wal" {
        let detail = format!(
            "the journal mode is `{journal}`, so readers and the writer wait for each other; put the file on a local disk"
        );
        return Ok((false, detail));
    }
    let whole = ask("quick_check(1)")?;
    if whole != "ok" {
        let detail = format!("the file is damaged ({whole}); restore it from a backup");
        return Ok((false, detail));
    }
    let detail = format!(
        "whole, write-ahead log, every commit synced, SQLite {}",
        rusqlite::version()
    );
    Ok((true, detail))
}

fn records(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<StoredRecord>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record_at(row)?);
    }
    Ok(records)
}

fn record_at(row: &Row<'_>) -> Result<StoredRecord, Failure> {
    Ok(StoredRecord {
        head: head_at(row, 0)?,
        snapshot: u64_at(row, 2)?,
        bytes: bytes_at(row, 3)?,
    })
}
