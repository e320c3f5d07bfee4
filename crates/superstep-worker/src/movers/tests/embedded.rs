//! Versions in one process: a thread that another program left, under a version not held here.
//!
//! The rules are those of workers; who holds a version is all that differs.

use superstep_protocol::{Refusal, ThreadId};

use super::*;
use crate::{Local, RunOptions, answers};

fn local(log: &Arc<MemoryLog>, graphs: impl IntoIterator<Item = RunnableGraph>) -> Local {
    let mut held = Graphs::new();
    for graph in graphs {
        held.add(graph);
    }
    let log = Arc::clone(log) as _;
    Local::new(held, log, Arc::new(SystemWorld), settings())
}

fn thread() -> ThreadId {
    "t".into()
}

/// A thread that a program left which held version 1; it asks.
async fn left() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new());
    let old = local(&log, [first()]);
    let input = json!({"by": [], "said": "nothing"});
    let ended = old
        .invoke(&id("g", "1"), &thread(), input, RunOptions::default())
        .await;
    assert_eq!(ended.unwrap().interrupts.len(), 1);
    log
}

#[tokio::test]
async fn a_held_version_takes_the_thread_over_in_place() {
    let log = left().await;
    let new = local(&log, [version("2", "ask", VersionPolicy::Latest)]);
    let ended = new.resume(&thread(), answers(json!("yes"), None)).await;
    assert_eq!(ended.unwrap().values["by"], json!(["2", "done by 2"]));
}

#[tokio::test]
async fn a_migration_runs_in_place() {
    let log = left().await;
    let policy = VersionPolicy::migrate(|from, mut values: Map<String, Value>| {
        values.insert("by".to_owned(), json!([format!("from {from}")]));
        Ok::<_, &str>(values)
    });
    let new = local(&log, [version("2", "ask", policy)]);
    let ended = new.resume(&thread(), answers(json!("yes"), None)).await;
    let by = json!(["from 1", "2", "done by 2"]);
    assert_eq!(ended.unwrap().values["by"], by);
}

#[tokio::test]
async fn a_pinned_thread_is_refused_before_its_answer_is_taken() {
    let log = left().await;
    let new = local(&log, [version("2", "ask", VersionPolicy::Pinned)]);
    let error = new.resume(&thread(), answers(json!("yes"), None)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("graph `g@1` of thread `t`"), "{error}");
    assert!(error.contains("it holds g@2"), "{error}");
    let state = new.state(&thread()).await.unwrap().unwrap();
    assert_eq!(state.interrupts.len(), 1);
    // The program that holds its version can go on with it.
    let old = local(&log, [first()]);
    let ended = old.resume(&thread(), answers(json!("yes"), None)).await;
    assert_eq!(ended.unwrap().values["by"], json!(["1", "done by 1"]));
}

#[tokio::test]
async fn a_missing_node_is_refused_in_place() {
    let log = left().await;
    let new = local(&log, [version("2", "other", VersionPolicy::Latest)]);
    let error = new.resume(&thread(), answers(json!("yes"), None)).await;
    let Err(Error::Refused(Refusal::MissingNode { node, .. })) = error else {
        panic!("{error:?}");
    };
    assert_eq!(node.as_str(), "ask");
    let state = new.state(&thread()).await.unwrap().unwrap();
    assert_eq!(state.interrupts.len(), 1);
}

#[tokio::test]
async fn new_input_begins_on_the_version_that_is_held() {
    let log = left().await;
    let old = local(&log, [first()]);
    let ended = old.resume(&thread(), answers(json!("yes"), None)).await;
    ended.unwrap();
    let new = local(&log, [version("2", "ask", VersionPolicy::Pinned)]);
    let input = json!({"said": "again"});
    let begun = new
        .invoke(&id("g", "2"), &thread(), input, RunOptions::default())
        .await;
    assert_eq!(begun.unwrap().interrupts.len(), 1);
    let found = new.threads().load(&thread()).await.unwrap().unwrap();
    assert_eq!(found.state.graph, id("g", "2"));
}
