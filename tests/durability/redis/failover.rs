//! A replica takes the place of a master: by hand, by Sentinels, in a Cluster.
//!
//! Replication is asynchronous, so what a master answered last may be gone with it. The rule that
//! all of them look for: whoever writes goes on from what is left, on the server that is the master
//! now, and nothing that was written to the old one appears among it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use superstep_checkpoint::{Appended, ErrorKind, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_tests::servers::{
    RedisCluster, RedisOptions, RedisReplicas, RedisSentinels, RedisServer, Reply,
};

use super::{
    SOON, chain,
    faults::{at_least, one_chain_each, writers},
    grow, must, next, refused, thread,
};

/// What a server says that it is: `master` or `slave`.
fn role(server: &RedisServer) -> Option<String> {
    let Reply::List(role) = server.command(&["ROLE"]).ok()? else {
        return None;
    };
    role.first()?.text().map(str::to_owned)
}

async fn becomes(server: &RedisServer, expected: &str) {
    superstep_tests::eventually_async(&format!("a {expected}"), SOON, async || {
        (role(server)? == expected).then_some(())
    })
    .await;
}

/// Waits until the writers `0..count` have appended so many records more.
async fn go_on(log: &RedisLog, count: u64, records: u64) {
    for writer in 0..count {
        let id = thread(&format!("writer-{writer}"));
        let now = superstep_tests::eventually_async("a head", SOON, async || {
            log.head(&id).await.ok().flatten()
        });
        let version = now.await.version;
        at_least(log, writer, version + records).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_takes_the_writes() {
    let mut servers = RedisReplicas::start_with(&RedisOptions::default(), 1).unwrap();
    let log = RedisLog::connect(RedisSettings::new(&servers.urls())).await;
    let log = Arc::new(log.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 4, true, &stop);
    at_least(&log, 3, 20).await;
    // The old master lives on and becomes a replica: writes to it are refused.
    servers.promote(1).unwrap();
    servers.follow(0, 1).unwrap();
    becomes(&servers.nodes()[0], "slave").await;
    go_on(&log, 4, 20).await;
    // And back, by the death of the other.
    superstep_tests::eventually_async("the replica is up to date", SOON, async || {
        let info = servers.nodes()[0].command(&["INFO", "replication"]).ok()?;
        info.text()?.contains("master_link_status:up").then_some(())
    })
    .await;
    servers.nodes_mut()[1].kill();
    servers.promote(0).unwrap();
    go_on(&log, 4, 20).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test]
async fn a_replica_left_behind_steps_the_log_back() {
    let mut servers = RedisReplicas::start_with(&RedisOptions::default(), 1).unwrap();
    let log = RedisLog::connect(RedisSettings::new(&servers.urls())).await;
    let log = log.unwrap();
    let t = thread("t");
    let kept = grow(&log, &t, 5).await;
    superstep_tests::eventually_async("the replica has it", SOON, async || {
        let keys = servers.nodes()[1].command(&["HGET", "superstep:{default}:meta", "shards"]);
        let has = !super::keys(&servers.nodes()[1], "}:t:t").is_empty();
        let waited = servers.nodes()[0].command(&["WAIT", "1", "1000"]).ok()?;
        (has && keys.is_ok() && waited == Reply::Integer(1)).then_some(())
    })
    .await;
    servers.cut_off(1).unwrap();
    let lost = must(&log, &t, &next(Some(kept), 6, 10)).await;
    let lost = must(&log, &t, &next(Some(lost), 7, 10)).await;
    servers.nodes_mut()[0].kill();
    servers.promote(1).unwrap();
    let ghost = next(Some(lost), 8, 10);
    let answer = superstep_tests::eventually_async("an answer", SOON, async || {
        log.append(&t, &ghost).await.ok()
    });
    assert_eq!(answer.await, Appended::Moved { head: Some(kept) });
    must(&log, &t, &next(Some(kept), 9, 10)).await;
    assert_eq!(chain(&log, &t).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_master() {
    let mut all = RedisSentinels::start_with(&RedisOptions::default(), 1).unwrap();
    let log = RedisLog::connect(RedisSettings::new(&all.url())).await;
    let log = Arc::new(log.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 4, true, &stop);
    at_least(&log, 3, 20).await;
    // One Sentinel is gone as well; the others still agree.
    all.sentinels_mut()[0].kill();
    all.nodes_mut()[0].kill();
    becomes(&all.nodes()[1], "master").await;
    go_on(&log, 4, 20).await;
    // Who was the master comes back as one, and is told.
    all.nodes_mut()[0].restart().unwrap();
    becomes(&all.nodes()[0], "slave").await;
    go_on(&log, 4, 20).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_is_left_when_sentinels_name_another() {
    let all = RedisSentinels::start_with(&RedisOptions::default(), 1).unwrap();
    let mut settings = RedisSettings::new(&all.url());
    // What is asked of the frozen one is not known for so long; new calls need not wait for it.
    settings.response_timeout = Duration::from_secs(5);
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 4, true, &stop);
    at_least(&log, 3, 20).await;
    all.nodes()[0].freeze();
    becomes(&all.nodes()[1], "master").await;
    go_on(&log, 4, 20).await;
    all.nodes()[0].thaw();
    becomes(&all.nodes()[0], "slave").await;
    go_on(&log, 4, 20).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test]
async fn a_sentinel_that_knows_no_such_master_says_so() {
    let all = RedisSentinels::start_with(&RedisOptions::default(), 1).unwrap();
    let error = refused(RedisSettings::new(&all.url().replace("/main", "/other"))).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("no master of this name"),
        "{error}"
    );
    let server = &all.nodes()[0];
    let wrong = format!("redis+sentinel://127.0.0.1:{}/main", server.port());
    let error = refused(RedisSettings::new(&wrong)).await;
    assert!(
        error.to_string().contains(&server.port().to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_with_the_replica_of_a_master() {
    let mut cluster = RedisCluster::start_with_replicas(&RedisOptions::default()).unwrap();
    let mut settings = RedisSettings::new(&cluster.urls().join(","));
    settings.cluster = true;
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 12, true, &stop);
    at_least(&log, 11, 20).await;
    cluster.nodes_mut()[0].kill();
    becomes(&cluster.nodes()[3], "master").await;
    go_on(&log, 12, 20).await;
    cluster.nodes_mut()[0].restart().unwrap();
    becomes(&cluster.nodes()[0], "slave").await;
    go_on(&log, 12, 20).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_leaves_a_frozen_master_for_its_replica() {
    let cluster = RedisCluster::start_with_replicas(&RedisOptions::default()).unwrap();
    let mut settings = RedisSettings::new(&cluster.urls().join(","));
    settings.cluster = true;
    settings.response_timeout = Duration::from_secs(2);
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 12, true, &stop);
    at_least(&log, 11, 20).await;
    cluster.nodes()[0].freeze();
    becomes(&cluster.nodes()[3], "master").await;
    go_on(&log, 12, 20).await;
    cluster.nodes()[0].thaw();
    becomes(&cluster.nodes()[0], "slave").await;
    go_on(&log, 12, 20).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}
