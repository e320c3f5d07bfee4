//! Moments: what there is to tell when a round begins, a task ends, a record is appended.
//!
//! The order is LangGraph's (`pregel/_loop.py`): the state that a run goes on from comes first,
//! then the checkpoint, then the beginnings of all of its tasks with the results of those that
//! are finished, then each end; after the superstep the new state, and so on.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use superstep_graph::{
    ChannelName, Checkpoint, Graph, InterruptId, NodeName, START, Source, Task, Write, input_of,
    read_output, read_state,
};
use superstep_protocol::{
    Committed, Dispatch, Progress, Raised, Record, RecordBody, RunError, StreamMode, TaskResult,
    Then, ThreadState, checkpoint_id,
};

use super::Stream;
use crate::{
    compute::stops_after,
    run_task::horizon_of,
    view::{finished, interrupts, last_asked, so_far, written},
};

/// How an error handler is called that takes the place of a node.
const HANDLER: &str = "__error_handler__";

/// How a task's end came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskEnd {
    /// It ran.
    Ran,
    /// Its result was made before.
    Cached,
}

/// The tasks of a superstep are about to run, or were found to be finished.
pub(crate) fn round_begins(stream: &Stream, graph: &Graph, state: &ThreadState, round: Dispatch) {
    let step = state.next_step();
    // A round that its own checkpoint opened has told of that.
    if state.saved.is_none_or(|(head, _)| head != round) {
        values(stream, step, graph, &state.checkpoint);
        checkpoint(stream, graph, state);
    }
    let tasks = || state.tasks.iter().filter(|task| task.task.node != START);
    for task in tasks() {
        stream.send_debugged(StreamMode::Tasks, step, "task", || {
            began(graph, state, &task.task)
        });
    }
    for task in tasks() {
        if let Progress::Finished {
            writes, handled, ..
        } = &task.progress
        {
            let name = name_of(&task.task, handled.as_ref());
            updates(stream, graph, step, &name, writes, TaskEnd::Cached);
        }
    }
}

/// A run goes on with what was there, and finds nothing to do.
pub(crate) fn nothing_left(stream: &Stream, graph: &Graph, state: &ThreadState) {
    values(stream, state.next_step(), graph, &state.checkpoint);
    checkpoint(stream, graph, state);
}

/// The nodes of a superstep, as far as [`appended`] needs them: none if nobody wants to know
/// whether it stopped after one.
pub(crate) fn nodes_of(stream: &Stream, state: &ThreadState) -> Vec<NodeName> {
    if !stream.wants(StreamMode::Updates) {
        return Vec::new();
    }
    state
        .tasks
        .iter()
        .map(|task| task.task.node.clone())
        .collect()
}

/// A task ended so. A node whose error handler took its place has ended before, by its error.
pub(crate) fn task_ended(
    stream: &Stream,
    graph: &Graph,
    state: &ThreadState,
    task: &Task,
    result: &TaskResult,
    end: TaskEnd,
) {
    if task.node == START {
        return;
    }
    let step = state.next_step();
    let ended = |name: &str, data: &dyn Fn() -> Map<String, Value>| {
        if end == TaskEnd::Ran {
            stream.send_debugged(StreamMode::Tasks, step, "task_result", || {
                let mut object = Map::from_iter([
                    ("type".to_owned(), json!("result")),
                    ("id".to_owned(), json!(task.id)),
                    ("name".to_owned(), json!(name)),
                ]);
                object.extend(data());
                Value::Object(object)
            });
        }
    };
    let with = |result: Map<String, Value>, key: &str, value: Value| {
        let mut data = Map::from_iter([("result".to_owned(), Value::Object(result))]);
        data.insert(key.to_owned(), value);
        data
    };
    match result {
        TaskResult::Finished {
            writes, handled, ..
        } => {
            let name = name_of(task, handled.as_ref());
            updates(stream, graph, step, &name, writes, end);
            ended(&name, &|| {
                let result = wrote(graph, writes);
                Map::from_iter([("result".to_owned(), Value::Object(result))])
            });
        }
        TaskResult::Failed { error, writes, .. } => {
            let writes = writes.as_deref().unwrap_or_default();
            if !writes.is_empty() {
                updates(stream, graph, step, task.node.as_str(), writes, end);
            }
            ended(task.node.as_str(), &|| {
                with(wrote(graph, writes), "error", json!(error))
            });
        }
        // A subgraph that stopped at a breakpoint asks nothing, and has told of it; nor does a
        // task that waits for a time.
        TaskResult::Interrupted { .. } | TaskResult::Paused(_) if result.raised().is_empty() => {}
        TaskResult::Interrupted { .. } | TaskResult::Paused(_) => {
            let raised = result.raised();
            let asked: Value = raised.iter().map(|raised| question(task, raised)).collect();
            stream.send(
                StreamMode::Updates,
                step,
                || json!({"__interrupt__": asked}),
            );
            stream.send(StreamMode::Values, step, || {
                let mut values = read(stream, graph, &state.checkpoint);
                values["__interrupt__"] = asked.clone();
                values
            });
            ended(task.node.as_str(), &|| {
                with(Map::new(), "interrupts", asked.clone())
            });
        }
    }
}

/// Whether a record is of a run, and may end it; those of an update from outside are not.
pub(crate) fn is_of_run(body: &RecordBody) -> bool {
    match body {
        RecordBody::Committed(committed) => committed.run.is_some(),
        RecordBody::Amended(_)
        | RecordBody::Interrupted(_)
        | RecordBody::Failed(_)
        | RecordBody::Resumed { .. }
        | RecordBody::Retried { .. } => true,
        RecordBody::Cancelled { spares, .. } => !spares,
        RecordBody::Displaced(displaced) => displaced.run.is_some(),
        _ => false,
    }
}

/// A record was appended that made `state`; `ran` are the nodes of the superstep that it ends.
pub(crate) fn appended(
    stream: &Stream,
    graph: &Graph,
    ran: &[NodeName],
    record: &Record,
    state: &ThreadState,
) {
    match &record.body {
        // What is no run's tells nothing: an update from outside.
        RecordBody::Committed(committed) if committed.run.is_some() => {
            saved(stream, graph, ran, committed, state);
        }
        RecordBody::Amended(_) if !state.is_running() => nothing_left(stream, graph, state),
        RecordBody::Interrupted(parked) if !stream.is_inside() => {
            let step = state.next_step();
            let writes = state.tasks.iter().filter_map(|task| match &task.progress {
                Progress::Finished { writes, .. } => Some(writes.as_slice()),
                _ => None,
            });
            let mut writes = writes.flatten();
            if writes.any(|write| graph.state_channels().contains(&write.channel))
                && stream.wants(StreamMode::Values)
                && let Ok(so_far) = so_far(state, graph, true)
            {
                values(stream, step, graph, &so_far);
            }
            let mut results = parked.results.values();
            let asks = results.any(|result| !result.raised().is_empty());
            if !asks {
                breakpoint(stream, step);
            }
        }
        _ => {}
    }
}

/// A checkpoint was saved: the state that it holds if it changed, what it triggers, whether the
/// run stops there.
fn saved(
    stream: &Stream,
    graph: &Graph,
    ran: &[NodeName],
    committed: &Committed,
    state: &ThreadState,
) {
    let wrote = if stream.is_inside() {
        committed.output
    } else {
        committed.traces.iter().any(|trace| !trace.wrote.is_empty())
    };
    if wrote {
        values(stream, committed.step, graph, &state.checkpoint);
    }
    if committed.source == Source::Fork {
        values(stream, state.next_step(), graph, &state.checkpoint);
    }
    checkpoint(stream, graph, state);
    let stops = match committed.then {
        Then::Break => true,
        Then::Complete => {
            let terms = state.run.as_ref().map(|run| &run.terms);
            stops_after(graph, terms, ran)
        }
        Then::Run | Then::Wait | Then::Fail(_) => false,
    };
    if stops && !stream.is_inside() {
        breakpoint(stream, state.next_step());
    }
}

fn breakpoint(stream: &Stream, step: i64) {
    stream.send(StreamMode::Updates, step, || json!({"__interrupt__": []}));
}

fn values(stream: &Stream, step: i64, graph: &Graph, checkpoint: &Checkpoint) {
    stream.send(StreamMode::Values, step, || read(stream, graph, checkpoint));
}

/// The channels that a run shows: a subgraph its output, the graph itself all of its state.
fn shown<'a>(stream: &Stream, graph: &'a Graph) -> &'a BTreeSet<ChannelName> {
    if stream.is_inside() {
        graph.output_channels()
    } else {
        graph.state_channels()
    }
}

fn read(stream: &Stream, graph: &Graph, checkpoint: &Checkpoint) -> Value {
    if stream.is_inside() {
        read_output(graph, checkpoint)
    } else {
        read_state(graph, checkpoint)
    }
}

/// The checkpoint of `state`, told by the superstep that follows it.
fn checkpoint(stream: &Stream, graph: &Graph, state: &ThreadState) {
    let step = state.next_step();
    stream.send_debugged(StreamMode::Checkpoints, step, "checkpoint", || {
        let tasks: Vec<Value> = state
            .tasks
            .iter()
            .map(|task| {
                let mut shown = json!({"id": task.task.id, "name": task.task.node});
                if let Some(error) = &task.error {
                    shown["error"] = json!(error);
                }
                if !task.questions.is_empty() {
                    shown["interrupts"] = json!(interrupts(last_asked(task)));
                }
                if let Some(result) = finished(task) {
                    shown["result"] = Value::Object(result);
                }
                shown
            })
            .collect();
        let next: Vec<&NodeName> = state.tasks.iter().map(|task| &task.task.node).collect();
        json!({
            "checkpoint_id": state.saved.map(|(head, time)| checkpoint_id(head, time)),
            "values": read_state(graph, &state.checkpoint),
            "next": next,
            "source": state.checkpoint.source.as_str(),
            "step": state.checkpoint.step,
            "tasks": tasks,
        })
    });
}

fn began(graph: &Graph, state: &ThreadState, task: &Task) -> Value {
    json!({
        "type": "task",
        "id": task.id,
        "name": task.node,
        "input": input_of(graph, &state.checkpoint, task, horizon_of(state)),
        "triggers": task.triggers,
    })
}

/// What a task wrote, under its name; a channel that it wrote twice makes a list.
fn updates(stream: &Stream, graph: &Graph, step: i64, name: &str, writes: &[Write], end: TaskEnd) {
    stream.send(StreamMode::Updates, step, || {
        let mut object = Map::new();
        let mut list = Vec::new();
        for write in writes_to(shown(stream, graph), writes) {
            let (channel, value) = (write.channel.to_string(), written(&write.value));
            list.push(json!({channel.as_str(): value}));
            object.insert(channel, value);
        }
        let update = if list.is_empty() {
            Value::Null
        } else if object.len() < list.len() {
            Value::Array(list)
        } else {
            Value::Object(object)
        };
        let mut data = json!({name: update});
        if end == TaskEnd::Cached {
            data["__metadata__"] = json!({"cached": true});
        }
        data
    });
}

/// What a task wrote, by channel; the values of a channel that it wrote twice under `$writes`.
fn wrote(graph: &Graph, writes: &[Write]) -> Map<String, Value> {
    let mut object: Map<String, Value> = Map::new();
    let mut twice: Vec<String> = Vec::new();
    for write in writes_to(graph.state_channels(), writes) {
        let (channel, value) = (write.channel.to_string(), written(&write.value));
        match object.get_mut(&channel) {
            None => {
                object.insert(channel, value);
            }
            Some(before) if twice.contains(&channel) => {
                if let Some(values) = before["$writes"].as_array_mut() {
                    values.push(value);
                }
            }
            Some(before) => {
                *before = json!({"$writes": [before.take(), value]});
                twice.push(channel);
            }
        }
    }
    object
}

fn writes_to<'a>(
    channels: &'a BTreeSet<ChannelName>,
    writes: &'a [Write],
) -> impl Iterator<Item = &'a Write> {
    writes
        .iter()
        .filter(move |write| channels.contains(&write.channel))
}

fn question(task: &Task, raised: &Raised) -> Value {
    let id = match &raised.id {
        Some(id) => id.clone(),
        None => InterruptId::of(&task.id, raised.index),
    };
    json!({"id": id, "value": raised.payload})
}

/// The node's name, or its error handler's.
fn name_of(task: &Task, handled: Option<&RunError>) -> String {
    match handled {
        None => task.node.to_string(),
        Some(_) => format!("{HANDLER}{}", task.node),
    }
}
