//! Views: what a person or client sees of a thread, made from its state and records.
//!
//! Pure. The shapes follow LangGraph's StateSnapshot; ids are those of the contract.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use superstep_graph::{Graph, InterruptId, NodeName, TaskId, TaskPath, read_state};
use superstep_protocol::{
    Progress, Record, RecordBody, RunError, ThreadState, TracedWrite, UnixMillis, checkpoint_id,
    is_internal,
};

/// A question as a view shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct InterruptView {
    /// Its id: what an answer names.
    pub id: InterruptId,
    /// What it asks.
    pub value: Value,
}

/// A task as a view shows it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// The node.
    pub name: NodeName,
    /// Whether it came from a send.
    pub push: bool,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Its questions: the open ones of a live state, the last ones of a record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interrupts: Vec<InterruptView>,
    /// What it wrote to the state; absent while it is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Map<String, Value>>,
}

/// A checkpoint of a thread's history.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CheckpointView {
    /// Its id.
    pub checkpoint_id: String,
    /// Its parent's id, if it has one that is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_checkpoint_id: Option<String>,
    /// The version of the record that saved it.
    pub version: u64,
    /// When it was saved.
    #[serde(skip)]
    pub created_at: UnixMillis,
    /// What made it: input, loop, update or fork.
    pub source: &'static str,
    /// The superstep's number.
    pub step: i64,
    /// The state's values after it.
    pub values: Map<String, Value>,
    /// The nodes that come next.
    pub next: Vec<NodeName>,
    /// The tasks that follow it, with what became of them.
    pub tasks: Vec<TaskView>,
}

impl CheckpointView {
    /// Takes in the next record of a log, in order, with the state after it.
    pub(crate) fn observe(views: &mut Vec<Self>, record: &Record, state: &ThreadState) {
        if let RecordBody::Committed(committed) = &record.body {
            if let Some(before) = views.last_mut() {
                before.note_traces(committed);
            }
            let parent = views.last().map(|view| view.checkpoint_id.clone());
            views.push(Self {
                checkpoint_id: checkpoint_id(record.head, record.time),
                parent_checkpoint_id: parent,
                version: record.head.version,
                created_at: record.time,
                source: committed.source.as_str(),
                step: committed.step,
                values: state.visible_values(),
                next: committed
                    .tasks
                    .iter()
                    .map(|task| task.node.clone())
                    .collect(),
                tasks: task_views(state),
            });
            return;
        }
        if let (Some(view), true) = (views.last_mut(), !state.tasks.is_empty()) {
            view.note_progress(state);
        }
    }

    /// What the tasks did since, as a record keeps it: questions and errors stay to be seen.
    fn note_progress(&mut self, state: &ThreadState) {
        for task in &mut self.tasks {
            let Some(now) = state.task(&task.id) else {
                continue;
            };
            if !now.questions.is_empty() {
                task.interrupts = interrupts(now.questions.iter());
            }
            match &now.progress {
                Progress::Failed { error } => task.error = Some(error.clone()),
                Progress::Finished { writes } => task.result = Some(result(writes)),
                Progress::Open { .. } | Progress::Waiting => {}
            }
        }
    }

    fn note_traces(&mut self, committed: &superstep_protocol::Committed) {
        for trace in &committed.traces {
            if let Some(task) = self.tasks.iter_mut().find(|task| task.id == trace.task) {
                let mut result = Map::new();
                for write in &trace.wrote {
                    match write {
                        TracedWrite::AsDelta(channel) => {
                            if let Some(value) = committed.delta.value_written(channel) {
                                result.insert(channel.to_string(), value);
                            }
                        }
                        TracedWrite::Value(write) => {
                            result.insert(write.channel.to_string(), write.value.value().clone());
                        }
                    }
                }
                task.result = Some(result);
            }
        }
    }
}

fn interrupts<'a>(
    questions: impl Iterator<Item = &'a superstep_protocol::Question>,
) -> Vec<InterruptView> {
    questions
        .map(|question| InterruptView {
            id: question.id.clone(),
            value: question.payload.clone(),
        })
        .collect()
}

fn result(writes: &[superstep_graph::Write]) -> Map<String, Value> {
    writes
        .iter()
        .filter(|write| !is_internal(write.channel.as_str()))
        .map(|write| (write.channel.to_string(), write.value.value().clone()))
        .collect()
}

fn task_views(state: &ThreadState) -> Vec<TaskView> {
    state
        .tasks
        .iter()
        .map(|task| TaskView {
            id: task.task.id.clone(),
            name: task.task.node.clone(),
            push: matches!(task.task.path, TaskPath::Push(_)),
            error: match &task.progress {
                Progress::Failed { error } => Some(error.clone()),
                _ => None,
            },
            interrupts: interrupts(task.open_questions()),
            result: match &task.progress {
                Progress::Finished { writes } => Some(result(writes)),
                _ => None,
            },
        })
        .collect()
}

/// A thread as it is now.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StateView {
    /// The state's values.
    pub values: Map<String, Value>,
    /// The nodes that are not finished.
    pub next: Vec<NodeName>,
    /// The tasks of the current superstep.
    pub tasks: Vec<TaskView>,
    /// Every open question.
    pub interrupts: Vec<InterruptView>,
    /// The last checkpoint's id; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
    /// What made the last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    /// The last superstep's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
}

impl StateView {
    /// The view of `state`; with the graph at hand, values are exactly what nodes would read.
    pub fn of(state: &ThreadState, graph: Option<&Graph>) -> Self {
        let values = match graph.map(|graph| read_state(graph, &state.checkpoint)) {
            Some(Value::Object(values)) if state.saved.is_some() => values,
            _ => state.visible_values(),
        };
        let tasks = task_views(state);
        Self {
            values,
            next: state
                .tasks
                .iter()
                .filter(|task| !matches!(task.progress, Progress::Finished { .. }))
                .map(|task| task.task.node.clone())
                .collect(),
            interrupts: interrupts(state.open_questions().map(|(_, question)| question)),
            tasks,
            checkpoint_id: state.saved.map(|(head, time)| checkpoint_id(head, time)),
            source: state.saved.map(|_| state.checkpoint.source.as_str()),
            step: state.saved.map(|_| state.checkpoint.step),
        }
    }

    /// The open questions by task.
    pub fn interrupts_by_task(&self) -> BTreeMap<&TaskId, &[InterruptView]> {
        self.tasks
            .iter()
            .filter(|task| !task.interrupts.is_empty())
            .map(|task| (&task.id, task.interrupts.as_slice()))
            .collect()
    }
}
