//! Views: what a person or client sees of a thread, made from its state and records.
//!
//! Pure. The shapes follow LangGraph's StateSnapshot; ids are those of the contract.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};
use superstep_graph::{
    Checkpoint, Contribution, Graph, InterruptId, InvalidUpdate, NodeName, TaskId, TaskPath,
    WriteValue, apply, read_state,
};
use superstep_protocol::{
    Durability, Head, Profile, Progress, Question, Raised, Record, RecordBody, RunError, RunId,
    TaskState, ThreadState, TracedWrite, UnixMillis, checkpoint_id, is_internal,
};

use crate::{child::child_of, graphs::RunnableGraph};

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
    /// Why it failed last, if it ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Its questions: the open ones of a live state, the last ones of a record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interrupts: Vec<InterruptView>,
    /// What it wrote to the state; absent while it is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Map<String, Value>>,
    /// The state of its subgraph, if that was asked for and its call has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<StateView>>,
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
    /// The run that saved it.
    #[serde(skip)]
    pub(crate) run: Option<RunId>,
}

/// What a view needs of the state before a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    /// The checkpoint that the record builds on.
    saved: Option<(Head, UnixMillis)>,
    /// Whether the run writes what it did when it ends.
    exits: bool,
}

impl Before {
    pub(crate) fn of(before: &ThreadState, record: &Record) -> Self {
        Self {
            saved: match &record.body {
                RecordBody::Committed(committed) => before.builds_on(committed.closes),
                _ => before.saved,
            },
            exits: exits(before),
        }
    }
}

fn exits(state: &ThreadState) -> bool {
    let run = state.run.as_ref();
    run.is_some_and(|run| run.terms.durability == Durability::Exit)
}

impl CheckpointView {
    /// Takes in the next record of a log, in order, with the state after it and what there is to
    /// know of the one before; `graph` is as for [`StateView::of`].
    pub(crate) fn observe(
        views: &mut Vec<Self>,
        record: &Record,
        before: Option<Before>,
        state: &ThreadState,
        graph: Option<&Graph>,
    ) {
        let RecordBody::Committed(committed) = &record.body else {
            // What a new run or a cancel gives up stays to be seen.
            let gives_up = matches!(
                record.body,
                RecordBody::Started { .. }
                    | RecordBody::Cancelled { .. }
                    | RecordBody::Displaced(_)
                    | RecordBody::DeadlinePassed { .. }
                    | RecordBody::Retried { again: true, .. }
            );
            if let Some(view) = Self::of_saved(views, state.saved).filter(|_| !gives_up) {
                view.note_progress(record, state);
                if let RecordBody::Amended(_) = &record.body {
                    view.values = values(state, &state.checkpoint, graph);
                }
            }
            return;
        };
        let base = before.and_then(|before| before.saved);
        // A run that writes when it ends adds nothing to what was written before.
        if let Some(parent) = Self::of_saved(views, base)
            && before.is_none_or(|before| !before.exits)
        {
            parent.note_traces(committed);
        }
        let mut parent = base.map(|(head, time)| checkpoint_id(head, time));
        if committed
            .as_node
            .as_ref()
            .is_some_and(|node| node == "__copy__")
        {
            // A copy made by hand stands beside what it is a copy of.
            let copied = Self::of_saved(views, base);
            parent = copied.and_then(|copied| copied.parent_checkpoint_id.clone());
        }
        // Of a run that writes what it did when it ends, only its last checkpoint is shown.
        if let (Some(last), Some(before)) = (views.last(), before)
            && Some(&last.checkpoint_id) == parent.as_ref()
            && last.run.is_some()
            && last.run == committed.run
            && before.exits
        {
            parent.clone_from(&last.parent_checkpoint_id);
            views.pop();
        }
        let tasks = task_views(state, graph);
        views.push(Self {
            checkpoint_id: checkpoint_id(record.head, record.time),
            parent_checkpoint_id: parent,
            version: record.head.version,
            created_at: record.time,
            source: committed.source.as_str(),
            step: committed.step,
            values: values(state, &state.checkpoint, graph),
            next: tasks.iter().map(|task| task.name.clone()).collect(),
            tasks,
            run: committed.run.clone(),
        });
    }

    fn of_saved(views: &mut [Self], saved: Option<(Head, UnixMillis)>) -> Option<&mut Self> {
        let (head, _) = saved?;
        let mut views = views.iter_mut().rev();
        views.find(|view| view.version == head.version)
    }

    /// What the tasks did since, as a record keeps it: questions and errors stay to be seen.
    fn note_progress(&mut self, record: &Record, state: &ThreadState) {
        for task in &mut self.tasks {
            let Some(now) = state.task(&task.id) else {
                continue;
            };
            if let Some(asked) = asked_in(record, &task.id) {
                task.interrupts = asked;
            }
            if now.error.is_some() {
                task.error.clone_from(&now.error);
            }
            if let Some(result) = finished(now) {
                task.result = Some(result);
            }
        }
    }

    fn note_traces(&mut self, committed: &superstep_protocol::Committed) {
        for trace in &committed.traces {
            if let Some(task) = self.tasks.iter_mut().find(|task| task.id == trace.task) {
                if trace.handled.is_some() {
                    task.error.clone_from(&trace.handled);
                    continue;
                }
                let mut result = Map::new();
                for write in &trace.wrote {
                    match write {
                        TracedWrite::AsDelta(channel) => {
                            if let Some(value) = committed.delta.value_written(channel) {
                                result.insert(channel.to_string(), value);
                            }
                        }
                        // An untracked value is in no saved state, so not in its history either.
                        TracedWrite::Value(write)
                            if committed.delta.untracked.contains_key(&write.channel) => {}
                        TracedWrite::Value(write) => {
                            result.insert(write.channel.to_string(), written(&write.value));
                        }
                    }
                }
                task.result = Some(result);
            }
        }
    }
}

/// The open questions in the order in which their tasks were planned.
pub(crate) fn open_interrupts(state: &ThreadState) -> Vec<InterruptView> {
    interrupts(state.open_questions().map(|(_, question)| question))
}

pub(crate) fn interrupts<'a>(questions: impl Iterator<Item = &'a Question>) -> Vec<InterruptView> {
    questions
        .map(|question| InterruptView {
            id: question.id.clone(),
            value: question.payload.clone(),
        })
        .collect()
}

/// The questions that a task asked in the round that a record ended, if it asked any.
fn asked_in(record: &Record, task: &TaskId) -> Option<Vec<InterruptView>> {
    let (RecordBody::Interrupted(parked) | RecordBody::Failed(parked)) = &record.body else {
        return None;
    };
    let raised = parked.results.get(task)?.raised();
    let view = |raised: &Raised| InterruptView {
        id: raised.id_for(task),
        value: raised.payload.clone(),
    };
    (!raised.is_empty()).then(|| raised.iter().map(view).collect())
}

/// What is shown of a task's questions: the open ones. LangGraph shows what a task asked last
/// until the task is done.
fn shown(state: &ThreadState, task: &TaskState) -> Vec<InterruptView> {
    match task.progress {
        Progress::Failed { .. } if state.profile == Profile::Langgraph => {
            interrupts(last_asked(task))
        }
        _ => interrupts(task.open_questions()),
    }
}

/// The open questions of a task, else those that it asked last.
pub(crate) fn last_asked(task: &TaskState) -> impl Iterator<Item = &Question> {
    let mut open = task.open_questions().peekable();
    let asked = open.peek().is_none().then(|| task.asked_last());
    open.chain(asked.into_iter().flatten())
}

/// What a finished task wrote. What an error handler wrote in its place is not its own.
pub(crate) fn finished(task: &TaskState) -> Option<Map<String, Value>> {
    match &task.progress {
        Progress::Finished {
            writes,
            handled: None,
            ..
        } => Some(result(writes)),
        _ => None,
    }
}

fn result(writes: &[superstep_graph::Write]) -> Map<String, Value> {
    writes
        .iter()
        .filter(|write| !is_internal(write.channel.as_str()))
        .map(|write| (write.channel.to_string(), written(&write.value)))
        .collect()
}

/// A written value as the node returned it.
pub(crate) fn written(value: &WriteValue) -> Value {
    match value {
        WriteValue::Set(value) => value.clone(),
        WriteValue::Overwrite(value) => json!({"__overwrite__": value}),
    }
}

/// Whether tasks are listed that a command added to a checkpoint: LangGraph lists none of them,
/// and shows nothing of what they did before the superstep is over.
pub(crate) fn shows_added(state: &ThreadState) -> bool {
    state.profile == Profile::Default
}

/// The channels as far as the current superstep has come: with the writes that are parked, of
/// tasks that a command added too if `added`.
///
/// # Errors
/// If those writes cannot be applied together: the superstep has failed by them.
pub(crate) fn so_far<'a>(
    state: &'a ThreadState,
    graph: &Graph,
    added: bool,
) -> Result<Cow<'a, Checkpoint>, InvalidUpdate> {
    if let Some(reason) = &state.spoiled {
        let reason = reason.clone();
        return Err(InvalidUpdate::Spoiled { reason });
    }
    let parked: Vec<Contribution<'_>> = state
        .tasks
        .iter()
        .filter(|task| added || !task.added)
        .filter_map(|task| match &task.progress {
            Progress::Finished { writes, .. } => Some(Contribution::of(&task.task, writes)),
            Progress::Waiting
            | Progress::Open { .. }
            | Progress::Paused { .. }
            | Progress::Failed { .. } => None,
        })
        .collect();
    if parked.is_empty() {
        return Ok(Cow::Borrowed(&state.checkpoint));
    }
    let delta = apply(graph, &state.checkpoint, &parked)?;
    let mut checkpoint = state.checkpoint.clone();
    checkpoint.merge(&delta);
    Ok(Cow::Owned(checkpoint))
}

/// The values of a checkpoint: with the graph at hand, exactly what nodes would read, but for
/// untracked ones, which no saved state has.
fn values(
    state: &ThreadState,
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
) -> Map<String, Value> {
    let mut values = match graph.map(|graph| read_state(graph, checkpoint)) {
        Some(Value::Object(values)) if state.saved.is_some() => values,
        _ => state.visible_values(),
    };
    values.retain(|channel, _| !checkpoint.untracked.contains_key(channel.as_str()));
    values
}

/// The tasks in the order of lists: packets first, then as the graph defines its nodes; without
/// the graph as they were planned.
fn listed<'a>(state: &'a ThreadState, graph: Option<&Graph>) -> Vec<&'a TaskState> {
    let added = shows_added(state);
    // Nor does it know of those that a command took away.
    let dropped = state.dropped.iter().filter(|_| !added);
    let tasks = state.tasks.iter().filter(|task| added || !task.added);
    let mut tasks: Vec<&TaskState> = tasks.chain(dropped).collect();
    if let Some(graph) = graph {
        tasks.sort_by_key(|task| match task.task.path {
            TaskPath::Push(index) => (0, index, 0),
            TaskPath::Pull => (1, 0, graph.definition_order(&task.task.node)),
        });
    }
    tasks
}

fn task_views(state: &ThreadState, graph: Option<&Graph>) -> Vec<TaskView> {
    listed(state, graph)
        .into_iter()
        .map(|task| TaskView {
            id: task.task.id.clone(),
            name: task.task.node.clone(),
            push: matches!(task.task.path, TaskPath::Push(_)),
            error: task.error.clone(),
            interrupts: shown(state, task),
            result: finished(task),
            state: None,
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

impl From<CheckpointView> for StateView {
    fn from(view: CheckpointView) -> Self {
        Self {
            values: view.values,
            next: view.next,
            interrupts: view
                .tasks
                .iter()
                .flat_map(|task| task.interrupts.clone())
                .collect(),
            tasks: view.tasks,
            checkpoint_id: Some(view.checkpoint_id),
            source: Some(view.source),
            step: Some(view.step),
        }
    }
}

impl StateView {
    /// The view of `state`; with the graph at hand, values are exactly what nodes would read, the
    /// parked writes of finished tasks with them, and tasks are listed as the graph defines their
    /// nodes. Parked writes that cannot be applied together are left out.
    pub fn of(state: &ThreadState, graph: Option<&Graph>) -> Self {
        let so_far = graph.and_then(|graph| so_far(state, graph, shows_added(state)).ok());
        let checkpoint = so_far.as_deref().unwrap_or(&state.checkpoint);
        let listed = listed(state, graph);
        let open = listed.iter().flat_map(|task| shown(state, task));
        Self {
            values: values(state, checkpoint, graph),
            next: listed
                .iter()
                .filter(|task| !matches!(task.progress, Progress::Finished { .. }))
                .map(|task| task.task.node.clone())
                .collect(),
            interrupts: open.collect(),
            tasks: task_views(state, graph),
            checkpoint_id: state.saved.map(|(head, time)| checkpoint_id(head, time)),
            source: state.saved.map(|_| state.checkpoint.source.as_str()),
            step: state.saved.map(|_| state.checkpoint.step),
        }
    }

    /// As [`of`](Self::of), with the states of the subgraphs whose calls have begun and are not
    /// over, and of theirs.
    pub fn with_subgraphs(state: &ThreadState, graph: &RunnableGraph) -> Self {
        let mut view = Self::of(state, Some(graph.topology()));
        for task in &mut view.tasks {
            let known = state.task(&task.id);
            let child = known.and_then(|known| child_of(graph, state, known));
            task.state = child.map(|(graph, child)| Box::new(Self::with_subgraphs(&child, graph)));
        }
        view
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
