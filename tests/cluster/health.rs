//! Health: what the endpoint of a worker process says while its servers go away, while it drains,
//! and of the runs that it made.
//!
//! The worker is the `superstep` binary's command line with the graphs of these tests. Probes are
//! asked as Kubernetes does, each on a connection of its own.
//!
//! The rule it keeps: a worker that cannot hear is found out within the time that is documented,
//! and nobody else is.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use superstep_protocol::ThreadStatus;
use superstep_tests::{Program, eventually_async};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::SOON;
use crate::cluster::{Cluster, works};

/// The least that may be set.
const DEAF_AFTER: &str = "10s";
/// How soon the endpoint must tell: that time, and one for the machine to be slow.
const FOUND_OUT: Duration = Duration::from_secs(20);

/// A worker with a health endpoint.
struct Probed {
    worker: Program,
    address: String,
}

impl Probed {
    /// Starts one, and waits until the endpoint listens.
    async fn launch(cluster: &Cluster, environment: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("SUPERSTEP_HEALTH_ADDR", "127.0.0.1:0"),
            ("SUPERSTEP_DEAF_AFTER", DEAF_AFTER),
        ];
        all.extend(environment);
        let worker = cluster.launch_own("a", &all);
        let address = eventually_async("the endpoint listens", SOON, async || {
            let log = worker.log();
            let (_, after) = log.split_once("health endpoint listens address=")?;
            let (address, _) = after.split_once('\n')?;
            Some(address.trim().to_owned())
        })
        .await;
        Self { worker, address }
    }

    async fn start(cluster: &Cluster) -> Self {
        let mut probed = Self::launch(cluster, &[]).await;
        works(&mut probed.worker).await;
        probed
    }

    /// The status and the body.
    async fn get(&self, path: &str) -> (u16, String) {
        let asked = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = asked.await.expect("the endpoint answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }

    /// The probe's status and what it is told.
    async fn probe(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        let told = serde_json::from_str(&body).expect("a probe tells JSON");
        (status, told)
    }

    /// Waits until the probe answers with this status; what it is told then.
    async fn becomes(&self, path: &str, status: u16, within: Duration) -> Value {
        eventually_async(&format!("{path} is {status}"), within, async || {
            let (found, told) = self.probe(path).await;
            (found == status).then_some(told)
        })
        .await
    }
}

/// Whether one of the reasons says this.
fn says(told: &Value, reason: &str) -> bool {
    let reasons = told["reasons"].as_array().expect("reasons");
    let mut reasons = reasons.iter().filter_map(Value::as_str);
    reasons.any(|said| said.contains(reason))
}

async fn run(cluster: &Cluster, thread: &str) {
    let outside = cluster.outside().await;
    let body = json!({"thread_id": thread, "input": {"count": 3}});
    outside.publish("superstep.default.start.steps", body).await;
    outside.event("run_completed", thread).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_deaf_to_nats_is_found_out_and_recovers() {
    let cluster = Cluster::start();
    let probed = Probed::start(&cluster).await;
    for path in ["/startup", "/ready", "/live", "/healthz"] {
        probed.becomes(path, 200, SOON).await;
    }
    cluster.nats.freeze();
    probed.becomes("/live", 503, FOUND_OUT).await;
    // Each loop has its own time; they began within milliseconds of each other.
    eventually_async("every loop is named", SOON, async || {
        let (_, told) = probed.probe("/live").await;
        let loops = ["`commands` makes", "`gate@1` makes", "`steps@1` makes"];
        loops.iter().all(|name| says(&told, name)).then_some(())
    })
    .await;
    eventually_async("the failed pull is named", SOON, async || {
        let (status, told) = probed.probe("/ready").await;
        (status == 503 && says(&told, "the last pull of `commands` failed")).then_some(())
    })
    .await;
    assert_eq!(probed.get("/startup").await.0, 200);
    let (_, metrics) = probed.get("/metrics").await;
    assert!(metrics.contains("\nsuperstep_live 0\n"), "{metrics}");

    cluster.nats.thaw();
    probed.becomes("/live", 200, SOON).await;
    probed.becomes("/ready", 200, SOON).await;
    run(&cluster, "t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_worker_is_unready_and_alive() {
    let cluster = Cluster::start();
    let mut probed = Probed::start(&cluster).await;
    let outside = cluster.outside().await;
    let store = cluster.store().await;
    let body = json!({"thread_id": "t", "input": {"by": []}});
    outside.publish("superstep.default.start.gate", body).await;
    cluster.noted("hold t", 1).await;
    let (status, told) = probed.probe("/ready").await;
    assert_eq!((status, &told["slots_used"]), (200, &json!(1)), "{told}");

    probed.worker.terminate();
    let told = probed.becomes("/ready", 503, SOON).await;
    assert!(says(&told, "it drains"), "{told}");
    assert_eq!(told["stage"], "draining");
    assert_eq!(probed.get("/live").await.0, 200);
    cluster.write("open.t", "");
    let ended = eventually_async("the worker is gone", SOON, async || probed.worker.ended());
    assert_eq!(ended.await.code(), Some(0));
    let _b = cluster.worker("b").await;
    store.rests("t", ThreadStatus::Idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_while_redis_is_away() {
    let cluster = Cluster::start();
    cluster.redis.freeze();
    let patient = [("SUPERSTEP_CONNECT_TIMEOUT_MS", "60000")];
    let mut probed = Probed::launch(&cluster, &patient).await;
    let (status, told) = probed.probe("/startup").await;
    assert_eq!(status, 503, "{told}");
    assert!(says(&told, "the servers are not reached yet"), "{told}");
    assert_eq!(probed.get("/ready").await.0, 503);
    assert_eq!(probed.get("/live").await.0, 200);
    cluster.redis.thaw();
    probed.becomes("/startup", 200, SOON).await;
    works(&mut probed.worker).await;
    probed.becomes("/ready", 200, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_the_run_that_was_made() {
    let cluster = Cluster::start();
    let probed = Probed::start(&cluster).await;
    run(&cluster, "t").await;
    let (status, text) = probed.get("/metrics").await;
    assert_eq!(status, 200);
    is_well_formed(&text);
    for line in [
        r#"superstep_runs_begun_total{graph="steps"} 1"#,
        r#"superstep_runs_ended_total{graph="steps",status="completed"} 1"#,
        r#"superstep_task_seconds_count{graph="steps",node="step",ended="finished"} 3"#,
        r#"superstep_commands_total{kind="start",outcome="accepted"} 1"#,
        r#"superstep_supersteps_total{graph="steps"} 5"#,
        "superstep_slots 32",
        "superstep_slots_used 0",
        "superstep_live 1",
        "superstep_ready 1",
        "superstep_open_interrupts 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    let waits = r#"superstep_schedule_to_start_seconds_count{consumer="steps@"#;
    assert!(text.contains(waits), "{text}");
    assert!(!text.contains("\"t\""), "a thread is no label:\n{text}");
    for name in ["timers", "reconciler"] {
        let age = format!("superstep_look_age_seconds{{name=\"{name}\"}} ");
        let age = text.lines().find_map(|line| line.strip_prefix(&*age));
        let age: f64 = age.expect("its age").parse().expect("a number");
        assert!(age < 30.0, "`{name}` came on {age} s ago");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_questions_and_late_timers() {
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let body = json!({"thread_id": "late", "after_seconds": 1, "input": {"count": 1}});
    let mut first = cluster.worker("first").await;
    let sent = outside.ask("superstep.default.start.steps", &[], body);
    assert_eq!(sent.await["outcome"], "accepted");
    // Due while nobody is there.
    first.kill();
    let probed = Probed::start(&cluster).await;
    outside.event("run_completed", "late").await;
    let body = json!({"thread_id": "asks", "input": {"how": "ask"}});
    outside.publish("superstep.default.start.runs", body).await;
    outside.event("run_stopped", "asks").await;
    let (_, text) = probed.get("/metrics").await;
    is_well_formed(&text);
    for line in [
        "superstep_timer_late_seconds_count 1",
        r#"superstep_interrupts_total{graph="runs",what="opened"} 1"#,
        r#"superstep_runs_ended_total{graph="runs",status="stopped"} 1"#,
        "superstep_open_interrupts 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}

/// Checks the form of OpenMetrics text: every sample is `name{labels} number` of a family that was
/// announced, no sample is there twice, and the end is marked.
fn is_well_formed(text: &str) {
    let mut families: Vec<&str> = Vec::new();
    let mut samples = BTreeSet::new();
    let mut ended = false;
    for line in text.lines() {
        assert!(!ended, "`{line}` comes after the end");
        if let Some(comment) = line.strip_prefix("# ") {
            ended = comment == "EOF";
            if let Some(of_type) = comment.strip_prefix("TYPE ") {
                families.extend(of_type.split(' ').next());
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(sample), "{sample} is there twice");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(labels.ends_with('}'), "{line}");
        let family = families.last().expect("a family before its samples");
        let suffix = name.strip_prefix(family).unwrap_or("?");
        let known = ["", "_total", "_bucket", "_count", "_sum"];
        assert!(known.contains(&suffix), "`{line}` is not of {family}");
    }
    assert!(ended, "the end is not marked");
}
