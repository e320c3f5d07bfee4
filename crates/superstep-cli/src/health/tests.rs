//! What the endpoint answers, and that its metrics are the ones that are documented.

use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use superstep_checkpoint::MemoryLog;
use superstep_worker::{LookFacts, Measure, Meter as _};

use super::*;

async fn ask(endpoint: &Endpoint, method: Method, path: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let answer = endpoint.answer(&request).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(endpoint: &Endpoint, path: &str) -> (u16, String) {
    ask(endpoint, Method::GET, path).await
}

#[tokio::test]
async fn each_probe_answers_with_its_reasons() {
    let endpoint = Endpoint::new(&WorkerSettings::default());
    let statuses = async || {
        let mut statuses = Vec::new();
        for path in ["/startup", "/ready", "/live", "/healthz"] {
            statuses.push(get(&endpoint, path).await.0);
        }
        statuses
    };
    assert_eq!(statuses().await, [503, 503, 200, 200]);
    let (_, body) = get(&endpoint, "/startup").await;
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["ok"], false);
    assert_eq!(told["stage"], "connecting");
    assert_eq!(told["reasons"][0], "the servers are not reached yet");

    endpoint.health().reached(Stage::Working);
    assert_eq!(statuses().await, [200, 200, 200, 200]);
    endpoint.health().reached(Stage::Draining);
    assert_eq!(statuses().await, [200, 503, 200, 200]);
    let (_, body) = get(&endpoint, "/ready").await;
    assert!(body.contains(r#""stage":"draining""#), "{body}");
}

#[tokio::test]
async fn anything_else_is_not_there() {
    let endpoint = Endpoint::new(&WorkerSettings::default());
    let (status, body) = get(&endpoint, "/").await;
    assert_eq!(status, 404);
    assert!(body.contains(PATHS), "{body}");
    assert_eq!(ask(&endpoint, Method::POST, "/live").await.0, 405);
    assert_eq!(ask(&endpoint, Method::HEAD, "/live").await.0, 200);
}

/// One of each measure.
fn measured() -> Metrics {
    let metrics = Metrics::new();
    let (graph, took) = ("g", Duration::from_millis(3));
    for measure in [
        Measure::RunBegun { graph },
        Measure::RunEnded {
            graph,
            status: "failed",
        },
        Measure::Interrupt {
            graph,
            what: "opened",
        },
        Measure::Superstep { graph },
        Measure::Task {
            graph,
            node: "a \"b\"\n",
            ended: "finished",
            took,
        },
        Measure::PickedUp {
            consumer: "commands",
            after: took,
        },
        Measure::Redelivered {
            consumer: "commands",
        },
        Measure::AppendConflict,
        Measure::Command {
            kind: "start",
            outcome: "accepted",
        },
        Measure::StoreCall {
            call: "append",
            ok: false,
            took,
        },
        Measure::Reconciled { stood: took },
        Measure::TimerFired { late: took },
    ] {
        metrics.measure(measure);
    }
    let mut facts = Health::default().snapshot();
    let looks = LookFacts {
        came_on: Instant::now(),
        every: took,
    };
    facts.looks.insert("timers", looks);
    metrics.look_at(&facts, &Verdict::default());
    metrics
}

#[test]
fn every_measure_is_in_the_text() {
    let text = measured().text();
    for line in [
        r#"superstep_runs_begun_total{graph="g"} 1"#,
        r#"superstep_runs_ended_total{graph="g",status="failed"} 1"#,
        r#"superstep_interrupts_total{graph="g",what="opened"} 1"#,
        r#"superstep_supersteps_total{graph="g"} 1"#,
        r#"superstep_task_seconds_count{graph="g",node="a \"b\"\n",ended="finished"} 1"#,
        r#"superstep_schedule_to_start_seconds_bucket{le="0.005",consumer="commands"} 1"#,
        r#"superstep_redeliveries_total{consumer="commands"} 1"#,
        "superstep_append_conflicts_total 1",
        r#"superstep_commands_total{kind="start",outcome="accepted"} 1"#,
        r#"superstep_store_call_seconds_count{call="append",result="unavailable"} 1"#,
        "superstep_reconciled_threads_total 1",
        "superstep_stalled_seconds_count 1",
        r#"superstep_timer_late_seconds_bucket{le="0.25"} 1"#,
        "superstep_slots 0",
        "# EOF",
    ] {
        let is_there = text.lines().any(|found| found == line);
        assert!(is_there, "{line} is missing in\n{text}");
    }
}

#[test]
fn the_operations_page_lists_every_metric() {
    let text = measured().text();
    let there: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let page = include_str!("../../../../docs/operations.md");
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `superstep_"))
        .filter_map(|line| line.split(['`', '{']).next())
        .collect();
    let there: BTreeSet<String> = there.iter().map(|&name| (*name).to_owned()).collect();
    let listed = listed.iter().map(|name| {
        let name = format!("superstep_{name}");
        name.strip_suffix("_total").unwrap_or(&name).to_owned()
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), there);
}

#[test]
fn alerts_are_about_metrics_that_exist() {
    let text = measured().text();
    let page = include_str!("../../../../docs/operations.md");
    let (_, alerts) = page.split_once("\n## Alerts\n").unwrap();
    let (alerts, _) = alerts.split_once("\n## ").unwrap();
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let named: BTreeSet<&str> = alerts
        .split(|c| !is_of_name(c))
        .filter(|word| word.starts_with("superstep_"))
        .collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        let is_there = text.lines().any(|line| {
            let line = line.strip_prefix(name);
            line.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        assert!(is_there, "{name} is no metric of\n{text}");
    }
}

#[tokio::test]
async fn questions_are_counted_in_the_store() {
    let endpoint = Endpoint::new(&WorkerSettings::default());
    let log: Arc<dyn ThreadLog> = Arc::new(MemoryLog::new());
    endpoint.counts_in(&log);
    let (status, text) = get(&endpoint, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "superstep_open_interrupts 0",
        "superstep_live 1",
        "superstep_ready 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}
