//! The checkpoints of a thread as a timeline: what ran, what it changed, what came next.
//!
//! Pure: views in, a table out. One row a checkpoint, oldest first, and under it a row for each
//! question or error of the tasks that followed it. Where views come from is left to the
//! commands.

use std::fmt::Write as _;

use comfy_table::Table;
use serde_json::{Map, Value};
use superstep_graph::NodeName;
use superstep_wire::time::to_rfc3339;
use superstep_worker::{CheckpointView, TaskView};

use crate::output::{seconds, short_json, shorten, table};

/// The longest text of one changed key.
const CHANGE_CHARS_MAX: usize = 72;

/// Which columns a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// What happened.
    Story,
    /// Also when, and the checkpoint's id.
    Ids,
}

/// The timeline of `newest_first`; of a page that does not begin with the first checkpoint,
/// `older` is the one before it.
pub(crate) fn timeline(
    newest_first: &[CheckpointView],
    older: Option<&CheckpointView>,
    columns: Columns,
) -> Table {
    let mut timeline = match columns {
        Columns::Story => table(["step", "source", "ran", "changed", "next"], &["changed"]),
        Columns::Ids => table(
            [
                "step",
                "source",
                "ran",
                "changed",
                "next",
                "time",
                "checkpoint",
            ],
            &["changed"],
        ),
    };
    let mut before = older;
    for view in newest_first.iter().rev() {
        let mut row = vec![
            view.step.to_string(),
            view.source.to_owned(),
            ran(before, view),
            changed(before.map(|before| &before.values), &view.values),
            next(&view.next),
        ];
        if columns == Columns::Ids {
            row.push(seconds(&to_rfc3339(view.created_at)));
            row.push(view.checkpoint_id.clone());
        }
        timeline.add_row(row);
        for task in &view.tasks {
            for (what, text) in happened(task) {
                timeline.add_row(["", what, task.name.as_str(), text.as_str(), ""]);
            }
        }
        before = Some(view);
    }
    timeline
}

/// What a task asked, or how it failed.
fn happened(task: &TaskView) -> Vec<(&'static str, String)> {
    let asked = task.interrupts.iter().map(|interrupt| {
        let question = short_json(&interrupt.value, CHANGE_CHARS_MAX * 2);
        ("interrupt", format!("asks {question}"))
    });
    let failed = task.error.iter().map(|error| {
        let text = format!("{}: {}", error.kind, error.message);
        ("error", shorten(&text, CHANGE_CHARS_MAX * 2))
    });
    asked.chain(failed).collect()
}

/// The nodes whose writes the checkpoint holds.
fn ran(before: Option<&CheckpointView>, view: &CheckpointView) -> String {
    match (before, view.source) {
        (Some(before), "loop") => counted(before.tasks.iter().map(|task| &task.name)),
        _ => "-".to_owned(),
    }
}

fn next(nodes: &[NodeName]) -> String {
    if nodes.is_empty() {
        "(end)".to_owned()
    } else {
        counted(nodes.iter())
    }
}

/// Names in their order, each once, with how often it is there.
pub(crate) fn counted<'a>(names: impl Iterator<Item = &'a NodeName>) -> String {
    let mut counts: Vec<(&NodeName, usize)> = Vec::new();
    for name in names {
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let mut text = String::new();
    for (name, count) in counts {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = match count {
            1 => write!(text, "{comma}{name}"),
            count => write!(text, "{comma}{name} x{count}"),
        };
    }
    text
}

/// The keys whose values differ, one a line.
fn changed(before: Option<&Map<String, Value>>, after: &Map<String, Value>) -> String {
    let gone = before
        .into_iter()
        .flat_map(Map::keys)
        .filter(|key| !after.contains_key(*key))
        .map(|key| format!("{key} removed"));
    let lines: Vec<String> = after
        .iter()
        .filter(|(key, value)| before.and_then(|before| before.get(*key)) != Some(value))
        .map(|(key, value)| format!("{key} = {}", short_json(value, CHANGE_CHARS_MAX)))
        .chain(gone)
        .collect();
    if lines.is_empty() {
        "-".to_owned()
    } else {
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(before: &Value, after: &Value, expected: &str) {
        let before = before.as_object();
        assert_eq!(changed(before, after.as_object().unwrap()), expected);
    }

    #[test]
    fn only_what_differs_is_a_change() {
        check(&json!({"a": 1}), &json!({"a": 1}), "-");
        check(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3}), "b = 3");
        check(&json!({"a": 1}), &json!({}), "a removed");
        check(&Value::Null, &json!({"a": null}), "a = null");
    }

    #[test]
    fn repeated_nodes_are_counted() {
        let names: Vec<NodeName> = ["a", "b", "a"].into_iter().map(NodeName::new).collect();
        assert_eq!(counted(names.iter()), "a x2, b");
    }
}
