//! A task's writes enter the channels once, and only on the answers that are in the log.
//!
//! Every node of a simulated graph appends one entry to `log`: itself, its task, and the answers
//! that it was given. So a superstep must append exactly the entries of the tasks that the state
//! before it held, each with the answers that the state recorded for it.

use serde_json::{Value, json};
use superstep_graph::{START, Source};
use superstep_protocol::{RecordBody, TaskState};

use super::{Invariant, ensure};
use crate::{
    graphs::{INSIDE, inner_nodes},
    ledger::{Facts, Seen, Step},
};

pub(super) struct AppliedOnce;

/// The entries as texts, so that they can be sorted: in a subgraph, siblings that were asked
/// together may be answered in any order.
fn sorted(values: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut texts: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    texts.sort();
    texts
}

fn appended(step: &Step<'_>) -> Result<(), String> {
    let (Some(before), RecordBody::Committed(committed)) = (step.before, &step.record.body) else {
        return Ok(());
    };
    if committed.source != Source::Loop {
        return Ok(());
    }
    let (thread, head) = (step.thread, step.record.head);
    let log = |values: &superstep_graph::Checkpoint| -> Vec<Value> {
        let log = values.values.get("log").and_then(Value::as_array);
        log.cloned().unwrap_or_default()
    };
    let (old, mut all) = (log(&before.state.checkpoint), log(&step.state.checkpoint));
    ensure(all.len() >= old.len() && all[..old.len()] == old, || {
        format!("{thread}: {head} changed what the log held before")
    })?;
    let written = all.split_off(old.len());
    let is_inside = |entry: &Value| {
        let node = entry["node"].as_str();
        node.is_some_and(|node| node.starts_with(INSIDE))
    };
    let (inside, written): (Vec<_>, Vec<_>) = written.into_iter().partition(is_inside);
    let tasks = before
        .state
        .tasks
        .iter()
        .filter(|task| task.task.node != START);
    let (calls, tasks): (Vec<&TaskState>, Vec<_>) =
        tasks.partition(|task| inner_nodes(task.task.node.as_str()) > 0);
    let used = inside
        .iter()
        .flat_map(|entry| entry["answers"].as_array().into_iter().flatten());
    let answers = calls.iter().flat_map(|task| &task.questions);
    let answers = answers.filter_map(|question| Some(question.answer.as_ref()?.value.clone()));
    let (used, answered) = (sorted(used.cloned()), sorted(answers));
    let expected: usize = calls
        .iter()
        .map(|task| inner_nodes(task.task.node.as_str()))
        .sum();
    ensure(used == answered && inside.len() == expected, || {
        format!(
            "{thread}: {head} applied {} of a subgraph, which was answered {answered:?}",
            Value::from(inside.clone())
        )
    })?;
    // Packets run first and are applied last, so the order is not that of the tasks.
    let facts = |node: &Value, task: &Value, answers: &Value| json!([node, task, answers]);
    let entries = written
        .iter()
        .map(|entry| facts(&entry["node"], &entry["task"], &entry["answers"]));
    let tasks = tasks.iter().map(|task| {
        facts(
            &json!(task.task.node),
            &json!(task.task.id),
            &json!(task.answers()),
        )
    });
    let (entries, tasks) = (sorted(entries), sorted(tasks));
    ensure(entries == tasks, || {
        format!("{thread}: {head} applied {entries:?}, and its tasks and answers are {tasks:?}")
    })
}

impl Invariant for AppliedOnce {
    fn name(&self) -> &'static str {
        "applied once"
    }

    fn look(&mut self, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step),
            _ => Ok(()),
        }
    }
}
