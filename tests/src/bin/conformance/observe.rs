//! Observations: what the library showed, in the shape of the format.
//!
//! Pure. Ids of interrupts stay as they are, for `compare` to label; everything else that differs
//! from run to run (checkpoint ids, task ids, times) is left out here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use superstep::{
    CheckpointView, InterruptView, RunError, RunOutput, StateView, StreamEvent, StreamMode,
    TaskView,
};

use crate::{
    case::{Case, GraphSpec},
    script::{OVERWRITE, Step},
};

/// Stands where anything may be expected.
pub(crate) const ANY: &str = "$any";

/// The classes of errors that the nodes of a case raise: what tells theirs from the engine's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes(BTreeSet<String>);

impl Classes {
    /// Those that a case's steps name.
    pub(crate) fn of(case: &Case) -> Self {
        let mut classes = Self::default();
        classes.of_graph(&case.graph);
        classes
    }

    fn of_graph(&mut self, graph: &GraphSpec) {
        for node in &graph.nodes {
            self.of_steps(&node.steps);
            self.of_steps(node.on_error.as_deref().unwrap_or_default());
            if let Some(inner) = &node.graph {
                self.of_graph(inner);
            }
        }
    }

    fn of_steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Fail { class, .. } => {
                    self.0.insert(class.clone());
                }
                Step::If {
                    then, otherwise, ..
                } => {
                    self.of_steps(then);
                    self.of_steps(otherwise);
                }
                _ => {}
            }
        }
    }
}

fn error(error: &RunError, classes: &Classes) -> Value {
    if classes.0.contains(&error.kind) {
        json!({"kind": "node", "class": error.kind, "message": error.message})
    } else {
        json!({"kind": error.kind, "detail": error.message})
    }
}

fn interrupts(interrupts: &[InterruptView]) -> Value {
    interrupts
        .iter()
        .map(|interrupt| json!({"id": interrupt.id, "value": interrupt.value}))
        .collect()
}

/// A run's end, but for what ran.
pub(crate) fn run(output: &RunOutput, classes: &Classes) -> Value {
    if let Some(failed) = &output.error {
        return json!({"error": error(failed, classes)});
    }
    if !output.shows {
        return json!({"result": null});
    }
    let mut result = output.values.clone();
    if output.is_interrupted() {
        result.insert("__interrupt__".to_owned(), interrupts(&output.interrupts));
    }
    json!({"result": result})
}

/// A run's end as one sees it who followed its events: those, and its error if it failed.
pub(crate) fn followed(end: &Value, events: &[StreamEvent], classes: &Classes) -> Value {
    let events: Vec<Value> = events.iter().map(|told| event(told, classes)).collect();
    let mut seen = json!({"events": events});
    if let Some(error) = end.get("error") {
        seen["error"] = error.clone();
    }
    seen
}

fn event(told: &StreamEvent, classes: &Classes) -> Value {
    let mut data = told.data.clone();
    match told.mode {
        StreamMode::Tasks => task_event(&mut data, classes),
        StreamMode::Checkpoints => checkpoint_event(&mut data, classes),
        StreamMode::Debug if data["type"] == "checkpoint" => {
            checkpoint_event(&mut data["payload"], classes);
        }
        StreamMode::Debug => task_event(&mut data["payload"], classes),
        StreamMode::Updates => {
            for update in data.as_object_mut().into_iter().flat_map(Map::values_mut) {
                plain_update(update);
            }
        }
        _ => {}
    }
    let mut seen = json!({"step": told.step, "mode": told.mode, "data": data});
    if !told.path.is_empty() {
        seen["ns"] = json!(*told.path);
    }
    seen
}

/// What a task event has beside the format: ids, and more of an error.
fn task_event(data: &mut Value, classes: &Classes) {
    if let Some(data) = data.as_object_mut() {
        data.remove("id");
        if let Some(told) = data.get_mut("error") {
            plain_error(told, classes);
        }
        if let Some(Value::Object(written)) = data.get_mut("result") {
            *written = result(written);
        }
    }
}

fn checkpoint_event(data: &mut Value, classes: &Classes) {
    if let Some(data) = data.as_object_mut() {
        data.remove("checkpoint_id");
    }
    for task in data["tasks"].as_array_mut().into_iter().flatten() {
        task_event(task, classes);
    }
}

fn plain_error(told: &mut Value, classes: &Classes) {
    if let Ok(failed) = serde_json::from_value::<RunError>(told.clone()) {
        *told = error(&failed, classes);
    }
}

/// An update, or a list of them, with overwrites as the format has them.
fn plain_update(update: &mut Value) {
    match update {
        Value::Object(written) => *written = result(written),
        Value::Array(updates) => updates.iter_mut().for_each(plain_update),
        _ => {}
    }
}

/// The snapshot of a thread that is not there.
pub(crate) fn no_state() -> Value {
    json!({
        "values": {}, "next": [], "source": null, "step": null, "tasks": [], "interrupts": [],
    })
}

/// A live snapshot.
pub(crate) fn state(view: &StateView, classes: &Classes) -> Value {
    json!({
        "values": view.values,
        "next": view.next,
        "source": view.source,
        "step": view.step,
        "tasks": tasks(&view.tasks, classes),
        "interrupts": interrupts(&view.interrupts),
    })
}

/// The snapshots of a history, with the places of their parents. Of the tasks in `unsure`, named
/// by checkpoint and node, the result may be anything.
pub(crate) fn history(
    views: &[CheckpointView],
    classes: &Classes,
    unsure: &[(String, String)],
) -> Value {
    let places: BTreeMap<&str, usize> = views
        .iter()
        .enumerate()
        .map(|(at, view)| (view.checkpoint_id.as_str(), at))
        .collect();
    let snapshots: Vec<Value> = views
        .iter()
        .map(|view| {
            let parent = match &view.parent_checkpoint_id {
                None => Value::Null,
                Some(id) => match places.get(id.as_str()) {
                    Some(at) => json!(at),
                    None => json!("out_of_list"),
                },
            };
            let mut tasks = tasks(&view.tasks, classes);
            for task in &mut tasks {
                let is_unsure = |(checkpoint, node): &(String, String)| {
                    *checkpoint == view.checkpoint_id && task["name"] == json!(node)
                };
                if unsure.iter().any(is_unsure) {
                    task["result"] = json!(ANY);
                }
            }
            let asked: Vec<InterruptView> = view
                .tasks
                .iter()
                .flat_map(|task| task.interrupts.clone())
                .collect();
            json!({
                "values": view.values,
                "next": view.next,
                "source": view.source,
                "step": view.step,
                "tasks": tasks,
                "interrupts": interrupts(&asked),
                "parent": parent,
            })
        })
        .collect();
    json!({"history": snapshots})
}

fn tasks(views: &[TaskView], classes: &Classes) -> Vec<Value> {
    views.iter().map(|view| task(view, classes)).collect()
}

fn task(view: &TaskView, classes: &Classes) -> Value {
    let kind = if view.push { "push" } else { "pull" };
    let mut task = json!({"name": view.name, "kind": kind});
    if let Some(failed) = &view.error {
        task["error"] = error(failed, classes);
    }
    if !view.interrupts.is_empty() {
        task["interrupts"] = interrupts(&view.interrupts);
    }
    if let Some(written) = &view.result {
        task["result"] = Value::Object(result(written));
    }
    if let Some(inner) = &view.state {
        task["state"] = state(inner, classes);
    }
    task
}

/// What a task wrote, with overwrites as the format has them.
fn result(written: &Map<String, Value>) -> Map<String, Value> {
    written
        .iter()
        .map(|(channel, value)| {
            let value = match value {
                Value::Object(object) if object.len() == 1 => match object.get(OVERWRITE) {
                    Some(inner) => json!({"overwrite": inner}),
                    None => value.clone(),
                },
                other => other.clone(),
            };
            (channel.clone(), value)
        })
        .collect()
}
