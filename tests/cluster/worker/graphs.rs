//! Graphs that a test can disturb: each node notes what it does and waits where it is told.
//!
//! What nodes note goes to `ledger` in the test's folder, one line each, written at once, so that
//! it survives the worker: it stands for the effects that a node has on the world outside. A node
//! that waits does so for a file, which the test makes.
//!
//! The rule it keeps: state comes only from inputs and the folder, never from the process, so a
//! node that runs again on another worker finds the same.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use superstep::{
    Channel, Context, END, Graph, NodeError, Reducer, RunnableGraph, START, Send, VersionPolicy,
};
use tracing::Instrument as _;

use crate::dying::Dying;
use crate::mixed::mixed;

/// How often a waiting node looks for its file.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the nodes of one worker share.
#[derive(Clone)]
pub(crate) struct Place {
    worker: String,
    dir: PathBuf,
    dying: Arc<Dying>,
}

impl Place {
    /// Notes `what`, and by whom, in one write: lines of several workers do not mix.
    fn note(&self, what: &str) -> Result<(), NodeError> {
        let mut ledger = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("ledger"))?;
        ledger.write_all(format!("{what} {}\n", self.worker).as_bytes())?;
        Ok(())
    }

    /// Notes an effect on the world outside under its key, and may die of it.
    pub(crate) fn effect(&self, node: &str, ctx: &Context) -> Result<(), NodeError> {
        let (thread, key) = (ctx.thread_id(), ctx.idempotency_key());
        self.dying.at(&format!("in {node}"));
        self.note(&format!("effect {thread} {node} {key}"))?;
        self.dying.at(&format!("done {node}"));
        Ok(())
    }

    /// Waits until the test has made the file.
    async fn until(&self, file: &str) {
        let path = self.dir.join(file);
        while !path.exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// All of them, for the worker of this name and the test's folder.
pub(crate) fn graphs(worker: &str, dir: &Path, dying: &Arc<Dying>) -> Vec<RunnableGraph> {
    let place = Place {
        worker: worker.to_owned(),
        dir: dir.to_owned(),
        dying: Arc::clone(dying),
    };
    vec![
        gate(&place),
        spread(&place),
        steps(&place),
        fill(&place),
        mixed(&place),
        pair(),
        runs(&place),
    ]
}

fn list() -> Channel {
    Channel::Reduce(Reducer::Append)
}

/// Three nodes in a row. The second, `hold`, waits for the file `open.<thread>`. The channel `by`
/// collects which worker ran each.
fn gate(place: &Place) -> RunnableGraph {
    let node = |name: &'static str| {
        let place = place.clone();
        move |_: Value, ctx: Context| {
            let place = place.clone();
            async move {
                let thread = ctx.thread_id();
                place.note(&format!("{name} {thread}"))?;
                if name == "hold" {
                    place.until(&format!("open.{thread}")).await;
                }
                Ok(json!({"by": [format!("{name}:{}", place.worker)]}))
            }
        }
    };
    Graph::dynamic("gate")
        .channel("by", list())
        .node("before", node("before"))
        .node("hold", node("hold"))
        .node("after", node("after"))
        .edge(START, "before")
        .edge("before", "hold")
        .edge("hold", "after")
        .edge("after", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

/// `count` packets for `item`, which squares its number, then `add_up`. An item takes `pause_ms` and
/// waits for the file that `wait_for` names.
fn spread(place: &Place) -> RunnableGraph {
    let item = {
        let place = place.clone();
        move |packet: Value, _: Context| {
            let place = place.clone();
            async move {
                let number = packet["number"].as_u64().unwrap_or_default();
                place.note(&format!("item {number}"))?;
                let pause = packet["pause_ms"].as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if let Some(file) = packet["wait_for"].as_str() {
                    place.until(file).await;
                }
                Ok(json!({"results": [number * number]}))
            }
        }
    };
    let spread = |state: &Value| {
        let count = state["count"].as_u64().unwrap_or_default();
        let packet = |number| {
            json!({
                "number": number,
                "pause_ms": state["pause_ms"],
                "wait_for": state["wait_for"],
            })
        };
        let sends: Vec<Send> = (0..count).map(|n| Send::to("item", packet(n))).collect();
        sends
    };
    Graph::dynamic("spread")
        .channel("count", Channel::Last)
        .channel("pause_ms", Channel::Last)
        .channel("wait_for", Channel::Last)
        .channel("results", list())
        .channel("sum", Channel::Last)
        .node("plan", |_: Value, _: Context| async { Ok(Value::Null) })
        .node_with_input("item", item)
        .node("add_up", |state: Value, _: Context| async move {
            let results = state["results"].as_array().cloned().unwrap_or_default();
            let sum: u64 = results.iter().filter_map(Value::as_u64).sum();
            Ok(json!({"sum": sum}))
        })
        .edge(START, "plan")
        .branch("plan", spread)
        .edge("item", "add_up")
        .edge("add_up", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

/// A loop of `count` supersteps, each `pause_ms` long; `seen` collects their numbers.
fn steps(place: &Place) -> RunnableGraph {
    let place = place.clone();
    Graph::dynamic("steps")
        .channel("count", Channel::Last)
        .channel("pause_ms", Channel::Last)
        .channel("seen", list())
        .node("step", move |state: Value, ctx: Context| {
            let place = place.clone();
            async move {
                let number = state["seen"].as_array().map_or(0, Vec::len);
                place.note(&format!("step {} {number}", ctx.thread_id()))?;
                let pause = state["pause_ms"].as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok(json!({"seen": [number]}))
            }
        })
        .edge(START, "step")
        .branch("step", |state: &Value| {
            let seen = state["seen"].as_array().map_or(0, Vec::len);
            let count = state["count"].as_u64().unwrap_or_default();
            if (seen as u64) < count { "step" } else { END }
        })
        .build()
        .expect("the graph is right as written")
        .into()
}

/// One node that fills the state with as many bytes as the file `bytes` says.
fn fill(place: &Place) -> RunnableGraph {
    let place = place.clone();
    Graph::dynamic("fill")
        .channel("note", Channel::Last)
        .channel("filling", Channel::Last)
        .node("fill", move |_: Value, _: Context| {
            let place = place.clone();
            async move {
                place.note("fill")?;
                let bytes = std::fs::read_to_string(place.dir.join("bytes"))?;
                Ok(json!({"filling": "x".repeat(bytes.trim().parse()?)}))
            }
        })
        .edge(START, "fill")
        .edge("fill", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

/// Two nodes side by side that each ask something; `said` collects both answers.
fn pair() -> RunnableGraph {
    let ask = |name: &'static str| {
        move |_: Value, ctx: Context| async move {
            let said: Value = ctx.interrupt(json!({"from": name})).await?;
            Ok(json!({"said": [said]}))
        }
    };
    Graph::dynamic("pair")
        .channel("said", list())
        .node("left", ask("left"))
        .node("right", ask("right"))
        .edge(START, "left")
        .edge(START, "right")
        .edge("left", END)
        .edge("right", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Two nodes in a row that add their name and run to `log`. The second does as `how` says: `gate`
/// waits for the file `open`, or until it is told to stop; `sleep` sleeps for an hour, `nap` until a
/// time and notes by how many milliseconds it woke late, `ask` asks.
fn runs(place: &Place) -> RunnableGraph {
    let first = |_: Value, ctx: Context| {
        // A span of a graph author's own.
        let span = tracing::info_span!("look_up", shelf = 3);
        async move { Ok(json!({"log": [format!("first {}", ctx.run_id())]})) }.instrument(span)
    };
    let place = place.clone();
    let second = move |state: Value, ctx: Context| {
        let place = place.clone();
        async move {
            let run = ctx.run_id().to_string();
            match state["how"].as_str() {
                Some("sleep") => ctx.sleep(Duration::from_secs(3_600)).await,
                Some("nap") => {
                    let until = state["until"].as_u64().unwrap_or_default();
                    ctx.sleep(Duration::from_millis(until.saturating_sub(now_ms())))
                        .await;
                    place.note(&format!("woke {run} {}", now_ms().saturating_sub(until)))?;
                }
                Some("ask") => {
                    ctx.interrupt::<Value>(json!("well?")).await?;
                }
                _ => {
                    place.note(&format!("begins {run}"))?;
                    tokio::select! {
                        () = place.until("open") => {}
                        () = ctx.cancelled() => {
                            place.note(&format!("told {run}"))?;
                            return Err(NodeError::new("Told", "it was told to stop"));
                        }
                    }
                    place.note(&format!("ends {run}"))?;
                }
            }
            Ok(json!({"log": [format!("second {run}")]}))
        }
    };
    Graph::dynamic("runs")
        .channel("how", Channel::Last)
        .channel("until", Channel::Last)
        .channel("log", list())
        .node("first", first)
        .node("second", second)
        .edge(START, "first")
        .edge("first", "second")
        .edge("second", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

/// Notes, asks, works for a moment and notes again: a version of a graph that people keep waiting.
/// Of version 3 on it has no node `ask`; a migration counts the versions in `moves`.
pub(crate) fn long(
    worker: &str,
    dir: &Path,
    (version, policy): (&str, &str),
    dying: &Arc<Dying>,
) -> RunnableGraph {
    let place = Place {
        worker: format!("v{version} {worker}"),
        dir: dir.to_owned(),
        dying: Arc::clone(dying),
    };
    let by = format!("v{version}");
    let note = |name: &'static str| {
        let (place, by) = (place.clone(), by.clone());
        move |state: Value, ctx: Context| {
            let (place, by) = (place.clone(), by.clone());
            async move {
                place.note(&format!("{name} {}", ctx.thread_id()))?;
                let pause = state["pause_ms"].as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok(json!({"by": [format!("{name}:{by}")]}))
            }
        }
    };
    let ask = |state: Value, ctx: Context| async move {
        if state["asks"] == json!(true) {
            let answer: Value = ctx.interrupt(json!("go on?")).await?;
            return Ok(json!({"answer": answer}));
        }
        Ok(Value::Null)
    };
    let asks = if version >= "3" { "ask_again" } else { "ask" };
    Graph::dynamic("long")
        .version(version)
        .versions(match policy {
            "latest" => VersionPolicy::Latest,
            "migrate" => VersionPolicy::migrate(|from, mut values| {
                values.insert("moves".to_owned(), json!([from]));
                Ok::<_, String>(values)
            }),
            _ => VersionPolicy::Pinned,
        })
        .channel("asks", Channel::Last)
        .channel("pause_ms", Channel::Last)
        .channel("answer", Channel::Last)
        .channel("moves", Channel::Last)
        .channel("by", list())
        .node("first", note("first"))
        .node(asks, ask)
        .node("second", note("second"))
        .node("third", note("third"))
        .edge(START, "first")
        .edge("first", asks)
        .edge(asks, "second")
        .edge("second", "third")
        .edge("third", END)
        .build()
        .expect("the graph is right as written")
        .into()
}
