//! The contract on SQLite, and what only a file promises: reopening, other processes, errors.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::Connection;
use superstep_checkpoint::{
    Append, Appended, ErrorKind, IndexChange, PutProgress, StoredRecord, ThreadLog, ThreadQuery,
    ThreadRow, memory::Clock,
};
use superstep_protocol::{CommandId, GraphId, Head, Nonce, ThreadId, ThreadStatus, UnixMillis};
use tempfile::TempDir;

use super::SqliteLog;
use crate::Database;

type Fixture = (Arc<dyn ThreadLog>, TempDir);

async fn make_log() -> Fixture {
    make_log_on(superstep_checkpoint::memory::system_clock()).await
}

async fn make_log_on(clock: Clock) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let opened = tokio::task::spawn_blocking(|| Database::open_with_clock(path, clock));
    let log = SqliteLog::new(opened.await.unwrap().unwrap());
    (Arc::new(log), folder)
}

superstep_checkpoint::contract_tests!(make_log);
superstep_checkpoint::contract_clock_tests!(make_log_on);
superstep_checkpoint::contract_inspect_tests!(make_both);

async fn make_both() -> superstep_checkpoint::contract::Inspected<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let opened = tokio::task::spawn_blocking(|| Database::open(path));
    let log = Arc::new(SqliteLog::new(opened.await.unwrap().unwrap()));
    superstep_checkpoint::contract::Inspected::new(log, folder)
}

fn thread(id: &str) -> ThreadId {
    id.into()
}

/// The record that follows `after`, with the nonce 7.
fn next(after: Option<Head>) -> Append {
    let version = after.map_or(1, |after| after.version + 1);
    Append {
        after,
        record: StoredRecord {
            head: Head {
                version,
                nonce: Nonce(7),
            },
            snapshot: 1,
            bytes: Bytes::from(format!(r#"{{"version":{version}}}"#)),
        },
        index: IndexChange {
            row: Some(ThreadRow {
                status: ThreadStatus::Busy,
                graph: GraphId {
                    name: "letter".into(),
                    version: "1".into(),
                },
                created_at: UnixMillis(1),
                updated_at: UnixMillis(version),
            }),
            watched: Some(true),
            ..IndexChange::default()
        },
        outcome: None,
        blobs: Vec::new(),
    }
}

async fn grow(log: &SqliteLog, t: &ThreadId, records: u64) -> Head {
    let mut head = log.head(t).await.unwrap();
    for _ in 0..records {
        let append = next(head);
        let answer = log.append(t, &append).await.unwrap();
        assert_eq!(answer, Appended::Done);
        head = Some(append.record.head);
    }
    head.unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let t = thread("t");
    let log = SqliteLog::open(&path).unwrap();
    let head = grow(&log, &t, 20).await;
    let loaded = log.load(&t).await.unwrap();
    let command = CommandId::from("c");
    log.put_outcome(&t, &command, Bytes::from("o"))
        .await
        .unwrap();
    drop(log);

    let log = SqliteLog::open(&path).unwrap();
    assert_eq!(log.load(&t).await.unwrap(), loaded);
    assert_eq!(log.head(&t).await.unwrap(), Some(head));
    let outcome = log.outcome(&t, &command).await.unwrap();
    assert_eq!(outcome, Some(Bytes::from("o")));
    let watched = log
        .watched(UnixMillis(0), UnixMillis(u64::MAX), 10)
        .await
        .unwrap();
    assert_eq!(watched.len(), 1);
    grow(&log, &t, 1).await;
}

#[tokio::test]
async fn two_open_logs_see_each_others_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let logs = [
        SqliteLog::open(&path).unwrap(),
        SqliteLog::open(&path).unwrap(),
    ];
    let t = thread("t");
    for turn in 0..20 {
        let (here, there) = (&logs[turn % 2], &logs[(turn + 1) % 2]);
        let head = grow(here, &t, 1).await;
        assert_eq!(there.head(&t).await.unwrap(), Some(head));
    }
}

/// This test is its own second process: started again with the file in the environment, it
/// appends there and ends.
#[tokio::test]
async fn a_second_process_works_on_the_same_file() {
    const FILE: &str = "SUPERSTEP_TEST_SECOND_PROCESS_FILE";
    const NAME: &str = "log::tests::a_second_process_works_on_the_same_file";
    let (ours, theirs) = (thread("ours"), thread("theirs"));
    if let Some(path) = std::env::var_os(FILE) {
        let log = SqliteLog::open(path).unwrap();
        assert!(log.head(&ours).await.unwrap().is_some());
        grow(&log, &theirs, 25).await;
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let log = SqliteLog::open(&path).unwrap();
    grow(&log, &ours, 1).await;
    let mut second = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--quiet"])
        .env(FILE, &path)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        grow(&log, &ours, 1).await;
        if let Some(ended) = second.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < deadline, "the second process hangs");
    };
    assert!(ended.success(), "{ended}");
    assert_eq!(log.head(&theirs).await.unwrap().unwrap().version, 25);
    let query = ThreadQuery {
        status: Some(ThreadStatus::Busy),
        graph: None,
        limit: 10,
        after: None,
    };
    assert_eq!(log.threads(&query).await.unwrap().rows.len(), 2);
}

/// This test is its own second process: started again with the file in the environment, it
/// appends and says each answered version, until it is killed.
#[tokio::test]
async fn an_answered_append_survives_a_kill() {
    const FILE: &str = "SUPERSTEP_TEST_KILLED_FILE";
    const NAME: &str = "log::tests::an_answered_append_survives_a_kill";
    let t = thread("t");
    if let Some(path) = std::env::var_os(FILE) {
        let log = SqliteLog::open(path).unwrap();
        loop {
            let head = grow(&log, &t, 1).await;
            println!("answered {}", head.version);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answered = 0;
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(version) = line.strip_prefix("answered ") else {
            continue;
        };
        answered = version.parse().unwrap();
        if answered == 50 {
            writer.kill().unwrap();
        }
    }
    writer.wait().unwrap();
    assert!(answered >= 50, "the writer ended by itself at {answered}");
    let log = SqliteLog::open(&path).unwrap();
    let loaded = log.load(&t).await.unwrap().unwrap();
    let versions: Vec<_> = loaded.records.iter().map(|r| r.head.version).collect();
    let head = loaded.head().version;
    assert!(head >= answered, "{answered} was answered, {head} is there");
    assert_eq!(versions, (1..=head).collect::<Vec<_>>());
    grow(&log, &t, 1).await;
}

#[tokio::test]
async fn records_can_be_read_with_any_tool() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let log = SqliteLog::open(&path).unwrap();
    grow(&log, &thread("order-42"), 2).await;
    drop(log);
    let tool = Connection::open(&path).unwrap();
    let sql = "SELECT version, nonce, typeof(record), record ->> 'version' FROM records
         WHERE thread = 'order-42' ORDER BY version";
    let mut statement = tool.prepare(sql).unwrap();
    let rows: Vec<(i64, String, String, i64)> = statement
        .query_map((), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let nonce = "0000000000000007".to_owned();
    let expected = [1, 2].map(|v| (v, nonce.clone(), "text".to_owned(), v));
    assert_eq!(rows, expected);
}

#[test]
fn a_newer_file_is_refused_by_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(SqliteLog::open(&path).unwrap());
    let tool = Connection::open(&path).unwrap();
    tool.pragma_update(None, "user_version", 99).unwrap();
    drop(tool);
    let error = SqliteLog::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let message = error.to_string();
    assert!(message.contains("version 99"), "{message}");
    assert!(message.contains("use a newer superstep"), "{message}");
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let thread = ThreadId::new("order-42");
    let round = Head {
        version: 1,
        nonce: Nonce(7),
    };
    let tool = Connection::open(&path).unwrap();
    tool.execute_batch(include_str!("../schema/1.sql")).unwrap();
    let sql = format!(
        "PRAGMA application_id = {};
         PRAGMA user_version = 1;
         INSERT INTO threads (thread, version, nonce) VALUES ('{thread}', 1, '{}');
         INSERT INTO rounds (thread, round) VALUES ('{thread}', '{round}');
         INSERT INTO results (thread, round, task, result) VALUES ('{thread}', '{round}', 'a', 'r');",
        0x7373_7470, round.nonce
    );
    tool.execute_batch(&sql).unwrap();
    drop(tool);
    let log = SqliteLog::open(&path).unwrap();
    let results = log.results(&thread, round).await.unwrap();
    assert_eq!(results, BTreeMap::from([("a".into(), Bytes::from("r"))]));
    let entry = Bytes::from("entry");
    let put = log
        .put_progress(&thread, round, &"a".into(), 0, entry.clone())
        .await;
    assert_eq!(put.unwrap(), PutProgress::Stored);
    drop(log);
    let again = SqliteLog::open(&path).unwrap();
    let progress = again.progress(&thread, round, &"a".into()).await.unwrap();
    assert_eq!(progress, [entry]);
}

#[test]
fn a_foreign_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.db");
    let tool = Connection::open(&path).unwrap();
    tool.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(tool);
    let error = SqliteLog::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("none of superstep's"), "{error}");
    let tool = Connection::open(&path).unwrap();
    let tables: i64 = tool
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    let path = folder.path().join("text.db");
    std::fs::write(
        &path,
        "no database at all, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    let error = SqliteLog::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_missing_folder_is_denied_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere/store.db");
    let error = SqliteLog::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn processes_that_make_one_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    for turn in 0..10 {
        let path = folder.path().join(format!("store-{turn}.db"));
        let open = || SqliteLog::open(&path).map(drop);
        std::thread::scope(|scope| {
            let opening: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            for opened in opening {
                opened.join().unwrap().unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let database = Database::open(&path).unwrap();
    let log = SqliteLog::new(Arc::clone(&database));
    let t = thread("t");
    let head = grow(&log, &t, 3).await;
    let bound = |pages: &'static str| {
        database.write(move |connection| {
            connection.query_row(pages, (), |row| row.get::<_, i64>(0))?;
            Ok(())
        })
    };
    bound("PRAGMA max_page_count = 1").await.unwrap();
    let mut large = next(Some(head));
    large.record.bytes = Bytes::from("x".repeat(1 << 20));
    let error = log.append(&t, &large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(log.head(&t).await.unwrap(), Some(head));
    bound("PRAGMA max_page_count = 1000000").await.unwrap();
    let answer = log.append(&t, &large).await.unwrap();
    assert_eq!(answer, Appended::Done);
}

#[tokio::test]
async fn one_failing_change_spares_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("store.db")).unwrap();
    let log = SqliteLog::new(Arc::clone(&database));
    let (t, u) = (thread("t"), thread("u"));
    let (first, second) = (next(None), next(None));
    // Queued while the writer is busy with the first, the rest share a commit.
    let busy = database.write(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    let failing = database.write(|connection| {
        connection.execute("INSERT INTO due VALUES ('t', 'half done', 1)", ())?;
        connection.execute("INSERT INTO nowhere VALUES (1)", ())?;
        Ok(())
    });
    let (finished, before, failed, after) = tokio::join!(
        busy,
        log.append(&t, &first),
        failing,
        log.append(&u, &second)
    );
    finished.unwrap();
    assert!(failed.is_err());
    assert_eq!(before.unwrap(), Appended::Done);
    assert_eq!(after.unwrap(), Appended::Done);
    assert_eq!(log.due(UnixMillis(u64::MAX), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_write_lock_held_for_long_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let database = Database::open(&path).unwrap();
    let shorten = database.write(|connection| Ok(connection.busy_timeout(Duration::ZERO)?));
    shorten.await.unwrap();
    let log = SqliteLog::new(database);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = log.append(&thread("t"), &next(None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    grow(&log, &thread("t"), 1).await;
}

#[tokio::test]
async fn what_outlived_its_time_leaves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let clock = superstep_checkpoint::contract::ManualClock::default();
    let database = Database::open_with_clock(&path, clock.clock()).unwrap();
    let log = SqliteLog::new(database);
    let t = thread("t");
    let round = Head {
        version: 1,
        nonce: Nonce(7),
    };
    let mut start = next(None);
    start.index.rounds_opened = vec![round];
    start.outcome = Some((CommandId::from("c"), Bytes::from("o")));
    log.append(&t, &start).await.unwrap();
    log.put_result(&t, round, &"task".into(), Bytes::from("r"))
        .await
        .unwrap();
    log.put_blob(&t, "b", Bytes::from("b")).await.unwrap();
    let mut end = next(Some(round));
    end.index.rounds_closed = vec![round];
    log.append(&t, &end).await.unwrap();
    let u = thread("u");
    let born = grow(&log, &u, 1).await;
    let grave = StoredRecord {
        snapshot: 2,
        ..next(Some(born)).record
    };
    log.delete(&u, born, grave).await.unwrap();

    clock.advance(Duration::from_secs(48 * 60 * 60));
    grow(&log, &thread("v"), 1).await;
    let tool = Connection::open(&path).unwrap();
    for (table, left) in [
        ("threads", 2),
        ("records", 3),
        ("rounds", 0),
        ("results", 0),
        ("outcomes", 0),
        ("blobs", 0),
    ] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = tool.query_row(&sql, (), |row| row.get(0)).unwrap();
        assert_eq!(rows, left, "{table}");
    }
}
