//! The tables, their version, and the settings that every connection has.
//!
//! `PRAGMA application_id` says that a file is ours, `PRAGMA user_version` which tables it
//! has. A newer file is refused with a clear error; an older one is brought up step by step,
//! each step one entry of [`STEPS`], which is only ever added to.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::failure::Failure;

/// `sstp`, as the four bytes that SQLite keeps for an application's own mark.
const APPLICATION_ID: i64 = 0x7373_7470;
/// How long a call waits for another process's write lock before it is `Unavailable`.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 128;

/// What brings a file from each version to the next; the first makes a new one.
const STEPS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Opens the connection that writes, and makes or brings up the tables.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = open(path, flags)?;
    retry_while_busy(|| set_up(&connection))?;
    bring_up(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that only reads. The file is there and brought up.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Failure> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// WAL lets readers, and other processes, go on beside the writer; FULL makes an answered
/// commit durable.
fn set_up(connection: &Connection) -> Result<(), Failure> {
    // Asked before anything is changed: the file of another program stays as it is. In one
    // transaction: another process may be making the tables at this moment.
    let look = connection.unchecked_transaction()?;
    let (application, version) = marks(&look)?;
    let empty = look.query_row("SELECT count(*) = 0 FROM sqlite_schema", (), |row| {
        row.get::<_, bool>(0)
    })?;
    look.commit()?;
    if application != APPLICATION_ID && !(empty && application == 0) {
        return Err(Failure::corrupt(
            "the file is an SQLite file, but none of superstep's; name another",
        ));
    }
    let known = known_version();
    if version > known {
        return Err(Failure::corrupt(format!(
            "the file has tables of version {version}, and this program knows up to {known}; use a newer superstep"
        )));
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(())
}

/// The version of the tables that this code knows.
fn known_version() -> i64 {
    i64::try_from(STEPS.len()).expect("there are few steps")
}

/// The application's mark and the version of the tables.
fn marks(connection: &Connection) -> Result<(i64, i64), Failure> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((pragma("application_id")?, pragma("user_version")?))
}

/// Runs the steps that the file lacks, in one transaction, so that of two processes that open
/// a new file at once one makes the tables and the other finds them.
fn bring_up(connection: &mut Connection) -> Result<(), Failure> {
    let (_, version) = marks(connection)?;
    if version == known_version() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (_, version) = marks(&transaction)?;
    let done = usize::try_from(version).unwrap_or_default();
    for step in &STEPS[done.min(STEPS.len())..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known_version())?;
    transaction.commit()?;
    Ok(())
}

/// The switch to WAL does not wait for a lock by itself when two processes open a new file.
fn retry_while_busy(mut step: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        match step() {
            Err(failure) if failure.is_busy() && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

impl Failure {
    fn is_busy(&self) -> bool {
        let code = self.sqlite_code();
        matches!(
            code,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }
}
