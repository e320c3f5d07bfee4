//! More than one server of a kind: what becomes of a hundred threads when one of them is lost.
//!
//! A NATS cluster whose streams have three copies, a Redis Cluster, Sentinels, a replica: each is
//! made of local processes, disturbed while threads run, ask and are answered, and mended. What the
//! threads are and what must have become of them is in `crowd`.
//!
//! The rule it keeps: a disturbance comes when work is under way, and the test says what ended it.

mod crowd;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use superstep_tests::servers::{
    NatsCluster, NatsOptions, NatsServer, RedisCluster, RedisOptions, RedisReplicas,
    RedisSentinels, RedisServer, Reply, ServerBinary,
};
use superstep_tests::{Program, eventually_async};
use tempfile::TempDir;

use crate::SOON;
use crate::cluster::{Cluster, Store, launch, lines, works};
use crowd::Crowd;

/// Where the servers are, and the folder of the test.
struct Site {
    nats: String,
    redis: String,
    settings: Value,
    dir: TempDir,
}

impl Site {
    fn new(nats: &[String], redis: String, settings: Value) -> Self {
        Self {
            nats: nats.join(","),
            redis,
            settings,
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn workers(&self) -> Vec<Program> {
        let mut workers = Vec::new();
        for name in ["a", "b", "c"] {
            let mut told = json!({"nats": self.nats, "redis": self.redis});
            let members = self.settings.as_object().expect("settings are an object");
            told.as_object_mut()
                .expect("it is one")
                .extend(members.clone());
            let mut worker = launch(self.dir(), name, told);
            works(&mut worker).await;
            workers.push(worker);
        }
        workers
    }

    /// Starts the crowd and waits until a good part of its work is under way.
    async fn crowd(&self) -> Crowd {
        let crowd = Crowd::start(&self.nats).await;
        self.progress(30).await;
        crowd
    }

    /// Waits until nodes have noted so much more.
    async fn progress(&self, notes: usize) {
        let before = lines(self.dir(), "ledger").len();
        eventually_async("work goes on", SOON, async || {
            (lines(self.dir(), "ledger").len() >= before + notes).then_some(())
        })
        .await;
    }

    /// Demands that all of the crowd has ended right, and that no worker has died of anything.
    async fn ends_well(&self, crowd: Crowd, mut workers: Vec<Program>) {
        let store = Store::connect(&self.redis).await;
        crowd.ends_well(&store, self.dir()).await;
        for worker in &mut workers {
            assert_eq!(worker.ended(), None, "no worker dies of it");
        }
    }
}

fn role(server: &RedisServer) -> Option<String> {
    let Reply::List(role) = server.command(&["ROLE"]).ok()? else {
        return None;
    };
    role.first()?.text().map(str::to_owned)
}

async fn becomes(server: &RedisServer, expected: &str) {
    eventually_async(&format!("a server is {expected}"), SOON, async || {
        (role(server)? == expected).then_some(())
    })
    .await;
}

/// Which server leads a stream.
async fn leader(crowd: &Crowd, stream: &str) -> usize {
    another_leader(crowd, stream, usize::MAX).await
}

/// Waits until a stream is led by another server than this.
async fn another_leader(crowd: &Crowd, stream: &str, lost: usize) -> usize {
    eventually_async(&format!("a leader of {stream}"), SOON, async || {
        let mut stream = crowd.jetstream().get_stream(stream).await.ok()?;
        let cluster = stream.info().await.ok()?.cluster.clone()?;
        NatsCluster::position(&cluster.leader?).filter(|leader| *leader != lost)
    })
    .await
}

/// Three NATS servers with three copies of each stream, one Redis, and workers.
async fn nats_of_three(binary: ServerBinary) -> (NatsCluster, RedisServer, Site, Vec<Program>) {
    let nats = NatsCluster::start_with(&NatsOptions {
        binary,
        ..NatsOptions::default()
    });
    let nats = nats.expect("a NATS cluster");
    let redis = RedisServer::start().expect("a private Redis");
    let site = Site::new(&nats.urls(), redis.url(), json!({"replicas": 3}));
    let workers = site.workers().await;
    (nats, redis, site, workers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_stream_leaders_are_killed() {
    let (mut nats, _redis, site, workers) = nats_of_three(ServerBinary::Nats).await;
    let crowd = site.crowd().await;
    for stream in ["SUPERSTEP_default_WORK", "SUPERSTEP_default_COMMANDS"] {
        let leader = leader(&crowd, stream).await;
        nats.nodes_mut()[leader].kill();
        another_leader(&crowd, stream, leader).await;
        nats.nodes_mut()[leader].restart().expect("it comes back");
        nats.until_ready().expect("the cluster is whole again");
    }
    site.ends_well(crowd, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_all_of_nats_restarts() {
    if !ServerBinary::NatsModern.available_to("threads_end_though_all_of_nats_restarts") {
        return;
    }
    let (mut nats, _redis, site, workers) = nats_of_three(ServerBinary::NatsModern).await;
    let crowd = site.crowd().await;
    for node in nats.nodes_mut() {
        node.kill();
    }
    for node in nats.nodes_mut() {
        node.restart().expect("it comes back");
    }
    site.ends_well(crowd, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_a_stream_leader_is_deaf() {
    let (nats, _redis, site, workers) = nats_of_three(ServerBinary::Nats).await;
    let crowd = site.crowd().await;
    let leader = leader(&crowd, "SUPERSTEP_default_WORK").await;
    nats.nodes()[leader].freeze();
    site.ends_well(crowd, workers).await;
    nats.nodes()[leader].thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_a_cluster_master_is_lost() {
    let nats = NatsServer::start().expect("a private NATS");
    let mut redis = RedisCluster::start_with_replicas(&RedisOptions::default()).expect("a Cluster");
    let urls = redis
        .urls()
        .join(",")
        .replace("redis://", "redis+cluster://");
    let site = Site::new(&[nats.url()], urls, json!({"durable_after_ms": 1_500}));
    let workers = site.workers().await;
    let crowd = site.crowd().await;
    redis.nodes_mut()[0].kill();
    becomes(&redis.nodes()[3], "master").await;
    redis.nodes_mut()[0].restart().expect("it comes back");
    site.ends_well(crowd, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_sentinels_choose_another_master() {
    let nats = NatsServer::start().expect("a private NATS");
    let mut redis = RedisSentinels::start_with(&RedisOptions::default(), 2).expect("Sentinels");
    let told = json!({"durable_after_ms": 1_500});
    let site = Site::new(&[nats.url()], redis.url(), told);
    let workers = site.workers().await;
    let crowd = site.crowd().await;
    redis.nodes_mut()[0].kill();
    eventually_async("another master", SOON, async || {
        redis.master(0).filter(|master| *master != 0)
    })
    .await;
    redis.nodes_mut()[0].restart().expect("it comes back");
    becomes(&redis.nodes()[0], "slave").await;
    site.ends_well(crowd, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_end_though_a_replica_left_behind_is_promoted() {
    let nats = NatsServer::start().expect("a private NATS");
    let mut redis = RedisReplicas::start_with(&RedisOptions::default(), 1).expect("a replica");
    let durable_after = Duration::from_secs(15);
    let told = json!({"durable_after_ms": 15_000});
    let site = Site::new(&[nats.url()], redis.urls(), told);
    let workers = site.workers().await;
    let crowd = site.crowd().await;
    let cut_off = Instant::now();
    redis.cut_off(1).expect("the replica obeys");
    site.progress(20).await;
    redis.nodes_mut()[0].kill();
    redis.promote(1).expect("the replica obeys");
    assert!(cut_off.elapsed() < durable_after, "more was lost than told");
    site.ends_well(crowd, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_acked_once_the_disk_has_them() {
    if !ServerBinary::Valkey.available_to("commands_are_acked_once_the_disk_has_them") {
        return;
    }
    let cluster = Cluster::on(ServerBinary::Nats, ServerBinary::Valkey);
    // Longer than this test may take: an ack can only come of asking the server.
    let _worker = cluster
        .worker_with("a", json!({"durable_after_ms": 600_000}))
        .await;
    let outside = cluster.outside().await;
    let start = json!({"thread_id": "t", "input": {"topic": "t"}});
    outside
        .publish("superstep.default.start.email", start)
        .await;
    outside.event("interrupt", "t").await;
    eventually_async("the start is acked", SOON, async || {
        let stream = outside
            .jetstream()
            .get_stream("SUPERSTEP_default_COMMANDS")
            .await;
        let stream = stream.ok()?;
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;
}
