//! The client over the log and queue in memory, with a worker or without.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_graph::{ChannelKind, END, GraphBuilder, NodeSpec, Reducer, START};
use superstep_protocol::{GraphId, Profile, ThreadStatus};
use superstep_queue::memory::{MemoryQueue, MemoryQueueSettings};
use superstep_wire::RefusalKind;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Node, NodeContext, NodeError, NodeReturn, RunnableGraph, Worker, WorkerSettings};

const SOON: Duration = Duration::from_secs(20);

async fn ask(_: Value, ctx: NodeContext) -> Result<NodeReturn, NodeError> {
    let node = ctx.node().to_string();
    let answer: Value = ctx.interrupt(json!({"from": node})).await?;
    Ok(NodeReturn::Update(json!({"answers": [answer]})))
}

/// A graph whose nodes each ask one question, all in one superstep.
fn asking(name: &str, nodes: &[&str]) -> RunnableGraph {
    let mut builder = GraphBuilder::new();
    builder.channel("answers", ChannelKind::Reduce(Reducer::Append));
    let mut functions: BTreeMap<_, Arc<dyn Node>> = BTreeMap::new();
    for node in nodes {
        builder
            .node(NodeSpec::new(*node))
            .edge(START, *node)
            .edge(*node, END);
        functions.insert((*node).into(), Arc::new(ask));
    }
    let id = GraphId {
        name: name.into(),
        version: "1".into(),
    };
    RunnableGraph::new(id, builder.compile().unwrap(), functions).unwrap()
}

/// A client, and a worker if `works`; the worker ends when the token is cancelled.
fn client(works: bool) -> (Client, tokio_util::sync::DropGuard) {
    client_of(works, Profile::Default)
}

/// As `client`, with threads of this profile.
fn client_of(works: bool, profile: Profile) -> (Client, tokio_util::sync::DropGuard) {
    let log: Arc<dyn ThreadLog> = Arc::new(MemoryLog::new());
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(MemoryQueueSettings::default()).unwrap());
    let subjects = Subjects::new("superstep", "default").unwrap();
    let shutdown = CancellationToken::new();
    if works {
        let mut graphs = Graphs::new();
        graphs.add(asking("one", &["a"]));
        graphs.add(asking("two", &["a", "b"]));
        let worker = Worker::new(
            graphs,
            Arc::clone(&log),
            Arc::clone(&queue),
            subjects.clone(),
            Arc::new(SystemWorld),
            WorkerSettings {
                profile,
                hold_back: Duration::from_millis(50),
                ..WorkerSettings::default()
            },
        );
        tokio::spawn(worker.run(shutdown.clone()));
    }
    (Client::new(log, queue, subjects), shutdown.drop_guard())
}

fn with_id(id: &str) -> Sending {
    Sending {
        command_id: Some(id.into()),
        ..Sending::default()
    }
}

fn answer(value: Value) -> ResumeCommand {
    ResumeCommand {
        resume: Some(value),
        ..ResumeCommand::default()
    }
}

/// Starts a run on thread `t` and waits until it asks.
async fn started(client: &Client, graph: &str) -> Vec<OpenInterrupt> {
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let start = StartCommand {
        thread_id: Some("t".to_owned()),
        input: Some(json!({"answers": []})),
        ..StartCommand::default()
    };
    let sent = client
        .start(&graph.into(), start, &Sending::default())
        .await
        .unwrap();
    let run = sent.run_id().expect("accepted").clone();
    let end = watching.run_end(&run, SOON).await.unwrap();
    match end.expect("it asks in time").ended {
        Ended::Interrupted { interrupts, .. } => interrupts,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(sent: &Sent, expected: RefusalKind) {
    match sent {
        Sent::Refused { refusal, .. } => assert_eq!(refusal.kind, expected, "{sent:?}"),
        _ => panic!("{sent:?} is not refused"),
    }
}

#[tokio::test]
async fn a_plain_answer_goes_to_the_one_open_question() {
    let (client, _worker) = client(true);
    assert_eq!(started(&client, "one").await.len(), 1);
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let resume = answer(json!("yes"));
    let sent = client
        .resume(&thread, resume, &Sending::default())
        .await
        .unwrap();
    let run = sent.run_id().expect("accepted").clone();
    let end = watching.run_end(&run, SOON).await.unwrap();
    let Some(Ended::Completed { values }) = end.map(|end| end.ended) else {
        panic!("the run did not complete");
    };
    assert_eq!(values.unwrap()["answers"], json!(["yes"]));
    let detail = client.thread(&thread).await.unwrap().unwrap();
    assert_eq!(detail.status, ThreadStatus::Idle);
}

#[tokio::test]
async fn a_plain_answer_is_not_sent_where_several_questions_are_open() {
    let (client, _worker) = client(true);
    let open = started(&client, "two").await;
    assert_eq!(open.len(), 2);
    let thread = ThreadId::new("t");
    let how = Sending::default();
    let sent = client
        .resume(&thread, answer(json!(1)), &how)
        .await
        .unwrap();
    refused(&sent, RefusalKind::Ambiguous);
    assert_eq!(client.interrupts_of(&thread).await.unwrap(), open);
    let both = json!({
        (open[0].interrupt_id.as_str()): 1,
        (open[1].interrupt_id.as_str()): 2,
    });
    let sent = client.resume(&thread, answer(both), &how).await.unwrap();
    assert!(matches!(sent, Sent::Accepted { .. }), "{sent:?}");
}

#[tokio::test]
async fn an_answer_nobody_waits_for_is_refused_without_a_worker() {
    let (client, _none) = client(false);
    let how = Sending::default();
    let thread = ThreadId::new("nobody");
    let sent = client
        .resume(&thread, answer(json!(1)), &how)
        .await
        .unwrap();
    refused(&sent, RefusalKind::UnknownThread);
}

#[tokio::test]
async fn the_same_command_again_has_the_same_outcome() {
    let (client, _worker) = client(true);
    started(&client, "one").await;
    let (thread, how) = (ThreadId::new("t"), with_id("answer-1"));
    let resume = || answer(json!("yes"));
    let first = client.resume(&thread, resume(), &how).await.unwrap();
    assert!(matches!(first, Sent::Accepted { .. }), "{first:?}");
    let second = client.resume(&thread, resume(), &how).await.unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_command_without_a_worker_is_stored() {
    let (client, _none) = client(false);
    let how = Sending {
        wait: Duration::from_millis(20),
        ..with_id("start-1")
    };
    let start = StartCommand::default();
    let sent = client.start(&"one".into(), start, &how).await.unwrap();
    assert!(matches!(sent, Sent::Stored { .. }), "{sent:?}");
    assert_eq!(*sent.thread_id(), client.thread_of(&"start-1".into()));
    assert!(sent.run_id().is_some());
}

#[tokio::test]
async fn a_deleted_thread_is_gone_and_told() {
    let (client, _worker) = client(true);
    started(&client, "one").await;
    let thread = ThreadId::new("t");
    let mut events = client
        .events(&superstep_queue::EventFilter::default())
        .await
        .unwrap();
    let how = Sending::default();
    let sent = client.delete(&thread, &how).await.unwrap();
    assert!(matches!(sent, Sent::Accepted { .. }), "{sent:?}");
    assert_eq!(client.thread(&thread).await.unwrap(), None);
    let next = tokio::time::timeout(SOON, events.next()).await.unwrap();
    let (event, _) = next.unwrap().expect("the queue lives");
    assert_eq!(event.kind, superstep_wire::EventKind::ThreadDeleted);
    refused(
        &client.delete(&thread, &how).await.unwrap(),
        RefusalKind::UnknownThread,
    );
}

#[tokio::test]
async fn a_client_with_the_graph_shows_what_is_done() {
    let (plain, _worker) = client(true);
    let mut graphs = Graphs::new();
    graphs.add(asking("two", &["b", "a"]));
    let client = plain.clone().with_graphs(graphs);
    let open = started(&plain, "two").await;
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let one = json!({ (open[0].interrupt_id.as_str()): "yes" });
    let sent = client
        .resume(&thread, answer(one), &Sending::default())
        .await
        .unwrap();
    let run = sent.run_id().expect("accepted").clone();
    let end = watching.run_end(&run, SOON).await.unwrap();
    let Some(Ended::Interrupted { values, interrupts }) = end.map(|end| end.ended) else {
        panic!("the other question is not open");
    };
    assert_eq!(values["answers"], json!(["yes"]));
    assert_eq!(interrupts.len(), 1);
    let known = client.thread(&thread).await.unwrap().unwrap().state;
    assert_eq!(known.values["answers"], json!(["yes"]));
    let names: Vec<&str> = known.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    let unknown = plain.thread(&thread).await.unwrap().unwrap().state;
    assert_ne!(unknown.values.get("answers"), Some(&json!(["yes"])));
    let newest = client.history(&thread, None, 1).await.unwrap().remove(0);
    assert_eq!(newest.next, ["b", "a"]);
}

/// Sends an update of thread `t` and waits for its end.
async fn updated(client: &Client, values: Value) -> UpdateEnd {
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let update = UpdateCommand {
        values: Some(values),
        as_node: Some("a".to_owned()),
        ..UpdateCommand::default()
    };
    let how = Sending::default();
    let sent = client.update(&thread, &update, &how).await.unwrap();
    let Sent::Accepted { record, .. } = sent else {
        panic!("{sent:?} is not accepted");
    };
    let record = record.unwrap().parse().unwrap();
    let end = watching.update_end(record, SOON).await.unwrap();
    end.expect("it ends in time")
}

#[tokio::test]
async fn an_update_ends_applied_or_declined() {
    let (client, _worker) = client(true);
    started(&client, "one").await;
    let applied = updated(&client, json!({"answers": ["so"]})).await;
    assert_eq!(applied, UpdateEnd::Applied);
    let thread = ThreadId::new("t");
    let state = client.thread(&thread).await.unwrap().unwrap().state;
    assert_eq!(state.values["answers"], json!(["so"]));
    let declined = updated(&client, json!("no object")).await;
    let UpdateEnd::Declined { refusal } = declined else {
        panic!("{declined:?}");
    };
    assert_eq!(refusal.kind(), "invalid_update");
}

/// Sends a plain answer to thread `t` and waits for the end of its run.
async fn answered(client: &Client, value: Value) -> Ended {
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let how = Sending::default();
    let sent = client.resume(&thread, answer(value), &how).await.unwrap();
    let run = sent.run_id().expect("accepted").clone();
    let end = watching.run_end(&run, SOON).await.unwrap();
    end.expect("it ends in time").ended
}

#[tokio::test]
async fn langgraph_takes_an_answer_to_no_question() {
    let (client, _worker) = client_of(true, Profile::Langgraph);
    let open = started(&client, "one").await;
    let Ended::Interrupted { interrupts, .. } = answered(&client, json!({})).await else {
        panic!("an empty object answers a question");
    };
    assert_eq!(interrupts[0].interrupt_id, open[0].interrupt_id);
    for value in ["yes", "unused"] {
        let Ended::Completed { values } = answered(&client, json!(value)).await else {
            panic!("the run did not complete");
        };
        assert_eq!(values.unwrap()["answers"], json!(["yes"]));
    }
}

/// Sends a command to thread `t` and waits for the end of its run.
async fn commanded(client: &Client, command: ResumeCommand) -> Ended {
    let thread = ThreadId::new("t");
    let watching = client.watch(&thread).await.unwrap();
    let how = Sending::default();
    let sent = client.resume(&thread, command, &how).await.unwrap();
    assert!(matches!(sent, Sent::Accepted { .. }), "{sent:?}");
    let run = sent.run_id().expect("accepted").clone();
    let end = watching.run_end(&run, SOON).await.unwrap();
    end.expect("it ends in time").ended
}

#[tokio::test]
async fn a_declined_command_ends_the_wait_for_its_run() {
    let (client, _worker) = client(true);
    let open = started(&client, "one").await;
    let nowhere = ResumeCommand {
        goto: Some(json!("nowhere")),
        ..ResumeCommand::default()
    };
    let Ended::Declined { refusal } = commanded(&client, nowhere).await else {
        panic!("there is no such node");
    };
    assert_eq!(refusal.kind(), "invalid_update");
    let told = serde_json::to_value(Ended::Declined { refusal }).unwrap();
    assert_eq!(told["status"], "declined");
    assert_eq!(told["refusal"]["kind"], "invalid_update");
    let thread = ThreadId::new("t");
    assert_eq!(client.interrupts_of(&thread).await.unwrap(), open);
}

#[tokio::test]
async fn a_command_answers_and_changes_the_state() {
    let (client, _worker) = client(true);
    started(&client, "one").await;
    let command = ResumeCommand {
        update: Some(json!({"answers": ["before"]})),
        ..answer(json!("yes"))
    };
    let Ended::Completed { values } = commanded(&client, command).await else {
        panic!("the run did not complete");
    };
    assert_eq!(values.unwrap()["answers"], json!(["before", "yes"]));
}

#[tokio::test]
async fn a_thread_is_read_and_goes_on_at_a_checkpoint() {
    let (client, _worker) = client(true);
    started(&client, "one").await;
    let thread = ThreadId::new("t");
    let asks = client.history(&thread, None, 1).await.unwrap().remove(0);
    answered(&client, json!("yes")).await;
    let read = client.thread_at(&thread, &asks.checkpoint_id).await;
    assert_eq!(read.unwrap().unwrap().values["answers"], json!([]));

    let again = ResumeCommand {
        checkpoint_id: Some(asks.checkpoint_id),
        ..ResumeCommand::default()
    };
    let Ended::Interrupted { interrupts, values } = commanded(&client, again).await else {
        panic!("it does not ask again");
    };
    assert_eq!(interrupts.len(), 1);
    assert_eq!(values["answers"], json!([]));
    let elsewhere = "01957f2e-6a3b-7c1d-8e4f-0123456789ab";
    let error = client.thread_at(&thread, elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("has no checkpoint"), "{error}");
    let nobody = ThreadId::new("nobody");
    assert_eq!(client.thread_at(&nobody, elsewhere).await.unwrap(), None);
}

#[tokio::test]
async fn langgraph_begins_a_thread_by_a_command() {
    let (client, _worker) = client_of(true, Profile::Langgraph);
    let command = ResumeCommand {
        graph: Some("one".to_owned()),
        update: Some(json!({"answers": ["first"]})),
        ..answer(json!("lost"))
    };
    let Ended::Interrupted { interrupts, .. } = commanded(&client, command).await else {
        panic!("it does not ask");
    };
    assert_eq!(interrupts.len(), 1, "the answer had no question");
    let thread = ThreadId::new("u");
    let empty = ResumeCommand {
        graph: Some("one".to_owned()),
        ..ResumeCommand::default()
    };
    let sent = client.resume(&thread, empty, &Sending::default()).await;
    refused(&sent.unwrap(), RefusalKind::InvalidInput);
}
