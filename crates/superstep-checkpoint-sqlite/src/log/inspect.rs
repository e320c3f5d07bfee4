//! Looking into the file: every log, what is kept of a thread, what belongs to nothing.
//!
//! The tables hold each entry once, so nothing can be torn; strays are rows without their thread
//! or round. A look at a thread is one transaction of a reader, a mending one of the writer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Value};
use superstep_checkpoint::{
    BLOB_TTL, Cursor, ENDED_ROUND_TTL, Error, Inspect, Kept, Page, Reindex, Stray, StrayKind,
    ThreadRow, page_rows,
};
use superstep_protocol::{GraphId, Head, ThreadId, UnixMillis};

use super::{SqliteLog, append};
use crate::{
    failure::Failure,
    value::{head_at, int, later, millis, millis_at, parsed_at, u64_at},
};

/// Every stray as (number of its kind, thread, name). Numbers begin at 1, after the first cursor.
const STRAYS: &str = "
    SELECT 1 AS kind, thread, '' AS name FROM threads t WHERE NOT EXISTS
        (SELECT 1 FROM records r WHERE r.thread = t.thread)
    UNION ALL SELECT 2, thread, name FROM due d WHERE NOT EXISTS
        (SELECT 1 FROM threads t WHERE t.thread = d.thread)
    UNION ALL SELECT 3, thread, id FROM interrupts i WHERE NOT EXISTS
        (SELECT 1 FROM threads t WHERE t.thread = i.thread)
    UNION ALL SELECT DISTINCT 4, thread, round FROM results r WHERE NOT EXISTS
        (SELECT 1 FROM rounds o WHERE o.thread = r.thread AND o.round = r.round)
    UNION ALL SELECT DISTINCT 5, thread, round FROM progress p WHERE NOT EXISTS
        (SELECT 1 FROM rounds o WHERE o.thread = p.thread AND o.round = p.round)
    UNION ALL SELECT 6, thread, id FROM blobs b WHERE expires_at IS NULL AND NOT EXISTS
        (SELECT 1 FROM threads t WHERE t.thread = b.thread)";

#[async_trait]
impl Inspect for SqliteLog {
    async fn logs(&self, after: Option<&str>, limit: usize) -> Result<Page<ThreadId>, Error> {
        let (after, limit) = (after.map(str::to_owned), page_rows(limit));
        self.read(move |connection, now| {
            let mut statement = connection.prepare_cached(
                "SELECT thread FROM records r WHERE (?1 IS NULL OR thread > ?1) AND NOT EXISTS
                     (SELECT 1 FROM threads t WHERE t.thread = r.thread AND t.expires_at <= ?2)
                 GROUP BY thread ORDER BY thread LIMIT ?3",
            )?;
            let rows = statement
                .query_map(params![after, millis(now), int(limit as u64)], |row| {
                    row.get::<_, String>(0)
                })?;
            let rows: Vec<String> = rows.collect::<Result<_, _>>()?;
            Ok(Page {
                next: rows.last().filter(|_| rows.len() == limit).cloned(),
                rows: rows.into_iter().map(ThreadId::new).collect(),
            })
        })
        .await
    }

    async fn kept(&self, thread: &ThreadId) -> Result<Option<Kept>, Error> {
        let thread = thread.clone();
        self.read(move |connection, now| kept(connection, &thread, now))
            .await
    }

    async fn strays(&self, after: Option<&str>, limit: usize) -> Result<Page<Stray>, Error> {
        let after = after.map(|text| Cursor::decode(text, 2)).transpose()?;
        let limit = page_rows(limit);
        self.read(move |connection, _| {
            let after = after.unwrap_or_else(|| Cursor {
                at: UnixMillis(0),
                ids: vec![String::new(), String::new()],
            });
            let sql = format!(
                "SELECT kind, thread, name FROM ({STRAYS}) WHERE (kind, thread, name) > (?1, ?2, ?3)
                 ORDER BY kind, thread, name LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params![
                millis(after.at),
                after.ids[0],
                after.ids[1],
                int(limit as u64)
            ])?;
            let (mut rows, mut next) = (Vec::new(), None);
            while let Some(row) = found.next()? {
                let (stray, at) = stray_at(row)?;
                let ids = vec![stray.thread.to_string(), stray.name.clone()];
                next = Some(Cursor { at, ids });
                rows.push(stray);
            }
            let next = next.filter(|_| rows.len() == limit);
            Ok(Page {
                rows,
                next: next.map(|cursor| cursor.encode()),
            })
        })
        .await
    }

    async fn is_stray(&self, stray: &Stray) -> Result<bool, Error> {
        let stray = stray.clone();
        self.read(move |connection, _| is_stray(connection, &stray))
            .await
    }

    async fn remove_stray(&self, stray: &Stray) -> Result<bool, Error> {
        let stray = stray.clone();
        self.write(move |connection, now| remove_stray(connection, &stray, now))
            .await
    }

    async fn reindex(&self, thread: &ThreadId, head: Head, truth: &Reindex) -> Result<bool, Error> {
        let (thread, truth) = (thread.clone(), truth.clone());
        self.write(move |connection, now| {
            if append::head_for_change(connection, &thread, now)? != Some(head) {
                return Ok(false);
            }
            reindex(connection, &thread, head, &truth, now)?;
            Ok(true)
        })
        .await
    }
}

fn kept(
    connection: &Connection,
    thread: &ThreadId,
    now: UnixMillis,
) -> Result<Option<Kept>, Failure> {
    let id = thread.as_str();
    let (records, oldest, record_bytes) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(min(version), 0), coalesce(sum(length(CAST(record AS BLOB))), 0)
             FROM records WHERE thread = ?1",
        )?
        .query_row([id], |row| Ok((u64_at(row, 0), u64_at(row, 1), u64_at(row, 2))))?;
    let mut kept = Kept {
        records: records?,
        oldest: oldest?,
        record_bytes: record_bytes?,
        ..Kept::default()
    };
    let found = connection
        .prepare_cached(
            "SELECT version, nonce, expires_at, watched, status, graph, graph_version,
                 created_at, updated_at FROM threads WHERE thread = ?1",
        )?
        .query_row([id], |row| Ok(fill_row(row, &mut kept)))
        .optional()?
        .transpose()?;
    match found {
        None if kept.records == 0 => return Ok(None),
        Some(Some(at)) if at <= millis(now) => return Ok(None),
        None | Some(_) => {}
    }
    let times = |sql: &str| -> Result<Vec<(String, UnixMillis)>, Failure> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, millis_at(row, 1)?));
        }
        Ok(found)
    };
    kept.due = BTreeMap::from_iter(times("SELECT name, at FROM due WHERE thread = ?1")?);
    kept.interrupts = times("SELECT id, opened_at FROM interrupts WHERE thread = ?1")?
        .into_iter()
        .map(|(id, at)| (id.into(), at))
        .collect();
    let mut statement = connection
        .prepare_cached("SELECT round FROM rounds WHERE thread = ?1 AND expires_at IS NULL")?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        kept.rounds.insert(parsed_at(row, 0)?);
    }
    let mut statement = connection
        .prepare_cached("SELECT id FROM blobs WHERE thread = ?1 AND expires_at IS NULL")?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        kept.blobs.insert(row.get(0)?);
    }
    Ok(Some(kept))
}

fn fill_row(row: &Row<'_>, kept: &mut Kept) -> Result<Option<i64>, Failure> {
    kept.head = Some(head_at(row, 0)?);
    let expires_at: Option<i64> = row.get(2)?;
    kept.expires = expires_at.is_some();
    if row.get::<_, Option<String>>(3)?.is_some() {
        kept.watched = Some(parsed_at(row, 3)?);
    }
    if row.get::<_, Option<String>>(4)?.is_some() {
        kept.row = Some(ThreadRow {
            status: parsed_at(row, 4)?,
            graph: GraphId {
                name: row.get::<_, String>(5)?.into(),
                version: row.get::<_, String>(6)?.into(),
            },
            created_at: millis_at(row, 7)?,
            updated_at: millis_at(row, 8)?,
        });
    }
    Ok(expires_at)
}

/// The stray of a row of [`STRAYS`], with the number of its kind.
fn stray_at(row: &Row<'_>) -> Result<(Stray, UnixMillis), Failure> {
    let number = millis_at(row, 0)?;
    let kind = match number.0 {
        1 => StrayKind::Row,
        2 => StrayKind::Timer,
        3 => StrayKind::Question,
        4 => StrayKind::Results,
        5 => StrayKind::Progress,
        _ => StrayKind::Blob,
    };
    let stray = Stray {
        kind,
        thread: row.get::<_, String>(1)?.into(),
        name: row.get(2)?,
    };
    Ok((stray, number))
}

fn number_of(kind: StrayKind) -> i64 {
    match kind {
        StrayKind::Row => 1,
        StrayKind::Timer => 2,
        StrayKind::Question => 3,
        StrayKind::Results => 4,
        StrayKind::Progress => 5,
        StrayKind::Blob => 6,
        // Here they are columns of the thread's row, or the rows themselves.
        StrayKind::Watch | StrayKind::Entries => 0,
    }
}

fn is_stray(connection: &Connection, stray: &Stray) -> Result<bool, Failure> {
    let sql = format!("SELECT 1 FROM ({STRAYS}) WHERE kind = ?1 AND thread = ?2 AND name = ?3");
    Ok(connection.prepare_cached(&sql)?.exists(params![
        number_of(stray.kind),
        stray.thread.as_str(),
        stray.name
    ])?)
}

fn remove_stray(connection: &Connection, stray: &Stray, now: UnixMillis) -> Result<bool, Failure> {
    if !is_stray(connection, stray)? {
        return Ok(false);
    }
    let (thread, name) = (stray.thread.as_str(), stray.name.as_str());
    let mut parameters: Vec<Value> = vec![thread.to_owned().into()];
    let sql = match stray.kind {
        StrayKind::Row | StrayKind::Watch | StrayKind::Entries => {
            "DELETE FROM threads WHERE thread = ?1"
        }
        StrayKind::Timer => "DELETE FROM due WHERE thread = ?1 AND name = ?2",
        StrayKind::Question => "DELETE FROM interrupts WHERE thread = ?1 AND id = ?2",
        StrayKind::Results | StrayKind::Progress => {
            "INSERT INTO rounds (thread, round, expires_at) VALUES (?1, ?2, ?3)"
        }
        StrayKind::Blob => "UPDATE blobs SET expires_at = ?3 WHERE thread = ?1 AND id = ?2",
    };
    if stray.kind != StrayKind::Row {
        parameters.push(name.to_owned().into());
    }
    match stray.kind {
        StrayKind::Results | StrayKind::Progress => {
            parameters.push(millis(later(now, ENDED_ROUND_TTL)).into());
        }
        StrayKind::Blob => parameters.push(millis(later(now, BLOB_TTL)).into()),
        _ => {}
    }
    connection
        .prepare_cached(sql)?
        .execute(rusqlite::params_from_iter(parameters))?;
    Ok(true)
}

fn reindex(
    connection: &Connection,
    thread: &ThreadId,
    head: Head,
    truth: &Reindex,
    now: UnixMillis,
) -> Result<(), Failure> {
    let id = thread.as_str();
    let row = truth.row.as_ref();
    connection
        .prepare_cached(
            "UPDATE threads SET status = ?2, graph = ?3, graph_version = ?4, created_at = ?5,
                 updated_at = ?6,
                 watched_since = iif(?7, coalesce(watched_since, ?9), NULL),
                 watched = iif(?7, coalesce(watched, ?8), NULL)
             WHERE thread = ?1",
        )?
        .execute(params![
            id,
            row.map(|row| row.status.as_str()),
            row.map(|row| row.graph.name.as_str()),
            row.map(|row| row.graph.version.as_str()),
            row.map(|row| millis(row.created_at)),
            row.map(|row| millis(row.updated_at)),
            truth.watched,
            head.to_string(),
            millis(now),
        ])?;
    for sql in [
        "DELETE FROM interrupts WHERE thread = ?1",
        "DELETE FROM due WHERE thread = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([id])?;
    }
    for (question, at) in &truth.interrupts {
        connection
            .prepare_cached("INSERT INTO interrupts (thread, id, opened_at) VALUES (?1, ?2, ?3)")?
            .execute(params![id, question.as_str(), millis(*at)])?;
    }
    for (name, at) in &truth.due {
        connection
            .prepare_cached("INSERT INTO due (thread, name, at) VALUES (?1, ?2, ?3)")?
            .execute(params![id, name, millis(*at)])?;
    }
    let rounds: Vec<String> = truth.rounds.iter().map(ToString::to_string).collect();
    let mut statement = connection
        .prepare_cached("SELECT round FROM rounds WHERE thread = ?1 AND expires_at IS NULL")?;
    let open = statement.query_map([id], |row| row.get::<_, String>(0))?;
    for round in open.collect::<Result<Vec<_>, _>>()? {
        if !rounds.contains(&round) {
            connection
                .prepare_cached(
                    "UPDATE rounds SET expires_at = ?3 WHERE thread = ?1 AND round = ?2",
                )?
                .execute(params![id, round, millis(later(now, ENDED_ROUND_TTL))])?;
        }
    }
    for round in rounds {
        // Results that came before count: a round that is open again still has them.
        connection
            .prepare_cached(
                "INSERT INTO rounds (thread, round, results) VALUES (?1, ?2,
                     (SELECT count(*) FROM results WHERE thread = ?1 AND round = ?2))
                 ON CONFLICT (thread, round) DO UPDATE SET expires_at = NULL",
            )?
            .execute([id, &round])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use superstep_checkpoint::ThreadLog as _;

    use super::*;

    /// Rows as no superstep leaves them, made by another program.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_without_their_thread_are_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let log = Arc::new(SqliteLog::open(&path).unwrap());
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "INSERT INTO due (thread, name, at) VALUES ('t', 'a', 1), ('t', 'b', 1);
                 INSERT INTO interrupts (thread, id, opened_at) VALUES ('t', 'q', 1);
                 INSERT INTO results (thread, round, task, result)
                     VALUES ('t', '1-00c0ffee00c0ffee', 'x', 'r');
                 INSERT INTO progress (thread, round, task, place, entry)
                     VALUES ('t', '1-00c0ffee00c0ffee', 'x', 0, 'r');
                 INSERT INTO blobs (thread, id, value) VALUES ('t', 'b', 'v');
                 INSERT INTO threads (thread, version, nonce) VALUES ('u', 1, '00c0ffee00c0ffee');",
            )
            .unwrap();
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = log.strays(after.as_deref(), 2).await.unwrap();
            found.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let kinds: Vec<_> = found.iter().map(|stray| stray.kind).collect();
        let expected = [
            StrayKind::Row,
            StrayKind::Timer,
            StrayKind::Timer,
            StrayKind::Question,
            StrayKind::Results,
            StrayKind::Progress,
            StrayKind::Blob,
        ];
        assert_eq!(kinds, expected);
        for stray in &found {
            assert!(log.is_stray(stray).await.unwrap(), "{stray:?}");
        }
        for stray in &found {
            log.remove_stray(stray).await.unwrap();
            assert!(!log.is_stray(stray).await.unwrap(), "{stray:?}");
        }
        assert!(log.strays(None, 10).await.unwrap().rows.is_empty());
        assert!(log.due(UnixMillis(9), 9).await.unwrap().is_empty());
    }
}
