//! Lists over all threads: rows, open questions, the watch, timers, registrations.
//!
//! Every list is read along an index in its own order, from the cursor on; a page asks for one
//! row more than it gives, to know whether there is a next one.

use bytes::Bytes;
use rusqlite::{Connection, Row, params, params_from_iter, types::Value};
use superstep_checkpoint::{
    Cursor, Due, InterruptQuery, InterruptRow, Page, Registration, ThreadQuery, ThreadRow, Watched,
    page_rows,
};
use superstep_protocol::{GraphId, ThreadId, UnixMillis};

use crate::{
    failure::Failure,
    value::{Parameters, bytes_at, content, int, millis, millis_at, parsed_at},
};

pub(super) fn watched(
    connection: &Connection,
    from: UnixMillis,
    until: UnixMillis,
    limit: usize,
) -> Result<Vec<Watched>, Failure> {
    rows(
        connection,
        "SELECT thread, watched, watched_since, graph, graph_version FROM threads
         WHERE watched IS NOT NULL AND watched_since BETWEEN ?1 AND ?2
         ORDER BY watched_since LIMIT ?3",
        params![millis(from), millis(until), int(limit as u64)],
        |row| {
            Ok(Watched {
                thread: thread_at(row, 0)?,
                graph: GraphId {
                    name: row.get::<_, String>(3)?.into(),
                    version: row.get::<_, String>(4)?.into(),
                },
                head: parsed_at(row, 1)?,
                since: millis_at(row, 2)?,
            })
        },
    )
}

pub(super) fn due(
    connection: &Connection,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<Due>, Failure> {
    rows(
        connection,
        "SELECT thread, name, at FROM due WHERE at <= ?1 ORDER BY at LIMIT ?2",
        params![millis(now), int(limit as u64)],
        |row| {
            Ok(Due {
                thread: thread_at(row, 0)?,
                name: row.get(1)?,
                at: millis_at(row, 2)?,
            })
        },
    )
}

pub(super) fn threads(
    connection: &Connection,
    query: &ThreadQuery,
) -> Result<Page<(ThreadId, ThreadRow)>, Failure> {
    let mut sql = "SELECT thread, status, graph, graph_version, created_at, updated_at
         FROM threads WHERE status IS NOT NULL"
        .to_owned();
    let mut parameters = Parameters::new();
    if let Some(status) = query.status {
        sql.push_str(" AND status = ?");
        parameters.push(status.as_str().to_owned().into());
    }
    if let Some(name) = &query.graph {
        sql.push_str(" AND graph = ?");
        parameters.push(name.to_string().into());
    }
    if let Some(text) = &query.after {
        let Cursor { at, ids } = Cursor::decode(text, 1)?;
        let at = Value::from(millis(at));
        sql.push_str(" AND updated_at <= ? AND (updated_at < ? OR thread > ?)");
        parameters.extend([at.clone(), at]);
        parameters.extend(ids.into_iter().map(Value::from));
    }
    sql.push_str(" ORDER BY updated_at DESC, thread LIMIT ?");
    let limit = page_rows(query.limit);
    parameters.push(int(limit as u64 + 1).into());
    let rows = rows(connection, &sql, params_from_iter(parameters), |row| {
        let thread_row = ThreadRow {
            status: parsed_at(row, 1)?,
            graph: graph_at(row, 2)?,
            created_at: millis_at(row, 4)?,
            updated_at: millis_at(row, 5)?,
        };
        Ok((thread_at(row, 0)?, thread_row))
    })?;
    Ok(page(rows, limit, |(thread, row)| Cursor {
        at: row.updated_at,
        ids: vec![thread.to_string()],
    }))
}

pub(super) fn interrupts(
    connection: &Connection,
    query: &InterruptQuery,
) -> Result<Page<(ThreadId, InterruptRow)>, Failure> {
    let mut sql = "SELECT thread, id, opened_at FROM interrupts WHERE TRUE".to_owned();
    let mut parameters = Parameters::new();
    if let Some(thread) = &query.thread {
        sql.push_str(" AND thread = ?");
        parameters.push(thread.to_string().into());
    }
    if let Some(text) = &query.after {
        let Cursor { at, ids } = Cursor::decode(text, 2)?;
        sql.push_str(" AND (opened_at, id, thread) > (?, ?, ?)");
        parameters.push(millis(at).into());
        parameters.extend(ids.into_iter().map(Value::from));
    }
    sql.push_str(" ORDER BY opened_at, id, thread LIMIT ?");
    let limit = page_rows(query.limit);
    parameters.push(int(limit as u64 + 1).into());
    let rows = rows(connection, &sql, params_from_iter(parameters), |row| {
        let interrupt_row = InterruptRow {
            id: row.get::<_, String>(1)?.into(),
            opened_at: millis_at(row, 2)?,
        };
        Ok((thread_at(row, 0)?, interrupt_row))
    })?;
    Ok(page(rows, limit, |(thread, row)| Cursor {
        at: row.opened_at,
        ids: vec![row.id.to_string(), thread.to_string()],
    }))
}

pub(super) fn register(
    connection: &Connection,
    graph: &GraphId,
    about: &Bytes,
    now: UnixMillis,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO registrations (graph, graph_version, renewed_at, about)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            graph.name.as_str(),
            graph.version.as_str(),
            millis(now),
            content(about),
        ])?;
    Ok(())
}

pub(super) fn registrations(connection: &Connection) -> Result<Vec<Registration>, Failure> {
    rows(
        connection,
        "SELECT graph, graph_version, renewed_at, about FROM registrations
         ORDER BY graph, graph_version",
        (),
        |row| {
            Ok(Registration {
                graph: graph_at(row, 0)?,
                about: bytes_at(row, 3)?,
                renewed_at: millis_at(row, 2)?,
            })
        },
    )
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// A page of `limit` from rows of which one more was asked for.
fn page<T>(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> Cursor) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| cursor(row).encode());
    Page { rows, next }
}

fn thread_at(row: &Row<'_>, column: usize) -> Result<ThreadId, Failure> {
    Ok(row.get::<_, String>(column)?.into())
}

/// The graph whose name and version stand in two columns from `column` on.
fn graph_at(row: &Row<'_>, column: usize) -> Result<GraphId, Failure> {
    Ok(GraphId {
        name: row.get::<_, String>(column)?.into(),
        version: row.get::<_, String>(column + 1)?.into(),
    })
}
