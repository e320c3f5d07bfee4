//! What goes away: whole threads, and what has outlived its time.
//!
//! Reads leave out by the clock what is over, so this only gives the space back, now and then,
//! along with somebody's write.

use rusqlite::{Connection, params};
use superstep_protocol::UnixMillis;

use crate::{failure::Failure, value::millis};

/// How often the tables are swept at most.
pub(super) const PERIOD_MS: u64 = 60_000;

/// Removes everything of a thread, but the outcomes of its commands.
pub(super) fn remove_thread(connection: &Connection, thread: &str) -> Result<(), Failure> {
    for sql in [
        "DELETE FROM threads WHERE thread = ?1",
        "DELETE FROM records WHERE thread = ?1",
        "DELETE FROM rounds WHERE thread = ?1",
        "DELETE FROM results WHERE thread = ?1",
        "DELETE FROM progress WHERE thread = ?1",
        "DELETE FROM attempts WHERE thread = ?1",
        "DELETE FROM blobs WHERE thread = ?1",
        "DELETE FROM interrupts WHERE thread = ?1",
        "DELETE FROM due WHERE thread = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([thread])?;
    }
    Ok(())
}

/// Removes what has outlived its time.
pub(super) fn sweep(connection: &Connection, now: UnixMillis) -> Result<(), Failure> {
    let now = millis(now);
    let over: Vec<String> = connection
        .prepare_cached("SELECT thread FROM threads WHERE expires_at <= ?1")?
        .query_map([now], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for thread in over {
        remove_thread(connection, &thread)?;
    }
    for sql in [
        "DELETE FROM results WHERE (thread, round) IN
             (SELECT thread, round FROM rounds WHERE expires_at <= ?1)",
        "DELETE FROM progress WHERE (thread, round) IN
             (SELECT thread, round FROM rounds WHERE expires_at <= ?1)",
        "DELETE FROM attempts WHERE (thread, round) IN
             (SELECT thread, round FROM rounds WHERE expires_at <= ?1)",
        "DELETE FROM rounds WHERE expires_at <= ?1",
        "DELETE FROM claims WHERE expires_at <= ?1",
        "DELETE FROM outcomes WHERE expires_at <= ?1",
        "DELETE FROM blobs WHERE expires_at <= ?1",
    ] {
        connection.prepare_cached(sql)?.execute(params![now])?;
    }
    Ok(())
}
