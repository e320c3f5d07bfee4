//! The servers as `deploy/` sets them are as superstep relies on them.
//!
//! Real servers read the very files that the compose file and the manifests mount, with only the
//! addresses and folders put in that a test has; then `doctor` looks at them.

use superstep_tests::servers::{NatsOptions, NatsServer, RedisOptions, RedisServer};

use crate::run::Shell;

const NATS: &str = include_str!("../../deploy/kubernetes/servers/nats.conf");
const REDIS: &str = include_str!("../../deploy/kubernetes/servers/redis.conf");

/// The lines that do not set one of `places`, which only hold inside a container.
fn without(config: &str, places: &[&str]) -> String {
    let kept = config.lines().filter(|line| {
        let name = line.trim().split([' ', ':']).next().unwrap_or_default();
        !places.contains(&name)
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn deployed_server_settings_satisfy_the_doctor() {
    let shell = Shell::new();
    let store = format!("store_dir: {:?}", shell.dir().join("nats"));
    assert!(NATS.contains("store_dir: /data"), "{NATS}");
    let nats = NatsServer::start_with(NatsOptions {
        jetstream: false,
        config: without(NATS, &["listen", "http"]).replace("store_dir: /data", &store),
        ..NatsOptions::default()
    })
    .unwrap();
    let redis = RedisServer::start_with(RedisOptions {
        appendonly: false,
        config: without(REDIS, &["bind", "port", "dir"]),
        ..RedisOptions::default()
    })
    .unwrap();
    let (nats_url, redis_url) = (nats.url(), redis.url());
    let servers = ["--nats-url", &nats_url, "--redis-url", &redis_url];

    // A worker makes the streams, which `doctor` looks at too.
    let _worker = shell.spawn("worker", &[&servers[..], &["worker"]].concat());
    let args = ["start", "basic", "{\"draft\": \"a\"}", "--wait"];
    shell.run(&[&servers[..], &args].concat()).code(0);
    let ran = shell.run(&[&servers[..], &["--json", "doctor"]].concat());
    assert_eq!(ran.json()["ok"], true, "{ran:#?}");
    let findings = ran.json()["findings"].clone();
    let says = |subject: &str, detail: &str| {
        let mut findings = findings.as_array().unwrap().iter();
        findings.any(|finding| finding["subject"] == subject && finding["detail"] == detail)
    };
    for (subject, detail) in [
        ("JetStream", "enabled"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
    ] {
        assert!(says(subject, detail), "{subject}: {findings:#}");
    }
}
