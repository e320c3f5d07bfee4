//! Timers over worker processes: very many that are due at one moment.
//!
//! Each thread sleeps until the same time and notes when it woke. Three workers look for what is due,
//! without a leader. `SUPERSTEP_TEST_TIMERS` makes it more than the usual 200.
//!
//! The rule it keeps: each thread wakes once, and not before its time.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use superstep_protocol::ThreadStatus;
use superstep_tests::eventually_async;

use crate::SOON;
use crate::cluster::Cluster;

/// How many threads are started at once.
const AT_ONCE: usize = 64;

fn count() -> usize {
    let told = std::env::var("SUPERSTEP_TEST_TIMERS").ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_due_at_once_wake_each_thread_once() {
    let count = count();
    let cluster = Cluster::start();
    let _workers = [
        cluster.worker("a").await,
        cluster.worker("b").await,
        cluster.worker("c").await,
    ];
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    // Time for all to be started: 500 a second, and some.
    let began = SystemTime::now().duration_since(UNIX_EPOCH);
    let wait = Duration::from_secs(10 + count as u64 / 500);
    let until = (began.expect("after 1970") + wait).as_millis();
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, async |n| {
            let start = json!({
                "thread_id": format!("nap-{n}"),
                "run_id": format!("nap-{n}"),
                "input": {"how": "nap", "until": u64::try_from(until).expect("it fits")},
            });
            let reply = outside
                .ask("superstep.default.start.runs", &[], start)
                .await;
            assert_eq!(reply["outcome"], "accepted", "{reply}");
        })
        .await;
    eventually_async("all have ended", wait + 4 * SOON, async || {
        (store.count(Some(ThreadStatus::Idle)).await == count).then_some(())
    })
    .await;
    let woke: Vec<(String, u64)> = cluster
        .ledger()
        .iter()
        .filter_map(|line| line.strip_prefix("woke "))
        .filter_map(|line| {
            let (run, rest) = line.split_once(' ')?;
            let late = rest.split(' ').next()?.parse().ok()?;
            Some((run.to_owned(), late))
        })
        .collect();
    let runs: BTreeSet<&str> = woke.iter().map(|(run, _)| run.as_str()).collect();
    assert_eq!((woke.len(), runs.len()), (count, count), "each woke once");
    let mut late: Vec<u64> = woke.iter().map(|(_, late)| *late).collect();
    late.sort_unstable();
    let (median, most) = (late[count / 2], late[count - 1]);
    println!("{count} timers at one moment: median {median} ms late, the last {most} ms");
    // A woken node runs as soon as it has a slot; ten thousand a minute is far below what it takes.
    let allowed = SOON.as_millis() + 6 * count as u128;
    assert!(u128::from(most) < allowed, "the last woke {most} ms late");
}
