//! Workers that cannot start: each ends soon, says why and what to do, and alters nothing.
//!
//! Servers that are not there, that refuse a password, or that hold something else under the
//! names of superstep's streams.
//!
//! The rule it keeps: an address may be shown, a secret never.

use std::net::TcpListener;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use serde_json::{Value, json};
use superstep_tests::eventually_async;
use superstep_tests::servers::{NatsOptions, RedisOptions};

use crate::cluster::Cluster;

/// How long a worker may take to say that it cannot start.
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// Starts a worker that must end in an error which says all of `says`, and not the secret.
async fn cannot_start(cluster: &Cluster, settings: Value, says: &[&str]) {
    let mut worker = cluster.launch("a", settings);
    let status = eventually_async("the worker ends", SAID_WITHIN, async || worker.ended()).await;
    let log = worker.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in says {
        assert!(log.contains(part), "does not say `{part}`:\n{log}");
    }
    assert!(!log.contains("hunter2"), "shows a secret:\n{log}");
}

/// An address of a port where nobody listens.
fn nowhere() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("its address").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_not_there_are_named() {
    let cluster = Cluster::start();
    let address = nowhere();
    cannot_start(
        &cluster,
        json!({"nats": format!("nats://worker:hunter2@{address}")}),
        &["NATS at", &address, "refused", "is it running"],
    )
    .await;
    cannot_start(
        &cluster,
        json!({"redis": format!("redis://worker:hunter2@{address}/")}),
        &["redis at", &address],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_not_shown() {
    let nats = NatsOptions {
        config: "authorization { user: worker, password: right }".to_owned(),
        ..NatsOptions::default()
    };
    let redis = RedisOptions {
        requirepass: Some("right".to_owned()),
        ..RedisOptions::default()
    };
    let cluster = Cluster::with(nats, redis);
    let nats =
        |password: &str| format!("nats://worker:{password}@127.0.0.1:{}", cluster.nats.port());
    let redis = |password: &str| cluster.redis.url_as("", password);
    let wrong_nats = json!({"nats": nats("hunter2"), "redis": redis("right")});
    cannot_start(
        &cluster,
        wrong_nats,
        &["NATS at", "refused the credentials"],
    )
    .await;
    let wrong_redis = json!({"nats": nats("right"), "redis": redis("hunter2")});
    cannot_start(&cluster, wrong_redis, &["redis at", "password"]).await;
    let none = json!({"nats": nats("right")});
    cannot_start(&cluster, none, &["redis at", "asks for a password"]).await;

    let right = json!({"nats": nats("right"), "redis": redis("right")});
    let mut worker = cluster.worker_with("b", right).await;
    worker.stop();
    assert_eq!(worker.ended().and_then(|status| status.code()), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_other_settings_is_left_alone() {
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let made = outside
        .jetstream()
        .create_stream(Config {
            name: "SUPERSTEP_default_WORK".to_owned(),
            subjects: vec!["superstep.default.work.>".to_owned()],
            retention: RetentionPolicy::Limits,
            max_age: Duration::from_secs(3600),
            ..Config::default()
        })
        .await
        .expect("a stranger's stream");
    let before = made.cached_info().config.clone();
    cannot_start(
        &cluster,
        json!({}),
        &[
            "SUPERSTEP_default_WORK",
            "retention is limits, needed is workqueue",
            "max_age",
            "nothing was altered",
        ],
    )
    .await;
    let mut found = outside
        .jetstream()
        .get_stream("SUPERSTEP_default_WORK")
        .await
        .expect("it is still there");
    assert_eq!(found.info().await.expect("its settings").config, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_tells_scripts_why_it_ended() {
    let redis = RedisOptions {
        requirepass: Some("right".to_owned()),
        ..RedisOptions::default()
    };
    let cluster = Cluster::with(NatsOptions::default(), redis);
    let away = format!("nats://{}", nowhere());
    let right = cluster.redis.url_as("", "right");
    let wrong = cluster.redis.url_as("", "hunter2");
    for (variable, value, code, says) in [
        ("SUPERSTEP_NATS_URL", away.as_str(), 4, "NATS at"),
        ("SUPERSTEP_REDIS_URL", wrong.as_str(), 2, "password"),
        ("SUPERSTEP_NAMESPACE", "no.such", 2, "namespace"),
    ] {
        let mut environment = vec![("SUPERSTEP_REDIS_URL", right.as_str())];
        environment.push((variable, value));
        let mut worker = cluster.launch_superstep(&variable.to_lowercase(), &environment);
        let ended = eventually_async("the worker ends", SAID_WITHIN, async || worker.ended());
        let (status, log) = (ended.await, worker.log());
        assert_eq!(status.code(), Some(code), "{variable}: {log}");
        assert!(
            log.contains(says),
            "{variable}: does not say `{says}`:\n{log}"
        );
        assert!(!log.contains("hunter2"), "shows a secret:\n{log}");
    }
}
