//! The thread log on real Redis and Valkey servers.
//!
//! The contract runs on each server that is supported; what a server can do to a log (die, forget,
//! refuse, hang) is tried on Debian's Redis. Every test has a namespace or a server of its own.

mod contract;
mod failover;
mod faults;
mod hazards;
mod inspect;
mod layout;
mod migration;
mod outages;
mod proxy;
mod refusals;
mod round_trips;
mod settings;
mod tls;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use superstep_checkpoint::{
    Append, Appended, Error, IndexChange, StoredRecord, ThreadLog, ThreadQuery, ThreadRow,
};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::{Head, Nonce, ThreadId, ThreadStatus, UnixMillis};
use superstep_tests::servers::{RedisServer, Reply};

/// How long anything in these tests may take that should happen at once.
const SOON: Duration = Duration::from_secs(30);

/// A log on a server, in the default namespace.
async fn log_on(server: &RedisServer) -> Arc<RedisLog> {
    let log = RedisLog::connect(RedisSettings::new(&server.url())).await;
    Arc::new(log.expect("a private server can be connected to"))
}

fn thread(id: &str) -> ThreadId {
    ThreadId::new(id)
}

fn head(version: u64, nonce: u64) -> Head {
    Head {
        version,
        nonce: Nonce(nonce),
    }
}

/// The append of a record of `size` bytes after `after`, with the row of a busy thread.
fn next(after: Option<Head>, nonce: u64, size: usize) -> Append {
    let version = after.map_or(1, |after| after.version + 1);
    Append {
        after,
        record: StoredRecord {
            head: head(version, nonce),
            snapshot: 1,
            bytes: Bytes::from(vec![b'x'; size]),
        },
        index: IndexChange {
            row: Some(row(ThreadStatus::Busy, version)),
            ..IndexChange::default()
        },
        outcome: None,
        blobs: Vec::new(),
    }
}

fn row(status: ThreadStatus, updated_at: u64) -> ThreadRow {
    ThreadRow {
        status,
        graph: superstep_protocol::GraphId {
            name: "letter".into(),
            version: "1".into(),
        },
        created_at: UnixMillis(1),
        updated_at: UnixMillis(updated_at),
    }
}

/// Appends, demands that it is done, and gives the new head.
async fn must(log: &RedisLog, thread: &ThreadId, append: &Append) -> Head {
    let answer = log.append(thread, append).await;
    assert_eq!(answer.expect("a healthy server"), Appended::Done);
    append.record.head
}

/// Appends `count` records to a new thread, with nonces from 1.
async fn grow(log: &RedisLog, thread: &ThreadId, count: u64) -> Head {
    let mut after = None;
    for nonce in 1..=count {
        after = Some(must(log, thread, &next(after, nonce, 10)).await);
    }
    after.expect("at least one record")
}

/// The heads of a thread's records, oldest first.
async fn chain(log: &RedisLog, thread: &ThreadId) -> Vec<Head> {
    let records = log.history(thread, None, 100_000).await;
    let records = records.expect("a healthy server").into_iter().rev();
    records.map(|record| record.head).collect()
}

/// The ids and statuses of all threads.
async fn listed(log: &RedisLog) -> Vec<(String, ThreadStatus)> {
    let query = ThreadQuery {
        status: None,
        graph: None,
        limit: 1_000,
        after: None,
    };
    let page = log.threads(&query).await.expect("a healthy server");
    page.rows
        .into_iter()
        .map(|(thread, row)| (thread.to_string(), row.status))
        .collect()
}

/// The keys of the whole server whose names contain `part`.
fn keys(server: &RedisServer, part: &str) -> Vec<String> {
    let Ok(Reply::List(keys)) = server.command(&["KEYS", "*"]) else {
        panic!("a private server lists its keys");
    };
    let mut keys: Vec<_> = keys
        .iter()
        .filter_map(|key| key.text().map(str::to_owned))
        .filter(|key| key.contains(part))
        .collect();
    keys.sort();
    keys
}

/// The error of a connect that must fail, and soon.
async fn refused(settings: RedisSettings) -> Error {
    let connecting = RedisLog::connect(settings);
    let connected = tokio::time::timeout(Duration::from_secs(8), connecting).await;
    let connected = connected.expect("connect fails within its time limit");
    connected.expect_err("connect must fail")
}
