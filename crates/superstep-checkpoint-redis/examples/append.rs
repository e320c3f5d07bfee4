//! Measures what a thread costs in Redis: appends per second, latency, bytes per waiting thread.
//!
//! Starts a private server as superstep asks for (append-only file, synced every second), or uses
//! the empty one whose address is given: `cargo run --release -p superstep-checkpoint-redis
//! --example append [redis://host:port]`. Prints the median of five rounds for each case, after
//! one to warm up. Which machine it was, and what else ran there, is the reader's to write down.
//!
//! The rule it keeps: only the port is called, so the numbers hold for what workers do.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use superstep_checkpoint::{
    Append, Appended, IndexChange, InterruptRow, StoredRecord, ThreadLog, ThreadRow,
};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::{GraphId, Head, Nonce, ThreadId, ThreadStatus, UnixMillis};
use superstep_tests::servers::RedisServer;
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const WAITING_THREADS: u64 = 10_000;

/// What an append changes beside the record.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Nothing.
    Nothing,
    /// What a superstep does: the row's time, the watch entry, one round ended and one begun.
    Superstep,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "its output is what it is for")]
async fn main() -> anyhow::Result<()> {
    let started = std::env::args().len() < 2;
    let started = started.then(RedisServer::start).transpose()?;
    let url = started.as_ref().map(RedisServer::url);
    let url = url
        .or_else(|| std::env::args().nth(1))
        .context("an address")?;
    let log = Arc::new(RedisLog::connect(RedisSettings::new(&url)).await?);
    // The client library's default of 500 ms is less than emptying a server may take.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut server = redis::Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?;

    for size in [1_000, 10_000] {
        for change in [Change::Nothing, Change::Superstep] {
            let appends = if size == 1_000 { 40_000 } else { 10_000 };
            let (mut rates, mut cpu) = (Vec::new(), Vec::new());
            for _ in 0..=ROUNDS {
                empty(&mut server).await?;
                let before = cpu_micros(&mut server).await?;
                let took = in_flight(&log, 64, appends, size, change).await?;
                rates.push(per_second(appends, took));
                cpu.push((cpu_micros(&mut server).await? - before) / appends);
            }
            rates.remove(0);
            cpu.remove(0);
            let (rate, cpu) = (median(&mut rates), median(&mut cpu));
            println!(
                "{size} bytes, {change:?}, 64 in flight: {rate} appends a second, {cpu} us of the server's main thread each"
            );
        }
    }
    for change in [Change::Nothing, Change::Superstep] {
        let mut medians = Vec::new();
        for _ in 0..=ROUNDS {
            empty(&mut server).await?;
            let id = ThreadId::new("one");
            medians.push(one_in_flight(&*log, &id, 3_000, 1_000, change).await?);
        }
        medians.remove(0);
        let p50 = median(&mut medians);
        println!("1000 bytes, {change:?}, one in flight: p50 {p50:?}");
    }
    let bytes = bytes_of_waiting(&mut server, &log).await?;
    println!("one waiting thread: {bytes}");
    Ok(())
}

/// Appends to `lanes` threads at once, one append in flight each; how long it took.
async fn in_flight(
    log: &Arc<RedisLog>,
    lanes: u64,
    appends: u64,
    size: usize,
    change: Change,
) -> anyhow::Result<Duration> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for lane in 0..lanes {
        let (log, id) = (Arc::clone(log), ThreadId::new(format!("lane-{lane}")));
        tasks.spawn(async move {
            let mut after = None;
            for _ in 0..appends / lanes {
                after = Some(append(&*log, &id, after, size, change).await?);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

/// The median time of appends to one thread, one after another.
async fn one_in_flight(
    log: &dyn ThreadLog,
    id: &ThreadId,
    appends: usize,
    size: usize,
    change: Change,
) -> anyhow::Result<Duration> {
    let mut after = None;
    let mut times = Vec::with_capacity(appends);
    for _ in 0..appends {
        let began = Instant::now();
        after = Some(append(log, id, after, size, change).await?);
        times.push(began.elapsed());
    }
    Ok(median(&mut times))
}

async fn append(
    log: &dyn ThreadLog,
    id: &ThreadId,
    after: Option<Head>,
    size: usize,
    change: Change,
) -> anyhow::Result<Head> {
    let next = next(after, size, change);
    let answer = log.append(id, &next).await?;
    ensure!(answer == Appended::Done, "{id}: {answer:?}");
    Ok(next.record.head)
}

fn next(after: Option<Head>, size: usize, change: Change) -> Append {
    let version = after.map_or(1, |after| after.version + 1);
    let head = Head {
        version,
        nonce: Nonce(version.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    };
    let is_superstep = matches!(change, Change::Superstep);
    let index = IndexChange {
        row: (is_superstep || after.is_none()).then(|| row(ThreadStatus::Busy, version)),
        watched: is_superstep.then_some(true),
        rounds_opened: is_superstep.then_some(head).into_iter().collect(),
        rounds_closed: after.filter(|_| is_superstep).into_iter().collect(),
        ..IndexChange::default()
    };
    Append {
        after,
        record: StoredRecord {
            head,
            snapshot: 1,
            bytes: Bytes::from(vec![b'x'; size]),
        },
        index,
        outcome: None,
        blobs: Vec::new(),
    }
}

fn row(status: ThreadStatus, updated_at: u64) -> ThreadRow {
    ThreadRow {
        status,
        graph: GraphId {
            name: "approval".into(),
            version: "1".into(),
        },
        created_at: UnixMillis(1_800_000_000_000),
        updated_at: UnixMillis(1_800_000_000_000 + updated_at),
    }
}

/// What a thread takes that has one record of 1 KB, waits for one answer and owes nothing.
async fn bytes_of_waiting(
    server: &mut MultiplexedConnection,
    log: &Arc<RedisLog>,
) -> anyhow::Result<String> {
    empty(server).await?;
    let before = used_memory(server).await?;
    let mut tasks = JoinSet::new();
    for lane in 0..50 {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            for n in 0..WAITING_THREADS / 50 {
                let id = ThreadId::new(format!("01927c3a-8f4e-7a6b-9c21-{lane:04}{n:08}"));
                let answer = log.append(&id, &waits(n)).await?;
                ensure!(answer == Appended::Done, "{id}: {answer:?}");
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let all = used_memory(server).await? - before;
    let key: String = redis::cmd("RANDOMKEY").query_async(server).await?;
    let of_shard = key
        .split_inclusive("}:")
        .next()
        .context("a key with a tag")?;
    let mut parts = BTreeMap::new();
    for part in ["t", "x"] {
        let pattern = format!("{of_shard}{part}:*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(server).await?;
        let first = keys.first().context("a shard with threads")?;
        let bytes: u64 = redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(first)
            .query_async(server)
            .await?;
        parts.insert(part, bytes);
    }
    let each = all / WAITING_THREADS;
    let (log, open) = (parts["t"], parts["x"]);
    let index = each.saturating_sub(log + open);
    Ok(format!(
        "{each} bytes (its log {log}, its open question {open}, its share of indexes and key space {index})"
    ))
}

fn waits(n: u64) -> Append {
    let mut append = next(None, 1_000, Change::Nothing);
    append.index.row = Some(row(ThreadStatus::Interrupted, n));
    append.index.opened = vec![InterruptRow {
        id: format!("{n:032x}").into(),
        opened_at: UnixMillis(1_800_000_000_000 + n),
    }];
    append
}

async fn empty(server: &mut MultiplexedConnection) -> anyhow::Result<()> {
    redis::cmd("FLUSHALL").exec_async(server).await?;
    Ok(())
}

/// How long the server's main thread has been on a processor: what other work on the machine
/// does not change much.
async fn cpu_micros(server: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(server).await?;
    let mut micros = 0.0;
    for name in ["used_cpu_user_main_thread:", "used_cpu_sys_main_thread:"] {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let seconds: f64 = line.context("INFO tells the time used")?.trim().parse()?;
        micros += seconds * 1e6;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time is not negative, and fits"
    )]
    Ok(micros as u64)
}

async fn used_memory(server: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let info: String = redis::cmd("INFO").arg("memory").query_async(server).await?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line.context("INFO tells used_memory")?.trim().parse()?)
}

fn per_second(count: u64, took: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX)
}

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
