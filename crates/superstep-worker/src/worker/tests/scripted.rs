//! A graph of two nodes whose second one does as its input says, and notes what it does.
//!
//! The first node finishes a superstep, so that there is something to stay after a cancel; the second
//! holds, listens, waits at a gate, asks, sleeps or fails. Both add their word to the log.
//!
//! The rule it keeps: a test says when a node goes on, and a node says when it has begun and how it
//! ended, so that nothing has to wait for a time to pass.

use std::sync::Mutex;

use superstep_graph::NodeName;
use tokio::sync::Semaphore;

use super::*;
use crate::{Policies, RetryPolicy};

/// What a node waits for, and what it tells.
pub(super) struct Script {
    pub(super) notes: Mutex<Vec<String>>,
    noted: tokio::sync::watch::Sender<()>,
    /// Lets as many nodes through the gate as it has permits.
    pub(super) gate: Semaphore,
}

impl Script {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            notes: Mutex::default(),
            noted: tokio::sync::watch::Sender::new(()),
            gate: Semaphore::new(0),
        })
    }

    fn note(&self, what: &str, run: &str) {
        self.notes.lock().unwrap().push(format!("{what} {run}"));
        self.noted.send_replace(());
    }

    /// How often this was noted.
    pub(super) fn count(&self, note: &str) -> usize {
        let notes = self.notes.lock().unwrap();
        notes.iter().filter(|noted| *noted == note).count()
    }

    /// Waits until this is noted.
    #[track_caller]
    pub(super) fn noted(&self, note: &str) -> impl Future<Output = ()> {
        let (mut noted, what) = (self.noted.subscribe(), format!("`{note}` is noted"));
        async move {
            let there = async {
                while self.count(note) == 0 {
                    noted.changed().await.expect("the script lives");
                }
            };
            soon(&what, there).await;
        }
    }
}

/// Waits for what must come.
pub(super) async fn soon<T>(what: &str, comes: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), comes)
        .await
        .unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Notes that a node was dropped where it waited.
struct Dropped<'a>(&'a Script, &'a str);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.note("dropped", self.1);
    }
}

pub(super) fn scripted(script: &Arc<Script>) -> Graphs {
    let mut builder = GraphBuilder::new();
    builder
        .channel("how", ChannelKind::Last)
        .channel("log", ChannelKind::Reduce(Reducer::Append));
    builder
        .node(NodeSpec::new("first"))
        .node(NodeSpec::new("second"));
    builder
        .edge(START, "first")
        .edge("first", "second")
        .edge("second", END);
    let first = |_: Value, ctx: NodeContext| async move {
        Ok(NodeReturn::Update(
            json!({"log": [format!("first {}", ctx.run_id())]}),
        ))
    };
    let script = Arc::clone(script);
    let second = move |input: Value, ctx: NodeContext| {
        let script = Arc::clone(&script);
        async move {
            let run = ctx.run_id().to_string();
            script.note("begins", &run);
            let dropped = Dropped(&script, &run);
            act(&script, &input, &ctx).await?;
            std::mem::forget(dropped);
            script.note("ends", &run);
            Ok(NodeReturn::Update(
                json!({"log": [format!("second {run}")]}),
            ))
        }
    };
    let nodes: BTreeMap<_, Arc<dyn Node>> = BTreeMap::from([
        ("first".into(), Arc::new(first) as Arc<dyn Node>),
        ("second".into(), Arc::new(second) as _),
    ]);
    let retries = Policies {
        retry: Some(
            RetryPolicy::new(3)
                .on(["Later"])
                .initial_interval(Duration::from_secs(3_600))
                .without_jitter(),
        ),
        ..Policies::default()
    };
    let graph = RunnableGraph::new(id("scripted"), builder.compile().unwrap(), nodes)
        .unwrap()
        .with_policies(BTreeMap::from([(NodeName::from("second"), retries)]));
    let mut graphs = Graphs::new();
    graphs.add(graph);
    graphs
}

async fn act(script: &Script, input: &Value, ctx: &NodeContext) -> Result<(), NodeError> {
    match input["how"].as_str().unwrap_or_default() {
        // Ignores that it is told to stop.
        "hold" => std::future::pending().await,
        "gate" => script.gate.acquire().await?.forget(),
        "listen" => {
            ctx.cancelled().await;
            script.note("told", ctx.run_id().as_str());
            return Err(NodeError::new("Later", "it was told to stop"));
        }
        "ask" => {
            ctx.interrupt::<Value>("well?").await?;
        }
        "sleep" => ctx.sleep(Duration::from_secs(3_600)).await,
        "retry" => return Err(NodeError::new("Later", "not yet")),
        _ => {}
    }
    Ok(())
}

/// Workers of the scripted graph.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) script: Arc<Script>,
}

impl Scene {
    pub(super) async fn new(workers: usize, settings: WorkerSettings) -> Self {
        // Longer than a test: whoever is told of a cancel has heard of it.
        let queue = MemoryQueueSettings {
            ack_wait: Duration::from_secs(120),
            ..MemoryQueueSettings::default()
        };
        let mut scene = Self {
            cluster: Cluster::empty(queue).await,
            script: Script::new(),
        };
        for _ in 0..workers {
            scene.cluster.add(scripted(&scene.script), settings.clone());
        }
        scene
    }

    /// Starts a run of thread `t`, beside what else the command is to say.
    pub(super) async fn start(&self, run: &str, how: &str, more: Value) -> Reply {
        let body = start_body(run, how, more);
        self.cluster.send(Begin, "scripted", body).await
    }

    /// As [`start`](Self::start), of a run that is to be taken.
    pub(super) async fn starts(&self, run: &str, how: &str, more: Value) {
        let reply = self.start(run, how, more).await;
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    }

    pub(super) async fn cancels(&self, body: Value) {
        let reply = self.cluster.send(Cancel, "t", body).await;
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    }

    /// Waits until these runs are said to be cancelled, in any order.
    pub(super) async fn cancelled(&mut self, runs: &[&str]) {
        let mut said = std::collections::BTreeSet::new();
        while said.len() < runs.len() {
            let event = self.cluster.event(EventKind::RunCancelled).await;
            said.insert(event.run_id.expect("it names its run"));
        }
        assert!(runs.iter().all(|run| said.contains(*run)), "{said:?}");
    }

    /// Waits until the run's end is told.
    pub(super) async fn completed(&mut self, run: &str) {
        while self
            .cluster
            .event(EventKind::RunCompleted)
            .await
            .run_id
            .as_deref()
            != Some(run)
        {}
    }

    pub(super) async fn log(&self) -> Vec<String> {
        let values = self.cluster.state("t").await.visible_values();
        let log = values.get("log").and_then(Value::as_array);
        let words = log.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    }

    /// Waits until the thread is so.
    pub(super) async fn until(&self, what: &str, is: impl Fn(&ThreadState) -> bool) {
        soon(what, async {
            while !is(&self.cluster.state("t").await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub(super) fn start_body(run: &str, how: &str, more: Value) -> Value {
    let mut body = json!({"thread_id": "t", "run_id": run, "input": {"how": how}});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}
