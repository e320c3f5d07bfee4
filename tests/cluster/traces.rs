//! Traces: what worker processes export over OTLP of runs that wait, spread and fail.
//!
//! The collector is of the test's own. What is checked is what somebody who follows a request sees:
//! one trace from the sender's span on, over workers and waits, with no span whose parent is nowhere.
//!
//! The rule it keeps: a worker is asked to end before its spans are counted, so nothing is awaited
//! that may never come.

mod collector;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use superstep_tests::{Program, eventually_async};

use crate::SOON;
use crate::cluster::{Cluster, works};
use collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ANSWERER: &str = "b7ad6b7169203331";

fn traceparent(trace: &str, span: &str) -> String {
    format!("00-{trace}-{span}-01")
}

/// Starts a worker with the tests' graphs that exports to the collector, and waits until it works.
async fn traced(cluster: &Cluster, collector: &Collector, name: &str) -> Program {
    let resource = format!("deployment.environment.name=test,service.instance.id={name}");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue"),
        ("OTEL_SERVICE_NAME", "mails"),
        ("OTEL_RESOURCE_ATTRIBUTES", &*resource),
    ];
    let mut worker = cluster.launch_own(name, &environment);
    works(&mut worker).await;
    worker
}

/// Ends a worker; all its spans are exported then.
async fn ends(worker: &mut Program) {
    worker.terminate();
    let ended = eventually_async("the worker ends", SOON, async || worker.ended()).await;
    assert_eq!(ended.code(), Some(0), "{}", worker.tail());
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let mut found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    found.sort_by_key(|span| span.began);
    found
}

/// No id is there twice, and every parent is there, but for those of the senders.
#[track_caller]
fn is_a_forest(spans: &[Span]) {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "an id is there twice: {spans:#?}");
    for span in spans {
        let known = ["", SENDER, ANSWERER].contains(&&*span.parent) || ids.contains(&*span.parent);
        assert!(known, "the parent of this is nowhere: {span:#?}");
        assert!(span.began <= span.ended, "{span:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_run_is_one_trace_over_workers() {
    let cluster = Cluster::start();
    let collector = Collector::start().await;
    let outside = cluster.outside().await;
    let mut a = traced(&cluster, &collector, "a").await;
    let start = traceparent(TRACE, SENDER);
    let headers = [("traceparent", &*start), ("tracestate", "vendor=1")];
    let body = json!({"thread_id": "t", "input": {"how": "ask"}}).to_string();
    outside
        .publish_with("superstep.default.start.runs", &headers, body.into_bytes())
        .await;
    let asked = outside.event("interrupt", "t").await;
    assert!(asked.header("traceparent").contains(TRACE), "{asked:?}");
    assert_eq!(asked.header("tracestate"), "vendor=1");
    assert!(exports(&a), "an exporter has an OS thread");
    ends(&mut a).await;
    assert!(
        a.log().contains(TRACE),
        "log lines name the trace:\n{}",
        a.tail()
    );

    let mut b = traced(&cluster, &collector, "b").await;
    let answer = traceparent(OTHER_TRACE, ANSWERER);
    let body = json!({"resume": "a secret"}).to_string().into_bytes();
    let headers = [("traceparent", &*answer)];
    outside
        .publish_with("superstep.default.resume.t", &headers, body)
        .await;
    let completed = outside.event("run_completed", "t").await;
    ends(&mut b).await;

    let spans = collector.spans();
    is_a_forest(&spans);
    let runs = named(&spans, "run");
    let [first, second] = runs[..] else {
        panic!("a run to the question, and one from its answer: {runs:#?}");
    };
    for run in [first, second] {
        assert_eq!((&*run.trace, &*run.parent), (TRACE, SENDER));
        assert_eq!((&*run.tracestate, &run.error), ("vendor=1", &None));
    }
    assert_eq!(
        (first.worker(), first.get("superstep.outcome")),
        ("a", "interrupted")
    );
    assert_eq!(
        (second.worker(), second.get("superstep.outcome")),
        ("b", "completed")
    );
    assert_eq!(first.links, []);
    assert_eq!(
        second.links,
        [(OTHER_TRACE.to_owned(), ANSWERER.to_owned())]
    );
    assert!(first.ended <= second.began, "none is open while it waits");
    let told = traceparent(TRACE, &second.id);
    assert_eq!(
        completed.header("traceparent"),
        told,
        "the event is of the run"
    );

    let supersteps = named(&spans, "superstep");
    let seen: Vec<_> = supersteps
        .iter()
        .map(|span| {
            assert_eq!((&*span.trace, &span.error), (TRACE, &None));
            let (number, how) = (span.get("superstep.number"), span.get("superstep.outcome"));
            (
                number,
                how,
                span.parent == first.id,
                span.parent == second.id,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("-1", "committed", true, false),
            ("0", "committed", true, false),
            ("1", "committed", true, false),
            ("2", "interrupted", true, false),
            ("2", "committed", false, true),
        ]
    );
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (&*span.id, span)).collect();
    let tasks: Vec<_> = named(&spans, "task");
    let seen: Vec<_> = tasks
        .iter()
        .map(|span| {
            let superstep = by_id[&*span.parent];
            assert_eq!(superstep.name, "superstep");
            assert_eq!(
                superstep.get("superstep.number"),
                span.get("superstep.number")
            );
            assert_eq!((&*span.trace, &span.error), (TRACE, &None));
            let (_, delivery) = &span.links[0];
            let delivery = by_id[&**delivery];
            assert_eq!(
                (&*delivery.name, delivery.worker()),
                ("delivery", span.worker())
            );
            let (node, how) = (span.get("superstep.node"), span.get("superstep.outcome"));
            (node, how, span.worker())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("__start__", "finished", "a"),
            ("first", "finished", "a"),
            ("second", "interrupted", "a"),
            ("second", "finished", "b"),
        ]
    );

    let own = named(&spans, "look_up");
    assert_eq!((own.len(), own[0].get("shelf")), (1, "3"));
    assert_eq!(
        own[0].parent, tasks[1].id,
        "a node's own span is below its task"
    );

    let deliveries = named(&spans, "delivery");
    for delivery in &deliveries {
        assert!(
            delivery.consumer && delivery.error.is_none(),
            "{delivery:#?}"
        );
        assert_eq!(delivery.get("messaging.system"), "nats");
        assert_eq!(delivery.get("messaging.operation.type"), "process");
    }
    let of = |command: &str| {
        let mut found = deliveries
            .iter()
            .filter(|d| d.get("superstep.command") == command);
        found.next().expect("the command was delivered")
    };
    assert_eq!((&*of("start").trace, &*of("start").parent), (TRACE, SENDER));
    let resume = of("resume");
    assert_eq!((&*resume.trace, &*resume.parent), (OTHER_TRACE, ANSWERER));
    assert_eq!(resume.links, [(TRACE.to_owned(), second.id.clone())]);
    let work = deliveries
        .iter()
        .filter(|d| d.get("superstep.command").is_empty());
    let parents: BTreeSet<&str> = work.map(|delivery| &*delivery.parent).collect();
    assert_eq!(parents, BTreeSet::from([&*first.id, &*second.id]));

    for span in &spans {
        assert_eq!(span.resource["service.name"], "mails");
        assert_eq!(span.resource["deployment.environment.name"], "test");
        let whole = format!("{span:?}");
        assert!(
            !whole.contains("secret") && !whole.contains("well?"),
            "{whole}"
        );
        if !["delivery", "look_up"].contains(&&*span.name) {
            assert_eq!(span.get("superstep.thread_id"), "t");
            assert_eq!(span.get("superstep.graph"), "runs");
            assert!(!span.get("superstep.run_id").is_empty());
        }
    }
    let head = &collector.requests()[0];
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("x-tenant: blue"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superstep_on_two_workers_is_one_span() {
    /// More than one worker has slots for.
    const ITEMS: usize = 12;
    let cluster = Cluster::start();
    let collector = Collector::start().await;
    let outside = cluster.outside().await;
    let mut a = traced(&cluster, &collector, "a").await;
    let mut b = traced(&cluster, &collector, "b").await;
    let input = json!({"count": 100, "wait_for": "go"});
    let body = json!({"thread_id": "wide", "input": input});
    outside
        .publish("superstep.default.start.spread", body)
        .await;
    // Each holds 32 at most.
    cluster.noted("item", 32 + ITEMS).await;
    cluster.write("go", "");
    outside.event("run_completed", "wide").await;
    ends(&mut a).await;
    ends(&mut b).await;

    let spans = collector.spans();
    is_a_forest(&spans);
    let runs = named(&spans, "run");
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(runs[0].parent, "", "the trace begins with it");
    let supersteps = named(&spans, "superstep");
    let wide: Vec<_> = supersteps
        .iter()
        .filter(|span| span.get("superstep.number") == "2")
        .collect();
    assert_eq!(wide.len(), 1, "{supersteps:#?}");
    let items: Vec<_> = named(&spans, "task")
        .into_iter()
        .filter(|span| span.get("superstep.node") == "item")
        .collect();
    assert_eq!(items.len(), 100);
    let workers: BTreeSet<&str> = items.iter().map(|span| span.worker()).collect();
    assert_eq!(workers, BTreeSet::from(["a", "b"]));
    for item in items {
        assert_eq!((&item.trace, &item.parent), (&runs[0].trace, &wide[0].id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_node_is_an_error_of_its_kind() {
    let cluster = Cluster::start();
    let collector = Collector::start().await;
    let outside = cluster.outside().await;
    let mut a = traced(&cluster, &collector, "a").await;
    // The node reads a file that is not there.
    let body = json!({"thread_id": "t", "input": {}});
    outside.publish("superstep.default.start.fill", body).await;
    let failed = outside.event("run_failed", "t").await;
    ends(&mut a).await;

    let kind = failed.body["error"]["kind"].as_str().expect("a kind");
    let spans = collector.spans();
    is_a_forest(&spans);
    let wrong: Vec<&Span> = spans.iter().filter(|span| span.error.is_some()).collect();
    let names: BTreeSet<&str> = wrong.iter().map(|span| &*span.name).collect();
    assert_eq!(names, BTreeSet::from(["run", "superstep", "task"]));
    assert_eq!(wrong.len(), 3, "{wrong:#?}");
    for span in wrong {
        assert_eq!(span.error.as_deref(), Some(kind));
        assert_eq!(span.get("error.type"), kind);
        let message = failed.body["error"]["message"].as_str().expect("a message");
        assert!(!format!("{span:?}").contains(message), "{span:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_stops_nothing() {
    let cluster = Cluster::start();
    let outside = cluster.outside().await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = nobody.local_addr().expect("its address");
    drop(nobody);
    let endpoint = format!("http://{address}");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let mut a = cluster.launch_own("a", &environment);
    works(&mut a).await;
    for thread in ["t", "u"] {
        let body = json!({"thread_id": thread, "input": {"count": 3}});
        outside.publish("superstep.default.start.steps", body).await;
        outside.event("run_completed", thread).await;
    }
    eventually_async("the failure is told", SOON, async || {
        a.log()
            .contains("spans could not be exported")
            .then_some(())
    })
    .await;
    ends(&mut a).await;
    let told = a.log().matches("spans could not be exported").count();
    assert_eq!(told, 1, "once a minute at most:\n{}", a.tail());
}

/// Whether a process has an exporter's OS thread.
fn exports(worker: &Program) -> bool {
    let tasks = Path::new("/proc")
        .join(worker.pid().to_string())
        .join("task");
    let tasks = std::fs::read_dir(tasks).expect("a process");
    let mut names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_variables_nothing_is_exported() {
    let cluster = Cluster::start();
    let collector = Collector::start().await;
    let outside = cluster.outside().await;
    let url = collector.url();
    let off: [&[(&str, &str)]; 2] = [
        &[("OTEL_SERVICE_NAME", "mails")],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_SDK_DISABLED", "true"),
        ],
    ];
    for (index, environment) in off.into_iter().enumerate() {
        let thread = format!("t{index}");
        let mut worker = cluster.launch_own(&format!("w{index}"), environment);
        works(&mut worker).await;
        let start = traceparent(TRACE, SENDER);
        let headers = [("traceparent", &*start), ("tracestate", "vendor=1")];
        let body = json!({"thread_id": thread, "input": {"count": 2}}).to_string();
        outside
            .publish_with("superstep.default.start.steps", &headers, body.into_bytes())
            .await;
        let completed = outside.event("run_completed", &thread).await;
        // Whoever reads it is told of the sender's own span.
        assert_eq!(completed.header("traceparent"), start);
        assert_eq!(completed.header("tracestate"), "vendor=1");
        assert!(!exports(&worker), "no OS thread");
        ends(&mut worker).await;
    }
    assert_eq!(collector.requests(), Vec::<String>::new());
}
