//! The binary against real servers: working, away, and with wrong passwords.

use std::time::Duration;

use serde_json::Value;
use superstep_tests::{
    Program, eventually,
    servers::{NatsOptions, NatsServer, RedisOptions, RedisServer},
};

use crate::run::{Ran, Shell};

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(60);
/// How long a command may take that cannot reach a server: twice the time to connect.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(12);

#[track_caller]
fn quick(ran: Ran) -> Ran {
    assert!(ran.took < GIVES_UP_WITHIN, "{ran:#?}");
    ran
}

#[test]
fn a_worker_and_its_clients_meet_over_servers() {
    let (nats, redis) = (NatsServer::start().unwrap(), RedisServer::start().unwrap());
    let shell = Shell::new();
    std::fs::write(
        shell.dir().join("superstep.toml"),
        format!(
            "nats_url = \"{}\"\nredis_url = \"{}\"\n",
            nats.url(),
            redis.url()
        ),
    )
    .unwrap();
    let json = |args: &[&str]| -> Value {
        let args = [&["--json"], args].concat();
        shell.run(&args).code(0).json()
    };
    let early = shell.run(&["start", "basic", "{\"draft\": \"a\"}", "--timeout", "300ms"]);
    early.code(5).says(&["stored", "is a worker running?"]);

    let mut worker: Program = shell.spawn("worker", &["worker", "--health-addr", "127.0.0.1:0"]);
    eventually("the stored start to be worked on", SOON, || {
        let threads = json(&["threads", "list", "--status", "interrupted"]);
        (threads["threads"].as_array().unwrap().len() == 1).then_some(())
    });
    let log = worker.log();
    let (_, after) = log.split_once("health endpoint listens address=").unwrap();
    let address = after.split_whitespace().next().unwrap();
    for which in ["startup", "ready", "live"] {
        let ran = shell
            .run(&["probe", which, "--health-addr", address])
            .code(0);
        assert!(ran.stdout.contains(r#""stage":"working""#), "{ran:?}");
    }
    let graphs = json(&["graph", "list", "--registered"]);
    assert!(
        graphs["graphs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|graph| graph["live"] == true)
    );
    let topic = "{\"topic\": \"delay\"}";
    let started = json(&["start", "email", topic, "--thread", "order-42", "--wait"]);
    assert_eq!(started["end"]["status"], "interrupted");
    let resumed = json(&["resume", "order-42", "{\"approved\": true}", "--wait"]);
    assert_eq!(resumed["end"]["values"]["status"], "sent");
    let events = shell.run(&[
        "--json",
        "events",
        "--thread",
        "order-42",
        "--from-start",
        "--count",
        "5",
    ]);
    assert_eq!(events.code(0).stdout.lines().count(), 5);
    let doctor = json(&["doctor"]);
    assert_eq!(doctor["ok"], true, "{doctor}");
    let verified = json(&["verify"]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(verified["summary"]["threads"], 2);
    json(&["threads", "delete", "order-42"]);
    shell.run(&["threads", "get", "order-42"]).code(1);

    worker.terminate();
    let status = worker.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(0), "{}", worker.log());
}

#[test]
fn a_probe_says_what_it_cannot_ask() {
    let shell = Shell::new();
    let unset = shell.run(&["probe"]).code(2);
    unset.says(&["health_addr is not set", "SUPERSTEP_HEALTH_ADDR"]);
    let variables = [("SUPERSTEP_HEALTH_ADDR", "127.0.0.1:1")];
    let away = shell.run_with(&["probe", "live"], &variables, "").code(4);
    away.says(&["127.0.0.1:1", "is a worker running here"]);
}

#[test]
fn servers_that_are_away_are_both_named() {
    let shell = Shell::new();
    let args = [
        "--nats-url",
        "nats://127.0.0.1:1",
        "--redis-url",
        "redis://127.0.0.1:1",
    ];
    for command in [
        &["threads", "list"][..],
        &["start", "basic"],
        &["worker"],
        &["events"],
    ] {
        let ran = quick(shell.run(&[&args[..], command].concat()));
        ran.code(4)
            .says(&["NATS at 127.0.0.1:1", "redis at 127.0.0.1:1", "running"]);
    }
    let doctor = quick(shell.run(&[&args[..], &["--json", "doctor"]].concat())).code(4);
    let findings = doctor.json()["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 2, "{findings}");
    let ran = quick(shell.run(&["threads", "list", "--connect-timeout-ms", "1"]));
    ran.code(4).says(&["--nats-url", "--data"]);
}

#[test]
fn a_deaf_server_is_given_up_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let shell = Shell::new();
    let (nats, redis) = (
        format!("nats://127.0.0.1:{port}"),
        format!("redis://127.0.0.1:{port}"),
    );
    let ran = shell.run(&[
        "--nats-url",
        &nats,
        "--redis-url",
        &redis,
        "--connect-timeout-ms",
        "300",
        "threads",
        "list",
    ]);
    quick(ran).code(4).says(&["NATS", "redis"]);
}

#[test]
fn a_wrong_password_is_told_from_a_server_that_is_away() {
    let nats = NatsServer::start_with(NatsOptions {
        config: "authorization { user: ann, password: right }".to_owned(),
        ..NatsOptions::default()
    })
    .unwrap();
    let redis = RedisServer::start_with(RedisOptions {
        config: "user ann on >right ~* &* +@all\nuser default off".to_owned(),
        ..RedisOptions::default()
    })
    .unwrap();
    let shell = Shell::new();
    let with = |nats_password: &str, redis_password: &str| {
        let (port, redis_port) = (nats.port(), redis.port());
        let (nats_url, redis_url) = (
            format!("nats://127.0.0.1:{port}"),
            format!("redis://127.0.0.1:{redis_port}"),
        );
        let variables = [
            ("SUPERSTEP_NATS_URL", nats_url.as_str()),
            ("SUPERSTEP_NATS_USER", "ann"),
            ("SUPERSTEP_NATS_PASSWORD", nats_password),
            ("SUPERSTEP_REDIS_URL", redis_url.as_str()),
            ("SUPERSTEP_REDIS_USER", "ann"),
            ("SUPERSTEP_REDIS_PASSWORD", redis_password),
        ];
        quick(shell.run_with(&["threads", "list"], &variables, ""))
    };
    with("right", "right").code(0);
    let ran = with("wr0ng", "right").code(2).says(&["NATS"]);
    assert!(!ran.stderr.contains("wr0ng"), "{ran:?}");
    let ran = with("right", "wr0ng").code(2).says(&["redis"]);
    assert!(!ran.stderr.contains("wr0ng"), "{ran:?}");
    with("wr0ng", "wr0ng").code(2).says(&["NATS", "redis"]);
}

#[test]
fn verify_names_what_is_wrong_and_repair_mends_it() {
    let redis = RedisServer::start().unwrap();
    let shell = Shell::new();
    let url = redis.url();
    let verify = |args: &[&str], code, parts: &[&str]| {
        let ran = shell.run(&[&["--redis-url", &url], args].concat());
        let ran = ran.code(code);
        for part in parts {
            assert!(ran.stdout.contains(part), "{part} is not in {ran:#?}");
        }
        ran
    };
    let well = ["all is as it should be"];
    verify(&["verify"], 0, &well);
    // A timer of a thread that is not there, as another program might leave it.
    let index = "superstep:{default:12}:d";
    let timer = ["ZADD", index, "5", "t1\0\u{1}order-42"];
    redis.command(&timer).unwrap();
    let told = ["strays", "order-42", "timer t1", "1 wrong, 1 left"];
    verify(&["verify"], 1, &told);
    let found = verify(&["--json", "verify"], 1, &[]);
    let first: Value = serde_json::from_str(found.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["check"], "strays");
    assert_eq!(first["thread_id"], "order-42");
    verify(&["verify", "--repair"], 0, &["mended"]);
    verify(&["verify", "--thread", "order-42"], 0, &well);
    verify(&["verify"], 0, &well);
}
