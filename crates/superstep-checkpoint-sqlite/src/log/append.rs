//! What moves a thread: append, delete, trim, and leaving the watch.
//!
//! Each is one change of the writer: its compare and its statements are one transaction.

use rusqlite::{Connection, OptionalExtension, params};
use superstep_checkpoint::{
    Append, Appended, ENDED_ROUND_TTL, IndexChange, StoredRecord, TOMBSTONE_TTL, Trimmed,
};
use superstep_protocol::{Head, ThreadId, UnixMillis};

use super::{maps, sweep};
use crate::{
    failure::Failure,
    value::{content, head_at, int, later, millis},
};

pub(super) fn append(
    connection: &Connection,
    thread: &ThreadId,
    append: &Append,
    now: UnixMillis,
) -> Result<Appended, Failure> {
    let head = head_for_change(connection, thread, now)?;
    if holds(connection, thread, head, append.record.head)? {
        return Ok(Appended::Done);
    }
    if let Some((command, _)) = &append.outcome
        && let Some(outcome) = maps::outcome(connection, thread, command, now)?
    {
        return Ok(Appended::Decided { outcome });
    }
    if head != append.after {
        return Ok(Appended::Moved { head });
    }
    insert_record(connection, thread, &append.record)?;
    change_row(
        connection,
        thread,
        append.record.head,
        None,
        &append.index,
        now,
    )?;
    change_maps(connection, thread, &append.index, now)?;
    if let Some((command, outcome)) = &append.outcome {
        maps::put_outcome(connection, thread, command, outcome, now)?;
    }
    for id in &append.blobs {
        maps::keep_blob(connection, thread, id, append.record.head.version, now)?;
    }
    Ok(Appended::Done)
}

pub(super) fn delete(
    connection: &Connection,
    thread: &ThreadId,
    after: Head,
    tombstone: &StoredRecord,
    now: UnixMillis,
) -> Result<Appended, Failure> {
    let head = head_for_change(connection, thread, now)?;
    if holds(connection, thread, head, tombstone.head)? {
        return Ok(Appended::Done);
    }
    if head != Some(after) {
        return Ok(Appended::Moved { head });
    }
    sweep::remove_thread(connection, thread.as_str())?;
    insert_record(connection, thread, tombstone)?;
    let expires = later(now, TOMBSTONE_TTL);
    let index = IndexChange::default();
    change_row(
        connection,
        thread,
        tombstone.head,
        Some(expires),
        &index,
        now,
    )?;
    Ok(Appended::Done)
}

pub(super) fn trim(
    connection: &Connection,
    thread: &ThreadId,
    snapshot: Head,
    now: UnixMillis,
) -> Result<Trimmed, Failure> {
    let is_snapshot = connection
        .prepare_cached(
            "SELECT 1 FROM records
             WHERE thread = ?1 AND version = ?2 AND nonce = ?3 AND snapshot = version",
        )?
        .exists(params![
            thread.as_str(),
            int(snapshot.version),
            snapshot.nonce.to_string()
        ])?;
    if !is_snapshot {
        return Ok(Trimmed::NotASnapshot);
    }
    let removed = connection
        .prepare_cached("DELETE FROM records WHERE thread = ?1 AND version < ?2")?
        .execute(params![thread.as_str(), int(snapshot.version)])?;
    maps::free_blobs(connection, thread, snapshot.version, now)?;
    Ok(Trimmed::Removed(removed as u64))
}

pub(super) fn unwatch(
    connection: &Connection,
    thread: &ThreadId,
    head: Head,
) -> Result<bool, Failure> {
    let removed = connection
        .prepare_cached(
            "UPDATE threads SET watched = NULL, watched_since = NULL
             WHERE thread = ?1 AND watched = ?2",
        )?
        .execute(params![thread.as_str(), head.to_string()])?;
    Ok(removed > 0)
}

/// The thread's head. A tombstone that has outlived its time is removed on the way, so that
/// nothing of it is met by what comes after it.
pub(super) fn head_for_change(
    connection: &Connection,
    thread: &ThreadId,
    now: UnixMillis,
) -> Result<Option<Head>, Failure> {
    let found = connection
        .prepare_cached("SELECT version, nonce, expires_at FROM threads WHERE thread = ?1")?
        .query_row([thread.as_str()], |row| {
            Ok((head_at(row, 0), row.get::<_, Option<i64>>(2)?))
        })
        .optional()?;
    match found {
        Some((_, Some(expires_at))) if expires_at <= millis(now) => {
            sweep::remove_thread(connection, thread.as_str())?;
            Ok(None)
        }
        Some((head, _)) => head.map(Some),
        None => Ok(None),
    }
}

/// Whether the log holds that very record: an append whose answer was lost.
fn holds(
    connection: &Connection,
    thread: &ThreadId,
    head: Option<Head>,
    record: Head,
) -> Result<bool, Failure> {
    if head.is_none_or(|head| head.version < record.version) {
        return Ok(false);
    }
    Ok(connection
        .prepare_cached("SELECT 1 FROM records WHERE thread = ?1 AND version = ?2 AND nonce = ?3")?
        .exists(params![
            thread.as_str(),
            int(record.version),
            record.nonce.to_string()
        ])?)
}

fn insert_record(
    connection: &Connection,
    thread: &ThreadId,
    record: &StoredRecord,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO records (thread, version, nonce, snapshot, record)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            thread.as_str(),
            int(record.head.version),
            record.head.nonce.to_string(),
            int(record.snapshot),
            content(&record.bytes),
        ])?;
    Ok(())
}

/// Writes the thread's row: its head, and of the rest what the change names.
fn change_row(
    connection: &Connection,
    thread: &ThreadId,
    head: Head,
    expires: Option<UnixMillis>,
    change: &IndexChange,
    now: UnixMillis,
) -> Result<(), Failure> {
    let row = change.row.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO threads (thread, version, nonce, status, graph, graph_version,
                 created_at, updated_at, watched, watched_since, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, iif(?9 IS NULL, NULL, ?10), ?11)
             ON CONFLICT (thread) DO UPDATE SET
                 version = excluded.version,
                 nonce = excluded.nonce,
                 status = coalesce(excluded.status, status),
                 graph = coalesce(excluded.graph, graph),
                 graph_version = coalesce(excluded.graph_version, graph_version),
                 created_at = coalesce(excluded.created_at, created_at),
                 updated_at = coalesce(excluded.updated_at, updated_at),
                 watched = iif(?12, excluded.watched, watched),
                 watched_since = iif(?12, excluded.watched_since, watched_since),
                 expires_at = excluded.expires_at",
        )?
        .execute(params![
            thread.as_str(),
            int(head.version),
            head.nonce.to_string(),
            row.map(|row| row.status.as_str()),
            row.map(|row| row.graph.name.as_str()),
            row.map(|row| row.graph.version.as_str()),
            row.map(|row| millis(row.created_at)),
            row.map(|row| millis(row.updated_at)),
            (change.watched == Some(true)).then(|| head.to_string()),
            millis(now),
            expires.map(millis),
            change.watched.is_some(),
        ])?;
    Ok(())
}

fn change_maps(
    connection: &Connection,
    thread: &ThreadId,
    change: &IndexChange,
    now: UnixMillis,
) -> Result<(), Failure> {
    let id = thread.as_str();
    for question in &change.closed {
        connection
            .prepare_cached("DELETE FROM interrupts WHERE thread = ?1 AND id = ?2")?
            .execute([id, question.as_str()])?;
    }
    for row in &change.opened {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO interrupts (thread, id, opened_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id, row.id.as_str(), millis(row.opened_at)])?;
    }
    for name in &change.due_removed {
        connection
            .prepare_cached("DELETE FROM due WHERE thread = ?1 AND name = ?2")?
            .execute([id, name])?;
    }
    for (name, at) in &change.due_set {
        connection
            .prepare_cached("INSERT OR REPLACE INTO due (thread, name, at) VALUES (?1, ?2, ?3)")?
            .execute(params![id, name, millis(*at)])?;
    }
    let ended = millis(later(now, ENDED_ROUND_TTL));
    for round in &change.rounds_closed {
        connection
            .prepare_cached(
                "UPDATE rounds SET expires_at = ?3
                 WHERE thread = ?1 AND round = ?2 AND expires_at IS NULL",
            )?
            .execute(params![id, round.to_string(), ended])?;
    }
    for round in &change.rounds_opened {
        connection
            .prepare_cached("INSERT OR REPLACE INTO rounds (thread, round) VALUES (?1, ?2)")?
            .execute([id, &round.to_string()])?;
    }
    Ok(())
}
