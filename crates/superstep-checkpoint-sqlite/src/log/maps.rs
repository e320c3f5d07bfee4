//! The maps beside the log: results and progress of rounds, outcomes of commands, blobs.
//!
//! Each put is one change of the writer, so set-if-absent and the count are exact.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use superstep_checkpoint::{BLOB_TTL, OUTCOME_TTL, PutProgress, PutResult};
use superstep_graph::TaskId;
use superstep_protocol::{CommandId, Dispatch, ThreadId, UnixMillis};

use super::read;
use crate::{
    failure::Failure,
    value::{bytes_at, content, int, later, millis, u64_at},
};

pub(super) fn put_result(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    task: &TaskId,
    result: &Bytes,
    now: UnixMillis,
) -> Result<PutResult, Failure> {
    if read::head(connection, thread, now)?.is_none() {
        return Ok(PutResult::UnknownThread);
    }
    let round = round.to_string();
    let open = connection
        .prepare_cached(
            "SELECT results FROM rounds
             WHERE thread = ?1 AND round = ?2 AND expires_at IS NULL",
        )?
        .query_row([thread.as_str(), &round], |row| Ok(u64_at(row, 0)))
        .optional()?;
    let Some(count) = open.transpose()? else {
        return Ok(PutResult::RoundOver);
    };
    let stored = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO results (thread, round, task, result)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            thread.as_str(),
            round,
            task.as_str(),
            content(result)
        ])?;
    if stored == 0 {
        return Ok(PutResult::Duplicate { count });
    }
    connection
        .prepare_cached("UPDATE rounds SET results = results + 1 WHERE thread = ?1 AND round = ?2")?
        .execute([thread.as_str(), &round])?;
    Ok(PutResult::Stored { count: count + 1 })
}

/// The results of a round; of these tasks only, if some are named.
pub(super) fn results(
    connection: &Connection,
    (thread, round): (&ThreadId, Dispatch),
    tasks: Option<&[TaskId]>,
    now: UnixMillis,
) -> Result<BTreeMap<TaskId, Bytes>, Failure> {
    let named = tasks.map(|tasks| tasks.iter().map(TaskId::as_str).collect::<Vec<_>>());
    let named = named.map(|names| serde_json::Value::from(names).to_string());
    let of_these = "AND r.task IN (SELECT value FROM json_each(?4))";
    let mut statement = connection.prepare_cached(&format!(
        "SELECT r.task, r.result
         FROM rounds d JOIN results r ON r.thread = d.thread AND r.round = d.round
         WHERE d.thread = ?1 AND d.round = ?2 AND (d.expires_at IS NULL OR d.expires_at > ?3) {}",
        named.as_ref().map_or("AND ?4 IS NULL", |_| of_these),
    ))?;
    let round = round.to_string();
    let mut rows = statement.query(params![thread.as_str(), round, millis(now), named])?;
    let mut results = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let task: String = row.get(0)?;
        results.insert(TaskId::from(task), bytes_at(row, 1)?);
    }
    Ok(results)
}

/// Puts an entry, at its place of its task, unless there is one, and gives the one that was there.
pub(super) fn put_progress(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    (task, place): (&TaskId, u64),
    entry: &Bytes,
    now: UnixMillis,
) -> Result<PutProgress, Failure> {
    if read::head(connection, thread, now)?.is_none() {
        return Ok(PutProgress::UnknownThread);
    }
    let (round, place) = (round.to_string(), int(place));
    let open = connection
        .prepare_cached(
            "SELECT 1 FROM rounds
             WHERE thread = ?1 AND round = ?2 AND expires_at IS NULL",
        )?
        .exists([thread.as_str(), &round])?;
    if !open {
        return Ok(PutProgress::RoundOver);
    }
    let stored = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO progress (thread, round, task, place, entry)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            thread.as_str(),
            round,
            task.as_str(),
            place,
            content(entry)
        ])?;
    if stored > 0 {
        return Ok(PutProgress::Stored);
    }
    let bytes = connection
        .prepare_cached(
            "SELECT entry FROM progress
             WHERE thread = ?1 AND round = ?2 AND task = ?3 AND place = ?4",
        )?
        .query_row(
            params![thread.as_str(), round, task.as_str(), place],
            |row| Ok(bytes_at(row, 0)),
        )??;
    Ok(PutProgress::Taken { bytes })
}

pub(super) fn progress(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    task: &TaskId,
    now: UnixMillis,
) -> Result<Vec<Bytes>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT p.entry, p.place
         FROM rounds d JOIN progress p ON p.thread = d.thread AND p.round = d.round
         WHERE d.thread = ?1 AND d.round = ?2 AND (d.expires_at IS NULL OR d.expires_at > ?3)
             AND p.task = ?4
         ORDER BY p.place",
    )?;
    let mut rows = statement.query(params![
        thread.as_str(),
        round.to_string(),
        millis(now),
        task.as_str()
    ])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        if u64_at(row, 1)? != entries.len() as u64 {
            break;
        }
        entries.push(bytes_at(row, 0)?);
    }
    Ok(entries)
}

/// Keeps the outcome unless there is one, and gives the one that was there.
pub(super) fn put_outcome(
    connection: &Connection,
    thread: &ThreadId,
    command: &CommandId,
    outcome_bytes: &Bytes,
    now: UnixMillis,
) -> Result<Option<Bytes>, Failure> {
    if let Some(kept) = outcome(connection, thread, command, now)? {
        return Ok(Some(kept));
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO outcomes (thread, command, expires_at, outcome)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            thread.as_str(),
            command.as_str(),
            millis(later(now, OUTCOME_TTL)),
            content(outcome_bytes),
        ])?;
    Ok(None)
}

pub(super) fn outcome(
    connection: &Connection,
    thread: &ThreadId,
    command: &CommandId,
    now: UnixMillis,
) -> Result<Option<Bytes>, Failure> {
    let kept = connection
        .prepare_cached(
            "SELECT outcome FROM outcomes
             WHERE thread = ?1 AND command = ?2 AND expires_at > ?3",
        )?
        .query_row(
            params![thread.as_str(), command.as_str(), millis(now)],
            |row| Ok(bytes_at(row, 0)),
        )
        .optional()?;
    kept.transpose()
}

pub(super) fn put_blob(
    connection: &Connection,
    thread: &ThreadId,
    id: &str,
    bytes: &Bytes,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO blobs (thread, id, expires_at, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (thread, id) DO UPDATE SET
                 expires_at = iif(expires_at IS NULL, NULL, excluded.expires_at),
                 value = excluded.value",
        )?
        .execute(params![
            thread.as_str(),
            id,
            millis(later(now, BLOB_TTL)),
            content(bytes),
        ])?;
    Ok(())
}

/// Lifts a blob's time, if it is still there, and notes the record that refers to it.
pub(super) fn keep_blob(
    connection: &Connection,
    thread: &ThreadId,
    id: &str,
    version: u64,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE blobs SET expires_at = NULL, named = ?4
             WHERE thread = ?1 AND id = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
        )?
        .execute(params![thread.as_str(), id, millis(now), int(version)])?;
    Ok(())
}

/// Gives a time to live to the blobs that no record from `version` on refers to.
pub(super) fn free_blobs(
    connection: &Connection,
    thread: &ThreadId,
    version: u64,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE blobs SET expires_at = ?3
             WHERE thread = ?1 AND expires_at IS NULL AND named < ?2",
        )?
        .execute(params![
            thread.as_str(),
            int(version),
            millis(later(now, BLOB_TTL))
        ])?;
    Ok(())
}

pub(super) fn blobs(
    connection: &Connection,
    thread: &ThreadId,
    ids: &[String],
    now: UnixMillis,
) -> Result<Vec<Bytes>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT value FROM blobs
         WHERE thread = ?1 AND id = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    let mut blobs = Vec::with_capacity(ids.len());
    for id in ids {
        let value = statement
            .query_row(params![thread.as_str(), id, millis(now)], |row| {
                Ok(bytes_at(row, 0))
            })
            .optional()?;
        let missing = || {
            Failure::corrupt(format!(
                "thread `{thread}` refers to value `{id}`, which is not in the store; restore the file from a backup"
            ))
        };
        blobs.push(value.ok_or_else(missing)??);
    }
    Ok(blobs)
}
