//! `bench` as it is run: small loads on real servers, its JSON, what it leaves behind, its verdict.
//!
//! Figures are not looked at beyond being there: they are the machine's. What goes wrong is done by
//! a stranger's hand: a worker with another graph of the same name, in the namespace that is
//! measured.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use serde_json::{Value, json};
use superstep::{
    Channel, Context, END, Graph, NodeError, RunnableGraph, START,
    connect::{ConnectSettings, connect_cluster},
};
use superstep_tests::{
    eventually,
    servers::{NatsServer, RedisServer, Reply, ServerBinary},
};
use superstep_worker::{Graphs, SystemWorld, Worker, WorkerSettings};
use tokio_util::sync::CancellationToken;

use crate::run::Shell;

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(60);

/// What every measurement must say.
#[track_caller]
fn check(measured: &Value, scenario: &str, times: &[&str]) {
    assert_eq!(measured["scenario"], scenario, "{measured}");
    for rate in ["runs_per_second", "supersteps_per_second", "seconds"] {
        assert!(measured[rate].as_f64().unwrap() > 0.0, "{rate}: {measured}");
    }
    for what in times {
        let latency = &measured["latency"][what];
        assert!(latency["count"].as_u64().unwrap() > 0, "{what}: {measured}");
        let ms = |key: &str| latency[key].as_f64().unwrap();
        assert!(ms("p50_ms") > 0.0, "{latency}");
        assert!(
            ms("p50_ms") <= ms("p90_ms") && ms("p90_ms") <= ms("p99_ms"),
            "{latency}"
        );
        assert!(ms("p99_ms") <= ms("max_ms"), "{latency}");
    }
    let verdict = &measured["verdict"];
    assert_eq!(verdict["ok"], true, "{verdict}");
    assert_eq!(verdict["begun"], verdict["right"], "{verdict}");
    assert_eq!(verdict["begun"], verdict["verified_threads"], "{verdict}");
}

fn parts(measured: &Value) -> Vec<&str> {
    let parts = measured["parts"].as_array().unwrap().iter();
    parts.map(|part| part["part"].as_str().unwrap()).collect()
}

fn keys(redis: &RedisServer) -> Vec<String> {
    let Reply::List(keys) = redis.command(&["KEYS", "*"]).unwrap() else {
        panic!("KEYS gives a list");
    };
    let text = |key| match key {
        Reply::Text(text) => text,
        other => format!("{other:?}"),
    };
    keys.into_iter().map(text).collect()
}

#[test]
fn a_load_on_named_servers_leaves_nothing() {
    let (nats, redis) = (NatsServer::start().unwrap(), RedisServer::start().unwrap());
    redis
        .command(&["SET", "superstep:{default}:mine", "1"])
        .unwrap();
    let (nats_url, redis_url) = (nats.url(), redis.url());
    let shell = Shell::new();
    let ran = shell.run(&[
        "--nats-url",
        &nats_url,
        "--redis-url",
        &redis_url,
        "--json",
        "bench",
        "--threads",
        "3",
        "--duration",
        "2s",
        "--warm-up",
        "200ms",
        "--width",
        "3",
        "--workers",
        "1",
        "--processes",
        "1",
    ]);
    let report = ran.code(0).json();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(
        (&report["format"], &report["command"]),
        (&json!(1), &json!("bench"))
    );
    assert_eq!(report["servers"], json!({"private": false}));
    assert_eq!(report["load"]["threads_in_flight"], 3);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "{report}");
    check(&results[0], "chain", &["run"]);
    check(&results[1], "fan_out", &["run"]);
    check(
        &results[2],
        "interrupt",
        &["ask", "resume", "resume_to_node"],
    );
    if cfg!(target_os = "linux") {
        let seen = [
            "bench with workers",
            "worker",
            "nats-server",
            "redis-server",
        ];
        assert_eq!(parts(&results[0]), seen, "{report}");
    }
    assert_eq!(keys(&redis), ["superstep:{default}:mine"]);
    let left = std::fs::read_dir(nats.data_dir().join("jetstream/$G/streams"));
    let left = left.map_or(0, Iterator::count);
    assert_eq!(left, 0, "streams are left");
}

/// A folder with both servers under the names that people know.
fn servers_on_path(shell: &Shell) -> String {
    let folder = shell.dir().join("bin");
    std::fs::create_dir(&folder).unwrap();
    for (name, binary) in [
        ("nats-server", ServerBinary::Nats),
        ("redis-server", ServerBinary::Redis),
    ] {
        let path = binary.locate().unwrap();
        let path = std::fs::canonicalize(path).unwrap();
        // Not a link: a script that looks for its neighbours finds them.
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", path.display());
        let file = folder.join(name);
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", folder.display())
}

#[test]
fn the_limit_is_measured_on_servers_of_its_own() {
    let shell = Shell::new();
    let path = servers_on_path(&shell);
    let ran = shell.run_with(
        &[
            "--json",
            "bench",
            "limit",
            "chain",
            "--rounds",
            "2",
            "--threads",
            "3",
            "--duration",
            "1s",
            "--warm-up",
            "200ms",
            "--dispatch",
            "run-ahead",
        ],
        &[("PATH", path.as_str())],
        "",
    );
    let report = ran.code(0).json();
    assert_eq!(
        report["servers"],
        json!({"private": true, "fsync": "everysec"})
    );
    let [result] = report["results"].as_array().unwrap().as_slice() else {
        panic!("one scenario in one form: {report}");
    };
    assert_eq!(
        (&result["scenario"], &result["dispatch"]),
        (&json!("chain"), &json!("run_ahead"))
    );
    let ratio = |key: &str| result["ratio"][key].as_f64().unwrap();
    assert!(
        0.0 < ratio("min") && ratio("min") <= ratio("median"),
        "{result}"
    );
    assert!(ratio("median") <= ratio("max"), "{result}");
    for side in ["superstep", "limit"] {
        let rate = &result[side]["supersteps_per_second"]["median"];
        assert!(rate.as_f64().unwrap() > 0.0, "{side}: {result}");
        let p50 = &result[side]["latency"]["run"]["p50_ms"]["median"];
        assert!(p50.as_f64().unwrap() > 0.0, "{side}: {result}");
    }
    assert_eq!(result["verdict"]["ok"], true, "{result}");
}

#[test]
fn what_cannot_be_measured_is_said_at_once() {
    let shell = Shell::new();
    let nowhere = [("PATH", "/nonexistent")];
    let ran = shell.run_with(&["bench", "chain"], &nowhere, "");
    ran.code(2)
        .says(&["nats-server", "redis-server", "--nats-url"]);
    for (args, says) in [
        (&["bench", "--workers", "0"][..], "--workers"),
        (&["bench", "--nats-url", "nats://127.0.0.1:1"], "--private"),
        (&["bench", "--data", "folder"], "not the folder"),
        (&["bench", "--duration", "11m"], "--duration"),
        (&["bench", "--count", "1000001"], "--count"),
        (&["bench", "--threads", "0"], "--threads"),
        (&["bench", "limit", "--rounds", "0"], "--rounds"),
        (&["bench", "walk"], "fan-out"),
    ] {
        shell.run_with(args, &nowhere, "").code(2).says(&[says]);
    }
    let named = [
        "--nats-url",
        "nats://127.0.0.1:1",
        "--redis-url",
        "redis://127.0.0.1:1",
    ];
    let ran = shell.run(&[&named[..], &["bench", "--fsync", "always"]].concat());
    ran.code(2).says(&["--fsync"]);
    let ran = shell.run(&[&named[..], &["bench", "chain"]].concat());
    ran.code(4).says(&["127.0.0.1:1"]);
}

/// A chain that ends with other values than the bench expects.
fn wrong_chain() -> RunnableGraph {
    Graph::dynamic("chain")
        .channel("number", Channel::Last)
        .channel("bytes", Channel::Last)
        .channel("sum", Channel::Last)
        .node("step_1", |_: Value, _: Context| async {
            Ok::<_, NodeError>(json!({"sum": -1}))
        })
        .edge(START, "step_1")
        .edge("step_1", END)
        .build()
        .unwrap()
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_results_make_the_bench_fail() {
    let (nats, redis) = (NatsServer::start().unwrap(), RedisServer::start().unwrap());
    let (nats_url, redis_url) = (nats.url(), redis.url());
    let shell = Shell::new();
    let mut bench = shell.spawn(
        "bench",
        &[
            "--nats-url",
            &nats_url,
            "--redis-url",
            &redis_url,
            "--json",
            "bench",
            "chain",
            "--threads",
            "2",
            "--duration",
            "8s",
            "--warm-up",
            "0",
        ],
    );
    let namespace = eventually("a namespace to be measured in", SOON, || {
        let key = keys(&redis)
            .into_iter()
            .find(|key| key.contains("{bench-"))?;
        let (_, rest) = key.split_once('{')?;
        Some(rest.split([':', '}']).next()?.to_owned())
    });
    let settings = ConnectSettings {
        nats_url: Some(nats_url),
        redis_url: Some(redis_url),
        namespace: Some(namespace),
        ..ConnectSettings::default()
    };
    let connected = Box::pin(connect_cluster(&settings)).await.unwrap();
    let mut graphs = Graphs::new();
    graphs.add(wrong_chain());
    let worker = Worker::new(
        graphs,
        Arc::clone(&connected.log),
        Arc::clone(&connected.queue),
        connected.subjects.clone(),
        Arc::new(SystemWorld),
        WorkerSettings::default(),
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let status = tokio::task::block_in_place(|| bench.wait(SOON)).unwrap();
    assert_eq!(status.code(), Some(1), "{}", bench.log());
    let log = bench.log();
    let report = log.lines().find(|line| line.starts_with('{'));
    let report: Value = serde_json::from_str(report.unwrap()).unwrap();
    assert_eq!(report["ok"], false, "{report}");
    let findings = report["results"][0]["verdict"]["findings"].to_string();
    assert!(findings.contains("payload is null"), "{findings}");
    shutdown.cancel();
    let _ = running.await;
}
